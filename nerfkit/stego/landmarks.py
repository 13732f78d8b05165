"""Where a picture of a scene was taken from: what one knows of the scene by sight.

Landmarks are points of the scene's surfaces with SIFT descriptors (Lowe 2004), found in renders of it. Those that a
picture shows tell its camera, whatever was done to it: cut, scaled, turned, lit otherwise. All of these together make
a pinhole's picture into that of a projective camera, x ~ P X with a 3x4 matrix P, which is found from six points or
more by the direct linear transform (Hartley and Zisserman 2004, section 7.1) and RANSAC.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from nerfkit.cameras import Cameras
from nerfkit.kernels.launch import parallel
from nerfkit.render import Model, render_image
from nerfkit.stego.pinhole import Projective, fitted

_VIEWS = 48
"""Renders in which landmarks are looked for, at most."""
_SIDE = 400
"""Pixels of a picture's longer side, above which it is looked at in a smaller size."""
_N_FEATURES = 2000
_CONTRAST = 0.02
_OPAQUE = 0.9
"""Opacity of the places where landmarks may be."""
_ASKING, _NEAREST = 128, 12
"""Features that ask which renders look like a picture, and in how many of these, the likest, all are looked for."""
_LIKE = 0.7
"""Cosine of descriptors that may be of the same place."""
_N_LIKE = 8
_PART = 250
"""Features that one processor compares."""
_SAME = 0.02
"""Places that are nearer than this, as a share of the scene's size, are the same."""
_AMONG, _BATCH = (20, 40, 80, 160, 320, 640, 60, 120), 300
"""RANSAC: among how many of the surest matches points are picked, and how often; each time the best is a guess."""
_TRIED, _PROMISING = 4, 8
"""Cameras of a batch that are looked at closely: those on which most matches agree, at least so many."""
_TOLERANCE = 3.0
"""Pixels by which a match may be off while a camera is looked for."""
_REACHES, _FAR = (4.0 * _TOLERANCE, 2.0 * _TOLERANCE, _TOLERANCE), 20.0
_LONGER = (1.0, 1.5, 2.3)
"""Focal lengths that are tried, in units of that of the scene's cameras."""
_LONG = 3000
"""How often three are picked where the lens is taken as known, at most."""
_LEAST = 12
"""Matches that have to agree on a camera. Of wrong ones, seven hardly ever agree."""
_PLENTY, _MANY = 30, 150
"""Matches with which a camera need not be compared with those of any lens, or with any others."""


@dataclass(frozen=True)
class Matches:
    """Features of a picture and the landmarks that are like them."""

    pixels: Float[np.ndarray, "m 2"]
    points: Float[np.ndarray, "m k 3"]
    """Of each feature those that are likest, the likest first."""
    likeness: Float[np.ndarray, "m k"]

    def doubt(self, same: float) -> Float[np.ndarray, " m"]:
        """How much nearer to a feature the best landmark is than the next best place, in the space of descriptors."""
        apart = np.sqrt(np.maximum(2.0 - 2.0 * self.likeness, 0.0))
        elsewhere = np.linalg.norm(self.points - self.points[:, :1], axis=2) > same
        return apart[:, 0] / np.where(elsewhere, apart, 2.0).min(1)

    def with_more(self, camera: Projective, reaches: Sequence[float] = _REACHES) -> tuple[Projective, int]:
        """A camera by all features that lie where it sees a landmark like them, and how many these are.

        Features that are like several places count as well, where one of these is seen there.

        Args:
            reaches: pixels that count as there, one after the other; beyond `_FAR` of each feature the likest alone.
        """
        alike = self.likeness > _LIKE
        for reach in reaches:
            at, depth = camera.project(self.points.reshape(-1, 3))
            aside = np.linalg.norm(at.reshape(*alike.shape, 2) - self.pixels[:, None], axis=2)
            fits = (aside < reach) & (depth.reshape(alike.shape) > 0) & alike
            fits[:, 1:] &= reach <= _FAR
            which, seen = np.where(fits, aside, np.inf).argmin(1), fits.any(1)
            if seen.sum() < 6:
                return camera, 0
            camera = fitted(camera, self.points[seen, which[seen]], self.pixels[seen])
        return camera, int(seen.sum())

    def best(self, cameras: Iterator[Projective]) -> tuple[Projective | None, int]:
        """Of these cameras the one that sees most features where they are, and how many these are."""
        best, most = None, 0
        for guess in cameras:
            camera, agreeing = self.with_more(guess)
            if agreeing > most:
                best, most = camera, agreeing
            if most >= _MANY:
                break
        return best, most


