"""Point clouds: where the rays of the training views end, with the colour and the normal found there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from nerfkit.cameras import Cameras
from nerfkit.lattice import SOLID, ExportError, TrackFn, log_density, normals_of, untracked
from nerfkit.render import Model, render_image
from nerfkit.tiles import Tiles
from nerfkit.types import Rays

MOST_VIEWS = 64
"""Training views beyond these, evenly chosen, add nothing new."""
SPARE = 8
"""Pixels that are rendered for each point asked for: many see nothing, or what others have seen."""
LOOKS = 8
"""Places about a point at which the density is asked for."""


@dataclass(frozen=True)
class Points:
    """Points on surfaces, scene coordinates."""

    positions: Float[np.ndarray, "n 3"]
    normals: Float[np.ndarray, "n 3"]
    """Unit, outward: no more than 30 degrees beyond the edge as the camera sees it that saw the point."""
    colors: UInt8[np.ndarray, "n 3"]


def thin(positions: Float[np.ndarray, "n 3"], count: int) -> Int[np.ndarray, " m"]:
    """Indices of at most ``count`` points, spread evenly: one from each cube of a grid just fine enough.

    The side of the cubes is found by bisection; what they leave too many is dropped at random (with a fixed seed).
    """
    order = np.random.default_rng(0).permutation(len(positions))
    if len(positions) <= count:
        return np.sort(order)
    low = positions.min(0)
    extent = float((positions - low).max()) or 1.0

    def chosen(side: float) -> np.ndarray:
        cell = ((positions[order] - low) / side).astype(np.int64)
        _, first = np.unique((cell[:, 0] << 42) | (cell[:, 1] << 21) | cell[:, 2], return_index=True)
        return first

    # 2 ** 20 cubes along a side are what fits into the keys above.
    fine, coarse = extent / 2**20, extent * 2
    for _ in range(24):
        side = math.sqrt(fine * coarse)
        fine, coarse = (side, coarse) if len(chosen(side)) >= count else (fine, side)
        if coarse / fine < 1.01:
            break
    kept = chosen(fine)
    return np.sort(order[np.sort(kept)[:count]])


def _solid(model: Model, points: Float[Tensor, "n 3"], rays_d: Float[Tensor, "n 3"]) -> Tensor:
    """Whether there is something at points (model coordinates): at least a third of the light is absorbed nearby.

    Where a ray ends partly on an edge and partly on what lies behind, its expected distance is in the void between.
    """
    reach = 1.0 / model.sampler.cells().stepping.resolution
    offsets = (torch.arange(LOOKS, device=points.device) + 0.5) / LOOKS * 2 - 1
    around = points[:, None] + reach * offsets[:, None] * rays_d[:, None]
    thickness = log_density(model.field, around.view(-1, 3)).exp().view(-1, LOOKS).mean(1) * 2 * reach
    return 1 - torch.exp(-thickness) > 1 / 3


def _surface(model: Model | Tiles, rays: Rays, distance: Float[Tensor, " n"]) -> tuple[Tensor, Tensor]:
    """Whether there is something at the ends of rays (scene coordinates), and outward normals, zero where not."""
    solid, normals = torch.zeros(len(rays), dtype=torch.bool), torch.zeros(len(rays), 3)
    if isinstance(model, Tiles):
        owners = model.owners(rays, distance)
        for number in owners.unique().tolist():
            rows = owners == number
            solid[rows], normals[rows] = _surface(model.models[number], rays[rows], distance[rows])
        return solid, normals
    inside = model.frame.to_model(rays.rays_o + distance[:, None] * rays.rays_d).to(model.device)
    rays_d = rays.rays_d.to(model.device)
    found = _solid(model, inside, rays_d)
    normal = normals_of(model.field, inside[found], 0.5 / model.sampler.cells().stepping.resolution)
    toward = -rays_d[found]
    # At a grazing ray's end the normal may well point a little away; behind a sheet's middle it is the wrong one.
    normal = torch.where((normal * toward).sum(1, keepdim=True) < -0.5, -normal, normal)
    # Where the density is flat, the point faces its camera.
    normals[found.cpu()] = torch.where(normal.any(1, keepdim=True), normal, toward).cpu()
    return found.cpu(), normals


def gather_points(model: Model | Tiles, cameras: Cameras, count: int, track_fn: TrackFn = untracked) -> Points:
    """At most ``count`` points, from the pictures that ``cameras`` take of a model.

    A pixel becomes a point where its opacity exceeds `SOLID`: at the expected distance, in its colour without the
    background. The normal is the direction in which the density falls.

    Args:
        model: what is rendered.
        cameras: those trained on, scene coordinates.
        count: positive.
        track_fn: may show how far it is.

    Raises ExportError where no pixel shows anything.
    """
    views = cameras[torch.linspace(0, len(cameras) - 1, min(MOST_VIEWS, len(cameras))).round().long()]
    n_pixels = float((views.width * views.height).sum())
    views = views.scaled(min(1.0, math.sqrt(SPARE * count / n_pixels)))
    places, normals, colors = [], [], []
    for number in track_fn(range(len(views)), "views"):
        seen = render_image(model, views, number, "black")
        shown = (seen.opacity > SOLID).view(-1)
        pixels = views.pixel_grid(number).view(-1, 2)[shown]
        rays = views.rays(torch.full((len(pixels),), number), pixels)
        distance = seen.distance.view(-1)[shown]
        solid, normal = _surface(model, rays, distance)
        rgb = seen.rgb.view(-1, 3)[shown] / seen.opacity.view(-1)[shown, None]
        places.append((rays.rays_o + distance[:, None] * rays.rays_d)[solid])
        normals.append(normal[solid])
        colors.append((rgb[solid].clamp(0, 1) * 255).round().byte())
    positions = torch.cat(places).numpy()
    if not len(positions):
        raise ExportError(f"no surface found: no pixel of {len(views)} training views is opaque; train longer")
    kept = thin(positions, count)
    return Points(positions[kept], torch.cat(normals).numpy()[kept], torch.cat(colors).numpy()[kept])
