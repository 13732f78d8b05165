"""COLMAP's sparse models: cameras, images and points3D, all three .bin or all three .txt.

Rotations and translations in the files go from the world to the camera, whose axes are OpenCV's; the first pixel's
centre is (0.5, 0.5) there as here. Scene coordinates are the model's own. Points serve to tell how far the pictures
see, and may be missing.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerfkit.cameras import DISTORTION, Intrinsics
from nerfkit.poses import SceneError, rotation_of
from nerfkit.scene.listing import Hints, Listing, View, masks_beside, picture_folders

MODEL_FOLDERS = ("", "sparse/0/", "sparse/", "0/", "sparse/*/", "colmap/sparse/0/", "colmap*/")
"""Where a scene's folder has its model, as patterns; the first that is there counts."""
FEW = 64
"""Observed points below which they say nothing of how far the pictures see."""
OUTLIERS = 0.01
"""Share of the observed points, at either end, that may be mistaken."""

_PARAMETERS = {
    "SIMPLE_PINHOLE": "f cx cy",
    "PINHOLE": "fx fy cx cy",
    "SIMPLE_RADIAL": "f cx cy k1",
    "RADIAL": "f cx cy k1 k2",
    "OPENCV": "fx fy cx cy k1 k2 p1 p2",
    "OPENCV_FISHEYE": "fx fy cx cy k1 k2 k3 k4",
    "FULL_OPENCV": "fx fy cx cy k1 k2 p1 p2 k3 k4 k5 k6",
    "FOV": "fx fy cx cy omega",
    "SIMPLE_RADIAL_FISHEYE": "f cx cy k1",
    "RADIAL_FISHEYE": "f cx cy k1 k2",
    "THIN_PRISM_FISHEYE": "fx fy cx cy k1 k2 p1 p2 k3 k4 sx1 sy1",
    "RAD_TAN_THIN_PRISM_FISHEYE": "fx fy cx cy k0 k1 k2 k3 k4 k5 p0 p1 s0 s1 s2 s3",
    "SIMPLE_DIVISION": "f cx cy k",
    "DIVISION": "fx fy cx cy k",
    "SIMPLE_FISHEYE": "f cx cy",
    "FISHEYE": "fx fy cx cy",
    "EUCM": "fx fy cx cy alpha beta",
    "EQUIRECTANGULAR": "w h",
}
"""Parameters of each camera model; the number that binary files give it is its place here."""
_STRANGE = {"FOV", "THIN_PRISM_FISHEYE", "RAD_TAN_THIN_PRISM_FISHEYE"}
_STRANGE |= {"SIMPLE_DIVISION", "DIVISION", "EUCM", "EQUIRECTANGULAR"}
"""Models that none of our lenses can express."""


@dataclass(frozen=True)
class _Camera:
    model: str
    width: int
    height: int
    parameters: tuple[float, ...]


@dataclass(frozen=True)
class _Image:
    number: int
    name: str
    camera: int
    pose: tuple[float, ...]
    """World to camera: a quaternion (w, x, y, z) and a translation."""
    points: Int[np.ndarray, " n"]
    """Numbers of the points that it shows; -1 for features that are no point."""


Points = tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n 3"]]
"""Ascending numbers of points and where they are, scene coordinates."""


class _Binary:
    """The bytes of a file, from front to back. Raises SceneError, naming the file, where they end too early."""

    def __init__(self, file: Path) -> None:
        self.file, self.data, self.at = file, _content(file), 0

    def take(self, form: str, what: str) -> tuple:
        """The next numbers, little-endian and unpadded, in `struct`'s notation."""
        start = self.skip(struct.calcsize(f"<{form}"), what)
        return struct.unpack_from(f"<{form}", self.data, start)

    def skip(self, n_bytes: int, what: str) -> int:
        """Pass over bytes; returns where they began."""
        start, self.at = self.at, self.at + n_bytes
        if self.at > len(self.data):
            size = f"{len(self.data)} bytes end in the middle of {what}"
            raise SceneError(f"{self.file}: its {size}: it was cut short, or is no file of COLMAP's")
        return start

    def name(self, what: str) -> str:
        """The next text, which ends in a zero byte."""
        end = self.data.find(b"\0", self.at)
        start = self.skip((end if end >= 0 else len(self.data)) + 1 - self.at, what)
        return os.fsdecode(self.data[start : self.at - 1])


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SceneError(f"{file}: cannot be read ({error.strerror})") from None


def _lines(file: Path) -> Iterator[tuple[str, str]]:
    """The lines of a text file, each with its place for messages."""
    for number, line in enumerate(_content(file).decode(errors="surrogateescape").splitlines(), 1):
        yield f"{file}: line {number}", line.strip()


def _is_entry(line: str) -> bool:
    return bool(line) and not line.startswith("#")


def _cameras_binary(file: Path) -> dict[int, _Camera]:
    data, cameras, models = _Binary(file), {}, list(_PARAMETERS)
    (count,) = data.take("Q", "the number of cameras")
    for entry in range(count):
        what = f"camera {entry + 1} of {count}"
        number, model, width, height = data.take("iiQQ", what)
        if not 0 <= model < len(models):
            raise SceneError(f"{file}: camera {number} has model number {model}, which is unknown")
        parameters = data.take(f"{len(_PARAMETERS[models[model]].split())}d", what)
        cameras[number] = _Camera(models[model], width, height, parameters)
    return cameras


