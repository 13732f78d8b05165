"""Training on photographs whose cameras are off by a pixel: patches are laid where they fit before they are compared.

In the manner of AligNeRF (Jiang et al. 2023): of a rendered patch P and the patches G_d of the same size in a somewhat
larger window of the photograph, offset by whole pixels d, the loss is taken against the one with

    d* = arg min_d  (1 - SSIM(P, G_d)) / 2 + offset_weight |d| / r,    |d_x|, |d_y| <= r,

SSIM being that of the whole patch at once, and d* no function of what is learnt. What most patches of one photograph
want alike is no matter of the photograph but of its camera, which is turned by it; `Alignment` adds that up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

ROUNDS = (0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8)
"""Shares after which cameras are turned by what was found since."""
_C1, _C2 = 0.01**2, 0.03**2
"""What SSIM adds to means and variances so that flat patches are alike (Wang et al. 2004)."""


@dataclass(frozen=True)
class Matches:
    """Where patches fit."""

    offsets: Int[Tensor, "n 2"]
    """d* (x, y) in pixels: what the patch shows at x the photograph shows at x + d*."""
    finer: Float[Tensor, "n 2"]
    """The same between pixels, by a parabola through the distances; d* where it lies on the window's border."""
    sureness: Float[Tensor, "n 2"]
    """Curvature of these parabolas: how clearly the photograph tells an offset in x and in y; 0 at the border."""
    truth: Float[Tensor, "n s s 3"]
    """G at d*."""


def matches(
    patches: Float[Tensor, "n s s 3"],
    windows: Float[Tensor, "n w w 3"],
    inside: Bool[Tensor, "n m m"],
    offset_weight: float,
) -> Matches:
    """Lay patches where they fit in their windows, which reach r = (w - s) / 2 pixels further on all sides.

    Args:
        patches: rendered colours.
        windows: true ones.
        inside: offsets (y, x), m = 2 r + 1 of each, at which the window shows the photograph and not what is beyond
            its border; the middle one always counts.
        offset_weight: price of an offset by r pixels, in units of the structural distance, which is 1 at most.
    """
    n, size = patches.shape[:2]
    n_offsets = windows.shape[1] - size + 1
    r = (n_offsets - 1) // 2
    distance = structural_distance(patches.detach(), windows)
    steps = torch.arange(-r, r + 1, device=patches.device)
    length = torch.hypot(*torch.meshgrid(steps.float(), steps.float(), indexing="ij"))
    allowed = inside.clone()
    allowed[:, r, r] = True
    cost = (distance + offset_weight * length / max(r, 1)).masked_fill(~allowed, math.inf)
    best = cost.view(n, -1).argmin(1)
    y, x = best // n_offsets, best % n_offsets
    offsets = torch.stack([x, y], 1) - r
    finer, sureness = _parabola(distance.masked_fill(~allowed, math.inf), x, y)
    rows = torch.arange(size, device=patches.device)
    each = torch.arange(n, device=patches.device)[:, None, None]
    truth = windows[each, y[:, None, None] + rows[:, None], x[:, None, None] + rows]
    return Matches(offsets, offsets + finer, sureness, truth)


def joined(parts: Sequence[Matches]) -> Matches:
    """The matches of several parts, one after the other."""
    return Matches(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Matches)))


def structural_distance(patches: Float[Tensor, "n s s 3"], windows: Float[Tensor, "n w w 3"]) -> Float[Tensor, "n m m"]:
    """(1 - SSIM) / 2 of patches and all patches of their size in their windows, m = w - s + 1 each way; in [0, 1].

    SSIM with one window, the whole patch: (2 mu_p mu_g + c1) (2 c + c2) / ((mu_p^2 + mu_g^2 + c1) (v_p + v_g + c2)),
    mean over channels.
    """
    n, size = patches.shape[:2]
    # Variances are small differences of large sums: about the patch's own mean they are exact enough in float32.
    middle = patches.mean((1, 2), keepdim=True)
    p, g = ((x - middle).permute(0, 3, 1, 2).reshape(1, 3 * n, *x.shape[1:3]) for x in (patches, windows))
    mean_g, square_g = F.avg_pool2d(g, size, 1), F.avg_pool2d(g * g, size, 1)
    product = F.conv2d(g, p.view(3 * n, 1, size, size), groups=3 * n) / size**2
    variance = (p * p).mean((2, 3), keepdim=True) + square_g - mean_g**2
    mean_p = middle.view(1, 3 * n, 1, 1)
    mean_g = mean_g + mean_p
    top = (2 * mean_p * mean_g + _C1) * (2 * product + _C2)
    similarity = top / ((mean_p**2 + mean_g**2 + _C1) * (variance + _C2))
    return (1 - similarity.view(n, 3, *similarity.shape[2:]).mean(1)) / 2


