"""The kernels about samples that rays reach: which they are, what is seen there, and the way back from a loss.

Each is made for a number format of the networks; `stages` puts them in their order.
"""

from functools import lru_cache
from typing import Any, no_type_check

import warp as wp

from nerfkit.kernels.ray import HARMONICS

_MAX_LOG_DENSITY = wp.constant(15.0)
WORDS = {"float32": wp.float32, "bfloat16": wp.bfloat16, "float16": wp.float16}
_NAMES = {wp.float32: "float", wp.bfloat16: "wp::bfloat16", wp.float16: "wp::half"}


_JOIN = """
const WORD* from = (const WORD*)features.data + (size_t)row * n_geo;
WORD* to = (WORD*)out.data + (size_t)i * (n_geo + n_harmonics);
for (int c = 0; c < n_geo; ++c) to[c] = from[c];
const float* d = (const float*)rays_d.data + 3 * owner;
float harmonics[16];
HARMONICS
for (int c = 0; c < n_harmonics; ++c) to[n_geo + c] = (WORD)harmonics[c];
"""
"""What the colour network sees of sample i: a row of features, and the harmonics of its ray's direction."""


@lru_cache
def join_of(word: type) -> wp.Kernel:
    """What the colour network sees of every sample: `_JOIN`."""

    @wp.func_native(_JOIN.replace("HARMONICS\n", HARMONICS).replace("WORD", _NAMES[word]))
    @no_type_check
    def run(
        i: int,
        row: int,
        owner: int,
        n_geo: int,
        n_harmonics: int,
        features: wp.array2d(dtype=word),
        rays_d: wp.array(dtype=wp.vec3f),
        out: wp.array2d(dtype=word),
    ): ...

    @wp.kernel(module="unique", grid_stride=False)
    @no_type_check
    def join(
        first: int,
        rows: wp.array(dtype=int),
        owners: wp.array(dtype=int),
        n_geo: int,
        n_harmonics: int,
        features: wp.array2d(dtype=word),
        rays_d: wp.array(dtype=wp.vec3f),
        out: wp.array2d(dtype=word),
    ):
        i = first + wp.tid()
        run(i, rows[i], owners[i], n_geo, n_harmonics, features, rays_d, out)

    return join


@wp.func
@no_type_check
def _density(features: wp.array2d(dtype=Any), i: int):
    return wp.exp(wp.min(float(features[i, 0]), _MAX_LOG_DENSITY))


@wp.func
@no_type_check
def _shade(raw: wp.array2d(dtype=Any), i: int):
    return wp.vec3f(
        1.0 / (1.0 + wp.exp(-float(raw[i, 0]))),
        1.0 / (1.0 + wp.exp(-float(raw[i, 1]))),
        1.0 / (1.0 + wp.exp(-float(raw[i, 2]))),
    )


@lru_cache
def counting_of(word: type) -> wp.Kernel:
    """How many samples each ray reaches before its optical thickness passes its limit."""

    @wp.kernel(module="unique", grid_stride=False)
    @no_type_check
    def count_reached(
        first: int,
        features: wp.array2d(dtype=word),
        t_starts: wp.array(dtype=float),
        t_ends: wp.array(dtype=float),
        packed_info: wp.array2d(dtype=int),
        limits: wp.array(dtype=float),
        counts: wp.array(dtype=int),
    ):
        r = first + wp.tid()
        start = packed_info[r, 0]
        thickness = float(0.0)
        n = int(0)
        while n < packed_info[r, 1] and thickness < limits[r]:
            thickness += _density(features, start + n) * (t_ends[start + n] - t_starts[start + n])
            n += 1
        counts[r] = n

    return count_reached


@lru_cache
def listing_of(word: type) -> wp.Kernel:
    """Where those are among the offered ones, whose they are, and (t, length, density, weight) of each; opacities."""

    @wp.kernel(module="unique", grid_stride=False)
    @no_type_check
    def list_reached(
        first: int,
        features: wp.array2d(dtype=word),
        t_starts: wp.array(dtype=float),
        t_ends: wp.array(dtype=float),
        offered_info: wp.array2d(dtype=int),
        packed_info: wp.array2d(dtype=int),
        rows: wp.array(dtype=int),
        owners: wp.array(dtype=int),
        values: wp.array(dtype=wp.vec4f),
        met: wp.array(dtype=float),
        opacity: wp.array(dtype=float),
    ):
        r = first + wp.tid()
        trans = float(1.0)
        for k in range(packed_info[r, 1]):
            i = offered_info[r, 0] + k
            j = packed_info[r, 0] + k
            dt = t_ends[i] - t_starts[i]
            sigma = _density(features, i)
            after = trans * wp.exp(-sigma * dt)
            rows[j] = i
            owners[j] = r
            values[j] = wp.vec4f(0.5 * (t_starts[i] + t_ends[i]), dt, sigma, trans - after)
            if met.shape[0] > 0:
                met[i] = sigma
            trans = after
        opacity[r] = 1.0 - trans

    return list_reached


