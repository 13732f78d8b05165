"""When two results count as equal: the one comparison of the parity tests, with its tolerances."""

from __future__ import annotations

import torch
from torch import Tensor

from nerfkit.kernels.check import relative_error, sample_error
from nerfkit.types import Samples

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
"""Largest difference over the largest expected size: the rounding of the type, in float32 that of a few sums."""
SAMPLE_TOLERANCE = 2e-3
"""Share of steps that may fall on the two sides of a cell's face, by rounding."""


def assert_close(actual: Tensor, expected: Tensor, dtype: torch.dtype = torch.float32) -> None:
    """Equal up to the rounding of ``dtype``."""
    error = relative_error(actual, expected)
    assert error <= TOLERANCES[dtype], f"relative error {error:.2e} is over {TOLERANCES[dtype]:.2e}"


def assert_same_samples(actual: Samples, expected: Samples) -> None:
    """The same intervals on the same rays."""
    error = sample_error(actual, expected)
    assert error <= SAMPLE_TOLERANCE, f"{error:.2%} of the samples have no partner"
