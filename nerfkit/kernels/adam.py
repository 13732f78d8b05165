"""Adam for feature tables: a number moves only when it has a gradient, and its gradient is cleared on the way.

Kingma and Ba 2015, algorithm 1, with the bias corrections folded into the rate. Most entries of a table are untouched
by a step; moving them by stale momentum, as plain Adam does, costs quality and time (Mueller et al. 2022, section 4).
"""

import math
from typing import no_type_check

import torch
import warp as wp
from jaxtyping import Float
from torch import Tensor

from nerfkit.kernels.launch import launch

_UPDATE = """
float* P = (float*)parameters.data; float* G = (float*)gradients.data;
float* M = (float*)means.data; float* V = (float*)squares.data;
for (int i = begin; i < end; ++i) {
    const float g = G[i];
    const bool on = g != 0.0f;
    const float m = beta1 * M[i] + (1.0f - beta1) * g, v = beta2 * V[i] + (1.0f - beta2) * g * g;
    M[i] = on ? m : M[i];
    V[i] = on ? v : V[i];
    P[i] -= on ? rate * m / (sqrtf(v) + eps) : 0.0f;
    G[i] = 0.0f;
}
"""


@wp.func_native(_UPDATE)
@no_type_check
def _update(
    begin: int,
    end: int,
    parameters: wp.array(dtype=float),
    gradients: wp.array(dtype=float),
    means: wp.array(dtype=float),
    squares: wp.array(dtype=float),
    rate: float,
    beta1: float,
    beta2: float,
    eps: float,
): ...


@wp.kernel(module="nerfkit.kernels.adam", grid_stride=False)
@no_type_check
def _adam(
    first: int,
    block: int,
    parameters: wp.array(dtype=float),
    gradients: wp.array(dtype=float),
    means: wp.array(dtype=float),
    squares: wp.array(dtype=float),
    rate: float,
    beta1: float,
    beta2: float,
    eps: float,
):
    begin = (first + wp.tid()) * block
    end = wp.min(begin + block, parameters.shape[0])
    _update(begin, end, parameters, gradients, means, squares, rate, beta1, beta2, eps)


class SparseAdam:
    """The optimiser of one table; ``means`` and ``squares`` are its state, saved with a checkpoint."""

    def __init__(self, table: Float[Tensor, "entries features"], betas: tuple[float, float] = (0.9, 0.99)):
        self.table = table
        self.betas = betas
        self.eps = 1e-15
        self.means = torch.zeros_like(table, requires_grad=False)
        self.squares = torch.zeros_like(table, requires_grad=False)

    def step(self, n_steps: int, lr: float) -> None:
        """Move the table along its gradient and clear that; ``n_steps`` counts from 1."""
        beta1, beta2 = self.betas
        correction = math.sqrt(1.0 - beta2**n_steps)
        table, grad = self.table.detach().view(-1), self.table.grad.view(-1)
        block = 4096 if table.device.type == "cpu" else 1
        inputs = [block, table, grad, self.means.view(-1), self.squares.view(-1)]
        inputs += [lr * correction / (1.0 - beta1**n_steps), beta1, beta2, self.eps * correction]
        launch(_adam, -(-table.numel() // block), inputs, table.device)
