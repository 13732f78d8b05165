"""A toy scene: a textured ball, drawn analytically and written as the folders that people have."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from ball_photo import ball as ball_photo

from nerfkit.cameras import Cameras
from nerfkit.poses import look_at, opencv_to_opengl

SIZE = 32
ANGLE_X = 0.8
RADIUS = 0.7
DISTANCE = 3.0
CENTER = (0.3, -0.2, 0.1)


def ball_cameras(n: int, shift: float = 0.0, size: int = SIZE) -> Cameras:
    """Cameras on two rings round the ball, with pictures of so many pixels a side."""
    turn = (torch.arange(n) + shift) / n * math.tau
    height = torch.where(torch.arange(n) % 2 == 0, 0.6, -0.3)
    level = torch.cos(height)
    around = torch.stack([torch.cos(turn) * level, torch.sin(turn) * level, torch.sin(height)], -1)
    center = torch.tensor(CENTER)
    c2w = look_at(center + DISTANCE * around, center.expand(n, 3), torch.tensor([0.0, 0.0, 1.0]))
    return Cameras.pinhole(c2w, size / 2 / math.tan(ANGLE_X / 2), size, size)


def wave(point: torch.Tensor) -> torch.Tensor:
    """RGB of points about the ball's centre: smooth."""
    return 0.5 + 0.5 * torch.sin(4 * point / RADIUS + torch.tensor([0.0, 1.0, 2.0]))


def draw_ball(cameras: Cameras, number: int, paint: Callable[[torch.Tensor], torch.Tensor] = wave) -> np.ndarray:
    """RGBA picture, 8 bits: colour is a function of the point on the ball."""
    pixels = cameras.pixel_grid(number).flatten(0, 1)
    rays = cameras.rays(torch.full((len(pixels),), number), pixels)
    offset = rays.rays_o - torch.tensor(CENTER)
    b = (offset * rays.rays_d).sum(-1)
    inside = b * b - (offset * offset).sum(-1) + RADIUS**2
    point = offset + (-b - inside.clamp_min(0).sqrt())[:, None] * rays.rays_d
    rgb = paint(point)
    rgba = torch.cat([rgb, torch.ones_like(rgb[:, :1])], -1) * (inside > 0)[:, None]
    return (rgba * 255).round().byte().view(int(cameras.height[number]), int(cameras.width[number]), 4).numpy()


def frames_of(cameras: Cameras, names: list[str]) -> list[dict]:
    """Entries of a transforms.json."""
    bottom = [0.0, 0.0, 0.0, 1.0]
    poses = opencv_to_opengl(cameras.c2w).tolist()
    return [{"file_path": name, "transform_matrix": [*pose, bottom]} for name, pose in zip(names, poses, strict=True)]


def write_ball(
    folder: Path, n_train: int = 8, size: int = SIZE, paint: Callable[[torch.Tensor], torch.Tensor] = wave
) -> Path:
    """Write a Blender-synthetic folder ``ball``: so many square RGBA views to train on, and 4 to test."""
    root = folder / "ball"
    for split, n, shift in (("train", n_train, 0.0), ("test", 4, 0.3)):
        (root / split).mkdir(parents=True)
        cameras = ball_cameras(n, shift, size)
        for number in range(n):
            imageio.imwrite(root / split / f"r_{number}.png", draw_ball(cameras, number, paint))
        frames = frames_of(cameras, [f"./{split}/r_{number}" for number in range(n)])
        text = json.dumps({"camera_angle_x": ANGLE_X, "frames": frames})
        (root / f"transforms_{split}.json").write_text(text)
    return root


@pytest.fixture
def toy_scene(tmp_path: Path) -> Path:
    """The ball of `write_ball`, to be changed at will."""
    return write_ball(tmp_path)


