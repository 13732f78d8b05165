"""From photographs to a scene: cameras found, lenses straightened, and a folder that ``nerfkit train`` takes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from nerfkit.aside import file_aside
from nerfkit.assess import rig_of
from nerfkit.config import DataConfig
from nerfkit.poses import SceneError
from nerfkit.provenance import now, versions
from nerfkit.report import write_cameras
from nerfkit.scene import load_scene
from nerfkit.scene.photos import Photos, Progress, gather
from nerfkit.scene.sfm import Found, reconstruct, undistort

WORK = ".prepare"
"""Folder in the scene's that holds what is not finished; gone in the end."""
RECORD = "prepare.json"
PICTURE = "cameras.html"
_THUMBNAIL = 256
"""Pixels along a photo's longer side, about, when it is only looked at for the picture of the cameras."""


def prepare(source: Path, out: Path, n_frames: int, max_size: int, on_progress: Progress) -> dict[str, Any]:
    """Make a scene of a folder of photographs or a video.

    Called again after an interruption, it goes on where it was.

    Args:
        source: folder or video.
        out: folder of the scene: a new or an empty one, or one where this was interrupted.
        n_frames: to take from a video.
        max_size: longest side of the pictures written, pixels; 0 keeps the photographs' own.
        on_progress: hears of each stage.

    Returns the record that is also written as ``prepare.json``. Raises SceneError.
    """
    if (out / "sparse").exists():
        raise SceneError(f"{out}: holds a scene already; choose another folder")
    strangers = [entry.name for entry in out.iterdir() if entry.name not in (WORK, "images")] if out.is_dir() else []
    if strangers or out.is_file():
        raise SceneError(f"{out}: is not empty (it holds {min(strangers, default='data')}); choose another folder")
    if (out / "images").exists() and not (out / WORK).exists():
        raise SceneError(f"{out}: is not empty (it holds images); choose another folder")
    work = out / WORK
    work.mkdir(parents=True, exist_ok=True)
    photos = gather(source, work / "photos", n_frames, on_progress)
    own = work / photos.mark  # COLMAP goes by the names of pictures, which other ones may have had
    found = reconstruct(photos, work / "photos", own, on_progress)
    straight = undistort(found, work / "photos", own, max_size, on_progress)
    record = _record(source, photos, found)
    shutil.rmtree(out / "images", ignore_errors=True)
    os.replace(straight / "images", out / "images")
    with file_aside(out / RECORD) as aside:
        aside.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    (out / "sparse").mkdir()  # last: a folder that has one is a scene
    os.replace(straight / "sparse", out / "sparse" / "0")
    shutil.rmtree(work, ignore_errors=True)
    _draw(out, found)
    return record


def _record(source: Path, photos: Photos, found: Found) -> dict[str, Any]:
    cameras = found.model.cameras
    lenses = sorted({f"{camera.model.name} {camera.width}x{camera.height}" for camera in cameras.values()})
    return {
        "source": str(source),
        "created": now(),
        "versions": versions(),
        "n_photos": len(photos.names) + len(photos.left_out),
        "n_registered": len(found.registered),
        "n_points": found.n_points,
        "reprojection_error": found.reprojection_error,
        "gps_error": found.gps_error,
        "matching": found.matching,
        "lenses": lenses,
        "missing": {**photos.left_out, **found.missing},
    }


def _draw(out: Path, found: Found) -> None:
    """The picture of the cameras. Small photographs do for that, but an odd one out must still divide."""
    longest = max(max(camera.width, camera.height) for camera in found.model.cameras.values())
    scene = load_scene(out, DataConfig(downscale=max(1, longest // _THUMBNAIL)))
    with file_aside(out / PICTURE) as aside:
        write_cameras(rig_of(scene), scene.name, aside)
