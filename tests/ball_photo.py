"""A picture of a ball."""

from __future__ import annotations

import numpy as np


def ball(size: int = 96, ground: tuple[int, int, int] = (235, 235, 230)) -> tuple[np.ndarray, np.ndarray]:
    """A shaded ball off the middle of a plain ground, RGB, and where it is."""
    y, x = np.mgrid[:size, :size] + 0.5
    u, v = (x - 0.55 * size) / (0.3 * size), (y - 0.5 * size) / (0.3 * size)
    inside = u * u + v * v < 1
    light = np.clip(1.1 - 0.4 * u - 0.5 * v, 0.2, 1.4)[..., None]
    rgb = np.where(inside[..., None], np.clip(np.array([180, 60, 40]) * light, 0, 255), np.array(ground))
    return rgb.astype(np.uint8), inside
