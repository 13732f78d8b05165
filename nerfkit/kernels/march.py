"""Occupancy-guided marching: rays step through a multi-level bit grid and keep the steps in occupied cells.

The grid covers the unit cube. Level k of K is a cube of side 2^(k - K + 1) about the centre, with resolution^3 cells; a
position belongs to the innermost level that holds it and whose cells are not smaller than the step there. A step is
``clamp(t * cone_angle, min_step, max_step)``: constant for objects, growing with distance in unbounded captures
(Mueller et al. 2022, appendix E). Empty space is left in one go, whole blocks of 8^3 cells first, without leaving the
lattice of steps, so that a jittered ray samples its interval uniformly.
"""

from dataclasses import dataclass
from typing import no_type_check

import torch
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor

from nerfkit.kernels.launch import array, launch
from nerfkit.types import Rays, Samples

BLOCK = 8
"""Cells along one side of a block: one bit of the coarse grid."""


ROWS = 1024
"""Samples come in multiples of this: matrix products prepare themselves anew for each new shape, at a cost."""


@dataclass(frozen=True)
class Stepping:
    """How rays step; lengths in model units."""

    n_levels: int
    resolution: int
    cone_angle: float
    min_step: float
    max_step: float
    near_plane: float = 0.0
    far_plane: float = 1.0e9
    max_samples: int = 1024
    """A ray ends after this many samples."""


@wp.struct
@no_type_check
class _Steps:
    n_levels: int
    resolution: int
    cone_angle: float
    min_step: float
    max_step: float
    near_plane: float
    far_plane: float
    max_samples: int


@wp.func
@no_type_check
def _step_length(t: float, s: _Steps):
    return wp.clamp(t * s.cone_angle, s.min_step, s.max_step)


@wp.func
@no_type_check
def _exit(x: wp.vec3f, inverse: wp.vec3f, cells: float):
    """Distance to the far side of the cell of side 1 / cells that holds x (from the corner of its cube)."""
    u = x * cells
    tx = (wp.floor(u[0]) + wp.where(inverse[0] > 0.0, 1.0, 0.0) - u[0]) * inverse[0]
    ty = (wp.floor(u[1]) + wp.where(inverse[1] > 0.0, 1.0, 0.0) - u[1]) * inverse[1]
    tz = (wp.floor(u[2]) + wp.where(inverse[2] > 0.0, 1.0, 0.0) - u[2]) * inverse[2]
    return wp.min(tx, wp.min(ty, tz)) / cells


@wp.func
@no_type_check
def _inverse(d: float):
    return 1.0 / wp.where(wp.abs(d) < 1.0e-9, 1.0e-9, d)


@wp.func
@no_type_check
def _skip(
    x: wp.vec3f,
    dt: float,
    inverse: wp.vec3f,
    bits: wp.array(dtype=wp.int32),
    blocks: wp.array(dtype=wp.int32),
    s: _Steps,
):
    """How far a ray may go on from a step about x that lies in an empty cell or block; below 0 in an occupied cell."""
    res = s.resolution
    n_blocks = res / 8
    level = s.n_levels - 1
    side = float(1.0)
    if level > 0:
        reach = wp.max(wp.max(wp.abs(x[0] - 0.5), wp.abs(x[1] - 0.5)), wp.abs(x[2] - 0.5))
        while level > 0 and reach < 0.25 * side and 0.5 * side >= dt * float(res):
            side *= 0.5
            level -= 1
    cells = float(res) / side
    low = 0.5 - 0.5 * side
    y = x - wp.vec3f(low, low, low)
    ix = wp.clamp(int(y[0] * cells), 0, res - 1)
    iy = wp.clamp(int(y[1] * cells), 0, res - 1)
    iz = wp.clamp(int(y[2] * cells), 0, res - 1)
    block = ((level * n_blocks + (ix >> 3)) * n_blocks + (iy >> 3)) * n_blocks + (iz >> 3)
    if ((blocks[block >> 5] >> (block & 31)) & 1) == 0:
        return _exit(y, inverse, 0.125 * cells)
    index = ((level * res + ix) * res + iy) * res + iz
    if ((bits[index >> 5] >> (index & 31)) & 1) == 0:
        return _exit(y, inverse, cells)
    return float(-1.0)


