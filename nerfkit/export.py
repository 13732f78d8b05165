"""Files for other programs: meshes, point clouds and cameras, all in the scene's own coordinates."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nerfkit.aside import file_aside, folder_aside
from nerfkit.cameras import Cameras
from nerfkit.lattice import ExportError
from nerfkit.mesh import Mesh
from nerfkit.points import Points
from nerfkit.poses import quaternion
from nerfkit.scene import READERS, Scene
from nerfkit.scene.transforms import read_transforms, write_transforms

DEFAULT_NAMES = {"mesh": "mesh.glb", "points": "points.ply", "cameras": "cameras"}
"""Name in the run's ``exports/`` of each kind."""
_COLMAP = ("cameras.txt", "images.txt", "points3D.txt")
_HINTS = ("aabb", "aabb_scale", "scale", "offset")
"""Keys of a transforms.json from which the box to be modelled follows."""


def choose_kind(path: Path, kind: str | None) -> str:
    """What a file is to hold, by its suffix unless ``kind`` says so.

    Raises ExportError where the suffix is none of ours, or none that the kind can be written to.
    """
    suffix = path.suffix.lower()
    able = [name for name, suffixes in KINDS.items() if suffix in suffixes]
    if kind is None and able:
        return able[0]
    if kind in able:
        return kind
    named = f"{path}: " + (f"{kind} cannot be written there" if kind and able else "nothing is written there")
    forms = (f"{name} as {', '.join(s or 'a folder without suffix' for s in KINDS[name])}" for name in KINDS)
    raise ExportError(f"{named}; there are {', '.join(forms)}")


def write_mesh(mesh: Mesh, path: Path) -> None:
    """Write a mesh with colours and normals at its vertices, as GLB, PLY or OBJ by its suffix.

    The axes stay those of the scene, though glTF calls +y up. Raises PlaceError where nothing can be written there.
    """
    import trimesh

    options: dict[str, Any] = {".ply": {"vertex_normal": True}}.get(path.suffix.lower(), {"include_normals": True})
    made = trimesh.Trimesh(
        mesh.vertices, mesh.faces, vertex_normals=mesh.normals, vertex_colors=mesh.colors, process=False
    )
    with file_aside(path) as aside:
        made.export(str(aside), file_type=path.suffix.lower().removeprefix("."), **options)


