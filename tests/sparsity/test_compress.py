"""A run as one file: of the length that was asked for, the same in every process, and known where it is damaged."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nerfkit.assess import scene_of
from nerfkit.cli import main
from nerfkit.kernels.coder import Coder
from nerfkit.packed import PackedError, open_packed, open_run, strides_of, write_packed
from nerfkit.render import Model, load_model, render_image
from nerfkit.run import Run, RunError
from nerfkit.sampling.settled import Settled
from nerfkit.scene.scene import Scene
from nerfkit.sparsity.compress import Compression, begin
from nerfkit.sparsity.ratios import PruneError
from nerfkit.sparsity.rounding import Lattice
from nerfkit.sparsity.shown import cells_within, fewer_and_fewer, seen_of_cells

BUDGET = 12_000
DIGEST = """
import hashlib, sys
from pathlib import Path
from nerfkit.packed import open_run
from nerfkit.render import load_model, render_image
from nerfkit.scene import load_scene
from nerfkit.config import DataConfig
model = load_model(open_run(Path(sys.argv[1])))
scene = load_scene(Path(sys.argv[2]), DataConfig())
picture = render_image(model, scene.cameras, 9).rgb
table = model.field.table.detach()
print(hashlib.blake2b(table.numpy().tobytes() + picture.numpy().tobytes()).hexdigest())
"""


@pytest.fixture(scope="module")
def scene(small_run: Path) -> Scene:
    return scene_of(Run.open(small_run))


@pytest.fixture(scope="module")
def compression(small_run: Path, scene: Scene) -> Compression:
    compression = begin(Run.open(small_run), scene, BUDGET, 0.3)
    for _ in compression.learn():
        pass
    return compression


@pytest.fixture(scope="module")
def file(compression: Compression, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("file") / "ball.nerf"
    write_packed(path, compression.file())
    return path


def psnr(model: Model, scene: Scene, other: Tensor) -> float:
    picture = render_image(model, scene.cameras, 9).rgb
    return float(-10 * (picture - other).square().mean().log10())


def test_the_file_has_the_length_that_was_asked_for_and_says_so(file: Path) -> None:
    size = file.stat().st_size
    assert 0.95 * BUDGET <= size <= BUDGET
    run = open_packed(file)
    assert sum(run.section_bytes().values()) == size == run.load_checkpoint().model_bytes
    names = list(run.section_bytes())
    assert names == ["header", "networks", "cells", *[f"level {i}" for i in range(4)], "checksum"]


def test_what_is_read_is_what_was_written(file: Path, compression: Compression) -> None:
    state = open_packed(file).load_checkpoint().field
    ours = compression.model.field.state_dict()
    assert set(state) == set(ours) and all(torch.equal(state[name], ours[name]) for name in ours)
    cells = load_model(open_run(file)).sampler.cells()
    assert torch.equal(cells.occupied, compression.model.sampler.cells().occupied)


def test_a_fresh_process_sees_the_same_to_the_last_bit(file: Path, scene: Scene, small_run: Path) -> None:
    model = load_model(open_run(file))
    picture = render_image(model, scene.cameras, 9).rgb
    known = hashlib.blake2b(model.field.table.detach().numpy().tobytes() + picture.numpy().tobytes()).hexdigest()
    words = [sys.executable, "-c", DIGEST, str(file), str(scene.root)]
    found = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    assert found == known


def test_the_picture_is_still_that_of_the_run(file: Path, scene: Scene, small_run: Path) -> None:
    dense = render_image(load_model(Run.open(small_run)), scene.cameras, 9).rgb
    assert psnr(load_model(open_run(file)), scene, dense) > 22.0


def test_entries_that_no_cell_reaches_change_no_pixel(compression: Compression, scene: Scene) -> None:
    model = compression.model
    before = render_image(model, scene.cameras, 9).rgb
    lost = ~compression.rounding.lattice.coded
    assert bool(lost.any())
    kept = model.field.table.detach().clone()
    with torch.no_grad():
        model.field.table[lost] = torch.nan
    assert torch.equal(render_image(model, scene.cameras, 9).rgb, before)
    with torch.no_grad():
        model.field.table.copy_(kept)


def test_ten_thousand_damaged_files_are_refused(file: Path, tmp_path: Path) -> None:
    data, rng, path = file.read_bytes(), random.Random(0), tmp_path / "x.nerf"
    for trial in range(10_000):
        broken = bytearray(data)
        kind = trial % 4
        if kind == 0:
            broken[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del broken[rng.randrange(len(data)) :]
        elif kind == 2:
            at, n = rng.randrange(len(data)), rng.randint(1, 40)
            broken[at : at + n] = rng.randbytes(n)
        else:
            at = rng.randrange(len(data))
            broken[at:at] = rng.randbytes(rng.randint(1, 9))
        if bytes(broken) == data:
            continue
        path.write_bytes(broken)
        with pytest.raises(PackedError) as error:
            open_packed(path)
        assert "\n" not in str(error.value)


def test_a_file_of_another_version_says_which(file: Path, tmp_path: Path) -> None:
    data = bytearray(file.read_bytes())
    data[7] = 9
    (tmp_path / "x.nerf").write_bytes(data)
    with pytest.raises(PackedError, match="version 9"):
        open_packed(tmp_path / "x.nerf")
    with pytest.raises(PackedError, match="no such file"):
        open_run(tmp_path / "y.nerf")


def test_where_little_is_lost_nothing_is_learnt(small_run: Path, scene: Scene) -> None:
    compression = begin(Run.open(small_run), scene, 300_000, 0.1)
    assert compression.lost < 0.03 and list(compression.learn()) == []
    assert len(compression.file()) <= 300_000


def test_too_few_bytes_are_refused_with_the_least(small_run: Path, scene: Scene) -> None:
    with pytest.raises(PruneError, match=r"^1000 bytes: this scene takes \d+ "):
        begin(Run.open(small_run), scene, 1000, 0.1)


def test_cells_go_as_bytes_get_scarce_and_the_picture_stays(small_run: Path, scene: Scene) -> None:
    """With room for all of them all stay; without, those go that training views see nothing in, or next to nothing."""
    model = load_model(Run.open(small_run))
    occupied, seen = model.sampler.cells().occupied, seen_of_cells(model, scene)
    assert bool((occupied | (seen == 0)).all()), "nothing is seen in an empty cell"
    every = len(Coder().write_cells(occupied))
    dense = render_image(model, scene.cameras, 9).rgb
    for n_bytes in (every, 0):
        cells = cells_within(model, scene, n_bytes)
        assert bool((occupied | ~cells.occupied).all())
        assert len(Coder().write_cells(cells.occupied)) <= every
        assert float(seen[~cells.occupied].sum() / seen.sum()) <= 0.01
        assert n_bytes == 0 or torch.equal(cells.occupied, occupied)
        trimmed = replace(model, sampler=Settled(cells))
        assert psnr(trimmed, scene, dense) > 40.0, "this scene has no cells in which next to nothing is seen"
    assert int(occupied.sum()) > int(next(fewer_and_fewer(occupied, seen.where(seen > seen.max() / 2, 0.0))).sum()) > 0


def test_cells_that_go_are_those_in_which_least_is_seen() -> None:
    """A bright plane, a dim one, and one with a five-thousandth of all, in a cube where all cells are occupied."""
    seen = torch.zeros(1, 32, 32, 32)
    for x, weight in ((4, 1.0), (14, 0.1), (24, 2e-4)):
        seen[0, x] = weight
    planes = [
        set(kept.any(-1).any(-1)[0].nonzero()[:, 0].tolist())
        for kept in fewer_and_fewer(torch.ones_like(seen, dtype=torch.bool), seen)
    ]
    three, two, one = ({x + d for x in (4, 14, 24) for d in range(-n, n + 1)} for n in (3, 2, 1))
    bright = {3, 4, 5, 13, 14, 15}
    assert planes == [three, two, one, one, bright, bright]


def test_longer_steps_make_a_shorter_file(compression: Compression) -> None:
    lattice, values = compression.rounding.lattice, compression.rounding.values
    lengths = [compression.rounding.bytes_fn(lattice.scaled(factor), values) for factor in (0.5, 1.0, 2.0, 4.0)]
    assert lengths == sorted(lengths, reverse=True) and len(set(lengths)) == 4


def test_a_lattice_learns_its_costs(compression: Compression) -> None:
    layout = compression.rounding.lattice.layout
    values = torch.zeros(layout.n_entries, layout.n_features)
    values[::50] = 1.0
    everything = torch.ones(layout.n_entries, dtype=torch.bool)
    lattice = Lattice(layout, everything, [1.0] * layout.n_levels, torch.zeros_like(values))
    n_bytes = lattice.learn_costs(values)
    entropy = -(0.02 * torch.tensor(0.02).log2() + 0.98 * torch.tensor(0.98).log2()) + 0.02
    assert n_bytes == pytest.approx(float(entropy) * values.numel() / 8, rel=0.02)
    rise, _ = lattice.costs[-1]
    assert rise == pytest.approx(float(torch.tensor(0.98 / 0.02).log2()) + 1.0, abs=0.2)


def test_dense_levels_know_their_neighbours(compression: Compression) -> None:
    layout = compression.rounding.lattice.layout
    assert strides_of(layout, 0) == (layout.resolutions[0], layout.resolutions[0] ** 2)
    assert strides_of(layout, layout.n_levels - 1) == (0, 0)


def call(*words: object) -> int:
    return main([str(word) for word in words])


def test_verbs_take_the_file(small_run: Path, scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ball.nerf"
    assert call("compress", small_run, "--bytes", "12kB", "--steps", 0.1, "-o", out) == 0
    assert capsys.readouterr().out.strip() == str(out) and out.stat().st_size <= 12_000
    assert call("eval", out, "--scene", scene.root) == 0
    metrics = json.loads((tmp_path / "ball-nerf" / "metrics.json").read_text())
    assert metrics["model_bytes"] == out.stat().st_size and metrics["psnr"] > 13.0
    page = (tmp_path / "ball-nerf" / "report.html").read_text()
    assert "Held-out views" in page and str(tmp_path) not in page
    film = tmp_path / "a.mp4"
    assert call("render", out, "--scene", scene.root, "--frames", 2, "--out", film) == 0 and film.exists()
    assert call("compare", small_run, out, "--out", tmp_path / "both.html") == 0
    assert "no pictures" not in capsys.readouterr().err
    assert call("eval", out) == 1 and "say --scene" in capsys.readouterr().err
    assert call("compress", small_run, "--bytes", "11kB", "--steps", 0.1, "-o", out) == 0
    stale = [(tmp_path / "ball-nerf" / name).exists() for name in ("metrics.json", "report.html")]
    assert stale == [False, False], "these were of another file"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--bytes", "many"], "expected a size such as"),
        (["--bytes", "10"], "10 bytes: this scene takes"),
        (["--out", "x.zip"], "expected a name such as x.nerf"),
        (["--steps", "-1"], "of the run's steps"),
    ],
)
def test_what_cannot_be_compressed_is_told(
    small_run: Path, capsys: pytest.CaptureFixture[str], words: list[str], text: str
) -> None:
    assert call("compress", small_run, *words) in (1, 2)
    assert text in capsys.readouterr().err
    assert not small_run.with_name("run.nerf").exists()


def test_a_file_is_not_trained_on(file: Path) -> None:
    with pytest.raises(RunError):
        Run.open(file)
