"""Marching: beside its twin, and by the laws of a lattice of steps."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from compare import assert_close, assert_same_samples
from torch import Tensor
from torch.nn import functional as F

from nerfkit.kernels import reference
from nerfkit.kernels.march import ROWS, Stepping, march, sample_positions
from nerfkit.kernels.occupancy import pack_bits
from nerfkit.types import Rays, Samples

RES = 32
EVEN = Stepping(1, RES, 0.0, 0.0137, 0.0137)
GROWING = Stepping(3, RES, 1 / 32, 0.004, 0.05)


def random_rays(n: int, device: torch.device, seed: int = 0, distance: float = 1.3) -> Rays:
    """Rays from a sphere about the cube to points in it."""
    generator = torch.Generator().manual_seed(seed)
    origins = 0.5 + distance * F.normalize(torch.randn(n, 3, generator=generator), dim=1)
    directions = F.normalize(torch.rand(n, 3, generator=generator) - origins, dim=1)
    return Rays(origins, directions, torch.ones(n)).to(device)


def rays_of(device: torch.device, *lines: tuple[list[float], list[float]]) -> Rays:
    origins, directions = (torch.tensor(column) for column in zip(*lines, strict=True))
    return Rays(origins, F.normalize(directions, dim=1), torch.ones(len(lines))).to(device)


def jitters(n: int, device: torch.device) -> Tensor:
    return torch.rand(n, generator=torch.Generator().manual_seed(5)).to(device)


def grid(n_levels: int, share: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Bits and blocks in which about that share of cells is occupied, in clumps and alone."""
    generator = torch.Generator().manual_seed(3)
    clumps = torch.rand(n_levels, 1, 4, 4, 4, generator=generator)
    clumps = F.interpolate(clumps, size=(RES,) * 3).view(n_levels, -1)
    fine = torch.rand(n_levels, RES**3, generator=generator)
    values = torch.where(clumps > 0.5, 2.0 * fine, 0.0)
    return pack_bits(values.to(device), 2.0 * (1.0 - 2.0 * share) if share < 0.5 else -1.0, RES)


@pytest.mark.parametrize("share", [0.02, 0.3, 1.0])
@pytest.mark.parametrize("stepping", [EVEN, dataclasses.replace(EVEN, n_levels=3), GROWING], ids=["1", "3", "growing"])
@pytest.mark.parametrize("distance", [0.3, 1.3], ids=["inside", "outside"])
def test_samples_are_those_of_the_twin(stepping: Stepping, share: float, distance: float, device: torch.device) -> None:
    rays, jitter = random_rays(25, device, distance=distance), jitters(25, device)
    bits, blocks = grid(stepping.n_levels, share, device)
    actual = march(rays, jitter, bits, blocks, stepping)
    assert actual.n_owned > 0
    assert_same_samples(actual, reference.march(rays, jitter, bits, blocks, stepping))


def test_rays_along_the_axes(device: torch.device) -> None:
    lines = []
    for axis in range(3):
        for side, way in ((-0.4, 1.0), (1.4, -1.0), (0.3, 1.0), (0.3, -1.0)):
            origin, direction = [0.37, 0.61, 0.43], [0.0, 0.0, 0.0]
            origin[axis], direction[axis] = side, way
            lines.append((origin, direction))
    rays, jitter = rays_of(device, *lines), jitters(12, device)
    for stepping in (EVEN, GROWING):
        bits, blocks = grid(stepping.n_levels, 0.3, device)
        actual = march(rays, jitter, bits, blocks, stepping)
        assert_same_samples(actual, reference.march(rays, jitter, bits, blocks, stepping))
    full = march(rays, jitter, *grid(1, 1.0, device), EVEN)
    lengths = torch.tensor([1.0, 1.0, 0.7, 0.3] * 3, device=device)
    assert_close(full.packed_info[:, 1].float(), ((lengths / EVEN.min_step) - jitter).ceil())


def test_rays_that_miss_have_no_samples(device: torch.device) -> None:
    rays = rays_of(
        device,
        ([-1.0, 0.5, 0.5], [-1.0, 0.0, 0.0]),  # the cube lies behind
        ([-1.0, 1.5, 0.5], [1.0, 0.0, 0.0]),  # beside, along an axis
        ([-1.0, 0.5, 0.5], [1.0, 1.0, 0.0]),  # past a corner
        ([0.5, 0.5, -1.0], [0.0, 0.0, 1.0]),  # this one hits
        ([0.5, 2.0, 0.5], [1.0, 0.0, 1.0]),
    )
    samples = march(rays, jitters(5, device), *grid(1, 1.0, device), EVEN)
    counts = samples.packed_info[:, 1].tolist()
    assert counts[3] > 70 and sum(counts) == counts[3] == samples.n_owned
    assert (samples.ray_indices[: samples.n_owned] == 3).all()


