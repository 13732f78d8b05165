"""Where the cameras of the courtyard stand: walks through it, as a person with a camera would take them. Metres.

A walk is a path of the eye and a path of what it looks at. Training views are spread evenly along it; a test view lies
half-way between two of them in place and gaze, so that it asks for nothing that has not been seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scene_shapes import spline

GAP = 0.5  # no surface is nearer than this to an eye
AHEAD = 0.9  # nor than this in the middle of the picture
# Steps aside to try where a place is taken: up, down, then about; the first that is clear is taken.
ASIDE = [(0, 0, 0), (0, 0, 0.3), (0, 0, -0.3)]
ASIDE += [
    (r * np.cos(a), r * np.sin(a), z)
    for r in (0.5, 0.9, 1.4, 2.0, 2.8)
    for z in (0, 0.3)
    for a in np.arange(8) * np.pi / 4
]

Distance = Callable[[np.ndarray, np.ndarray], float]
"""How far the nearest surface is from a place (3,) in a direction (3,)."""


@dataclass(frozen=True)
class Walk:
    """``path`` gives eye and target (3,) at a part of the way from 0 to 1; ``tests`` are the gaps that hold a test."""

    name: str
    path: Callable[[float], tuple[np.ndarray, np.ndarray]]
    count: int
    tests: tuple[int, ...] = ()
    closed: bool = False

    def at(self, step: float) -> tuple[np.ndarray, np.ndarray]:
        """Eye and target after ``step`` views, which may be half a one."""
        return self.path(step / (self.count if self.closed else self.count - 1))


@dataclass(frozen=True)
class Shot:
    """One view: the name of its picture, whether it is held out, and its camera to world (4, 4), OpenGL axes."""

    name: str
    test: bool
    pose: np.ndarray


def look_at(eye: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Camera to world (4, 4), OpenGL axes, at ``eye`` (3,) towards ``target`` (3,), upright."""
    back = np.asarray(eye, dtype=float) - np.asarray(target, dtype=float)
    back /= np.linalg.norm(back)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(back, right), back, eye], axis=1)
    return pose


# ---- the walks


def around(size: tuple[float, float], low: float, high: float, gaze: Callable[[float], tuple]) -> Callable:
    """A round of the yard, ``size`` its half axes, rising and sinking between two heights; ``gaze`` of its angle."""

    def path(s: float) -> tuple[np.ndarray, np.ndarray]:
        a = 2 * np.pi * s + 0.2
        height = low + (high - low) * (0.5 + 0.5 * np.sin(3 * a))
        return np.array([size[0] * np.cos(a), size[1] * np.sin(a), height]), np.array(gaze(a))

    return path


def along(eyes: list[tuple], targets: list[tuple]) -> Callable:
    """A smooth way through ``eyes``, looking at a point that moves through ``targets``."""

    def path(s: float) -> tuple[np.ndarray, np.ndarray]:
        eye, target = (spline(np.array(knots, dtype=float), 1001)[round(1000 * s)] for knots in (eyes, targets))
        return eye, target

    return path


def about(centre: tuple[float, float, float], reach: float, bearings: tuple[float, float], height: float) -> Callable:
    """Part of a circle about a thing, ``reach`` metres off, the eye ``height`` metres high; degrees from +x."""

    def path(s: float) -> tuple[np.ndarray, np.ndarray]:
        a = np.radians(bearings[0] + s * (bearings[1] - bearings[0]))
        eye = np.array([centre[0] + reach * np.cos(a), centre[1] + reach * np.sin(a), height + 0.25 * np.sin(2.5 * a)])
        return eye, np.array(centre)

    return path


