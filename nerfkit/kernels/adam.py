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
from torch.nn import Parameter

from nerfkit.kernels.launch import launch

_EPS = 1e-15

_UPDATE = """
float* P = (float*)parameters.data; float* G = (float*)gradients.data;
float* M = (float*)means.data; float* V = (float*)squares.data;
int i = begin;
#if !defined(__CUDA_ARCH__)
// Sixteen numbers share a cache line: where none has a gradient, nothing else is read.
typedef float floats __attribute__((vector_size(64), aligned(4)));
typedef int ints __attribute__((vector_size(64)));
typedef _Float16 halves __attribute__((vector_size(32), aligned(2)));
for (; i + 16 <= end; i += 16) {
    const floats g = *(floats*)(G + i);
    const ints on = g != 0.0f;
    if (!__builtin_reduce_or(on)) continue;
    const floats m0 = *(floats*)(M + i), v0 = *(floats*)(V + i), p0 = *(floats*)(P + i);
    const floats m = beta1 * m0 + (1.0f - beta1) * g, v = beta2 * v0 + (1.0f - beta2) * g * g;
    const floats p = p0 - rate * m / (__builtin_elementwise_sqrt(v) + eps), q = on ? p : p0;
    *(floats*)(M + i) = on ? m : m0;
    *(floats*)(V + i) = on ? v : v0;
    *(floats*)(P + i) = q;
    *(floats*)(G + i) = floats{};
    if (rounded.shape[0]) *(halves*)((_Float16*)rounded.data + i) = __builtin_convertvector(q, halves);
}
#endif
for (; i < end; ++i) {
    const float g = G[i];
    if (g == 0.0f) continue;
    const float m = beta1 * M[i] + (1.0f - beta1) * g, v = beta2 * V[i] + (1.0f - beta2) * g * g;
    M[i] = m;
    V[i] = v;
    P[i] -= rate * m / (sqrtf(v) + eps);
    G[i] = 0.0f;
    if (rounded.shape[0]) ((wp::half*)rounded.data)[i] = wp::half(P[i]);
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
    rounded: wp.array(dtype=wp.float16),
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
    rounded: wp.array(dtype=wp.float16),
    rate: float,
    beta1: float,
    beta2: float,
    eps: float,
):
    begin = (first + wp.tid()) * block
    end = wp.min(begin + block, parameters.shape[0])
    _update(begin, end, parameters, gradients, means, squares, rounded, rate, beta1, beta2, eps)


class SparseAdam:
    """The optimiser of one table; ``means`` and ``squares`` are its state, saved with a checkpoint.

    ``rounded`` is a half-precision copy of the table that follows it.
    """

    def __init__(
        self,
        table: Float[Tensor, "entries features"],
        betas: tuple[float, float] = (0.9, 0.99),
        rounded: Float[Tensor, "entries features"] | None = None,
    ):
        self.table = table
        self.rounded = torch.empty(0, dtype=torch.float16, device=table.device) if rounded is None else rounded
        self.betas = betas
        self.means = torch.zeros_like(table, requires_grad=False)
        self.squares = torch.zeros_like(table, requires_grad=False)

    def step(self, n_steps: int, lr: float) -> None:
        """Move the table along its gradient and clear that; ``n_steps`` counts from 1."""
        beta1, beta2 = self.betas
        correction = math.sqrt(1.0 - beta2**n_steps)
        table, grad = self.table.detach().view(-1), self.table.grad.view(-1)
        block = 4096 if table.device.type == "cpu" else 1
        inputs = [block, table, grad, self.means.view(-1), self.squares.view(-1), self.rounded.view(-1)]
        inputs += [lr * correction / (1.0 - beta1**n_steps), beta1, beta2, _EPS * correction]
        launch(_adam, -(-table.numel() // block), inputs, table.device)


class Adam:
    """Adam with decayed weights (Kingma and Ba 2015, algorithm 1, with L2), for a few small matrices.

    torch's own would import its compiler, which takes longer than all else at the start.
    """

    def __init__(
        self, parameters: list[Parameter], betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0
    ):
        self.parameters, self.betas, self.weight_decay = parameters, betas, weight_decay
        self.means = [torch.zeros_like(p, requires_grad=False) for p in parameters]
        self.squares = [torch.zeros_like(p, requires_grad=False) for p in parameters]

    @torch.no_grad()
    def step(self, n_steps: int, lr: float) -> None:
        """Move the parameters along their ``.grad``, those that have one; ``n_steps`` counts from 1."""
        beta1, beta2 = self.betas
        correction = math.sqrt(1.0 - beta2**n_steps)
        each = zip(self.parameters, self.means, self.squares, strict=True)
        moved = [(p, mean, square, p.grad) for p, mean, square in each if p.grad is not None]
        if not moved:
            return
        # All matrices at once: one by one they are forty small launches on CUDA.
        parameters, means, squares, gradients = (list(column) for column in zip(*moved, strict=True))
        gradients = torch._foreach_add(gradients, parameters, alpha=self.weight_decay)
        torch._foreach_lerp_(means, gradients, 1.0 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1.0 - beta2)
        divisors = torch._foreach_sqrt(squares)
        torch._foreach_add_(divisors, _EPS * correction)
        torch._foreach_addcdiv_(parameters, means, divisors, value=-lr * correction / (1.0 - beta1**n_steps))
