"""A small network that says something about places: what a sampler learns beside the field."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Parameter

from nerfkit.kernels.adam import Adam, SparseAdam
from nerfkit.kernels.contraction import half_of
from nerfkit.kernels.hashgrid import HashGrid, grid_layout
from nerfkit.kernels.launch import parallel

_LEVELS, _WIDTH, _COARSEST = 4, 32, 16
_LOG2_TABLE = 15
"""With these a guide has 0.10 million numbers."""
_TABLE_LR, _LR = 2e-2, 1e-2
_FINAL = 0.1
"""Rate in the end, as a share of that at the start."""
_SETTLED = 600
"""Lessons after which the rate falls no more."""
_CHUNK = 16384
"""Places that one task asks about."""


class Guide:
    """A hash table of one number an entry and a hidden layer over it, at contracted places.

    Scenes of several levels are contracted so that the innermost cube fills the middle half of each axis: its cells are
    described as finely as the bits of a grid are, those far out as coarsely as they are seen.
    """

    def __init__(self, n_cubes: int, resolution: int, device: torch.device, bias: float = 0.0):
        """``n_cubes`` is the number of nested cubes, ``resolution`` that of the innermost one's finest level.

        ``bias`` is what it says, more or less, before it has learnt anything.
        """
        generator = torch.Generator().manual_seed(0)
        finest = resolution * (2 if n_cubes > 1 else 1)
        layout = grid_layout(_LEVELS, 1, _LOG2_TABLE, _COARSEST, finest)
        self.grid = HashGrid(layout, device, half_of(n_cubes))
        table = 0.2 * torch.rand(layout.n_entries, 1, generator=generator) - 0.1
        hidden = torch.randn(_WIDTH, _LEVELS, generator=generator) * math.sqrt(2.0 / _LEVELS)
        last = torch.randn(1, _WIDTH, generator=generator) * math.sqrt(1.0 / _WIDTH)
        tensors = (table, hidden, torch.zeros(_WIDTH), last, torch.full((1,), bias))
        self.table, *self.matrices = (Parameter(tensor.to(device)) for tensor in tensors)
        self._adam, self._sparse = Adam(self.matrices), SparseAdam(self.table)
        self.n_lessons = 0

    @property
    def n_features(self) -> int:
        """Numbers of a place's `features`."""
        return _LEVELS

    def features(self, positions: Float[Tensor, "n 3"]) -> Float[Tensor, "n levels"]:
        """The table's entries at places in model coordinates."""
        return self.grid.encode(positions, self.table, torch.float32)

    def answer(self, features: Float[Tensor, "n levels"]) -> Float[Tensor, " n"]:
        """What the network says of `features`, any number."""
        hidden, hidden_bias, last, last_bias = self.matrices
        return (torch.relu(features @ hidden.T + hidden_bias) @ last.T + last_bias)[:, 0]

    def ask(self, positions: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """What the network says of many places in model coordinates, without gradient."""

        def part(begin: int) -> Tensor:
            with torch.no_grad():
                return self.answer(self.features(positions[begin : begin + _CHUNK]))

        parts = parallel(part, range(0, len(positions), _CHUNK), positions.device)
        return torch.cat(parts) if parts else positions.new_empty(0)

    @property
    def n_parameters(self) -> int:
        """Numbers that are learnt."""
        return sum(parameter.numel() for parameter in (self.table, *self.matrices))

    def learn(self, gradients: Sequence[Sequence[Tensor | None]]) -> None:
        """Move along the gradients of the `matrices`, one list for each part of a lesson; the grid has the table's."""
        self.grid.collect(self.table)
        for parameter, parts in zip(self.matrices, zip(*gradients, strict=True), strict=True):
            parameter.grad = sum((part for part in parts if part is not None), torch.zeros_like(parameter))
        self.n_lessons += 1
        rate = _FINAL ** min(self.n_lessons / _SETTLED, 1.0)
        self._adam.step(self.n_lessons, rate * _LR)
        self._sparse.step(self.n_lessons, rate * _TABLE_LR)

    def numbers(self) -> dict[str, Tensor]:
        """All that changes but `n_lessons`, by name: what a checkpoint keeps, and copies into."""
        numbers = {"table": self.table.data, "table.means": self._sparse.means, "table.squares": self._sparse.squares}
        for i, matrix in enumerate(self.matrices):
            of = {"": matrix.data, ".means": self._adam.means[i], ".squares": self._adam.squares[i]}
            numbers |= {f"matrices.{i}{name}": tensor for name, tensor in of.items()}
        return numbers
