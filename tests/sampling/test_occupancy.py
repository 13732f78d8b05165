"""The occupancy grid: what it learns, what it forgets, and that a saved one goes on as if never interrupted."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from worlds import Ball, check_that_a_saved_one_goes_on, distances, half_cell, met_of, rays_through

from nerfkit.config import SamplerConfig
from nerfkit.kernels.occupancy import UNKNOWN
from nerfkit.sampling.occupancy import OccupancyGrid
from nerfkit.types import LearningSampler, Rays

CONFIG = SamplerConfig(resolution=32, n_steps=128, update_every=4, observe_every=2, warmup_steps=8, n_probes=2000)


def probe(grid: OccupancyGrid, steps: range, field: Ball | None = None) -> None:
    """Steps of a training of which the grid is told nothing."""
    field = field or Ball()
    for step in steps:
        grid.update(step, field)


def test_a_fresh_grid_is_full(device: torch.device) -> None:
    grid = OccupancyGrid(CONFIG, 1, device)
    assert isinstance(grid, LearningSampler) and grid.occupancy == 1.0
    with torch.no_grad():
        samples = grid.sample(rays_through(20, 0, device), torch.zeros(20, device=device))
    lengths = (samples.t_ends - samples.t_starts)[: samples.n_owned]
    assert torch.allclose(lengths, torch.full_like(lengths, math.sqrt(3.0) / 128), atol=1e-6)


@pytest.mark.parametrize("n_levels", [1, 2])
def test_it_finds_the_ball_and_nothing_else(n_levels: int, device: torch.device) -> None:
    grid = OccupancyGrid(CONFIG, n_levels, device)
    probe(grid, range(1, 201), Ball())
    occupied = (grid.values > grid.threshold).view(n_levels, 32, 32, 32).cpu()
    half, distance = half_cell(n_levels), distances(n_levels)
    assert not occupied[distance > 0.2 + half].any()
    assert float(occupied[distance < 0.2 - half].float().mean()) > 0.99
    assert grid.occupancy == pytest.approx(float(occupied.float().mean()))


def test_what_appears_is_found_by_probes_alone(device: torch.device) -> None:
    grid = OccupancyGrid(CONFIG, 1, device)
    probe(grid, range(1, 101), Ball(sigma=0.0))
    assert grid.occupancy == 0.0
    probe(grid, range(101, 401), Ball())
    assert grid.occupancy == pytest.approx(4 / 3 * math.pi * 0.2**3, rel=0.25)


def test_what_vanishes_is_forgotten(device: torch.device) -> None:
    grid = OccupancyGrid(replace(CONFIG, n_probes=10000), 1, device)
    probe(grid, range(1, 101), Ball(0.3))
    before = grid.occupancy
    probe(grid, range(101, 501), Ball(0.15))
    assert before > 0.1 and grid.occupancy == pytest.approx(4 / 3 * math.pi * 0.15**3, rel=0.4)


def test_only_allowed_cells_are_ever_occupied(device: torch.device) -> None:
    allowed = torch.zeros(1, 32, 32, 32, dtype=torch.bool)
    allowed[:, :16] = True
    grid = OccupancyGrid(CONFIG, 1, device, allowed)
    assert grid.occupancy == 0.5
    rays = rays_through(200, 0, device)
    for step in range(1, 41):
        samples = grid.sample(rays, torch.full((200,), step / 41, device=device))
        # Samples are at most a rounding outside of their cells; here they are pushed over the border.
        pushed = replace(rays, rays_o=rays.rays_o + torch.tensor([0.02, 0.0, 0.0], device=device))
        grid.update(step, Ball(0.5), [met_of(pushed, samples, 99.0)])
    occupied = (grid.values > grid.threshold).view(1, 32, 32, 32).cpu()
    assert occupied.any() and not occupied[~allowed].any()


def test_samples_that_no_ray_reached_count_as_empty(device: torch.device) -> None:
    grid = OccupancyGrid(CONFIG, 1, device)
    rays = Rays(torch.tensor([[-0.5, 0.51, 0.51]]), torch.tensor([[1.0, 0.0, 0.0]]), torch.ones(1)).to(device)
    samples = grid.sample(rays, torch.zeros(1, device=device))
    reached = torch.arange(len(samples), device=device) < samples.n_owned // 2
    grid.update(2, Ball(0.0), [met_of(rays, samples, 50.0 * reached)])
    seen = grid._window.view(32, 32, 32)[:, 16, 16]
    assert seen[:15].max() == 50.0 and seen[18:].max() == 0.0


def test_steps_of_young_grids_are_longer_in_training_alone(device: torch.device) -> None:
    grid, rays = OccupancyGrid(CONFIG, 1, device), rays_through(50, 0, device)
    jitter = torch.zeros(50, device=device)
    counts = []
    for step in (0, CONFIG.warmup_steps // 2, CONFIG.warmup_steps):
        if step:
            grid.update(step + step % CONFIG.update_every, Ball())
        grid.values.fill_(UNKNOWN)
        grid._bake()
        counts.append(grid.sample(rays, jitter).n_owned)
        with torch.no_grad():
            whole = grid.sample(rays, jitter).n_owned
    assert counts[0] == pytest.approx(whole / 4, rel=0.05) and counts[1] == pytest.approx(whole / 2, rel=0.05)
    assert counts[2] == whole


@pytest.mark.parametrize(("n_levels", "cone_angle", "grows"), [(1, -1.0, False), (3, -1.0, True), (1, 0.01, True)])
def test_steps_grow_where_there_is_a_background(n_levels: int, cone_angle: float, grows: bool) -> None:
    config = SamplerConfig(resolution=32, n_steps=128, cone_angle=cone_angle)
    stepping = OccupancyGrid(config, n_levels, torch.device("cpu")).stepping
    assert (stepping.cone_angle > 0.0) == grows == (stepping.max_step > stepping.min_step)
    assert stepping.min_step == pytest.approx(math.sqrt(3.0) / 128 * 0.5 ** (n_levels - 1))


@pytest.mark.parametrize("at", [3, 8, 30])
def test_a_saved_one_goes_on_as_if_never_interrupted(at: int, device: torch.device) -> None:
    check_that_a_saved_one_goes_on(lambda allowed: OccupancyGrid(CONFIG, 1, device, allowed), at, 61, probe)
