"""The plain twins of `raycast`: the other twins in a row."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from nerfkit.kernels.contraction import contract
from nerfkit.kernels.lesson import Learned, Lesson
from nerfkit.kernels.raycast import Target, Where
from nerfkit.kernels.reference import (
    composite,
    encode,
    join_directions,
    keep_visible,
    march,
    sample_positions,
    spherical_harmonics,
)
from nerfkit.types import Rays, Samples


def _cast(
    target: Target, where: Where, rays: Rays, jitter: Tensor, background: Tensor, early_stop: float, reach: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Samples]:
    """Colour, opacity, sum of weights * t, the weights, and the samples that rays reached."""
    density, color = target.networks.density, target.networks.color
    shapes = [*zip(density[1:], density, strict=False), *zip(color[1:], color, strict=False)]
    flat = target.weights.split([n * m for n, m in shapes])
    matrices = [w.view(shape) for w, shape in zip(flat, shapes, strict=True)]

    def network(x: Tensor, weights: list[Tensor]) -> Tensor:
        for w in weights[:-1]:
            x = torch.relu(x @ w.T)
        return x @ weights[-1].T

    n = len(density) - 1
    listed = isinstance(where, Samples)
    samples = where if listed else march(rays, jitter, where.bits, where.blocks, where.stepping)
    places = contract(sample_positions(rays, samples), target.grid.half)
    g = network(encode(places, target.table, target.grid.layout), matrices[:n])
    sigmas = torch.exp(g[:, 0].clamp(max=15.0))
    kept, rows = keep_visible(samples, sigmas.detach(), early_stop)
    harmonics = spherical_harmonics(rays.rays_d, math.isqrt(color[0] - density[-1]))
    seen = network(join_directions(g[rows.long()], harmonics, kept.ray_indices), matrices[n:])
    rgbs = torch.cat([torch.sigmoid(seen[:, :3]), seen[:, 3:]], 1)
    background = F.pad(background, (0, color[-1] - 3))
    return *composite(sigmas[rows.long()], rgbs, kept, background, reach), kept


def cast(
    target: Target,
    where: Where,
    rays: Rays,
    jitter: Float[Tensor, " n_rays"],
    background: Float[Tensor, "n_rays 3"],
    early_stop: float,
    reach: float = 0.0,
) -> tuple[Float[Tensor, "n_rays c"], Float[Tensor, " n_rays"], Float[Tensor, " n_rays"], Int[Tensor, "n_rays 2"]]:
    """Twin of `raycast.cast`: the other twins in a row, in float32, with room for all samples."""
    *pixels, _, kept = _cast(target, where, rays, jitter, background, early_stop, reach)
    return *pixels, kept.packed_info


def distortion(weights: Float[Tensor, " n"], samples: Samples, halfway: float) -> Float[Tensor, ""]:
    """sum_ij w_i w_j |s_i - s_j| + 1/3 sum_i w_i^2 d_i of each ray, all pairs written out, summed over the rays.

    s = t / (t + halfway) of the middles, d = halfway / (t + halfway)^2 times the lengths.
    """
    total = weights.new_zeros(())
    for start, count in samples.packed_info.tolist():
        own = slice(start, start + count)
        w, t_starts, t_ends = weights[own], samples.t_starts[own], samples.t_ends[own]
        t = (t_starts + t_ends) / 2
        s, d = t / (t + halfway), halfway / (t + halfway) ** 2 * (t_ends - t_starts)
        total = total + (w[:, None] * w * (s[:, None] - s).abs()).sum() + (w * w * d).sum() / 3
    return total


def learn(
    target: Target,
    where: Where,
    rays: Rays,
    jitter: Float[Tensor, " n_rays"],
    background: Float[Tensor, "n_rays 3"],
    lesson: Lesson,
) -> Learned:
    """Twin of `raycast.learn`: `cast`, the losses written out, and a backward pass through all."""
    rgb, opacity, _, weights, kept = _cast(target, where, rays, jitter, background, lesson.early_stop, lesson.reach)
    e = (rgb[:, :3] - lesson.truth).abs()
    loss = lesson.factor * torch.where(e < lesson.delta, e * e / 2, lesson.delta * (e - lesson.delta / 2)).sum()
    spread = lesson.distortion * distortion(weights, kept, lesson.halfway)
    g_weights, g_table = torch.autograd.grad(loss + spread, (target.weights, target.table))
    target.table.grad = g_table if target.table.grad is None else target.table.grad + g_table
    return Learned(g_weights, rgb[:, :3].detach(), opacity.detach(), kept.n_owned, len(rays), loss.item())
