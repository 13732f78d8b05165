"""Multiresolution hash encoding (Mueller et al. 2022) with the numerics of tiny-cuda-nn.

A position x in [0, 1]^3 is scaled by s_l = base * b^l - 1 and shifted by 0.5 at level l; the eight corners of its cell
are looked up, densely while a level's resolution^3 fits the table and by the spatial hash
``x ^ y * 2654435761 ^ z * 805459861`` otherwise, and blended trilinearly. Features are concatenated level by level.

The inner loop is one C++ text for both devices. On a CPU an entry is one SIMD register (Clang's vector extension) and
the eight corner indices are another; on CUDA the same expressions work on Warp's vector type.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, no_type_check

import torch
import warp as wp
from jaxtyping import Float
from torch import Tensor

from nerfkit.kernels.contraction import contract
from nerfkit.kernels.launch import array, current_task, launch

_TILE = 1024
"""Samples that one CPU thread takes through all levels, so that positions and outputs stay in its cache."""


@dataclass(frozen=True)
class GridLayout:
    """Sizes of a hash grid's levels; level l owns the entries ``offsets[l] .. offsets[l + 1]`` of the table."""

    n_features: int
    scales: tuple[float, ...]
    resolutions: tuple[int, ...]
    offsets: tuple[int, ...]

    @property
    def n_levels(self) -> int:
        return len(self.scales)

    @property
    def n_entries(self) -> int:
        return self.offsets[-1]