@wp.kernel(module="nerfkit.kernels.march", grid_stride=False)
@no_type_check
def _march(
    first: int,
    rays_o: wp.array(dtype=wp.vec3f),
    rays_d: wp.array(dtype=wp.vec3f),
    jitter: wp.array(dtype=float),
    bits: wp.array(dtype=wp.int32),
    blocks: wp.array(dtype=wp.int32),
    s: _Steps,
    packed_info: wp.array2d(dtype=int),
    t_starts: wp.array(dtype=float),
    t_ends: wp.array(dtype=float),
    ray_indices: wp.array(dtype=int),
    begins: wp.array(dtype=float),
    counts: wp.array(dtype=int),
    ends: wp.array(dtype=float),
):
    # Without places for them, a ray's steps are counted; with places, as many are written as it has. It sets out where
    # it is told to, if it is, and tells where it would go on.
    r = first + wp.tid()
    o = rays_o[r]
    d = rays_d[r]
    inverse = wp.vec3f(_inverse(d[0]), _inverse(d[1]), _inverse(d[2]))
    a = wp.cw_mul(-o, inverse)
    b = a + inverse
    t_min = wp.max(wp.max(wp.min(a[0], b[0]), wp.min(a[1], b[1])), wp.max(wp.min(a[2], b[2]), s.near_plane))
    t_max = wp.min(wp.min(wp.max(a[0], b[0]), wp.max(a[1], b[1])), wp.min(wp.max(a[2], b[2]), s.far_plane))
    n = int(0)
    start = int(0)
    most = s.max_samples
    writing = packed_info.shape[0] > 0
    if writing:
        start = packed_info[r, 0]
        most = packed_info[r, 1]
    t = t_min + jitter[r] * _step_length(t_min, s)
    if begins.shape[0] > 0:
        t = wp.max(t, begins[r])
    while t < t_max and n < most:
        dt = _step_length(t, s)
        skip = _skip(o + (t + 0.5 * dt) * d, dt, inverse, bits, blocks, s)
        if skip < 0.0:
            if writing:
                t_starts[start + n] = t
                t_ends[start + n] = t + dt
                ray_indices[start + n] = r
            n += 1
            t += dt
        elif s.cone_angle == 0.0:
            t += wp.max(wp.ceil(skip / dt), 1.0) * dt
        else:
            target = t + skip
            t += dt
            while t < target:
                t += _step_length(t, s)
    if not writing:
        counts[r] = n
        ends[r] = t


@wp.kernel(module="nerfkit.kernels.march", grid_stride=False)
@no_type_check
def _positions(
    first: int,
    rays_o: wp.array(dtype=wp.vec3f),
    rays_d: wp.array(dtype=wp.vec3f),
    ray_indices: wp.array(dtype=int),
    t_starts: wp.array(dtype=float),
    t_ends: wp.array(dtype=float),
    positions: wp.array(dtype=wp.vec3f),
):
    i = first + wp.tid()
    r = ray_indices[i]
    x = rays_o[r] + 0.5 * (t_starts[i] + t_ends[i]) * rays_d[r]
    positions[i] = wp.vec3f(wp.clamp(x[0], 0.0, 1.0), wp.clamp(x[1], 0.0, 1.0), wp.clamp(x[2], 0.0, 1.0))


