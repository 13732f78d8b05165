"""Where a picture of a scene was taken from: what one knows of the scene by sight.

Landmarks are points of the scene's surfaces with SIFT descriptors (Lowe 2004), found in renders of it. Those that a
picture shows tell its camera, whatever was done to it: cut, scaled, turned, lit otherwise. All of these together make
a pinhole's picture into that of a projective camera, x ~ P X with a 3x4 matrix P, which is found from six points or
more by the direct linear transform (Hartley and Zisserman 2004, section 7.1) and RANSAC.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from nerfkit.cameras import Cameras
from nerfkit.render import Model, render_image
from nerfkit.types import Rays

_VIEWS = 48
"""Renders in which landmarks are looked for, at most."""
_SIDE = 640
"""Pixels of a picture's longer side, above which it is looked at in a smaller size."""
_N_FEATURES = 2000
_CONTRAST = 0.02
_OPAQUE = 0.9
"""Opacity of the places where landmarks may be."""
_LIKE = 0.7
"""Cosine of descriptors that may be of the same place."""
_N_LIKE = 16
_SAME = 0.02
"""Places that are nearer than this, as a share of the scene's size, are the same."""
_AMONG, _BATCH = (20, 40, 80, 160, 320, 640, 60, 120), 300
"""RANSAC: among how many of the surest matches six are picked, and how often; each time the best is a guess."""
_TRIED, _PROMISING = 8, 8
"""Cameras of a batch that are looked at closely: those on which most matches agree, at least so many."""
_TOLERANCE = 3.0
"""Pixels by which a match may be off while a camera is looked for."""
_LONGER = (1.0, 1.5, 2.3)
"""Focal lengths that are tried, in units of that of the scene's cameras."""
_STIFF = 1e6
"""Price of pixels that are not square: a hundredth is as dear as a hundred matches being off by a pixel."""
_LEAST = 12
"""Matches that have to agree on a camera. Of wrong ones, seven hardly ever agree."""


@dataclass(frozen=True)
class Projective:
    """A camera given by its matrix: pixels (x, y) = (P X)[:2] / (P X)[2], X homogeneous, in scene coordinates."""

    matrix: Float[np.ndarray, "3 4"]
    """Its left 3x3 part has a positive determinant and its third row gives depths that are positive before it."""

    def project(self, points: Float[np.ndarray, "n 3"]) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, " n"]]:
        """Pixels of points, and their depths up to a positive factor."""
        seen = points @ self.matrix[:, :3].T + self.matrix[:, 3]
        depth = seen[:, 2]
        return seen[:, :2] / np.where(np.abs(depth) < 1e-12, 1e-12, depth)[:, None], depth

    def rays(self, pixels: Float[Tensor, "n 2"]) -> Rays:
        """Rays through pixels, scene coordinates."""
        inverse = np.linalg.inv(self.matrix[:, :3])
        eye = torch.from_numpy(-inverse @ self.matrix[:, 3]).float()
        ends = torch.cat([pixels.double(), torch.ones(len(pixels), 1)], 1) @ torch.from_numpy(inverse).double().T
        directions = torch.nn.functional.normalize(ends, dim=1).float()
        forward = torch.nn.functional.normalize(torch.from_numpy(self.matrix[2, :3].copy()), dim=0).float()
        return Rays(eye.expand(len(pixels), 3).contiguous(), directions, directions @ forward)

    def scaled(self, x: float, y: float) -> Projective:
        """The camera of the picture resized by these factors."""
        return Projective(np.diag([x, y, 1.0]) @ self.matrix)


