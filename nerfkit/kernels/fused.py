"""A small network in one launch, in Triton: what lies between its layers never leaves the chip.

Each program holds all weights and takes blocks of rows through all layers, one block after the other. The numerics are
those of the products in `fields.mlp`: weights are rounded to the format of x, products are summed in float32, and what
comes out of a layer is rounded to that format, behind the ReLU in the hidden ones:

    h_0 = x,  h_i = round(relu(h_{i-1} round(W_i)^T)),  y = round(h_{n-1} round(W_n)^T)

The backward pass computes the h_i again, so nothing is kept but x, and rounds the gradient of each h_i as it does h_i.
The gradients of the weights remain float32, where torch's products round them once: a program sums them over its blocks
and writes them once, and torch sums the programs. Nothing is added atomically: a GPU gives the same numbers each time.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from triton.compiler import CompiledKernel

from nerfkit.kernels import products
from nerfkit.kernels.cubin import Program, Types, compile_for

ROWS, N_WARPS = 64, 4
"""Rows of a block, and warps that share it: 16 rows each, the height of a product in hardware.

With these the default networks take up to 71 registers a thread forward and 193 backward, spill none, and have 31 KB of
shared memory, so that several programs are on a multiprocessor and one loads while another multiplies. 128 rows in four
warps spill.
"""
_MAX_WIDTH, _MAX_WEIGHTS = 128, 8192
"""Largest networks taken, in padded numbers: their sums and weights just about fit into registers, with at most 288
bytes a thread spilled. What is wider or deeper has more arithmetic to each number read, and torch is good at that."""
_TOLERANCE = 2e-2
"""Largest relative error of a trial: a few units of bfloat16, by which sums in another order may differ."""
_WORDS = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}


@triton.jit
@no_type_check
def _weight(w, N_OUT: tl.constexpr, N_IN: tl.constexpr, OUT: tl.constexpr, IN: tl.constexpr):
    """Pointers to a matrix of weights, padded to OUT x IN, and which of them are there."""
    rows = tl.arange(0, OUT)[:, None]
    columns = tl.arange(0, IN)[None, :]
    return w + rows * N_IN + columns, (rows < N_OUT) & (columns < N_IN)


@triton.jit
@no_type_check
def _zeros(OUT: tl.constexpr, IN: tl.constexpr):
    """Before Triton 3.9 what is taken out of a tuple becomes a shape only as an argument."""
    return tl.zeros([OUT, IN], tl.float32)


@triton.jit
@no_type_check
def _block(x, block, n, N: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr):
    """Pointers to a block of the n rows of N numbers, padded, and which of them are there."""
    rows = (block * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    columns = tl.arange(0, PADDED)[None, :]
    return x + rows * N + columns, (rows < n) & (columns < N)


@triton.jit
@no_type_check
def _layers(weights, dtype: tl.constexpr, SIZES: tl.constexpr, PADDED: tl.constexpr):
    """All matrices of weights, rounded."""
    layers = ()
    for i in tl.static_range(len(SIZES) - 1):
        w, there = _weight(weights[i], SIZES[i + 1], SIZES[i], PADDED[i + 1], PADDED[i])
        layers = layers + (tl.load(w, there, 0.0).to(dtype),)
    return layers


@triton.jit
@no_type_check
def _activations(h, layers):
    """x and what the hidden layers make of it."""
    each = (h,)
    for i in tl.static_range(len(layers) - 1):
        h = tl.dot(each[i], tl.trans(layers[i]), input_precision="ieee")
        each = each + (tl.where(h < 0.0, 0.0, h).to(each[i].dtype),)
    return each


@triton.jit
@no_type_check
def _forward(x, weights, y, n, SIZES: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr):
    LAST: tl.constexpr = len(SIZES) - 1
    layers = _layers(weights, x.dtype.element_ty, SIZES, PADDED)
    for block in range(tl.program_id(0), tl.cdiv(n, ROWS), tl.num_programs(0)):
        rows, there = _block(x, block, n, SIZES[0], PADDED[0], ROWS)
        h = _activations(tl.load(rows, there, 0.0), layers)
        out = tl.dot(h[LAST - 1], tl.trans(layers[LAST - 1]), input_precision="ieee")
        rows, there = _block(y, block, n, SIZES[LAST], PADDED[LAST], ROWS)
        tl.store(rows, out.to(y.dtype.element_ty), there)


@triton.jit
@no_type_check
def _backward(
    x,
    weights,
    y_gradient,
    x_gradient,
    w_gradients,
    n,
    SIZES: tl.constexpr,
    PADDED: tl.constexpr,
    ROWS: tl.constexpr,
    N_WEIGHTS: tl.constexpr,
    X_TOO: tl.constexpr,
):
    LAST: tl.constexpr = len(SIZES) - 1
    layers = _layers(weights, x.dtype.element_ty, SIZES, PADDED)
    sums = ()
    for i in tl.static_range(LAST):
        sums = sums + (_zeros(PADDED[i + 1], PADDED[i]),)
    for block in range(tl.program_id(0), tl.cdiv(n, ROWS), tl.num_programs(0)):
        rows, there = _block(x, block, n, SIZES[0], PADDED[0], ROWS)
        h = _activations(tl.load(rows, there, 0.0), layers)
        rows, there = _block(y_gradient, block, n, SIZES[LAST], PADDED[LAST], ROWS)
        g = tl.load(rows, there, 0.0)
        grown = ()
        for i in tl.static_range(LAST - 1, -1, -1):
            grown = (tl.dot(tl.trans(g), h[i], sums[i], input_precision="ieee"),) + grown
            if i > 0:
                below = tl.dot(g, layers[i], input_precision="ieee")
                g = tl.where(h[i] <= 0.0, 0.0, below).to(g.dtype)
        sums = grown
        if X_TOO:
            rows, there = _block(x_gradient, block, n, SIZES[0], PADDED[0], ROWS)
            tl.store(rows, tl.dot(g, layers[0], input_precision="ieee").to(g.dtype), there)
    out = w_gradients + tl.program_id(0) * N_WEIGHTS
    for i in tl.static_range(LAST):
        w, there = _weight(out, SIZES[i + 1], SIZES[i], PADDED[i + 1], PADDED[i])
        tl.store(w, sums[i], there)
        out += SIZES[i] * SIZES[i + 1]


def padded(n: int) -> int:
    """A power of two, 16 at least, as Triton's blocks are."""
    return max(16, triton.next_power_of_2(n))


