"""Where rays step: a bit for each cell of nested cubes, which every sampler bakes and one marcher walks through."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from nerfkit.kernels.launch import Native
from nerfkit.kernels.march import Stepping, march
from nerfkit.kernels.occupancy import pack_bits, pack_blocks
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
    def bake(
        cls, values: Float[Tensor, "levels cells"], threshold: float | Float[Tensor, ""], stepping: Stepping
    ) -> Cells:
        """Mark the cells whose value exceeds a threshold as occupied; nothing is noted."""
        return cls.of_bits(pack_bits(values, threshold, stepping.resolution)[0], stepping)

    @classmethod
    def of(cls, occupied: Bool[Tensor, "levels r r r"], stepping: Stepping) -> Cells:
        """The inverse of `occupied`."""
        shifts = torch.arange(32, dtype=torch.int32, device=occupied.device)
        return cls.of_bits((occupied.reshape(-1, 32) << shifts).sum(1, dtype=torch.int32), stepping)

    @classmethod
    def of_bits(cls, bits: Int[Tensor, " words"], stepping: Stepping) -> Cells:
        """The cells whose bits are set; nothing is noted."""
        leaping = stepping.n_levels == 1 and bits.device.type == "cpu"
        clear = clearance(bits, stepping.resolution) if leaping else torch.empty(0, dtype=torch.uint8)
        window = torch.empty(0, device=bits.device)
        return cls(bits, pack_blocks(bits, stepping.resolution), clear, stepping, window)

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

    def index(self, positions: Float[Tensor, "n 3"], lengths: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
        """The cells of samples, given by their middles (model coordinates) and lengths, as `march` has it."""
        n_levels, res = self.stepping.n_levels, self.stepping.resolution
        reach = (positions - 0.5).abs().amax(1)
        level = torch.full_like(reach, n_levels - 1)
        for k in range(1, n_levels):
            side = 0.5 ** (k - 1)
            level -= ((reach < 0.25 * side) & (0.5 * side >= lengths * res)).float()
        side = 0.5 ** (n_levels - 1 - level)
        cell = (((positions - 0.5) / side[:, None] + 0.5) * res).long().clamp(0, res - 1)
        return ((level.long() * res + cell[:, 0]) * res + cell[:, 1]) * res + cell[:, 2]

    def hold(self, positions: Float[Tensor, "n 3"], lengths: Float[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Whether samples, given as for `index`, lie in occupied cells; none does outside of the unit cube."""
        inside = ((positions >= 0.0) & (positions <= 1.0)).all(1)
        return inside & held(self.bits, self.index(positions, lengths))

    def within(self, lower: Float[Tensor, " 3"], upper: Float[Tensor, " 3"]) -> Cells:
        """The same with the cells empty whose middle lies outside of a box (model coordinates)."""
        n_levels, res = self.stepping.n_levels, self.stepping.resolution
        centers = (torch.arange(res, device=self.bits.device) + 0.5) / res - 0.5
        inside = []
        for level in range(n_levels):
            at = centers * 0.5 ** (n_levels - 1 - level) + 0.5
            x, y, z = ((at >= low) & (at <= high) for low, high in zip(lower, upper, strict=True))
            inside.append(x[:, None, None] & y[:, None] & z)
        return Cells.of(self.occupied & torch.stack(inside), self.stepping)


def held(bits: Int[Tensor, " words"], cells: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Whether the bits of cells, by their `Cells.index`, are set."""
    return (bits[cells >> 5] >> (cells & 31).int() & 1).bool()


def put(
    bits: Int[Tensor, " words"], cells: Int[Tensor, " n"], values: Bool[Tensor, " n"] | bool
) -> Int[Tensor, " words"]:
    """The same bits but those of some cells, each named once by its `Cells.index`."""
    now = held(bits, cells)
    change = (torch.full_like(now, values) if isinstance(values, bool) else values).int() - now.int()
    # Every change is that of another bit, so that the sum of those in a word carries nothing.
    return bits.index_add(0, cells >> 5, change << (cells & 31).int())


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
