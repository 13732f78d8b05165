"""Networks that users have as ONNX files: mattes, depths, features of pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float

from nerfkit.lift.photo import LiftError

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PictureNet:
    """A network of one input (1, 3, s, s), a picture as ImageNet's networks take it, and whose first output counts."""

    def __init__(self, flag: str, path: Path, side: int):
        """``side`` is taken where the network takes any; ``flag`` named it.

        Raises LiftError where onnxruntime is not installed, or the file holds no network that runs on pictures.
        """
        try:
            import onnxruntime
        except ImportError:
            raise LiftError(f'{flag}: needs onnxruntime; pip install "nerfkit[lift]"') from None
        if not path.is_file():
            raise LiftError(f"{flag} {path}: there is no such file")
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            entry = self._session.get_inputs()[0]
            self._name, self.side = entry.name, entry.shape[2] if isinstance(entry.shape[2], int) else side
            self(np.ones((8, 8, 3)))
        except Exception as error:  # of any class: the library has its own, and files are anybody's
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise LiftError(f"{flag} {path}: is no network that can be run on pictures ({why})") from None

    def __call__(self, picture: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, ...]:
        """What it says of a picture, RGB in [0, 1] of any size, without dimensions of one."""
        shrinks = min(picture.shape[:2]) > self.side
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        x = cv2.resize(picture.astype(np.float32), (self.side, self.side), interpolation=how)
        x = ((x - MEAN) / DEVIATION).astype(np.float32).transpose(2, 0, 1)[None]
        return np.squeeze(np.asarray(self._session.run(None, {self._name: x})[0], np.float64))