@pytest.mark.parametrize("stepping", [EVEN, GROWING], ids=["even", "growing"])
def test_a_full_grid_yields_every_step(stepping: Stepping, device: torch.device) -> None:
    rays, jitter = random_rays(40, device), jitters(40, device)
    samples = march(rays, jitter, *grid(stepping.n_levels, 1.0, device), stepping)
    for ray, (start, count) in enumerate(samples.packed_info.tolist()):
        t_min, t_max = entry_and_exit(rays, ray)
        t_starts, t_ends = samples.t_starts[start : start + count], samples.t_ends[start : start + count]
        assert torch.allclose(t_starts[1:], t_ends[:-1], atol=1e-6)
        first = min(max(t_min * stepping.cone_angle, stepping.min_step), stepping.max_step)
        assert float(t_starts[0]) == pytest.approx(t_min + float(jitter[ray]) * first, abs=1e-5)
        assert float(t_starts[-1]) < t_max + 1e-5 and float(t_ends[-1]) > t_max - 1e-5


def entry_and_exit(rays: Rays, ray: int) -> tuple[float, float]:
    """Where a ray from outside enters and leaves the cube, by the slabs."""
    faces = torch.stack([-rays.rays_o[ray], 1.0 - rays.rays_o[ray]]).double() / rays.rays_d[ray].double()
    return float(faces.min(0).values.max()), float(faces.max(0).values.min())


def test_an_empty_grid_yields_none(device: torch.device) -> None:
    bits, blocks = (torch.zeros_like(words) for words in grid(1, 1.0, device))
    samples = march(random_rays(40, device), jitters(40, device), bits, blocks, EVEN)
    assert samples.n_owned == 0 and len(samples) == 0 and not samples.packed_info.any()


@pytest.mark.parametrize("n_levels", [1, 2])
def test_what_is_kept_is_what_lies_in_occupied_cells(n_levels: int, device: torch.device) -> None:
    stepping = dataclasses.replace(EVEN, n_levels=n_levels)
    rays, jitter = random_rays(50, device), jitters(50, device)
    bits, blocks = grid(n_levels, 0.3, device)
    full = march(rays, jitter, *grid(n_levels, 1.0, device), stepping)
    x = reference.sample_positions(rays, full)
    inner = ((x - 0.5).abs() < 0.25).all(1) if n_levels == 2 else torch.zeros(len(x), dtype=torch.bool, device=device)
    inner &= EVEN.min_step <= 0.5 / RES
    coarse, fine = (x * RES).long(), ((x - 0.25) * 2 * RES).long()
    cell = torch.where(inner[:, None], fine, coarse).clamp(0, RES - 1)
    level = torch.where(inner, 0, n_levels - 1)
    occupied = reference.unpack_bits(bits).view(n_levels, RES, RES, RES)[level, cell[:, 0], cell[:, 1], cell[:, 2]]
    columns = (full.ray_indices, full.t_starts, full.t_ends)
    indices, t_starts, t_ends = (column[: full.n_owned][occupied] for column in columns)
    counts = indices.bincount(minlength=50).int()
    packed_info = torch.stack([counts.cumsum(0).int() - counts, counts], 1)
    expected = Samples(packed_info, indices, t_starts, t_ends, int(occupied.sum()))
    assert_same_samples(march(rays, jitter, bits, blocks, stepping), expected)


@pytest.mark.parametrize("stepping", [EVEN, GROWING], ids=["even", "growing"])
def test_an_emptier_grid_keeps_steps_of_the_same_lattice(stepping: Stepping, device: torch.device) -> None:
    rays, jitter = random_rays(40, device), jitters(40, device)
    full = march(rays, jitter, *grid(stepping.n_levels, 1.0, device), stepping)
    some = march(rays, jitter, *grid(stepping.n_levels, 0.1, device), stepping)
    assert 0 < some.n_owned < full.n_owned
    for ray in range(40):
        (a, n), (b, m) = some.packed_info[ray].tolist(), full.packed_info[ray].tolist()
        apart = (some.t_starts[a : a + n, None] - full.t_starts[b : b + m]).abs()
        assert n == 0 or float(apart.min(1).values.max()) < 1e-4


