"""What may happen to a picture on its way: each attack is what its name says, of the strength that it says.

Pixels are in [0, 1] where noise and brightness are meant; the result is always a picture of 8 bits.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import UInt8

from nerfkit.stego.keys import StegoError

Picture = UInt8[np.ndarray, "_ _ 3"]


def attacked(picture: Picture, attacks: str, seed: int = 0) -> Picture:
    """A picture after attacks, one after the other.

    Args:
        attacks: names of `ATTACKS` with strengths, such as ``jpeg:50`` or ``noise:0.05+crop:0.7+jpeg:50``.
        seed: of what is random.

    Raises StegoError for an attack that is none.
    """
    chance = np.random.default_rng(seed)
    for one in attacks.split("+"):
        found = re.fullmatch(r"([a-z]+)(?::(-?\d+(?:\.\d+)?))?", one.strip())
        if found is None or found[1] not in ATTACKS or found[2] is None:
            known = ", ".join(f"{name}:{example}" for name, (_, example) in ATTACKS.items())
            raise StegoError(f"attack {one!r}: expected one such as {known}, or several joined by +")
        picture = np.ascontiguousarray(ATTACKS[found[1]][0](picture, float(found[2]), chance))
    return picture


def _noise(picture: Picture, std: float, chance: np.random.Generator) -> Picture:
    """Gaussian noise of this standard deviation, clipped."""
    return _bytes(picture / 255.0 + chance.normal(0.0, abs(std), picture.shape))


def _blur(picture: Picture, sigma: float, _: np.random.Generator) -> Picture:
    """Gaussian blur, its kernel three standard deviations wide to each side."""
    reach = int(np.ceil(3 * abs(sigma)))
    return cv2.GaussianBlur(picture, (2 * reach + 1,) * 2, max(abs(sigma), 1e-3))


def _jpeg(picture: Picture, quality: float, _: np.random.Generator) -> Picture:
    """Pillow's codec, colours at half the resolution (4:2:0)."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=int(np.clip(quality, 1, 100)), subsampling=2)
    return np.array(Image.open(file))


def _resize(picture: Picture, factor: float, _: np.random.Generator) -> Picture:
    """To this share of each side; it stays that small."""
    size = max(round(picture.shape[1] * factor), 1), max(round(picture.shape[0] * factor), 1)
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)


def _crop(picture: Picture, share: float, chance: np.random.Generator) -> Picture:
    """This share of each side, from anywhere; nothing is padded."""
    height, width = (max(round(side * min(share, 1.0)), 1) for side in picture.shape[:2])
    y = int(chance.integers(picture.shape[0] - height + 1))
    x = int(chance.integers(picture.shape[1] - width + 1))
    return picture[y : y + height, x : x + width]


def _rotate(picture: Picture, most: float, chance: np.random.Generator) -> Picture:
    """By any angle up to so many degrees to either side, black corners."""
    height, width = picture.shape[:2]
    most = abs(most)
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), chance.uniform(-most, most), 1.0)
    return cv2.warpAffine(picture, turn, (width, height), flags=cv2.INTER_CUBIC)


def _brightness(picture: Picture, factor: float, _: np.random.Generator) -> Picture:
    """All values times this, clipped."""
    return _bytes(picture / 255.0 * factor)


def _contrast(picture: Picture, factor: float, _: np.random.Generator) -> Picture:
    """Differences from the mean times this, clipped."""
    values = picture / 255.0
    return _bytes((values - values.mean()) * factor + values.mean())


def _bytes(values: np.ndarray) -> Picture:
    return (values.clip(0.0, 1.0) * 255.0).round().astype(np.uint8)


ATTACKS: dict[str, tuple[Callable[[Picture, float, np.random.Generator], Picture], str]] = {
    "noise": (_noise, "0.05"),
    "blur": (_blur, "1.5"),
    "jpeg": (_jpeg, "50"),
    "resize": (_resize, "0.5"),
    "crop": (_crop, "0.4"),
    "rotate": (_rotate, "30"),
    "brightness": (_brightness, "1.5"),
    "contrast": (_contrast, "0.5"),
}
"""Each with a strength that is usual."""
