"""transforms.json and its family: Blender-synthetic, instant-ngp, nerfstudio. OpenGL axes in files, OpenCV inside.

Scene coordinates are those of ``transform_matrix``, whatever ``applied_transform`` and ``applied_scale`` say was done
to the poses before they were written.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from nerfkit.cameras import Cameras, intrinsics_from_json, intrinsics_to_json
from nerfkit.poses import SceneError, opencv_to_opengl, opengl_to_opencv, rigid_pose
from nerfkit.scene.listing import SUFFIXES, Hints, Listing, View

SPLITS = ("train", "val", "test")


def _load(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise SceneError(f"{path}: not a JSON file that can be read ({error})") from None
    if not isinstance(data, dict) or not isinstance(data.get("frames"), list):
        raise SceneError(f"{path}: no key frames with a list of the pictures")
    return data


def _find(root: Path, stated: Any, where: str) -> Path | None:
    """The file that an entry means: with or without its extension, beside its JSON file; None if not there."""
    if not isinstance(stated, str) or not stated:
        raise SceneError(f"{where} is {stated!r}, not the name of a file")
    name = stated.replace("\\", "/")
    for path in (root / name, root / name.lstrip("/")):
        if path.is_file():
            return path
        for suffix in SUFFIXES:
            for spelled in (suffix, suffix.upper()):
                if (found := path.with_name(path.name + spelled)).is_file():
                    return found
    return None


def _normal(name: str) -> str:
    return os.path.normpath(name.replace("\\", "/"))


def _split_lists(data: dict[str, Any], file: Path) -> dict[str, str]:
    """Split of each file path that nerfstudio's {train,val,test}_filenames name."""
    found = {}
    for split in SPLITS:
        names = data.get(f"{split}_filenames", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise SceneError(f"{file}: {split}_filenames is not a list of file names")
        found |= {_normal(name): split for name in names}
    return found


def _views(file: Path, split: str | None) -> tuple[list[View], dict[str, Any], list[str]]:
    """The usable entries of one file, its data, and what there is to say about the others."""
    data, views, missing, unlisted = _load(file), [], [], 0
    lists = _split_lists(data, file)
    for number, entry in enumerate(data["frames"]):
        where = f"{file}: frames[{number}]"
        if not isinstance(entry, dict):
            raise SceneError(f"{where} is {entry!r}, not an object")
        for key in ("file_path", "transform_matrix"):
            if key not in entry:
                raise SceneError(f"{where} has no key {key}")
        path = _find(file.parent, entry["file_path"], f"{where}.file_path")
        pose = rigid_pose(entry["transform_matrix"], f"{where}.transform_matrix")
        intrinsics = intrinsics_from_json(entry, data, where)
        if path is None:
            missing.append(entry["file_path"])
            continue
        own = lists.get(_normal(entry["file_path"])) if lists else split
        if lists and own is None:
            unlisted += 1
            continue
        mask = entry.get("mask_path")
        if mask is not None and (mask := _find(file.parent, mask, f"{where}.mask_path")) is None:
            raise SceneError(f"{where}.mask_path: there is no file {entry['mask_path']}")
        views.append(View(path, mask, opengl_to_opencv(pose), intrinsics, own, where))
    notes = []
    if missing:
        count = f"{len(missing)} of {len(data['frames'])}"
        notes.append(f"{file.name}: {count} listed pictures do not exist and are skipped (the first: {missing[0]})")
    if unlisted:
        notes.append(f"{file.name}: {unlisted} pictures are in none of its lists of file names and are left out")
    return views, data, notes


def _natural(view: View) -> list[tuple[int, int | str]]:
    """Order by name in which 2 comes before 10."""
    parts = re.split(r"(\d+)", view.path.as_posix())
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts]


def _numbers(data: dict[str, Any], key: str, count: int, file: Path) -> list[float] | None:
    value = data.get(key)
    if value is None:
        return None
    try:
        found = torch.tensor(value, dtype=torch.float64).flatten()
    except (TypeError, ValueError, RuntimeError):
        found = torch.empty(0)
    if len(found) not in {1, count} or not found.isfinite().all():
        raise SceneError(f"{file}: {key} is {value!r}, not {count} finite numbers")
    return found.expand(count).tolist()


def _hints(data: dict[str, Any], file: Path) -> Hints:
    """instant-ngp's aabb_scale, scale and offset (position * scale + offset lies in its unit cube), and aabb."""
    aabb, offset = _numbers(data, "aabb", 6, file), _numbers(data, "offset", 3, file)
    scale, aabb_scale = (_numbers(data, key, 1, file) for key in ("scale", "aabb_scale"))
    for key, value in (("scale", scale), ("aabb_scale", aabb_scale)):
        if value and value[0] <= 0:
            raise SceneError(f"{file}: {key} is {value[0]}, it must be positive")
    if aabb and not all(low < high for low, high in zip(aabb[:3], aabb[3:], strict=True)):
        raise SceneError(f"{file}: aabb is {aabb}, its lower corner must come first")
    center = side = None
    if scale or offset:
        side = 1 / (scale[0] if scale else 0.33)
        center = tuple((0.5 - value) * side for value in (offset or [0.5] * 3))
    return Hints(tuple(aabb) if aabb else None, center, side, aabb_scale[0] if aabb_scale else None)


def _listing(files: Sequence[tuple[Path, str | None]]) -> Listing:
    views, warnings, hints = [], [], None
    for file, split in files:
        found, data, notes = _views(file, split)
        hints = hints or _hints(data, file)
        views, warnings = views + found, warnings + notes
    if not views:
        raise SceneError(f"{files[0][0]}: no usable frame" + (f" ({'; '.join(warnings)})" if warnings else ""))
    return Listing(sorted(views, key=_natural), hints or Hints(), warnings)


def read_blender(path: Path) -> Listing:
    """Blender-synthetic: transforms_train.json (``path``), with those of val and test beside it."""
    others = [(path.with_name(f"transforms_{split}.json"), split) for split in ("val", "test")]
    others = [(file, split) for file, split in others if file.is_file()]
    return _listing([(path, "train" if others else None), *others])


def read_transforms(path: Path) -> Listing:
    """One transforms.json, as instant-ngp and nerfstudio write them."""
    return _listing([(path, None)])


def write_transforms(cameras: Cameras, names: Sequence[str], path: Path) -> None:
    """Write cameras as a transforms.json that `read_transforms`, nerfstudio and instant-ngp read.

    ``names`` are the pictures' paths relative to the file. Every frame has its own lens; poses stay in scene
    coordinates.
    """
    poses = opencv_to_opengl(cameras.c2w).tolist()
    frames = []
    for number, (name, pose) in enumerate(zip(names, poses, strict=True)):
        matrix = [*pose, [0.0, 0.0, 0.0, 1.0]]
        frames.append({"file_path": name, **intrinsics_to_json(cameras, number), "transform_matrix": matrix})
    model = "OPENCV" if cameras.lens == "pinhole" else cameras.lens.upper()
    path.write_text(json.dumps({"camera_model": model, "frames": frames}, indent=1))