@pytest.fixture
def toy_capture(tmp_path: Path) -> Path:
    """The same ball before a grey wall as one transforms.json: 12 opaque views, intrinsics in pixels."""
    root = tmp_path / "capture"
    (root / "images").mkdir(parents=True)
    cameras = ball_cameras(12)
    names = [f"images/{number:03d}.png" for number in range(12)]
    for number, name in enumerate(names):
        rgba = draw_ball(cameras, number)
        imageio.imwrite(root / name, np.where(rgba[..., 3:] > 0, rgba[..., :3], 90).astype(np.uint8))
    size = {"w": SIZE, "h": SIZE, "fl_x": float(cameras.fl_x[0]), "fl_y": float(cameras.fl_y[0])}
    (root / "transforms.json").write_text(json.dumps({**size, "frames": frames_of(cameras, names)}))
    return root


def draw_room(cameras: Cameras, number: int) -> np.ndarray:
    """RGB picture, 8 bits, from inside a box of 8 by 6 by 2 about the origin, painted with waves."""
    pixels = cameras.pixel_grid(number).flatten(0, 1)
    rays = cameras.rays(torch.full((len(pixels),), number), pixels)
    walls = torch.tensor([4.0, 3.0, 1.0]) * rays.rays_d.sign()
    t = ((walls - rays.rays_o) / rays.rays_d).amin(1)
    rgb = 0.5 + 0.5 * torch.sin(2 * (rays.rays_o + t[:, None] * rays.rays_d) + torch.tensor([0.0, 1.0, 2.0]))
    return (rgb * 255).round().byte().view(SIZE // 2, SIZE, 3).numpy()


def write_room(folder: Path) -> Path:
    """Write a folder ``room`` with a transforms.json: 24 views of 32x16 pixels from inside a room, all around."""
    root = folder / "room"
    (root / "images").mkdir(parents=True)
    place = torch.cartesian_prod(torch.linspace(-2.4, 2.4, 4), torch.linspace(-1.5, 1.5, 3), torch.zeros(2))
    turn = torch.arange(24) * 2.4
    ahead = torch.stack([turn.cos(), turn.sin(), 0.2 * torch.sin(3 * turn)], -1)
    c2w = look_at(place, place + ahead, torch.tensor([0.0, 0.0, 1.0]))
    cameras = Cameras.pinhole(c2w, 16.0, SIZE, SIZE // 2)
    names = [f"images/{number:03d}.png" for number in range(24)]
    for number, name in enumerate(names):
        imageio.imwrite(root / name, draw_room(cameras, number))
    size = {"w": SIZE, "h": SIZE // 2, "fl_x": 16.0, "fl_y": 16.0}
    (root / "transforms.json").write_text(json.dumps({**size, "frames": frames_of(cameras, names)}))
    return root


@pytest.fixture
def toy_room(tmp_path: Path) -> Path:
    """The room of `write_room`."""
    return write_room(tmp_path)


@pytest.fixture(params=["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every device that this machine has."""
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def listening() -> Iterator[None]:
    """Signals as at a prompt, for tests and what they start: background jobs of a script begin with SIGINT ignored."""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {kind: signal.signal(kind, handler) for kind, handler in handlers.items()}
    yield
    for kind, handler in before.items():
        signal.signal(kind, handler)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the ball after a short training; to be read, not written."""
    from nerfkit.cli import main

    root = tmp_path_factory.mktemp("small")
    field = "--field.n-levels 4 --field.log2-table-size 12 --field.finest-resolution 64 --field.width 16".split()
    rest = "--engine cpu --train.samples-per-step 4096 --sampler.resolution 32 --sampler.n-probes 2048".split()
    words = ["train", write_ball(root), "--out", root / "run", "--steps", 150, "--seed", 3, "--no-eval", *field, *rest]
    assert main([str(word) for word in words]) == 0
    return root / "run"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """An opaque picture of a ball on a plain ground."""
    path = tmp_path / "ball.png"
    imageio.imwrite(path, ball_photo()[0])
    return path


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a prior of `nerfkit lift` that has learnt nothing, for whoever does not mind what other sides look like."""
    from safetensors.torch import save_file

    from nerfkit.lift.prior import LiftNet

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("prior") / "prior.safetensors"
    save_file({name: tensor.half().contiguous() for name, tensor in LiftNet().state_dict().items()}, path)
    return path
