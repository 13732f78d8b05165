"""The occupancy grid's own kernels: densities seen on the way go in, bits for the marcher come out."""

from typing import no_type_check

import torch
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor

from nerfkit.kernels.launch import array, launch
from nerfkit.types import Samples

UNKNOWN = wp.constant(1.0e9)
"""Value of a cell that no sample has visited: occupied until one has."""


@wp.kernel(module="nerfkit.kernels.occupancy", grid_stride=False)
@no_type_check
def _observe(
    first: int,
    n: int,
    positions: wp.array(dtype=wp.vec3f),
    t_starts: wp.array(dtype=float),
    t_ends: wp.array(dtype=float),
    sigmas: wp.array(dtype=float),
    n_levels: int,
    res: int,
    values: wp.array(dtype=float),
):
    begin = (first + wp.tid()) * n
    for i in range(begin, wp.min(begin + n, sigmas.shape[0])):
        x = positions[i]
        dt = t_ends[i] - t_starts[i]
        if dt <= 0.0:
            continue
        reach = wp.max(wp.max(wp.abs(x[0] - 0.5), wp.abs(x[1] - 0.5)), wp.abs(x[2] - 0.5))
        level = n_levels - 1
        side = float(1.0)
        while level > 0 and reach < 0.25 * side and 0.5 * side >= dt * float(res):
            side *= 0.5
            level -= 1
        cells = float(res) / side
        low = 0.5 - 0.5 * side
        ix = wp.clamp(int((x[0] - low) * cells), 0, res - 1)
        iy = wp.clamp(int((x[1] - low) * cells), 0, res - 1)
        iz = wp.clamp(int((x[2] - low) * cells), 0, res - 1)
        wp.atomic_max(values, ((level * res + ix) * res + iy) * res + iz, sigmas[i])


def observe(
    positions: Float[Tensor, "n 3"],
    samples: Samples,
    sigmas: Float[Tensor, " n"],
    resolution: int,
    values: Float[Tensor, "levels cells"],
) -> None:
    """Raise each cell's value to the largest density among the samples that lie in it, in place.

    Rows without a length are of no sample.
    """
    n = samples.n_owned if positions.device.type == "cpu" else 1  # one thread on a CPU: cells are shared
    columns = [samples.t_starts[: samples.n_owned], samples.t_ends[: samples.n_owned], sigmas[: samples.n_owned]]
    inputs = [n, array(positions, wp.vec3f), *columns, len(values), resolution, values.view(-1)]
    launch(_observe, -(-samples.n_owned // max(n, 1)), inputs, positions.device)


@wp.kernel(module="nerfkit.kernels.occupancy", grid_stride=False)
@no_type_check
def _fold(
    first: int,
    values: wp.array(dtype=float),
    window: wp.array(dtype=float),
    decay: float,
    stale: float,
    sums: wp.array(dtype=float),
    counts: wp.array(dtype=float),
):
    word = first + wp.tid()
    total = float(0.0)
    known = float(0.0)
    for k in range(32):
        i = word * 32 + k
        v = values[i]
        seen = window[i]
        if seen >= 0.0:
            window[i] = -1.0
            if v >= 0.0:
                v = wp.where(v < UNKNOWN, wp.max(v * decay, seen), seen)
                values[i] = v
        elif v >= 0.0 and v < UNKNOWN:
            v *= stale
            values[i] = v
        if v >= 0.0 and v < UNKNOWN:
            total += v
            known += 1.0
    sums[word] = total
    counts[word] = known


def fold(
    values: Float[Tensor, "levels cells"], window: Float[Tensor, "levels cells"], decay: float, stale: float = 1.0
) -> Float[Tensor, ""]:
    """Let ``values`` take in what ``window`` saw and clear that, both in place; returns the mean of known values, which
    stays on the device.

    A visited cell becomes max(value * decay, seen), or what was seen if its value was `UNKNOWN`; the value of another
    one that is known is multiplied by ``stale``.
    ``window`` holds -1 where nothing was seen; negative values mark cells that are never occupied, even where a sample
    beside them was rounded into them.
    """
    n = values.numel() // 32
    sums, counts = torch.empty(2, n, device=values.device)
    launch(_fold, n, [values.view(-1), window.view(-1), decay, stale, sums, counts], values.device)
    return sums.sum() / counts.sum().clamp(min=1.0)


@wp.kernel(module="nerfkit.kernels.occupancy", grid_stride=False)
@no_type_check
def _pack(
    first: int,
    values: wp.array(dtype=float),
    threshold: wp.array(dtype=float),
    bits: wp.array(dtype=wp.int32),
):
    word = first + wp.tid()
    out = int(0)
    for k in range(32):
        v = values[word * 32 + k]
        out = out | (wp.where(v > threshold[0], 1, 0) << k)
    bits[word] = out


@wp.kernel(module="nerfkit.kernels.occupancy", grid_stride=False)
@no_type_check
def _pack_blocks(first: int, bits: wp.array(dtype=wp.int32), res: int, blocks: wp.array(dtype=wp.int32)):
    word = first + wp.tid()
    n = res / 8
    out = int(0)
    for k in range(32):
        block = word * 32 + k
        level = block / (n * n * n)
        bx = block / (n * n) % n
        by = block / n % n
        bz = block % n
        found = int(0)
        for row in range(64):
            cell = ((level * res + bx * 8 + row / 8) * res + by * 8 + row % 8) * res + bz * 8
            found = found | ((bits[cell >> 5] >> (cell & 31)) & 255)
        out = out | (wp.where(found != 0, 1, 0) << k)
    blocks[word] = out


def pack_bits(
    values: Float[Tensor, "levels cells"], threshold: float | Float[Tensor, ""], resolution: int
) -> tuple[Int[Tensor, " words"], Int[Tensor, " block_words"]]:
    """Bits of the cells whose value exceeds ``threshold``, and of the 8^3 blocks that hold such a cell.

    ``resolution`` must be a multiple of 32, so that every word belongs to one level.
    """
    bits = torch.empty(values.numel() // 32, dtype=torch.int32, device=values.device)
    above = torch.as_tensor(threshold, dtype=torch.float32, device=values.device).view(1)
    launch(_pack, len(bits), [values.view(-1), above, bits], values.device)
    return bits, pack_blocks(bits, resolution)


def pack_blocks(bits: Int[Tensor, " words"], resolution: int) -> Int[Tensor, " block_words"]:
    """Bits of the 8^3 blocks that hold a cell whose bit is set."""
    blocks = torch.empty(len(bits) // 512, dtype=torch.int32, device=bits.device)
    launch(_pack_blocks, len(blocks), [bits, resolution, blocks], bits.device)
    return blocks
