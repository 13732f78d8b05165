"""A world that samplers look into: balls, the rays that meet them, and what must hold of any sampler that learns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nerfkit.kernels.march import sample_positions
from nerfkit.types import Met, Rays, Samples

RESOLUTION = 32


class Ball:
    """A field that is dense in a ball."""

    def __init__(self, radius: float = 0.2, sigma: float = 200.0, middle: float = 0.5):
        self.radius, self.sigma, self.middle = radius, sigma, middle

    def density(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        inside = (positions - self.middle).norm(dim=1) < self.radius
        return self.sigma * inside.float(), positions

    def color(self, features: Tensor, rays_d: Tensor, ray_indices: Tensor) -> Tensor:
        return features.clamp(0.0, 1.0)


def rays_through(n: int, seed: int, device: torch.device) -> Rays:
    """Rays from all sides into the unit cube."""
    generator = torch.Generator().manual_seed(seed)
    origins = 0.5 + 1.3 * F.normalize(torch.randn(n, 3, generator=generator), dim=1)
    directions = F.normalize(torch.rand(n, 3, generator=generator) - origins, dim=1)
    return Rays(origins, directions, torch.ones(n)).to(device)


def met_of(rays: Rays, samples: Samples, sigmas: Tensor | float) -> Met:
    """Densities that rays met, before and of black."""
    colors = torch.zeros_like(rays.rays_d)
    return Met(rays, samples, sigmas * torch.ones_like(samples.t_starts), colors, colors)


def met_by(rays: Rays, samples: Samples, field: Ball) -> Met:
    """What rays meet in a field: nothing behind what is opaque."""
    sigmas, _ = field.density(sample_positions(rays, samples))
    sigmas[samples.n_owned :] = 0.0
    for start, count in samples.packed_info.tolist():
        own = sigmas[start : start + count]
        lengths = (samples.t_ends - samples.t_starts)[start : start + count]
        own[(own * lengths).cumsum(0) - own * lengths > 4.6] = 0.0
    return met_of(rays, samples, sigmas)


def train(sampler: Any, steps: range, field: Ball | None = None, n_rays: int = 500) -> None:
    """What a training does with its sampler."""
    field = field or Ball()
    for step in steps:
        watched = sampler.watches()
        rays = rays_through(n_rays, step, sampler.device)
        jitter = torch.rand(n_rays, generator=torch.Generator().manual_seed(step)).to(sampler.device)
        samples = sampler.sample(rays, jitter)
        sampler.update(step, field, [met_by(rays, samples, field)] if watched else [])


def distances(n_levels: int = 1, middle: float = 0.5) -> Tensor:
    """Of the middles of all cells from a place, (levels, r, r, r)."""
    axis = (torch.arange(RESOLUTION) + 0.5) / RESOLUTION
    cube = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    levels = [(cube - 0.5) * 0.5 ** (n_levels - 1 - level) + 0.5 for level in range(n_levels)]
    return (torch.stack(levels) - middle).norm(dim=-1)


def half_cell(n_levels: int) -> Tensor:
    """How far at most a cell's places are from its middle, more or less; (levels, 1, 1, 1)."""
    return 0.87 / RESOLUTION * torch.tensor([0.5 ** (n_levels - 1 - k) for k in range(n_levels)]).view(-1, 1, 1, 1)


def check_that_a_saved_one_goes_on(
    new: Callable[..., Any], at: int, until: int, learn: Callable[[Any, range], None]
) -> None:
    """What is saved at a step and restored has, in the end, the state of one that was never interrupted.

    ``new`` makes a sampler, of ``allowed`` cells or of all: a resumed training does not ask again which are allowed.
    """
    allowed = torch.zeros(1, RESOLUTION, RESOLUTION, RESOLUTION, dtype=torch.bool)
    allowed[:, 4:] = True
    through, first, second = new(allowed), new(allowed), new(None)
    learn(through, range(1, until))
    learn(first, range(1, at + 1))
    second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()})
    with torch.no_grad():
        assert torch.equal(second.cells().bits, first.cells().bits)
    learn(second, range(at + 1, until))
    for name, value in through.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    with torch.no_grad():
        for name in ("bits", "blocks", "clear"):
            assert torch.equal(getattr(through.cells(), name), getattr(second.cells(), name)), name
    device = through.cells().bits.device
    rays = rays_through(50, 0, device)
    one, two = (sampler.sample(rays, torch.zeros(50, device=device)) for sampler in (through, second))
    assert torch.equal(one.t_starts, two.t_starts) and torch.equal(one.packed_info, two.packed_info)
