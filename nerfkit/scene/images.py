"""Pictures and masks: decoded, checked and reduced, one at a time or a folder's worth on a few threads."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from torch import Tensor

from nerfkit.poses import SceneError
from nerfkit.scene.carve import silhouette

MOST_MASKS = 64
"""Masks beyond these, evenly chosen, are not asked what masks mean."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture, perhaps reduced, and what its file was."""

    pixels: UInt8[np.ndarray, "h w channels"]
    """RGB, or RGB and straight alpha where some pixel is not opaque."""
    mask: Bool[np.ndarray, "h w"] | None
    """True = use the pixel."""
    size: tuple[int, int]
    """Width and height in the file."""
    digest: str
    """Hash of the file's bytes and its mask's."""
    border: Literal["white", "black"] | None = None
    """What nearly all of the pixels at its border are; None if it has alpha, too."""
    silhouette: UInt8[Tensor, "h2 w2"] | None = None
    """Of one with alpha, what `silhouette` makes of it."""


def _whole(data: bytes) -> bool:
    """Whether a JPEG or PNG reaches its end: the decoder fills what is missing with grey and says nothing."""
    if data.startswith(b"\x89PNG"):
        return b"IEND" in data[-1024:]
    if not data.startswith(b"\xff\xd8"):
        return True
    # The end mark after the start of the scan: a thumbnail in the header has an end mark of its own.
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data.rfind(b"\xff\xd9") > at


