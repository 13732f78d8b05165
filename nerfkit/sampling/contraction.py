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


def contract(positions: Float[Tensor, "n 3"], half: float) -> Float[Tensor, "n 3"]:
    """Places (any, in model coordinates) in the unit cube.

    The cube of half side ``half`` about the centre grows to a side of 1/2; where that is 0 nothing is contracted.
    """
    if half == 0.0:
        return positions
    y = positions - 0.5
    m = y.abs().amax(1, keepdim=True) / half
    return torch.where(m > 1.0, (2.0 - 1.0 / m) / m, 1.0) * y * (0.25 / half) + 0.5