@dataclass(frozen=True)
class Landmarks:
    """Points in scene coordinates, and what they look like."""

    points: Float[np.ndarray, "n 3"]
    descriptors: UInt8[np.ndarray, "n 128"]
    focal: float
    """Focal length of the cameras that the scene was seen through, in units of a picture's longer side."""

    def cameras_of(self, picture: UInt8[np.ndarray, "h w 3"]) -> Iterator[Projective]:
        """Cameras that may have taken a picture, if it shows enough of the scene: the likeliest first."""
        height, width = picture.shape[:2]
        factor = min(1.0, _SIDE / max(height, width))
        size = max(round(width * factor), 1), max(round(height * factor), 1)
        smaller = cv2.resize(picture, size, interpolation=cv2.INTER_AREA) if factor < 1.0 else picture
        pixels, found = _features(cv2.cvtColor(smaller, cv2.COLOR_RGB2GRAY))
        if min(len(pixels), len(self.points)) < _LEAST:
            return
        likeness, like = (torch.from_numpy(found) @ self._directions.T).topk(_N_LIKE, 1)
        likeness, like = likeness.numpy(), like.numpy()
        order = np.argsort(self._doubt(likeness, like), kind="stable")
        for camera in self._searched(pixels, like, likeness > _LIKE, order, size):
            yield camera.scaled(width / size[0], height / size[1])

    def _searched(
        self,
        pixels: Float[np.ndarray, "m 2"],
        like: Int[np.ndarray, "m k"],
        alike: Bool[np.ndarray, "m k"],
        order: Int[np.ndarray, " m"],
        size: tuple[int, int],
    ) -> Iterator[Projective]:
        """Cameras on which many features agree, by RANSAC among the surest first (as in Chum and Matas 2005)."""
        chance = np.random.default_rng(0)
        for n in _AMONG:
            among = order[:n]
            points, seen = self.points[like[among, 0]].astype(np.float64), pixels[among]
            picks = np.argsort(chance.random((_BATCH, len(among))), 1)[:, :6]
            cameras = [Projective(matrix) for matrix in _direct(points[picks], seen[picks])]
            agreeing = np.array([_agreeing(camera, points, seen, _TOLERANCE).sum() for camera in cameras])
            promising = [i for i in np.argsort(-agreeing, kind="stable")[:_TRIED] if agreeing[i] >= _PROMISING]
            guesses = [cameras[i] for i in promising] + self._by_known_lens(points, seen, size)
            better = [self._with_more(camera, pixels, like, alike) for camera in guesses]
            better = [one for one in better if one[1] >= _LEAST]
            if better:
                yield max(better, key=lambda one: one[1])[0]

    def _by_known_lens(
        self, points: Float[np.ndarray, "n 3"], pixels: Float[np.ndarray, "n 2"], size: tuple[int, int]
    ) -> list[Projective]:
        """Cameras on which most matches agree if the picture is whole, or a part that is not seen very aslant.

        Three points tell them, of a plane, too. What was cut off makes the lens seem longer.
        """
        found = []
        settings = {"iterationsCount": _BATCH, "reprojectionError": 2 * _TOLERANCE, "flags": cv2.SOLVEPNP_AP3P}
        for longer in _LONGER:
            focal = longer * self.focal * max(size)
            inner = np.array([[focal, 0.0, size[0] / 2], [0.0, focal, size[1] / 2], [0.0, 0.0, 1.0]])
            good, turn, place, agreeing = cv2.solvePnPRansac(points, pixels, inner, None, **settings)
            if good and agreeing is not None and len(agreeing) >= _PROMISING:
                found.append(Projective(inner @ np.concatenate([cv2.Rodrigues(turn)[0], place], 1)))
        return found

    def _with_more(
        self, camera: Projective, pixels: np.ndarray, like: np.ndarray, alike: np.ndarray
    ) -> tuple[Projective, int]:
        """A camera by all features that lie where it sees a landmark like them, and how many these are.

        Features that are like several places count as well, where one of these is seen there.
        """
        for reach in (4.0 * _TOLERANCE, 2.0 * _TOLERANCE, _TOLERANCE):
            at, depth = camera.project(self.points[like].reshape(-1, 3))
            aside = np.linalg.norm(at.reshape(*like.shape, 2) - pixels[:, None], axis=2)
            fits = (aside < reach) & (depth.reshape(like.shape) > 0) & alike
            which, seen = np.where(fits, aside, np.inf).argmin(1), fits.any(1)
            if seen.sum() < 6:
                return camera, 0
            camera = fitted(camera, self.points[like[seen, which[seen]]], pixels[seen])
        return camera, int(seen.sum())

    def _doubt(self, likeness: Float[np.ndarray, "m k"], like: Int[np.ndarray, "m k"]) -> Float[np.ndarray, " m"]:
        """How much nearer to a feature the best landmark is than the next best place, in the space of descriptors."""
        apart = np.sqrt(np.maximum(2.0 - 2.0 * likeness, 0.0))
        elsewhere = np.linalg.norm(self.points[like] - self.points[like[:, :1]], axis=2) > _SAME * self._size
        return apart[:, 0] / np.where(elsewhere, apart, 2.0).min(1)

    @cached_property
    def _directions(self) -> Float[Tensor, "n 128"]:
        """Descriptors of length one: their products are cosines."""
        return torch.from_numpy(_unit(self.descriptors))

    @cached_property
    def _size(self) -> float:
        return float(np.linalg.norm(self.points.std(0)))


