"""Answers that need no method, so that every method stands beside them: nothing, the picture itself, sharp and blurred,
a cut-out of it that is turned, and what the true depth of the picture gives, alone and mirrored behind."""

from __future__ import annotations

import json
import math

import cv2
import numpy as np
from jaxtyping import Float

from nerfkit.lift.bench import Answer, Object, Pose, Rgba
from nerfkit.lift.photo import LiftError, premultiplied, straightened
from nerfkit.lift.scene import pose_of

_FINE = 3
"""Points a pixel, each way, and pixels in its place while they are put down."""
_BLUR = 3.0 / 128
"""Of a copy, as a share of its side: what is unsure is safer blurred."""


def white(one: Object, view: int) -> Rgba:
    """Nothing."""
    return np.zeros_like(one.truth(view))


def copied(one: Object, view: int) -> Rgba:
    """The picture itself."""
    truth, picture = one.truth(view), one.picture()
    return picture if picture.shape == truth.shape else cv2.resize(picture, truth.shape[1::-1])


def blurred(one: Object, view: int) -> Rgba:
    """The picture itself, blurred."""
    picture = copied(one, view)
    return straightened(cv2.GaussianBlur(premultiplied(picture), (0, 0), _BLUR * picture.shape[0]))


def billboard(one: Object, view: int) -> Rgba:
    """The picture as a flat thing through the middle of the object, facing its camera."""
    picture = one.picture()
    flat = np.full(picture.shape[:2], one.input.radius)
    return _splatted(one, view, _points(one, picture, np.where(picture[..., 3] > 127, flat, 0.0)))


def true_depth(one: Object, view: int) -> Rgba:
    """What is seen in the picture, where it truly is."""
    return _splatted(one, view, _points(one, one.picture(), _depth(one)))


def true_depth_mirrored(one: Object, view: int) -> Rgba:
    """The same, and again behind the middle of the object, as seen from its camera."""
    points, colors = _points(one, one.picture(), _depth(one))
    towards = pose_of(one.input.azimuth, one.input.elevation, 1.0)[:, 3]
    level = np.array([towards[0], 0.0, towards[2]]) / math.hypot(towards[0], towards[2])
    behind = points - 2 * (points @ level)[:, None] * level
    return _splatted(one, view, (np.concatenate([points, behind]), np.concatenate([colors, colors])))


def _depth(one: Object) -> Float[np.ndarray, "h w"]:
    about = json.loads((one.folder / "cameras.json").read_text())
    found = cv2.imread(str(one.folder / "input_depth.png"), cv2.IMREAD_UNCHANGED)
    if found is None or "near" not in about:
        raise LiftError(f"{one.folder}: does not tell the picture's depth")
    z = about["near"] + (found.astype(float) - 1) / 65534 * (about["far"] - about["near"])
    return np.where(found > 0, z, 0.0)


def _points(one: Object, picture: Rgba, depth: Float[np.ndarray, "h w"]) -> tuple[np.ndarray, np.ndarray]:
    """Places of what a picture shows, and its colours."""
    size = picture.shape[0]
    fine = np.repeat(np.repeat(depth, _FINE, 0), _FINE, 1)
    colors = np.repeat(np.repeat(picture[..., :3], _FINE, 0), _FINE, 1)
    rows, columns = np.nonzero((fine > 0) & (np.repeat(np.repeat(picture[..., 3], _FINE, 0), _FINE, 1) > 127))
    focal = size * _FINE / 2 / math.tan(math.radians(one.input.fov) / 2)
    z = fine[rows, columns]
    middle = size * _FINE / 2
    local = np.stack([(columns + 0.5 - middle) * z / focal, (rows + 0.5 - middle) * z / focal, z], 1)
    c2w = pose_of(one.input.azimuth, one.input.elevation, one.input.radius)
    return local @ c2w[:, :3].T + c2w[:, 3], colors[rows, columns]


def _splatted(one: Object, view: int, cloud: tuple[np.ndarray, np.ndarray]) -> Rgba:
    """What points look like, the nearest in front."""
    pose: Pose = one.views[view]
    size = one.truth(view).shape[0] * _FINE
    points, colors = cloud
    c2w = pose_of(pose.azimuth, pose.elevation, pose.radius)
    local = (points - c2w[:, 3]) @ c2w[:, :3]
    z = np.maximum(local[:, 2], 1e-3)
    xy = local[:, :2] / z[:, None] * (size / 2 / math.tan(math.radians(pose.fov) / 2)) + size / 2
    out, last, order = np.zeros((size, size, 4), np.uint8), np.full((size, size), -1), np.argsort(-z)
    x, y = np.floor(xy[order]).astype(int).T
    for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):  # twice as wide as they lie apart: no gaps
        inside = (x + right >= 0) & (y + down >= 0) & (x + right < size) & (y + down < size)
        near = np.full((size, size), -1)
        near[y[inside] + down, x[inside] + right] = np.flatnonzero(inside)
        last = np.maximum(last, near)
    there = last >= 0
    out[there, :3], out[there, 3] = colors[order][last[there]], 255
    return straightened(cv2.resize(premultiplied(out), (size // _FINE,) * 2, interpolation=cv2.INTER_AREA))


TRIVIAL: dict[str, Answer] = {
    "white": white,
    "copy": copied,
    "copy, blurred": blurred,
    "billboard": billboard,
    "true depth": true_depth,
    "true depth, mirrored": true_depth_mirrored,
}
