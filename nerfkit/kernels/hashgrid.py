"""Multiresolution hash encoding (Mueller et al. 2022) with the numerics of tiny-cuda-nn.

A position x in [0, 1]^3 is scaled by s_l = base * b^l - 1 and shifted by 0.5 at level l; the eight corners of its cell
are looked up, densely while a level's resolution^3 fits the table and by the spatial hash
``x ^ y * 2654435761 ^ z * 805459861`` otherwise, and blended trilinearly. Features are concatenated level by level.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor

from nerfkit.kernels.contraction import contract
from nerfkit.kernels.corners import GATHER, SCATTER, kernel_of
from nerfkit.kernels.launch import array, current_task, launch

_TILE = 1024
"""Samples that one CPU thread takes through all levels, so that positions and outputs stay in its cache."""


@dataclass(frozen=True)
class GridLayout:
    """Sizes of a hash grid's levels; level l owns the entries ``offsets[l] .. offsets[l + 1]`` of the table."""

    n_features: int
    scales: tuple[float, ...]
    resolutions: tuple[int, ...]
    offsets: tuple[int, ...]

    @property
    def n_levels(self) -> int:
        return len(self.scales)

    @property
    def n_entries(self) -> int:
        return self.offsets[-1]


def grid_layout(
    n_levels: int, n_features: int, log2_table_size: int, base_resolution: int, finest_resolution: int
) -> GridLayout:
    """tiny-cuda-nn's sizes: scale 2^(l log2 b) * base - 1, resolution ceil(scale) + 1, entries rounded up to 8."""
    growth = math.log2(finest_resolution / base_resolution) / max(n_levels - 1, 1)
    scales = tuple(2.0 ** (level * growth) * base_resolution - 1.0 for level in range(n_levels))
    resolutions = tuple(math.ceil(scale) + 1 for scale in scales)
    offsets = [0]
    for resolution in resolutions:
        offsets.append(offsets[-1] + min(2**log2_table_size, -(-(resolution**3) // 8) * 8))
    return GridLayout(n_features, scales, resolutions, tuple(offsets))


class HashGrid:
    """The encoding of one layout on one device. It owns no table: that is the field's."""

    def __init__(self, layout: GridLayout, device: torch.device, half: float = 0.0):
        """``half`` is half the side of the cube outside of which places are contracted; 0 takes all as they are."""
        self.layout = layout
        self.device = device
        self.half = half
        self.levels = [
            torch.tensor(layout.scales, dtype=torch.float32, device=device),
            torch.tensor(layout.resolutions, dtype=torch.int32, device=device),
            torch.tensor(layout.offsets, dtype=torch.int32, device=device),
        ]
        self.pending: dict[int, list[tuple[Tensor, Tensor]]] = {}
        """Places of each `parallel` task, contracted, and the gradients of their features, until they are collected."""

    def encode(
        self,
        positions: Float[Tensor, "n 3"],
        table: Float[Tensor, "entries features"],
        dtype: torch.dtype,
        rounded: Float[Tensor, "entries features"] | None = None,
    ) -> Float[Tensor, "n width"]:
        """Features (n, n_levels * n_features) at positions in [0, 1]^3, contracted where so agreed, as ``dtype``.

        The backward pass adds to ``table.grad``, at once or, inside a `parallel` task, when `collect` is called.
        ``rounded`` is a copy of the table in half precision to read in its place.
        """
        positions, read = contract(positions, self.half), table if rounded is None else rounded
        if torch.is_grad_enabled() and table.requires_grad:
            return _Encode.apply(positions, table, read, self, dtype)
        return self.forward(positions, read, dtype)

    def forward(
        self,
        positions: Float[Tensor, "n 3"],
        table: Float[Tensor, "entries features"],
        dtype: torch.dtype,
        n_owned: Int[Tensor, " one"] | None = None,
    ) -> Float[Tensor, "n width"]:
        """`encode` without a backward pass, at places that are contracted already; the table is float32 or float16.

        Of ``n_owned``, int32 on the device, only the first so many rows are looked up; the others are undefined.
        """
        n_levels = self.layout.n_levels
        out = torch.empty(len(positions), n_levels * self.layout.n_features, dtype=dtype, device=self.device)
        kernel = kernel_of(GATHER, self.layout.n_features, _WORDS[dtype], _WORDS[table.dtype])
        tile = _TILE if self.device.type == "cpu" else 1
        inputs = [tile, n_levels, array(positions, wp.vec3f), *self.levels, table, out, self._all(n_owned)]
        launch(kernel, -(-len(positions) // tile) * n_levels, inputs, self.device)
        return out

    def backward(
        self,
        positions: Float[Tensor, "n 3"],
        gradient: Float[Tensor, "n width"],
        table: Float[Tensor, "m features"],
        n_owned: Int[Tensor, " one"] | None = None,
    ) -> None:
        """Add to ``table.grad`` what the features' ``gradient`` gives it, at places that are contracted already.

        Entries of zero gradient cost nothing; outside of a task, ``n_owned`` is that of `forward`.
        """
        if current_task() >= 0:
            self.pending.setdefault(current_task(), []).append((positions, gradient))
            return
        if table.grad is None:
            table.grad = torch.zeros_like(table)
        kernel = kernel_of(SCATTER, self.layout.n_features, _WORDS[gradient.dtype])
        # One task a level on a CPU: levels own disjoint entries, so no sum needs an atomic and its order is fixed.
        n_levels = self.layout.n_levels
        tile = max(len(positions), 1) if self.device.type == "cpu" else 1
        n_parts = -(-len(positions) // tile) * n_levels
        inputs = [tile, n_levels, array(positions, wp.vec3f), *self.levels, table.grad, gradient.contiguous()]
        inputs.append(self._all(n_owned))
        launch(kernel, n_parts, inputs, self.device, n_parts=n_parts)

    def _all(self, n_owned: Tensor | None) -> Tensor:
        return torch.empty(0, dtype=torch.int32, device=self.device) if n_owned is None else n_owned

    def collect(self, table: Float[Tensor, "entries features"]) -> None:
        """Add what the tasks of the last `parallel` left behind to ``table.grad``, in the order of the tasks."""
        pending, self.pending = self.pending, {}
        parts = [part for task in sorted(pending) for part in pending[task]]
        if parts:
            positions, gradients = zip(*parts, strict=True)
            self.backward(torch.cat(positions), torch.cat(gradients), table)


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, positions: Tensor, table: Tensor, read: Tensor, grid: HashGrid, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(positions)
        ctx.grid, ctx.table = grid, table
        return grid.forward(positions, read, dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, ...]:
        ctx.grid.backward(*ctx.saved_tensors, gradient, ctx.table)
        return None, None, None, None, None


_WORDS = {torch.float32: wp.float32, torch.bfloat16: wp.bfloat16, torch.float16: wp.float16}
