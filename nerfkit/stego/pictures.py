"""Pictures and films that come from outside: opened with care, as anybody may have made them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from nerfkit.foreign import check_size, eight_bits, opened
from nerfkit.stego.keys import StegoError

_LEAST_SIDE = 16
_FRAMES = 16
"""Of a film, evenly spaced."""
_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")
_FILMS = (".mp4", ".mov", ".mkv", ".webm", ".avi")


def is_picture(path: Path) -> bool:
    """Whether a file's name says that it is a picture, no film."""
    return path.suffix.lower() in _PICTURES


def pictures_of(paths: list[Path]) -> Iterator[tuple[str, UInt8[np.ndarray, "h w 3"]]]:
    """Names and pictures (RGB) of files, of all pictures of folders, and of a few frames of films.

    Raises StegoError, naming the file, for one that cannot be read, or is too large or too small.
    """
    for path in paths:
        if path.is_dir():
            inside = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in (*_PICTURES, *_FILMS))
            if not inside:
                raise StegoError(f"{path}: holds no picture")
            yield from pictures_of(inside)
        elif path.suffix.lower() in _FILMS:
            yield from _frames(path)
        else:
            yield from _opened(path)


def _opened(path: Path) -> Iterator[tuple[str, UInt8[np.ndarray, "h w 3"]]]:
    """A picture; of an animated one, a few of its frames."""
    from PIL import ImageOps

    with opened(path, _LEAST_SIDE, StegoError) as image:
        n = getattr(image, "n_frames", 1)
        for frame in np.linspace(0, n - 1, min(n, _FRAMES)).round().astype(int):
            image.seek(int(frame))
            check_size(path, image.size, _LEAST_SIDE, StegoError)  # pages of a TIFF have sizes of their own
            name = path.name if n == 1 else f"{path.name}:{frame}"
            yield name, np.array(ImageOps.exif_transpose(_on_white(image)))


def _on_white(image):
    """RGB of 8 bits, over white where it is transparent."""
    from PIL import Image

    image = eight_bits(image)
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _frames(path: Path) -> Iterator[tuple[str, UInt8[np.ndarray, "h w 3"]]]:
    import cv2

    if not path.exists():
        raise StegoError(f"{path}: there is no such file")
    film = cv2.VideoCapture(str(path))
    try:
        if film.isOpened():
            size = int(film.get(cv2.CAP_PROP_FRAME_WIDTH)), int(film.get(cv2.CAP_PROP_FRAME_HEIGHT))
            check_size(path, size, _LEAST_SIDE, StegoError)
        count = int(film.get(cv2.CAP_PROP_FRAME_COUNT))
        wanted = set(np.linspace(0, max(count - 1, 0), min(max(count, 1), _FRAMES)).round().astype(int).tolist())
        for number in range(max(wanted) + 1):
            there, frame = film.read()
            if not there:
                if number == 0:
                    raise StegoError(f"{path}: is no film that can be read")
                break
            if number in wanted:
                yield f"{path.name}:{number}", np.ascontiguousarray(frame[..., ::-1])
    finally:
        film.release()
