"""The occupancy grid: what it learns, what it forgets, and that a saved one goes on as if never interrupted."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nerfkit.config import SamplerConfig
from nerfkit.kernels.occupancy import UNKNOWN
from nerfkit.sampling.occupancy import OccupancyGrid
from nerfkit.types import LearningSampler, Met, Rays, Samples

CONFIG = SamplerConfig(resolution=32, n_steps=128, update_every=4, observe_every=2, warmup_steps=8, n_probes=2000)


class Ball:
    """A field that is dense in a ball about the cube's centre."""

    def __init__(self, radius: float = 0.2, sigma: float = 200.0):
        self.radius, self.sigma = radius, sigma

    def density(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        inside = (positions - 0.5).norm(dim=1) < self.radius
        return self.sigma * inside.float(), positions

    def color(self, features: Tensor, rays_d: Tensor, ray_indices: Tensor) -> Tensor:
        return features


def rays_through(n: int, device: torch.device) -> Rays:
    generator = torch.Generator().manual_seed(0)
    origins = 0.5 + 1.3 * F.normalize(torch.randn(n, 3, generator=generator), dim=1)
    directions = F.normalize(torch.rand(n, 3, generator=generator) - origins, dim=1)
    return Rays(origins, directions, torch.ones(n)).to(device)


def met(rays: Rays, samples: Samples, sigmas: Tensor | float) -> Met:
    colors = torch.zeros_like(rays.rays_d)
    return Met(rays, samples, sigmas * torch.ones_like(samples.t_starts), colors, colors)


def centers(n_levels: int) -> Tensor:
    """Middles of all cells, (levels, r, r, r, 3)."""
    axis = (torch.arange(32) + 0.5) / 32
    cube = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    return torch.stack([(cube - 0.5) * 0.5 ** (n_levels - 1 - level) + 0.5 for level in range(n_levels)])


def learn(grid: OccupancyGrid, steps: range, field: Ball) -> None:
    for step in steps:
        grid.update(step, field)


def test_a_fresh_grid_is_full(device: torch.device) -> None:
    grid = OccupancyGrid(CONFIG, 1, device)
    assert isinstance(grid, LearningSampler) and grid.occupancy == 1.0
    with torch.no_grad():
        samples = grid.sample(rays_through(20, device), torch.zeros(20, device=device))
    lengths = (samples.t_ends - samples.t_starts)[: samples.n_owned]
    assert torch.allclose(lengths, torch.full_like(lengths, math.sqrt(3.0) / 128), atol=1e-6)


@pytest.mark.parametrize("n_levels", [1, 2])
def test_it_finds_the_ball_and_nothing_else(n_levels: int, device: torch.device) -> None:
    grid = OccupancyGrid(CONFIG, n_levels, device)
    learn(grid, range(1, 201), Ball())
    occupied = (grid.values > grid.threshold).view(n_levels, 32, 32, 32).cpu()
    distance = (centers(n_levels) - 0.5).norm(dim=-1)
    half = 0.87 / 32 * torch.tensor([0.5 ** (n_levels - 1 - k) for k in range(n_levels)]).view(-1, 1, 1, 1)
    assert not occupied[distance > 0.2 + half].any()
    assert float(occupied[distance < 0.2 - half].float().mean()) > 0.99
    assert grid.occupancy == pytest.approx(float(occupied.float().mean()))


def test_what_appears_is_found_by_probes_alone(device: torch.device) -> None:
    grid = OccupancyGrid(CONFIG, 1, device)
    learn(grid, range(1, 101), Ball(sigma=0.0))
    assert grid.occupancy == 0.0
    learn(grid, range(101, 401), Ball())
    assert grid.occupancy == pytest.approx(4 / 3 * math.pi * 0.2**3, rel=0.25)


def test_what_vanishes_is_forgotten(device: torch.device) -> None:
    grid = OccupancyGrid(replace(CONFIG, n_probes=10000), 1, device)
    learn(grid, range(1, 101), Ball(0.3))
    before = grid.occupancy
    learn(grid, range(101, 501), Ball(0.15))
    assert before > 0.1 and grid.occupancy == pytest.approx(4 / 3 * math.pi * 0.15**3, rel=0.4)


def test_only_allowed_cells_are_ever_occupied(device: torch.device) -> None:
    allowed = torch.zeros(1, 32, 32, 32, dtype=torch.bool)
    allowed[:, :16] = True
    grid = OccupancyGrid(CONFIG, 1, device, allowed)
    assert grid.occupancy == 0.5
    rays = rays_through(200, device)
    for step in range(1, 41):
        samples = grid.sample(rays, torch.full((200,), step / 41, device=device))
        # Samples are at most a rounding outside of their cells; here they are pushed over the border.
        pushed = replace(rays, rays_o=rays.rays_o + torch.tensor([0.02, 0.0, 0.0], device=device))
        grid.observe(met(pushed, samples, 99.0))
        grid.update(step, Ball(0.5))
    occupied = (grid.values > grid.threshold).view(1, 32, 32, 32).cpu()
    assert occupied.any() and not occupied[~allowed].any()


def test_samples_that_no_ray_reached_count_as_empty(device: torch.device) -> None:
    grid = OccupancyGrid(CONFIG, 1, device)
    rays = Rays(torch.tensor([[-0.5, 0.51, 0.51]]), torch.tensor([[1.0, 0.0, 0.0]]), torch.ones(1)).to(device)
    samples = grid.sample(rays, torch.zeros(1, device=device))
    reached = torch.arange(len(samples), device=device) < samples.n_owned // 2
    grid.observe(met(rays, samples, 50.0 * reached))
    grid.update(2, Ball(0.0))
    seen = grid._window.view(32, 32, 32)[:, 16, 16]
    assert seen[:15].max() == 50.0 and seen[18:].max() == 0.0


def test_forgetting_drops_what_was_observed(device: torch.device) -> None:
    grid = OccupancyGrid(CONFIG, 1, device)
    rays = rays_through(5, device)
    grid.observe(met(rays, grid.sample(rays, torch.zeros(5, device=device)), 1.0))
    grid.forget()
    grid.update(2, Ball())
    assert (grid._window == -1.0).all()


def test_steps_of_young_grids_are_longer_in_training_alone(device: torch.device) -> None:
    grid, rays = OccupancyGrid(CONFIG, 1, device), rays_through(50, device)
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
def test_a_saved_grid_goes_on_as_if_never_interrupted(at: int, device: torch.device) -> None:
    allowed = torch.zeros(1, 32, 32, 32, dtype=torch.bool)
    allowed[:, 4:] = True
    through, first = (OccupancyGrid(CONFIG, 1, device, allowed) for _ in range(2))
    learn(through, range(1, 61), Ball())
    learn(first, range(1, at + 1), Ball())
    state = {name: value.clone() for name, value in first.state_dict().items()}
    second = OccupancyGrid(CONFIG, 1, device)  # a resumed training does not ask again which cells are allowed
    second.load_state_dict(state)
    assert torch.equal(second.cells().bits, first.cells().bits) and second.threshold == first.threshold
    learn(second, range(at + 1, 61), Ball())
    for name, value in through.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    for name in ("bits", "blocks", "clear"):
        assert torch.equal(getattr(through.cells(), name), getattr(second.cells(), name))
