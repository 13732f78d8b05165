"""The arithmetic: Warp kernels for CPU and CUDA from one source, one more that takes whole rays on a CPU, one in Triton
that takes whole networks on CUDA, and a plain twin of each.

Kernels are marked ``no_type_check``: they are not Python but Warp's or Triton's, whose types the shape checker of the
tests does not know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def self_check(device: torch.device) -> dict[str, float]:
    """Run every kernel of Warp's on small random inputs beside its plain twin, values and gradients.

    Returns the largest relative error of each comparison by name, infinity where shapes differ or a value is not
    finite. About a second, and the time to compile what was never compiled on this machine.
    """
    from nerfkit.kernels.check import compare_all  # a kernel alone should not load the twins

    return compare_all(device)
