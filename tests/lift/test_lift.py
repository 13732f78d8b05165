"""From a picture to a run, with a prior that has learnt nothing and with the one that is shipped."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from ball_photo import ball
from safetensors.torch import load_file, save_file

from nerfkit.cli import main
from nerfkit.lattice import ExportError
from nerfkit.lift.framing import framed
from nerfkit.lift.guide import Depth, Guide, Guided, Regular
from nerfkit.lift.lift import begin, warm_model
from nerfkit.lift.looks import reference_scores, seen_share
from nerfkit.lift.photo import LiftError
from nerfkit.lift.scene import Given, around, cameras_at
from nerfkit.lift.settings import CONFIG, Sizes
from nerfkit.lift.understand import load_prior, understood
from nerfkit.lift.volume import Volume
from nerfkit.presets import load_preset
from nerfkit.render import load_model
from nerfkit.run import Run, RunError
from nerfkit.scene import load_scene

QUICK = """
[field]
log2_table_size = 12
finest_resolution = 64
[sampler]
resolution = 32
n_steps = 64
warmup_steps = 16
[train]
steps = 150
samples_per_step = 4096
"""


@pytest.fixture(scope="module")
def lifted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a ball."""
    folder = tmp_path_factory.mktemp("lifted")
    rgb, inside = ball()
    rgba = np.dstack([rgb, 255 * inside.astype(np.uint8)])
    cv2.imwrite(str(folder / "ball.png"), cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA))
    (folder / "quick.toml").write_text(QUICK)
    words = ["lift", str(folder / "ball.png"), "-o", str(folder / "run"), "--config", str(folder / "quick.toml")]
    assert main([*words, "--elevation", "20", "--fov", "40", "--no-film"]) == 0
    return folder / "run"


def test_what_a_file_of_settings_leaves_out_is_as_without_it(lifted: Path) -> None:
    assert Run.open(lifted).config.train.distortion == CONFIG.train.distortion > 0


def test_a_lifting_is_a_run_as_any_other(lifted, tmp_path):
    run = Run.open(lifted)
    scene = load_scene(lifted / "scene", run.config.data)
    assert scene.fingerprint == run.provenance["scene"]["fingerprint"]
    assert len(scene.images) == 1 + len(around())
    assert (
        main(["render", str(lifted), "--path", "orbit", "--frames", "3", "--size", "32", "--out", str(tmp_path / "o")])
        == 0
    )
    assert len(list((tmp_path / "o").glob("*.png"))) == 3
    assert main(["export", str(lifted), "--kind", "points", "--points", "100", "--out", str(tmp_path / "p.ply")]) == 0
    assert main(["compress", str(lifted), "--bytes", "60kB", "--out", str(tmp_path / "small.nerf")]) == 0


def test_the_photo_is_learnt_and_the_mesh_is_closed(lifted):
    trimesh = pytest.importorskip("trimesh", reason="trimesh is not installed")
    found = json.loads((lifted / "lift.json").read_text())
    assert found["psnr"] > 17
    assert found["iou"] > 0.9
    assert trimesh.load(lifted / "exports" / "object.glb", force="mesh", process=True).is_watertight
    for name in ("preview.png", "renders/seen.png", "report.html"):
        assert (lifted / name).stat().st_size > 1000
    page = (lifted / "report.html").read_text()
    assert 'src="preview.png"' in page and 'src="renders/seen.png"' in page


def test_what_the_photo_shows_is_seen_and_the_back_is_guessed(lifted):
    rgb, inside = ball()
    photo = framed(rgb, 255 * inside.astype(np.uint8))
    model = load_model(Run.open(lifted))
    shares = []
    for azimuth in (0.0, 180.0):
        seen, share = seen_share(model, photo, cameras_at([(azimuth, 20.0)], 40.0, photo.radius, 64))
        there = seen.opacity > 0.5
        shares.append(float(share[there].mean()))
    assert shares[0] > 0.9
    assert shares[1] < 0.3


def test_the_same_seed_makes_the_same_bytes(tmp_path, weights, photo):
    (tmp_path / "quick.toml").write_text(QUICK.replace("steps = 150", "steps = 20"))
    found = []
    for name in ("a", "b"):
        words = ["lift", str(photo), "-o", str(tmp_path / name), "--config", str(tmp_path / "quick.toml")]
        assert main([*words, "--prior", str(weights), "--no-film", "--no-mesh"]) == 0
        checkpoint = max((tmp_path / name / "checkpoints").iterdir())
        found.append((checkpoint / "field.safetensors").read_bytes())
    assert found[0] == found[1]


