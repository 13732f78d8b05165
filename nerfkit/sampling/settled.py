"""A sampler that has learnt all that it will: its cells stay as they are while the field changes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from nerfkit.kernels.cells import Cells
from nerfkit.ranks import Ranks
from nerfkit.sampling.occupancy import NEVER
from nerfkit.types import Field, Met, Rays, Samples


class Settled:
    """A `LearningSampler` that learns nothing."""

    def __init__(self, cells: Cells):
        self._cells = cells
        self.occupancy = float(cells.occupied.float().mean())

    def sample(self, rays: Rays, jitter: Float[Tensor, " n_rays"]) -> Samples:
        """Steps in the cells."""
        return self._cells.sample(rays, jitter)

    def steps(self, rays: Rays, jitter: Float[Tensor, " n_rays"]) -> Cells:
        """The cells."""
        return self._cells

    def cells(self) -> Cells:
        """The cells."""
        return self._cells

    def share(self, ranks: Ranks) -> None:
        """Nothing: what is settled needs to hear of no rays."""

    def watches(self) -> bool:
        """Never."""
        return False

    def update(self, step: int, field: Field, mets: Sequence[Met] = ()) -> None:
        """Nothing."""

    def state_dict(self) -> dict[str, Tensor]:
        """What an `OccupancyGrid` of these cells would keep, so that a checkpoint is one of such a grid."""
        return state_of(self._cells)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take the cells of a grid."""
        before = self._cells
        self._cells = Cells.bake(state["values"].to(before.bits.device), float(state["threshold"]), before.stepping)


def state_of(cells: Cells) -> dict[str, Tensor]:
    """The state of an `OccupancyGrid` that has these cells, and knows of no others."""
    values = torch.where(cells.occupied.view(cells.stepping.n_levels, -1), 1.0, NEVER).cpu()
    numbers = {"threshold": torch.tensor(0.5, dtype=torch.float64), "step": torch.tensor(0.0, dtype=torch.float64)}
    generator = torch.Generator().manual_seed(0).get_state()
    return {"values": values, "window": torch.full_like(values, -1.0), "generator": generator, **numbers}
