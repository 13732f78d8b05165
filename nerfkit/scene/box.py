"""Where the model's cube lies in a scene: from the file, the silhouettes, or the cameras, in that order."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nerfkit.cameras import Cameras
from nerfkit.paths import facing, focus
from nerfkit.scene.carve import OPAQUE, carve
from nerfkit.scene.listing import Hints
from nerfkit.scene.scene import Frame

SUBJECT = 0.75
"""Side of the cube that inward cameras look at, in units of their distance (instant-ngp's proportion)."""
OUTER = {"inward": 8.0, "forward": 4.0, "outward": 4.0}
"""Side of the whole, background included, in units of the subject's cube, by how the cameras face."""
MOST_OUTER = 16.0
"""The most that depths which the file states make of that: beyond, cells are too coarse for the subject's sake."""
CARVED = 64
FULL = 0.9
"""Share of a picture that an object on nothing does not fill."""
SEEN = 0.5
"""Share of the views that see the best seen cell, which must see a cell for it to be part of an object."""

Box = tuple[Float[Tensor, " 3"], Float[Tensor, " 3"]]


def hull_box(cameras: Cameras, alphas: Sequence[UInt8[Tensor, "_ _"]]) -> Box | None:
    """Bounds (lower and upper corner, scene coordinates) of the visual hull; None if there is no such object.

    Carved twice: in a cube that reaches to the cameras, then in the cube about what was found. Alpha that leaves most
    pictures nearly full does not outline an object but, say, the border of a lens.
    """
    if torch.stack([(alpha > OPAQUE).float().mean() for alpha in alphas]).median() > FULL:
        return None
    center, distance = focus(cameras)
    if facing(cameras) == "inward":
        distance = float(torch.linalg.vector_norm(cameras.c2w[:, :, 3] - center, dim=-1).max())
    lower, side = center - distance, 2 * distance
    box = None
    for _ in range(2):
        grid = carve(cameras, alphas, lower, side, CARVED, least_seen=SEEN, crop=True)
        if not grid.any():
            return None
        occupied, cell = grid.nonzero(), side / CARVED
        box = lower + occupied.min(0).values * cell, lower + (occupied.max(0).values + 1) * cell
        # One cell round it, in the second pass too: the hull is conservative, calibrations are not.
        middle, side = (box[0] + box[1]) / 2, float((box[1] - box[0]).max()) + 2 * cell
        lower = middle - side / 2
    return box[0] - cell, box[1] + cell


def _subject(cameras: Cameras, hints: Hints) -> tuple[Float[Tensor, " 3"], float, float]:
    """Centre and side of the cube that the cameras look at, and how many times larger the whole should be."""
    kind, (center, distance) = facing(cameras), focus(cameras)
    if kind == "forward":
        if hints.depths is not None:
            # Parallel axes leave the distance open: known depths give it, halfway between them in the pictures' terms.
            halfway = 2 / (1 / hints.depths[0] + 1 / hints.depths[1])
            axis = torch.nn.functional.normalize(cameras.c2w[:, :, 2].mean(0), dim=0)
            center, distance = center + (halfway - distance) * axis, halfway
        picture = torch.maximum(cameras.width / cameras.fl_x, cameras.height / cameras.fl_y)
        side = distance * float(picture.median())
    else:
        side = distance * (SUBJECT if kind == "inward" else 2.0)
    if hints.center is not None and hints.side is not None:
        center, side = torch.tensor(hints.center), hints.side
    outer = OUTER[kind]
    if hints.depths is not None and kind != "inward":
        outer = min(max(1.0, 2 * _reach(cameras, center, hints.depths[1]) / side), MOST_OUTER)
    return center, side, hints.aabb_scale or outer


def _reach(cameras: Cameras, center: Float[Tensor, " 3"], depth: float) -> float:
    """Half the side of the cube about a point that holds what the cameras' pictures show up to a depth."""
    width, height = cameras.width.float(), cameras.height.float()
    corners = [torch.stack([x * width, y * height], -1) for x in (0.0, 1.0) for y in (0.0, 1.0)]
    rays = cameras.rays(torch.arange(len(cameras)).repeat(4), torch.cat(corners))
    # Beside and behind a fisheye there is no depth in its sense: the depth then counts as a distance.
    ends = rays.rays_o + (depth / torch.where(rays.cos > 0.2, rays.cos, 1.0))[:, None] * rays.rays_d
    return float((torch.cat([ends, rays.rays_o]) - center).abs().max())


def choose_frame(
    cameras: Cameras, alphas: Sequence[UInt8[Tensor, "_ _"]] | None, hints: Hints, aabb_scale: float, bounded: bool
) -> tuple[Frame, list[str]]:
    """The frame of a scene, and what to tell the user about the choice.

    Args:
        cameras: the training cameras.
        alphas: their images' silhouettes, or None for a scene without alpha.
        hints: what the file says.
        aabb_scale: the user's word, side of the whole in units of the subject; 0 leaves it to the file or the cameras.
        bounded: there is nothing behind the subject (a plain background).
    """
    box, notes = None, []
    if hints.aabb is not None:
        box = torch.tensor(hints.aabb[:3]), torch.tensor(hints.aabb[3:])
    elif alphas is not None:
        box = hull_box(cameras, alphas)
        if box is None:
            notes.append("the silhouettes outline no object: the box is guessed from the cameras alone")
    if box is not None:
        center, side = (box[0] + box[1]) / 2, float((box[1] - box[0]).max())
        outer = aabb_scale or 1.0
    else:
        center, side, outer = _subject(cameras, hints)
        outer = aabb_scale or (1.0 if bounded else outer)
    half = side * outer / 2
    if box is None or outer != 1.0:
        box = center - half, center + half
    distance = torch.linalg.vector_norm(cameras.c2w[:, :, 3] - center, dim=-1)
    near_plane = 0.05 * (float(distance.median()) or half)
    if hints.depths is not None:
        near_plane = min(near_plane, 0.5 * hints.depths[0])
    frame = Frame(
        center=tuple(center.tolist()),
        scale=0.5 / half,
        aabb=(*box[0].tolist(), *box[1].tolist()),
        near_plane=near_plane,
        # Twice the reach of the photographs: someone will look from farther away.
        far_plane=2 * (float(distance.max()) + 3**0.5 * half),
        n_levels=1 + max(0, math.ceil(math.log2(outer) - 1e-6)),
    )
    outside = int((distance > 3**0.5 * half).sum())
    if bounded is False and outer > 1 and outside:
        notes.append(f"{outside} of {len(cameras)} cameras lie outside the box: a larger data.aabb_scale may help")
    if outer > 1 and hints.depths is not None and hints.depths[1] > float(distance.median()) + 3**0.5 * half:
        notes.append(f"pictures show depths up to {hints.depths[1]:.3g}, beyond the box: try a larger data.aabb_scale")
    return frame, notes
