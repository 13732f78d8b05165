"""A scene divided into tiles: boxes side by side, each with a frame of its own, and the views that help to learn it.

The tiles fill the region where the cameras are (or, where they stand round a subject, the subject's cube) in a grid
over its two longest axes. A tile's frame has its innermost cube over the tile and its outer ones over all the rest, so
that one model can explain whatever a ray meets. All frames have one scale, and the faces of all tiles lie between
cells, of every level of every tile's occupancy grid: clipping cells to boxes then gives each place to one tile alone,
without a gap and without an overlap.

``spans`` are the two distances along a ray (scene units) at which it enters and leaves a box.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nerfkit.config import tile_counts
from nerfkit.poses import SceneError
from nerfkit.scene.scene import Box, Frame, Scene
from nerfkit.types import Rays

MARGIN = 0.125
"""Of the region of tiles about the cameras, as a share of their longest extent: what is near is worth a tile, too."""
LEAST = 0.01
"""Share of a picture whose rays cross a tile from which on it is used to learn that tile."""
_BLOCK = 8
"""Pixels along one side of a block that is asked as a whole whether its rays cross a box, through its middle."""


@dataclass(frozen=True)
class Tiling:
    """Tiles of one scene."""

    box: Box
    """All of the tiles together."""
    boxes: tuple[Box, ...]
    """What each tile shows: disjoint. A place of ``box`` that too few cameras see belongs to none."""
    frames: tuple[Frame, ...]
    """Where the unit cube of each tile's model lies."""

    def __len__(self) -> int:
        return len(self.boxes)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for ``tiles.json``."""
        tiles = [{"box": box, "frame": f.to_dict()} for box, f in zip(self.boxes, self.frames, strict=True)]
        return {"box": self.box, "tiles": tiles}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Tiling:
        """The inverse of `to_dict`. Raises SceneError where it is not such data."""
        try:
            boxes = tuple(tuple(tile["box"]) for tile in data["tiles"])
            return cls(tuple(data["box"]), boxes, tuple(Frame.from_dict(tile["frame"]) for tile in data["tiles"]))
        except (KeyError, TypeError) as error:
            raise SceneError(f"tiles: expected a box and tiles with their boxes and frames ({error!r})") from None


def spans(rays: Rays, box: Box) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Where rays (scene coordinates) enter a box, 0 from inside, and where they leave it: before that if they miss."""
    inverse = 1.0 / torch.where(rays.rays_d.abs() < 1e-9, 1e-9, rays.rays_d)
    a, b = ((rays.rays_o.new_tensor(corner) - rays.rays_o) * inverse for corner in (box[:3], box[3:]))
    return torch.minimum(a, b).amax(1).clamp(min=0.0), torch.maximum(a, b).amin(1)


def gaps(points: Float[Tensor, "n 3"], boxes: tuple[Box, ...]) -> Float[Tensor, "n n_boxes"]:
    """Distances of points to boxes, scene units; 0 inside."""
    sides = points.new_tensor(boxes)
    outside = torch.maximum(sides[:, :3] - points[:, None], points[:, None] - sides[:, 3:]).clamp(min=0.0)
    return torch.linalg.vector_norm(outside, dim=2)


