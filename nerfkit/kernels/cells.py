"""Where rays step: a bit for each cell of nested cubes, which every sampler bakes and one marcher walks through."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from nerfkit.kernels.launch import Native
from nerfkit.kernels.march import Stepping, march
from nerfkit.kernels.occupancy import pack_bits
from nerfkit.kernels.ray import CLEARANCE
from nerfkit.types import Rays, Samples


@dataclass(frozen=True)
class Cells:
    """Occupied cells, as `march` has them, and the densities that rays met in each (none: they are not noted)."""

    bits: Int[Tensor, " words"]
    blocks: Int[Tensor, " block_words"]
    clear: UInt8[Tensor, " small_blocks"]
    """`clearance` of a grid of one level on a CPU; not looked at for others."""
    stepping: Stepping
    window: Float[Tensor, " cells"]

    @classmethod
    def bake(cls, values: Float[Tensor, "levels cells"], threshold: float, stepping: Stepping) -> Cells:
        """Mark the cells whose value exceeds a threshold as occupied; nothing is noted."""
        bits, blocks = pack_bits(values, threshold, stepping.resolution)
        leaping = stepping.n_levels == 1 and values.device.type == "cpu"
        clear = clearance(bits, stepping.resolution) if leaping else torch.empty(0, dtype=torch.uint8)
        return cls(bits, blocks, clear, stepping, values.new_empty(0))

    def sample(self, rays: Rays, jitter: Float[Tensor, " n_rays"]) -> Samples:
        """Steps of rays (model coordinates) in occupied cells; ``jitter`` in [0, 1) shifts each ray's first step."""
        return march(rays, jitter, self.bits, self.blocks, self.stepping)

    def cells(self) -> Cells:
        """These: they are a sampler that has nothing to learn."""
        return self

    def steps(self, rays: Rays, jitter: Float[Tensor, " n_rays"]) -> Cells:
        """These."""
        return self

    @property
    def occupied(self) -> Bool[Tensor, "levels r r r"]:
        """Which cells are occupied, index [level, x, y, z]; level 0 is the innermost cube."""
        shifts = torch.arange(32, dtype=torch.int32, device=self.bits.device)
        each = (self.bits[:, None] >> shifts & 1).bool()
        return each.view(self.stepping.n_levels, *[self.stepping.resolution] * 3)

    def within(self, lower: Float[Tensor, " 3"], upper: Float[Tensor, " 3"]) -> Cells:
        """The same with the cells empty whose middle lies outside of a box (model coordinates)."""
        n_levels, res = self.stepping.n_levels, self.stepping.resolution
        centers = (torch.arange(res, device=self.bits.device) + 0.5) / res - 0.5
        inside = []
        for level in range(n_levels):
            at = centers * 0.5 ** (n_levels - 1 - level) + 0.5
            x, y, z = ((at >= low) & (at <= high) for low, high in zip(lower, upper, strict=True))
            inside.append(x[:, None, None] & y[:, None] & z)
        part = (self.occupied & torch.stack(inside)).view(n_levels, -1)
        return Cells.bake(part.float(), 0.5, self.stepping)


@lru_cache
def _clearance() -> Native:
    return Native("", CLEARANCE, {"bits": "const int", "clear": "unsigned char"}, {"res": "int"})


def clearance(bits: Int[Tensor, " words"], resolution: int) -> UInt8[Tensor, " small_blocks"]:
    """How many blocks of 4^3 cells it is (Chebyshev distance) from each to the nearest occupied one, at most 255.

    ``bits`` are those of one level, on a CPU; ``resolution`` is a multiple of 4. A ray in an empty block may leap to
    the end of the cube of blocks that are nearer than that.
    """
    clear = torch.empty((resolution // 4) ** 3, dtype=torch.uint8)
    _clearance()([bits, clear], [resolution])
    return clear
