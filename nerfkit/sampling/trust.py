"""How often a cell may yet be found empty before that is believed: a counter of three bits for each cell."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from nerfkit.kernels.cells import held, put

_BITS = 3
FULL = 2**_BITS - 1
"""The most that a cell survives."""


class Trust:
    """Counters from 0 to `FULL`, kept as planes of bits like those of `Cells`; at first all are 0."""

    def __init__(self, n_cells: int, device: torch.device):
        self.planes = torch.zeros(_BITS, n_cells // 32, dtype=torch.int32, device=device)

    def of(self, cells: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """The counters of cells, by their `Cells.index`."""
        return sum((held(plane, cells).long() << k for k, plane in enumerate(self.planes)), torch.zeros_like(cells))

    def raise_to(self, least: int, cells: Int[Tensor, " n"]) -> None:
        """Trust cells, each named once, at least so far; ``least`` is at most `FULL`."""
        self._set(cells, self.of(cells).clamp(min=least))

    def spend(self, cells: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Take one from the counters of cells, each named once; whether they had nothing left to take from."""
        before = self.of(cells)
        self._set(cells, (before - 1).clamp(min=0))
        return before == 0

    def _set(self, cells: Int[Tensor, " n"], values: Int[Tensor, " n"]) -> None:
        self.planes = torch.stack([put(plane, cells, (values >> k & 1).bool()) for k, plane in enumerate(self.planes)])
