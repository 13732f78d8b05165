"""Poses that are a little wrong are put right; those that are right stay; an interruption leaves no trace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ball_cameras, draw_ball

from nerfkit.assess import refined, scene_of
from nerfkit.cli import main
from nerfkit.config import Config, DataConfig, FieldConfig, SamplerConfig, TrainConfig
from nerfkit.poses import moved, moves_between, without_drift
from nerfkit.run import Run
from nerfkit.scene import Scene, load_scene
from nerfkit.train import refine as module
from nerfkit.train.loop import fit, model_of
from nerfkit.train.pixels import Pixels

N = 24
"""Views to train on: with few, a field can agree with any poses."""
CONFIG = Config(
    sampler=SamplerConfig(resolution=32, n_steps=64, warmup_steps=64),
    field=FieldConfig(log2_table_size=12, finest_resolution=64),
    train=TrainConfig(steps=400, samples_per_step=8192, report_every=100, poses=True),
    engine="cpu",
)


@pytest.fixture(autouse=True)
def every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """No round is left out, however short the training; a view has a thousand pixels in all."""
    monkeypatch.setattr(module, "_N_PIXELS", (1, 256))
    monkeypatch.setattr(module, "_SHARE", 1e6)


@pytest.fixture
def any_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """Moves found with a handful of pixels are made, whether they help or not."""
    monkeypatch.setattr(module, "_N_PIXELS", (1, 32))
    monkeypatch.setattr(module, "_LEAST_SOLID", 1)
    monkeypatch.setattr(module, "_SURE", -1000.0)


@pytest.fixture
def exact(toy_scene: Path) -> Scene:
    """The ball with more views than the folder has, every seventh of them held out."""
    scene, cameras = load_scene(toy_scene, DataConfig()), ball_cameras(N + 4)
    held_out = list(range(3, N + 4, 7))
    splits = {"train": [i for i in range(N + 4) if i not in held_out], "val": [], "test": held_out}
    images = [draw_ball(cameras, i) for i in range(N + 4)]
    names = [f"{i}.png" for i in range(N + 4)]
    return replace(scene, cameras=cameras, images=images, image_names=names, splits=splits)


@pytest.fixture
def wrong(exact: Scene) -> Scene:
    """The ball with training views off by about 2 degrees and 0.09 units: more than a pixel."""
    c2w = train_poses(exact)
    moves = torch.randn(len(c2w), 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.02] * 3 + [0.05] * 3)
    return exact.with_poses(laid_on(exact, moved(c2w, moves), c2w))


def train_poses(scene: Scene) -> torch.Tensor:
    return scene.cameras.c2w[scene.splits["train"]]


def sights(scene: Scene) -> tuple[torch.Tensor, torch.Tensor]:
    """Some points about the ball's middle, before every training view."""
    n = len(scene.splits["train"])
    points = torch.tensor(scene.frame.center) + 0.4 * torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    return torch.arange(n).repeat_interleave(50), points.repeat(n, 1)