def divide(scene: Scene, tiles: str, resolution: int) -> Tiling:
    """Tiles of a scene, in a grid over the two axes along which its training cameras stand farthest apart.

    Args:
        scene: what was photographed.
        tiles: ``train.tiles``: how many along each of these axes, the longest first; one number is divided between
            them so that the tiles are as nearly square as it allows.
        resolution: of the occupancy grids.

    Raises SceneError for a scene without surroundings, for more tiles than grids of this resolution can nest, and
    where no tile is seen.
    """
    if scene.frame.n_levels == 1:
        raise SceneError(f"{scene.root}: is an object alone in its box, which one model holds; leave out --tiles")
    low, high, axes = _region(scene)
    sides = high - low
    counts = tile_counts(tiles)
    if len(counts) == 1:
        pairs = [(n, counts[0] // n) for n in range(1, counts[0] + 1) if counts[0] % n == 0]
        counts = min(pairs, key=lambda pair: max(sides[axes[0]] / pair[0], sides[axes[1]] / pair[1]))
    for axis, count in zip(axes, counts, strict=False):
        sides[axis] /= count
    inner = max(sides[axes[0]], sides[axes[1]])
    sides[axes[2]] = max(sides[axes[2]], inner)
    n_levels = max(2, 1 + math.ceil(math.log2(1.0 / scene.frame.scale / inner) - 1e-6))
    if resolution % 2**n_levels:
        raise SceneError(
            f"{scene.root}: for tiles as small as those of --tiles {tiles} cells would have to nest {n_levels} times, "
            f"which --sampler.resolution {resolution} does not allow; take fewer tiles"
        )
    whole = inner * 2 ** (n_levels - 1)
    coarsest = 2 * whole / resolution
    sides = np.minimum(np.ceil(sides / coarsest - 1e-3) * coarsest, whole)
    boxes, frames = [], []
    for place in itertools.product(*map(range, counts)):
        center = (low + high) / 2
        for axis, number, count in zip(axes, place, counts, strict=False):
            center[axis] += (number - (count - 1) / 2) * sides[axis]
        boxes.append((*(center - sides / 2).tolist(), *(center + sides / 2).tolist()))
        cube = (*(center - whole / 2).tolist(), *(center + whole / 2).tolist())
        planes = scene.frame.near_plane, scene.frame.far_plane
        frames.append(Frame(tuple(center.tolist()), 1.0 / whole, cube, *planes, n_levels))
    return _seen(scene, boxes, frames)


def _region(scene: Scene) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Corners of what is divided, and the axes by how far the cameras are apart along them."""
    frame, views = scene.frame, scene.splits["train"]
    positions = scene.cameras.c2w[views][:, :, 3].double().cpu().numpy()
    low, high = positions.min(0), positions.max(0)
    axes = np.argsort(low - high, kind="stable").tolist()
    half = 0.5 ** (frame.n_levels - 1) / frame.scale / 2
    beside = np.abs(positions - frame.center).max(1)
    if np.median(beside) > half or not (high - low).any():  # they stand round what they look at, or all in one place
        return np.array(frame.center) - half, np.array(frame.center) + half, axes
    margin = MARGIN * (high - low).max()
    return low - margin, high + margin, axes


def _seen(scene: Scene, boxes: list[Box], frames: list[Frame]) -> Tiling:
    """The tiles that at least two views see: one alone tells no depth."""
    corners = np.array(boxes)
    union = (*corners[:, :3].min(0).tolist(), *corners[:, 3:].max(0).tolist())
    views = scene.splits["train"]
    kept = [i for i, box in enumerate(boxes) if sum(_crosses(scene, v, box).mean() >= LEAST for v in views) >= 2]
    if not kept:
        raise SceneError(f"{scene.root}: no tile is seen by two of its training cameras; leave out --tiles")
    return Tiling(union, tuple(boxes[i] for i in kept), tuple(frames[i] for i in kept))


def _crosses(scene: Scene, view: int, box: Box) -> Bool[np.ndarray, "rows columns"]:
    """Whether the rays of a picture's blocks cross a box."""
    height, width = scene.images[view].shape[:2]
    y, x = (torch.arange(_BLOCK / 2, size + _BLOCK / 2, _BLOCK).clamp(max=size - 0.5) for size in (height, width))
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
    xy = grid.view(-1, 2)
    enter, leave = spans(scene.cameras.rays(torch.full((len(xy),), view), xy), box)
    return (enter < leave).view(grid.shape[:2]).cpu().numpy()


def part_of(scene: Scene, tiling: Tiling, number: int) -> Scene:
    """A scene as one of its tiles (counted from 0) learns it: its frame, the views that help, and of them the pixels.

    Of use are pixels whose rays cross the tile's box, and all of the cameras that it is nearest to: to those outside of
    all tiles it also shows what lies before these and beside them. Views with fewer than `LEAST` of them are left out.
    """
    positions = scene.cameras.c2w[:, :, 3]
    home = gaps(positions, tiling.boxes).argmin(1).tolist()
    views, masks = [], [np.broadcast_to(np.True_, image.shape[:2]) for image in scene.images]
    for view in scene.splits["train"]:
        if home[view] != number:
            used = _crosses(scene, view, tiling.boxes[number])
            if used.mean() < LEAST:
                continue
            height, width = scene.images[view].shape[:2]
            masks[view] = used.repeat(_BLOCK, 0).repeat(_BLOCK, 1)[:height, :width]
        if scene.masks is not None:
            masks[view] = masks[view] & scene.masks[view]
        views.append(view)
    splits = {**scene.splits, "train": views}
    return dataclasses.replace(scene, frame=tiling.frames[number], splits=splits, masks=masks)
