"""Training pixels: whose they are, where their rays go, and which are never drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nerfkit.config import DataConfig
from nerfkit.scene import load_scene
from nerfkit.scene.scene import Scene
from nerfkit.train.pixels import Pixels

CPU = torch.device("cpu")


@pytest.fixture
def scene(toy_scene: Path) -> Scene:
    return load_scene(toy_scene, DataConfig())


def draw(pixels: Pixels, n: int = 20000) -> torch.Tensor:
    return pixels.draw(n, torch.Generator().manual_seed(0))


def test_all_training_pixels_are_drawn_alike(scene: Scene) -> None:
    pixels = Pixels(scene, CPU)
    assert len(pixels.values) == sum(scene.images[i][..., 0].size for i in scene.splits["train"])
    counts = draw(pixels, 50 * len(pixels.values)).bincount(minlength=len(pixels.values)).float()
    assert counts.mean() == 50.0 and counts.min() > 15 and counts.max() < 100


def test_rays_and_colours_are_those_of_the_pixel(scene: Scene) -> None:
    pixels, views = Pixels(scene, CPU), scene.splits["train"]
    picked = draw(pixels, 200)
    rays, black = pixels.rays(picked, scene.frame), torch.zeros(200, 3)
    colors = pixels.colors(picked, black)
    for k, index in enumerate(picked.tolist()):
        place = index
        for view in views:  # pixels lie row by row, view after view
            height, width = scene.images[view].shape[:2]
            if place < height * width:
                break
            place -= height * width
        y, x = divmod(place, width)
        own = scene.cameras.rays(torch.tensor([view]), torch.tensor([[x + 0.5, y + 0.5]]))
        expected = scene.frame.model_rays(own)
        assert torch.allclose(rays.rays_o[k], expected.rays_o[0], atol=1e-6)
        assert torch.allclose(rays.rays_d[k], expected.rays_d[0], atol=1e-6)
        rgba = scene.images[view][y, x].astype(np.float32) / 255.0
        assert colors[k].tolist() == pytest.approx((rgba[:3] * rgba[3]).tolist(), abs=1e-6)


def test_the_background_shows_where_alpha_lets_it(scene: Scene) -> None:
    pixels = Pixels(scene, CPU)
    picked = draw(pixels, 500)
    behind = torch.rand(500, 3)
    clear = pixels.values[picked][:, 3] == 0
    assert clear.any() and not clear.all()
    colors = pixels.colors(picked, behind)
    assert torch.equal(colors[clear], behind[clear])
    assert float(colors.min()) >= 0.0 and float(colors.max()) <= 1.0


def test_opaque_images_ignore_the_background(toy_capture: Path) -> None:
    pixels = Pixels(load_scene(toy_capture, DataConfig()), CPU)
    picked = draw(pixels, 100)
    assert torch.equal(pixels.colors(picked, torch.zeros(100, 3)), pixels.colors(picked, torch.ones(100, 3)))


def test_images_of_both_kinds_share_a_row(scene: Scene) -> None:
    first = scene.splits["train"][0]
    scene.images[first] = np.ascontiguousarray(scene.images[first][..., :3])
    pixels = Pixels(scene, CPU)
    n = scene.images[first][..., 0].size
    assert pixels.values.shape[1] == 4 and (pixels.values[:n, 3] == 255).all() and (pixels.values[n:, 3] == 0).any()


def test_images_of_several_sizes(scene: Scene) -> None:
    views = scene.splits["train"]
    scene.images[views[0]] = scene.images[views[0]][:20, :24]
    pixels = Pixels(scene, CPU)
    first_of_second = torch.tensor([20 * 24])
    expected = scene.cameras.rays(torch.tensor([views[1]]), torch.tensor([[0.5, 0.5]]))
    ray = pixels.rays(first_of_second, scene.frame)
    assert torch.allclose(ray.rays_d, expected.rays_d, atol=1e-6)


def test_masked_pixels_are_never_drawn(scene: Scene) -> None:
    generator = np.random.default_rng(0)
    masks = [generator.random(image.shape[:2]) < 0.3 for image in scene.images]
    pixels = Pixels(replace(scene, masks=masks), CPU)
    usable = np.concatenate([masks[i].reshape(-1) for i in scene.splits["train"]])
    picked = draw(pixels, 20 * int(usable.sum()))
    assert usable[picked.numpy()].all()
    assert len(picked.unique()) == int(usable.sum())


def test_the_seed_decides(scene: Scene) -> None:
    pixels = Pixels(scene, CPU)
    assert torch.equal(draw(pixels), draw(pixels))
    assert not torch.equal(draw(pixels), pixels.draw(20000, torch.Generator().manual_seed(1)))
