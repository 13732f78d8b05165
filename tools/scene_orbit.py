"""Where the cameras of the still life stand: on a sphere about it, facing its middle. Scene units."""

from __future__ import annotations

import numpy as np

DISTANCE = 3.85  # of every camera from the origin: the still life fills the picture and never leaves it
SPLITS = {"train": 64, "val": 4, "test": 12}


def look_at(azimuth: float, elevation: float) -> np.ndarray:
    """Camera to world (4, 4), OpenGL axes, on the sphere of radius DISTANCE, facing the origin. Degrees."""
    a, e = np.radians([azimuth, elevation])
    back = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    right = np.array([-np.sin(a), np.cos(a), 0.0])
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(back, right), back, DISTANCE * back], axis=1)
    return pose


def directions(split: str, count: int) -> list[tuple[float, float]]:
    """(azimuth, elevation) of each view in degrees.

    Training and validation views lie on a golden spiral, even over the upper half sphere; test views go round once,
    rising and sinking, so that they make a film and fall between the training views.
    """
    if split == "test":
        turn_by = np.arange(count) / count
        return [(360 * t + 7.0, 30 + 22 * np.sin(2 * np.pi * (2 * t + 0.15))) for t in turn_by]
    offset = 0.5 if split == "train" else 0.35
    height = (np.arange(count) + offset) / count
    order = np.random.default_rng(1).permutation(count)
    elevation = np.degrees(np.arcsin(0.03 + 0.965 * height))[order]
    azimuth = (137.50776 * np.arange(count))[order] % 360 + (0 if split == "train" else 60)
    return list(zip(azimuth, elevation, strict=True))
