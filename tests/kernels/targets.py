"""Fields and rays for the kernels that take whole rays."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from nerfkit.kernels.cells import Cells
from nerfkit.kernels.hashgrid import HashGrid, grid_layout
from nerfkit.kernels.march import Stepping
from nerfkit.kernels.raycast import Networks, Target
from nerfkit.types import Rays, Samples

CPU = torch.device("cpu")
N_RAYS, RESOLUTION = 40, 32
NETWORKS = {
    "default": Networks(8, 4, (32, 64, 16), (32, 64, 3)),
    "deep": Networks(4, 8, (32, 32, 32, 16), (32, 64, 48, 3)),
    "narrow": Networks(4, 2, (8, 16, 8), (12, 16, 3)),
    "odd": Networks(5, 4, (20, 24, 15), (24, 40, 3)),
    "wide": Networks(8, 4, (32, 128, 16), (32, 128, 3)),
    "deferring": Networks(8, 4, (32, 64, 16), (32, 64, 10)),
}
STEPPINGS = {
    "even": Stepping(1, RESOLUTION, 0.0, 0.02, 0.02, max_samples=200),
    "growing": Stepping(3, RESOLUTION, 1 / 64, 0.004, 0.05, 0.05, 2.0),
}
NEVER = -1.0
"""Early stop that never comes."""


def rays() -> Rays:
    generator = torch.Generator().manual_seed(0)
    origins = 0.5 + 1.2 * F.normalize(torch.randn(N_RAYS, 3, generator=generator), dim=1)
    origins[::4] = 0.5 + 0.1 * origins[::4]
    directions = F.normalize(torch.rand(N_RAYS, 3, generator=generator) - origins, dim=1)
    directions[1] = torch.tensor([0.0, 0.0, 1.0])
    directions[2] = -directions[2]
    return Rays(origins, directions, torch.ones(N_RAYS))


def columns() -> tuple[Tensor, Tensor]:
    """Jitter and backgrounds."""
    generator = torch.Generator().manual_seed(1)
    return torch.rand(N_RAYS, generator=generator), torch.rand(N_RAYS, 3, generator=generator)


def target_of(
    networks: Networks, word: str = "float32", thickness: float = 1.0, half: float = 0.0, device: torch.device = CPU
) -> Target:
    generator = torch.Generator().manual_seed(2)
    layout = grid_layout(networks.n_levels, networks.n_features, 10, 4, 64)
    table = torch.randn(layout.n_entries, layout.n_features, generator=generator)
    weights = 0.6 * torch.randn(networks.n_weights, generator=generator) / math.sqrt(networks.density[1] / 16)
    table, weights = ((x * y).to(device).requires_grad_() for x, y in ((thickness, table), (1.0, weights)))
    return Target(networks, HashGrid(layout, device, half), table, table.detach(), weights, word)


def cells_of(stepping: Stepping, share: float = 1.0, noting: bool = False, device: torch.device = CPU) -> Cells:
    """Whole blocks are occupied or empty: a step beside a cell's face may round into either cell."""
    generator = torch.Generator().manual_seed(3)
    n = RESOLUTION // 8
    blocks = torch.rand(stepping.n_levels, n, 1, n, 1, n, 1, generator=generator) < share
    values = blocks.expand(-1, n, 8, n, 8, n, 8).reshape(stepping.n_levels, -1).float().contiguous()
    window = torch.full((values.numel() if noting else 0,), -1.0, device=device)
    return dataclasses.replace(Cells.bake(values.to(device), 0.5, stepping), window=window)


def listed() -> Samples:
    """Samples of unequal lengths with gaps between them; some rays have none, one has many."""
    generator = torch.Generator().manual_seed(6)
    counts = torch.randint(0, 40, (N_RAYS,), generator=generator)
    counts[3], counts[7] = 0, 150
    n, owner = int(counts.sum()), torch.repeat_interleave(torch.arange(N_RAYS), counts)
    ends = torch.rand(n, generator=generator).mul(0.08 - 0.04 * (owner == 7)).cumsum(0)
    first = counts.cumsum(0) - counts
    ends = ends - ends[first.clamp(max=n - 1)][owner]
    starts = ends - 0.02 * torch.rand(n, generator=generator)
    packed_info = torch.stack([first, counts], 1).int()
    return Samples(packed_info, owner.int(), 0.5 + starts, 0.5 + ends, n)
