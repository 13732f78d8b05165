"""Kernels beside their plain twins: how far apart two results are, and the comparison of all on small inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nerfkit.kernels import (
    adam,
    cells,
    composite,
    hashgrid,
    march,
    occupancy,
    pixels,
    raycast,
    reference,
    reference_rays,
    rounds,
    shade,
    stages,
)
from nerfkit.types import Rays, Samples

_RESOLUTION = 32
_LEVELS = 2


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected size: infinity for other shapes or values that are not finite."""
    if actual.shape != expected.shape:
        return math.inf
    if not len(expected.flatten()):
        return 0.0
    actual, expected = actual.detach().double().cpu(), expected.detach().double().cpu()
    difference = float((actual - expected).abs().max())
    size = float(expected.abs().max())
    if not math.isfinite(difference):
        return math.inf
    return difference / size if size > 0.0 else (math.inf if difference > 0.0 else 0.0)


def sample_error(actual: Samples, expected: Samples) -> float:
    """Share of the samples of both that have no partner in the other; a partner is of the same ray, length and place.

    Two roundings of one position may lie in two cells, so that a few steps differ without a fault in either.
    """
    if len(actual.packed_info) != len(expected.packed_info):
        return math.inf
    for samples in (actual, expected):
        owners = torch.arange(len(samples.packed_info), device=samples.packed_info.device)
        starts, counts = samples.packed_info.long().unbind(1)
        if int(counts.sum()) != samples.n_owned or not torch.equal(counts.cumsum(0) - counts, starts):
            return math.inf
        if not torch.equal(owners.repeat_interleave(counts), samples.ray_indices[: samples.n_owned].long()):
            return math.inf
    alone = total = 0
    for ray in range(len(actual.packed_info)):
        (a, a_lengths), (b, b_lengths) = _intervals(actual, ray), _intervals(expected, ray)
        total += len(a) + len(b)
        if len(a) and len(b):
            close = (a[:, None] - b).abs() <= 0.02 * b_lengths
            close &= (a_lengths[:, None] - b_lengths).abs() <= 0.01 * b_lengths
            alone += int((~close.any(1)).sum() + (~close.any(0)).sum())
        else:
            alone += len(a) + len(b)
    return alone / max(total, 1)


def _intervals(samples: Samples, ray: int) -> tuple[Tensor, Tensor]:
    start, count = samples.packed_info[ray].tolist()
    t_starts = samples.t_starts[start : start + count].double()
    return t_starts, samples.t_ends[start : start + count].double() - t_starts


def compare_all(device: torch.device) -> dict[str, float]:
    """The largest relative error of each comparison, by name."""
    return {name: error for check in CHECKS for name, error in check(device).items()}


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _rays(n: int, generator: torch.Generator, device: torch.device) -> Rays:
    """Rays from around the cube to points within it."""
    origins = 0.5 + 1.2 * torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=1)
    directions = torch.nn.functional.normalize(torch.rand(n, 3, generator=generator) - origins, dim=1)
    return Rays(origins, directions, torch.ones(n)).to(device)


def _samples(n_rays: int, generator: torch.Generator, device: torch.device) -> Samples:
    """Intervals of random lengths on rays of 0 to 39 samples."""
    counts = torch.randint(0, 40, (n_rays,), generator=generator, dtype=torch.int32)
    packed_info, n_owned, n_rows = march.packed(counts)
    indices = torch.zeros(n_rows, dtype=torch.int32)
    indices[:n_owned] = torch.arange(n_rays, dtype=torch.int32).repeat_interleave(counts.long())
    t_starts = torch.rand(n_rows, generator=generator).cumsum(0) * 0.05
    lengths = 0.05 * torch.rand(n_rows, generator=generator)
    columns = (packed_info, indices, t_starts, t_starts + lengths)
    return Samples(*(column.to(device) for column in columns), n_owned)


def _views(generator: torch.Generator, bent: bool, device: torch.device) -> pixels.Views:
    """Five pictures of several sizes by cameras that look anywhere; bent lenses share one table of directions."""
    widths, heights = torch.tensor([[30, 7, 1, 20, 30], [20, 9, 1, 30, 20]])
    ends = (widths * heights).cumsum(0)
    normalize = torch.nn.functional.normalize
    directions = normalize(torch.randn(int(ends[-1]) + 10 if bent else 0, 3, generator=generator), dim=1)
    bases = torch.cat([ends.new_zeros(1), ends[:-1]]) - (10 if bent else 0)
    axes = torch.linalg.qr(torch.randn(5, 3, 3, generator=generator))[0]
    c2w = torch.cat([axes, torch.rand(5, 3, 1, generator=generator)], 2)
    intrinsics = torch.stack([widths + 3.0, widths + 2.0, 0.4 * widths, 0.6 * heights], 1)
    columns = (torch.stack([ends, bases, widths], 1), c2w, intrinsics, directions)
    return pixels.Views(*(column.to(device) for column in columns))


