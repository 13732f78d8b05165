"""A small network, forward and backward by hand: torch's matrix products, or one kernel where that serves."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def forward(x: Float[Tensor, "n n_in"], weights: Sequence[Tensor]) -> tuple[Float[Tensor, "n n_out"], list[Tensor]]:
    """x -> relu(x W_1^T) -> ... -> x W_n^T, and what `backward` wants of it.

    Matrices (fan_out, fan_in) are float32 and rounded to the number format of x, in which activations are kept.
    """
    inputs = []
    for i, w in enumerate(weights):
        inputs.append(x)
        x = torch.mm(x, w.to(x.dtype).t())
        if i < len(weights) - 1:
            x.relu_()
    return x, inputs


def keep(x: Float[Tensor, "n n_in"], weights: Sequence[Tensor]) -> list[Tensor]:
    """What `backward` wants, alone."""
    return forward(x, weights)[1]


def backward(
    gradient: Float[Tensor, "n n_out"], kept: Sequence[Tensor], weights: Sequence[Tensor], into_x: bool
) -> tuple[Tensor | None, list[Tensor]]:
    """Gradient of x, where that is wanted, and of the matrices, float32."""
    gradients: list[Tensor] = []
    for i in reversed(range(len(weights))):
        gradients.append(torch.mm(gradient.t(), kept[i]).float())
        if i > 0:
            gradient = torch.mm(gradient, weights[i].to(gradient.dtype))
            gradient = torch.ops.aten.threshold_backward(gradient, kept[i], 0)
    x_gradient = torch.mm(gradient, weights[0].to(gradient.dtype)) if into_x else None
    return x_gradient, gradients[::-1]


def network_by(sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> ModuleType:
    """What has `forward` and `backward` of a network of such layers: `fused` where Triton serves, else this file."""
    if device.type == "cuda":
        # Sums over hundreds of thousands of rows are not to be rounded on their way.
        torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        try:
            from nerfkit.kernels import fused  # loads Triton, which a CPU has no use for
        except ImportError:
            return sys.modules[__name__]
        if fused.serves(sizes, dtype, device):
            return fused
    return sys.modules[__name__]


class _Network(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, by: ModuleType, x: Tensor, *weights: Tensor) -> Tensor:
        y, kept = by.forward(x, weights)
        ctx.save_for_backward(*kept, *weights)
        ctx.by, ctx.n_kept = by, len(kept)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        kept, weights = ctx.saved_tensors[: ctx.n_kept], ctx.saved_tensors[ctx.n_kept :]
        x_gradient, gradients = ctx.by.backward(gradient, kept, weights, ctx.needs_input_grad[1])
        return None, x_gradient, *gradients


def mlp(x: Float[Tensor, "n n_in"], weights: Sequence[Tensor], by: ModuleType) -> Float[Tensor, "n n_out"]:
    """The outputs of a network as ``by`` computes them; differentiable once, in x and the weights."""
    return _Network.apply(by, x, *weights)
