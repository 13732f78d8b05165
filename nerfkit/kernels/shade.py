"""The small steps between the two networks: which samples go on, and what the colour network sees.

They only move rows; as chains of tensor operations they would cost as much as the matrix products between them.
A row is copied as 32-bit words, whatever its type; an odd number of half-precision numbers takes the slower way.
"""

from typing import Any, no_type_check

import torch
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from nerfkit.kernels.launch import launch

_COPY = """
const int* from = (const int*)((const char*)source.data + (size_t)i * source.strides[0]) + i0;
int* to = (int*)((char*)target.data + (size_t)j * target.strides[0]) + j0;
for (int k = 0; k < n; ++k) to[k] = from[k];
"""


@wp.func_native(_COPY)
@no_type_check
def _copy(
    source: wp.array2d(dtype=wp.int32), i: int, i0: int, target: wp.array2d(dtype=wp.int32), j: int, j0: int, n: int
): ...


@wp.kernel(module="nerfkit.kernels.shade", grid_stride=False)
@no_type_check
def _gather(
    first: int,
    block: int,
    n: int,
    rows: wp.array(dtype=int),
    source: wp.array2d(dtype=wp.int32),
    target: wp.array2d(dtype=wp.int32),
    offset: int,
):
    begin = (first + wp.tid()) * block
    for i in range(begin, wp.min(begin + block, n)):
        _copy(source, rows[i], 0, target, i, offset, source.shape[1])


@wp.kernel(module="nerfkit.kernels.shade", grid_stride=False)
@no_type_check
def _scatter(
    first: int,
    block: int,
    n: int,
    rows: wp.array(dtype=int),
    source: wp.array2d(dtype=wp.int32),
    target: wp.array2d(dtype=wp.int32),
):
    begin = (first + wp.tid()) * block
    for i in range(begin, wp.min(begin + block, n)):
        _copy(source, i, 0, target, rows[i], 0, target.shape[1])


def _in_words(rows: Tensor) -> bool:
    return rows.shape[1] * rows.element_size() % 4 == 0


def _words(rows: Tensor) -> Tensor:
    """Rows of any type as rows of 32-bit words: a view, or a copy where rows do not begin at a word."""
    if (rows.stride(0) * rows.element_size()) % 4:
        rows = rows.contiguous()
    return rows.view(torch.int32) if rows.dtype != torch.int32 else rows


def _run(kernel: wp.Kernel, n: int, rows: Tensor, source: Tensor, target: Tensor, *more: int) -> None:
    block = 1024 if source.device.type == "cpu" else 1
    launch(kernel, -(-n // block), [block, n, rows, _words(source), _words(target), *more], source.device)


class _TakeRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, rows: Tensor, n_owned: int) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.n_owned, ctx.n_values = n_owned, len(values)
        out = values.new_empty(len(rows), values.shape[1])
        _run(_gather, len(rows), rows, values, out, 0)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        out = gradient.new_zeros(ctx.n_values, gradient.shape[1])
        _run(_scatter, ctx.n_owned, *ctx.saved_tensors, gradient, out)
        return out, None, None


def take_rows(values: Float[Tensor, "m c"], rows: Int[Tensor, " n"], n_owned: int) -> Float[Tensor, "n c"]:
    """``values[rows]`` for distinct rows; only the first ``n_owned`` of them hand a gradient back."""
    if not _in_words(values):
        return take_rows(F.pad(values, (0, 1)), rows, n_owned)[:, :-1]
    return _TakeRows.apply(values, rows, n_owned)


class _JoinDirections(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, harmonics: Tensor, ray_indices: Tensor) -> Tensor:
        n, width = features.shape
        ctx.width = width
        out = features.new_empty(n, width + harmonics.shape[1])
        out[:, :width] = features
        _run(_gather, n, ray_indices, harmonics, out, width * features.element_size() // 4)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return gradient[:, : ctx.width], None, None


def join_directions(
    features: Float[Tensor, "n c"], harmonics: Float[Tensor, "n_rays d"], ray_indices: Int[Tensor, " n"]
) -> Float[Tensor, "n cd"]:
    """Each sample's features followed by its ray's encoded direction, of one type; differentiable in the features."""
    if not (_in_words(features) and _in_words(harmonics)):
        return torch.cat([features, harmonics[ray_indices]], 1)
    return _JoinDirections.apply(features, harmonics, ray_indices)


def spherical_harmonics(d: Float[Tensor, "n 3"], degree: int) -> Float[Tensor, "n degree_squared"]:
    """Real spherical harmonics of unit directions up to ``degree`` bands (1 to 4), in tiny-cuda-nn's order and sign."""
    x, y, z = d.unbind(1)
    xy, yz, xz, x2, y2, z2 = x * y, y * z, x * z, x * x, y * y, z * z
    bands = [torch.full_like(x, 0.28209479177387814)]
    if degree > 1:
        bands += [-0.48860251190291987 * y, 0.48860251190291987 * z, -0.48860251190291987 * x]
    if degree > 2:
        bands += [1.0925484305920792 * xy, -1.0925484305920792 * yz, 0.94617469575756 * z2 - 0.31539156525252]
        bands += [-1.0925484305920792 * xz, 0.5462742152960396 * (x2 - y2)]
    if degree > 3:
        bands += [0.5900435899266435 * y * (y2 - 3.0 * x2), 2.890611442640554 * xy * z]
        bands += [0.4570457994644657 * y * (1.0 - 5.0 * z2), 0.3731763325901154 * z * (5.0 * z2 - 3.0)]
        bands += [0.4570457994644657 * x * (1.0 - 5.0 * z2), 1.445305721320277 * z * (x2 - y2)]
        bands += [0.5900435899266435 * x * (3.0 * y2 - x2)]
    return torch.stack(bands, 1)
