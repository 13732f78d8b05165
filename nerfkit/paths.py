"""Camera paths: `Cameras` to film a scene with, made from those that photographed it, or read from a file.

All of them stay where the photographs were taken from, for a radiance field knows nothing of other sides: an orbit
round a capture that covers only an arc swings to and fro on that arc, and a capture that faces one way gets a spiral.
Made paths look through a pinhole with the median focal length. Everything is in scene coordinates.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nerfkit.cameras import Cameras, Intrinsics, intrinsics_from_json, intrinsics_to_json
from nerfkit.poses import (
    SceneError,
    axis_spread,
    interpolate_poses,
    look_at,
    mean_up,
    nearest_to_axes,
    opencv_to_opengl,
    opengl_to_opencv,
    rigid_pose,
)

FORWARD_FACING = 0.2
"""Spread of the optical axes (about 12 degrees) under which what the cameras look at cannot be told from them."""


def facing(cameras: Cameras) -> str:
    """How a capture looks at its scene.

    ``inward``: most cameras have the point nearest to all axes before them; ``forward``: the axes are nearly
    parallel, or there is but one; ``outward``: neither (a walk through rooms, a panorama).
    """
    if len(cameras) < 2 or axis_spread(cameras.c2w) < FORWARD_FACING:
        return "forward"
    from_camera = nearest_to_axes(cameras.c2w) - cameras.c2w[:, :, 3]
    return "inward" if float(((from_camera * cameras.c2w[:, :, 2]).sum(-1) > 0).float().mean()) > 0.6 else "outward"


def focus(cameras: Cameras) -> tuple[Float[Tensor, " 3"], float]:
    """The point that a capture is about, and its median distance from the cameras, in scene units.

    Parallel axes leave the distance open; it is then three times the extent of the camera positions, a little more
    than the depth at which neighbours on a hand-held grid of views still overlap well. Cameras that look outward are
    about their own middle.
    """
    position, kind = cameras.c2w[:, :, 3], facing(cameras)
    middle = position.median(0).values
    extent = 2 * float(torch.linalg.vector_norm(position - middle, dim=-1).max())
    if kind == "inward":
        point = nearest_to_axes(cameras.c2w)
        return point, float(torch.linalg.vector_norm(position - point, dim=-1).median())
    if kind == "outward":
        return middle, extent / 2 or 1.0
    distance = 3 * extent or 1.0
    return middle + distance * torch.nn.functional.normalize(cameras.c2w[:, :, 2].mean(0), dim=0), distance


def _made(cameras: Cameras, c2w: Float[Tensor, "n 3 4"]) -> Cameras:
    middle = int(cameras.fl_x.argsort()[len(cameras) // 2])
    fl = float(cameras.fl_x[middle])
    return Cameras.pinhole(c2w.to(cameras.c2w), fl, int(cameras.width[middle]), int(cameras.height[middle]))


def _arc(angles: Float[Tensor, " n"]) -> tuple[float, float] | None:
    """Start and length of the arc that angles (radians) cover, or None if no gap is over 90 degrees."""
    ascending = (angles % math.tau).sort().values
    gaps = torch.diff(ascending, append=ascending[:1] + math.tau)
    widest = int(gaps.argmax())
    if gaps[widest] < math.pi / 2:
        return None
    return float(ascending[(widest + 1) % len(ascending)]), math.tau - float(gaps[widest])


def orbit(cameras: Cameras, n_frames: int = 120) -> Cameras:
    """A closed path round what the cameras look at, at their median distance and elevation, about their vertical.

    On a capture that covers only an arc it swings along four fifths of that; on one that faces one way, or outward,
    it is the `spiral`.
    """
    if facing(cameras) != "inward":
        return spiral(cameras, n_frames)
    centre, up = nearest_to_axes(cameras.c2w), mean_up(cameras.c2w)
    from_centre = cameras.c2w[:, :, 3] - centre
    distance = torch.linalg.vector_norm(from_centre, dim=-1)
    elevation = torch.arcsin((from_centre @ up / distance).clamp(-1, 1)).median()
    east = look_at(torch.zeros(3), cameras.c2w[0, :, 2], up)[:, 0]
    north = torch.linalg.cross(up, east)
    azimuths = torch.atan2(from_centre @ north, from_centre @ east)
    turn = torch.arange(n_frames) / n_frames * math.tau
    arc = _arc(azimuths)
    azimuth = turn if arc is None else arc[0] + arc[1] * (0.5 + 0.4 * torch.sin(turn))
    around = torch.cos(azimuth)[:, None] * east + torch.sin(azimuth)[:, None] * north
    position = centre + distance.median() * (torch.cos(elevation) * around + torch.sin(elevation) * up)
    return _made(cameras, look_at(position, centre, up))


def spiral(cameras: Cameras, n_frames: int = 120, turns: int = 2) -> Cameras:
    """A closed path that circles before what the cameras look at, ``turns`` times, swaying to and from it.

    It starts from the camera nearest to the middle and stays within the spread of the positions. Cameras that look
    outward circle about the middle, keeping one direction of view.
    """
    centre, distance = focus(cameras)
    position = cameras.c2w[:, :, 3]
    home = cameras.c2w[torch.linalg.vector_norm(position - position.median(0).values, dim=-1).argmin()]
    if facing(cameras) == "outward":
        centre = home[:, 3] + 2 * distance * home[:, 2]
    axes = look_at(home[:, 3], centre, -home[:, 1])[:, :3]
    # Two thirds of what nine cameras in ten keep to, and on an arc no farther than its bend allows.
    reach = torch.quantile(((position - home[:, 3]) @ axes).abs(), 0.9, dim=0) * 2 / 3
    reach = torch.minimum(reach, distance * reach.new_tensor([0.2, 0.2, 0.05]))
    reach = reach if len(cameras) > 1 else torch.full_like(reach, 0.05 * distance)
    turn = torch.arange(n_frames) / n_frames * math.tau
    sway = torch.stack([torch.cos(turns * turn), torch.sin(turns * turn), torch.sin(turn)], dim=-1)
    return _made(cameras, look_at(home[:, 3] + (sway * reach) @ axes.T, centre, -home[:, 1]))


def _tour(cost: Float[Tensor, "n n"]) -> list[int]:
    """An open tour of all points: the nearest next, then uncrossed (2-opt)."""
    left, tour = cost.clone(), [0]
    left[:, 0] = torch.inf
    while len(tour) < len(cost):
        tour.append(int(left[tour[-1]].argmin()))
        left[:, tour[-1]] = torch.inf
    for _ in range(10 * len(tour) if len(tour) > 2 else 0):
        ordered = cost[tour][:, tour]
        ahead = ordered.diagonal(1)
        # Turning round the stretch i+1 .. j replaces the edges (i, i+1) and (j, j+1) by (i, j) and (i+1, j+1).
        gain = ahead[:, None] + ahead[None, :] - ordered[:-1, :-1] - ordered[1:, 1:]
        best = int(gain.triu(1).argmax())
        i, j = divmod(best, len(ahead))
        if gain[i, j] < 1e-6 or j <= i:
            break
        tour[i + 1 : j + 1] = tour[i + 1 : j + 1][::-1]
    return tour


def interpolate(cameras: Cameras, n_frames: int = 240) -> Cameras:
    """An open path through the training cameras (at most 100 of them), in an order without jumps.

    That is their own order where it is smooth already, as of a video, and a short tour elsewhere. Speed is even.
    """
    every = max(1, math.ceil(len(cameras) / 100))
    c2w, (_, distance) = cameras.c2w[::every], focus(cameras)
    # A radian of turning weighs as much as moving by half the distance of the subject.
    apart = torch.cdist(c2w[:, :, 3], c2w[:, :, 3]) + 0.5 * distance * torch.cdist(c2w[:, :, 2], c2w[:, :, 2])
    tour = _tour(apart)
    own = list(range(len(c2w)))
    if _length(apart, own) < 1.3 * _length(apart, tour):
        tour = own
    steps = apart[tour[:-1], tour[1:]].clamp_min(1e-6 * distance)
    times = torch.cat([torch.zeros(1), steps.cumsum(0)])
    return _made(cameras, interpolate_poses(c2w[tour], times, torch.linspace(0, float(times[-1]), n_frames)))


def _length(cost: Float[Tensor, "n n"], tour: list[int]) -> float:
    return float(cost[tour[:-1], tour[1:]].sum())


def write_path(cameras: Cameras, path: Path, fps: float = 24.0) -> None:
    """Write a camera path as nerfstudio's viewer does (OpenGL axes, vertical field of view in degrees), and more.

    ``"frame": "scene"`` says that poses are in the scene's own coordinates, and each entry has its full lens, so that
    `read_path` gives back the same cameras, principal point and distortion included.
    """
    entries = []
    for number, pose in enumerate(opencv_to_opengl(cameras.c2w).tolist()):
        lens = intrinsics_to_json(cameras, number)
        fov = 2 * math.degrees(math.atan(lens["h"] / 2 / lens["fl_y"]))
        matrix = [value for row in pose for value in row] + [0.0, 0.0, 0.0, 1.0]
        entries.append({"camera_to_world": matrix, "fov": fov, "aspect": lens["w"] / lens["h"], **lens})
    size = {"render_width": int(cameras.width[0]), "render_height": int(cameras.height[0])}
    timing = {"fps": fps, "seconds": len(cameras) / fps, "is_cycle": False}
    shape = "fisheye" if cameras.lens == "opencv_fisheye" else "perspective"
    data = {"frame": "scene", "camera_type": shape, **size, **timing, "camera_path": entries}
    path.write_text(json.dumps(data, indent=1))


def _entry(entry: Any, data: dict[str, Any], size: tuple[int, int], where: str) -> tuple[Tensor, Intrinsics]:
    """Pose (OpenCV axes) and lens of one entry of a path file, or of the frames of a transforms.json."""
    if not isinstance(entry, dict):
        raise SceneError(f"{where}: expected an object, found {entry!r}")
    key = "camera_to_world" if "camera_to_world" in entry else "transform_matrix"
    rows = entry.get(key)
    if isinstance(rows, list) and len(rows) == 16:
        rows = [rows[start : start + 4] for start in range(0, 16, 4)]
    pose = opengl_to_opencv(rigid_pose(rows, f"{where}.{key}"))
    if "fl_x" not in entry and type(fov := entry.get("fov")) in (int, float) and 0 < fov < 180:
        # A field of view alone means square pixels and the principal point in the middle of the picture to render.
        fl = size[1] / 2 / math.tan(math.radians(fov) / 2)
        return pose, Intrinsics("pinhole", fl_x=fl, fl_y=fl).fitted(*size, where)
    lens = intrinsics_from_json(entry, data, where)
    return pose, lens.fitted(lens.width or size[0], lens.height or size[1], where)


def read_path(path: Path, size: tuple[int, int] = (800, 800)) -> tuple[Cameras, float]:
    """Read a camera path and its frames per second: `write_path`'s files, nerfstudio's, or a transforms.json.

    ``size`` (width, height) serves where the file names none. Poses are taken as scene coordinates; nerfstudio's
    viewer writes those of its own normalised world, which are the scene's only if it was told not to normalise.
    Raises SceneError, naming file and key.
    """
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        raise SceneError(f"{path}: there is no such camera path") from None
    except (OSError, ValueError) as error:
        raise SceneError(f"{path}: not a JSON file ({error})") from None
    key = "camera_path" if isinstance(data, dict) and "camera_path" in data else "frames"
    entries = data.get(key) if isinstance(data, dict) else None
    if not isinstance(entries, list) or not entries:
        raise SceneError(f"{path}: no cameras: neither camera_path nor frames is a list with entries")
    if data.get("frame", "scene") != "scene":
        raise SceneError(f"{path}: frame is {data['frame']!r}; only paths in scene coordinates can be filmed")
    if data.get("camera_type", "perspective") not in ("perspective", "fisheye"):
        raise SceneError(f"{path}: camera_type is {data['camera_type']!r}; only perspective and fisheye can be filmed")
    numbers = {name: default if data.get(name) is None else data[name] for name, default in _PATH_NUMBERS.items()}
    for name, value in numbers.items():
        if type(value) not in (int, float, type(None)) or (value is not None and not 0 < value < math.inf):
            raise SceneError(f"{path}: {name} is {value!r}, not a positive number")
    size = (int(numbers["render_width"] or size[0]), int(numbers["render_height"] or size[1]))
    found = [_entry(entry, data, size, f"{path}: {key}[{number}]") for number, entry in enumerate(entries)]
    poses, lenses = zip(*found, strict=True)
    return Cameras.from_intrinsics(torch.stack(poses), lenses), float(numbers["fps"])


_PATH_NUMBERS = {"fps": 24.0, "render_width": None, "render_height": None}
