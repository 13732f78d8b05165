"""What carries a message in a scene: a small step of each of many table entries, up or down by the key.

Entries of the two levels whose cells are about as wide as a fiftieth of a picture show as a faint, smooth pattern on
surfaces, a few pixels wide, that every view, size and copy of the scene has. Each entry carries one bit of the word:

    entry_e = original_e + strength * coin_e * word[bit_e] * step_e

with the coin and the bit drawn from the key. Its step points where luminance rises and density, to first order, stays,
and is as long as lifts luminance by one on the pixels that see the entry, so that the strength is in units of
luminance.

A picture answers by the gradient of one number. With r = picture - what the unmarked scene would show, the pattern of
entry e agrees with the picture by <r, dI/d entry_e . step_e> = (d <r, I> / d entry_e) . step_e: one backward pass
through the renderer, upstream gradient r, is the matched filter for all carriers at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerfkit.cameras import Cameras
from nerfkit.kernels.contraction import contract
from nerfkit.kernels.launch import hand_back_memory, parallel
from nerfkit.kernels.march import sample_positions
from nerfkit.render import Model, render_in_stages, render_rays
from nerfkit.stego.keys import Secret, StegoError
from nerfkit.types import Rays

LUMA = (0.299, 0.587, 0.114)
"""Weights of the carriers' colour: what JPEG keeps best."""
_WIDTH = 1 / 48
"""Of a carrier, as a share of a picture's width: at 256 pixels as wide as what survives JPEG, at 800 still fine."""
_N_LEVELS = 2
_LEAST_SEEN = 0.5
"""Rays of the calibration that see an entry, at least, together."""
_VIEWS, _SIDE = 32, 128
"""Views and pixels across, of which the calibration looks at these at most."""
_FEW = 2048
"""Rays of the calibration that are looked at together: stage by stage, all samples before a surface are held."""
ROOM = 1 << 17
"""Samples of the rays that are heard together; always room for as many, as memory of each size is kept."""
_TOGETHER = 8
"""Parts of rays whose gradients are held before they are added up."""