def packed(counts: Int[Tensor, " n_rays"]) -> tuple[Int[Tensor, "n_rays 2"], int, int]:
    """(start, count) of each ray from the counts alone, their sum, and that sum rounded up to a repeating shape."""
    ends = counts.cumsum(0, dtype=torch.int32)
    total = int(ends[-1]) if len(counts) else 0
    return torch.stack([ends - counts, counts], 1), total, -(-total // ROWS) * ROWS


def march(
    rays: Rays,
    jitter: Float[Tensor, " n_rays"],
    bits: Int[Tensor, " words"],
    blocks: Int[Tensor, " block_words"],
    stepping: Stepping,
) -> Samples:
    """Steps of rays (model coordinates) in occupied cells; see the head of this file.

    ``bits`` holds one bit a cell, in the order [level, x, y, z], bit i % 32 of word i // 32; ``blocks`` the same for
    blocks of 8^3 cells, set where any of their cells is. ``jitter`` in [0, 1) shifts a ray's lattice by that part of
    a step. Not differentiable.
    """
    return march_on(rays, jitter, bits, blocks, stepping, None)[0]


def march_on(
    rays: Rays,
    jitter: Float[Tensor, " n_rays"],
    bits: Int[Tensor, " words"],
    blocks: Int[Tensor, " block_words"],
    stepping: Stepping,
    begins: Float[Tensor, " n_rays"] | None,
) -> tuple[Samples, Float[Tensor, " n_rays"]]:
    """`march` from ``begins`` on, which are places that it has ended at before, and the places at which it ends now."""
    where = rays, jitter, bits, blocks, stepping
    counts, ends = _walk(*where, None, begins)
    packed_info, total, n_rows = packed(counts)
    rows = _rows_for(n_rows, rays.rays_o.device)
    for values in rows:
        values[total:] = 0
    _walk(*where, (packed_info, *rows), begins)
    t_starts, t_ends, ray_indices = rows
    return Samples(packed_info, ray_indices, t_starts, t_ends, total), ends


def march_within(
    rays: Rays,
    jitter: Float[Tensor, " n_rays"],
    bits: Int[Tensor, " words"],
    blocks: Int[Tensor, " block_words"],
    stepping: Stepping,
    capacity: int,
) -> Samples:
    """`march` where there is room for ``capacity`` samples of all rays together, behind which rays have none.

    The host is told nothing, so that it need not wait: ``n_owned`` is the capacity, and rows that no ray owns are
    zeros.
    """
    counts, _ = _walk(rays, jitter, bits, blocks, stepping, None)
    packed_info = packed_within(counts, capacity)
    rows = _rows_for(capacity, rays.rays_o.device)
    for values in rows:
        values.zero_()
    _walk(rays, jitter, bits, blocks, stepping, (packed_info, *rows))
    t_starts, t_ends, ray_indices = rows
    return Samples(packed_info, ray_indices, t_starts, t_ends, capacity)


def packed_within(counts: Int[Tensor, " n_rays"], capacity: int) -> Int[Tensor, "n_rays 2"]:
    """(start, count) of each ray from the counts alone, where the room for all ends at ``capacity``."""
    starts = counts.cumsum(0, dtype=torch.int32) - counts
    return torch.stack([starts.clamp(max=capacity), torch.minimum(counts, capacity - starts).clamp(min=0)], 1)


def _rows_for(n: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Room for the beginnings and ends of n samples, and for whose they are."""
    return *torch.empty(2, n, device=device), torch.empty(n, dtype=torch.int32, device=device)


def _walk(
    rays: Rays,
    jitter: Tensor,
    bits: Tensor,
    blocks: Tensor,
    stepping: Stepping,
    places: tuple[Tensor, ...] | None,
    begins: Tensor | None = None,
) -> tuple[Int[Tensor, " n_rays"], Float[Tensor, " n_rays"]]:
    """How many steps each ray takes in occupied cells, and where it ends; or, given places, write the steps down."""
    s = _Steps()
    for name in _Steps.vars:
        setattr(s, name, getattr(stepping, name))
    device = rays.rays_o.device
    counts, ends = torch.empty(len(rays), dtype=torch.int32, device=device), torch.empty(len(rays), device=device)
    nowhere = counts.new_empty(0, 2), *_rows_for(0, device)
    o, d = array(rays.rays_o, wp.vec3f), array(rays.rays_d, wp.vec3f)
    begins = ends.new_empty(0) if begins is None else begins
    launch(_march, len(rays), [o, d, jitter, bits, blocks, s, *(places or nowhere), begins, counts, ends], device)
    return counts, ends


def sample_positions(rays: Rays, samples: Samples) -> Float[Tensor, "n_samples 3"]:
    """Middles of the samples, clamped to the unit cube (a step may straddle its face). Not differentiable."""
    positions = torch.empty(len(samples), 3, device=rays.rays_o.device)
    o, d = array(rays.rays_o, wp.vec3f), array(rays.rays_d, wp.vec3f)
    inputs = [o, d, samples.ray_indices, samples.t_starts, samples.t_ends, array(positions, wp.vec3f)]
    launch(_positions, len(samples), inputs, positions.device)
    return positions
