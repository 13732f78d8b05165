"""The plain twin of every kernel: the formulas in PyTorch and Python, slow and obvious, written apart from the kernels.

A twin takes what its kernel takes and gives what that gives, without unowned rows at the end of samples. Where the
kernel has a backward pass, the twin is differentiable by autograd, in float64 too if its inputs are. Twins are what
`nerfkit.kernels.self_check` and the tests compare with; nothing else should call them.
"""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nerfkit.kernels.hashgrid import GridLayout
from nerfkit.kernels.march import Stepping
from nerfkit.kernels.pixels import Masks, Pictures, Views
from nerfkit.types import Rays, Samples

_PRIMES = (1, 2654435761, 805459861)
_BLOCK = 8
_UNKNOWN = 1.0e9


def pixel_rays(picked: Int[Tensor, " n"], views: Views) -> Rays:
    """Origins c2w[:, 3], directions c2w[:, :3] d, and the z of d.

    d is ``directions[pixel - base]`` where there are any; else that pixel of the view is (x, y), ``width`` to a row,
    and d is ((x + 1/2 - cx) / fl_x, (y + 1/2 - cy) / fl_y, 1) made unit.
    """
    ends, bases, widths = views.places.unbind(1)
    view = (picked[:, None] >= ends).sum(1)
    at = picked - bases[view]
    if len(views.directions):
        d = views.directions[at]
    else:
        focal, centre = views.intrinsics[view].split(2, 1)
        xy = torch.stack([at % widths[view], at // widths[view]], 1) + 0.5
        d = torch.nn.functional.normalize(torch.cat([(xy - centre) / focal, torch.ones_like(focal[:, :1])], 1), dim=1)
    c2w = views.c2w[view]
    return Rays(c2w[:, :, 3], (c2w[:, :, :3] @ d[:, :, None])[:, :, 0], d[:, 2])


def pixel_colors(
    picked: Int[Tensor, " n"], pictures: Pictures, background: Float[Tensor, "n 3"]
) -> Float[Tensor, "n 3"]:
    """alpha rgb + (1 - alpha) background, alpha 1 where there is none."""
    rows = [torch.nn.functional.pad(picture, (0, 4 - picture.shape[2]), value=255) for picture in pictures.each]
    values = torch.cat([row.flatten(0, 1) for row in rows])[picked] / 255.0
    alpha = values[:, 3:]
    return alpha * values[:, :3] + (1.0 - alpha) * background


def usable_pixels(ranks: Int[Tensor, " n"], masks: Masks) -> Int[Tensor, " n"]:
    """The indices of all that is True in the row, and of these the asked for."""
    return torch.cat([mask.flatten() for mask in masks.each]).nonzero()[ranks, 0]


def encode(
    positions: Float[Tensor, "n 3"], table: Float[Tensor, "entries features"], layout: GridLayout
) -> Float[Tensor, "n width"]:
    """Features of positions in [0, 1]^3, level by level; differentiable in the table.

    At level l with scale s, resolution R and T entries, p = s x + 1/2 lies in the cell floor(p) with the fraction w;
    the corner floor(p) + c, c in {0, 1}^3, has the weight prod_k (c_k ? w_k : 1 - w_k) and the entry
    (x + R y + R^2 z) mod T where R^3 <= T, else (x xor 2654435761 y xor 805459861 z mod 2^32) mod T.
    """
    features = []
    for level in range(layout.n_levels):
        first, size = layout.offsets[level], layout.offsets[level + 1] - layout.offsets[level]
        resolution = layout.resolutions[level]
        # In float32 like the kernel: another rounding of p would pick another cell near a face.
        p = positions * layout.scales[level] + 0.5
        cell = p.floor()
        w = (p - cell).to(table.dtype)
        total = table.new_zeros(len(positions), layout.n_features)
        for corner in range(8):
            c = torch.tensor([corner & 1, corner >> 1 & 1, corner >> 2], device=positions.device)
            x, y, z = (cell.long() + c).unbind(1)
            if resolution**3 <= size:
                index = (x + resolution * (y + resolution * z)) % size
            else:
                terms = [(v * prime) % 2**32 for v, prime in zip((x, y, z), _PRIMES, strict=True)]
                index = (terms[0] ^ terms[1] ^ terms[2]) % size
            weight = torch.where(c.bool(), w, 1.0 - w).prod(1)
            total = total + weight[:, None] * table[first + index]
        features.append(total)
    return torch.cat(features, 1)


def unpack_bits(words: Int[Tensor, " words"]) -> Bool[Tensor, " bits"]:
    """Bits of 32-bit words, the lowest first."""
    return (words[:, None] >> torch.arange(32, device=words.device) & 1).bool().flatten()


def level_of(x: list[float], step: float, n_levels: int, resolution: int) -> int:
    """The innermost level that holds a position and whose cells are not smaller than the step there."""
    reach = max(abs(v - 0.5) for v in x)
    for level in range(n_levels - 1):
        side = 0.5 ** (n_levels - 1 - level)
        if reach < side / 2 and side / resolution >= step:
            return level
    return n_levels - 1


def cell_of(x: list[float], level: int, n_levels: int, per_side: int) -> tuple[int, int, int]:
    """The cell, of ``per_side`` along each side of a level, that holds a position; the nearest for one outside."""
    side = 0.5 ** (n_levels - 1 - level)
    i, j, k = (min(max(math.floor(((v - 0.5) / side + 0.5) * per_side), 0), per_side - 1) for v in x)
    return i, j, k


def march(
    rays: Rays,
    jitter: Float[Tensor, " n_rays"],
    bits: Int[Tensor, " words"],
    blocks: Int[Tensor, " block_words"],
    stepping: Stepping,
) -> Samples:
    """Steps whose middle is in an occupied cell, ray by ray and step by step.

    A ray enters the cube at t_min >= near_plane; its steps start at t_min + jitter * step(t_min), each where the one
    before it ends, as long as they start before t_max. Once a step is found in an empty block or cell, the steps that
    start within the distance to the far face of that block or cell are not looked at.
    """
    n_levels, resolution = stepping.n_levels, stepping.resolution
    coarse = resolution // _BLOCK
    occupied = unpack_bits(bits.cpu()).view(n_levels, resolution, resolution, resolution)
    occupied_blocks = unpack_bits(blocks.cpu()).view(n_levels, coarse, coarse, coarse)
    starts: list[list[float]] = []
    for o, d, shift in zip(rays.rays_o.tolist(), rays.rays_d.tolist(), jitter.tolist(), strict=True):
        starts.append([])
        t_min, t_max = _span(o, d, stepping)
        t = t_min + shift * _step(t_min, stepping)
        empty_until = -math.inf
        while t < t_max and len(starts[-1]) < stepping.max_samples:
            step = _step(t, stepping)
            x = [o[k] + (t + step / 2) * d[k] for k in range(3)]
            level = level_of(x, step, n_levels, resolution)
            if t >= empty_until:
                if not occupied_blocks[level, *cell_of(x, level, n_levels, coarse)]:
                    empty_until = t + _way_out(x, d, level, n_levels, coarse)
                elif not occupied[level, *cell_of(x, level, n_levels, resolution)]:
                    empty_until = t + _way_out(x, d, level, n_levels, resolution)
                else:
                    starts[-1].append(t)
            t += step
    counts = torch.tensor([len(row) for row in starts], dtype=torch.int32)
    t_starts = [t for row in starts for t in row]
    t_ends = [t + _step(t, stepping) for t in t_starts]
    columns = [rays.rays_o.new_tensor(column) for column in (t_starts, t_ends)]
    return Samples(*_packing(counts.to(rays.rays_o.device)), *columns, len(t_starts))


def _step(t: float, stepping: Stepping) -> float:
    return min(max(t * stepping.cone_angle, stepping.min_step), stepping.max_step)


def _span(o: list[float], d: list[float], stepping: Stepping) -> tuple[float, float]:
    """Where a ray is within the unit cube and between the planes: empty if the first is not below the second."""
    t_min, t_max = stepping.near_plane, stepping.far_plane
    for k in range(3):
        if d[k] == 0.0:
            if not 0.0 <= o[k] < 1.0:
                return math.inf, -math.inf
            continue
        near, far = sorted((-o[k] / d[k], (1.0 - o[k]) / d[k]))
        t_min, t_max = max(t_min, near), min(t_max, far)
    return t_min, t_max


def _way_out(x: list[float], d: list[float], level: int, n_levels: int, per_side: int) -> float:
    """Distance along d to the far face of the cell of x."""
    side = 0.5 ** (n_levels - 1 - level)
    distances = [math.inf]
    for v, slope in zip(x, d, strict=True):
        u = ((v - 0.5) / side + 0.5) * per_side
        if slope != 0.0:
            face = math.floor(u) + (1 if slope > 0.0 else 0)
            distances.append((face - u) / slope * side / per_side)
    return min(distances)


def _packing(counts: Int[Tensor, " n_rays"]) -> tuple[Int[Tensor, "n_rays 2"], Int[Tensor, " n_samples"]]:
    """(start, count) of each ray and the owner of each sample."""
    packed_info = torch.stack([counts.cumsum(0).int() - counts, counts], 1)
    owners = torch.arange(len(counts), dtype=torch.int32, device=counts.device)
    return packed_info, owners.repeat_interleave(counts.long())


def sample_positions(rays: Rays, samples: Samples) -> Float[Tensor, "n_owned 3"]:
    """o + t d at the middle of each owned sample, clamped to the unit cube."""
    owner = samples.ray_indices[: samples.n_owned].long()
    middle = (samples.t_starts + samples.t_ends)[: samples.n_owned, None] / 2
    return (rays.rays_o[owner] + middle * rays.rays_d[owner]).clamp(0.0, 1.0)


def keep_visible(
    samples: Samples, sigmas: Float[Tensor, " n_samples"], early_stop: float
) -> tuple[Samples, Int[Tensor, " n_kept"]]:
    """The samples before which the transmittance exp(-sum_{j<i} sigma_j d_j) exceeds ``early_stop``, and their rows."""
    rows: list[int] = []
    counts = []
    for start, count in samples.packed_info.tolist():
        trans, n = 1.0, 0
        for i in range(start, start + count):
            if trans <= early_stop:
                break
            rows.append(i)
            n += 1
            trans *= math.exp(-float(sigmas[i] * (samples.t_ends[i] - samples.t_starts[i])))
        counts.append(n)
    kept = torch.tensor(rows, dtype=torch.int32, device=sigmas.device)
    packing = _packing(torch.tensor(counts, dtype=torch.int32, device=sigmas.device))
    return Samples(*packing, samples.t_starts[kept], samples.t_ends[kept], len(rows)), kept


def composite(
    sigmas: Float[Tensor, " n_samples"],
    rgbs: Float[Tensor, "n_samples c"],
    samples: Samples,
    background: Float[Tensor, "n_rays c"],
    reach: float = 0.0,
) -> tuple[Float[Tensor, "n_rays c"], Float[Tensor, " n_rays"], Float[Tensor, " n_rays"], Float[Tensor, " n_samples"]]:
    """rgb, opacity, sum of w_i t_i, and w_i = T_i alpha_i with alpha_i = 1 - exp(-sigma_i d_i) (Max 1995, eq. 10).

    T_i = exp(-sum_{j<i} sigma_j d_j) is an exclusive cumulative sum along each ray. Differentiable in all but samples;
    gradients of densities and colours of samples that end before ``reach`` are scaled by (end / reach)^2.
    """
    share = (samples.t_ends / reach).clamp(max=1.0) ** 2 if reach > 0.0 else torch.ones_like(samples.t_ends)
    sigmas = share * sigmas + (1.0 - share) * sigmas.detach()
    rgbs = share[:, None] * rgbs + (1.0 - share)[:, None] * rgbs.detach()
    colors, opacities, distances, weights = [], [], [], []
    for ray, (start, count) in enumerate(samples.packed_info.tolist()):
        own = slice(start, start + count)
        t_starts, t_ends = samples.t_starts[own], samples.t_ends[own]
        thickness = sigmas[own] * (t_ends - t_starts)
        before = thickness.cumsum(0) - thickness
        w = torch.exp(-before) * (1.0 - torch.exp(-thickness))
        behind = torch.exp(-thickness.sum())
        colors.append((w[:, None] * rgbs[own]).sum(0) + behind * background[ray])
        opacities.append(1.0 - behind)
        distances.append((w * (t_starts + t_ends) / 2).sum())
        weights.append(w)
    nothing = torch.zeros_like(sigmas[samples.n_owned :])
    if not colors:
        return background, sigmas.new_zeros(0), sigmas.new_zeros(0), nothing
    return torch.stack(colors), torch.stack(opacities), torch.stack(distances), torch.cat([*weights, nothing])


def take_rows(values: Float[Tensor, "m c"], rows: Int[Tensor, " n"], n_owned: int) -> Float[Tensor, "n c"]:
    """``values[rows]``; rows from ``n_owned`` on are copies without a gradient."""
    return torch.cat([values[rows[:n_owned].long()], values.detach()[rows[n_owned:].long()]])


def join_directions(
    features: Float[Tensor, "n c"], harmonics: Float[Tensor, "n_rays d"], ray_indices: Int[Tensor, " n"]
) -> Float[Tensor, "n cd"]:
    """Each sample's features followed by its ray's encoded direction."""
    return torch.cat([features, harmonics[ray_indices.long()]], 1)


def mlp(x: Float[Tensor, "n n_in"], *weights: Float[Tensor, "_ _"]) -> Float[Tensor, "n n_out"]:
    """x -> relu(x W_1^T) -> ... -> x W_n^T, in the format of x throughout; differentiable in all."""
    for w in weights[:-1]:
        x = torch.relu(x @ w.to(x.dtype).T)
    return x @ weights[-1].to(x.dtype).T


def spherical_harmonics(d: Float[Tensor, "n 3"], degree: int) -> Float[Tensor, "n degree_squared"]:
    """Real spherical harmonics l = 0 .. degree - 1, m = -l .. l, with the Condon-Shortley phase (-1)^m.

    Y_lm = (-1)^m sqrt((2 - [m = 0]) (2l + 1) / 4 pi * (l - |m|)! / (l + |m|)!) Q_l|m|(z) * (Re or, for m < 0, Im of
    (x + i y)^|m|), where Q_lm is the associated Legendre function over sin^m, by its three-term recursion in l.
    """
    z = d[:, 2]
    around = torch.complex(d[:, 0], d[:, 1])
    columns = []
    for band in range(degree):
        for m in range(-band, band + 1):
            order = abs(m)
            share = Fraction(math.factorial(band - order), math.factorial(band + order))
            norm = math.sqrt((2 if m else 1) * (2 * band + 1) / (4 * math.pi) * share)
            turn = around**order
            columns.append((-1) ** order * norm * _legendre(band, order, z) * (turn.imag if m < 0 else turn.real))
    return torch.stack(columns, 1)


def _legendre(band: int, order: int, z: Tensor) -> Tensor:
    """P_l^m(z) / (1 - z^2)^(m/2) without the phase: (l - m) Q_l = (2l - 1) z Q_{l-1} - (l + m - 1) Q_{l-2}."""
    before, last = torch.zeros_like(z), torch.full_like(z, math.prod(range(1, 2 * order, 2)))
    for upper in range(order + 1, band + 1):
        before, last = last, ((2 * upper - 1) * z * last - (upper + order - 1) * before) / (upper - order)
    return last


def adam_step(
    parameters: list[float],
    gradients: list[float],
    means: list[float],
    squares: list[float],
    n_steps: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.99),
) -> None:
    """Step ``n_steps`` (from 1) of Adam (Kingma and Ba 2015, algorithm 1), in place, where the gradient is not 0.

    Lists of numbers, each updated for itself; ``gradients`` are cleared.
    """
    for i, g in enumerate(gradients):
        if g != 0.0:
            means[i] = betas[0] * means[i] + (1.0 - betas[0]) * g
            squares[i] = betas[1] * squares[i] + (1.0 - betas[1]) * g * g
            mean = means[i] / (1.0 - betas[0] ** n_steps)
            square = squares[i] / (1.0 - betas[1] ** n_steps)
            parameters[i] -= lr * mean / (math.sqrt(square) + 1e-15)
        gradients[i] = 0.0


def observe(
    positions: Float[Tensor, "n 3"],
    samples: Samples,
    sigmas: Float[Tensor, " n"],
    resolution: int,
    values: Float[Tensor, "levels cells"],
) -> None:
    """Raise the value of the cell of each owned sample to its density, in place."""
    n_levels = len(values)
    cells = values.view(n_levels, resolution, resolution, resolution)
    lengths = (samples.t_ends - samples.t_starts).tolist()
    for i, x in enumerate(positions[: samples.n_owned].tolist()):
        level = level_of(x, lengths[i], n_levels, resolution)
        cell = (level, *cell_of(x, level, n_levels, resolution))
        cells[cell] = max(float(cells[cell]), float(sigmas[i]))


def fold(
    values: Float[Tensor, "levels cells"], window: Float[Tensor, "levels cells"], decay: float, stale: float = 1.0
) -> float:
    """Let ``values`` take in what ``window`` saw (-1: nothing) and clear that, in place; the mean of known values.

    A cell that may be occupied and was seen becomes max(value * decay, seen), or seen if it was unknown; one that is
    known and was not seen becomes value * stale.
    """
    changed = (window >= 0.0) & (values >= 0.0)
    aged = torch.where(values >= _UNKNOWN, 0.0, values * decay)
    forgotten = (window < 0.0) & (values >= 0.0) & (values < _UNKNOWN)
    values.copy_(torch.where(changed, torch.maximum(aged, window), torch.where(forgotten, values * stale, values)))
    window.fill_(-1.0)
    known = values[(values >= 0.0) & (values < _UNKNOWN)]
    return float(known.double().mean()) if len(known) else 0.0


def pack_bits(
    values: Float[Tensor, "levels cells"], threshold: float, resolution: int
) -> tuple[Int[Tensor, " words"], Int[Tensor, " block_words"]]:
    """Bits of the cells above ``threshold`` and of the 8^3 blocks that hold one, 32 to a word, the lowest first."""
    coarse = resolution // _BLOCK
    occupied = values > threshold
    blocks = occupied.view(len(values), coarse, _BLOCK, coarse, _BLOCK, coarse, _BLOCK).any(6).any(4).any(2)
    return _words(occupied), _words(blocks)


def _words(bits: Tensor) -> Tensor:
    powers = 2 ** torch.arange(32, device=bits.device)
    unsigned = (bits.reshape(-1, 32).long() * powers).sum(1)
    return torch.where(unsigned < 2**31, unsigned, unsigned - 2**32).int()
