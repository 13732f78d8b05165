"""The plain twins of `raycast`: the other twins in a row."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerfkit.kernels.raycast import Cells, Learned, Lesson, Target
from nerfkit.kernels.reference import (
    composite,
    encode,
    join_directions,
    keep_visible,
    march,
    sample_positions,
    spherical_harmonics,
)
from nerfkit.types import Rays


def cast(
    target: Target,
    cells: Cells,
    rays: Rays,
    jitter: Float[Tensor, " n_rays"],
    background: Float[Tensor, "n_rays 3"],
    early_stop: float,
    reach: float = 0.0,
) -> tuple[Float[Tensor, "n_rays 3"], Float[Tensor, " n_rays"], Float[Tensor, " n_rays"], Int[Tensor, "n_rays 2"]]:
    """Twin of `raycast.cast`: the other twins in a row, in float32, with room for all samples."""
    density, color = target.networks.density, target.networks.color
    shapes = [*zip(density[1:], density, strict=False), *zip(color[1:], color, strict=False)]
    flat = target.weights.split([n * m for n, m in shapes])
    matrices = [w.view(shape) for w, shape in zip(flat, shapes, strict=True)]

    def network(x: Tensor, weights: list[Tensor]) -> Tensor:
        for w in weights[:-1]:
            x = torch.relu(x @ w.T)
        return x @ weights[-1].T

    n = len(density) - 1
    samples = march(rays, jitter, cells.bits, cells.blocks, cells.stepping)
    g = network(encode(sample_positions(rays, samples), target.table, target.grid.layout), matrices[:n])
    sigmas = torch.exp(g[:, 0].clamp(max=15.0))
    kept, rows = keep_visible(samples, sigmas.detach(), early_stop)
    harmonics = spherical_harmonics(rays.rays_d, math.isqrt(color[0] - density[-1]))
    rgbs = torch.sigmoid(network(join_directions(g[rows.long()], harmonics, kept.ray_indices), matrices[n:]))
    rgb, opacity, t_sum, _ = composite(sigmas[rows.long()], rgbs, kept, background, reach)
    return rgb, opacity, t_sum, kept.packed_info


def learn(
    target: Target,
    cells: Cells,
    rays: Rays,
    jitter: Float[Tensor, " n_rays"],
    background: Float[Tensor, "n_rays 3"],
    lesson: Lesson,
) -> Learned:
    """Twin of `raycast.learn`: `cast`, the loss written out, and a backward pass through both."""
    rgb, _, _, packed_info = cast(target, cells, rays, jitter, background, lesson.early_stop, lesson.reach)
    e = (rgb - lesson.truth).abs()
    loss = lesson.factor * torch.where(e < lesson.delta, e * e / 2, lesson.delta * (e - lesson.delta / 2)).sum()
    g_weights, g_table = torch.autograd.grad(loss, (target.weights, target.table))
    target.table.grad = g_table if target.table.grad is None else target.table.grad + g_table
    return Learned(g_weights, rgb.detach(), int(packed_info[:, 1].sum()), loss.item(), (e * e).sum().item())
