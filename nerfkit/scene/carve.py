"""The visual hull: where an object can be, given images with alpha.

A cell is empty if two views see all of it against full transparency; one, where there are few. Cells are tested as
spheres about them and against the largest alpha in a square that holds the sphere's picture, so that the thinnest part
survives. Cells that survive at a coarse resolution are split into eight, and only those are tested again.

The largest value of any square of an image comes from four overlapping squares whose side is a power of two, so one
table of such maxima an image answers every question (a sparse table).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from nerfkit.cameras import Cameras
from nerfkit.scene.scene import Scene, alpha_of

MOST_VIEWS = 64
"""Views beyond these, evenly chosen, are not asked: the hull is only a little larger without them."""
MOST_PIXELS = 640
"""Along the longer side of a silhouette, at most."""
OPAQUE = 4
"""Alphas up to this one (of 255) are noise of a matting program, not a thing."""
FEW = 16
"""With fewer views than this, one alone may carve. Of many masks one is cut too tight, and all would suffer."""
START = 16
"""Cells along one side of the first, coarsest grid, at most, where the resolution can be halved so far."""

_STRETCH = {"pinhole": 1.0, "opencv": 1.5, "opencv_fisheye": 2.0}
"""How much larger than in a pinhole a lens may draw a small thing."""


def silhouette(image: UInt8[np.ndarray, "h w c"]) -> UInt8[Tensor, "h2 w2"]:
    """The alpha of an image, in a large one the largest of each block of pixels; past the edge it counts as opaque."""
    height, width = image.shape[:2]
    factor = _reduction(width, height)
    if image.shape[2] == 3:
        return torch.full((-(-height // factor), -(-width // factor)), 255, dtype=torch.uint8)
    alpha = alpha_of(image)
    if factor == 1:
        return alpha
    alpha = torch.nn.functional.pad(alpha, (0, -width % factor, 0, -height % factor), value=255)
    return torch.nn.functional.max_pool2d(alpha.float()[None], factor)[0].to(torch.uint8)


def _reduction(width: int, height: int) -> int:
    return -(-max(width, height) // MOST_PIXELS)


def _maxima(alpha: UInt8[Tensor, "h w"], n_levels: int) -> UInt8[Tensor, "levels h w"]:
    """Largest alpha of the square of side 2 ** level whose first corner is at a pixel (cut off at the edge)."""
    levels = [alpha]
    for level in range(n_levels - 1):
        last, side = levels[-1], 1 << level
        wide = last.clone()
        wide[:, :-side] = torch.maximum(last[:, :-side], last[:, side:])
        levels.append(wide.clone())
        levels[-1][:-side] = torch.maximum(wide[:-side], wide[side:])
    return torch.stack(levels)


def _footprint(cameras: Cameras, view: int, points: Float[Tensor, "n 3"], radius: float) -> tuple[Tensor, Tensor]:
    """Pixel of each point and half the side of a square of pixels that holds the picture of a sphere about it."""
    pixels, depth = cameras.project(view, points)
    distance = torch.linalg.vector_norm(points - cameras.c2w[view, :, 3], dim=-1)
    focal = float(torch.maximum(cameras.fl_x[view], cameras.fl_y[view])) * _STRETCH[cameras.lens] * radius
    if cameras.lens == "opencv_fisheye":
        return pixels, focal / (distance - radius).clamp_min(1e-9)
    # |(X + a) / (Z + b) - X / Z| for an offset (a, b) no longer than the radius.
    return pixels, focal * distance / depth / (depth - radius).clamp_min(1e-9)


def _test(
    cameras: Cameras,
    view: int,
    alpha: UInt8[Tensor, "h w"],
    points: Float[Tensor, "n 3"],
    radius: float,
    crop: bool,
    margin: float,
) -> tuple[Bool[Tensor, " n"], Bool[Tensor, " n"]]:
    """Which cells a view shows to be empty, and which have their centre in the picture."""
    pixels, half = _footprint(cameras, view, points, radius)
    width, height = int(cameras.width[view]), int(cameras.height[view])
    factor = _reduction(width, height)
    x, y = pixels.unbind(-1)
    seen = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    # One pixel more: calibrations and silhouettes are no better than that.
    half = half + 1 + margin * max(width, height)
    judged = seen
    if not crop:
        judged = (x - half >= 0) & (y - half >= 0) & (x + half < width) & (y + half < height)
    empty = torch.zeros_like(judged)
    if not judged.any():
        return empty, seen
    which = slice(None) if judged.all() else judged.nonzero()[:, 0]
    x, y, half = x[which], y[which], half[which]
    left, right = ((edge.clamp(0, width - 1) / factor).int() for edge in (x - half, x + half))
    top, bottom = ((edge.clamp(0, height - 1) / factor).int() for edge in (y - half, y + half))
    empty[which] = _largest(alpha, left, right, top, bottom) <= OPAQUE
    return empty, seen


def _largest(alpha: UInt8[Tensor, "h w"], left: Tensor, right: Tensor, top: Tensor, bottom: Tensor) -> Tensor:
    """Largest alpha in rectangles of pixels, both ends included; of oblong ones, in something larger."""
    level = torch.log2((torch.maximum(right - left, bottom - top) + 1).float()).int()
    maxima = _maxima(alpha, int(level.max()) + 1).flatten()
    reach, base, stride = 1 << level, level * alpha.numel(), alpha.shape[1]
    largest = torch.zeros(len(left), dtype=torch.uint8)
    for row in (top, (bottom + 1 - reach).clamp_min(0)):
        for column in (left, (right + 1 - reach).clamp_min(0)):
            largest = torch.maximum(largest, maxima.index_select(0, base + row * stride + column))
    return largest


def _asked(n_views: int) -> list[int]:
    """The views that are asked."""
    return torch.linspace(0, n_views - 1, min(MOST_VIEWS, n_views)).round().int().tolist()


def carve(
    cameras: Cameras,
    alphas: Sequence[UInt8[Tensor, "_ _"]],
    lower: Float[Tensor, " 3"],
    side: float,
    resolution: int,
    least_seen: float = 0.0,
    crop: bool = False,
    margin: float = 0.0,
) -> Bool[Tensor, "r r r"]:
    """Cells of a cube, from corner ``lower`` and of length ``side`` in scene units, that may hold a part of an object.

    Index order [x, y, z]. True only for cells that lie in some view, and in more than a share ``least_seen`` of the
    views that see the best seen cell: what is hardly seen cannot be told, nor learnt. A view judges the
    cells that are wholly in its picture, with ``crop`` also what it has of those at the picture's edge. ``alphas`` are
    silhouettes (`silhouette`), ``margin`` a share of a picture's longer side by which it may be off, beyond a pixel.
    """
    views = _asked(len(cameras))
    agreeing = 1 if len(views) < FEW else 2
    size = resolution
    while size > START and size % 2 == 0:
        size //= 2
    cells = torch.cartesian_prod(*[torch.arange(size)] * 3)
    while True:
        cell = side / size
        points = lower + (cells + 0.5) * cell
        n_seen, n_empty = torch.zeros(2, len(cells), dtype=torch.int32)
        for view in views:
            empty, seen = _test(cameras, view, alphas[view], points, cell * 3**0.5 / 2, crop, margin)
            n_seen, n_empty = n_seen + seen, n_empty + empty
            alive = n_empty < agreeing
            # Copying the survivors costs more than testing a few dead cells again.
            if view == views[-1] or int(alive.sum()) < 0.9 * len(alive):
                left = alive.nonzero()[:, 0]
                cells, points, n_seen, n_empty = (of.index_select(0, left) for of in (cells, points, n_seen, n_empty))
        if size >= resolution:
            break
        halves = torch.cartesian_prod(*[torch.arange(2)] * 3)
        cells, size = (2 * cells[:, None, :] + halves).flatten(0, 1), 2 * size
    grid = torch.zeros((size,) * 3, dtype=torch.bool)
    cells = cells[n_seen > least_seen * (n_seen.max() if len(cells) else 0)]
    grid[cells[:, 0], cells[:, 1], cells[:, 2]] = True
    return grid


def visual_hull(scene: Scene, resolution: int = 128, margin: float = 0.0) -> Bool[Tensor, "r r r"]:
    """Cells of the unit cube, index [x, y, z], that may hold a part of the object; from training views alone.

    ``margin`` is a share of a picture's longer side by which silhouettes may be off, beyond a pixel. All True for
    images without alpha, which say nothing about empty space.
    """
    if not scene.has_alpha:
        return torch.ones((resolution,) * 3, dtype=torch.bool)
    train = [scene.splits["train"][i] for i in _asked(len(scene.splits["train"]))]
    lower = scene.frame.to_scene(torch.zeros(3))
    alphas = [silhouette(scene.images[i]) for i in train]
    return carve(scene.cameras[train], alphas, lower, 1 / scene.frame.scale, resolution, margin=margin)