def _cameras_text(file: Path) -> dict[int, _Camera]:
    cameras = {}
    for where, line in _lines(file):
        if not _is_entry(line):
            continue
        try:
            number, model, width, height, *parameters = line.split()
            size = int(width), int(height)
            cameras[int(number)] = _Camera(model, *size, tuple(map(float, parameters)))
        except ValueError:
            raise SceneError(f"{where} is {line[:80]!r}, not a camera: ID MODEL WIDTH HEIGHT PARAMETERS") from None
    return cameras


def _images_binary(file: Path) -> list[_Image]:
    data, images = _Binary(file), []
    (count,) = data.take("Q", "the number of images")
    feature = np.dtype([("xy", "<f8", 2), ("point", "<i8")])
    for entry in range(count):
        what = f"image {entry + 1} of {count}"
        number, *pose, camera = data.take("i7di", what)
        name = data.name(what)
        (n_features,) = data.take("Q", what)
        start = data.skip(n_features * feature.itemsize, what)
        points = np.frombuffer(data.data, feature, n_features, start)["point"].astype(np.int64)
        images.append(_Image(number, name, camera, tuple(pose), points))
    return images


def _images_text(file: Path) -> list[_Image]:
    images, lines = [], _lines(file)
    for where, line in lines:
        if not _is_entry(line):
            continue
        # The second line of an image, its features, may be empty, and the last of a file may be missing.
        features_at, features = next(lines, ("", ""))
        try:
            number, *pose, camera, name = line.split(maxsplit=9)
            points = np.array(features.split()[2::3], dtype=np.int64)
            image = _Image(int(number), name, int(camera), tuple(map(float, pose)), points)
            if len(pose) != 7:
                raise ValueError
        except ValueError:
            form = "ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, and X Y POINT3D_ID of its features on the next line"
            raise SceneError(f"{where} is {line[:80]!r}, not an image: {form}") from None
        if len(features.split()) % 3:
            raise SceneError(f"{features_at}: the features of {name} are no triples X Y POINT3D_ID: was it cut short?")
        images.append(image)
    return images


def _points_binary(file: Path) -> Points:
    data, numbers, places = _Binary(file), [], []
    (count,) = data.take("Q", "the number of points")
    for entry in range(count):
        what = f"point {entry + 1} of {count}"
        number, x, y, z, _, _, _, _, n_views = data.take("Q3d3BdQ", what)
        data.skip(8 * n_views, what)
        numbers.append(number)
        places.append((x, y, z))
    return _ordered(numbers, places)


def _points_text(file: Path) -> Points:
    numbers, places = [], []
    for where, line in _lines(file):
        if not _is_entry(line):
            continue
        try:
            number, x, y, z = line.split(maxsplit=4)[:4]
            numbers.append(int(number))
            places.append((float(x), float(y), float(z)))
        except ValueError:
            raise SceneError(f"{where} is {line[:80]!r}, not a point: ID X Y Z R G B ERROR TRACK") from None
    return _ordered(numbers, places)


def _ordered(numbers: list[int], places: list[tuple[float, float, float]]) -> Points:
    order = np.argsort(numbers)
    return np.array(numbers, dtype=np.int64)[order], np.array(places, dtype=np.float64).reshape(-1, 3)[order]


def _intrinsics(camera: _Camera, where: str) -> Intrinsics:
    """Our lens of one of COLMAP's. Raises SceneError, beginning with ``where``, for one that we do not have."""
    names = _PARAMETERS.get(camera.model, "").split()
    if camera.model in _STRANGE or not names:
        known = ", ".join(name for name in _PARAMETERS if name not in _STRANGE)
        raise SceneError(f"{where} has the model {camera.model}, which cannot be used; known are {known}")
    if len(names) != len(camera.parameters):
        listed = f"{len(camera.parameters)} parameters, not {len(names)} ({', '.join(names)})"
        raise SceneError(f"{where}: its model {camera.model} has {listed}")
    value = dict(zip(names, camera.parameters, strict=True))
    fl_x, fl_y = value.get("fx", value.get("f", 0.0)), value.get("fy", value.get("f", 0.0))
    if not all(map(math.isfinite, camera.parameters)) or min(fl_x, fl_y, camera.width, camera.height) <= 0:
        raise SceneError(f"{where}: its parameters {camera.parameters} are no lens of {camera.width}x{camera.height}")
    distortion = tuple(value.get(name, 0.0) for name in DISTORTION)
    lens = "opencv_fisheye" if camera.model.endswith("FISHEYE") else "opencv" if any(distortion) else "pinhole"
    size = {"width": camera.width, "height": camera.height}
    return Intrinsics(lens, distortion, fl_x, fl_y, cx=value["cx"], cy=value["cy"], **size)