def test_no_socket_is_opened(tmp_path, weights, photo, monkeypatch):
    def no(*arguments, **more):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", no)
    monkeypatch.setattr(socket, "create_connection", no)
    monkeypatch.setattr(socket, "getaddrinfo", no)
    (tmp_path / "quick.toml").write_text(QUICK.replace("steps = 150", "steps = 10"))
    words = ["lift", str(photo), "-o", str(tmp_path / "run"), "--config", str(tmp_path / "quick.toml")]
    assert main([*words, "--prior", str(weights), "--no-film", "--no-mesh"]) == 0


def test_what_was_learnt_stays_where_no_mesh_can_be_made(tmp_path, photo, monkeypatch, capsys):
    def missing(*arguments):
        raise ExportError("trimesh is not installed")

    monkeypatch.setattr("nerfkit.mesh.check_installed", missing)
    (tmp_path / "quick.toml").write_text(QUICK.replace("steps = 150", "steps = 10"))
    words = ["lift", str(photo), "-o", str(tmp_path / "run"), "--config", str(tmp_path / "quick.toml"), "--no-film"]
    assert main(words) == 0
    assert "no mesh: trimesh is not installed" in capsys.readouterr().err
    assert (tmp_path / "run" / "report.html").exists()
    assert not (tmp_path / "run" / "exports" / "object.glb").exists()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--elevation", "120"], 1, "--elevation 120"),
        (["--prior", "nothing.safetensors"], 1, "nothing.safetensors"),
        (["--mask", "none.png"], 1, "none.png"),
        (["--view", "back.png"], 2, "--view back.png"),
        (["--view", "back.png:nan"], 2, "--view back.png:nan"),
        (["--view", "back.png:180"], 1, "back.png"),
        (["--clip", "somewhere"], 2, "--clip"),
        (["--depth", "nobody/nothing"], 1, "--hub"),
    ],
)
def test_what_cannot_be_done_is_a_sentence_and_nothing_is_written(words, code, says, tmp_path, weights, photo, capsys):
    given = [] if "--prior" in words else ["--prior", str(weights)]
    try:
        found = main(["lift", str(photo), "-o", str(tmp_path / "run"), *given, *words])
    except SystemExit as end:
        found = end.code
    assert found == code
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_first_preview_waits_for_nothing_that_trains():
    said = "import sys, nerfkit.lift.sheet, nerfkit.lift.understand; print('warp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", said], capture_output=True, text=True).stdout == "False\n"


def test_a_guess_asks_for_no_volume(weights):
    net = load_prior(weights)
    rgba = torch.rand(2, 4, 128, 128)
    with torch.no_grad():
        found = net(rgba, torch.tensor([[0.3, 0.7, 3.0]] * 2), 8).camera
        assert torch.equal(net.whence(rgba), found)


