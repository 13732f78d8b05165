"""Proposals for whole rays in one kernel, for a CPU core: long steps, a small network, new intervals of its weights.

What `march`, `HashGrid.encode` and a few dozen operations on tensors do over all rays (`sampling.proposal`, the twin of
this), sixteen steps of one ray at a time: the interpreter would take longer for them than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from nerfkit.kernels.cells import Cells
from nerfkit.kernels.contraction import CONTRACTION
from nerfkit.kernels.corners import BLOCK, BLOCKS
from nerfkit.kernels.hashgrid import HashGrid
from nerfkit.kernels.launch import Native
from nerfkit.kernels.march import ROWS
from nerfkit.kernels.ray import ENTER, MARCH, VECTORS
from nerfkit.types import Rays, Samples

_BODY = """
#define INLINE static inline __attribute__((always_inline))
typedef float word;
PIECES
struct blend {
  // What a table of one number an entry holds at 16 places of a level.
  INLINE floats at(const level_cells& from, const float* T) {
    floats v[8];
    for (int c = 0; c < 8; ++c) for (int i = 0; i < 16; ++i) v[c][i] = T[from.corner[c][i]];
    const floats x = *(const floats*)from.within[0], y = *(const floats*)from.within[1];
    const floats z = *(const floats*)from.within[2];
    const floats a = v[0] + x * (v[1] - v[0]), b = v[2] + x * (v[3] - v[2]);
    const floats c = v[4] + x * (v[5] - v[4]), d = v[6] + x * (v[7] - v[6]);
    const floats e = a + y * (b - a), f = c + y * (d - c);
    return e + z * (f - e);
  }
};
//BODY
float begins[MOST + B], ends[MOST + B];
double weight[MOST + B];
int at = 0;
for (int r = 0; r < n_rays; ++r) {
  ENTER
  int total = 0;
  double thickness = 0.0;
  while (total < MOST) {
    alignas(64) float t_starts[B], step[B];
    int cells[B], n = 0;
    MARCH
    if (n == 0) break;
    for (int i = n; i < B; ++i) { t_starts[i] = t_starts[n - 1]; step[i] = step[n - 1]; }
    const floats middle = *(floats*)t_starts + 0.5f * *(floats*)step;
    floats x[3];
    for (int c = 0; c < 3; ++c) x[c] = lanes::clamp(o[c] + middle * d[c], 0.0f, 1.0f);
    contraction::of(x, half_side);
    floats f[LEVELS];
    level_cells found;
    for (int level = 0; level < LEVELS; ++level) {
      found.find(x, scales[level], offsets + level, resolutions[level]);
      f[level] = blend::at(found, table);
    }
    floats answer = floats{} + last_bias[0];
    for (int h = 0; h < WIDTH; ++h) {
      floats sum = floats{} + hidden_bias[h];
      for (int level = 0; level < LEVELS; ++level) sum += hidden[h * LEVELS + level] * f[level];
      answer += last[h] * (sum > 0.0f ? sum : floats{});
    }
    const floats sigma = lanes::exp(answer);
    for (int i = 0; i < n && total < MOST; ++i, ++total) {
      begins[total] = t_starts[i];
      ends[total] = t_starts[i] + step[i];
      const double more = (double)sigma[i] * step[i];
      weight[total] = ::exp(-thickness) - ::exp(-thickness - more);
      thickness += more;
    }
  }
  int count = 0;
  if (total > 0) {
    const double opacity = 1.0 - ::exp(-thickness);
    count = (int)::ceil(n_proposed * ::pow(opacity, (double)believed));
    count = count < fewest ? fewest : count;
    double sum = 0.0;
    for (int i = 0; i < total; ++i) {
      weight[i] = ::pow(weight[i] > 0.0 ? weight[i] : 0.0, (double)believed) + floor / total;
      sum += weight[i];
    }
    double before = 0.0;
    float border = begins[0];
    int i = 0, run = 0;  // the interval that holds the border, and the last one before the next gap
    for (int k = 0; k < count; ++k) {
      while (run < i || (run + 1 < total && begins[run + 1] - ends[run] <= 1e-5f)) ++run;
      const float begin = border, latest = ends[run];
      const double wanted = k + 1 == count ? sum : (k + 0.5 + jitter[r]) / count * sum;
      while (i + 1 < total && before + weight[i] < wanted) before += weight[i++];
      const double share = (wanted - before) / weight[i];
      border = begins[i] + (float)(share < 0.0 ? 0.0 : share > 1.0 ? 1.0 : share) * (ends[i] - begins[i]);
      new_starts[at + k] = begin;
      new_ends[at + k] = border < latest ? border : latest;
      owners[at + k] = r;
    }
  }
  packed_info[2 * r] = at;
  packed_info[2 * r + 1] = count;
  at += count;
}
"""


@lru_cache
def _native(n_levels: int, width: int, most: int) -> Native:
    tensors = {"rays_o": "const float", "rays_d": "const float", "jitter": "const float"}
    tensors |= {"bits": "const int", "clear": "const unsigned char"}
    tensors |= {"scales": "const float", "resolutions": "const unsigned", "offsets": "const int"}
    tensors |= {"table": "const float", "hidden": "const float", "hidden_bias": "const float"}
    tensors |= {"last": "const float", "last_bias": "const float"}
    tensors |= {"packed_info": "int", "owners": "int", "new_starts": "float", "new_ends": "float"}
    numbers = {"n_rays": "int", "half_side": "float", "believed": "float", "floor": "float"}
    numbers |= {"n_proposed": "int", "fewest": "int"}
    numbers |= {"n_levels": "int", "res": "int", "cone_angle": "float", "min_step": "float", "max_step": "float"}
    numbers |= {"near_plane": "float", "far_plane": "float"}
    text = _BODY.replace("PIECES", BLOCKS + VECTORS + CONTRACTION).replace("ENTER\n", ENTER).replace("MARCH\n", MARCH)
    constants = {"BLOCK_": BLOCK, "VALUES_": 1, "FEATURES": 1, "STORED": "float"}
    constants |= {"LEVELS": n_levels, "WIDTH": width, "MOST": most}
    for name, value in constants.items():
        text = text.replace(name, str(value))
    head, _, body = text.partition("//BODY")
    return Native(head, body, tensors, numbers)


@dataclass(frozen=True)
class Believed:
    """How a proposal is turned into intervals."""

    exponent: float
    """Of the weights, in [0, 1]: 0 trusts none of them."""
    floor: float
    """Weight that is shared by all long steps of a ray, whatever is proposed."""
    fewest: int
    most: int
    """Intervals of a ray, from an empty to an opaque one."""


def propose(
    cells: Cells,
    rays: Rays,
    jitter: Float[Tensor, " n_rays"],
    grid: HashGrid,
    parameters: Sequence[Tensor],
    believed: Believed,
) -> Samples:
    """Intervals of rays (model coordinates): `sampling.proposal.ProposalSampler.sample` on a CPU core.

    ``cells`` are stepped through, ``parameters`` are the guide's table and matrices. Not differentiable.
    """
    table, hidden, hidden_bias, last, last_bias = (parameter.detach() for parameter in parameters)
    n, s = len(rays), cells.stepping
    room = -(-n * max(believed.most, believed.fewest) // ROWS) * ROWS
    packed_info = torch.empty(n, 2, dtype=torch.int32)
    owners, starts, ends = torch.zeros(room, dtype=torch.int32), torch.zeros(room), torch.zeros(room)
    tensors = [rays.rays_o.contiguous(), rays.rays_d.contiguous(), jitter.contiguous(), cells.bits, cells.clear]
    tensors += [*grid.levels, table, hidden, hidden_bias, last, last_bias, packed_info, owners, starts, ends]
    numbers = [n, grid.half, believed.exponent, believed.floor, believed.most, believed.fewest]
    numbers += [s.n_levels, s.resolution, s.cone_angle, s.min_step, s.max_step, s.near_plane, s.far_plane]
    _native(grid.layout.n_levels, len(hidden), s.max_samples)(tensors, numbers)
    total = int(packed_info[-1].sum()) if n else 0
    rows = slice(0, -(-total // ROWS) * ROWS)
    return Samples(packed_info, owners[rows], starts[rows], ends[rows], total)