def _parabola(
    distance: Float[Tensor, "n m m"], x: Int[Tensor, " n"], y: Int[Tensor, " n"]
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2"]]:
    """How far from (x, y) the least distance lies between pixels, half a pixel at most, and the curvature there."""
    padded = F.pad(distance, (1, 1, 1, 1), value=math.inf)
    each, x, y = torch.arange(len(x), device=x.device), x + 1, y + 1
    here = padded[each, y, x]
    found = []
    for before, after in (
        (padded[each, y, x - 1], padded[each, y, x + 1]),
        (padded[each, y - 1, x], padded[each, y + 1, x]),
    ):
        bend = before + after - 2 * here
        bend = torch.where(bend.isfinite() & (bend > 1e-6), bend, 0.0)
        shift = torch.where(bend > 0, (before - after) / (2 * bend).clamp(min=1e-6), 0.0).clamp(-0.5, 0.5)
        found.append((shift, bend))
    shifts, bends = zip(*found, strict=True)
    return torch.stack(shifts, 1), torch.stack(bends, 1)


class Alignment:
    """What patches found since a training began, and when that is of use."""

    def __init__(self, n_views: int, reach: int):
        self.counts = torch.zeros(2 * reach + 1, 2 * reach + 1, dtype=torch.int64)
        """How many patches were laid at each offset (y, x)."""
        self.sums = torch.zeros(n_views, 4, dtype=torch.float64)
        """Of each view, in x and y, since its camera was turned last: sureness, sureness * offset."""
        self.n_rounds = torch.tensor(0)

    def is_due(self, progress: float) -> bool:
        """Whether cameras are to be turned now."""
        return int(self.n_rounds) < len(ROUNDS) and progress >= ROUNDS[int(self.n_rounds)]

    def observe(self, views: Int[Tensor, " n"], found: Matches) -> None:
        """Count patches of these views."""
        reach = len(self.counts) // 2
        w, d = found.sureness.double().cpu(), found.finer.double().cpu()
        self.sums.index_add_(0, views.cpu().long(), torch.cat([w, w * d], 1))
        x, y = (found.offsets.cpu().long() + reach).unbind(1)
        self.counts.view(-1).index_add_(0, y * len(self.counts) + x, torch.ones_like(x))

    def record(self) -> dict[str, Any]:
        """The offsets that patches were laid at, for the log."""
        return {"reach": len(self.counts) // 2, "counts": self.counts.tolist()}

    def state_dict(self) -> dict[str, Tensor]:
        """All that changes, to be saved with a checkpoint."""
        return {"alignment.counts": self.counts, "alignment.sums": self.sums, "alignment.n_rounds": self.n_rounds}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go back to a saved state."""
        self.counts, self.sums, self.n_rounds = state.values()

    def take(self) -> Float[Tensor, "n_views 2"]:
        """What the patches of each view want alike, in pixels: the mean of their offsets, the surer ones counting
        more, less that of all such views, which nobody could tell from the field's own place. A new round begins.
        """
        w, d = self.sums.split(2, 1)
        told = w > 0
        mean = torch.where(told, d / w.clamp(min=1e-12), 0.0)
        common = mean.sum(0) / told.sum(0).clamp(min=1)
        self.sums.zero_()
        self.n_rounds += 1
        return torch.where(told, mean - common, 0.0).float()