def laid_on(scene: Scene, c2w: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
    """Poses but for what they have in common, seen from others."""
    view, points = sights(scene)
    return without_drift(c2w, start, points, view, torch.ones(len(view)))


def displaced(scene: Scene, c2w: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """How far points move in each training view's picture between two sets of poses, pixels."""
    view, points = sights(scene)
    seen = [scene.with_poses(poses).cameras[scene.splits["train"]].project(view, points)[0] for poses in (c2w, other)]
    return torch.linalg.vector_norm(seen[0] - seen[1], dim=1).view(len(c2w), -1).mean(1)


def pixels_off(scene: Scene, c2w: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """How far points lie from where they should in each training view's picture, but for what is common to all."""
    return displaced(scene, laid_on(scene, c2w, true), true)


def train(scene: Scene, config: Config, folder: Path, stop: int = 0) -> Run:
    """A whole run, or one that was interrupted after a step and then resumed."""
    frame = scene.frame.to_dict()
    run = Run.create(folder, config, scene.root, scene.name, frame, scene.fingerprint, {}, ["test"])
    for report in fit(scene, config, run):
        if report.step == stop:
            break
    list(fit(scene, config, run, resume=True))
    return run


def test_wrong_poses_are_put_right(exact: Scene, wrong: Scene, tmp_path: Path) -> None:
    run = train(wrong, CONFIG, tmp_path / "run")
    found, true = train_poses(refined(run, wrong)), train_poses(exact)
    before, after = (pixels_off(exact, c2w, true) for c2w in (train_poses(wrong), found))
    assert before.mean() > 1.0
    assert after.mean() < 0.4 * before.mean(), (before, after)
    stayed = laid_on(exact, found, train_poses(wrong))
    assert displaced(exact, found, stayed).mean() < 0.25 * before.mean(), "together they stay with their files"
    held_out = wrong.splits["test"]
    assert torch.equal(refined(run, wrong).cameras.c2w[held_out], exact.cameras.c2w[held_out])
    rounds = [record["poses"] for record in run.read_log() if "poses" in record]
    assert [record["round"] for record in rounds] == list(range(1, len(module.ROUNDS) + 1))
    assert rounds[-1]["n_moved"] > 0.8 * N and rounds[0]["n_helped"] > rounds[-1]["n_helped"]
    degrees = moves_between(train_poses(wrong), found)[:, :3].norm(dim=1).rad2deg()
    assert rounds[-1]["degrees"]["most"] == pytest.approx(float(degrees.max()))


def test_right_poses_stay(exact: Scene, tmp_path: Path) -> None:
    short = replace(CONFIG, train=replace(CONFIG.train, steps=200))
    run = train(exact, short, tmp_path / "run")
    true = train_poses(exact)
    assert pixels_off(exact, train_poses(refined(run, exact)), true).mean() < 0.3


def test_moves_that_do_not_help_are_not_made(wrong: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SURE", 1e6)
    short = replace(CONFIG, train=replace(CONFIG.train, steps=20))
    run = train(wrong, short, tmp_path / "run")
    assert torch.equal(train_poses(refined(run, wrong)), train_poses(wrong))
    rounds = [record["poses"] for record in run.read_log() if "poses" in record]
    assert len(rounds) == len(module.ROUNDS) and rounds[-1]["n_moved"] == 0


def test_a_turn_moves_what_cameras_show_by_the_offsets(exact: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "without_drift", lambda c2w, *_: c2w)
    cameras, offsets = (
        exact.cameras[exact.splits["train"]],
        torch.randn(N, 2, generator=torch.Generator().manual_seed(2)),
    )
    offsets[0] = 0.0
    poses, pixels = module.Poses(cameras), Pixels(exact, torch.device("cpu"))
    poses.turn(offsets, model_of(exact, CONFIG), pixels)
    view, points = sights(exact)
    before, after = (each.project(view, points)[0] for each in (cameras, replace(cameras, c2w=poses.c2w)))
    assert torch.allclose((after - before).view(N, -1, 2).mean(1), offsets, rtol=0.05, atol=0.02)
    assert torch.equal(poses.c2w[0], cameras.c2w[0]) and torch.equal(train_poses(pixels.scene), poses.c2w)


@pytest.mark.usefixtures("any_move")
def test_an_interruption_leaves_no_trace(wrong: Scene, tmp_path: Path) -> None:
    short = replace(CONFIG, train=replace(CONFIG.train, steps=60, report_every=10))
    whole, parts = (train(wrong, short, tmp_path / f"{stop}", stop) for stop in (0, 30))
    one, other = whole.load_checkpoint(), parts.load_checkpoint()
    assert not torch.equal(one.optimizer["poses.c2w"], train_poses(wrong))
    for part in ("field", "sampler", "optimizer"):
        a, b = getattr(one, part), getattr(other, part)
        assert a.keys() == b.keys() and not [name for name in a if not torch.equal(a[name], b[name])]
    rounds = [[record["poses"] for record in run.read_log() if "poses" in record] for run in (whole, parts)]
    assert rounds[0] == rounds[1] and len(rounds[0]) == len(module.ROUNDS)


@pytest.mark.usefixtures("any_move")
def test_a_run_gives_its_refined_poses(toy_scene: Path, tmp_path: Path) -> None:
    exact = load_scene(toy_scene, DataConfig())
    short = replace(CONFIG, train=replace(CONFIG.train, steps=20, report_every=10))
    run = train(exact, short, tmp_path / "run")
    kept = run.load_checkpoint().optimizer["poses.c2w"]
    assert torch.equal(train_poses(scene_of(run)), kept) and not torch.equal(kept, train_poses(exact))
    assert torch.equal(train_poses(scene_of(run, as_found=True)), train_poses(exact))
    assert main(["export", str(run.path), "--out", str(tmp_path / "found.json")]) == 0
    written = load_scene(tmp_path / "found.json", DataConfig())
    assert torch.allclose(train_poses(written), kept, atol=1e-5)
    whole = Run(run.path, replace(short, data=replace(short.data, downscale=2)))
    assert torch.equal(train_poses(scene_of(whole)), kept), "poses do not depend on the pictures' size"


@pytest.mark.usefixtures("any_move")
def test_a_photograph_that_is_masked_stays(exact: Scene, tmp_path: Path) -> None:
    masks = [np.full(image.shape[:2], view != exact.splits["train"][1]) for view, image in enumerate(exact.images)]
    short = replace(CONFIG, train=replace(CONFIG.train, steps=20))
    state = train(replace(exact, masks=masks), short, tmp_path / "run").load_checkpoint().optimizer
    assert not state["poses.has_moved"][1] and state["poses.has_moved"].any()