def look_for_landmarks(model: Model, cameras: Cameras, views: list[int], background: str) -> Landmarks:
    """The landmarks of a model, in renders of some of these views."""
    points, descriptors = [np.zeros((0, 3), np.float32)], [np.zeros((0, 128), np.uint8)]
    longer = torch.maximum(cameras.width, cameras.height)[views]
    focal = float((cameras.fl_x[views] / longer).median())
    for view in views[:: -(-len(views) // _VIEWS)]:
        factor = min(1.0, _SIDE / max(int(cameras.width[view]), int(cameras.height[view])))
        camera = cameras[[view]].scaled(factor) if factor < 1.0 else cameras[[view]]
        seen = render_image(model, camera, 0, background)
        gray = cv2.cvtColor((seen.rgb.clamp(0, 1) * 255).round().byte().numpy(), cv2.COLOR_RGB2GRAY)
        pixels, found = _features(gray)
        if not len(pixels):
            continue
        at = torch.from_numpy(pixels).long()
        opaque = (seen.opacity[at[:, 1], at[:, 0]] > _OPAQUE).numpy()
        rays = camera.rays(torch.zeros(len(pixels), dtype=torch.long), torch.from_numpy(pixels).float())
        places = rays.rays_o + rays.rays_d * seen.distance[at[:, 1], at[:, 0]][:, None]
        points.append(places.numpy()[opaque])
        descriptors.append((found[opaque] * 512).clip(0, 255).round().astype(np.uint8))
    return Landmarks(np.concatenate(points).astype(np.float32), np.concatenate(descriptors), focal)


def _features(gray: UInt8[np.ndarray, "h w"]) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n 128"]]:
    """Pixels (the first one's centre is 0.5) and unit descriptors."""
    found, descriptors = cv2.SIFT_create(nfeatures=_N_FEATURES, contrastThreshold=_CONTRAST).detectAndCompute(
        gray, None
    )
    if descriptors is None:
        return np.zeros((0, 2)), np.zeros((0, 128), np.float32)
    limit = np.array(gray.shape[::-1]) - 1e-3
    pixels = np.clip(np.array([point.pt for point in found]) + 0.5, 0.0, limit)
    return pixels, _unit(descriptors)


def _unit(descriptors: np.ndarray) -> Float[np.ndarray, "n 128"]:
    each = descriptors.astype(np.float32)
    return each / np.maximum(np.linalg.norm(each, axis=1, keepdims=True), 1e-6)


def _agreeing(camera: Projective, points: np.ndarray, pixels: np.ndarray, within: float) -> Bool[np.ndarray, " n"]:
    at, depth = camera.project(points)
    return (depth > 0) & (np.linalg.norm(at - pixels, axis=1) < within)


def _direct(points: Float[np.ndarray, "b n 3"], pixels: Float[np.ndarray, "b n 2"]) -> Float[np.ndarray, "b 3 4"]:
    """Matrices by the direct linear transform, from n >= 6 matches each, about their means."""
    n = points.shape[1]
    middle, centre = points.mean(1, keepdims=True), pixels.mean(1, keepdims=True)
    size = np.maximum(points.std((1, 2), keepdims=True), 1e-9)
    extent = np.maximum(pixels.std((1, 2), keepdims=True), 1e-9)
    x, u = (points - middle) / size, (pixels - centre) / extent
    x = np.concatenate([x, np.ones_like(x[..., :1])], -1)
    rows = np.zeros((len(points), 2 * n, 12))
    rows[:, :n, :4] = rows[:, n:, 4:8] = x
    rows[:, :n, 8:], rows[:, n:, 8:] = -u[..., :1] * x, -u[..., 1:] * x
    matrix = np.linalg.svd(rows, full_matrices=rows.shape[1] < 12)[2][:, -1].reshape(-1, 3, 4)
    inner = np.tile(np.eye(4), (len(points), 1, 1))
    inner[:, :3] /= size
    inner[:, :3, 3] = -middle[:, 0] / size[:, 0]
    outer = np.tile(np.eye(3), (len(points), 1, 1))
    outer[:, 0, 0] = outer[:, 1, 1] = extent[:, 0, 0]
    outer[:, :2, 2] = centre[:, 0]
    found = outer @ matrix @ inner
    before = (found[:, None, 2, :3] * points).sum(-1) + found[:, None, 2, 3]
    return found * np.where((before > 0).mean(1) > 0.5, 1.0, -1.0)[:, None, None]


def fitted(camera: Projective, points: Float[np.ndarray, "n 3"], pixels: Float[np.ndarray, "n 2"]) -> Projective:
    """The pinhole for which matches are least off, from a camera nearby; those that are far off count little.

    Gauss-Newton steps in focal length, ratio of a pixel's sides, principal point, rotation and place; the ratio costs
    something, as few points on a plane would leave it free.
    """
    numbers = _taken_apart(camera.matrix)
    for _ in range(8):
        matrix = _put_together(numbers)
        at, depth = Projective(matrix).project(points)
        off = pixels - at
        weight = 1.0 / (1.0 + (off**2).sum(1))  # Cauchy's, of a pixel
        x = np.concatenate([points, np.ones_like(points[:, :1])], 1) / depth[:, None]
        slope = np.zeros((len(points), 2, 12))
        slope[:, 0, :4] = slope[:, 1, 4:8] = x
        slope[:, 0, 8:], slope[:, 1, 8:] = -at[:, :1] * x, -at[:, 1:] * x
        tiny = 1e-6 * np.maximum(np.abs(numbers), 1e-2)
        by_number = np.stack([(_put_together(numbers + d) - matrix).ravel() / d.sum() for d in np.diag(tiny)], 1)
        slope = slope @ by_number
        normal = np.einsum("nia,nib,n->ab", slope, slope, weight)
        wanted = np.einsum("nia,ni,n->a", slope, off, weight)
        normal[1, 1] += _STIFF
        wanted[1] -= _STIFF * numbers[1]
        scale = np.sqrt(np.diag(normal)) + 1e-12
        step = np.linalg.solve(normal / np.outer(scale, scale) + 1e-9 * np.eye(10), wanted / scale) / scale
        step[[0, 1, 4, 5, 6]] = np.clip(step[[0, 1, 4, 5, 6]], -0.3, 0.3)  # a wrong camera must not fly off
        numbers = numbers + step
        if (np.abs(step) * scale).max() < 1e-4 * np.sqrt(len(points)):
            break
    return Projective(_put_together(numbers))


def _put_together(numbers: Float[np.ndarray, " 10"]) -> Float[np.ndarray, "3 4"]:
    """K [R | t] of log focal length, log ratio of a pixel's sides, principal point, rotation vector and t."""
    focal, ratio, cx, cy = numbers[:4]
    inner = np.array([[np.exp(focal), 0.0, cx], [0.0, np.exp(focal + ratio), cy], [0.0, 0.0, 1.0]])
    return inner @ np.concatenate([cv2.Rodrigues(numbers[4:7])[0], numbers[7:, None]], 1)


def _taken_apart(matrix: Float[np.ndarray, "3 4"]) -> Float[np.ndarray, " 10"]:
    """The inverse of `_put_together`, of the nearest matrix that is one: what is skewed is made straight."""
    matrix = matrix / np.linalg.norm(matrix[2, :3])
    a, b, c = matrix[:, :3]
    cx, cy = a @ c, b @ c
    x, y = a - cx * c, b - cy * c
    fx, fy = np.linalg.norm(x), np.linalg.norm(y)
    u, _, v = np.linalg.svd(np.stack([x / fx, y / fy, c]))
    turn = u @ np.diag([1.0, 1.0, np.linalg.det(u @ v)]) @ v
    t = np.linalg.solve(np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]), matrix[:, 3])
    return np.concatenate([[np.log(fx), np.log(fy / fx), cx, cy], cv2.Rodrigues(turn)[0][:, 0], t])
