"""LiftBench: what is lifted from one picture of an object, against what the object looks like from elsewhere.

An object is a folder (tools/lift_prior/make_bench.py makes some): input.png, views/*.png (straight alpha), cameras.json
and, where its shape is known, surface.npy (n, 3) and input_depth.png. Anybody's answer is a folder of PNGs, one a view,
over white or with alpha; so others' can stand beside ours. All is scored over white, full pictures, 8 bits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float

from nerfkit.evaluate import ssim
from nerfkit.lift.photo import LiftError, Rgba, over_white

_BLACK = 1e-10


@dataclass(frozen=True)
class Pose:
    """Degrees, and the distance from the middle of the object, whose radius is 1."""

    azimuth: float
    elevation: float
    fov: float
    radius: float


@dataclass(frozen=True)
class Object:
    """What is to be lifted, and the truth."""

    name: str
    folder: Path
    input: Pose
    views: tuple[Pose, ...]

    @classmethod
    def open(cls, folder: Path) -> Object:
        """Raises LiftError where the folder holds no object."""
        try:
            about = json.loads((folder / "cameras.json").read_text())
            return cls(folder.name, folder, Pose(**about["input"]), tuple(Pose(**pose) for pose in about["views"]))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise LiftError(f"{folder}: holds no object to be lifted ({error})") from None

    @property
    def ring(self) -> list[int]:
        """The views from the height that most of them have: those that count."""
        heights = [pose.elevation for pose in self.views]
        common = max(set(heights), key=heights.count)
        return [i for i, height in enumerate(heights) if height == common]

    def picture(self) -> Rgba:
        """What is lifted."""
        return read_rgba(self.folder / "input.png")

    def truth(self, view: int) -> Rgba:
        """What the object looks like."""
        return read_rgba(self.folder / "views" / f"{view:03d}.png")

    def surface(self) -> Float[np.ndarray, "n 3"] | None:
        """Points of its surface, where they are known."""
        path = self.folder / "surface.npy"
        return np.load(path) if path.is_file() else None


def objects_in(folder: Path) -> list[Object]:
    """All objects of a folder, by name. Raises LiftError where there is none."""
    found = sorted(path.parent for path in folder.glob("*/cameras.json")) if folder.is_dir() else []
    if not found:
        raise LiftError(f"{folder}: holds no objects; tools/lift_prior/make_bench.py makes some")
    return [Object.open(path) for path in found]


def read_rgba(path: Path) -> Rgba:
    """A picture with alpha, opaque where it has none. Raises LiftError."""
    found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if found is None or found.ndim != 3:
        raise LiftError(f"{path}: is no picture in colour")
    if found.shape[2] == 3:
        found = np.dstack([found, np.full(found.shape[:2], 255, np.uint8)])
    return cv2.cvtColor(found, cv2.COLOR_BGRA2RGBA)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """dB."""
    return -10 * math.log10(max(float(np.square(a - b).mean()), _BLACK))


def scored(answer: Rgba, truth: Rgba) -> dict[str, float]:
    """How like the truth a view is: whole, where either shows the object, its structure, its outline."""
    a, b = over_white(answer), over_white(truth)
    mine, there = answer[..., 3] > 127, truth[..., 3] > 127
    either = mine | there
    return {
        "psnr": psnr(a, b),
        "psnr_union": psnr(a[either], b[either]) if either.any() else math.inf,
        "ssim": float(ssim(a, b)),
        "iou": float((mine & there).sum() / max(either.sum(), 1)),
    }


def near_surface(
    mine: Float[np.ndarray, "n 3"], true: Float[np.ndarray, "m 3"], reaches: Sequence[float] = (0.05, 0.1)
) -> dict[str, float]:
    """Chamfer distance and F-scores of points, after scaling mine about the origin to the extent of the true ones.

    Lengths are in units of the object's radius. Chamfer is the mean of both mean distances; F at a reach is the
    harmonic mean of the shares of points that have one of the other set so near.
    """
    from scipy.spatial import cKDTree

    def extent(points: np.ndarray) -> float:
        return float(np.linalg.norm(points - points.mean(0), axis=1).mean())

    if not len(mine):
        return {f"f{reach:g}": 0.0 for reach in reaches}  # from nothing to them there is no distance
    scaled = mine * (extent(true) / max(extent(mine), 1e-9))
    there, back = cKDTree(true).query(scaled)[0], cKDTree(scaled).query(true)[0]
    found = {"chamfer": float(there.mean() + back.mean()) / 2}
    for reach in reaches:
        precision, recall = float((there < reach).mean()), float((back < reach).mean())
        found[f"f{reach:g}"] = 2 * precision * recall / max(precision + recall, 1e-9)
    return found


Answer = Callable[[Object, int], Rgba]
"""What a view of an object is said to look like."""


def rows_of(
    one: Object, answer: Answer, views: Sequence[int], more: Callable[[Rgba, Rgba], dict[str, float]] | None = None
) -> dict[str, Any]:
    """Means over views of an object."""
    each = []
    for view in views:
        mine, truth = answer(one, view), one.truth(view)
        each.append(scored(mine, truth) | (more(mine, truth) if more else {}))
    return {key: float(np.mean([row[key] for row in each])) for key in each[0]}