def _world_to_camera(image: _Image, where: str) -> Float[Tensor, "3 4"]:
    pose = torch.tensor(image.pose, dtype=torch.float64)
    length = torch.linalg.vector_norm(pose[:4])
    if not pose.isfinite().all() or length < 1e-6:
        raise SceneError(f"{where}: its pose {image.pose} is no rotation and translation")
    return torch.cat([rotation_of(pose[None, :4] / length)[0], pose[4:, None]], dim=1)


def _depths(
    images: list[_Image], w2c: Float[Tensor, "images 3 4"], points: Points | None
) -> tuple[float, float] | None:
    """Between which depths the points lie that the pictures show, but for outliers; None where they are too few."""
    if points is None or not len(points[0]):
        return None
    numbers, places = points
    found = []
    for image, pose in zip(images, w2c.numpy(), strict=True):
        spot = np.searchsorted(numbers, image.points).clip(max=len(numbers) - 1)
        seen = places[spot[numbers[spot] == image.points]]
        found.append(seen @ pose[2, :3] + pose[2, 3])
    depths = np.concatenate(found)
    depths = depths[np.isfinite(depths) & (depths > 0)]
    if len(depths) < FEW:
        return None
    least, most = np.quantile(depths, (OUTLIERS, 1 - OUTLIERS)).tolist()
    return (least, most) if least < most else None


def _find_pictures(file: Path, names: list[str]) -> tuple[Path, dict[str, Path]]:
    """The folder that a model's names of pictures belong to, and the files of those that are there.

    It is looked for beside the model and, where the model lies in folders of COLMAP's own names, beside these; the
    first that has all of the pictures counts, or else the one that has most.
    """
    # Absolute, so that a model in "." has parents too.
    bases = [Path(os.path.abspath(file)).parent]
    while bases[-1].name.isdecimal() or bases[-1].name == "sparse" or bases[-1].name.startswith("colmap"):
        bases.append(bases[-1].parent)
    best: tuple[Path, dict[str, Path]] = (bases[0], {})
    for base in bases:
        for folder in [*(folder for folder, _ in picture_folders(base)), base]:
            found = {name: path for name in names if (path := folder / name.replace("\\", "/")).is_file()}
            if len(found) > len(best[1]):
                best = folder, found
            if len(found) == len(names):
                return best
    if not best[1]:
        places = " or ".join(str(base / "images") for base in bases)
        raise SceneError(f"{file}: none of its {len(names)} pictures is there: no {names[0]} in {places}")
    return best


def _other_models(file: Path) -> list[str]:
    """Names of the models that COLMAP, where it could not connect all pictures, put beside this one."""
    folder = Path(os.path.abspath(file)).parent
    if folder.parent.name != "sparse":
        return []
    return sorted(other.parent.name for other in folder.parent.glob(f"*/{file.name}") if other.parent != folder)


def read_colmap(file: Path) -> Listing:
    """A sparse model by its ``images.bin`` or ``images.txt`` (``file``), which has the other files beside it.

    Views are sorted by name, as mip-NeRF 360 does it before it holds out every eighth. Raises SceneError, naming the
    file, for one that is cut short, cameras that are not listed or that no lens of ours expresses, poses that are
    none, and where no picture is registered or none is there.
    """
    binary = file.suffix == ".bin"
    cameras_file, points_file = (file.with_name(f"{name}{file.suffix}") for name in ("cameras", "points3D"))
    cameras = (_cameras_binary if binary else _cameras_text)(cameras_file)
    images = sorted((_images_binary if binary else _images_text)(file), key=lambda image: image.name)
    if not images:
        raise SceneError(f"{file}: no image is registered in it: it holds no camera pose")
    points = (_points_binary if binary else _points_text)(points_file) if points_file.is_file() else None
    folder, paths = _find_pictures(file, [image.name for image in images])
    there = [image for image in images if image.name in paths]
    masks, warnings = masks_beside(folder, [paths[image.name] for image in there])
    if len(there) < len(images):
        count, first = len(images) - len(there), next(image.name for image in images if image.name not in paths)
        text = f"{count} of {len(images)} listed pictures do not exist and are skipped (the first: {first})"
        warnings.append(f"{file.name}: {text}")
    if others := _other_models(file):
        which = f"{file.parent.name} of the models {', '.join(sorted([file.parent.name, *others]))}"
        warnings.append(f"{file.name}: this is {which}; name the folder of another one to read that")
    views, poses = [], []
    for image, mask in zip(there, masks, strict=True):
        where = f"{file}: image {image.number}"
        if image.camera not in cameras:
            listed = f"camera {image.camera}, which is not in {cameras_file.name}"
            raise SceneError(f"{where} ({image.name}) was taken by {listed}")
        w2c = _world_to_camera(image, where)
        c2w = torch.cat([w2c[:, :3].T, -w2c[:, :3].T @ w2c[:, 3:]], dim=1)
        lens = _intrinsics(cameras[image.camera], f"{cameras_file}: camera {image.camera}")
        views.append(View(paths[image.name], mask, c2w, lens, None, where))
        poses.append(w2c)
    return Listing(views, Hints(depths=_depths(there, torch.stack(poses), points)), warnings)
