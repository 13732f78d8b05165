"""What shows of a model: samples that photographs' rays see, and the cells that those lie in.

A cell in which no such ray sees anything need not be written down, and what a network says elsewhere need not be kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nerfkit.kernels.cells import Cells
from nerfkit.kernels.coder import Coder
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


def seen_of_cells(model: Model, scene: Scene) -> Float[Tensor, "levels r r r"]:
    """What rays of the training views see in each cell of a model: the sum of their samples' shares of a colour."""
    pixels, cells = Pixels(scene, model.device), model.sampler.cells()
    generator = torch.Generator().manual_seed(0)
    few = len(pixels) <= _N_RAYS
    picked = torch.arange(len(pixels)) if few else torch.randint(len(pixels), (_N_RAYS,), generator=generator)

    def look(part: Tensor) -> tuple[Tensor, Tensor]:
        seen = shown_samples(model, cells, pixels.rays(part, model.frame))
        found, which = cells.index(seen.positions, seen.lengths).unique(return_inverse=True)
        return found, torch.zeros(len(found), device=model.device).index_add_(0, which, seen.weights)

    size = cells.stepping.resolution
    total = torch.zeros(cells.stepping.n_levels * size**3, device=model.device)
    for found, weights in parallel(look, list(picked.split(_CHUNK)), model.device):
        total[found] += weights
    return total.view(-1, size, size, size)


def fewer_and_fewer(
    occupied: Bool[Tensor, "levels r r r"], seen: Float[Tensor, "levels r r r"]
) -> Iterator[Bool[Tensor, "levels r r r"]]:
    """Occupied cells in which training views see something, with three, two or one cells about each; then without those
    in which they see least, first a ten-thousandth of all that there is to see, at last a hundredth."""
    order = seen.reshape(-1).sort().values.double()
    below = order.cumsum(0) / order.sum().clamp(min=1e-30)
    for lost, n_about in ((0.0, 3), (0.0, 2), (0.0, 1), (1e-4, 1), (1e-3, 1), (1e-2, 1)):
        kept = (seen > 0) & (seen >= order[min(int((below <= lost).sum()), len(order) - 1)])
        for _ in range(n_about):
            kept = _grown(kept)
        yield kept & occupied


def cells_within(model: Model, scene: Scene, n_bytes: int) -> Cells:
    """Of a model's occupied cells those that can be written in so many bytes, or those that take the fewest.

    All of them, if possible: views from elsewhere see what no training view saw. Else those of `fewer_and_fewer`.
    """
    cells, tried = model.sampler.cells(), []
    size = len(Coder().write_cells(cells.occupied.cpu()))
    if size <= n_bytes:
        return Cells.of(cells.occupied, cells.stepping)
    for kept in fewer_and_fewer(cells.occupied, seen_of_cells(model, scene)):
        tried.append((len(Coder().write_cells(kept.cpu())), kept))
        if tried[-1][0] <= n_bytes:
            break
    return Cells.of(min(tried, key=lambda one: one[0])[1], cells.stepping)


def _grown(cells: Bool[Tensor, "levels r r r"]) -> Bool[Tensor, "levels r r r"]:
    """With the 26 cells about each."""
    for axis in (1, 2, 3):
        n = cells.shape[axis]
        grown = cells.clone()
        grown.narrow(axis, 1, n - 1).logical_or_(cells.narrow(axis, 0, n - 1))
        grown.narrow(axis, 0, n - 1).logical_or_(cells.narrow(axis, 1, n - 1))
        cells = grown
    return cells
