"""Many rays at once, one stage after the other over the samples of all: what `raycast` does, for CUDA.

March, encode, both networks, compositing, loss and the way back, each a few launches over rows of a fixed number. Which
of them rays own, only the device knows: no number comes back to the host, which can therefore send the next step while
this one is computed. Samples that rays are offered (all occupied steps) go through the density network alone; those
that are reached, before the ray is opaque, have a second set of rows, on which colours and all gradients are found.

Every kernel runs on a CPU too, where `raycast` is its rival and its twin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import no_type_check

import torch
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor

from nerfkit.kernels.cells import Cells
from nerfkit.kernels.contraction import contract
from nerfkit.kernels.launch import array, launch
from nerfkit.kernels.lesson import Judge, Learned, Lesson
from nerfkit.kernels.march import march_within, packed_within, sample_positions
from nerfkit.kernels.occupancy import observe
from nerfkit.kernels.products import network_by
from nerfkit.kernels.raycast import Target, Where
from nerfkit.kernels.reached import WORDS, adding_of, counting_of, join_of, listing_of, returning_of
from nerfkit.types import Met, Rays, Samples

OFFERED = 4
"""Room for samples that rays are offered, for each that they may reach."""


@dataclass(frozen=True)
class Pass:
    """What a forward pass made of rays, and what its way back needs of the reached samples."""

    gathered: Float[Tensor, "n_rays c"]
    opacity: Float[Tensor, " n_rays"]
    t_sum: Float[Tensor, " n_rays"]
    offered: Samples
    packed_info: Int[Tensor, "n_rays 2"]
    met: Float[Tensor, " n"]
    """Densities of the samples that were offered, 0 of those that were not reached; where that was asked for."""
    positions: Float[Tensor, "n_back 3"]
    encoded: Float[Tensor, "n_back width"]
    """Of all rows, where there is a way back, and else of none."""
    values: Float[Tensor, "n_rows 4"]
    """(t, length, density, weight)."""
    raw: Float[Tensor, "n_rows c"]
    """What the colour network says."""
    color_kept: list[Tensor]
    """What its way back wants."""


@wp.kernel(module="nerfkit.kernels.stages", grid_stride=False)
@no_type_check
def _judge(
    first: int,
    rgb: wp.array2d(dtype=float),
    truth: wp.array(dtype=wp.vec3f),
    delta: float,
    factor: float,
    g_rgb: wp.array2d(dtype=float),
    losses: wp.array(dtype=float),
):
    r = first + wp.tid()
    loss = float(0.0)
    for c in range(3):
        e = rgb[r, c] - truth[r][c]
        size = wp.abs(e)
        loss += wp.where(size < delta, 0.5 * e * e, delta * (size - 0.5 * delta))
        g_rgb[r, c] = factor * wp.clamp(e, -delta, delta)
    losses[r] = factor * loss


@dataclass(frozen=True)
class _Network:
    """One of a target's networks: its matrices, and what computes it."""

    weights: list[Tensor]
    by: ModuleType

    @classmethod
    def of(cls, flat: Tensor, sizes: tuple[int, ...], dtype: torch.dtype) -> _Network:
        """From all its numbers in one row."""
        shapes = [*zip(sizes[1:], sizes, strict=False)]
        each = flat.split([n * m for n, m in shapes])
        weights = [w.view(shape) for w, shape in zip(each, shapes, strict=True)]
        return cls(weights, network_by(sizes, dtype, flat.device))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Its outputs, and what `backward` wants."""
        return self.by.forward(x, self.weights)

    def backward(self, gradient: Tensor, kept: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Gradients of its inputs and its weights."""
        return self.by.backward(gradient, kept, self.weights, True)


def _networks(target: Target) -> tuple[_Network, _Network, torch.dtype]:
    """That of densities, that of colours, and their number format."""
    dtype, networks = getattr(torch, target.word), target.networks
    n_density = sum(a * b for a, b in zip(networks.density, networks.density[1:], strict=False))
    flat = target.weights.detach().split([n_density, networks.n_weights - n_density])
    density, color = (_Network.of(*pair, dtype) for pair in zip(flat, (networks.density, networks.color), strict=True))
    return density, color, dtype


def _n_owned(packed_info: Tensor) -> Int[Tensor, " one"]:
    """Rows that rays own, on the device; the first counts always, as rows that none owns take theirs from it."""
    return packed_info[:, 1].sum(dtype=torch.int32).clamp(min=1).view(1)


def limits_of(early_stop: float, n: int, device: torch.device) -> Float[Tensor, " n"]:
    """Optical thickness behind which n rays end that do so at a transmittance; at none below 0."""
    return torch.full((n,), -math.log(early_stop) if early_stop > 0.0 else math.inf, device=device)


