"""A multilayer perceptron without biases, as tiny-cuda-nn has it, in the fastest number format of the machine."""

import math
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nerfkit.kernels.products import mlp, network_by


@lru_cache
def network_dtype(device_type: str) -> torch.dtype:
    """bfloat16 where the processor multiplies it in hardware, float32 elsewhere."""
    if device_type == "cuda":
        return torch.bfloat16
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


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
        return mlp(x, [*self.weights], network_by(self.sizes, x.dtype, x.device))

    def layer_by_layer(self, x: Float[Tensor, "n n_in"]) -> list[Float[Tensor, "n _"]]:
        """What each layer says of x, in float32: the hidden ones after their ReLU, and the last."""
        said = [x.float()]
        for i, w in enumerate(self.weights):
            y = said[-1] @ w.t()
            said.append(y if i == len(self.weights) - 1 else y.relu())
        return said[1:]