def _decode(path: Path) -> tuple[np.ndarray, bytes]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SceneError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        # Posed pictures are taken as stored: the intrinsics are for the sensor's rows, whatever EXIF says is up.
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        found = None
    if found is None or not _whole(data):
        raise SceneError(f"{path}: not a complete picture that can be decoded")
    if found.dtype == np.uint16:
        found = ((found.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if found.dtype != np.uint8:
        raise SceneError(f"{path}: has {found.dtype} pixels; convert it to 8 or 16 bits")
    return found, data


def read_image(path: Path) -> tuple[UInt8[np.ndarray, "h w c"], bytes]:
    """A picture as RGB, or RGBA if any pixel is not opaque, in the file's own orientation, and the file's bytes.

    16 bits become 8, grey and palettes become colours. Raises SceneError, naming the file, if it does not decode.
    """
    found, data = _decode(path)
    if found.ndim == 2 or found.shape[2] == 1:
        return cv2.cvtColor(found, cv2.COLOR_GRAY2RGB), data
    if found.shape[2] == 4 and found[..., 3].min() < 255:
        return cv2.cvtColor(found, cv2.COLOR_BGRA2RGBA), data
    return cv2.cvtColor(found[..., :3], cv2.COLOR_BGR2RGB), data


def read_mask(path: Path) -> tuple[Bool[np.ndarray, "h w"], bytes]:
    """A mask (True = use the pixel, black = ignore it) and the file's bytes; of a picture with alpha, the alpha."""
    found, data = _decode(path)
    if found.ndim == 3:
        found = found[..., 3] if found.shape[2] == 4 and found[..., 3].min() < 255 else found[..., :3].max(-1)
    return found > 127, data


def _blocks(array: np.ndarray, factor: int) -> np.ndarray:
    h, w = (side // factor * factor for side in array.shape[:2])
    return array[:h, :w]


def reduce_image(image: UInt8[np.ndarray, "h w c"], factor: int) -> UInt8[np.ndarray, "h2 w2 c"]:
    """Average blocks of ``factor`` x ``factor`` pixels; what is left over at the right and lower edge is cropped.

    Colours under alpha count by their alpha, so that what hides under transparent pixels does not bleed in.
    """
    if factor == 1:
        return image
    image = _blocks(image, factor)
    size = (image.shape[1] // factor, image.shape[0] // factor)
    if image.shape[2] == 3:
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    light = image.astype(np.float32)
    light[..., :3] *= light[..., 3:] / 255
    light = cv2.resize(light, size, interpolation=cv2.INTER_AREA)
    light[..., :3] *= 255 / np.maximum(light[..., 3:], 1e-3)
    return (light + 0.5).clip(0, 255).astype(np.uint8)


def reduce_mask(mask: Bool[np.ndarray, "h w"], factor: int) -> Bool[np.ndarray, "h2 w2"]:
    """A block of pixels is used only where all of them are."""
    mask = _blocks(mask, factor)
    h, w = mask.shape
    return mask.reshape(h // factor, factor, w // factor, factor).all(axis=(1, 3))


def border_color(pixels: UInt8[np.ndarray, "h w 3"]) -> Literal["white", "black"] | None:
    """What nearly all of the pixels at a picture's border are."""
    border = _border(pixels)
    if (border.min(-1) >= 253).mean() > 0.9:
        return "white"
    return "black" if (border.max(-1) <= 2).mean() > 0.9 else None


def _border(array: np.ndarray) -> np.ndarray:
    return np.concatenate([array[0], array[-1], array[:, 0], array[:, -1]])


def outline_an_object(masks: Sequence[Path | None]) -> bool:
    """Whether the masks of pictures (files) show one object each, rather than hide a passer-by or the rim of a lens.

    Nearly every picture has a mask, and most masks show the smaller part of the picture and little of its border.
    """
    files = [path for path in masks if path is not None]
    if len(files) < 0.9 * len(masks):
        return False
    chosen = np.unique(np.linspace(0, len(files) - 1, min(len(files), MOST_MASKS)).round().astype(int))
    with ThreadPoolExecutor(_n_threads()) as pool:
        shown, border = np.median(list(pool.map(_shares, [files[i] for i in chosen])), axis=0)
    return bool(0 < shown < 0.6 and border < 0.35)


def _shares(path: Path) -> tuple[float, float]:
    """Shares of a mask and of its border that it shows."""
    mask, _ = read_mask(path)
    return float(mask.mean()), float(_border(mask).mean())


def cut_out(picture: Picture) -> Picture:
    """A picture whose mask is its alpha: what it hides is transparent."""
    if picture.mask is None:
        return picture
    pixels, alpha = picture.pixels, np.where(picture.mask, 255, 0).astype(np.uint8)
    if pixels.shape[2] == 4:
        alpha = np.minimum(alpha, pixels[..., 3])
    return replace(picture, pixels=np.dstack([pixels[..., :3], alpha]), mask=None)


def read_picture(path: Path, mask_path: Path | None, factor: int, cut: bool = False) -> Picture:
    """One picture and its mask, both reduced by ``factor``; with ``cut`` the mask becomes its alpha.

    Raises SceneError, naming the file, if one does not decode, is smaller than the factor, or the mask has another
    size than the picture.
    """
    pixels, data = read_image(path)
    height, width = pixels.shape[:2]
    if min(width, height) < factor:
        raise SceneError(f"{path}: {width}x{height} pixels cannot be divided by data.downscale = {factor}")
    digest, mask = hashlib.blake2b(data, digest_size=16), None
    if mask_path is not None:
        mask, data = read_mask(mask_path)
        if mask.shape != (height, width):
            found = f"{mask.shape[1]}x{mask.shape[0]}"
            raise SceneError(f"{mask_path}: the mask is {found}, its picture {path.name} is {width}x{height}")
        digest.update(data)
        mask = reduce_mask(mask, factor)
    picture = Picture(reduce_image(pixels, factor), mask, (width, height), digest.hexdigest())
    picture = cut_out(picture) if cut else picture
    if picture.pixels.shape[2] == 4:
        return replace(picture, silhouette=silhouette(picture.pixels))
    return replace(picture, border=border_color(picture.pixels))


def read_pictures(paths: Iterable[tuple[Path, Path | None]], factor: int, cut: bool = False) -> Iterator[Picture]:
    """`read_picture` for many (picture, mask) on a few threads, in order; no more than a few are ready and wait."""
    n_threads, waiting = _n_threads(), deque()
    with ThreadPoolExecutor(n_threads) as pool:
        try:
            for path, mask in paths:
                waiting.append(pool.submit(read_picture, path, mask, factor, cut))
                if len(waiting) > 2 * n_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _n_threads() -> int:
    return min(8, os.cpu_count() or 1)
