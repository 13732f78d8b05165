"""How unlike views look to networks that have seen many pictures, where the user has their weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float

from nerfkit.lift.bench import Rgba, over_white
from nerfkit.lift.photo import LiftError

_SIDE = 224
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def distance_of(perceptual: Path | None, features: Path | None) -> Callable[[Rgba, Rgba], dict[str, float]] | None:
    """Compares two pictures by what is asked for: ``perceptual`` as LPIPS does, ``features`` by their cosine.

    Raises LpipsError or LiftError where a file does not hold such a network.
    """
    ways: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {}
    if perceptual is not None:
        from nerfkit.perceptual import Lpips

        ways["perceptual"] = Lpips("vgg", perceptual)
    if features is not None:
        net = FeatureNet(features)
        ways["features"] = lambda a, b: float(net(a) @ net(b))
    if not ways:
        return None

    def compare(mine: Rgba, truth: Rgba) -> dict[str, float]:
        a, b = over_white(mine), over_white(truth)
        return {name: way(a, b) for name, way in ways.items()}

    return compare


class FeatureNet:
    """A network in an ONNX file that makes a row of features of a picture (1, 3, 224, 224), ImageNet's
    normalisation."""

    def __init__(self, path: Path):
        """Raises LiftError."""
        try:
            import onnxruntime
        except ImportError:
            raise LiftError('--features: needs onnxruntime; pip install "nerfkit[lift]"') from None
        try:
            self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            self(np.ones((32, 32, 3)))
        except Exception as error:  # of any class: the library has its own, and files are anybody's
            raise LiftError(f"{path}: is no network of features ({str(error).splitlines()[0]})") from None

    def __call__(self, picture: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, " d"]:
        """Unit features of a picture, RGB in [0, 1]."""
        x = cv2.resize(picture.astype(np.float32), (_SIDE, _SIDE), interpolation=cv2.INTER_LINEAR)
        x = ((x - _MEAN) / _DEVIATION).astype(np.float32).transpose(2, 0, 1)[None]
        found = self.session.run(None, {self.session.get_inputs()[0].name: x})[0].reshape(-1)
        return found / max(float(np.linalg.norm(found)), 1e-12)