def _check_pixels(device: torch.device) -> dict[str, float]:
    generator, errors = _generator(), {}
    for lens in ("pinhole", "bent"):
        views = _views(generator, lens == "bent", device)
        picked = torch.arange(int(views.places[-1, 0]), device=device)
        actual, expected = (ops.pixel_rays(picked, views) for ops in (pixels, reference))
        errors[f"pixel rays, {lens}, origins"] = relative_error(actual.rays_o, expected.rays_o)
        errors[f"pixel rays, {lens}, directions"] = relative_error(actual.rays_d, expected.rays_d)
        errors[f"pixel rays, {lens}, cosines"] = relative_error(actual.cos, expected.cos)
    background = torch.rand(len(picked), 3, generator=generator).to(device)
    n_pixels = views.places[:, 0].diff(prepend=views.places.new_zeros(1)).tolist()
    for channels in (3, 4):
        shapes = [(n, 1, channels) for n in n_pixels]
        each = [torch.randint(256, shape, generator=generator, dtype=torch.uint8).to(device) for shape in shapes]
        pair = (ops.pixel_colors(picked, pixels.Pictures(each), background) for ops in (pixels, reference))
        errors[f"pixel colours, {channels} channels"] = relative_error(*pair)
    masks = pixels.Masks([torch.rand(n, 1, generator=generator) < 0.2 for n in n_pixels])
    ranks = torch.arange(masks.n_usable)
    errors["usable pixels"] = relative_error(*(ops.usable_pixels(ranks, masks) for ops in (pixels, reference)))
    return errors


def _check_grid(device: torch.device) -> dict[str, float]:
    generator, errors = _generator(), {}
    layout = hashgrid.grid_layout(6, 4, 12, 8, 256)
    positions = torch.rand(500, 3, generator=generator).to(device)
    table = torch.randn(layout.n_entries, 4, generator=generator).to(device).requires_grad_()
    seed = torch.randn(500, 24, generator=generator).to(device)
    expected = reference.encode(positions, table, layout)
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        rounded = seed.to(dtype)
        (expected_gradient,) = torch.autograd.grad(expected, table, rounded.float(), retain_graph=True)
        table.grad = None
        actual = hashgrid.HashGrid(layout, device).encode(positions, table, dtype)
        actual.backward(rounded)
        errors[f"hash grid {name}"] = relative_error(actual, expected)
        errors[f"hash grid {name}, gradient"] = relative_error(table.grad, expected_gradient)
    return errors


def _check_march(device: torch.device) -> dict[str, float]:
    generator, errors = _generator(), {}
    rays = _rays(24, generator, device)
    jitter = torch.rand(24, generator=generator).to(device)
    values = torch.rand(_LEVELS, _RESOLUTION**3, generator=generator).to(device)
    bits, blocks = occupancy.pack_bits(values, 0.9, _RESOLUTION)
    for name, cone in (("even steps", 0.0), ("growing steps", 1 / 64)):
        stepping = march.Stepping(_LEVELS, _RESOLUTION, cone, 0.011, 0.04)
        actual = march.march(rays, jitter, bits, blocks, stepping)
        errors[f"march, {name}"] = sample_error(actual, reference.march(rays, jitter, bits, blocks, stepping))
    own = march.sample_positions(rays, actual)[: actual.n_owned]
    return {**errors, "sample positions": relative_error(own, reference.sample_positions(rays, actual))}


