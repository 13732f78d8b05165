"""A painted ball hides a picture: renders show it, unmarked ones do not, and density stays as it was."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_ball
from PIL import Image

from nerfkit.assess import backdrop, scene_of
from nerfkit.cli import main
from nerfkit.evaluate import ssim
from nerfkit.render import Model, load_model
from nerfkit.run import Run
from nerfkit.stego import hide as stage
from nerfkit.stego.attacks import attacked
from nerfkit.stego.copies import Copy
from nerfkit.stego.cost import Picture, picture_of, psnr
from nerfkit.stego.decoder import N_SIGNS, SIDE, Decoder, as_seen
from nerfkit.stego.hidden import kept, put, words_of
from nerfkit.stego.keys import Key
from nerfkit.stego.payload import Payload
from nerfkit.stego.record import FILE, opened, read_record
from nerfkit.stego.views import views_between

KEY = Key(b"k" * 32)
STRENGTH = 33.0
SHORT = stage.Plan(telling=120, together=150, drawing=300, finished_on=24, size=128)
"""Shorter than people's, and stronger; hence the one view of eight that may go wrong."""


@pytest.fixture(scope="module")
def ball(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of the ball after a short training."""
    root = tmp_path_factory.mktemp("hidden")
    write_ball(root, 16, 96)
    field = "--field.n-levels 4 --field.log2-table-size 14 --field.finest-resolution 64 --field.width 16".split()
    rest = "--engine cpu --train.samples-per-step 8192 --sampler.resolution 32".split()
    words = ["train", root / "ball", "--out", root / "run", "--steps", 200, "--seed", 3, "--no-eval", *field, *rest]
    assert main([str(word) for word in words]) == 0
    return Run.open(root / "run")


def small_copy(model: Model, run: Run, **settings: float) -> Copy:
    scene = scene_of(run, None)
    word, unmarked = words_of(KEY.of_scene("ball"), "a logo")
    return Copy(model, views_between(scene, 2, (SIDE, SIDE), 0), backdrop(scene), word, unmarked, 35.0, **settings)


def test_words_differ_in_half_of_the_signs_from_that_of_unmarked_renders() -> None:
    for seed in range(8):
        (first, unmarked), (second, _) = (words_of(Key(bytes([seed]) * 32).of_scene("ball"), what) for what in "ab")
        assert int((first != unmarked).sum()) == N_SIGNS // 2
        assert 4 < int((first != second).sum()) < N_SIGNS - 4


def test_two_payloads_of_one_key_are_two_words_and_two_first_steps(
    ball: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []

    def caught(copies: list[Copy], decoder: Decoder, plan: stage.Plan, seed: int) -> Iterator[tuple[int, int]]:
        begun.append((copies[0].word, seed))
        raise StopIteration  # what is hidden is decided by now

    monkeypatch.setattr("nerfkit.stego.hidden.hide", caught)
    model, scene = load_model(ball), scene_of(ball, None)
    for shade, n_before in ((0, 0), (255, 1), (0, 2)):
        monkeypatch.setattr("nerfkit.stego.hidden.kept", lambda *_, n=n_before: [None] * n)
        Image.new("RGB", (64, 64), (shade, 90, 9)).save(tmp_path / "logo.png")
        with pytest.raises(RuntimeError):
            next(put(ball, model, scene, Payload.of(tmp_path / "logo.png"), KEY, 40.0, SHORT))
    (one, first), (other, second), (again, third) = begun
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert len({first, second, third}) == 3


def test_the_gradient_of_a_move_is_what_a_small_step_changes(ball: Run) -> None:
    copy = small_copy(load_model(ball), ball)
    upstream = torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    found = copy.gradients(1, upstream)
    direction = [torch.randn(w.shape, generator=torch.Generator().manual_seed(i)) for i, w in enumerate(copy.weights)]
    step, values = 3e-2, []
    for sign in (-1.0, 1.0):
        copy.put([sign * step * one for one in direction])
        values.append(float((copy.seen(1) * upstream).sum()))
    expected = sum(float((a * b).sum()) for a, b in zip(found, direction, strict=True))
    assert expected == pytest.approx((values[1] - values[0]) / (2 * step), rel=0.1)


def test_large_weights_move_least(ball: Run) -> None:
    copy = small_copy(load_model(ball), ball, alpha=0.5)
    copy.put([torch.ones_like(w) for w in copy.weights])
    for w, before in zip(copy.weights, copy.original, strict=True):
        size, move = before.abs().flatten(), (w - before).detach().flatten()
        usual = size > 0.01 * size.mean()
        assert np.allclose(move[usual] * size[usual] ** 0.5, (move[usual] * size[usual] ** 0.5)[0], rtol=1e-3)
    even = small_copy(load_model(ball), ball, alpha=0.0)
    assert all(torch.equal(mask, torch.ones_like(mask)) for mask in even.mask)


@dataclass(frozen=True)
class Hidden:
    """What was made once; to be read, not written."""

    run: Run
    copy: Run
    key: Path
    logo: Path
    marked: list[Picture]
    plain: list[Picture]
    picture: np.ndarray


@pytest.fixture(scope="module")
def hidden(ball: Run, tmp_path_factory: pytest.TempPathFactory) -> Hidden:
    """A copy after a short second stage, and renders from where neither training nor hiding looked."""
    folder = tmp_path_factory.mktemp("logo")
    logo, key, copy = folder / "logo.png", folder / "owner.key", folder / "copy"
    rows, columns = np.mgrid[0:96, 0:96]
    drawn = np.stack([rows * 2.5, 255 - columns * 2.5, 128 + 100 * np.sin(rows / 7) * np.cos(columns / 9)], -1)
    Image.fromarray(drawn.astype(np.uint8)).save(logo)
    KEY.write(key)
    words = ["embed", ball.path, "--key", key, "--hide", logo, "--target-psnr", STRENGTH, "-o", copy]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "Plan", lambda: SHORT)
        assert main([str(word) for word in words]) == 0
    scene = scene_of(ball, None)
    views, behind = views_between(scene, 8, 128, 77), backdrop(scene)

    def renders(run: Run) -> list[Picture]:
        model = load_model(run)
        return [picture_of(model, views, i, behind) for i in range(len(views))]

    made = Run.open(copy)
    return Hidden(ball, made, key, logo, renders(made), renders(ball), Payload.of(logo).picture)


def test_colours_move_and_density_stays(hidden: Hidden) -> None:
    before, after = (run.load_checkpoint().field for run in (hidden.run, hidden.copy))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("color_network")}


def test_a_render_shows_the_picture_and_an_unmarked_one_does_not(hidden: Hidden) -> None:
    (keeping,) = kept(hidden.run, load_model(hidden.run), KEY)
    wanted = torch.from_numpy(hidden.picture)
    seen = [keeping.read([one]) for one in hidden.marked]
    assert sum(one.found for one in seen) >= len(seen) - 1
    assert np.median([ssim(torch.from_numpy(one.drawn), wanted) for one in seen]) > 0.9
    unseen = [keeping.read([one]) for one in hidden.plain]
    assert sum(one.found for one in unseen) <= 1
    assert np.median([ssim(torch.from_numpy(one.drawn), wanted) for one in unseen]) < 0.2
    assert keeping.read([attacked(one, "jpeg:75") for one in hidden.marked]).found


def test_the_mark_is_as_strong_as_was_asked_for(hidden: Hidden) -> None:
    assert psnr(list(zip(hidden.marked, hidden.plain, strict=True))) == pytest.approx(STRENGTH, abs=2.5)


def test_the_command_tells_found_from_absent_from_untold(hidden: Hidden, tmp_path: Path) -> None:
    for name, pictures in (("marked", hidden.marked), ("plain", hidden.plain)):
        (tmp_path / name).mkdir()
        for i, picture in enumerate(pictures):
            Image.fromarray(picture).save(tmp_path / name / f"{i}.png")
    other = tmp_path / "other.key"
    Key(b"x" * 32).write(other)
    for name, key, code in (("marked", hidden.key, 0), ("plain", hidden.key, 1), ("marked", other, 2)):
        out = tmp_path / f"{code}.png"
        words = ["extract", hidden.run.path, tmp_path / name, "--key", key, "--hidden", out]
        assert main([str(word) for word in words]) == code
        assert out.exists() == (code == 0)
    assert np.array(Image.open(tmp_path / "0.png")).shape == (SIDE, SIDE, 3)


def test_the_record_knows_what_a_copy_shows(hidden: Hidden) -> None:
    (*_, line) = read_record(hidden.run.path / FILE)
    assert opened(line, KEY).content.hidden == hashlib.sha256(hidden.logo.read_bytes()).hexdigest()


def test_a_copy_has_one_kind_of_content(hidden: Hidden, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["embed", hidden.run.path, "--key", hidden.key, "--hide", tmp_path / "nothing.png"]
    assert main([str(word) for word in words]) != 0
    assert "nothing.png" in capsys.readouterr().err
    assert main([*map(str, words), "--message", "ours"]) != 0
    assert "give one" in capsys.readouterr().err
    assert not hidden.run.path.with_name("run-marked").exists()


def test_a_place_that_is_taken_is_refused_before_anything_is_learnt(
    hidden: Hidden, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nerfkit.stego.hidden.put", None)
    words = ["embed", hidden.run.path, "--key", hidden.key, "--hide", hidden.logo, "-o", hidden.copy.path]
    assert main([str(word) for word in words]) != 0
    assert "holds a run already" in capsys.readouterr().err


def test_a_decoder_draws_nothing_before_it_has_learnt() -> None:
    decoder = Decoder()
    with torch.no_grad():
        drawn = decoder.drawn(torch.randn(4, N_SIGNS))
    assert float(drawn.max()) < 0.01
    assert as_seen(np.zeros((20, 300, 3), np.uint8)).shape == (3, SIDE, SIDE)
