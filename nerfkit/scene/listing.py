"""What a reader makes of a folder, before any picture is opened: the same for every format."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from nerfkit.cameras import Intrinsics

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""Of pictures, in lower case."""


@dataclass(frozen=True)
class View:
    """A picture that exists, and what its file says of the camera."""

    path: Path
    mask_path: Path | None
    c2w: Float[Tensor, "3 4"]
    """OpenCV axes, the file's own coordinates, float64."""
    intrinsics: Intrinsics
    split: str | None
    """train, val or test; None where the format names no splits."""
    where: str
    """File and key, for messages."""


@dataclass(frozen=True)
class Hints:
    """What a file says about the region to model; scene coordinates, each None where it is silent."""

    aabb: tuple[float, ...] | None = None
    """The whole of what is to be modelled."""
    center: tuple[float, float, float] | None = None
    side: float | None = None
    """The cube that the cameras look at."""
    aabb_scale: float | None = None
    """Side of the whole in units of that cube."""
    depths: tuple[float, float] | None = None
    """Least and greatest depth (z in the camera) of what the pictures show, 0 < least < greatest."""


@dataclass(frozen=True)
class Listing:
    """All usable views of a folder."""

    views: list[View]
    hints: Hints = Hints()
    warnings: list[str] = field(default_factory=list)


def picture_folders(base: Path) -> list[tuple[Path, int]]:
    """``images`` and the reduced ``images_K`` in a folder, each with its K (1 for ``images``), ascending."""
    found = [(base / "images", 1)] if (base / "images").is_dir() else []
    numbered = [(folder, re.fullmatch(r"images_([1-9]\d*)", folder.name)) for folder in base.glob("images_*")]
    reduced = [(folder, int(match[1])) for folder, match in numbered if match and folder.is_dir()]
    return found + sorted(reduced, key=lambda pair: pair[1])


def masks_beside(folder: Path, pictures: Sequence[Path]) -> tuple[list[Path | None], list[str]]:
    """The mask file of each picture in a folder, None where there is none, and a remark if no mask fits a picture.

    The masks of ``images`` and ``images_K`` are in ``masks`` and ``masks_K`` beside them, those of any other folder in
    its own ``masks``. That of a.jpg is called a.jpg.png, as COLMAP has it, or a with the suffix of a picture.
    """
    reduced = re.fullmatch(r"images((?:_\d+)?)", folder.name)
    masks = folder.with_name(f"masks{reduced[1]}") if reduced else folder / "masks"
    if not masks.is_dir():
        return [None] * len(pictures), []
    found: list[Path | None] = []
    for picture in pictures:
        place = masks / os.path.relpath(picture, folder)
        names = [place.with_name(f"{place.name}.png"), *(place.with_suffix(suffix) for suffix in SUFFIXES)]
        found.append(next((name for name in names if name.is_file()), None))
    unused = pictures and not any(found)
    return found, [f"{masks}: no mask is named after a picture, so none is used"] if unused else []
