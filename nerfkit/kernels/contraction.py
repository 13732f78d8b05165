"""Unbounded space in a cube: what lies outside of an inner cube is drawn into a shell about it.

In the manner of mip-NeRF 360 (Barron et al. 2022, equation 10), with the maximum norm, so that cubes stay cubes: with y
the place relative to the centre and m = max|y| / half,

    contract(y) = y                        for m <= 1,
                  (2 - 1 / m) y / m        beyond,

scaled so that all of space fills the unit cube and the inner cube the middle half of each of its axes.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

CONTRACTION = """
struct contraction {
  // The same for 16 places x; half_side is 0 where nothing is contracted.
  INLINE void of(floats* x, float half_side) {
    if (half_side == 0.0f) return;
    floats y[3], m = {};
    for (int c = 0; c < 3; ++c) {
      y[c] = x[c] - 0.5f;
      const floats size = y[c] < 0.0f ? -y[c] : y[c];
      m = m > size ? m : size;
    }
    m = m / half_side;
    const floats one = floats{} + 1.0f, inverse = one / (m > 1.0f ? m : one);
    const floats drawn = (m > 1.0f ? (2.0f - inverse) * inverse : one) * (0.25f / half_side);
    for (int c = 0; c < 3; ++c) x[c] = y[c] * drawn + 0.5f;
  }
};
"""
"""`contract` as C++ text, for one CPU core."""


def half_of(n_cubes: int) -> float:
    """Half the side of the innermost of ``n_cubes`` nested cubes, each twice as wide as the one in it; 0 for one."""
    return 0.5**n_cubes if n_cubes > 1 else 0.0


def contract(positions: Float[Tensor, "n 3"], half: float) -> Float[Tensor, "n 3"]:
    """Places (any, in model coordinates) in the unit cube.

    The cube of half side ``half`` about the centre grows to a side of 1/2; where that is 0 nothing is contracted.
    """
    if half == 0.0:
        return positions
    y = positions - 0.5
    m = y.abs().amax(1, keepdim=True) / half
    return torch.where(m > 1.0, (2.0 - 1.0 / m) / m, 1.0) * y * (0.25 / half) + 0.5
