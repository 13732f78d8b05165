from __future__ import annotations

import numpy as np
import pytest

from nerfkit.stego.attacks import ATTACKS, attacked
from nerfkit.stego.keys import StegoError

PICTURE = np.random.default_rng(0).integers(60, 196, (120, 160, 3), dtype=np.uint8)
SMOOTH = np.broadcast_to(np.linspace(60, 196, 160)[None, :, None], (120, 160, 3)).round().astype(np.uint8)


@pytest.mark.parametrize("name", ATTACKS)
def test_each_gives_a_picture_and_the_same_again(name: str) -> None:
    by = f"{name}:{ATTACKS[name][1]}"
    found = attacked(PICTURE, by, 3)
    assert found.dtype == np.uint8 and found.shape[2] == 3
    assert np.array_equal(found, attacked(PICTURE, by, 3))


def test_noise_is_of_the_strength_that_it_says() -> None:
    off = (attacked(SMOOTH, "noise:0.05").astype(float) - SMOOTH) / 255
    assert off.std() == pytest.approx(0.05, rel=0.02)


def test_a_blur_is_as_wide_as_it_says() -> None:
    dot = np.zeros((41, 41, 3), np.uint8)
    dot[20, 20] = 255
    spread = attacked(dot, "blur:1.5")[..., 0].astype(float)
    x = np.arange(41) - 20
    assert np.sqrt((spread.sum(0) * x**2).sum() / spread.sum()) == pytest.approx(1.5, abs=0.1)


def test_sizes_are_those_that_were_asked_for() -> None:
    assert attacked(PICTURE, "crop:0.4").shape == (48, 64, 3)
    assert attacked(PICTURE, "resize:0.5").shape == (60, 80, 3)
    assert attacked(PICTURE, "rotate:30").shape == PICTURE.shape
    assert attacked(PICTURE, "crop:0.5+resize:2+jpeg:90").shape == PICTURE.shape


def test_a_turn_to_one_side_is_one_to_either() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    assert np.array_equal(attacked(picture, "rotate:-30", 1), attacked(picture, "rotate:30", 1))


def test_light_is_multiplied() -> None:
    assert np.abs(attacked(SMOOTH, "brightness:0.5") - SMOOTH / 2).max() <= 0.5
    mean = SMOOTH.mean()
    assert np.abs(attacked(SMOOTH, "contrast:0.5") - (mean + (SMOOTH - mean) / 2)).max() <= 0.5


@pytest.mark.parametrize("by", ["", "burn:1", "jpeg", "jpeg:x", "jpeg:50+", "crop:0.4,jpeg:50"])
def test_what_is_none_is_told(by: str) -> None:
    with pytest.raises(StegoError, match="expected one such as"):
        attacked(PICTURE, by)
