"""Pixels drawn where there is detail: as often as their blocks vary, and never where masks hide something."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nerfkit.config import DataConfig
from nerfkit.scene import load_scene
from nerfkit.train.detail import BLOCK, Detail, every, variation
from nerfkit.train.pixels import Pixels

SIZES = [(8, 8), (16, 24), (19, 21), (3, 5), (1, 40)]


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Noise that grows to the right."""
    noise = np.random.default_rng(seed).normal(size=(height, width, channels))
    return (128 + 30 * noise * np.linspace(0.1, 1.0, width)[:, None]).clip(0, 255).astype(np.uint8)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def slow_variation(image: np.ndarray) -> np.ndarray:
    values = image.astype(float)
    if image.shape[2] == 4:
        values[..., :3] *= values[..., 3:] / 255
    rows, columns = (-(-n // BLOCK) for n in image.shape[:2])
    out = np.empty((rows, columns))
    for i in range(rows):
        for j in range(columns):
            y, x = (
                np.minimum(np.arange(BLOCK) + k * BLOCK, n - 1) for k, n in zip((i, j), image.shape[:2], strict=True)
            )
            out[i, j] = np.sqrt(values[y][:, x].var((0, 1)).mean())
    return out


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("size", SIZES)
def test_a_block_varies_by_its_standard_deviation(size: tuple[int, int], channels: int) -> None:
    image = picture(*size, channels)
    np.testing.assert_allclose(variation(image), slow_variation(image), atol=0.05)


def test_what_does_not_show_does_not_vary() -> None:
    image = picture(16, 16, 4)
    image[:, :8, 3] = 0
    found = variation(image)
    assert found[:, 0].max() == 0.0 and found[:, 1].min() > 1.0


@pytest.mark.parametrize("share", [0.0, 0.1, 1 / 3, 0.5, 0.9])
def test_a_share_is_spread_evenly(share: float) -> None:
    which = every(share, 1000)
    assert len(which) == 1000
    running = which.cumsum(0) - share * torch.arange(1, 1001)
    assert float(running.abs().max()) <= 1.0


def test_pixels_are_drawn_as_often_as_their_blocks_vary() -> None:
    images = [picture(*size, seed=i) for i, size in enumerate(SIZES)]
    expected = np.concatenate(
        [
            np.kron(slow_variation(image), np.ones((BLOCK, BLOCK)))[: image.shape[0], : image.shape[1]].reshape(-1)
            for image in images
        ]
    )
    n = 2_000_000
    counts = Detail.of(images).draw(n, seeded()).bincount(minlength=len(expected)).numpy()
    mean = n * expected / expected.sum()
    assert np.abs(counts - mean).max() < 6 * np.sqrt(mean.max())
    assert np.corrcoef(counts, mean)[0, 1] > 0.99


def test_blocks_that_masks_touch_are_left_out() -> None:
    images = [picture(20, 30, seed=i) for i in range(2)]
    masks = [np.ones((20, 30), bool) for _ in images]
    masks[0][:] = False
    masks[1][17, 9] = False
    drawn = Detail.of(images, masks).draw(20000, seeded()).numpy()
    assert drawn.min() >= 600
    y, x = np.divmod(drawn - 600, 30)
    touched = (y >= 16) & (x >= 8) & (x < 16)
    assert not touched.any()
    assert len(np.unique(drawn)) == 600 - 4 * 8


def test_pictures_without_detail_have_none() -> None:
    plain = [np.full((20, 30, 3), value, np.uint8) for value in (0, 255)]
    assert Detail.of(plain) is None
    images = [picture(20, 30)]
    assert Detail.of(images, [np.zeros((20, 30), bool)]) is None


def test_a_pixel_is_of_the_block_that_it_was_drawn_from() -> None:
    detail = Detail.of([picture(*size, seed=i) for i, size in enumerate(SIZES)])
    blocks = torch.arange(len(detail)).repeat(2000)
    within = torch.rand(len(blocks), 2, generator=seeded(), dtype=torch.float64)
    pixels = detail.pixels_of(blocks, within)
    assert torch.equal(detail.blocks_of(pixels), blocks)
    # And every pixel is of one.
    assert len(pixels.unique()) == sum(height * width for height, width in SIZES)


def test_pixels_come_from_detail_and_from_everywhere_in_turn(toy_scene: Path) -> None:
    scene = load_scene(toy_scene, DataConfig())
    for view in scene.splits["train"]:  # one block of one view varies
        scene.images[view][:] = 200
    first = scene.splits["train"][3]
    scene.images[first][8:16, 16:24, :3] = picture(8, 8)
    pixels = Pixels(scene, torch.device("cpu"))
    picked = pixels.draw(4000, seeded(), 0.25)
    there = every(0.25, 4000)
    place = picked[there] - 3 * 32 * 32
    y, x = place // 32, place % 32
    assert ((y >= 8) & (y < 16) & (x >= 16) & (x < 24)).all()
    assert torch.equal(picked[~there], pixels.draw(4000, seeded())[~there])
    everywhere = pixels.views(picked[~there]).bincount()
    assert everywhere.min() > 0.5 * everywhere.max()


def test_masked_pixels_are_never_drawn_for_their_detail(toy_scene: Path) -> None:
    scene = load_scene(toy_scene, DataConfig())
    generator = np.random.default_rng(0)
    masks = [generator.random(image.shape[:2]) < 0.99 for image in scene.images]
    pixels = Pixels(replace(scene, masks=masks), torch.device("cpu"))
    usable = np.concatenate([masks[i].reshape(-1) for i in scene.splits["train"]])
    assert usable[pixels.draw(20000, seeded(), 0.9).numpy()].all()
