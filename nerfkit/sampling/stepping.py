"""How long steps are, which every sampler with cells asks, and where those cells lie."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerfkit.config import SamplerConfig
from nerfkit.kernels.march import Stepping

CONE_ANGLE = 1.0 / 256.0
"""Growth of the step with distance where the background is modelled (instant-ngp's)."""


def stepping_of(config: SamplerConfig, n_levels: int, near_plane: float, far_plane: float) -> Stepping:
    """The steps that a config asks for; planes in model units."""
    cone_angle = config.cone_angle if config.cone_angle >= 0.0 else (CONE_ANGLE if n_levels > 1 else 0.0)
    min_step = math.sqrt(3.0) / config.n_steps * 0.5 ** (n_levels - 1)
    max_step = math.sqrt(3.0) / config.resolution if cone_angle else min_step
    return Stepping(n_levels, config.resolution, cone_angle, min_step, max_step, near_plane, far_plane)


def while_young(stepping: Stepping, step: int, warmup_steps: int) -> Stepping:
    """The steps at training step ``step``: longer in the warm-up, as more rays describe a young field's fog better."""
    if step >= warmup_steps:
        return stepping
    longer = 4.0 if step < warmup_steps // 2 else 2.0
    return replace(stepping, min_step=longer * stepping.min_step, max_step=longer * stepping.max_step)


def places_in(
    cells: Int[Tensor, " n"], within: Float[Tensor, "n 3"] | float, stepping: Stepping
) -> Float[Tensor, "n 3"]:
    """Model coordinates of places in cells, counted as `Cells.bits` are; ``within`` is a share of each side."""
    res = stepping.resolution
    side = 0.5 ** (stepping.n_levels - 1 - cells // res**3).float()
    corner = torch.stack([cells // res**2 % res, cells // res % res, cells % res], 1)
    return ((corner + within) / res - 0.5) * side[:, None] + 0.5


def neighbours(cells: Int[Tensor, " n"], draw: Float[Tensor, "n 3"], stepping: Stepping) -> Int[Tensor, " m"]:
    """One of the 26 cells about each cell, or itself, by a draw in [0, 1); those outside of their cube are left out."""
    res = stepping.resolution
    place = torch.stack([cells // res**2 % res, cells // res % res, cells % res], 1) + (3.0 * draw).long() - 1
    inside = ((place >= 0) & (place < res)).all(1)
    x, y, z = place[inside].unbind(1)
    return (((cells // res**3)[inside] * res + x) * res + y) * res + z
