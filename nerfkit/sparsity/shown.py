"""What shows of a model: samples that photographs' rays see, and the cells that those lie in.

A cell in which no such ray sees anything need not be written down, and what a network says elsewhere need not be kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nerfkit.kernels.cells import Cells
from nerfkit.kernels.launch import parallel
from nerfkit.render import Model, render_in_stages
from nerfkit.scene.scene import Scene
from nerfkit.train.pixels import Pixels
from nerfkit.types import Rays, Sampler

_N_RAYS = 1 << 20
"""Rays that look, at most, of all photographs together: a cell is seen by many."""
_CHUNK = 4096
_LEAST = 1e-3
"""Share of a ray's colour under which a sample does not show: no 8-bit pixel would be another."""


@dataclass(frozen=True)
class Seen:
    """Samples that show in pictures."""

    positions: Float[Tensor, "n 3"]
    """Model coordinates."""
    lengths: Float[Tensor, " n"]
    owners: Int[Tensor, " n"]
    """The rays that see them."""
    weights: Float[Tensor, " n"]
    """Their shares of the rays' colours."""


def shown_samples(model: Model, sampler: Sampler, rays: Rays) -> Seen:
    """The samples of rays (model coordinates) that are more than a thousandth of a colour."""
    n = len(rays)
    with torch.no_grad():
        zero, half = torch.zeros(n, 3, device=model.device), torch.full((n,), 0.5, device=model.device)
        staged = render_in_stages(model.field, sampler, rays, zero, half)
    samples, seen = staged.reached, staged.weights > _LEAST
    t0, t1 = samples.t_starts[: len(seen)][seen], samples.t_ends[: len(seen)][seen]
    owners = samples.ray_indices[: len(seen)][seen].long()
    middles = rays.rays_o[owners] + ((t0 + t1) / 2)[:, None] * rays.rays_d[owners]
    return Seen(middles, t1 - t0, owners, staged.weights[seen])


def shown_cells(model: Model, scene: Scene) -> Cells:
    """The cells of a model in which rays of the training views see something, and those beside them that it has."""
    pixels, cells = Pixels(scene, model.device), model.sampler.cells()
    generator = torch.Generator().manual_seed(0)
    few = len(pixels) <= _N_RAYS
    picked = torch.arange(len(pixels)) if few else torch.randint(len(pixels), (_N_RAYS,), generator=generator)
    n_cells = cells.stepping.n_levels * cells.stepping.resolution**3
    size = cells.stepping.resolution

    def look(part: Tensor) -> Tensor:
        seen = shown_samples(model, cells, pixels.rays(part, model.frame))
        return cells.index(seen.positions, seen.lengths).unique()

    shown = torch.zeros(n_cells, dtype=torch.bool, device=model.device)
    for found in parallel(look, list(picked.split(_CHUNK)), model.device):
        shown[found] = True
    near = _grown(shown.view(-1, size, size, size))
    return Cells.of(near & cells.occupied, cells.stepping)


def _grown(cells: Bool[Tensor, "levels r r r"]) -> Bool[Tensor, "levels r r r"]:
    """With the 26 cells about each."""
    for axis in (1, 2, 3):
        n = cells.shape[axis]
        grown = cells.clone()
        grown.narrow(axis, 1, n - 1).logical_or_(cells.narrow(axis, 0, n - 1))
        grown.narrow(axis, 0, n - 1).logical_or_(cells.narrow(axis, 1, n - 1))
        cells = grown
    return cells