def n_weights(sizes: Sequence[int]) -> int:
    """Numbers of all matrices between layers of these sizes."""
    return sum(a * b for a, b in zip(sizes, sizes[1:], strict=False))


def signature(kernel: Any, sizes: tuple[int, ...], dtype: torch.dtype, x_too: bool) -> tuple[Types, dict[str, Any]]:
    """The types of what `_forward` or `_backward` takes, and its constants; ``x_too``: x has a gradient."""
    row = "*" + _WORDS[dtype]
    constants = {"SIZES": sizes, "PADDED": tuple(map(padded, sizes)), "ROWS": ROWS}
    inputs: Types = {"x": row, "weights": ("*fp32",) * (len(sizes) - 1)}
    if kernel is _forward:
        return {**inputs, "y": row, "n": "i32"}, constants
    outputs: Types = {"y_gradient": row, "x_gradient": row, "w_gradients": "*fp32", "n": "i32"}
    return {**inputs, **outputs}, {**constants, "N_WEIGHTS": n_weights(sizes), "X_TOO": x_too}


def compiled(kernel: Any, sizes: tuple[int, ...], dtype: torch.dtype, x_too: bool, capability: int) -> CompiledKernel:
    """`_forward` or `_backward` for GPUs of a compute capability (90 for 9.0)."""
    return compile_for(capability, kernel, *signature(kernel, sizes, dtype, x_too), N_WARPS)