def grid_layout(
    n_levels: int, n_features: int, log2_table_size: int, base_resolution: int, finest_resolution: int
) -> GridLayout:
    """tiny-cuda-nn's sizes: scale 2^(l log2 b) * base - 1, resolution ceil(scale) + 1, entries rounded up to 8."""
    growth = math.log2(finest_resolution / base_resolution) / max(n_levels - 1, 1)
    scales = tuple(2.0 ** (level * growth) * base_resolution - 1.0 for level in range(n_levels))
    resolutions = tuple(math.ceil(scale) + 1 for scale in scales)
    offsets = [0]
    for resolution in resolutions:
        offsets.append(offsets[-1] + min(2**log2_table_size, -(-(resolution**3) // 8) * 8))
    return GridLayout(n_features, scales, resolutions, tuple(offsets))


BLOCK = 16
"""Positions whose cells a CPU core finds together."""

BLOCKS = """
typedef float floats __attribute__((vector_size(64), aligned(4)));
typedef int ints __attribute__((vector_size(64), aligned(4)));
typedef unsigned int words __attribute__((vector_size(64), aligned(4)));
struct level_cells {
  alignas(64) unsigned int corner[8][16];
  alignas(64) float within[3][16];
  // Of 16 positions x: the entries at the corners of their cells at a level, and where they are in them.
  void find(const floats* x, float scale, const int* offset, unsigned int res) {
    const unsigned int size = offset[1] - offset[0];
    const bool dense = (unsigned long long)res * res * res <= size;
    const unsigned int factor[3] = {1u, dense ? res : 2654435761u, dense ? res * res : 805459861u};
    words low[3], high[3];
    for (int c = 0; c < 3; ++c) {
      const floats u = x[c] * scale + 0.5f;
      const ints cell = __builtin_convertvector(u, ints);
      *(floats*)within[c] = u - __builtin_convertvector(cell, floats);
      low[c] = (words)cell * factor[c];
      high[c] = low[c] + factor[c];
    }
    for (int c = 0; c < 8; ++c) {
      const words a = c & 1 ? high[0] : low[0], b = c & 2 ? high[1] : low[1], d = c & 4 ? high[2] : low[2];
      words index;
      if (dense) { index = a + b + d; index = index < size ? index : index - size; }
      else index = (a ^ b ^ d) & (size - 1u);
      *(words*)corner[c] = index + (unsigned int)offset[0];
    }
  }
};
"""
"""C++ text: a block of positions at one level. Its entries are asked for a block ahead, and so are there in time."""

_HEAD = """
#if defined(__CUDA_ARCH__)
typedef wp::vec_t<F_, float> entry;
#else
typedef float entry __attribute__((vector_size(4 * F_), aligned(4)));
typedef CWORD narrow __attribute__((vector_size(sizeof(CWORD) * F_), aligned(2)));
typedef unsigned int words_f __attribute__((vector_size(4 * F_)));
typedef unsigned short shorts_f __attribute__((vector_size(2 * F_), aligned(2)));
#endif
const float* X = (const float*)positions.data;
const float scale = ((const float*)scales.data)[level];
const int* offset = (const int*)offsets.data + level;
const unsigned int res = ((const unsigned int*)resolutions.data)[level];
const int stride = n_levels * F_;
entry* T = (entry*)table.data;
"""

_EACH = """
#if defined(__CUDA_ARCH__)
const unsigned int size = offset[1] - offset[0];
const bool dense = (unsigned long long)res * res * res <= size;
const unsigned int my = dense ? res : 2654435761u, mz = dense ? res * res : 805459861u;
for (int i = begin; i < end; ++i) {
    const float px = X[3 * i] * scale + 0.5f, py = X[3 * i + 1] * scale + 0.5f, pz = X[3 * i + 2] * scale + 0.5f;
    const unsigned int ix = (int)px, iy = (int)py, iz = (int)pz;
    const float wx = px - ix, wy = py - iy, wz = pz - iz;
    unsigned int at[8];
    for (int c = 0; c < 8; ++c) {
        const unsigned int a = ix + (c & 1), b = (iy + (c >> 1 & 1)) * my, d = (iz + (c >> 2)) * mz;
        at[c] = dense ? a + b + d : (a ^ b ^ d) & (size - 1u);
        at[c] = offset[0] + (at[c] < size ? at[c] : at[c] - size);
    }
    BODY
}
#else
BLOCKS
level_cells cells[2];
for (int first = begin - 16; first < end; first += 16) {
    const int next = first + 16;
    if (next < end) {
        floats x[3];
        for (int j = 0; j < 16; ++j)
            for (int c = 0; c < 3; ++c) x[c][j] = X[3 * (next + j < end ? next + j : end - 1) + c];
        level_cells& to = cells[next / 16 & 1];
        to.find(x, scale, offset, res);
        for (int c = 0; c < 8; ++c) for (int j = 0; j < 16; ++j) __builtin_prefetch(T + to.corner[c][j], WRITES);
    }
    const level_cells& from = cells[first / 16 & 1];
    if (first >= begin) for (int j = 0; j < 16 && first + j < end; ++j) {
        const int i = first + j;
        const float wx = from.within[0][j], wy = from.within[1][j], wz = from.within[2][j];
        unsigned int at[8];
        for (int c = 0; c < 8; ++c) at[c] = from.corner[c][j];
        BODY
    }
}
#endif
"""

_GATHER = """
    const entry a = T[at[0]] + wx * (T[at[1]] - T[at[0]]), b = T[at[2]] + wx * (T[at[3]] - T[at[2]]);
    const entry c = T[at[4]] + wx * (T[at[5]] - T[at[4]]), d = T[at[6]] + wx * (T[at[7]] - T[at[6]]);
    const entry e = a + wy * (b - a), f = c + wy * (d - c);
    const entry v = e + wz * (f - e);
    WORD* out = (WORD*)features.data + (size_t)i * stride + level * F_;
#if defined(__CUDA_ARCH__)
    for (int k = 0; k < F_; ++k) out[k] = (WORD)v[k];
#else
    ROUND
#endif
"""

_SCATTER = """
    const WORD* g = (const WORD*)features.data + (size_t)i * stride + level * F_;
    entry v;
#if defined(__CUDA_ARCH__)
    for (int k = 0; k < F_; ++k) v[k] = (float)g[k];
#else
    WIDEN
#endif
    bool any = false;
    for (int k = 0; k < F_; ++k) any |= v[k] != 0.0f;
    if (!any) continue;
    const entry f = wz * v, e = v - f;
    const entry b = wy * e, a = e - b, d = wy * f, c = f - d;
    const entry s1 = wx * a, s3 = wx * b, s5 = wx * c, s7 = wx * d;
#if defined(__CUDA_ARCH__)
    const entry parts[8] = {a - s1, s1, b - s3, s3, c - s5, s5, d - s7, s7};
    for (int q = 0; q < 8; ++q)
        for (int k = 0; k < F_; ++k) atomicAdd((float*)(T + at[q]) + k, parts[q][k]);
#else
    T[at[0]] += a - s1; T[at[1]] += s1; T[at[2]] += b - s3; T[at[3]] += s3;
    T[at[4]] += c - s5; T[at[5]] += s5; T[at[6]] += d - s7; T[at[7]] += s7;
#endif
"""


_CONVERSIONS = {
    "ROUND": "*(narrow*)out = __builtin_convertvector(v, narrow);",
    "WIDEN": "v = __builtin_convertvector(*(const narrow*)g, entry);",
}
# In integers, to nearest and ties to even: a processor without the instruction may lack the function for it, too.
_CONVERSIONS_OF_BFLOAT16 = {
    "ROUND": """
    const words_f u = (words_f)v;
    *(narrow*)out = (narrow)__builtin_convertvector((u + 0x7fffu + (u >> 16 & 1u)) >> 16, shorts_f);
""",
    "WIDEN": "v = (entry)(__builtin_convertvector(*(const shorts_f*)g, words_f) << 16);",
}


@lru_cache
def _kernel(body: str, n_features: int, word: type) -> wp.Kernel:
    """`_GATHER` or `_SCATTER` as a kernel, for entries of ``n_features`` and network numbers of type ``word``.

    An index is a tile of samples and a level: the levels of one tile follow each other.
    """
    name, clang = {
        wp.float32: ("float", "float"),
        wp.bfloat16: ("wp::bfloat16", "__bf16"),
        wp.float16: ("wp::float16", "_Float16"),
    }[word]
    writes = "1" if body == _SCATTER else "0"
    text = _HEAD + _EACH.replace("BLOCKS", BLOCKS).replace("BODY", body).replace("WRITES", writes)
    for key, conversion in (_CONVERSIONS_OF_BFLOAT16 if word is wp.bfloat16 else _CONVERSIONS).items():
        text = text.replace(key, conversion)
    text = text.replace("F_", str(n_features))

    @wp.func_native(text.replace("CWORD", clang).replace("WORD", name))
    @no_type_check
    def run(
        begin: int,
        end: int,
        level: int,
        n_levels: int,
        positions: wp.array(dtype=wp.vec3f),
        scales: wp.array(dtype=wp.float32),
        resolutions: wp.array(dtype=wp.int32),
        offsets: wp.array(dtype=wp.int32),
        table: wp.array2d(dtype=wp.float32),
        features: wp.array2d(dtype=word),
    ): ...

    @wp.kernel(module="unique", grid_stride=False)
    @no_type_check
    def kernel(
        first: int,
        tile: int,
        n_levels: int,
        positions: wp.array(dtype=wp.vec3f),
        scales: wp.array(dtype=wp.float32),
        resolutions: wp.array(dtype=wp.int32),
        offsets: wp.array(dtype=wp.int32),
        table: wp.array2d(dtype=wp.float32),
        features: wp.array2d(dtype=word),
    ):
        part = first + wp.tid()
        begin = (part / n_levels) * tile
        end = wp.min(begin + tile, positions.shape[0])
        run(begin, end, part % n_levels, n_levels, positions, scales, resolutions, offsets, table, features)

    return kernel


class HashGrid:
    """The encoding of one layout on one device. It owns no table: that is the field's."""

    def __init__(self, layout: GridLayout, device: torch.device, half: float = 0.0):
        """``half`` is half the side of the cube outside of which places are contracted; 0 takes all as they are."""
        self.layout = layout
        self.device = device
        self.half = half
        self.levels = [
            torch.tensor(layout.scales, dtype=torch.float32, device=device),
            torch.tensor(layout.resolutions, dtype=torch.int32, device=device),
            torch.tensor(layout.offsets, dtype=torch.int32, device=device),
        ]
        self.pending: dict[int, list[tuple[Tensor, Tensor]]] = {}
        """Places of each `parallel` task, contracted, and the gradients of their features, until they are collected."""

    def encode(
        self, positions: Float[Tensor, "n 3"], table: Float[Tensor, "entries features"], dtype: torch.dtype
    ) -> Float[Tensor, "n width"]:
        """Features (n, n_levels * n_features) at positions in [0, 1]^3, contracted where so agreed, as ``dtype``.

        The backward pass adds to ``table.grad``, at once or, inside a `parallel` task, when `collect` is called.
        """
        positions = contract(positions, self.half)
        if torch.is_grad_enabled() and table.requires_grad:
            return _Encode.apply(positions, table, self, dtype)
        return self.forward(positions, table, dtype)

    def forward(
        self, positions: Float[Tensor, "n 3"], table: Float[Tensor, "entries features"], dtype: torch.dtype
    ) -> Float[Tensor, "n width"]:
        """`encode` without a backward pass, at places that are contracted already."""
        n_levels = self.layout.n_levels
        out = torch.empty(len(positions), n_levels * self.layout.n_features, dtype=dtype, device=self.device)
        kernel = _kernel(_GATHER, self.layout.n_features, _WORDS[dtype])
        tile = _TILE if self.device.type == "cpu" else 1
        inputs = [tile, n_levels, array(positions, wp.vec3f), *self.levels, table, out]
        launch(kernel, -(-len(positions) // tile) * n_levels, inputs, self.device)
        return out

    def backward(
        self, positions: Float[Tensor, "n 3"], gradient: Float[Tensor, "n width"], table: Float[Tensor, "m features"]
    ) -> None:
        """Add to ``table.grad`` what the features' ``gradient`` gives it, at places that are contracted already.

        Entries of zero gradient cost nothing.
        """
        if current_task() >= 0:
            self.pending.setdefault(current_task(), []).append((positions, gradient))
            return
        if table.grad is None:
            table.grad = torch.zeros_like(table)
        kernel = _kernel(_SCATTER, self.layout.n_features, _WORDS[gradient.dtype])
        # One task a level on a CPU: levels own disjoint entries, so no sum needs an atomic and its order is fixed.
        n_levels = self.layout.n_levels
        tile = max(len(positions), 1) if self.device.type == "cpu" else 1
        n_parts = -(-len(positions) // tile) * n_levels
        inputs = [tile, n_levels, array(positions, wp.vec3f), *self.levels, table.grad, gradient.contiguous()]
        launch(kernel, n_parts, inputs, self.device, n_parts=n_parts)

    def collect(self, table: Float[Tensor, "entries features"]) -> None:
        """Add what the tasks of the last `parallel` left behind to ``table.grad``, in the order of the tasks."""
        pending, self.pending = self.pending, {}
        parts = [part for task in sorted(pending) for part in pending[task]]
        if parts:
            positions, gradients = zip(*parts, strict=True)
            self.backward(torch.cat(positions), torch.cat(gradients), table)


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, positions: Tensor, table: Tensor, grid: HashGrid, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(positions)
        ctx.grid, ctx.table = grid, table
        return grid.forward(positions, table, dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, ...]:
        ctx.grid.backward(*ctx.saved_tensors, gradient, ctx.table)
        return None, None, None, None


_WORDS = {torch.float32: wp.float32, torch.bfloat16: wp.bfloat16, torch.float16: wp.float16}
