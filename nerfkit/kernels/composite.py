"""Packed compositing: colour, opacity and distance of rays from their samples, front to back, with early stop.

With density sigma_i, colour c_i, length d_i and middle t_i of a ray's samples (Max 1995, eq. 10; Mildenhall et al.
2020, eq. 3):

    T_i = exp(-sum_{j<i} sigma_j d_j),  w_i = T_i (1 - exp(-sigma_i d_i)),
    rgb = sum_i w_i c_i + T_n background,  opacity = 1 - T_n,  distance = sum_i w_i t_i.

For q_i = <g_rgb, c_i> + g_distance t_i + g_w_i the gradients are

    dL/dsigma_i = d_i (T_{i+1} q_i - sum_{j>i} w_j q_j - T_n (<g_rgb, background> - g_opacity)),
    dL/dc_i = w_i g_rgb,  dL/dbackground = T_n g_rgb.
"""

from typing import Any, no_type_check

import torch
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor

from nerfkit.kernels.launch import array, launch
from nerfkit.kernels.march import packed
from nerfkit.types import Samples


@wp.kernel(module="nerfkit.kernels.composite", grid_stride=False)
@no_type_check
def _count_visible(
    first: int,
    sigmas: wp.array(dtype=float),
    t_starts: wp.array(dtype=float),
    t_ends: wp.array(dtype=float),
    packed_info: wp.array2d(dtype=int),
    limit: float,
    counts: wp.array(dtype=int),
):
    r = first + wp.tid()
    start = packed_info[r, 0]
    count = packed_info[r, 1]
    thickness = float(0.0)
    n = int(0)
    while n < count and thickness < limit:
        thickness += sigmas[start + n] * (t_ends[start + n] - t_starts[start + n])
        n += 1
    counts[r] = n


@wp.kernel(module="nerfkit.kernels.composite", grid_stride=False)
@no_type_check
def _keep_visible(
    first: int,
    old_info: wp.array2d(dtype=int),
    new_info: wp.array2d(dtype=int),
    old_starts: wp.array(dtype=float),
    old_ends: wp.array(dtype=float),
    t_starts: wp.array(dtype=float),
    t_ends: wp.array(dtype=float),
    ray_indices: wp.array(dtype=int),
    rows: wp.array(dtype=int),
):
    r = first + wp.tid()
    source = old_info[r, 0]
    target = new_info[r, 0]
    for k in range(new_info[r, 1]):
        t_starts[target + k] = old_starts[source + k]
        t_ends[target + k] = old_ends[source + k]
        ray_indices[target + k] = r
        rows[target + k] = source + k


def keep_visible(
    samples: Samples, sigmas: Float[Tensor, " n_samples"], early_stop: float
) -> tuple[Samples, Int[Tensor, " n_kept"]]:
    """The samples that are reached with a transmittance of at least ``early_stop``, and their rows among the old ones.

    Not differentiable. What is dropped would have changed a pixel by less than ``early_stop``.
    """
    n, device = len(samples.packed_info), sigmas.device
    counts = torch.empty(n, dtype=torch.int32, device=device)
    limit = float(-torch.log(torch.tensor(early_stop)))
    old = [samples.t_starts, samples.t_ends]
    launch(_count_visible, n, [sigmas, *old, samples.packed_info, limit, counts], device)
    packed_info, total, padded = packed(counts)
    t_starts, t_ends = torch.empty(2, padded, device=device)
    ray_indices, rows = torch.empty(2, padded, dtype=torch.int32, device=device)
    new = [t_starts, t_ends, ray_indices, rows]
    for values in new:
        values[total:] = 0
    launch(_keep_visible, n, [samples.packed_info, packed_info, *old, *new], device)
    return Samples(packed_info, ray_indices, t_starts, t_ends, total), rows


@wp.kernel(module="nerfkit.kernels.composite", grid_stride=False)
@no_type_check
def _forward(
    first: int,
    sigmas: wp.array(dtype=float),
    rgbs: wp.array(dtype=wp.vec3f),
    t_starts: wp.array(dtype=float),
    t_ends: wp.array(dtype=float),
    packed_info: wp.array2d(dtype=int),
    background: wp.array(dtype=wp.vec3f),
    rgb: wp.array(dtype=wp.vec3f),
    opacity: wp.array(dtype=float),
    distance: wp.array(dtype=float),
    weights: wp.array(dtype=float),
):
    r = first + wp.tid()
    start = packed_info[r, 0]
    trans = float(1.0)
    color = wp.vec3f()
    t_sum = float(0.0)
    for i in range(start, start + packed_info[r, 1]):
        after = trans * wp.exp(-sigmas[i] * (t_ends[i] - t_starts[i]))
        w = trans - after
        color += w * rgbs[i]
        t_sum += w * 0.5 * (t_starts[i] + t_ends[i])
        weights[i] = w
        trans = after
    rgb[r] = color + trans * background[r]
    opacity[r] = 1.0 - trans
    distance[r] = t_sum


