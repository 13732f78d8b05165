"""What a sample does at the eight corners of its cell: the inner loop of the hash grid, one C++ text for both devices.

On a CPU an entry is one SIMD register (Clang's vector extension) and the eight corner indices are another; on CUDA an
entry is what one load or one atomic moves at once.
"""

from functools import lru_cache
from typing import no_type_check

import warp as wp

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
struct alignas(4 * F_) entry { float v[F_]; };
struct alignas(sizeof(SCALAR) * F_) kept { SCALAR v[F_]; };
struct alignas(sizeof(WORD) * F_) narrow { WORD v[F_]; };
#else
typedef float entry __attribute__((vector_size(4 * F_), aligned(4)));
typedef CSCALAR kept __attribute__((vector_size(sizeof(CSCALAR) * F_), aligned(sizeof(CSCALAR))));
typedef CWORD narrow __attribute__((vector_size(sizeof(CWORD) * F_), aligned(2)));
typedef unsigned int words_f __attribute__((vector_size(4 * F_)));
typedef unsigned short shorts_f __attribute__((vector_size(2 * F_), aligned(2)));
#endif
const float* X = (const float*)positions.data;
const float scale = ((const float*)scales.data)[level];
const int* offset = (const int*)offsets.data + level;
const unsigned int res = ((const unsigned int*)resolutions.data)[level];
const int stride = n_levels * F_;
kept* T = (kept*)table.data;
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

GATHER = """
    narrow* out = (narrow*)((WORD*)features.data + (size_t)i * stride + level * F_);
#if defined(__CUDA_ARCH__)
    // All eight entries are asked for, each in one load, before the first is used.
    kept at_corner[8];
    for (int c = 0; c < 8; ++c) at_corner[c] = T[at[c]];
    narrow rounded;
    for (int k = 0; k < F_; ++k) {
        float v[8];
        for (int c = 0; c < 8; ++c) v[c] = (float)at_corner[c].v[k];
        const float a = v[0] + wx * (v[1] - v[0]), b = v[2] + wx * (v[3] - v[2]);
        const float c = v[4] + wx * (v[5] - v[4]), d = v[6] + wx * (v[7] - v[6]);
        const float e = a + wy * (b - a), f = c + wy * (d - c);
        rounded.v[k] = (WORD)(e + wz * (f - e));
    }
    *out = rounded;
#else
    entry v_[8];
    for (int c = 0; c < 8; ++c) v_[c] = __builtin_convertvector(T[at[c]], entry);
    const entry a = v_[0] + wx * (v_[1] - v_[0]), b = v_[2] + wx * (v_[3] - v_[2]);
    const entry c = v_[4] + wx * (v_[5] - v_[4]), d = v_[6] + wx * (v_[7] - v_[6]);
    const entry e = a + wy * (b - a), f = c + wy * (d - c);
    const entry v = e + wz * (f - e);
    ROUND
#endif
"""

