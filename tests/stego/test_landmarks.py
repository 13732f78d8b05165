from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from nerfkit.stego.landmarks import _direct
from nerfkit.stego.pinhole import Projective, fitted, slopes


def camera(seed: int) -> Projective:
    chance = np.random.default_rng(seed)
    turn = cv2.Rodrigues(chance.normal(size=3))[0]
    inner = np.array([[500.0, 0.0, 190.0], [0.0, 505.0, 160.0], [0.0, 0.0, 1.0]])
    return Projective(inner @ np.concatenate([turn, np.array([[0.1], [0.2], [4.0]])], 1))


def points(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (n, 3))


@pytest.mark.parametrize("seed", range(5))
def test_six_points_tell_a_camera(seed: int) -> None:
    of, at = camera(seed), points(6, seed)
    found = Projective(_direct(at[None], of.project(at)[0][None])[0])
    more = points(50, seed + 1)
    assert np.allclose(found.project(more)[0], of.project(more)[0], atol=1e-4)
    assert (found.project(more)[1] > 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_rays_meet_the_points_that_pixels_show(seed: int) -> None:
    of, at = camera(seed), points(20, seed)
    pixels, depth = of.project(at)
    rays = of.rays(torch.from_numpy(pixels))
    offset = torch.from_numpy(at).float() - rays.rays_o
    t = (offset * rays.rays_d).sum(1)
    assert (t > 0).all() and torch.allclose(rays.rays_d * t[:, None], offset, atol=1e-4)
    assert torch.allclose(rays.cos * t, torch.from_numpy(depth).float(), atol=1e-4)


def test_a_pinhole_is_its_numbers() -> None:
    for seed in range(5):
        matrix = camera(seed).matrix
        assert np.allclose(Projective.of(Projective(3.0 * matrix).numbers()).matrix, matrix, atol=1e-6)


def test_slopes_say_how_pixels_move() -> None:
    numbers, at, chance = camera(0).numbers(), points(20), np.random.default_rng(0)
    step = 1e-5 * chance.normal(size=10)
    moved = Projective.of(numbers + step).project(at)[0] - Projective.of(numbers - step).project(at)[0]
    assert np.allclose(slopes(numbers, at) @ step, moved / 2, rtol=1e-3, atol=1e-5)


def test_a_fit_ends_at_the_camera_whatever_some_matches_say() -> None:
    for seed in range(5):
        of, at = camera(seed), points(100, seed)
        pixels = of.project(at)[0]
        pixels[:20] += np.random.default_rng(seed).uniform(-80, 80, (20, 2))
        begin = Projective.of(of.numbers() + 0.01 * np.random.default_rng(seed).normal(size=10))
        assert np.allclose(fitted(begin, at, pixels).project(at)[0], of.project(at)[0], rtol=0, atol=2.0)


def test_a_resized_picture_has_a_scaled_camera() -> None:
    of, at = camera(0), points(10)
    assert np.allclose(of.scaled(0.5, 2.0).project(at)[0], of.project(at)[0] * [0.5, 2.0])
