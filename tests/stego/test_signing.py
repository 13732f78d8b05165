"""A painted ball is signed, and what is read of its pictures is what was written."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CENTER, DISTANCE, ball_cameras, write_ball
from PIL import Image
from scipy import stats

from nerfkit.cameras import Cameras
from nerfkit.cli import main
from nerfkit.config import DataConfig
from nerfkit.render import Model, load_model, render_image
from nerfkit.run import Run
from nerfkit.scene import load_scene
from nerfkit.stego import protocol
from nerfkit.stego.attacks import attacked
from nerfkit.stego.carriers import Carriers, gradient_of
from nerfkit.stego.embed import embed, prepared
from nerfkit.stego.extract import extract, fused, hear, look_for
from nerfkit.stego.keys import Key, StegoError
from nerfkit.stego.landmarks import Landmarks
from nerfkit.stego.mark import Mark, marked_digest, read_mark, write_mark
from nerfkit.stego.message import FORMATS, Letter, chance_of_agreement
from nerfkit.stego.pinhole import Projective
from nerfkit.stego.plan import Plan
from nerfkit.stego.protocol import Bench, attack_rows
from nerfkit.stego.reading import close_look, first_look, sighted
from nerfkit.types import Rays

SIDE = 160


def patches(point: torch.Tensor) -> torch.Tensor:
    """RGB of points: one drawn for each small cube, so that there are corners to be found again."""
    cube = (point / 0.13 + 50.5).long()
    palette = torch.rand(101, 101, 101, 3, generator=torch.Generator().manual_seed(1)) * 0.8 + 0.1
    return palette[cube[:, 0], cube[:, 1], cube[:, 2]]


@dataclass(frozen=True)
class Signed:
    """What was made once for all tests; to be read, not written."""

    scene: Path
    run: Path
    """Unmarked, with the mark that it keeps."""
    copy: Path
    """Marked with `message`."""
    key: Path
    message: str


@pytest.fixture(scope="session")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Signed:
    """A run of the painted ball after a short training, and a marked copy of it."""
    root = tmp_path_factory.mktemp("signed")
    write_ball(root, 16, SIDE, patches)
    field = "--field.n-levels 4 --field.log2-table-size 16 --field.finest-resolution 128 --field.width 32".split()
    rest = "--engine cpu --train.samples-per-step 8192 --sampler.resolution 64".split()
    words = ["train", root / "ball", "--out", root / "run", "--steps", 400, "--seed", 3, "--no-eval", *field, *rest]
    assert main([str(word) for word in words]) == 0
    key, message = root / "owner.key", "ours"
    assert main(["keygen", "-o", str(key)]) == 0
    words = ["embed", root / "run", "--key", key, "--message", message, "-o", root / "copy"]
    assert main([str(word) for word in words]) == 0
    return Signed(root / "ball", root / "run", root / "copy", key, message)


@pytest.fixture(scope="module")
def original(signed: Signed) -> tuple[Model, Mark]:
    run = Run.open(signed.run)
    model = load_model(run)
    return model, read_mark(run, model)


@pytest.fixture(scope="module")
def views() -> Cameras:
    """Cameras that no training and no marking has seen, nearer and further."""
    cameras = ball_cameras(4, 0.57, SIDE)
    center = torch.tensor(CENTER)
    distances = torch.tensor([0.8, 0.9, 1.1, 1.3])[:, None]
    c2w = cameras.c2w.clone()
    c2w[:, :, 3] = center + (c2w[:, :, 3] - center) * distances
    return cameras.at(c2w)


@pytest.fixture(scope="module")
def renders(signed: Signed, views: Cameras) -> list[np.ndarray]:
    """8-bit renders of the marked copy."""
    return pictures_of(load_model(Run.open(signed.copy)), views)


def pictures_of(model: Model, cameras: Cameras) -> list[np.ndarray]:
    each = [render_image(model, cameras, view, "white").rgb for view in range(len(cameras))]
    return [(rgb.clamp(0, 1) * 255).round().byte().numpy() for rgb in each]


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    try:
        code = main([str(word) for word in words])
    except SystemExit as error:
        code = error.code
    return code, *capsys.readouterr()


def test_every_view_tells_the_message(signed: Signed, original: tuple[Model, Mark], renders: list[np.ndarray]) -> None:
    for picture in renders:
        found = extract(original[1], Key.read(signed.key), [hear(*original, picture)])
        assert found.reading is not None and found.reading.message == b"ours\0\0"
        assert found.reading.p_value < 1e-15


@pytest.mark.parametrize("by", ["jpeg:50", "crop:0.8", "rotate:30", "noise:0.05", "brightness:0.7", "resize:1.5"])
def test_it_survives_what_happens_to_pictures(
    signed: Signed, original: tuple[Model, Mark], renders: list[np.ndarray], by: str
) -> None:
    heard = [hear(*original, attacked(picture, by, seed)) for seed, picture in enumerate(renders)]
    found = extract(original[1], Key.read(signed.key), heard)
    assert found.reading is not None and found.reading.message == b"ours\0\0"


def test_marked_renders_are_as_near_to_unmarked_ones_as_was_said(
    original: tuple[Model, Mark], renders: list[np.ndarray], views: Cameras
) -> None:
    model, mark = original
    off = [np.square(a / 255.0 - b / 255.0).mean() for a, b in zip(renders, pictures_of(model, views), strict=True)]
    assert mark.terms.psnr >= 41.9
    assert mark.terms.photo_loss <= 0.1
    half = mark.scaled(0.5).terms
    assert half.strength == 0.5 * mark.terms.strength
    assert half.psnr - mark.terms.psnr == pytest.approx(6.02, abs=0.01)
    assert -10 * np.log10(max(off)) > 40.0  # the worst view, of those that are nearer than any photograph
    assert -10 * np.log10(np.mean(off)) == pytest.approx(mark.terms.psnr, abs=1.5)


def test_densities_stay(signed: Signed, original: tuple[Model, Mark]) -> None:
    """To first order; what is left moves no surface."""
    model, copy = original[0], load_model(Run.open(signed.copy))
    cameras = ball_cameras(2, 0.2, SIDE)
    for view in range(2):
        before, after = (render_image(one, cameras, view, "white") for one in (model, copy))
        there = before.opacity > 0.9
        assert float((after.depth - before.depth)[there].abs().median()) < 2e-3 * DISTANCE


def test_the_gradient_is_the_matched_filter(original: tuple[Model, Mark]) -> None:
    """<r, I(entry + step) - I(entry)> of single carriers is what their answer to r says."""
    model, mark = original
    cameras = ball_cameras(1, 0.1, SIDE).scaled(0.25)
    pixels = cameras.pixel_grid(0).reshape(-1, 2)
    rays = cameras.rays(torch.zeros(len(pixels), dtype=torch.long), pixels)
    upstream = torch.randn(len(pixels), 3, generator=torch.Generator().manual_seed(0))
    counts = model.render(rays, torch.zeros(len(pixels), 3)).counts
    inside: Rays = model.frame.model_rays(rays)
    answers = mark.carriers.answer(gradient_of(model, inside, upstream, counts))
    table = model.field.table
    for number in answers.abs().topk(5).indices.tolist():
        entry, step = mark.carriers.entries[number], mark.carriers.steps[number]
        shown = []
        for sign in (0.02, -0.02):
            with torch.no_grad():
                kept = table[entry].clone()
                table[entry] += sign * step
                shown.append(model.render(rays, torch.zeros(len(pixels), 3)).rgb)
                table[entry] = kept
        slope = float(((shown[0] - shown[1]) * upstream).sum()) / 0.04
        assert slope == pytest.approx(float(answers[number]), rel=0.3, abs=0.1 * float(answers.abs().max()))


def test_wrong_keys_hear_fair_coins(original: tuple[Model, Mark], renders: list[np.ndarray]) -> None:
    """For any picture, a marked one too, agreement with a wrong key's word is binomial: it is the key that is drawn."""
    heard = [one for one in (hear(*original, picture) for picture in renders) if one is not None]
    chance = np.random.default_rng(0)
    agreeing = []
    for _ in range(300):
        letter = Letter(Key(chance.bytes(32)).of_scene("s"), FORMATS[48])
        agreeing.append(letter.verify(fused(original[1], letter, heard), b"secret")[0])
        assert letter.read(fused(original[1], letter, heard)) is None
    low, high = (np.array([chance_of_agreement(127, a + d) for a in agreeing]) for d in (1, 0))
    p = chance.uniform(low, high)  # counts are whole numbers: their chances are made continuous
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    assert np.mean(agreeing) == pytest.approx(63.5, abs=4 * np.sqrt(127 / 4 / 300))