def test_weights_of_another_network_are_a_sentence(tmp_path, weights):
    tensors = load_file(weights)
    tensors["stem.weight"] = tensors["stem.weight"][:8]
    save_file(tensors, tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(LiftError, match="another network"):
        load_prior(tmp_path / "other.safetensors")
    with pytest.raises(LiftError, match="no weights that can be read"):
        load_prior(tmp_path / "text.safetensors")


def test_given_pictures_stand_where_they_were_taken(tmp_path, weights):
    rgb, inside = ball()
    photo = framed(rgb, 255 * inside.astype(np.uint8))
    back = framed(255 - rgb, 255 * inside.astype(np.uint8))
    net = load_prior(weights)
    run, scene = begin(photo, understood(net, photo), [Given(back, 180.0)], Sizes(), CONFIG, tmp_path / "run", ["x"])
    guesses = [i for i, name in enumerate(scene.image_names) if name.startswith("prior")]
    assert 0 < len(guesses) < len(around())
    towards = scene.cameras.c2w[:, :, 3] / scene.cameras.c2w[:, :, 3].norm(dim=1, keepdim=True)
    behind = towards[scene.image_names.index("given_0.png")]
    assert float((towards[guesses] @ behind).max()) < np.cos(np.radians(39))
    one, other = (scene.image_names.index(name) for name in ("photo.png", "given_0.png"))
    front, behind = (scene.cameras.c2w[i, :, 3] for i in (one, other))
    assert torch.allclose(front * torch.tensor([-1.0, 1.0, -1.0]), behind, atol=1e-5)
    assert np.array_equal(scene.images[other], back.scaled(scene.images[other].shape[0]).rgba)


def test_a_large_given_picture_does_not_drown_the_photo(tmp_path, weights):
    rgb, inside = ball()
    photo = framed(rgb, 255 * inside.astype(np.uint8))
    large = photo.scaled(1500)
    made, sizes = understood(load_prior(weights), photo), Sizes()
    _, scene = begin(photo, made, [Given(large, 180.0), Given(large, 90.0)], sizes, CONFIG, tmp_path / "run", ["x"])
    sides = {name: image.shape[0] for name, image in zip(scene.image_names, scene.images, strict=True)}
    assert sides["given_0.png"] == sides["given_1.png"] == sizes.photo[1]


@pytest.mark.parametrize("config", [CONFIG, load_preset(Path(__file__).parents[2] / "configs" / "lift.toml")])
def test_the_grid_begins_where_the_prior_sees_something(tmp_path, weights, config):
    rgb, inside = ball()
    photo = framed(rgb, 255 * inside.astype(np.uint8))
    lifted = understood(load_prior(weights), photo)
    sigmas = torch.zeros_like(lifted.volume.sigmas)
    sigmas[0, 40:50, 30:34, 30:34] = 50.0  # z, y, x
    volume = Volume(sigmas, lifted.volume.rgbs)
    _, scene = begin(photo, lifted, [], Sizes(), config, tmp_path / "run", ["x"])
    model = warm_model(scene, config, volume)
    res = config.sampler.resolution
    found = (model.sampler.values > model.sampler.threshold).view(res, res, res).nonzero()
    places = model.frame.to_scene((found + 0.5) / res)
    assert len(found) > 20
    assert bool((places[:, :2].abs() < 0.2).all())
    assert float(places[:, 2].min()) > 0.15 and float(places[:, 2].max()) < 0.7


def test_guidance_adds_gradients_to_those_of_pixels(lifted, weights):
    from nerfkit.train.training import Training

    run = Run.open(lifted)
    scene = load_scene(lifted / "scene", run.config.data)
    rgb, inside = ball()
    photo = framed(rgb, 255 * inside.astype(np.uint8))
    told = torch.linspace(0, 1, 32).expand(32, 32)
    terms = [Depth.of(photo, told, 1.0, kind) for kind in ("ranking", "pearson", "scale-shift")]
    terms += [Regular(1.0, 1.0, 1.0, size=8), Guided(_Flat(), photo, 1.0, size=8, every=1)]
    for term in terms:
        training = Training.new(scene, load_model(run))
        training.learn(256)
        before = training.model.field.density_network.weights[0].grad.clone()
        Guide([term]).before_step(training)
        assert not torch.equal(before, training.model.field.density_network.weights[0].grad)


def test_what_was_taught_by_more_than_its_pictures_does_not_go_on_without(lifted, weights, tmp_path):
    """A depth term, say, which nobody has given: the numbers would be others."""
    from nerfkit.train.training import Training

    shutil.copytree(lifted, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    scene = load_scene(run.path / "scene", run.config.data)
    training = Training.new(scene, load_model(run), [Guide([])])
    training.learn(256)
    training.clock.step = 1000  # the newest checkpoint is the one that counts
    training.save(run)
    with pytest.raises(RunError, match="was taught by more than its pictures"):
        Training.new(scene, load_model(run)).restore(run)


class _Flat:
    """A prior of grey pictures, whose latents they are."""

    alphas = torch.linspace(0.999, 0.001, 100)

    def encode(self, rgb):
        return rgb

    def decode(self, latents):
        return latents

    def noise(self, latents, step, view):
        a = self.alphas[step]
        found = (latents - a.sqrt() * 0.5) / (1 - a).sqrt()
        return found, found


def test_depths_in_the_wrong_order_cost_and_in_the_right_one_do_not(lifted):
    rgb, inside = ball()
    photo = framed(rgb, 255 * inside.astype(np.uint8))
    model = load_model(Run.open(lifted))
    from nerfkit.render import render_image

    seen = render_image(model, cameras_at([(0.0, 20.0)], 40.0, photo.radius, photo.rgba.shape[0]), 0)
    chance = [torch.Generator().manual_seed(0) for _ in range(2)]
    right, wrong = (
        Depth.of(photo, sign * seen.depth, 1.0).loss(model, 0.5, chance[i]) for i, sign in enumerate((1, -1))
    )
    assert float(right.detach()) < 0.2 * float(wrong.detach())


def test_reference_scores_are_those_of_the_photo(lifted):
    rgb, inside = ball()
    photo = framed(rgb, 255 * inside.astype(np.uint8))
    model = load_model(Run.open(lifted))
    shown = json.loads((lifted / "lift.json").read_text())
    assert reference_scores(model, photo)["psnr"] == pytest.approx(shown["psnr"], abs=1e-3)
