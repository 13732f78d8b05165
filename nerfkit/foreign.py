"""Pictures that come from outside, opened with care: anybody may have made them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

_MOST_PIXELS = 100_000_000
"""Of a picture; more are refused before they are unpacked."""


def eight_bits(image: Image) -> Image:
    """A picture of one channel of 16 or 32 bits, or of floats, with 8; others as they are.

    Integers reach to 65535, or to 255 where none is larger; floats to 1 then, and are 0 where they are no numbers.
    """
    from PIL.Image import fromarray

    if image.mode[0] not in "IF":
        return image
    values = np.nan_to_num(np.asarray(image)) if image.mode == "F" else np.asarray(image)
    high = values.max()
    most = 65535 if image.mode.startswith("I;16") or high > 255 else 255 if image.mode == "I" or high > 1 else 1
    found = np.empty(values.shape, np.uint8)
    for row, there in zip(found, values, strict=True):  # as numbers of 64 bits, but one row alone
        row[:] = np.rint(255 * (there.astype(np.float64) / most).clip(0, 1))
    return fromarray(found)


def check_size(path: Path, size: tuple[int, int], least_side: int, kind: type[Exception]) -> None:
    """Raise an error of this kind where a picture of this width and height is too small, or too large to unpack."""
    width, height = size
    if width * height > _MOST_PIXELS:
        raise kind(f"{path}: has {width * height / 1e6:.0f} megapixels, {_MOST_PIXELS / 1e6:.0f} at most")
    if min(width, height) < least_side:
        raise kind(f"{path}: is {width}x{height} pixels, expected at least {least_side} a side")


@contextmanager
def opened(path: Path, least_side: int, kind: type[Exception]) -> Iterator[Image]:
    """A picture of any kind that Pillow reads, while it is open.

    Args:
        path: of the file.
        least_side: pixels that each side must have.
        kind: of the error that is raised, naming the file, where it is no picture, is too small, larger than 100
            megapixels, or cannot be read to its end within the context.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
        with image:
            check_size(path, image.size, least_side, kind)
            yield image
    except kind:
        raise
    except (FileNotFoundError, IsADirectoryError):
        raise kind(f"{path}: there is no such file") from None
    except Image.DecompressionBombError:
        raise kind(f"{path}: unpacks to more than {_MOST_PIXELS / 1e6:.0f} megapixels") from None
    except UnidentifiedImageError:
        raise kind(f"{path}: is no picture") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise kind(f"{path}: cannot be read ({error})") from None
