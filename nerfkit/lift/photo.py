"""The picture that is to be lifted: opened with care, as anybody may have made it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

from nerfkit.foreign import eight_bits, opened

if TYPE_CHECKING:
    from PIL.Image import Image

Rgba = UInt8[np.ndarray, "h w 4"]
"""Straight: colours are not multiplied by alpha."""
_LEAST_SIDE = 32
LARGEST_SIDE = 1024
"""Pixels; larger pictures are reduced."""


class LiftError(ValueError):
    """A picture, or weights, that nothing can be lifted with: one sentence that says why, and what to do."""


@dataclass(frozen=True)
class Photo:
    """A picture, upright."""

    rgb: UInt8[np.ndarray, "h w 3"]
    alpha: UInt8[np.ndarray, "h w"] | None
    """What the file says of it; None of an opaque one."""
    remarks: list[str]
    """Sentences for the user."""


def read_photo(path: Path) -> Photo:
    """A picture of any kind that Pillow reads: turned upright as EXIF says, of an animated one the first frame.

    Raises LiftError, naming the file, for one that cannot be read, or is too large or too small.
    """
    from PIL import ImageOps

    remarks = []
    with opened(path, _LEAST_SIDE, LiftError) as image:
        if getattr(image, "n_frames", 1) > 1:
            remarks.append(f"{path}: moves; its first frame is lifted")
        image.draft("RGB", (LARGEST_SIDE, LARGEST_SIDE))
        pixels = np.asarray(_reduced(_colors(ImageOps.exif_transpose(image))))
    alpha = pixels[..., 3] if pixels.shape[2] == 4 and pixels[..., 3].min() < 255 else None
    return Photo(np.ascontiguousarray(pixels[..., :3]), alpha, remarks)


def _colors(image: Image) -> Image:
    """RGB, or RGBA where some of it may be transparent; 16 bits become 8."""
    image = eight_bits(image)
    clear = "A" in image.getbands() or "transparency" in image.info
    return image.convert("RGBA" if clear else "RGB")


def _reduced(image: Image) -> Image:
    """At most `LARGEST_SIDE` a side; colours under alpha count by their alpha."""
    from PIL.Image import Resampling

    scale = LARGEST_SIDE / max(image.size)
    if scale >= 1:
        return image
    size = tuple(max(round(side * scale), 1) for side in image.size)
    if image.mode == "RGB":
        return image.resize(size, Resampling.BOX)
    return image.convert("RGBa").resize(size, Resampling.BOX).convert("RGBA")


def read_mask(path: Path, size: tuple[int, int]) -> UInt8[np.ndarray, "h w"]:
    """Where the object is: white, or opaque, in a picture of its own, resized to (width, height).

    Raises LiftError as `read_photo` does, and where its sides are of another shape than the picture's.
    """
    from PIL.Image import Resampling, fromarray

    mask = read_photo(path)
    found = mask.alpha if mask.alpha is not None else mask.rgb.max(-1)
    found = 255 * found if found.max() == 1 else found  # labels
    wide, high = found.shape[1] / size[0], found.shape[0] / size[1]
    if abs(wide / high - 1) > 0.02:
        raise LiftError(f"{path}: is {found.shape[1]}x{found.shape[0]} pixels, of another shape than the picture")
    return np.asarray(fromarray(found).resize(size, Resampling.BILINEAR))


def premultiplied(rgba: Rgba) -> Float[np.ndarray, "h w 4"]:
    """Colours times alpha, and alpha, in [0, 1]: what may be blurred, resized and added up."""
    light = rgba.astype(np.float32) / 255
    light[..., :3] *= light[..., 3:]
    return light


def straightened(light: Float[np.ndarray, "h w 4"]) -> Rgba:
    """The picture whose colours times alpha these are."""
    rgb = light[..., :3] / np.maximum(light[..., 3:], 1e-4)
    return np.rint(255 * np.concatenate([rgb, light[..., 3:]], -1).clip(0, 1)).astype(np.uint8)


def over_white(rgba: Rgba) -> Float[np.ndarray, "h w 3"]:
    """In [0, 1], as 8 bits have it."""
    alpha = rgba[..., 3:].astype(np.float64) / 255
    return np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)) / 255
