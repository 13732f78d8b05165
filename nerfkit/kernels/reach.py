"""Which entries of a table a sample in an occupied cell can reach: all others may be anything, no picture shows them.

In integers alone, so that who reads a file finds the same entries as who wrote it. Places are counted in shares of a
cell, and a margin of 1/64 of a lattice's cell to all sides holds the rounding of whoever samples there.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Bool
from torch import Tensor

from nerfkit.kernels.cells import Cells
from nerfkit.kernels.hashgrid import GridLayout
from nerfkit.kernels.launch import Native

_SHARES = 4096
"""Parts of a lattice's cell."""
_MARGIN = _SHARES // 64

_REACH = """
const int R = resolution;
const bool dense = res * res * res <= size;
const unsigned int my = dense ? (unsigned int)res : 2654435761u;
const unsigned int mz = dense ? (unsigned int)(res * res) : 805459861u;
long long n_reached = 0;
for (long long k = n_cubes - 1; k >= 0 && n_reached < size; --k) {
  // The cube is the middle 2^-(n_cubes - 1 - k) of each axis; its corner and its cells in parts of 1 / whole.
  const long long whole = (long long)R << n_cubes, side = 1LL << (k + 1), corner = (whole - side * R) / 2;
  for (int i = 0; i < R; ++i) {
    long long low = ((corner + side * i) * scale) / whole + shares / 2 - margin;
    long long high = ((corner + side * (i + 1)) * scale) / whole + shares / 2 + margin + 1;
    low = low < 0 ? 0 : low;
    firsts[i] = (int)(low / shares);
    lasts[i] = (int)(high / shares) + 1;
  }
  const unsigned char* own = occupied + k * R * R * R;
  for (int x = 0; x < R && n_reached < size; ++x) for (int y = 0; y < R; ++y) for (int z = 0; z < R; ++z) {
    if (!own[((long long)x * R + y) * R + z]) continue;
    for (unsigned int a = firsts[x]; a <= (unsigned int)lasts[x]; ++a)
      for (unsigned int b = firsts[y]; b <= (unsigned int)lasts[y]; ++b)
        for (unsigned int d = firsts[z]; d <= (unsigned int)lasts[z]; ++d) {
          unsigned int at = dense ? a + b * my + d * mz : (a ^ b * my ^ d * mz) & (unsigned int)(size - 1);
          if (at >= size) at -= (unsigned int)size;
          if (at < size && !reached[at]) { reached[at] = 1; ++n_reached; }
        }
  }
}
"""


@lru_cache
def _kernel() -> Native:
    tensors = {"occupied": "const unsigned char", "reached": "unsigned char", "firsts": "int", "lasts": "int"}
    names = ("resolution", "n_cubes", "res", "size", "scale", "shares", "margin")
    return Native("", _REACH, tensors, {name: "long long" for name in names})


def reachable(cells: Cells, layout: GridLayout, contracted: bool = False) -> Bool[Tensor, " n_entries"]:
    """Entries of a table that a sample in one of the cells can reach, on the CPU.

    Where space is ``contracted``, straight cells are bent ones of the lattice: then all entries count as reached.
    """
    reached = torch.zeros(layout.n_entries, dtype=torch.uint8)
    if contracted and cells.stepping.n_levels > 1:
        return reached == 0
    occupied = cells.occupied.cpu().to(torch.uint8).contiguous()
    r, n_cubes = cells.stepping.resolution, cells.stepping.n_levels
    between = torch.zeros(2, r, dtype=torch.int32)
    for i, (scale, res) in enumerate(zip(layout.scales, layout.resolutions, strict=True)):
        own = reached[layout.offsets[i] : layout.offsets[i + 1]]
        numbers = [r, n_cubes, res, len(own), round(scale * _SHARES), _SHARES, _MARGIN]
        _kernel()([occupied, own, between[0], between[1]], numbers)
    return reached.bool()
