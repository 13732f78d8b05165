"""A small network as matrix products of torch: forward, and backward by hand."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def forward(x: Float[Tensor, "n n_in"], weights: Sequence[Tensor]) -> tuple[Float[Tensor, "n n_out"], list[Tensor]]:
    """x -> relu(x W1^T) -> ... -> x Wn^T for matrices in the number format of x; and what went into each of them."""
    inputs = []
    for i, w in enumerate(weights):
        inputs.append(x)
        x = torch.mm(x, w.t())
        if i < len(weights) - 1:
            x.relu_()
    return x, inputs


def backward(
    gradient: Float[Tensor, "n n_out"], inputs: Sequence[Tensor], weights: Sequence[Tensor], into_x: bool
) -> tuple[Tensor | None, list[Tensor]]:
    """Gradient of x, where that is wanted, and of the matrices, float32."""
    gradients: list[Tensor] = []
    for i in reversed(range(len(weights))):
        gradients.append(torch.mm(gradient.t(), inputs[i]).float())
        if i > 0:
            gradient = torch.mm(gradient, weights[i])
            gradient = torch.ops.aten.threshold_backward(gradient, inputs[i], 0)
    return (torch.mm(gradient, weights[0]) if into_x else None), gradients[::-1]
