"""Tiles trained one after another: as many ordinary trainings, one run, and an interruption leaves no trace."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nerfkit.assess import cost_of, evaluate_run, whole_cost
from nerfkit.cli import main
from nerfkit.config import Config, DataConfig, FieldConfig, SamplerConfig, TrainConfig
from nerfkit.render import render_image
from nerfkit.run import Run, RunError
from nerfkit.scene import load_scene
from nerfkit.scene.scene import Scene
from nerfkit.scene.tiling import part_of
from nerfkit.tiles import LISTING, Tiles, folder_of, load, parts_of, tiling_of
from nerfkit.train.loop import fit
from nerfkit.train.progress import Report
from nerfkit.train.tiled import Standing, fit_tiles, share_of

CONFIG = Config(
    field=FieldConfig(n_levels=4, log2_table_size=11, base_resolution=8, finest_resolution=64, width=16),
    sampler=SamplerConfig(resolution=32, n_steps=64, update_every=4, warmup_steps=12, observe_every=2, n_probes=1000),
    train=TrainConfig(steps=40, samples_per_step=16384, report_every=5, warmup_steps=5, seed=3, tiles="2x1"),
    engine="cpu",
)
WORDS = (
    "--engine cpu --train.samples-per-step 8192 --train.report-every 5 --field.n-levels 4 "
    "--field.log2-table-size 11 --field.finest-resolution 64 --sampler.resolution 32 --sampler.n-probes 1000"
).split()


@pytest.fixture
def room(toy_room: Path) -> Scene:
    return load_scene(toy_room, DataConfig())


def new_run(scene: Scene, folder: Path, config: Config = CONFIG) -> Run:
    frame = scene.frame.to_dict()
    return Run.create(folder, config, scene.root, scene.name, frame, scene.fingerprint, scene.splits, ["test"])


def interrupted(scene: Scene, folder: Path, n_reports: int) -> Run:
    run = new_run(scene, folder)
    with closing(fit_tiles(scene, run)) as reports:
        for number, _ in enumerate(reports, 1):
            if number == n_reports:
                break
    return run


def assert_same(one: Run, other: Run) -> None:
    for number in range(2):
        a, b = (Run.open(folder_of(run, number)).load_checkpoint() for run in (one, other))
        assert a.step == b.step
        for part in ("field", "sampler", "optimizer"):
            tensors, others = getattr(a, part), getattr(b, part)
            assert [name for name in tensors if not tensors[name].equal(others[name])] == []


@pytest.fixture
def through(room: Scene, tmp_path: Path) -> tuple[Run, list[Report]]:
    run = new_run(room, tmp_path / "through")
    return run, list(fit_tiles(room, run))


def test_reports_are_those_of_one_training(through: tuple[Run, list[Report]]) -> None:
    run, reports = through
    assert [report.step for report in reports] == list(range(5, 45, 5))
    assert [report.progress for report in reports] == pytest.approx([n / 8 for n in range(1, 9)])
    seconds = [report.seconds for report in reports]
    assert seconds == sorted(seconds) and reports[-1].eta == 0.0 < reports[3].eta
    records = run.read_log()
    assert [(r["step"], r["tile"]) for r in records] == [(5 * n, 1 + (n > 4)) for n in range(1, 9)]


def test_each_tile_is_trained_as_a_scene_of_its_own(room: Scene, tmp_path: Path) -> None:
    config = replace(CONFIG, train=replace(CONFIG.train, steps=10))
    run = new_run(room, tmp_path / "run", config)
    list(fit_tiles(room, run))
    own = share_of(config, 1, 2)
    alone = new_run(room, tmp_path / "alone", own)
    list(fit(part_of(room, tiling_of(run), 1), own, alone))
    tile, other = Run.open(folder_of(run, 1)).load_checkpoint(), alone.load_checkpoint()
    assert all(tile.field[name].equal(other.field[name]) for name in tile.field)


# 1 and 4 are in the first tile and at its end, 5 and 6 in the second.
@pytest.mark.parametrize("n_reports", [1, 4, 5, 6])
def test_an_interruption_leaves_no_trace(
    n_reports: int, room: Scene, through: tuple[Run, list[Report]], tmp_path: Path
) -> None:
    run = interrupted(room, tmp_path / "cut", n_reports)
    standing = Standing.of(run)
    assert standing.step == 5 * n_reports
    run.resume(standing.step, ["test", "--resume"])
    later = list(fit_tiles(room, run))
    assert_same(run, through[0])
    assert [report.step for report in later] == [report.step for report in through[1][n_reports:]]
    assert [report.loss for report in later] == [report.loss for report in through[1][n_reports:]]
    assert [record["step"] for record in run.read_log()] == list(range(5, 45, 5))
    assert list(fit_tiles(room, run)) == []


def test_a_tile_killed_before_its_first_checkpoint_begins_again(
    room: Scene, through: tuple[Run, list[Report]], tmp_path: Path
) -> None:
    run = interrupted(room, tmp_path / "cut", 6)
    shutil.rmtree(folder_of(run, 1) / "checkpoints")
    assert Standing.of(run).step == 20
    with pytest.raises(RunError, match="cut: 1 of its 2 tiles are trained; nerfkit train --resume goes on"):
        load(run)
    list(fit_tiles(room, run))
    assert_same(run, through[0])


def test_a_run_killed_before_it_knew_its_tiles_begins_again(room: Scene, tmp_path: Path) -> None:
    run = new_run(room, tmp_path / "run")
    assert Standing.of(run) == Standing() and not (run.path / LISTING).exists()
    with closing(fit_tiles(room, run)) as reports:
        next(reports)
    assert len(tiling_of(run)) == 2


def test_time_and_steps_are_shared_evenly() -> None:
    by_steps = [share_of(replace(CONFIG, train=replace(CONFIG.train, steps=11)), n, 4).train for n in range(4)]
    assert [train.steps for train in by_steps] == [3, 3, 3, 2] and {train.tiles for train in by_steps} == {""}
    by_time = share_of(replace(CONFIG, train=replace(CONFIG.train, steps=0, time_budget=60.0)), 0, 4).train
    assert (by_time.steps, by_time.time_budget) == (0, 15.0)
    assert share_of(replace(CONFIG, train=replace(CONFIG.train, steps=2)), 3, 4).train.steps == 1


def test_it_is_judged_as_a_whole(room: Scene, through: tuple[Run, list[Report]]) -> None:
    run, reports = through
    model = load(run)
    assert isinstance(model, Tiles) and len(model.models) == len(parts_of(run)) == 2
    record = evaluate_run(run, room)
    assert record["n_steps"] == 40 and record["train_seconds"] == pytest.approx(reports[-1].seconds)
    assert (run.path / "report.html").exists() and record["n_images"] == len(room.splits["test"])
    costs = [cost_of(part, part.load_checkpoint()) for part in parts_of(run)]
    whole = whole_cost(run)
    assert whole.model_bytes == sum(cost.model_bytes for cost in costs)
    assert (
        min(c.train_samples_per_ray for c in costs)
        <= whole.train_samples_per_ray
        <= max(c.train_samples_per_ray for c in costs)
    )
    moved = run.path.rename(run.path.with_name("moved"))
    a, b = (render_image(m, room.cameras, 0, "sky").rgb for m in (model, load(Run.open(moved))))
    assert torch.equal(a, b)


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, list[str]]:
    """Exit code, and what was said."""
    capsys.readouterr()
    try:
        code = main([str(word) for word in words])
    except SystemExit as error:
        code = error.code
    return code, [line for line in capsys.readouterr().err.splitlines() if not line.startswith("nerfkit: engine")]


def test_the_command_learns_the_room_in_tiles(
    toy_room: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    code, said = call(capsys, "train", toy_room, "--out", out, "--tiles", "2x1", "--steps", 600, *WORDS)
    assert code == 0, said
    assert said[0].startswith("nerfkit: tile 1 of 2: ") and "views" in said[0]
    # A grey picture scores 9 dB.
    assert json.loads((out / "metrics.json").read_text())["psnr"] > 11
    assert call(capsys, "eval", out, "--split", "train")[0] == 0
    assert call(capsys, "render", out, "--path", "test", "--depth", "--out", tmp_path / "film")[0] == 0
    assert call(capsys, "export", out, "--points", 500, "--kind", "points", "--out", tmp_path / "p.ply")[0] == 0
    assert call(capsys, "compare", out, out, "--out", tmp_path / "c.html")[0] == 0
    assert call(capsys, "eval", out / "tiles" / "1")[0] == 0  # a tile is a run itself
    assert call(capsys, "train", "--resume", out, "--no-eval")[0] == 0
    code, said = call(capsys, "train", "--resume", out, "--tiles", "2x2")
    assert code == 2 and "train.tiles is 2x1 in this run, not 2x2" in said[-1]
    pytest.importorskip("trimesh")
    code, said = call(capsys, "export", out, "--out", tmp_path / "x.glb")
    assert code == 1 and said == [
        f"nerfkit: {out}: a mesh is made of one model, this is in tiles: export {out}/tiles/1"
    ]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--tiles", "0"], "expected a number of tiles from 2 to 64, or two such as 2x2, found '0'"),
        (["--tiles", ""], "expected a number of tiles from 2 to 64"),
        (["--tiles", "axb"], "found 'axb'"),
        (["--tiles", "2x2", "--train.poses"], "train.poses: each tile would find its own"),
        (["--tiles", "2x2", "--train.exposure"], "train.exposure: each tile would find its own"),
        (["--tiles", "2x2", "--view"], "--view: tiles are put together when all are trained"),
        (["--tiles", "2x2"], "ball: is an object alone in its box, which one model holds; leave out --tiles"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(
    words: list[str], text: str, toy_scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = call(capsys, "train", toy_scene, "--out", tmp_path / "run", *WORDS, *words)
    assert code != 0 and len(said) == 1 and text in said[0], said
    assert not (tmp_path / "run").exists()


def test_tiles_that_are_not_all_trained_are_told(
    room: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = interrupted(room, tmp_path / "cut", 2)
    for words in (["eval", run.path], ["render", run.path], ["export", run.path, "--kind", "points"]):
        code, said = call(capsys, *words)
        assert code == 1 and "1 of its 2 tiles are trained" in said[-1] and len(said) == 1