@lru_cache
def _program(kernel: Any, sizes: tuple[int, ...], dtype: torch.dtype, x_too: bool, device: torch.device) -> Program:
    major, minor = torch.cuda.get_device_capability(device)
    if major < 8:
        raise RuntimeError(f"a GPU of compute capability {major}.{minor} multiplies no bfloat16; 8.0 is the first")
    return Program(compiled(kernel, sizes, dtype, x_too, 10 * major + minor), device.index)


def forward(x: Float[Tensor, "n n_in"], weights: Sequence[Tensor]) -> tuple[Float[Tensor, "n n_out"], list[Tensor]]:
    """`products.forward` of a network that `serves`; nothing is kept but x."""
    x, weights = _aligned(x), [w.contiguous() for w in weights]
    y = x.new_empty(len(x), len(weights[-1]))
    program = _program(_forward, _sizes(weights), x.dtype, False, x.device)
    if n_programs := _n_programs(program, x):
        program(n_programs, [x, *weights, y, len(x)])
    return y, [x]


def keep(x: Float[Tensor, "n n_in"], weights: Sequence[Tensor]) -> list[Tensor]:
    """`products.keep` of a network that `serves`."""
    return [_aligned(x)]


def backward(
    gradient: Float[Tensor, "n n_out"], kept: Sequence[Tensor], weights: Sequence[Tensor], into_x: bool
) -> tuple[Tensor | None, list[Tensor]]:
    """`products.backward` of a network that `serves`."""
    (x,), weights = kept, [w.contiguous() for w in weights]
    sizes, x_gradient = _sizes(weights), torch.empty_like(x) if into_x else None
    program = _program(_backward, sizes, x.dtype, into_x, x.device)
    n_programs = _n_programs(program, x)
    sums = x.new_empty(n_programs, n_weights(sizes), dtype=torch.float32)
    if n_programs:
        program(n_programs, [x, *weights, _aligned(gradient), x_gradient, sums, len(x)])
    each = sums.sum(0).split([w.numel() for w in weights])
    return x_gradient, [g.view_as(w) for g, w in zip(each, weights, strict=True)]


def _aligned(rows: Tensor) -> Tensor:
    """Rows as kernels read them, 16 bytes at once; a copy where they lie otherwise."""
    rows = rows.contiguous()
    return rows if rows.data_ptr() % 16 == 0 else rows.clone()


def _sizes(weights: Sequence[Tensor]) -> tuple[int, ...]:
    return (weights[0].shape[1], *(len(w) for w in weights))


def _n_programs(program: Program, x: Tensor) -> int:
    return min(triton.cdiv(len(x), ROWS), program.n_resident)


def mlp(x: Float[Tensor, "n n_in"], *weights: Float[Tensor, "_ _"]) -> Float[Tensor, "n n_out"]:
    """The outputs of a network that `serves`, in the format of x; differentiable once, in x and the weights.

    ``weights`` are float32 (fan_out, fan_in), layer by layer, on the GPU of x. Raises RuntimeError if the driver
    refuses, and what Triton raises if it cannot compile.
    """
    return products.mlp(x, weights, sys.modules[__name__])


def serves(sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> bool:
    """Whether this takes a network of these layers and format here; the first question about a GPU is a `trial`."""
    wide = [padded(n) for n in sizes]
    small = max(wide) <= _MAX_WIDTH and n_weights(wide) <= _MAX_WEIGHTS
    return small and dtype in (torch.bfloat16, torch.float16) and trial(device)[0]


@lru_cache
def trial(device: torch.device) -> tuple[bool, str]:
    """Whether the kernels compile, start and agree with their twin on a GPU, and what was found, in words."""
    from nerfkit.kernels.check import compare_networks  # which imports this file

    try:
        errors = compare_networks(device)
    except Exception as error:  # whatever a compiler or a driver may say: torch's products serve then
        return False, f"its kernels do not run: {(str(error) or type(error).__name__).splitlines()[0]}"
    worst = max(errors, key=errors.__getitem__)
    text = f"{len(errors)} comparisons with the reference, largest relative error {errors[worst]:.1e} ({worst})"
    return errors[worst] < _TOLERANCE, f"triton {triton.__version__}; {text}"