SCATTER = """
    const narrow* g = (const narrow*)((const WORD*)features.data + (size_t)i * stride + level * F_);
#if defined(__CUDA_ARCH__)
    const narrow rounded = *g;
    entry v;
    bool any = false;
    for (int k = 0; k < F_; ++k) { v.v[k] = (float)rounded.v[k]; any |= v.v[k] != 0.0f; }
    if (!any) continue;
    for (int q = 0; q < 8; ++q) {
        const float share = (q & 1 ? wx : 1.0f - wx) * (q & 2 ? wy : 1.0f - wy) * (q & 4 ? wz : 1.0f - wz);
        float* to = (float*)(T + at[q]);
#if __CUDA_ARCH__ >= 900
        // From Hopper on the memory adds two or four numbers that lie side by side at once.
        for (int k = 0; k + 4 <= F_; k += 4)
            atomicAdd((float4*)(to + k), make_float4(share * v.v[k], share * v.v[k + 1 < F_ ? k + 1 : k],
                      share * v.v[k + 2 < F_ ? k + 2 : k], share * v.v[k + 3 < F_ ? k + 3 : k]));
        if (F_ == 2) atomicAdd((float2*)to, make_float2(share * v.v[0], share * v.v[F_ - 1]));
        if (F_ == 1) atomicAdd(to, share * v.v[0]);
#else
        for (int k = 0; k < F_; ++k) atomicAdd(to + k, share * v.v[k]);
#endif
    }
#else
    entry v;
    WIDEN
    bool any = false;
    for (int k = 0; k < F_; ++k) any |= v[k] != 0.0f;
    if (!any) continue;
    const entry f = wz * v, e = v - f;
    const entry b = wy * e, a = e - b, d = wy * f, c = f - d;
    const entry s1 = wx * a, s3 = wx * b, s5 = wx * c, s7 = wx * d;
    T[at[0]] += a - s1; T[at[1]] += s1; T[at[2]] += b - s3; T[at[3]] += s3;
    T[at[4]] += c - s5; T[at[5]] += s5; T[at[6]] += d - s7; T[at[7]] += s7;
#endif
"""


_CONVERSIONS = {
    "ROUND": "*out = __builtin_convertvector(v, narrow);",
    "WIDEN": "v = __builtin_convertvector(*g, entry);",
}
# In integers, to nearest and ties to even: a processor without the instruction may lack the function for it, too.
_CONVERSIONS_OF_BFLOAT16 = {
    "ROUND": """
    const words_f u = (words_f)v;
    *out = (narrow)__builtin_convertvector((u + 0x7fffu + (u >> 16 & 1u)) >> 16, shorts_f);
""",
    "WIDEN": "v = (entry)(__builtin_convertvector(*(const shorts_f*)g, words_f) << 16);",
}


_NAMES = {
    wp.float32: ("float", "float"),
    wp.bfloat16: ("wp::bfloat16", "__bf16"),
    wp.float16: ("wp::half", "_Float16"),
}
"""What a type is called in CUDA's text and in a CPU's."""


@lru_cache
def kernel_of(body: str, n_features: int, word: type, scalar: type = wp.float32) -> wp.Kernel:
    """`GATHER` or `SCATTER` as a kernel, for entries of ``n_features`` numbers of type ``scalar`` and network numbers
    of type ``word``.

    An index is a tile of samples and a level. On a CPU the levels of one tile follow each other; tiles of one sample,
    as on CUDA, follow each other at each level: neighbours on a ray ask for the same entries at once.
    """
    writes = "1" if body == SCATTER else "0"
    text = _HEAD + _EACH.replace("BLOCKS", BLOCKS).replace("BODY", body).replace("WRITES", writes)
    for key, conversion in (_CONVERSIONS_OF_BFLOAT16 if word is wp.bfloat16 else _CONVERSIONS).items():
        text = text.replace(key, conversion)
    (name, clang), (kept, kept_clang) = _NAMES[word], _NAMES[scalar]
    names = {"CSCALAR": kept_clang, "SCALAR": kept, "CWORD": clang, "WORD": name, "F_": str(n_features)}
    for key, value in names.items():
        text = text.replace(key, value)

    @wp.func_native(text)
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
        table: wp.array2d(dtype=scalar),
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
        table: wp.array2d(dtype=scalar),
        features: wp.array2d(dtype=word),
        n_owned: wp.array(dtype=int),
    ):
        part = first + wp.tid()
        begin = (part / n_levels) * tile
        level = part % n_levels
        if tile == 1:
            begin = part % positions.shape[0]
            level = part / positions.shape[0]
        end = wp.min(begin + tile, positions.shape[0])
        if n_owned.shape[0] > 0:
            end = wp.min(end, n_owned[0])
        run(begin, end, level, n_levels, positions, scales, resolutions, offsets, table, features)

    return kernel