@dataclass(frozen=True)
class Landmarks:
    """Points in scene coordinates, and what they look like."""

    points: Float[np.ndarray, "n 3"]
    descriptors: UInt8[np.ndarray, "n 128"]
    views: Int[np.ndarray, " n"]
    """Number of the render that each was found in."""
    focal: float
    """Focal length of the cameras that the scene was seen through, in units of a picture's longer side."""

    def cameras_of(self, picture: UInt8[np.ndarray, "h w 3"]) -> Iterator[Projective]:
        """Cameras that may have taken a picture, if it shows enough of the scene: the likeliest first."""
        height, width = picture.shape[:2]
        factor = min(1.0, _SIDE / max(height, width))
        size = max(round(width * factor), 1), max(round(height * factor), 1)
        smaller = cv2.resize(picture, size, interpolation=cv2.INTER_AREA) if factor < 1.0 else picture
        pixels, found = features(cv2.cvtColor(smaller, cv2.COLOR_RGB2GRAY))
        if min(len(pixels), len(self.points)) < _LEAST:
            return
        near = self._near(torch.from_numpy(found))
        among, k = self._directions[near].T, min(_N_LIKE, len(near))
        parts = parallel(lambda some: (some @ among).topk(k, 1), torch.from_numpy(found).split(_PART), among.device)
        likeness, like = (torch.cat(each) for each in zip(*parts, strict=True))
        matches = Matches(pixels, self.points[near[like].numpy()].astype(np.float64), likeness.numpy())
        order = np.argsort(matches.doubt(_SAME * self._size), kind="stable")
        for camera in self._searched(matches, order, size):
            yield camera.scaled(width / size[0], height / size[1])

    def _near(self, found: Float[Tensor, "m 128"]) -> Int[Tensor, " k"]:
        """Landmarks of the renders that look like a picture: those that hold what is likest to some of its features."""
        asking = found[:: -(-len(found) // _ASKING)].split(_ASKING // 4)
        parts = parallel(lambda some: (some @ self._directions.T).max(1), asking, found.device)
        likeness, which = (torch.cat(each) for each in zip(*parts, strict=True))
        views = torch.from_numpy(self.views).long()
        votes = torch.zeros(int(views.max()) + 1).index_add_(0, views[which], (8.0 * (likeness - 1.0)).exp())
        likest = torch.zeros(len(votes), dtype=torch.bool)
        likest[votes.topk(min(_NEAREST, len(votes))).indices] = True
        return likest[views].nonzero()[:, 0]

    def _searched(self, matches: Matches, order: Int[np.ndarray, " m"], size: tuple[int, int]) -> Iterator[Projective]:
        """Cameras on which many features agree, by RANSAC among the surest first (as in Chum and Matas 2005)."""
        chance = np.random.default_rng(0)
        for n in _AMONG:
            points, seen = matches.points[order[:n], 0], matches.pixels[order[:n]]
            best, agreeing = matches.best(self._by_known_lens(points, seen, size))
            if agreeing < _PLENTY:
                more = matches.best(_by_any_lens(points, seen, chance))
                best, agreeing = max((best, agreeing), more, key=lambda one: one[1])
            if best is not None and agreeing >= _LEAST:
                yield best

    def _by_known_lens(
        self, points: Float[np.ndarray, "n 3"], pixels: Float[np.ndarray, "n 2"], size: tuple[int, int]
    ) -> Iterator[Projective]:
        """Cameras on which most matches agree if the picture is whole, or a part that is not seen very aslant.

        Three points tell them, of a plane, too. What was cut off makes the lens seem longer.
        """
        settings = {"iterationsCount": _LONG, "reprojectionError": 2 * _TOLERANCE, "flags": cv2.SOLVEPNP_AP3P}
        for longer in _LONGER:
            focal = longer * self.focal * max(size)
            inner = np.array([[focal, 0.0, size[0] / 2], [0.0, focal, size[1] / 2], [0.0, 0.0, 1.0]])
            good, turn, place, agreeing = cv2.solvePnPRansac(points, pixels, inner, None, **settings)
            if good and agreeing is not None and len(agreeing) >= _PROMISING:
                yield Projective(inner @ np.concatenate([cv2.Rodrigues(turn)[0], place], 1))

    @cached_property
    def _directions(self) -> Float[Tensor, "n 128"]:
        """Descriptors of length one: their products are cosines."""
        return torch.from_numpy(_unit(self.descriptors))

    @cached_property
    def _size(self) -> float:
        return float(np.linalg.norm(self.points.std(0)))


def look_for_landmarks(model: Model, cameras: Cameras, views: list[int], background: str) -> Landmarks:
    """The landmarks of a model, in renders of some of these views."""
    points, descriptors, of = [np.zeros((0, 3), np.float32)], [np.zeros((0, 128), np.uint8)], [np.zeros(0, np.int16)]
    longer = torch.maximum(cameras.width, cameras.height)[views]
    focal = float((cameras.fl_x[views] / longer).median())
    for number, view in enumerate(views[:: -(-len(views) // _VIEWS)]):
        factor = min(1.0, _SIDE / max(int(cameras.width[view]), int(cameras.height[view])))
        camera = cameras[[view]].scaled(factor) if factor < 1.0 else cameras[[view]]
        seen = render_image(model, camera, 0, background)
        gray = cv2.cvtColor((seen.rgb.clamp(0, 1) * 255).round().byte().numpy(), cv2.COLOR_RGB2GRAY)
        pixels, found = features(gray)
        if not len(pixels):
            continue
        at = torch.from_numpy(pixels).long()
        opaque = (seen.opacity[at[:, 1], at[:, 0]] > _OPAQUE).numpy()
        rays = camera.rays(torch.zeros(len(pixels), dtype=torch.long), torch.from_numpy(pixels).float())
        places = rays.rays_o + rays.rays_d * seen.distance[at[:, 1], at[:, 0]][:, None]
        points.append(places.numpy()[opaque])
        descriptors.append((found[opaque] * 512).clip(0, 255).round().astype(np.uint8))
        of.append(np.full(int(opaque.sum()), number, np.int16))
    return Landmarks(np.concatenate(points).astype(np.float32), np.concatenate(descriptors), np.concatenate(of), focal)


def features(gray: UInt8[np.ndarray, "h w"]) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n 128"]]:
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


def _by_any_lens(
    points: Float[np.ndarray, "n 3"], pixels: Float[np.ndarray, "n 2"], chance: np.random.Generator
) -> Iterator[Projective]:
    """Cameras on which most matches agree, by six of them each, whatever was done to the picture."""
    picks = np.argsort(chance.random((_BATCH, len(points))), 1)[:, :6]
    matrices = _direct(points[picks], pixels[picks])
    seen = points @ matrices[:, :, :3].transpose(0, 2, 1) + matrices[:, None, :, 3]
    depth = seen[..., 2]
    aside = np.linalg.norm(seen[..., :2] / np.where(depth > 0, depth, np.inf)[..., None] - pixels, axis=2)
    agreeing = ((depth > 0) & (aside < _TOLERANCE)).sum(1)
    best = np.argsort(-agreeing, kind="stable")[:_TRIED]
    yield from (Projective(matrices[i]) for i in best if agreeing[i] >= _PROMISING)


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
