"""How unlike views look to networks that have seen many pictures, where the user has their weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from nerfkit.lift.onnx import PictureNet
from nerfkit.lift.photo import Rgba, over_white

_SIDE = 224


def distance_of(perceptual: Path | None, features: Path | None) -> Callable[[Rgba, Rgba], dict[str, float]] | None:
    """Compares two pictures by what is asked for: ``perceptual`` as LPIPS does, ``features`` by their cosine.

    Raises LpipsError or LiftError where a file does not hold such a network.
    """
    ways: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {}
    if perceptual is not None:
        from nerfkit.perceptual import Lpips

        ways["perceptual"] = Lpips("vgg", perceptual)
    if features is not None:
        net = PictureNet("--features", features, _SIDE)

        def unit(picture: np.ndarray) -> np.ndarray:
            found = net(picture).reshape(-1)
            return found / max(float(np.linalg.norm(found)), 1e-12)

        ways["features"] = lambda a, b: float(unit(a) @ unit(b))
    if not ways:
        return None

    def compare(mine: Rgba, truth: Rgba) -> dict[str, float]:
        a, b = over_white(mine), over_white(truth)
        return {name: way(a, b) for name, way in ways.items()}

    return compare