def write_points(points: Points, path: Path) -> None:
    """Write points with normals and colours as a binary PLY. Raises PlaceError where nothing can be written there."""
    kinds = [(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")]
    kinds += [(name, "u1") for name in ("red", "green", "blue")]
    rows = np.empty(len(points.positions), dtype=kinds)
    columns = [*points.positions.T, *points.normals.T, *points.colors.T]
    for (name, _), column in zip(kinds, columns, strict=True):
        rows[name] = column
    names = {"<f4": "float", "u1": "uchar"}
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    lines += [f"property {names[kind]} {name}" for name, kind in kinds]
    with file_aside(path) as aside:
        aside.write_bytes("\n".join([*lines, "end_header", ""]).encode() + rows.tobytes())


def write_cameras(scene: Scene, path: Path) -> list[Path]:
    """Write all cameras of a scene, and return the files.

    A path that ends in .json becomes a transforms.json; one without a suffix a folder that holds such a file and the
    same in COLMAP's text format (for a program that is told where the scene's pictures lie).

    Args:
        scene: its cameras are written as they are, so it should be read with ``downscale`` 1.
        path: of the file or the folder.

    Raises PlaceError for a folder that holds something else, ExportError where the scene's own file would be lost.
    """
    if path.suffix:
        if path.resolve() == (scene.root / scene.format).resolve():
            raise ExportError(f"{path}: is the file that the scene is read from; choose another name")
        with file_aside(path) as aside:
            _write_transforms(scene, aside, path)
        return [path]
    names = ("transforms.json", *_COLMAP)
    with folder_aside(path, "export of cameras", names.__contains__) as aside:
        _write_transforms(scene, aside / names[0], path / names[0])
        _write_colmap(scene, aside)
    return [path / name for name in names]


def _write_transforms(scene: Scene, aside: Path, path: Path) -> None:
    """Write a transforms.json to ``aside`` that is to lie at ``path``: names of pictures are relative to that.

    Splits are lists of names, as nerfstudio has them. What a scene's own transforms.json says of the box, and masks
    that it names, go along.
    """
    folder = path.parent.resolve()

    def relative(file: Path) -> str:
        return Path(os.path.relpath(file.resolve(), folder)).as_posix()

    names = [relative(scene.root / name) for name in scene.image_names]
    write_transforms(scene.cameras, names, aside)
    data = json.loads(aside.read_text())
    source, hints = scene.root / scene.format, {}
    if source.suffix == ".json":
        own = json.loads(source.read_text(encoding="utf-8-sig"))
        hints = {key: own[key] for key in _HINTS if key in own}
        for frame, view in zip(data["frames"], READERS.get(scene.format, read_transforms)(source).views, strict=True):
            if view.mask_path is not None:
                frame["mask_path"] = relative(view.mask_path)
    lists = {f"{split}_filenames": [names[view] for view in rows] for split, rows in scene.splits.items()}
    aside.write_text(json.dumps({**hints, **data, **lists}, indent=1))


def _lens_line(cameras: Cameras, number: int) -> str:
    """A camera as COLMAP's cameras.txt has it, without its number: model, size, parameters.

    Both count pixels from the picture's corner, so that the first one's centre is (0.5, 0.5).
    """
    k1, k2, p1, p2, k3, k4, k5, k6 = cameras.distortion[number].tolist()
    model, bent = {
        "pinhole": ("PINHOLE", []),
        "opencv": ("OPENCV", [k1, k2, p1, p2]),
        "opencv_fisheye": ("OPENCV_FISHEYE", [k1, k2, k3, k4]),
    }[cameras.lens]
    if model == "OPENCV" and any((k3, k4, k5, k6)):
        model, bent = "FULL_OPENCV", [k1, k2, p1, p2, k3, k4, k5, k6]
    lengths = [float(getattr(cameras, name)[number]) for name in ("fl_x", "fl_y", "cx", "cy")]
    size = int(cameras.width[number]), int(cameras.height[number])
    return " ".join(map(str, [model, *size, *lengths, *bent]))


def _write_colmap(scene: Scene, folder: Path) -> None:
    """Write cameras.txt, images.txt and a points3D.txt without points. Poses are world to camera, OpenCV axes."""
    cameras = scene.cameras
    lenses = [_lens_line(cameras, number) for number in range(len(cameras))]
    numbers = {lens: number for number, lens in enumerate(dict.fromkeys(lenses), 1)}
    turn = cameras.c2w[:, :, :3].double().transpose(1, 2)
    shift = -(turn @ cameras.c2w[:, :, 3:].double())[..., 0]
    turns = quaternion(turn)
    turns = torch.where(turns[:, :1] < 0, -turns, turns)
    images = []
    for view, name in enumerate(scene.image_names):
        pose = [*turns[view].tolist(), *shift[view].tolist()]
        # Each picture has two lines; the second would list its keypoints.
        images += [" ".join(map(str, [view + 1, *pose, numbers[lenses[view]], name])), ""]
    heads = (
        "# CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]",
        "# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME",
        "# POINT3D_ID X Y Z R G B ERROR TRACK[]",
    )
    bodies = ([f"{number} {lens}" for lens, number in numbers.items()], images, [])
    for name, head, body in zip(_COLMAP, heads, bodies, strict=True):
        (folder / name).write_text("\n".join([head, *body, ""]))


KINDS = {"mesh": (".glb", ".ply", ".obj"), "points": (".ply",), "cameras": (".json", "")}
"""Suffixes of the files of each kind; the first kind that has a suffix is its default."""