WALKS = (
    Walk(
        "fountain",
        around((6.6, 6.0), 1.2, 2.1, lambda a: (1.5 * np.cos(3 * a), 1.5 * np.sin(2 * a), 1.7 + 0.5 * np.sin(2 * a))),
        20,
        (3, 10, 16),
        True,
    ),
    Walk(
        "outward",
        around((7.8, 6.4), 1.4, 1.9, lambda a: (18 * np.cos(a + 0.35), 13 * np.sin(a + 0.35), 3.0 + np.sin(2 * a))),
        22,
        (2, 9, 17),
        True,
    ),
    Walk(
        "rim",
        around(
            (14.6, 10.2), 1.1, 2.3, lambda a: (-6 * np.cos(a + 0.5), -5 * np.sin(a + 0.5), 1.8 + 0.6 * np.cos(3 * a))
        ),
        18,
        (4, 12),
        True,
    ),
    Walk(
        "above",
        around((11.5, 8.6), 4.6, 7.6, lambda a: (5 * np.cos(2 * a), 4 * np.sin(2 * a), 1.2)),
        16,
        (3, 9),
        True,
    ),
    Walk(
        "fronts",
        along(
            [
                (-13, 9.0, 1.7),
                (-6, 9.4, 1.5),
                (1, 9.0, 1.8),
                (8, 9.5, 1.6),
                (13.6, 9.4, 1.7),
                (14.3, 1, 1.6),
                (14, -8, 1.7),
            ],
            [(-8, 13, 2.8), (0, 13, 2.6), (8, 13, 2.8), (14, 12.6, 2.6), (18, 6, 3.0), (18, -6, 2.6), (14, -16, 2.4)],
        ),
        10,
        (2, 6),
    ),
    Walk(
        "view",
        along(
            [(-14, -10.2, 1.6), (-5, -10.6, 1.8), (5, -10.2, 1.5), (13, -10.4, 1.9)],
            [(-18, -22, 2.5), (3, -26, 2.6), (12, -24, 2.8), (2, -22, 2.4)],
        ),
        8,
        (3,),
    ),
    Walk(
        "low", along([(-9, -9, 0.7), (-1, -6, 0.62), (9, 4, 0.7)], [(0, 0, 1.2), (4, 4, 1.2), (10, 12, 1.5)]), 6, (2,)
    ),
    Walk("bicycle", about((2.2, 11.3, 0.7), 1.9, (200, 335), 1.25), 4, (1,)),
    Walk("bench", about((4.6, 3.9, 0.6), 2.1, (5, 110), 1.3), 4),
    Walk("stall", about((11.0, -8.0, 0.9), 2.4, (95, 215), 1.5), 4, (1,)),
    Walk("railing", about((-7.0, -13.0, 1.2), 2.0, (50, 130), 1.4), 4),
    Walk("basin", about((1.4, -1.4, 1.0), 2.9, (-100, 10), 1.35), 4),
)


# ---- what is free


def sphere(count: int = 400) -> np.ndarray:
    """Directions (count, 3), even over the sphere: a golden spiral."""
    z = 1 - (2 * np.arange(count) + 1) / count
    a = np.pi * (3 - np.sqrt(5)) * np.arange(count)
    r = np.sqrt(1 - z**2)
    return np.stack([r * np.cos(a), r * np.sin(a), z], axis=1)


def stand_clear(eye: np.ndarray, target: np.ndarray, distance: Distance) -> np.ndarray:
    """``eye`` moved as little as is needed to see ``target`` with nothing too close."""
    for step in ASIDE:
        place = eye + np.array(step)
        ahead = (target - place) / np.linalg.norm(target - place)
        if distance(place, ahead) > AHEAD and all(distance(place, way) > GAP for way in sphere()):
            return place
    raise ValueError(f"there is no room for a camera about {eye.round(2)}")


def shots(distance: Distance) -> list[Shot]:
    """All views, the training views of a walk before its test views."""
    taken = []
    for walk in WALKS:
        steps = [(f"{walk.name}_{k:02d}", False, float(k)) for k in range(walk.count)]
        steps += [(f"test_{walk.name}_{k:02d}", True, k + 0.5) for k in walk.tests]
        for name, test, step in steps:
            eye, target = walk.at(step)
            pose = look_at(stand_clear(eye, target, distance), target).round(6)
            taken.append(Shot(name, test, pose))
    return taken