@wp.kernel(module="nerfkit.kernels.composite", grid_stride=False)
@no_type_check
def _backward(
    first: int,
    rgbs: wp.array(dtype=wp.vec3f),
    t_starts: wp.array(dtype=float),
    t_ends: wp.array(dtype=float),
    packed_info: wp.array2d(dtype=int),
    background: wp.array(dtype=wp.vec3f),
    opacity: wp.array(dtype=float),
    weights: wp.array(dtype=float),
    g_rgb: wp.array(dtype=wp.vec3f),
    g_opacity: wp.array(dtype=float),
    g_distance: wp.array(dtype=float),
    g_weights: wp.array(dtype=float),
    reach: float,
    g_sigmas: wp.array(dtype=float),
    g_rgbs: wp.array(dtype=wp.vec3f),
    g_background: wp.array(dtype=wp.vec3f),
):
    r = first + wp.tid()
    start = packed_info[r, 0]
    count = packed_info[r, 1]
    g = g_rgb[r]
    g_t = g_distance[r]
    trans = 1.0 - opacity[r]
    g_background[r] = trans * g
    # Back to front: ``behind`` is what the ray would lose if the sample in hand were opaque.
    behind = trans * (wp.dot(g, background[r]) - g_opacity[r])
    for k in range(count):
        i = start + count - 1 - k
        q = wp.dot(g, rgbs[i]) + g_t * 0.5 * (t_starts[i] + t_ends[i]) + g_weights[i]
        near = wp.min(1.0, t_ends[i] / reach)
        g_sigmas[i] = near * near * (t_ends[i] - t_starts[i]) * (trans * q - behind)
        g_rgbs[i] = near * near * weights[i] * g
        behind += weights[i] * q
        trans += weights[i]


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, sigmas: Tensor, rgbs: Tensor, samples: Samples, background: Tensor, reach: float
    ) -> tuple[Tensor, ...]:
        info, t_starts, t_ends = samples.packed_info, samples.t_starts, samples.t_ends
        n, device = len(info), sigmas.device
        rgb = torch.empty(n, 3, device=device)
        opacity, distance = torch.empty(2, n, device=device)
        weights = torch.empty_like(sigmas)
        weights[samples.n_owned :] = 0.0
        ctx.save_for_backward(rgbs, t_starts, t_ends, info, background, opacity, weights)
        ctx.n_owned, ctx.reach = samples.n_owned, max(reach, 1e-9)
        ctx.set_materialize_grads(True)
        inputs = [sigmas, array(rgbs, wp.vec3f), t_starts, t_ends, info, array(background, wp.vec3f)]
        launch(_forward, n, [*inputs, array(rgb, wp.vec3f), opacity, distance, weights], device)
        return rgb, opacity, distance, weights

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rgbs, t_starts, t_ends, info, background, opacity, weights = ctx.saved_tensors
        g_rgb, g_opacity, g_distance, g_weights = (g.contiguous() for g in gradients)
        g_sigmas, g_rgbs, g_background = torch.empty_like(weights), torch.empty_like(rgbs), torch.empty_like(background)
        g_sigmas[ctx.n_owned :] = 0.0
        g_rgbs[ctx.n_owned :] = 0.0
        inputs = [array(rgbs, wp.vec3f), t_starts, t_ends, info, array(background, wp.vec3f), opacity, weights]
        inputs += [array(g_rgb, wp.vec3f), g_opacity, g_distance, g_weights, ctx.reach]
        outputs = [g_sigmas, array(g_rgbs, wp.vec3f), array(g_background, wp.vec3f)]
        launch(_backward, len(info), inputs + outputs, weights.device)
        return g_sigmas, g_rgbs, None, g_background, None


def composite(
    sigmas: Float[Tensor, " n_samples"],
    rgbs: Float[Tensor, "n_samples 3"],
    samples: Samples,
    background: Float[Tensor, "n_rays 3"],
    reach: float = 0.0,
) -> tuple[Float[Tensor, "n_rays 3"], Float[Tensor, " n_rays"], Float[Tensor, " n_rays"], Float[Tensor, " n_samples"]]:
    """Colour, opacity, sum of weights * t, and the weights; the formulas stand in this file's head.

    Differentiable in ``sigmas``, ``rgbs`` and ``background``. A ray without samples is its background.

    Space close to a camera is sampled far more densely by its own rays than by any others, and so collects haze that
    only this camera sees. Gradients of samples nearer than ``reach`` are therefore scaled by (t / reach)^2 (Philip and
    Deschaintre 2023, eq. 6): with a positive ``reach`` they are not those of the formulas.
    """
    return _Composite.apply(sigmas, rgbs.contiguous(), samples, background.contiguous(), reach)


def gather(
    weights: Float[Tensor, " n_samples"], values: Float[Tensor, "n_samples c"], samples: Samples, reach: float = 0.0
) -> Float[Tensor, "n_rays c"]:
    """Sum of weights * values over each ray's samples, for numbers that are no colours.

    Differentiable in both. Gradients of values near a camera are damped as those of colours are; weights pass theirs on
    to `composite`, which damps them.
    """
    n = samples.n_owned
    share = (samples.t_ends[:n] / max(reach, 1e-9)).clamp(max=1.0).square()[:, None]
    values = values[:n].float()
    values = share * values + (1.0 - share) * values.detach()
    nothing = values.new_zeros(len(samples.packed_info), values.shape[1])
    return nothing.index_add(0, samples.ray_indices[:n].long(), weights[:n, None] * values)
