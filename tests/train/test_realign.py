"""Photographs are bent to fit what the field shows: as far as they are off, where that can be told, and no further."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from nerfkit.cameras import Cameras
from nerfkit.config import Config, DataConfig, FieldConfig
from nerfkit.render import Rendered
from nerfkit.scene import load_scene
from nerfkit.scene.scene import Scene
from nerfkit.train import realign
from nerfkit.train.loop import model_of
from nerfkit.train.pixels import Pixels
from nerfkit.train.realign import Realignment, bent, trusted_flow

CPU, AREA = torch.device("cpu"), cv2.INTER_AREA
CONFIG = Config(field=FieldConfig(log2_table_size=8, finest_resolution=32), engine="cpu")


def clouds(height: int = 96, width: int = 120, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    layers = [cv2.GaussianBlur(rng.random((height, width, 3)).astype(np.float32), (0, 0), s) * s for s in (1, 2, 5)]
    picture = layers[0] + layers[1] + layers[2]
    return np.rint(255 * (picture - picture.min()) / (picture.max() - picture.min())).astype(np.uint8)


def everywhere(x: float, y: float, like: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.array([x, y], np.float32), (*like.shape[:2], 2))


def error(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - other)[10:-10, 10:-10].mean())


def test_a_shift_is_found_and_bent_back() -> None:
    shown = clouds()
    photograph = bent(shown, everywhere(-0.8, 0.5, shown))  # what stands at x + (0.8, -0.5) in it is shown at x
    flow, trust = trusted_flow(shown, photograph, None)
    assert np.abs(flow - np.array([0.8, -0.5]))[10:-10, 10:-10].mean() < 0.1
    assert trust.mean() > 0.5
    assert error(bent(photograph, flow), shown) < 0.3 * error(photograph, shown)


def test_what_is_flat_or_hidden_or_elsewhere_is_not_trusted() -> None:
    shown = clouds()
    photograph = bent(shown, everywhere(-0.8, 0.5, shown))
    flat = np.full_like(shown, 90)
    flow, trust = trusted_flow(flat, flat, None)
    assert np.abs(flow).max() < 0.01 and trust.max() < 0.01
    usable = np.ones(shown.shape[:2], bool)
    usable[30:60, 40:80] = False
    assert trusted_flow(shown, photograph, usable)[1][32:58, 42:78].max() == 0.0
    other = photograph.copy()
    other[30:60, 40:80] = clouds(seed=1)[30:60, 40:80]
    trust = trusted_flow(shown, other, None)[1]
    assert trust[35:55, 45:75].mean() < 0.5 * trust[65:90, 10:110].mean()


def test_no_pixel_moves_further_than_allowed() -> None:
    shown = clouds()
    flow, _ = trusted_flow(shown, bent(shown, everywhere(-4.0, 0.0, shown)), None)
    assert 1.0 < np.linalg.norm(flow, axis=-1).max() <= 0.01 * 120 + 1e-3


def test_transparent_pixels_lend_no_colour() -> None:
    image = np.zeros((40, 40, 4), np.uint8)
    image[10:30, 10:30] = (200, 100, 50, 255)
    moved = bent(image, everywhere(0.5, 0.0, image))
    solid = moved[..., 3] > 20
    assert solid.sum() > 300 and np.abs(moved[solid][:, :3].astype(int) - (200, 100, 50)).max() <= 3


@pytest.fixture
def scene(toy_scene: Path) -> Scene:
    """Clouds in the place of photographs; each is off in its own way, which together is nowhere."""
    found = load_scene(toy_scene, DataConfig())
    images, train = list(found.images), found.splits["train"]
    for i, view in enumerate(train):
        angle = 2 * np.pi * i / len(train)
        true = clouds(64, 64, seed=view)
        images[view] = bent(true, everywhere(0.6 * np.cos(angle), 0.6 * np.sin(angle), true))
    cameras = replace(found.cameras, width=found.cameras.width * 2, height=found.cameras.height * 2)
    return replace(found, images=images, cameras=cameras)


@pytest.mark.parametrize("enough", [64 * 64, 32 * 32])
def test_a_round_lays_photographs_on_what_is_shown_and_is_kept(
    enough: int, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def render(model: object, camera: Cameras, index: int, background: str) -> Rendered:
        (view,) = (i for i, pose in enumerate(scene.cameras.c2w) if torch.equal(pose, camera.c2w[index]))
        height, width = int(camera.height[index]), int(camera.width[index])
        shown = cv2.resize(clouds(64, 64, seed=view).astype(np.float32) / 255, (width, height), interpolation=AREA)
        flat = torch.zeros(height, width)
        return Rendered(torch.from_numpy(shown), flat, flat, flat, flat.int(), torch.zeros(height, width, 0))

    monkeypatch.setattr(realign, "render_image", render)
    monkeypatch.setattr(realign, "_ENOUGH", enough)
    monkeypatch.setattr(realign, "MOST_BENT", 0.1)
    model = model_of(scene, CONFIG)
    pixels, realignment = Pixels(scene, CPU), Realignment(scene, 2)
    assert realignment.update(0.3, 10**9, model, pixels) is None
    found = realignment.update(0.34, 10**9, model, pixels)
    assert found["round"] == 1 and found["root_mean_square"] == pytest.approx(0.6, abs=0.1)
    assert realignment.update(0.6, 10**9, model, pixels) is None
    for view, laid in zip(scene.splits["train"], pixels.pictures.each, strict=True):
        true = clouds(64, 64, seed=view)
        assert error(laid.numpy(), true) < 0.5 * error(scene.images[view], true)

    again, other = Pixels(scene, CPU), Realignment(scene, 2)
    other.load_state_dict(realignment.state_dict(), again)
    for one, two in zip(pixels.pictures.each, again.pictures.each, strict=True):
        assert torch.equal(one, two)
    assert other.update(0.6, 10**9, model, again) is None and other.update(0.7, 10**9, model, again)["round"] == 2
    assert other.update(0.9, 10**9, model, again) is None, "two rounds were asked for"