@dataclass(frozen=True)
class Carriers:
    """Entries that carry, ordered along a curve through space, and their steps."""

    entries: Int[Tensor, " n"]
    steps: Float[Tensor, "n features"]

    def bits_and_coins(self, secret: Secret, n_bits: int) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
        """The bit of each carrier and its sign. Among neighbours each bit has as many carriers as any other."""
        n = len(self.entries)
        n_groups = -(-n // n_bits)
        keys = secret.draw("bits of the carriers", 8 * n_groups * n_bits).view(np.uint64).reshape(n_groups, n_bits)
        bits = torch.from_numpy(np.argsort(keys, 1, kind="stable").reshape(-1)[:n].copy())
        coins = torch.from_numpy(2.0 * secret.bits("coins of the carriers", n) - 1.0).float()
        return bits.to(self.entries.device), coins.to(self.entries.device)

    def moves(self, secret: Secret, word: Float[np.ndarray, " n_bits"]) -> Float[Tensor, "n features"]:
        """What a word adds to the entries at a strength of one."""
        bits, coins = self.bits_and_coins(secret, len(word))
        signs = torch.from_numpy(word).float().to(bits.device)[bits] * coins
        return self.steps * signs[:, None]

    def answer(self, gradient: Float[Tensor, "entries features"]) -> Float[Tensor, " n"]:
        """How well each carrier's pattern, coin up, agrees: of the table's gradient of <r, I>."""
        return (gradient[self.entries] * self.steps).sum(1)


def in_parts(counts: Int[Tensor, " n"]) -> Sequence[Int[Tensor, " part"]]:
    """Numbers of rays that reach ``counts`` samples, in parts of half of `ROOM`; the last ray of one may go beyond."""
    number = (counts.long() + 1).cumsum(0) // (ROOM // 2)
    sizes = number.unique_consecutive(return_counts=True)[1].tolist()
    return torch.arange(len(counts), device=counts.device).split(sizes)


def gradient_of(
    model: Model, rays: Rays, upstream: Float[Tensor, "n 3"], counts: Int[Tensor, " n"]
) -> Float[Tensor, "entries features"]:
    """The table's gradient of <upstream, colours of the rays> (model coordinates), which reach ``counts`` samples."""
    field, table, parts = model.field, model.field.table, in_parts(counts)

    def hear(part: Int[Tensor, " part"]) -> Tensor | None:
        zero, half = torch.zeros(len(part), 3, device=model.device), torch.full((len(part),), 0.5, device=model.device)
        seen = render_rays(field, model.sampler, rays[part], zero, half, capacity=ROOM)
        return torch.autograd.grad((seen.rgb * upstream[part]).sum(), [table], allow_unused=True)[0]

    total = table.grad = torch.zeros_like(table)  # each backward pass adds to it, but that of tiny-cuda-nn
    for first in range(0, len(parts), _TOGETHER):
        for returned in parallel(hear, parts[first : first + _TOGETHER], model.device):
            if returned is not None:
                total += returned
        field.grid.collect(table)
    table.grad = None
    return total


def calibrate(model: Model, cameras: Cameras, views: list[int]) -> Carriers:
    """The carriers of a model, as rays of its training views see it. Raises StegoError where it has no room for any."""
    field, layout = model.field, model.field.grid.layout
    if layout.n_features < 2:
        raise StegoError("entries of one feature cannot change their colour alone; train with field.n_features 2 or 4")
    bright, dense = torch.zeros_like(field.table), torch.zeros_like(field.table)
    n_tables = -(-4 // layout.n_features)
    seen = [torch.zeros_like(field.table) for _ in range(n_tables)]
    nearness = reach = 0.0
    for view in views[:: -(-len(views) // _VIEWS)]:
        stride = -(-int(cameras.width[view]) // _SIDE)
        pixels = cameras.pixel_grid(view)[stride // 2 :: stride, stride // 2 :: stride].reshape(-1, 2)
        rays = model.frame.model_rays(cameras.rays(torch.full((len(pixels),), view), pixels)).to(model.device)
        across = float(cameras.fl_x[view]) / int(cameras.width[view])
        for part in torch.arange(len(rays), device=model.device).split(_FEW):
            weight, near = _look(model, rays[part], bright, dense, seen)
            nearness, reach = nearness + near * across, reach + weight
            hand_back_memory()  # parts are never of one size, so that what is kept of them breaks into pieces
    widths = [nearness / max(reach, 1e-9) / scale for scale in layout.scales]
    first = min(range(layout.n_levels - _N_LEVELS + 1), key=lambda i: abs(math.log(widths[i] / _WIDTH)))
    among = slice(layout.offsets[first], layout.offsets[first + _N_LEVELS])
    watched = torch.cat([table[among] for table in seen], 1)[:, :4]
    return _chosen(bright[among], dense[among], watched, layout.offsets[first])


def _look(model: Model, rays: Rays, bright: Tensor, dense: Tensor, seen: list[Tensor]) -> tuple[float, float]:
    """Add what rays tell of the entries: gradients of luminance and of log densities, and who sees them, where.

    The latter are four columns, weights and these times places, of one table after the other.

    Returns the rays' opacities, summed, and the same over the distances.
    """
    table, n = model.field.table, len(rays)
    zero, half = torch.zeros(n, 3, device=model.device), torch.full((n,), 0.5, device=model.device)
    staged = render_in_stages(model.field, model.sampler, rays, zero, half)
    luma = torch.tensor(LUMA, device=model.device)
    weights = staged.weights.detach()
    table.grad = bright  # a backward pass adds to it
    (staged.rgb[:, :3] @ luma).sum().backward(retain_graph=True)
    table.grad = dense
    (weights * staged.sigmas[staged.rows[: len(weights)]].clamp_min(1e-6).log()).sum().backward()
    table.grad = None
    places = sample_positions(rays, staged.reached)[: len(weights)]
    _gather(model, places, torch.cat([weights[:, None], weights[:, None] * places], 1), seen)
    t = staged.t_sum.detach() / staged.opacity.detach().clamp_min(1e-6)
    opaque = staged.opacity.detach()
    return float(opaque.sum()), float((opaque / t.clamp_min(1e-6))[opaque > 0.5].sum())


def _gather(model: Model, places: Float[Tensor, "n 3"], values: Float[Tensor, "n 4"], sums: list[Tensor]) -> None:
    """Add values at places to the entries of tables, by the weights with which these are blended there."""
    grid, holder = model.field.grid, torch.empty_like(model.field.table)
    n_levels, n_features = grid.layout.n_levels, grid.layout.n_features
    for some, table in zip(values.split(n_features, 1), sums, strict=True):
        spread = torch.zeros(len(places), n_levels, n_features, device=places.device)
        spread[..., : some.shape[1]] = some[:, None]
        holder.grad = table
        grid.backward(contract(places, grid.half), spread.flatten(1), holder)


def _chosen(bright: Tensor, dense: Tensor, seen: Tensor, first: int) -> Carriers:
    """Carriers among the entries from number ``first`` on, by what `_look` found of them."""
    along = dense / dense.norm(dim=1, keepdim=True).clamp_min(1e-12)
    free = bright - (bright * along).sum(1, keepdim=True) * along
    direction = free / free.norm(dim=1, keepdim=True).clamp_min(1e-12)
    watched = seen[:, 0]
    response = (bright * direction).sum(1) / watched.clamp_min(1e-6)
    usable = (watched > _LEAST_SEEN) & (response > 0)
    if int(usable.sum()) < 1024:
        raise StegoError(
            f"only {int(usable.sum())} entries of the scene can carry; a message needs a thousand at least"
        )
    # An entry that hardly moves what is seen would have to go far, and change what other views see.
    floor = response[usable].median() / 3
    steps = direction / response.clamp_min(float(floor))[:, None]
    entries = usable.nonzero()[:, 0]
    places = seen[entries, 1:] / watched[entries, None]
    order = _along_curve(places)
    return Carriers(entries[order] + first, steps[entries][order])


def _along_curve(places: Float[Tensor, "n 3"]) -> Int[Tensor, " n"]:
    """The order of places in the unit cube along Morton's curve: neighbours there are neighbours in space."""
    cells = (places.clamp(0, 1) * 1023).long()
    code = torch.zeros(len(places), dtype=torch.long, device=places.device)
    for bit in range(10):
        for axis in range(3):
            code |= ((cells[:, axis] >> bit) & 1) << (3 * bit + axis)
    return code.argsort(stable=True)