def test_a_ray_ends_after_max_samples(device: torch.device) -> None:
    rays, jitter = random_rays(20, device), jitters(20, device)
    bits, blocks = grid(1, 1.0, device)
    all_samples = march(rays, jitter, bits, blocks, EVEN)
    few = march(rays, jitter, bits, blocks, dataclasses.replace(EVEN, max_samples=7))
    assert torch.equal(few.packed_info[:, 1], all_samples.packed_info[:, 1].clamp(max=7))
    for (a, n), (b, _) in zip(few.packed_info.tolist(), all_samples.packed_info.tolist(), strict=True):
        assert torch.equal(few.t_starts[a : a + n], all_samples.t_starts[b : b + n])


def test_planes_bound_the_samples(device: torch.device) -> None:
    stepping = dataclasses.replace(EVEN, near_plane=1.0, far_plane=1.5)
    rays, jitter = random_rays(30, device), jitters(30, device)
    bits, blocks = grid(1, 1.0, device)
    samples = march(rays, jitter, bits, blocks, stepping)
    t_starts = samples.t_starts[: samples.n_owned]
    assert len(t_starts) and float(t_starts.min()) >= 1.0 and float(t_starts.max()) < 1.5
    assert_same_samples(samples, reference.march(rays, jitter, bits, blocks, stepping))


def test_steps_grow_with_distance_between_their_bounds(device: torch.device) -> None:
    samples = march(random_rays(30, device), jitters(30, device), *grid(3, 1.0, device), GROWING)
    t = samples.t_starts[: samples.n_owned]
    lengths = samples.t_ends[: samples.n_owned] - t
    assert_close(lengths, (t * GROWING.cone_angle).clamp(GROWING.min_step, GROWING.max_step))


def test_the_order_of_rays_does_not_matter(device: torch.device) -> None:
    rays, jitter = random_rays(60, device), jitters(60, device)
    bits, blocks = grid(3, 0.3, device)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0)).to(device)
    one, other = (march(rays[o], jitter[o], bits, blocks, GROWING) for o in (torch.arange(60, device=device), order))
    assert torch.equal(one.packed_info[order, 1], other.packed_info[:, 1])
    for to, ray in enumerate(order.tolist()):
        (a, n), (b, _) = one.packed_info[ray].tolist(), other.packed_info[to].tolist()
        assert torch.equal(one.t_starts[a : a + n], other.t_starts[b : b + n])


@pytest.mark.parametrize("n", [0, 1])
def test_few_rays(n: int, device: torch.device) -> None:
    samples = march(random_rays(n, device), jitters(n, device), *grid(1, 1.0, device), EVEN)
    assert samples.packed_info.shape == (n, 2) and (samples.n_owned > 0) == (n > 0)
    assert sample_positions(random_rays(n, device), samples).shape == (len(samples), 3)


def test_rows_that_no_ray_owns_are_zero(device: torch.device) -> None:
    samples = march(random_rays(30, device), jitters(30, device), *grid(1, 0.3, device), EVEN)
    assert len(samples) % ROWS == 0 and len(samples) > samples.n_owned
    for column in (samples.t_starts, samples.t_ends, samples.ray_indices):
        assert not column[samples.n_owned :].any()


def test_positions_are_the_middles_within_the_cube(device: torch.device) -> None:
    rays = random_rays(30, device)
    samples = march(rays, jitters(30, device), *grid(1, 1.0, device), EVEN)
    positions = sample_positions(rays, samples)
    assert_close(positions[: samples.n_owned], reference.sample_positions(rays, samples))
    assert float(positions.min()) >= 0.0 and float(positions.max()) <= 1.0


def test_a_ray_from_a_face_is_inside_at_once(device: torch.device) -> None:
    rays = rays_of(device, ([0.0, 0.5, 0.5], [1.0, 0.2, 0.1]), ([1.0, 0.3, 0.5], [-1.0, 0.2, 0.1]))
    samples = march(rays, torch.zeros(2, device=device), *grid(1, 1.0, device), EVEN)
    assert torch.equal(samples.t_starts[samples.packed_info[:, 0].long()], torch.zeros(2, device=device))
    chord = math.sqrt(1.05)
    assert samples.packed_info[:, 1].tolist() == [math.ceil(chord / EVEN.min_step)] * 2
