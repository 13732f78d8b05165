"""Step functions along rays, on the packed layout: weights of intervals, new intervals where they are large, bounds.

Letters: an interval j of a ray has a weight w_j, of which c_j is the sum up to there, on that ray; another set of
intervals i has weights v_i. Intervals of a ray ascend and do not overlap, but there may be gaps between them.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerfkit.kernels.march import packed
from nerfkit.types import Samples

_EPS = 1e-5


def weights_of(sigmas: Float[Tensor, " n_samples"], samples: Samples) -> Float[Tensor, " n_samples"]:
    """Weights w = T (1 - exp(-sigma length)), T = exp(-sum of the earlier sigma length); 0 in rows that no ray owns.

    Differentiable in the densities.
    """
    thickness = sigmas * (samples.t_ends - samples.t_starts)
    w = torch.exp(-_earlier(thickness, samples)) * -torch.expm1(-thickness)
    return w * (torch.arange(len(w), device=w.device) < samples.n_owned)


def opacities(weights: Float[Tensor, " n_samples"], samples: Samples) -> Float[Tensor, " n_rays"]:
    """The sum of each ray's weights. Differentiable in them."""
    sums = weights.new_zeros(len(samples.packed_info))
    return sums.index_add(0, samples.ray_indices[: samples.n_owned].long(), weights[: samples.n_owned])


def resample(
    samples: Samples, weights: Float[Tensor, " n_samples"], counts: Int[Tensor, " n_rays"], jitter: Tensor
) -> Samples:
    """Intervals of equal weight: ``counts`` of each ray, between them all that its old ones cover.

    With the weights scaled to sum 1, the borders lie where c = (k + jitter - 1/2) / count, for k = 1 ... count - 1, and
    at both ends. An interval ends, at the latest, where a gap begins. Weights are positive; ``jitter`` (n_rays,) is in
    [0, 1). Rays without an interval get none. Not differentiable.
    """
    n, device = samples.n_owned, weights.device
    start, end, ray = samples.t_starts[:n], samples.t_ends[:n], samples.ray_indices[:n].long()
    counts = torch.where(samples.packed_info[:, 1] > 0, counts.int(), 0)
    if n == 0:
        empty = torch.empty(0, device=device)
        return Samples(torch.stack([counts, counts], 1) * 0, samples.ray_indices[:0], empty, empty, 0)
    w = weights[:n].double()
    w = w / opacities(w, samples)[ray]
    c = w.cumsum(
        0
    )  # of all rays, one after the other: ray r's go from its number among those that have any to the next
    number = (samples.packed_info[:, 1] > 0).long().cumsum(0) - 1
    owner = torch.repeat_interleave(counts.long() + (counts > 0))
    first = (counts.long() + (counts > 0)).cumsum(0) - (counts.long() + (counts > 0))
    k, count = torch.arange(len(owner), device=device) - first[owner], counts[owner]
    u = (k + jitter[owner].double() - 0.5) / count
    u = torch.where(k == 0, 0.0, torch.where(k == count, 1.0, u))
    begins, lasts = samples.packed_info[:, 0].long(), samples.packed_info.sum(1).long() - 1
    j = torch.searchsorted(c, number[owner] + u).clamp(begins[owner], lasts[owner])
    share = ((number[owner] + u - c[j] + w[j]) / w[j]).clamp(0.0, 1.0)
    borders = start[j] + share.float() * (end[j] - start[j])
    is_last = k == count
    t_starts, inside = borders[~is_last], j[~is_last]
    t_ends = torch.minimum(borders.roll(-1)[~is_last], _run_ends(start, end, ray)[inside])
    packed_info, total, padded = packed(counts)
    rows = [t_starts, torch.maximum(t_starts, t_ends), owner[~is_last].int()]
    t_starts, t_ends, owners = (torch.cat([row, row.new_zeros(padded - total)]) for row in rows)
    return Samples(packed_info, owners, t_starts, t_ends, total)


def interlevel(
    proposed: Float[Tensor, " n_coarse"], coarse: Samples, weights: Float[Tensor, " n_fine"], fine: Samples
) -> Float[Tensor, ""]:
    """How much weight a proposal lacks, a mean over rays (Barron et al. 2022, equation 13):

        sum_i max(0, v_i - b_i)^2 / (v_i + eps),   b_i = sum of w_j over the intervals j that overlap i,

    with w the ``proposed`` weights and v those that were found. Differentiable in the former.
    """
    n, m = coarse.n_owned, fine.n_owned
    span = 1.0 + max((float(ends.amax()) for ends in (coarse.t_ends, fine.t_ends) if len(ends)), default=0.0)
    c = torch.nn.functional.pad(proposed[:n].double().cumsum(0), (1, 0))
    starts, ends = (coarse.ray_indices[:n] * span + t[:n].double() for t in (coarse.t_starts, coarse.t_ends))
    begin, finish = (fine.ray_indices[:m] * span + t[:m].double() for t in (fine.t_starts, fine.t_ends))
    bound = c[torch.searchsorted(starts, finish)] - c[torch.searchsorted(ends, begin, right=True)]
    v = weights[:m].double()
    return ((v - bound).clamp(min=0.0) ** 2 / (v + _EPS)).sum().float() / max(len(fine.packed_info), 1)


def _earlier(values: Float[Tensor, " n_samples"], samples: Samples) -> Float[Tensor, " n_samples"]:
    """Sums over the samples before each one on its ray."""
    if not len(values):
        return values
    before = values.double().cumsum(0) - values.double()  # sums over all rays, of which differences are taken
    first = samples.packed_info[:, 0].long().clamp(max=max(len(values) - 1, 0))
    return (before - before[first][samples.ray_indices.long()]).to(values.dtype)


def _run_ends(start: Float[Tensor, " n"], end: Float[Tensor, " n"], ray: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Where the next gap after each interval begins, or its ray's last one ends."""
    broken = (ray[1:] != ray[:-1]) | (start[1:] - end[:-1] > 1e-5)
    run = torch.nn.functional.pad(broken.long().cumsum(0), (1, 0))
    return end[torch.nn.functional.pad(broken.nonzero()[:, 0], (0, 1), value=len(end) - 1)][run]
