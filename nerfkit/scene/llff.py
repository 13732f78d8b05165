"""LLFF's poses_bounds.npy: a row of 17 numbers for each picture, in the order of the pictures' names.

The first 15 are a 3x5 matrix: the camera's axes down, right and backward, its position, and (height, width, focal
length) of the full-size picture in pixels; the last two bound the depths that the picture shows. Lenses have no
distortion and their principal point in the middle.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from nerfkit.cameras import Intrinsics
from nerfkit.poses import SceneError, rigid_pose
from nerfkit.scene.listing import SUFFIXES, Hints, Listing, View, masks_beside, picture_folders


def _rows(file: Path) -> Float[np.ndarray, "n 17"]:
    try:
        rows = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise SceneError(f"{file}: not an array of numbers that NumPy can read whole") from None
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] != 17 or not len(rows):
        raise SceneError(f"{file}: holds {getattr(rows, 'shape', 'several arrays')}, not 17 numbers for each picture")
    if rows.dtype.kind not in "fiu" or not np.isfinite(rows).all():
        raise SceneError(f"{file}: not all of its numbers are finite")
    return rows.astype(np.float64)


def _pictures(file: Path, count: int) -> tuple[Path, int, list[Path]]:
    """The folder with as many pictures as poses, the one with the largest if several have, its K, and the pictures."""
    held = []
    for folder, factor in picture_folders(file.parent):
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
        files = [path for path in files if not path.name.startswith(".")]
        if len(files) == count:
            return folder, factor, files
        held.append(f"{len(files)} in {folder.name}")
    if not held:
        raise SceneError(f"{file}: no folder images or images_K with the {count} pictures lies beside it")
    raise SceneError(f"{file}: has {count} poses, but there are {' and '.join(held)}: pictures must match its rows")


def _lens(height: float, width: float, focal: float, factor: int, where: str) -> Intrinsics:
    """The lens of a picture reduced by ``factor``, whose sides are then rounded to whole pixels."""
    if min(height, width, focal) <= 0 or min(height, width) < factor:
        raise SceneError(f"{where}: height, width and focal length are {height:g}, {width:g} and {focal:g} pixels")
    small_w, small_h = round(width / factor), round(height / factor)
    fl_x, fl_y = focal * small_w / width, focal * small_h / height
    return Intrinsics("pinhole", fl_x=fl_x, fl_y=fl_y, width=small_w, height=small_h)


def read_llff(file: Path) -> Listing:
    """A ``poses_bounds.npy`` (``file``) with its pictures in ``images`` or ``images_K`` beside it.

    Views are in the order of the pictures' names, of which LLFF holds out every eighth. Raises SceneError, naming the
    file, where it is no such array, a pose is not rigid, or no folder has as many pictures as there are poses.
    """
    rows = _rows(file)
    folder, factor, pictures = _pictures(file, len(rows))
    masks, warnings = masks_beside(folder, pictures)
    views = []
    for number, (row, picture, mask) in enumerate(zip(rows, pictures, masks, strict=True)):
        where = f"{file}: row {number}"
        down, right, backward, position, (height, width, focal) = row[:15].reshape(3, 5).T
        pose = rigid_pose(np.stack([right, down, -backward, position], axis=1).tolist(), where)
        views.append(
            View(picture, mask, torch.as_tensor(pose), _lens(height, width, focal, factor, where), None, where)
        )
    near, far = float(rows[:, 15].min()), float(rows[:, 16].max())
    if not 0 < near < far:
        warnings.append(f"{file.name}: its bounds {near:g} and {far:g} are no depths, so they are not used")
    return Listing(views, Hints(depths=(near, far) if 0 < near < far else None), warnings)
