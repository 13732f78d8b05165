"""Marching and compositing by nerfacc (Li et al. 2023), whose kernels its own build compiles, beside `march` and
`composite`.

Its grids are ours: nested boxes, each twice as wide as the one in it. Its rays step on a lattice that begins at their
near plane, which is therefore laid where a ray of ours begins. A step there belongs to the innermost box around it,
however long it is, and grows without bound; so far from the cameras the two may differ.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nerfkit.kernels.cells import Cells
from nerfkit.types import Rays, Samples


@lru_cache
def load() -> Any:
    """The module ``nerfacc``, without Python's remarks on its text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import nerfacc
    return nerfacc


def march(cells: Cells, rays: Rays, jitter: Float[Tensor, " n_rays"]) -> Samples:
    """`march.march` by nerfacc: steps of rays (model coordinates) in occupied cells. Not differentiable."""
    stepping, device = cells.stepping, rays.rays_o.device
    sides = 0.5 ** torch.arange(stepping.n_levels - 1, -1, -1, device=device)
    aabbs = torch.cat([(0.5 - 0.5 * sides)[:, None].expand(-1, 3), (0.5 + 0.5 * sides)[:, None].expand(-1, 3)], 1)
    d = torch.where(rays.rays_d.abs() < 1e-9, 1e-9, rays.rays_d)
    enter = torch.minimum(-rays.rays_o / d, (1 - rays.rays_o) / d).amax(1).clamp(min=stepping.near_plane)
    step = (enter * stepping.cone_angle).clamp(stepping.min_step, stepping.max_step)
    intervals, samples, _ = load().traverse_grids(
        rays.rays_o,
        rays.rays_d,
        cells.occupied,
        aabbs,
        near_planes=enter + jitter * step,
        far_planes=torch.full_like(enter, stepping.far_plane),
        step_size=stepping.min_step,
        cone_angle=stepping.cone_angle,
        traverse_steps_limit=stepping.max_samples,
    )
    t_starts, t_ends = intervals.vals[intervals.is_left], intervals.vals[intervals.is_right]
    return Samples(samples.packed_info.int(), samples.ray_indices.int(), t_starts, t_ends, len(t_starts))


def composite(
    sigmas: Float[Tensor, " n_samples"],
    rgbs: Float[Tensor, "n_samples 3"],
    samples: Samples,
    background: Float[Tensor, "n_rays 3"],
    reach: float = 0.0,
) -> tuple[Float[Tensor, "n_rays 3"], Float[Tensor, " n_rays"], Float[Tensor, " n_rays"], Float[Tensor, " n_samples"]]:
    """`composite.composite` by nerfacc: colour, opacity, sum of weights * t, and the weights."""
    n, n_rays = samples.n_owned, len(samples.packed_info)
    t_starts, t_ends, owners = samples.t_starts[:n], samples.t_ends[:n], samples.ray_indices[:n].long()
    share = (t_ends / max(reach, 1e-9)).clamp(max=1.0).square()
    near_sigmas = share * sigmas[:n] + (1.0 - share) * sigmas[:n].detach()
    near_rgbs = share[:, None] * rgbs[:n] + (1.0 - share)[:, None] * rgbs[:n].detach()
    info = samples.packed_info.long()
    weights, _, _ = load().render_weight_from_density(t_starts, t_ends, near_sigmas, packed_info=info)
    middles = 0.5 * (t_starts + t_ends)[:, None]
    sums = [
        load().accumulate_along_rays(weights, values=values, ray_indices=owners, n_rays=n_rays)
        for values in (near_rgbs, None, middles)
    ]
    opacity = sums[1][:, 0]
    rgb = sums[0] + (1.0 - opacity)[:, None] * background
    return rgb, opacity, sums[2][:, 0], torch.cat([weights, weights.new_zeros(len(sigmas) - n)])