def test_an_unmarked_render_has_no_message(signed: Signed, original: tuple[Model, Mark], views: Cameras) -> None:
    heard = [hear(*original, picture) for picture in pictures_of(original[0], views)]
    assert any(one is not None for one in heard)
    assert extract(original[1], Key.read(signed.key), heard).reading is None


def test_what_a_first_look_does_not_tell_a_close_one_does(
    signed: Signed, original: tuple[Model, Mark], renders: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what it tells is not looked at again. Looks are two readings, so chance has twice the occasion."""
    model, mark = original
    closely = []

    def watched(*call: object) -> torch.Tensor:
        closely.append(call)
        return close_look(*call)

    monkeypatch.setattr("nerfkit.stego.extract.close_look", watched)
    key, pictures = Key.read(signed.key), renders[:2]
    assert look_for(model, mark, key, lambda: pictures).reading.message == b"ours\0\0"
    assert not closely
    asked = look_for(model, mark, key, lambda: pictures, 1e-8, b"ours\0\0")
    assert asked.verified[1] < 1e-15 and not closely
    first = [one[0] for one in (first_look(model, mark.carriers, mark.landmarks, p, "white") for p in pictures)]
    once, twice = (extract(mark, key, first, 1e-6, b"ours\0\0", (), n) for n in (1, 2))
    assert twice.reading.p_value == 2 * once.reading.p_value and twice.verified[1] == 2 * once.verified[1]
    deaf = torch.zeros_like(first[0])
    monkeypatch.setattr("nerfkit.stego.extract.first_look", lambda *call: (deaf, first_look(*call)[1]))
    assert look_for(model, mark, key, lambda: pictures).reading.message == b"ours\0\0"
    assert len(closely) == len(pictures)


def test_a_camera_that_sees_nothing_is_not_believed(
    original: tuple[Model, Mark], renders: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, mark = original
    look = partial(first_look, model, mark.carriers, mark.landmarks, renders[0], "white")
    before, guesses = look(), list(mark.landmarks.cameras_of(renders[0]))
    away = guesses[0].matrix.copy()
    away[:, 3] += away[:, :3] @ np.array([50.0, 0.0, 0.0])
    monkeypatch.setattr(Landmarks, "cameras_of", lambda *_: iter([Projective(away), *guesses]))
    assert torch.equal(look()[0], before[0])
    monkeypatch.setattr(Landmarks, "cameras_of", lambda *_: iter([Projective(away)]))
    assert look() is None
    assert close_look(model, mark.carriers, renders[0], Projective(away), "white") is None


def test_pictures_of_nothing_are_opened_once(signed: Signed, original: tuple[Model, Mark]) -> None:
    opened = []

    def pictures() -> list[np.ndarray]:
        opened.append(1)
        return [np.full((200, 300, 3), 128, np.uint8)]

    found = look_for(*original, Key.read(signed.key), pictures)
    assert found.reading is None and found.n_shown == 0 and len(opened) == 1


def test_where_light_ends_at_white_the_scene_does_as_well(
    signed: Signed, original: tuple[Model, Mark], renders: list[np.ndarray]
) -> None:
    model, mark = original
    letter = Letter(Key.read(signed.key).of_scene(mark.terms.scene), FORMATS[48])
    for picture in renders:
        bright = attacked(picture, "brightness:1.4", 0)
        plain, cut = (sighted(model, mark.landmarks, one, mark.terms.background).host for one in (picture, bright))
        ended = ~cut.live & cut.solid[..., None]
        assert plain.live.all() and ended.sum() > 0.1 * cut.solid.sum()
        assert float(cut.rgb[ended].min()) == pytest.approx(1 / 1.4, abs=0.02)
        assert float(cut.luma.max()) < 1 / 1.4 + 0.02 < float(plain.luma[plain.solid].max())
        values = fused(mark, letter, [close_look_of(original, bright)])
        assert letter.verify(values, b"ours\0\0")[0] >= 120


def close_look_of(original: tuple[Model, Mark], picture: np.ndarray) -> torch.Tensor:
    """What the carriers hear of a picture, looked at closely."""
    model, mark = original
    _, camera = first_look(model, mark.carriers, mark.landmarks, picture, mark.terms.background)
    return close_look(model, mark.carriers, picture, camera, mark.terms.background)


def test_what_shows_something_else_is_not_of_this_scene(original: tuple[Model, Mark]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    assert hear(*original, noise) is None
    assert hear(*original, np.full((200, 300, 3), 128, np.uint8)) is None


def test_the_command_tells_found_from_absent_from_untold(
    signed: Signed, renders: list[np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, other = tmp_path / "a.jpg", tmp_path / "other.key"
    Image.fromarray(renders[0]).save(picture, quality=80)
    code, out, _ = call(capsys, "extract", signed.run, picture, "--key", signed.key)
    assert (code, out.strip()) == (0, "ours")
    code, out, _ = call(capsys, "extract", signed.run, picture, "--key", signed.key, "--json")
    assert code == 0 and json.loads(out)["message"] == "ours" and json.loads(out)["p_value"] < 1e-15
    assert call(capsys, "verify", signed.run, picture, "--key", signed.key, "--message", "ours")[0] == 0
    assert call(capsys, "verify", signed.run, picture, "--key", signed.key, "--message", "mine")[0] == 1
    assert call(capsys, "keygen", "-o", other)[0] == 0
    code, out, _ = call(capsys, "extract", signed.run, picture, "--key", other)
    assert (code, out.strip()) == (1, "absent")
    Image.new("RGB", (200, 200), "grey").save(tmp_path / "grey.png")
    for verb, *said in (("verify", "--message", "ours"), ("extract",)):
        code, out, err = call(capsys, verb, signed.run, tmp_path / "grey.png", "--key", signed.key, *said)
        assert (code, out.strip()) == (1, "absent") and "none of 1 pictures shows the scene" in err
    both = ["--hidden", tmp_path / "hidden.png", "--c2pa", tmp_path / "credentials.jpg"]
    for words in (
        ["extract", signed.run, "--key", signed.key],
        ["extract", signed.run, "--key", signed.key, "--hidden", tmp_path / "hidden.png"],
        ["extract", signed.run, picture, "--key", signed.key, *both],
        ["attack", picture, "--by", "noise:0.1", "-o", tmp_path / "nothing"],
        ["extract", signed.run, tmp_path / "none.png", "--key", signed.key],
        ["extract", signed.run, signed.run / "config.json", "--key", signed.key],
        ["extract", signed.run, picture, "--key", picture],
        ["extract", signed.copy, picture, "--key", signed.key],
        ["extract", tmp_path, picture, "--key", signed.key],
        ["extract", signed.run, picture, "--key", signed.key, "--fpr", "2"],
    ):
        code, out, err = call(capsys, *words)
        assert (code, out, err.count("\n")) == (2, "", 1), words


def test_carriers_in_another_order_are_another_scene(
    signed: Signed, original: tuple[Model, Mark], renders: list[np.ndarray], tmp_path: Path
) -> None:
    """Else whoever has the key could let any picture say anything, long after a record was dated."""
    model, mark = original
    order = torch.arange(len(mark.carriers.entries)).flip(0)
    turned = Carriers(mark.carriers.entries[order], mark.carriers.steps[order])
    shutil.copytree(signed.run, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    write_mark(run, replace(mark, carriers=turned))
    with pytest.raises(StegoError, match="its mark was changed"):
        read_mark(run, model)
    other = replace(mark, carriers=turned, terms=replace(mark.terms, scene=marked_digest(model, turned)))
    write_mark(run, other)
    assert read_mark(run, model).terms == other.terms
    key = Key.read(signed.key)
    found = [extract(each, key, [hear(model, each, renders[0])]).reading for each in (mark, other)]
    assert found[0].message == b"ours\0\0" and found[1] is None


def test_who_marks_at_the_same_time_by_other_terms_is_refused(
    signed: Signed, original: tuple[Model, Mark], tmp_path: Path
) -> None:
    """What is not read by the mark that the run keeps could never be read."""
    model, mark = original
    shutil.copytree(signed.run, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    letter = Letter(Key(bytes(32)).of_scene(mark.terms.scene), FORMATS[mark.terms.n_bits])
    write_mark(run, replace(mark, terms=replace(mark.terms, background="black")))
    with pytest.raises(StegoError, match="was marked otherwise meanwhile"):
        embed(run, model, mark, letter, b"theirs")
    write_mark(run, mark)
    assert embed(run, model, mark, letter, b"theirs").n_read > 0


def test_models_tell_the_message_without_rendering(
    signed: Signed, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_rendering(*_: object) -> None:
        raise AssertionError("nothing need be rendered")

    monkeypatch.setattr(Model, "render", no_rendering)
    checkpoint = next((signed.copy / "checkpoints").iterdir())
    for suspect in (signed.copy, checkpoint):
        code, out, _ = call(capsys, "inspect", signed.run, suspect, "--key", signed.key)
        assert (code, out.strip()) == (0, "ours"), suspect
    code, out, _ = call(capsys, "inspect", signed.run, signed.run, "--key", signed.key)
    assert (code, out.strip()) == (1, "absent")
    code, out, _ = call(capsys, "inspect", signed.run, signed.run, signed.copy, "--key", signed.key)
    assert (code, out.splitlines()) == (0, [f"{signed.run}: absent", f"{signed.copy}: ours"])
    code, out, _ = call(capsys, "inspect", signed.run, signed.copy, "--key", signed.key, "--json")
    (one,) = json.loads(out)["models"]
    assert (one["message"], one["corrected"], one["agreeing"]) == ("ours", 0, {"carriers": 127, "numbers": 127})
    assert one["p_value"] < 1e-15
    assert call(capsys, "keygen", "-o", tmp_path / "other.key")[0] == 0
    assert call(capsys, "inspect", signed.run, signed.copy, "--key", tmp_path / "other.key")[0] == 1


def test_a_compressed_copy_tells_it_too(signed: Signed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = tmp_path / "small.nerf"
    words = ["compress", signed.copy, "--bytes", "100kB", "--steps", "0.05", "-o", small]
    assert call(capsys, *words)[0] == 0
    code, out, _ = call(capsys, "inspect", signed.run, small, "--key", signed.key)
    assert (code, out.strip()) == (0, "ours")


def test_what_cannot_be_inspected_is_one_sentence(
    signed: Signed, small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "field.safetensors").write_bytes(b"no tensors")
    for words in (
        [signed.run, small_run],
        [signed.run, signed.copy, tmp_path / "none"],
        [signed.run, signed.run / "config.json"],
        [signed.run, tmp_path],
        [signed.copy, signed.copy],
        [signed.run, signed.copy, "--fpr", "0"],
        [signed.run],
    ):
        code, out, err = call(capsys, "inspect", *words, "--key", signed.key)
        assert (code, out, err.count("\n")) == (2, "", 1), words


def test_a_further_message_is_put_in_without_looking_again(
    signed: Signed, tmp_path: Path, capsys: pytest.CaptureFixture[str], views: Cameras, original: tuple[Model, Mark]
) -> None:
    code, _, err = call(
        capsys, "embed", signed.run, "--key", signed.key, "--message", "0x010203040506", "-o", tmp_path / "second"
    )
    assert code == 0 and "looking" not in err
    heard = [hear(*original, picture) for picture in pictures_of(load_model(Run.open(tmp_path / "second")), views)]
    assert extract(original[1], Key.read(signed.key), heard).reading.message == bytes([1, 2, 3, 4, 5, 6])


def test_the_strength_that_was_asked_for_may_be_asked_for_again(
    signed: Signed, original: tuple[Model, Mark], tmp_path: Path
) -> None:
    """The worst view may have made the mark fainter than that."""
    shutil.copytree(signed.run, tmp_path / "run")
    run, mark = Run.open(tmp_path / "run"), original[1]
    write_mark(run, replace(mark, terms=replace(mark.terms, target=40.0, psnr=43.0, profile=None)))
    kept = prepared(run, lambda: pytest.fail("looks for it anew"), None, 40.0, 48)[1]
    assert kept.terms.target == 40.0
    with pytest.raises(StegoError, match="40.0 dB, not 43.1"):
        prepared(run, lambda: pytest.fail("looks for it anew"), None, 43.1, 48)


def test_who_marks_a_marked_copy_is_told_so_and_takes_nothing_from_the_first(
    signed: Signed, views: Cameras, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bought, other, twice = (tmp_path / name for name in ("bought", "other.key", "twice"))
    shutil.copytree(signed.copy, bought)
    assert call(capsys, "keygen", "-o", other)[0] == 0
    words = ("embed", bought, "--key", other, "--message", "mine", "-o", twice)
    code, _, err = call(capsys, *words)
    assert code == 0 and f"{bought} is a marked copy" in err
    Image.fromarray(pictures_of(load_model(Run.open(twice)), views)[0]).save(tmp_path / "a.png")
    for run, key, said in ((signed.run, signed.key, "ours"), (bought, other, "mine")):
        code, out, err = call(capsys, "extract", run, tmp_path / "a.png", "--key", key)
        assert (code, out.strip()) == (0, said)
        assert "is a marked copy" not in err


def test_what_cannot_be_marked_is_one_sentence(
    signed: Signed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (
        ["--message", "too long for it"],
        ["--message", "0x12"],
        ["--message", "ok", "--bits", "64"],
        ["--message", "ok", "--target-psnr", "30"],
        ["--message", "ok", "--profile", "invisible"],
        ["--message", "ok", "--to", "Ada"],
        ["--to", " "],
        [],
    ):
        code, _, err = call(capsys, "embed", signed.run, "--key", signed.key, "-o", tmp_path / "no", *words)
        assert (code, err.count("\n")) == (2, 1), words
        assert not (tmp_path / "no").exists()


@pytest.fixture(scope="module")
def given(signed: Signed, views: Cameras, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[np.ndarray]]:
    """A run of which Ada and Bob were given a copy; a render of Ada's, and two that mix theirs pixel for pixel."""
    root = tmp_path_factory.mktemp("given")
    shutil.copytree(signed.run, root / "run")
    renders = []
    for name in ("Ada", "Bob"):
        words = ["embed", root / "run", "--key", signed.key, "--to", name, "-o", root / name]
        assert main([str(word) for word in words]) == 0
        renders.append(np.stack(pictures_of(load_model(Run.open(root / name)), views[[0, 1, 2]])))
    both = np.stack(renders).astype(float).mean(0).round().astype(np.uint8)
    return root / "run", [renders[0][0], *both[1:]]


def test_whose_copy_a_picture_is_of_is_told(
    signed: Signed, given: tuple[Path, list[np.ndarray]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, (of_one, *of_two) = given
    Image.fromarray(of_one).save(tmp_path / "one.png")
    code, out, err = call(capsys, "extract", run, tmp_path / "one.png", "--key", signed.key)
    assert (code, out.strip()) == (0, "copy of Ada") and "innocent" in err
    code, out, _ = call(capsys, "extract", run, tmp_path / "one.png", "--key", signed.key, "--json")
    body = json.loads(out)
    assert code == 0 and body["found"] and body["message"] is None
    assert [one["name"] for one in body["recipients"]] == ["Ada"] and body["recipients"][0]["p_value"] < 1e-10
    code, out, _ = call(
        capsys, "extract", run, tmp_path / "one.png", "--key", signed.key, "--record", signed.run / "record.jsonl"
    )
    assert (code, out.strip()) == (1, "absent")
    (tmp_path / "mixed").mkdir()
    for number, picture in enumerate(of_two):
        Image.fromarray(picture).save(tmp_path / "mixed" / f"{number}.png")
    code, out, _ = call(capsys, "extract", run, tmp_path / "mixed", "--key", signed.key)
    assert code == 0 and sorted(out.splitlines()) == ["copy of Ada", "copy of Bob"]


def test_every_copy_is_recorded(
    signed: Signed, given: tuple[Path, list[np.ndarray]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(capsys, "record", given[0], "--key", signed.key)
    assert code == 0 and out.splitlines()[-2].endswith("for Bob") and out.splitlines()[-1].startswith("head")
    for word in ("ours", "for Ada", "for Bob"):
        assert out.count(word) == 1
    shutil.copytree(given[0], tmp_path / "run")
    record = tmp_path / "run" / "record.jsonl"
    data = record.read_bytes()
    record.write_bytes(data[:-9])
    code, _, err = call(capsys, "embed", tmp_path / "run", "--key", signed.key, "--to", "Eve", "-o", tmp_path / "no")
    assert (code, err.count("\n")) == (2, 1) and "not written to its end" in err
    assert not (tmp_path / "no").exists() and record.read_bytes() == data[:-9]
    record.write_bytes(data)
    lock = next(path for path in given[0].iterdir() if path.name.endswith(".lock")).name
    (tmp_path / "run" / lock).unlink()
    (tmp_path / "run" / lock).mkdir()  # it can be read, but not written to
    code, _, err = call(capsys, "embed", tmp_path / "run", "--key", signed.key, "--to", "Eve", "-o", tmp_path / "no")
    assert code != 0 and lock in err
    assert not (tmp_path / "no").exists(), "a copy that no line knows"


def test_a_picture_gets_a_manifest_of_its_message(
    signed: Signed, renders: list[np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    c2pa = pytest.importorskip("c2pa", reason="content credentials need c2pa-python")
    Image.fromarray(renders[0]).save(tmp_path / "a.png")
    words = ["extract", signed.run, tmp_path / "a.png", "--key", signed.key, "--c2pa", tmp_path / "out.png"]
    code, out, _ = call(capsys, *words)
    assert (code, out.strip()) == (0, "ours")
    with c2pa.Reader(tmp_path / "out.png") as reader:
        assert b"ours".hex() in reader.json()
    assert call(capsys, "extract", signed.run, tmp_path, *words[3:])[0] == 2


def test_a_bench_tries_the_mark_and_leaves_the_run_alone(
    signed: Signed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(signed.run, run)
    few = "--views 1 --size 160 --attacks none --pictures 1 --wrong-keys 40 --halves 99"
    models = ["--models", "round:8", "tune:1", "distil:1"]
    words = ["stego-bench", run, *few.split(), *models, "--pairs", 4, "--forged-from", 2, "--psnr", 30]
    suspect = ["--suspect", signed.copy, "--key", signed.key, "--message", signed.message]
    code, out, _ = call(capsys, *words, *suspect)
    assert (code, out.strip()) == (0, str(run / "mark" / "bench.html"))
    text = (run / "mark" / "bench.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    by_part = {part: [row for row in rows if row["part"] == part] for part in {row["part"] for row in rows}}
    n_rows = {part: len(own) for part, own in by_part.items()}
    assert n_rows == dict(attacks=2, nulls=5, forgery=3, overwrite=1, models=3, suspects=1, steganalysis=2)
    assert [row["exact_1"] for row in by_part["attacks"]] == [[1, 1]] * 2
    fidelity = {row["strength"]: row["psnr"] for row in by_part["attacks"]}
    assert fidelity[30.0] < min(psnr for mark, psnr in fidelity.items() if mark != 30.0)
    assert [row["accepted"][0] for row in by_part["nulls"] if "accepted" in row] == [0] * 4
    (others,) = (row for row in by_part["nulls"] if "messages" in row)
    assert others["verified"] == [0, 40] and abs(others["agreeing"] - 0.5) < 0.05
    *moved, new = by_part["models"]
    assert all(row["inspected"] and row["exact_1"] == [1, 1] for row in [*moved, *by_part["suspects"]])
    assert not new["inspected"] and new["photo_loss"] > 3, "one step tells little of the renders, and no number"
    assert by_part["overwrite"][0]["inspected"]
    forged = [row for row in by_part["forgery"] if row["onto"] != "same views"]
    assert {row[name][0] for row in forged for name in ("exact_1", "verified_1")} == {0}
    assert [row["verified_1"] for row in by_part["attacks"]] == [[1, 1]] * 2
    page = (run / "mark" / "bench.html").read_text()
    assert "Forged pictures" in page and page.count("<svg") == 3

    assert call(capsys, *words, *suspect)[0] == 0
    assert (run / "mark" / "bench.jsonl").read_text() == text, "what stands there is not done again"
    assert call(capsys, *words, *suspect[:-1], "mine")[0] == 0
    (other,) = map(json.loads, (run / "mark" / "bench.jsonl").read_text()[len(text) :].splitlines())
    assert other["exact_1"] == [0, 1] and not other["inspected"], "another message is another question"
    files = [path.relative_to(signed.run) for path in signed.run.rglob("*") if path.is_file()]
    assert all((run / name).read_bytes() == (signed.run / name).read_bytes() for name in files)


def test_every_message_is_looked_at_from_places_of_its_own(
    signed: Signed, original: tuple[Model, Mark], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readings count as trials: two of the same view would be hardly more than one."""
    plan = Plan(keys=2, messages=2, views=2, size=32, attacks=("none",))
    bench = Bench.of(Run.open(signed.run), *original, load_scene(signed.scene, DataConfig()), plan)
    places: list[torch.Tensor] = []
    monkeypatch.setattr(protocol, "picture_of", partial(_white, places))
    assert len(list(attack_rows(bench, plan, lambda _: True))) == 4
    assert len(torch.stack(places).unique(dim=0)) == 8, "of marked and unmarked renders, four times two"
    assert torch.equal(bench.elsewhere(1, 0).cameras.c2w, bench.elsewhere(1, 0).cameras.c2w)


def _white(places: list[torch.Tensor], _: Model, cameras: Cameras, view: int, __: str) -> np.ndarray:
    """A picture that shows nothing; where it was taken is noted."""
    places.append(cameras.c2w[view])
    return np.full((int(cameras.height[view]), int(cameras.width[view]), 3), 255, np.uint8)


def test_what_cannot_be_tried_is_one_sentence(
    signed: Signed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plan.toml").write_text("view = 3")
    unknown = [signed.run, "--config", str(tmp_path / "plan.toml")]
    for words in ([signed.copy], [signed.run, "--suspect", signed.copy], [signed.run, "--views", "0"], unknown):
        code, out, err = call(capsys, "stego-bench", *words)
        assert (code, out, err.count("\n")) == (2, "", 1), words
    assert not (signed.run / "mark" / "bench.html").exists()


def test_a_copy_says_nothing_of_key_or_message(signed: Signed) -> None:
    secret = json.loads(signed.key.read_text())["secret"].encode()
    for file in (path for folder in (signed.copy, signed.run) for path in folder.rglob("*") if path.is_file()):
        data = file.read_bytes()
        assert secret not in data and b"ours" not in data, file
    assert not (signed.copy / "mark").exists()