@lru_cache
def adding_of(word: type) -> wp.Kernel:
    """What rays gather of what they reached, before their background, and the sum of weights * t."""

    @wp.kernel(module="unique", grid_stride=False)
    @no_type_check
    def add_up(
        first: int,
        raw: wp.array2d(dtype=word),
        values: wp.array(dtype=wp.vec4f),
        packed_info: wp.array2d(dtype=int),
        background: wp.array(dtype=wp.vec3f),
        opacity: wp.array(dtype=float),
        gathered: wp.array2d(dtype=float),
        t_sum: wp.array(dtype=float),
    ):
        r = first + wp.tid()
        color = (1.0 - opacity[r]) * background[r]
        placed = float(0.0)
        for c in range(3, gathered.shape[1]):
            gathered[r, c] = 0.0
        for k in range(packed_info[r, 1]):
            i = packed_info[r, 0] + k
            v = values[i]
            color += v[3] * _shade(raw, i)
            placed += v[3] * v[0]
            for c in range(3, gathered.shape[1]):
                gathered[r, c] = gathered[r, c] + v[3] * float(raw[i, c])
        for c in range(3):
            gathered[r, c] = color[c]
        t_sum[r] = placed

    return add_up


@lru_cache
def returning_of(word: type) -> wp.Kernel:
    """From what the loss says of rays back to what the colour network said, and to log densities."""

    @wp.kernel(module="unique", grid_stride=False)
    @no_type_check
    def go_back(
        first: int,
        raw: wp.array2d(dtype=word),
        values: wp.array(dtype=wp.vec4f),
        packed_info: wp.array2d(dtype=int),
        background: wp.array(dtype=wp.vec3f),
        opacity: wp.array(dtype=float),
        g_gathered: wp.array2d(dtype=float),
        reach: float,
        distortion: float,
        halfway: float,
        g_raw: wp.array2d(dtype=word),
        g_log_sigmas: wp.array(dtype=float),
    ):
        r = first + wp.tid()
        g = wp.vec3f(g_gathered[r, 0], g_gathered[r, 1], g_gathered[r, 2])
        start = packed_info[r, 0]
        count = packed_info[r, 1]
        trans = 1.0 - opacity[r]
        # Of all samples and of those behind the one in hand: sums of weights, and of weights times places.
        all_placed = float(0.0)
        later = float(0.0)
        later_placed = float(0.0)
        if distortion > 0.0:
            for k in range(count):
                v = values[start + k]
                all_placed += v[3] * v[0] / (v[0] + halfway)
        behind = trans * wp.dot(g, background[r])
        for k in range(count):
            i = start + count - 1 - k
            v = values[i]
            color = _shade(raw, i)
            q = wp.dot(g, color)
            for c in range(3, g_gathered.shape[1]):
                q += g_gathered[r, c] * float(raw[i, c])
            if distortion > 0.0:
                per = 1.0 / (v[0] + halfway)
                s = v[0] * per
                d = v[1] * halfway * per * per
                earlier = opacity[r] - later - v[3]
                earlier_placed = all_placed - later_placed - v[3] * s
                q += 2.0 * distortion * (s * (earlier - later) - earlier_placed + later_placed + v[3] * d / 3.0)
                later += v[3]
                later_placed += v[3] * s
            near = wp.min(1.0, (v[0] + 0.5 * v[1]) / reach)
            near = near * near
            g_log_sigmas[i] = near * v[1] * v[2] * (trans * q - behind)
            for c in range(3):
                g_raw[i, c] = word(near * v[3] * g[c] * color[c] * (1.0 - color[c]))
            for c in range(3, g_gathered.shape[1]):
                g_raw[i, c] = word(near * v[3] * g_gathered[r, c])
            behind += v[3] * q
            trans += v[3]

    return go_back
