"""A multilayer perceptron without biases, as tiny-cuda-nn has it, in the fastest number format of the machine."""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


@lru_cache
def network_dtype(device_type: str) -> torch.dtype:
    """bfloat16 where the processor multiplies it in hardware, float32 elsewhere."""
    if device_type == "cuda":
        return torch.bfloat16
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


class _Products(torch.autograd.Function):
    """x -> relu(x W1^T) -> ... -> x Wn^T; activations are kept in the number format of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> Tensor:
        rounded = [w.to(x.dtype) for w in weights]
        activations = [x]
        for i, w in enumerate(rounded):
            x = torch.mm(x, w.t())
            if i < len(rounded) - 1:
                x.relu_()
                activations.append(x)
        ctx.save_for_backward(*activations, *rounded)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        n = len(ctx.saved_tensors) // 2
        activations, weights = ctx.saved_tensors[:n], ctx.saved_tensors[n:]
        gradients: list[Tensor | None] = []
        for i in reversed(range(n)):
            gradients.append(torch.mm(gradient.t(), activations[i]).float())
            if i > 0:
                gradient = torch.mm(gradient, weights[i])
                gradient = torch.ops.aten.threshold_backward(gradient, activations[i], 0)
        x_gradient = torch.mm(gradient, weights[0]) if ctx.needs_input_grad[0] else None
        return x_gradient, *reversed(gradients)


def products(sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Callable[..., Tensor]:
    """What takes x and the weights of such a network: one kernel where Triton serves, torch's products elsewhere."""
    if device.type == "cuda":
        try:
            from nerfkit.kernels import fused  # loads Triton, which a CPU has no use for
        except ImportError:
            return _Products.apply
        if fused.serves(sizes, dtype, device):
            return fused.mlp
    return _Products.apply


class MLP(nn.Module):
    """``n_hidden`` hidden layers of ``width`` neurons with ReLU, linear at the end; fp32 weights, no biases."""

    def __init__(self, n_in: int, width: int, n_hidden: int, n_out: int, generator: torch.Generator):
        super().__init__()
        self.sizes = sizes = (n_in, *[width] * n_hidden, n_out)
        self.weights = nn.ParameterList()
        for fan_in, fan_out in zip(sizes, sizes[1:], strict=False):
            bound = math.sqrt(6.0 / (fan_in + fan_out))
            w = torch.rand(fan_out, fan_in, generator=generator) * 2.0 - 1.0
            self.weights.append(nn.Parameter(w * bound))

    def forward(self, x: Float[Tensor, "n n_in"]) -> Float[Tensor, "n n_out"]:
        """The network's outputs, in the number format of x."""
        return products(self.sizes, x.dtype, x.device)(x, *self.weights)

    def layer_by_layer(self, x: Float[Tensor, "n n_in"]) -> list[Float[Tensor, "n _"]]:
        """What each layer says of x, in float32: the hidden ones after their ReLU, and the last."""
        said = [x.float()]
        for i, w in enumerate(self.weights):
            y = said[-1] @ w.t()
            said.append(y if i == len(self.weights) - 1 else y.relu())
        return said[1:]
