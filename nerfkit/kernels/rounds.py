"""Pictures on CUDA: rays go on in rounds, and those that have become opaque, or left, are left out of the next.

The first samples of all rays come first, then twice as many of the rays that are still under way, and so on: little is
looked up behind surfaces, and each round is large enough for the device. What a round finds is laid behind what was
found before.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerfkit.kernels.march import march_on
from nerfkit.kernels.raycast import Target, Where
from nerfkit.kernels.stages import limits_of, look
from nerfkit.types import Rays, Samples

FIRST = 16
"""Samples of a ray in the first round, at most."""
ROWS = 1 << 23
"""Samples that are looked up at once, at most: some two gigabytes."""


@torch.no_grad()
def cast(
    target: Target,
    where: Where,
    rays: Rays,
    jitter: Float[Tensor, " n_rays"],
    background: Float[Tensor, "n_rays 3"],
    early_stop: float,
) -> tuple[Float[Tensor, "n_rays c"], Float[Tensor, " n_rays"], Float[Tensor, " n_rays"], Int[Tensor, "n_rays 2"]]:
    """`raycast.cast` without a gradient: what rays gather, opacity, sum of weights * t, (start, count) of samples.

    The host waits twice a round: for how many samples there are, and for which rays go on.
    """
    n, device = len(rays), background.device
    limits, black = limits_of(early_stop, n, device), torch.zeros_like(background)
    gathered = torch.zeros(n, target.networks.color[-1], device=device)
    t_sum, trans = torch.zeros(n, device=device), torch.ones(n, device=device)
    counts = torch.zeros(n, dtype=torch.int32, device=device)

    def see(offered: Samples, which: Tensor) -> Tensor:
        """Lay what some rays see behind what they saw; returns how many samples each of them reached."""
        before = trans[which]
        left = limits[which] + before.clamp(min=1e-30).log()
        seen = look(target, offered, rays[which], black[which], left, len(offered), learning=False)
        gathered.index_add_(0, which, before[:, None] * seen.gathered)
        t_sum.index_add_(0, which, before * seen.t_sum)
        counts.index_add_(0, which, seen.packed_info[:, 1].contiguous())
        trans.index_copy_(0, which, before * (1.0 - seen.opacity))
        return seen.packed_info[:, 1]

    alive, begins = torch.arange(n, device=device), None
    if isinstance(where, Samples):
        see(where, alive)
        alive = alive[:0]
    some, taken = FIRST, 0
    while len(alive) and taken < where.stepping.max_samples:
        most = min(some, where.stepping.max_samples - taken)
        stepping, going = replace(where.stepping, max_samples=most), []
        for part in torch.arange(len(alive), device=device).split(max(ROWS // most, 1)):
            which, begin = alive[part], None if begins is None else begins[part]
            offered, ends = march_on(rays[which], jitter[which], where.bits, where.blocks, stepping, begin)
            on = (see(offered, which) == most) & (trans[which] > early_stop)
            going.append((which[on], ends[on]))
        alive, begins = (torch.cat(column) for column in zip(*going, strict=True))
        some, taken = 2 * some, taken + most
    gathered[:, :3] += trans[:, None] * background
    return gathered, 1.0 - trans, t_sum, torch.stack([counts.cumsum(0, dtype=torch.int32) - counts, counts], 1)
