"""Samples of the same number and at like depths on neighbouring rays: what a convolution at each of them asks for.

All rays of a patch, or of a picture, are cut at the same distances. A ray's weights there are averaged with those of
the eight rays about it, and the average is cut into parts of equal weight. Neighbours average over almost the same
rays, so their k-th parts lie at almost the same depth; and where one of them sees past an edge and the other does not,
both have samples before it and behind it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from nerfkit.kernels.march import Stepping
from nerfkit.types import Rays, Samples

APRON = 1
"""Rays around one that its samples depend on, to each side."""

Weigh = Callable[[Float[Tensor, "n_rays n 3"], Float[Tensor, " n"]], Float[Tensor, "n_rays n"]]
"""Weights of intervals of rays, by their middles (model coordinates) and lengths; 0 where nothing may be."""


def lattice(stepping: Stepping, begin: float, end: float) -> Float[Tensor, " n"]:
    """The distances of the lattice from the near plane on at which rays may be cut, between two."""
    s, borders = stepping, [stepping.near_plane]
    if s.cone_angle == 0.0:  # all alike, so that the way there need not be gone
        borders[0] += max(int((begin - s.near_plane) / s.min_step), 0) * s.min_step
    while borders[-1] < min(end, s.far_plane):
        borders.append(borders[-1] + min(max(borders[-1] * s.cone_angle, s.min_step), s.max_step))
    first = max(sum(t <= begin for t in borders) - 1, 0)
    return torch.tensor(borders[first:] + borders[-1:] * (len(borders) - first < 2))


def span(rays: Rays) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Where rays enter and leave the unit cube; those that miss it leave before they enter."""
    faces = torch.stack([-rays.rays_o, 1.0 - rays.rays_o]) / torch.where(rays.rays_d == 0.0, 1e-12, rays.rays_d)
    return faces.amin(0).amax(1).clamp(min=0.0), faces.amax(0).amin(1)


def place_alike(
    rays: Rays, shape: tuple[int, int, int], jitter: Float[Tensor, " n_rays"], n: int, stepping: Stepping, weigh: Weigh
) -> Samples:
    """n intervals on each ray (model coordinates) of patches of ``shape`` (patches, height, width), row after row.

    ``jitter`` in [0, 1), alike within a patch, shifts the borders between intervals by as much of one. Not
    differentiable.
    """
    n_rays, device = len(rays), rays.rays_o.device
    enter, leave = span(rays)
    there = leave > enter
    bounds = (float(enter[there].amin()), float(leave[there].amax())) if there.any() else (0.0, 0.0)
    t = lattice(stepping, *bounds).to(device)
    middles = rays.rays_o[:, None] + ((t[1:] + t[:-1]) / 2)[:, None] * rays.rays_d[:, None]
    weights = smoothed(weigh(middles, t[1:] - t[:-1]), shape)
    c = F.pad(weights.double().cumsum(1), (1, 0))
    u = (torch.arange(n + 1, device=device) + jitter[:, None].double() - 0.5) / n
    u[:, 0], u[:, -1] = 1e-6, 1.0 - 1e-6  # where the weights begin and end
    u = u * c[:, -1:]
    j = torch.searchsorted(c[:, 1:].contiguous(), u).clamp(max=len(t) - 2)
    share = (u - c.gather(1, j)) / weights.double().gather(1, j).clamp(min=1e-12)
    borders = (t[j] + share.clamp(0.0, 1.0) * (t[j + 1] - t[j])).float()
    owners = torch.arange(n_rays, dtype=torch.int32, device=device)
    packed_info = torch.stack([owners * n, torch.full_like(owners, n)], 1)
    starts, ends = borders[:, :-1].flatten(), borders[:, 1:].flatten()
    return Samples(packed_info, owners.repeat_interleave(n), starts, ends, n_rays * n)


def smoothed(weights: Float[Tensor, "n_rays n"], shape: tuple[int, int, int]) -> Float[Tensor, "n_rays n"]:
    """Each ray's weights averaged with those of its neighbours; as if all were alike where no ray has any."""
    each = weights.view(*shape, -1).permute(0, 3, 1, 2)
    mean = F.avg_pool2d(F.pad(each, (1, 1, 1, 1), mode="replicate"), 3, 1).permute(0, 2, 3, 1).reshape(weights.shape)
    return torch.where(mean.sum(1, keepdim=True) > 0.0, mean, 1.0)