def _check_composite(device: torch.device) -> dict[str, float]:
    generator = _generator()
    samples = _samples(64, generator, device)
    n = len(samples)
    sigmas = (60.0 * torch.rand(n, generator=generator) ** 2).to(device).requires_grad_()
    rgbs = torch.rand(n, 3, generator=generator).to(device).requires_grad_()
    background = torch.rand(64, 3, generator=generator).to(device).requires_grad_()
    seeds = [torch.randn(shape, generator=generator).to(device) for shape in ((64, 3), (64,), (64,))]
    names = ["rgb", "opacity", "distance", "weights", "gradient of sigmas", "of rgbs", "of background"]
    names += ["damped gradient of sigmas", "of rgbs near the camera"]
    results = []
    for op in (composite.composite, reference.composite):
        *outputs, weights = op(sigmas, rgbs, samples, background)
        gradients = torch.autograd.grad(outputs, (sigmas, rgbs, background), seeds)
        damped = torch.autograd.grad(op(sigmas, rgbs, samples, background, 8.0)[:3], (sigmas, rgbs), seeds)
        results.append([*outputs, weights[: samples.n_owned], *gradients, *damped])
    pairs = zip(names, *results, strict=True)
    errors = {f"composite, {name}": relative_error(actual, expected) for name, actual, expected in pairs}
    kept, rows = composite.keep_visible(samples, sigmas.detach(), 0.05)
    expected_kept, expected_rows = reference.keep_visible(samples, sigmas.detach(), 0.05)
    errors["keep visible"] = sample_error(kept, expected_kept)
    return {**errors, "keep visible, rows": relative_error(rows[: kept.n_owned], expected_rows)}


def _check_shade(device: torch.device) -> dict[str, float]:
    generator = _generator()
    values = torch.randn(300, 16, generator=generator).to(device).requires_grad_()
    rows = torch.randperm(300, generator=generator)[:200].int().to(device)
    d = torch.nn.functional.normalize(torch.randn(50, 3, generator=generator), dim=1).to(device)
    indices = torch.randint(0, 50, (200,), generator=generator, dtype=torch.int32).to(device)
    seed = torch.randn(200, 32, generator=generator).to(device)
    results = []
    for ops in (shade, reference):
        taken = ops.take_rows(values, rows, 150)
        harmonics = ops.spherical_harmonics(d, 4)
        joined = ops.join_directions(taken, harmonics, indices)
        results.append([taken, harmonics, joined, *torch.autograd.grad(joined, values, seed)])
    names = ("take rows", "spherical harmonics", "join directions", "join and take, gradient")
    return {name: relative_error(*pair) for name, *pair in zip(names, *results, strict=True)}


def _check_adam(device: torch.device) -> dict[str, float]:
    generator = _generator()
    table = torch.randn(100, 2, generator=generator).to(device).requires_grad_()
    optimizer = adam.SparseAdam(table)
    columns = [table.detach().flatten().tolist(), [0.0] * 200, [0.0] * 200, [0.0] * 200]
    for step in range(1, 4):
        touched = torch.rand(100, 2, generator=generator) < 0.5
        table.grad = (touched * torch.randn(100, 2, generator=generator)).to(device)
        columns[1][:] = table.grad.flatten().tolist()
        reference.adam_step(*columns, step, 0.01)
        optimizer.step(step, 0.01)
    results = (table, table.grad, optimizer.means, optimizer.squares)
    names = ("table", "cleared gradient", "means", "squares")
    return {
        f"adam, {name}": relative_error(result.flatten(), torch.tensor(column, dtype=torch.float64))
        for name, result, column in zip(names, results, columns, strict=True)
    }


def _check_occupancy(device: torch.device) -> dict[str, float]:
    generator = _generator()
    samples = _samples(16, generator, device)
    positions = torch.rand(len(samples), 3, generator=generator).to(device)
    sigmas = torch.rand(len(samples), generator=generator).to(device)
    start = torch.rand(_LEVELS, _RESOLUTION**3, generator=generator) - 0.2
    start[:, ::7] = occupancy.UNKNOWN
    start[start < 0.0] = -1.0
    results: list[list[Tensor]] = []
    for ops in (occupancy, reference):
        values, window = start.to(device, copy=True), torch.full_like(start, -1.0).to(device)
        ops.observe(positions, samples, sigmas, _RESOLUTION, window)
        seen = window.clone()
        mean = ops.fold(values, window, 0.9, 0.7)
        known = torch.where(values < occupancy.UNKNOWN, values, -2.0)
        results.append([seen, known, torch.as_tensor(mean), window, *ops.pack_bits(values, 0.5, _RESOLUTION)])
    names = ("observe", "fold", "fold, mean", "fold, cleared window", "bits", "blocks")
    return {f"occupancy, {name}": relative_error(*pair) for name, *pair in zip(names, *results, strict=True)}


