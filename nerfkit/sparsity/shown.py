"""Cells that show: those that no photograph's ray sees anything in need not be written down."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from nerfkit.kernels.cells import Cells
from nerfkit.kernels.launch import parallel
from nerfkit.render import Model, render_in_stages
from nerfkit.scene.scene import Scene
from nerfkit.train.pixels import Pixels

_N_RAYS = 1 << 20
"""Rays that look, at most, of all photographs together: a cell is seen by many."""
_CHUNK = 4096
_LEAST = 1e-3
"""Share of a ray's colour under which a sample does not show: no 8-bit pixel would be another."""


def shown_cells(model: Model, scene: Scene) -> Cells:
    """The cells of a model in which rays of the training views see something, and those beside them that it has."""
    pixels, cells = Pixels(scene, model.device), model.sampler.cells()
    generator = torch.Generator().manual_seed(0)
    few = len(pixels) <= _N_RAYS
    picked = torch.arange(len(pixels)) if few else torch.randint(len(pixels), (_N_RAYS,), generator=generator)
    n_cells = cells.stepping.n_levels * cells.stepping.resolution**3
    size = cells.stepping.resolution

    def look(part: Tensor) -> Tensor:
        rays = pixels.rays(part, model.frame)
        zero = torch.zeros(len(part), 3, device=model.device)
        with torch.no_grad():
            staged = render_in_stages(
                model.field, cells, rays, zero, torch.full((len(part),), 0.5, device=model.device)
            )
        seen = staged.weights > _LEAST
        samples = staged.reached
        t0, t1 = samples.t_starts[: len(seen)][seen], samples.t_ends[: len(seen)][seen]
        owner = samples.ray_indices[: len(seen)][seen].long()
        middle = rays.rays_o[owner] + ((t0 + t1) / 2)[:, None] * rays.rays_d[owner]
        return cells.index(middle, t1 - t0).unique()

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
