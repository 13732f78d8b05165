"""Pictures side by side: the photo, and views from all around."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from nerfkit.aside import file_aside
from nerfkit.lift.framing import Framing
from nerfkit.lift.photo import Rgba, over_white
from nerfkit.lift.scene import picture_of
from nerfkit.lift.volume import Volume

AZIMUTHS = (0.0, 45.0, 90.0, 135.0, 180.0, 225.0, 270.0, 315.0)
"""Degrees, of the eight views."""
_SMALL = 72


def glimpses_of(volume: Volume, photo: Framing) -> list[Rgba]:
    """Views of what the prior makes of it, small, as it has no more to show."""
    return [picture_of(volume, azimuth, photo.elevation, _SMALL, n_samples=32) for azimuth in AZIMUTHS]


def sheet(photo: Framing, views: list[Rgba]) -> UInt8[np.ndarray, "rows columns 3"]:
    """The photo, and the eight views from its height."""
    first = photo.scaled(views[0].shape[0]).rgba
    left = np.concatenate([first, np.zeros_like(first)], 0)
    return np.rint(255 * over_white(np.concatenate([left, in_rows(views)], 1))).astype(np.uint8)


def in_rows(tiles: list[np.ndarray]) -> np.ndarray:
    """Eight pictures, four beside one another."""
    return np.concatenate([np.concatenate(tiles[:4], 1), np.concatenate(tiles[4:], 1)], 0)


def write_picture(path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> Path:
    """Write a PNG, whole or not at all."""
    with file_aside(path) as aside:
        cv2.imwrite(str(aside), rgb[..., ::-1])
    return path