def _target(device: torch.device) -> tuple[raycast.Target, cells.Cells, tuple[Rays, Tensor, Tensor]]:
    """A small field, where to look in it, and rays with their jitter and background."""
    generator = _generator()
    networks = raycast.Networks(4, 4, (16, 32, 16), (32, 32, 3))
    layout = hashgrid.grid_layout(4, 4, 10, 4, 32)
    table = torch.randn(layout.n_entries, 4, generator=generator).to(device).requires_grad_()
    weights = (0.4 * torch.randn(networks.n_weights, generator=generator)).to(device).requires_grad_()
    grid = hashgrid.HashGrid(layout, device)
    target = raycast.Target(networks, grid, table, table.detach(), weights, "float32")
    stepping = march.Stepping(_LEVELS, _RESOLUTION, 1 / 64, 0.011, 0.04)
    baked = cells.Cells.bake(torch.ones(_LEVELS, _RESOLUTION**3, device=device), 0.5, stepping)
    jitter, background = (torch.rand(16, *more, generator=generator).to(device) for more in ((), (3,)))
    return target, baked, (_rays(16, generator, device), jitter, background)


def _lessons(device: torch.device, *ops: Any) -> dict[str, float]:
    """Two ways to learn, beside one another."""
    target, baked, inputs = _target(device)
    truth = torch.rand(16, 3, generator=_generator()).to(device)
    lesson = raycast.Lesson(truth, 0.1, 10.0, -1.0, 0.5, 5000, 10.0, 0.4)
    results = []
    for op in ops:
        target.table.grad = None
        done = op.learn(target, baked, *inputs, lesson)
        results.append([done.g_weights, target.table.grad, torch.as_tensor(done.loss)])
    names = ("gradient of weights", "of the table", "loss")
    return {f"learning, {name}": relative_error(*pair) for name, *pair in zip(names, *results, strict=True)}


def _check_raycast(device: torch.device) -> dict[str, float]:
    """Whole rays, which only a CPU takes in one kernel."""
    if device.type != "cpu":
        return {}
    target, baked, inputs = _target(device)
    results = []
    for op, room in ((raycast.cast, (5000,)), (reference_rays.cast, ())):
        target.table.grad = target.weights.grad = None
        *pixels_of, packed_info = op(target, baked, *inputs, -1.0, 0.5, *room)
        sum((x * x).sum() for x in pixels_of).backward()
        results.append([*pixels_of, packed_info, target.weights.grad, target.table.grad])
    names = ("rgb", "opacity", "distance", "samples", "gradient of weights", "of the table")
    errors = {f"whole rays, {name}": relative_error(*pair) for name, *pair in zip(names, *results, strict=True)}
    return errors | _lessons(device, raycast, reference_rays)


def _check_stages(device: torch.device) -> dict[str, float]:
    """Rays stage after stage, and in rounds: what CUDA does with them."""
    target, baked, inputs = _target(device)
    results = [op.cast(target, baked, *inputs, 0.1) for op in (rounds, reference_rays)]
    names = ("rgb", "opacity", "distance", "samples")
    errors = {f"in rounds, {name}": relative_error(*pair) for name, *pair in zip(names, *results, strict=True)}
    return errors | {f"by stages, {name}": error for name, error in _lessons(device, stages, reference_rays).items()}


def compare_networks(device: torch.device) -> dict[str, float]:
    """The same for whole networks on a GPU, which Triton's kernels compute: ImportError where it is not installed."""
    from nerfkit.kernels import fused

    generator, errors = _generator(), {}
    for sizes in ((32, 64, 16), (32, 64, 64, 3)):
        pairs = zip(sizes, sizes[1:], strict=False)
        weights = [(torch.randn(b, a, generator=generator) / a**0.5).to(device).requires_grad_() for a, b in pairs]
        n_rows = 500 if device.type == "cpu" else 50_000  # several blocks for each program of a large GPU
        x, seed = (
            torch.randn(n_rows, n, generator=generator).to(device, torch.bfloat16) for n in (sizes[0], sizes[-1])
        )
        inputs = [x.requires_grad_(), *weights]
        results = []
        with torch.enable_grad():
            for op in (fused.mlp, reference.mlp):
                y = op(*inputs)
                results.append([y, *torch.autograd.grad(y, inputs, seed)])
        names = ("values", "gradient of x", *(f"of weights {i}" for i in range(1, len(sizes))))
        network = "-".join(map(str, sizes))
        errors |= {f"{network}, {name}": relative_error(*pair) for name, *pair in zip(names, *results, strict=True)}
    return errors


CHECKS: tuple[Callable[[torch.device], dict[str, float]], ...] = (
    _check_pixels,
    _check_grid,
    _check_march,
    _check_composite,
    _check_shade,
    _check_adam,
    _check_occupancy,
    _check_raycast,
    _check_stages,
)