def look(
    target: Target,
    offered: Samples,
    rays: Rays,
    background: Float[Tensor, "n_rays 3"],
    limits: Float[Tensor, " n_rays"],
    capacity: int,
    meeting: bool = False,
    learning: bool = True,
) -> Pass:
    """The forward pass: what rays gather of the samples that they are offered, up to their `limits_of` thickness.

    ``capacity`` is the room for those that all of them reach. Unless it is ``learning``, there is no way back.
    """
    density, color, dtype = _networks(target)
    n, device, word = len(rays), rays.rays_o.device, WORDS[target.word]
    positions = contract(sample_positions(rays, offered), target.grid.half)
    encoded = target.grid.forward(positions, target.rounded, dtype, _n_owned(offered.packed_info))
    features, _ = density.forward(encoded)
    counts = torch.empty(n, dtype=torch.int32, device=device)
    intervals = [features, offered.t_starts, offered.t_ends, offered.packed_info]
    launch(counting_of(word), n, [*intervals, limits, counts], device)
    packed_info = packed_within(counts, capacity)
    rows, owners = torch.zeros(2, capacity, dtype=torch.int32, device=device)
    values = torch.zeros(capacity, 4, device=device)
    met = torch.zeros(len(offered) if meeting else 0, device=device)
    opacity, t_sum = torch.empty(2, n, device=device)
    launch(listing_of(word), n, [*intervals, packed_info, rows, owners, array(values, wp.vec4f), met, opacity], device)
    n_geo, n_seen = target.networks.density[-1], target.networks.color[0]
    seen = features.new_empty(capacity, n_seen)
    toward = array(rays.rays_d, wp.vec3f)
    launch(join_of(word), capacity, [rows, owners, n_geo, n_seen - n_geo, features, toward, seen], device)
    raw, color_kept = color.forward(seen)
    gathered = torch.empty(n, target.networks.color[-1], device=device)
    inputs = [raw, array(values, wp.vec4f), packed_info, array(background, wp.vec3f)]
    launch(adding_of(word), n, [*inputs, opacity, gathered, t_sum], device)
    again = rows if learning else rows[:0]
    kept = positions.index_select(0, again), encoded.index_select(0, again), values, raw, color_kept
    return Pass(gathered, opacity, t_sum, offered, packed_info, met, *kept)


def _back(target: Target, background: Tensor, lesson: Lesson, done: Pass, g_gathered: Tensor) -> Tensor:
    """Gradient of the weights; that of the table goes to the grid."""
    density, color, dtype = _networks(target)
    g_raw, g_log_sigmas = torch.zeros_like(done.raw), torch.zeros_like(done.values[:, 0])
    inputs = [done.raw, array(done.values, wp.vec4f), done.packed_info, array(background, wp.vec3f), done.opacity]
    inputs += [g_gathered, max(lesson.reach, 1e-9), lesson.distortion, lesson.halfway, g_raw, g_log_sigmas]
    launch(returning_of(WORDS[target.word]), len(done.packed_info), inputs, done.raw.device)
    g_seen, g_color = color.backward(g_raw, done.color_kept)
    g_features = g_seen[:, : target.networks.density[-1]].contiguous()
    g_features[:, 0] = (g_features[:, 0].float() + g_log_sigmas).to(dtype)
    g_encoded, g_density = density.backward(g_features, density.by.keep(done.encoded, density.weights))
    target.grid.backward(done.positions, g_encoded, target.table, _n_owned(done.packed_info))
    return torch.cat([g.reshape(-1) for g in (*g_density, *g_color)])


@torch.no_grad()
def learn(
    target: Target,
    where: Where,
    rays: Rays,
    jitter: Float[Tensor, " n_rays"],
    background: Float[Tensor, "n_rays 3"],
    lesson: Lesson,
    meeting: bool = False,
    judge: Judge | None = None,
) -> Learned:
    """`raycast.learn`, stage by stage: a training step's share, forward, loss and backward.

    ``lesson.capacity`` is the room for samples that rays reach, and `OFFERED` times as many may be offered; rays end
    where either is used up. Number of samples and loss stay on the device. With ``meeting`` it also tells what rays
    met, in which every row counts as owned: those that no ray owns have no length.
    """
    noting = isinstance(where, Cells) and len(where.window) > 0
    offered, limits = where, limits_of(lesson.early_stop, len(rays), background.device)
    if isinstance(where, Cells):
        room = OFFERED * lesson.capacity
        offered = march_within(rays, jitter, where.bits, where.blocks, where.stepping, room)
    capacity = min(lesson.capacity, len(offered))
    done = look(target, offered, rays, background, limits, capacity, meeting or noting)
    if judge is None:
        g_gathered = torch.zeros_like(done.gathered)
        losses = torch.empty_like(done.opacity)
        inputs = [done.gathered, array(lesson.truth, wp.vec3f), lesson.delta, lesson.factor, g_gathered, losses]
        launch(_judge, len(rays), inputs, done.opacity.device)
        loss, rgb, g_more = losses.sum(), done.gathered[:, :3], ()
    else:
        with torch.enable_grad():
            verdict = judge(done.gathered)
        loss, rgb, g_gathered, g_more = verdict.loss, verdict.rgb, verdict.g_gathered.contiguous(), verdict.g_more
    g_weights = _back(target, background, lesson, done, g_gathered)
    if noting:
        levels = where.window.view(where.stepping.n_levels, -1)
        observe(sample_positions(rays, done.offered), done.offered, done.met, where.stepping.resolution, levels)
    met = Met(rays, done.offered, done.met, lesson.truth, background) if meeting else None
    has_room = done.packed_info[:, 0] < lesson.capacity
    if isinstance(where, Cells):
        has_room &= offered.packed_info[:, 0] < room
    n_samples = done.packed_info[:, 1].sum()
    return Learned(g_weights, rgb, done.opacity, n_samples, has_room.sum(), loss, met, g_more)
