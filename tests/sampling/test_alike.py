"""Samples alike on neighbouring rays: where they lie, that they follow the weights, and that strips are the picture."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from worlds import Ball, train

from nerfkit.config import SamplerConfig
from nerfkit.kernels.march import Stepping
from nerfkit.sampling.alike import APRON, lattice, place_alike, smoothed, span
from nerfkit.sampling.proposal import ProposalSampler
from nerfkit.types import Rays, Samples

CPU = torch.device("cpu")
SHORT = Stepping(1, 32, 0.0, 0.02, 0.02, 0.05)
GROWING = Stepping(3, 32, 1 / 12, 0.01, 0.125, 0.05)


def grid_of_rays(
    height: int, width: int, origin: tuple[float, float, float] = (0.5, 0.5, -1.0), spread: float = 0.3
) -> Rays:
    """A picture of the unit cube from before its face z = 0."""
    along = [torch.linspace(-spread, spread, n) for n in (height, width)]
    y, x = torch.meshgrid(*along, indexing="ij")
    d = torch.stack([x, y, torch.ones_like(x)], -1).reshape(-1, 3)
    d = d / d.norm(dim=1, keepdim=True)
    return Rays(torch.tensor(origin).expand(len(d), 3).contiguous(), d, torch.ones(len(d)))


def two_walls(middles: Tensor, lengths: Tensor) -> Tensor:
    """Rays that go left of the middle end at a depth of 0.3, the others at 0.7."""
    there = ((middles >= 0) & (middles <= 1)).all(-1)
    wall = torch.where(middles[:, :1, 0] < 0.5, 0.3, 0.7)
    return (1e-3 + ((middles[..., 2] - wall).abs() < 0.01).float()) * there * (lengths > 0)


def borders(samples: Samples, n: int) -> Tensor:
    return torch.cat([samples.t_starts.view(-1, n), samples.t_ends.view(-1, n)[:, -1:]], 1)


@pytest.mark.parametrize("stepping", [SHORT, GROWING])
def test_a_lattice_is_the_same_wherever_it_is_looked_at(stepping: Stepping) -> None:
    whole = lattice(stepping, 0.0, 3.0)
    part = lattice(stepping, 1.3, 2.1)
    steps = whole.diff()
    wanted = (whole[:-1] * stepping.cone_angle).clamp(stepping.min_step, stepping.max_step)
    torch.testing.assert_close(steps, wanted, rtol=1e-3, atol=1e-6)
    assert whole[0] == pytest.approx(0.05) and part[0] <= 1.3 < part[1] and part[-2] < 2.1 <= part[-1]
    distance = (part[:, None] - whole).abs().amin(1)
    assert distance.max() < 1e-5
    assert len(lattice(stepping, 0.0, 0.0)) == 2, "there is an interval even where no ray meets the cube"


def test_rays_enter_and_leave_the_cube_at_its_faces() -> None:
    d = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [0.6, 0.0, 0.8]])
    o = torch.tensor([[0.5, 0.5, -2.0], [0.5, 0.5, 0.25], [5.0, 0.5, 0.5]])
    enter, leave = span(Rays(o, d, torch.ones(3)))
    assert enter[:2].tolist() == [2.0, 0.0] and leave[:2].tolist() == [3.0, 0.25]
    assert leave[2] < enter[2]


def test_all_rays_get_as_many_and_neighbours_get_them_at_like_depths() -> None:
    rays, n = grid_of_rays(20, 24), 8
    samples = place_alike(rays, (1, 20, 24), torch.full((480,), 0.5), n, SHORT, two_walls)
    assert samples.packed_info.tolist() == [[8 * r, 8] for r in range(480)]
    assert torch.equal(samples.ray_indices, torch.arange(480, dtype=torch.int32).repeat_interleave(8))
    t = borders(samples, n).view(20, 24, n + 1)
    assert (t.diff(dim=-1) >= 0).all()
    depths = t * rays.rays_d[:, 2].view(20, 24, 1) - 1.0
    # Left of the edge they are about the near wall, right of it about the far one, and at the edge about both.
    median = depths[..., n // 2]
    assert (median[:, :10] - 0.3).abs().max() < 0.03 and (median[:, 14:] - 0.7).abs().max() < 0.03
    edge = depths[10, 11:13, 1:-1]
    for wall in (0.3, 0.7):
        assert ((edge - wall).abs() < 0.03).any(1).all()
    # From one ray to the next a border moves as weights of a third of the rays about it do: never over the whole way.
    rest = depths[:, [*range(9), *range(14, 23)], 1:-1].diff(dim=1)[:, [*range(8), *range(10, 17)]]
    assert rest.abs().max() < 0.03


def test_intervals_have_equal_weight() -> None:
    rays, n = grid_of_rays(6, 6, spread=0.01), 5
    jitter = torch.full((36,), 0.5)

    def haze(middles: Tensor, lengths: Tensor) -> Tensor:
        return ((middles >= 0) & (middles <= 1)).all(-1) * lengths * middles[..., 2].clamp(min=0.0)

    samples = place_alike(rays, (1, 6, 6), jitter, n, replace(SHORT, min_step=0.001, max_step=0.001), haze)
    z = borders(samples, n)[14] * rays.rays_d[14, 2] - 1.0
    torch.testing.assert_close(z, (torch.arange(6) / 5.0).sqrt(), atol=0.01, rtol=0)
    shifted = place_alike(rays, (1, 6, 6), jitter + 0.4, n, SHORT, haze)
    assert (borders(shifted, n)[:, 1:-1] > borders(samples, n)[:, 1:-1]).all()


def test_patches_do_not_see_each_other() -> None:
    both = smoothed(torch.rand(2 * 12, 7, generator=torch.Generator().manual_seed(0)), (2, 3, 4))
    weights = torch.rand(2 * 12, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(both[12:], smoothed(weights[12:], (1, 3, 4)))
    slow = weights[:12].view(3, 4, 7)
    torch.testing.assert_close(both[:12].view(3, 4, 7)[1, 1], slow[0:3, 0:3].mean((0, 1)))
    torch.testing.assert_close(both[0], (4 * slow[0, 0] + 2 * slow[0, 1] + 2 * slow[1, 0] + slow[1, 1]) / 9)


def test_rays_that_meet_nothing_have_samples_too() -> None:
    rays = grid_of_rays(4, 4, origin=(0.5, 0.5, 5.0))
    samples = place_alike(rays, (1, 4, 4), torch.full((16,), 0.5), 6, SHORT, two_walls)
    assert len(samples) == 96 and samples.t_ends.isfinite().all()


def test_proposals_find_a_ball_and_strips_are_the_picture() -> None:
    sampler = ProposalSampler(SamplerConfig(kind="proposal", resolution=32, n_steps=128, n_proposed=12), 1, CPU)
    ball = Ball()
    train(sampler, range(1, 300), ball)
    rays = grid_of_rays(16, 12)
    samples, there = sampler.sample_alike(rays, (1, 16, 12), torch.full((192,), 0.5))
    assert len(samples) == 192 * 12
    middles = (samples.t_starts + samples.t_ends)[:, None] / 2
    places = rays.rays_o[samples.ray_indices.long()] + middles * rays.rays_d[samples.ray_indices.long()]
    assert torch.equal(there, ((places >= 0) & (places <= 1)).all(1)), "nothing is forbidden but what is outside"
    front = middles.view(16, 12, 12)[8, 6] - 1.3
    assert (front.abs() < 0.1).sum() >= 6, "half of the samples are near the ball's front"
    strip = rays[slice(4 * 12, 9 * 12)]
    alone, _ = sampler.sample_alike(strip, (1, 5, 12), torch.full((60,), 0.5))
    inner = slice(APRON * 12 * 12, (5 - APRON) * 12 * 12)
    for name in ("t_starts", "t_ends"):
        whole = getattr(samples, name)[4 * 12 * 12 : 9 * 12 * 12]
        torch.testing.assert_close(getattr(alone, name)[inner], whole[inner], atol=1e-4, rtol=0)
