"""The scene that a picture is made into: the picture itself, and what the prior thinks it looks like from elsewhere.

It is a folder like any other, in the manner of Blender's synthetic scenes, so that whatever learns from photographs
learns from it: `fit`, `prune`, `compress`. What the prior thinks is blurred, and its views are small, so that the photo
has at least a quarter of all pixels, where no others are given.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nerfkit.cameras import Cameras
from nerfkit.lift.framing import Framing
from nerfkit.lift.photo import Rgba
from nerfkit.lift.volume import Volume, distance_for, orbiting, pixel_places, pixel_rays
from nerfkit.poses import opencv_to_opengl

PHOTO = "photo.png"
FOV = 40.0
"""Degrees, of the views from elsewhere."""
HEIGHTS = ((0.0, 8), (20.0, 16), (45.0, 8), (-20.0, 4), (75.0, 4))
"""Elevations, degrees, and how many views each has."""

_KNOWN = 40.0
"""Degrees about a given picture within which nobody needs the prior's guess."""


@dataclass(frozen=True)
class Given:
    """A further picture, that the user has."""

    framing: Framing
    azimuth: float
    """Degrees, counted from the photo, to the right of the object as one looks at it."""


def around() -> list[tuple[float, float]]:
    """Azimuth and elevation of the views that the prior is asked for, degrees."""
    return [(360 * (i + 0.5 * (k % 2)) / n, height) for k, (height, n) in enumerate(HEIGHTS) for i in range(n)]


def apart(azimuth: float, elevation: float, azimuth2: float, elevation2: float) -> float:
    """Angle between two sides of an object; degrees.

    >>> round(apart(0.0, 20.0, 180.0, 20.0)), round(apart(10.0, 90.0, 200.0, 90.0))
    (140, 0)
    """
    one, other = (pose_of(a, e, 1.0)[:, 3] for a, e in ((azimuth, elevation), (azimuth2, elevation2)))
    return math.degrees(math.acos(float(np.clip(one @ other, -1.0, 1.0))))


def pose_of(azimuth: float, elevation: float, radius: float) -> Float[np.ndarray, "3 4"]:
    """Camera-to-world, OpenCV axes; degrees."""
    each = (torch.tensor([value]) for value in (math.radians(azimuth), math.radians(elevation), radius))
    return orbiting(*each)[0].numpy()


def picture_of(
    volume: Volume, azimuth: float, elevation: float, size: int, fov: float = FOV, n_samples: int = 64
) -> Rgba:
    """What a volume looks like from where it fills the picture; degrees."""
    c2w = torch.from_numpy(pose_of(azimuth, elevation, distance_for(math.radians(fov))))
    return seen_from(volume, c2w, fov, size, n_samples)


@torch.no_grad()
def seen_from(volume: Volume, c2w: Float[Tensor, "3 4"], fov: float, size: int, n_samples: int = 64) -> Rgba:
    """What a volume looks like to a camera that sees so many degrees, straight alpha."""
    device = volume.sigmas.device
    angle, places = torch.tensor([math.radians(fov)], device=device), pixel_places(size)[None].to(device)
    seen = volume.look(*pixel_rays(c2w[None].to(device), angle, places), n_samples)
    alpha = seen.opacity[0, :, None].clamp(0, 1)
    rgb = (seen.rgb[0] / alpha.clamp(min=1e-3)).clamp(0, 1)
    return (255 * torch.cat([rgb, alpha], 1)).round().byte().view(size, size, 4).cpu().numpy()


def write_scene(folder: Path, photo: Framing, volume: Volume, size: int, given: list[Given]) -> None:
    """Write the scene's pictures and cameras.

    Args:
        folder: is made.
        photo: at the size in which it is to be learnt.
        volume: what the prior made of it.
        size: pixels a side of the views that the prior is asked for.
        given: pictures that take the place of the prior's nearest ones.
    """
    folder.mkdir(parents=True)
    frames = []

    def add(name: str, rgba: Rgba, azimuth: float, elevation: float, fov: float) -> None:
        cv2.imwrite(str(folder / name), cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA))
        pose = np.eye(4)
        pose[:3] = opencv_to_opengl(
            torch.from_numpy(pose_of(azimuth, elevation, distance_for(math.radians(fov))))
        ).numpy()
        side = rgba.shape[0]
        focal = side / 2 / math.tan(math.radians(fov) / 2)
        lens = {"fl_x": focal, "fl_y": focal, "cx": side / 2, "cy": side / 2, "w": side, "h": side}
        frames.append({"file_path": name, "transform_matrix": pose.tolist(), **lens})

    add(PHOTO, photo.rgba, 0.0, photo.elevation, photo.fov)
    for i, one in enumerate(given):
        add(f"given_{i}.png", one.framing.rgba, one.azimuth, one.framing.elevation, one.framing.fov)
    for i, (azimuth, elevation) in enumerate(around()):
        if any(apart(azimuth, elevation, one.azimuth, one.framing.elevation) < _KNOWN for one in given):
            continue
        add(f"prior_{i:02d}.png", picture_of(volume, azimuth, elevation, size), azimuth, elevation, FOV)
    about = {"aabb": [-1.0, -1.0, -1.0, 1.0, 1.0, 1.0], "frames": frames}
    names = [frame["file_path"] for frame in frames]
    about |= {"train_filenames": names, "val_filenames": [], "test_filenames": []}
    (folder / "transforms.json").write_text(json.dumps(about, indent=1))


def cameras_at(angles: Sequence[tuple[float, float]], fov: float, radius: float, size: int) -> Cameras:
    """Cameras that look at the object from azimuths and elevations, degrees, and take square pictures of ``size``."""
    poses = [pose_of(azimuth, elevation, radius) for azimuth, elevation in angles]
    focal = size / 2 / math.tan(math.radians(fov) / 2)
    return Cameras.pinhole(torch.from_numpy(np.stack(poses)).float(), focal, size, size)


def whole(angles: Sequence[tuple[float, float]], size: int) -> Cameras:
    """`cameras_at` through `FOV`, from where the object just fills the picture."""
    return cameras_at(angles, FOV, distance_for(math.radians(FOV)), size)


def turntable(n: int, size: int, elevation: float) -> Cameras:
    """Cameras all around, from one height; degrees."""
    return whole([(360 * i / n, elevation) for i in range(n)], size)
