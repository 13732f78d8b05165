"""Proposals: step functions along rays against slow ones, and that samples gather where the field is dense."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from worlds import Ball, check_that_a_saved_one_goes_on, rays_through, train

from nerfkit.config import SamplerConfig
from nerfkit.kernels.composite import composite
from nerfkit.kernels.march import packed, sample_positions
from nerfkit.kernels.propose import Believed, propose
from nerfkit.sampling.histogram import interlevel, opacities, resample, weights_of
from nerfkit.sampling.proposal import ProposalSampler
from nerfkit.types import LearningSampler, Samples

CPU = torch.device("cpu")
CONFIG = SamplerConfig(kind="proposal", resolution=32, n_steps=128, warmup_steps=100, n_proposed=12)


def samples_of(counts: list[int], seed: int = 0, gaps: bool = True) -> Samples:
    """Intervals of rays, some with gaps between them, and rows at the end that no ray owns."""
    generator = torch.Generator().manual_seed(seed)
    packed_info, total, padded = packed(torch.tensor(counts, dtype=torch.int32))
    starts, ends = torch.zeros(2, padded)
    for start, count in packed_info.tolist():
        steps = 0.05 + torch.rand(2 * count, generator=generator)
        steps[::2] *= (torch.rand(count, generator=generator) < 0.4) if gaps else 0.0
        borders = 1.0 + steps.cumsum(0)
        starts[start : start + count] = borders[::2]
        ends[start : start + count] = borders[1::2]
    owners = torch.repeat_interleave(torch.tensor(counts)).int()
    return Samples(packed_info, F.pad(owners, (0, padded - total)), starts, ends, total)


def rows(samples: Samples) -> list[slice]:
    return [slice(start, start + count) for start, count in samples.packed_info.tolist()]


COUNTS = [5, 0, 1, 17, 8]


class TestHistograms:
    def test_weights_are_those_of_a_picture(self) -> None:
        samples = samples_of(COUNTS)
        sigmas = 3.0 * torch.rand(len(samples), generator=torch.Generator().manual_seed(1))
        _, opacity, _, weights = composite(sigmas, torch.zeros(len(samples), 3), samples, torch.zeros(5, 3))
        found = weights_of(sigmas, samples)
        torch.testing.assert_close(found[: samples.n_owned], weights[: samples.n_owned])
        assert not found[samples.n_owned :].any()
        torch.testing.assert_close(opacities(found, samples), opacity)

    def test_weights_have_the_right_gradient(self) -> None:
        samples = samples_of([3, 4])
        sigmas = torch.rand(len(samples), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        factors = torch.rand(len(samples), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        few = sigmas[:7].clone().requires_grad_()

        def loss(first: Tensor) -> Tensor:
            return (weights_of(torch.cat([first, sigmas[7:]]), samples) * factors).sum()

        assert torch.autograd.gradcheck(loss, few, atol=1e-4)

    @pytest.mark.parametrize("n", [1, 6, 40])
    def test_new_intervals_hold_equal_weights(self, n: int) -> None:
        samples = samples_of(COUNTS, gaps=False)
        weights = 0.01 + torch.rand(len(samples), generator=torch.Generator().manual_seed(3))
        found = resample(samples, weights, torch.full((5,), n), torch.full((5,), 0.5))
        assert found.packed_info[:, 1].tolist() == [n, 0, n, n, n]
        for old, new in zip(rows(samples), rows(found), strict=True):
            if old.start == old.stop:
                continue
            start, end, w = samples.t_starts[old], samples.t_ends[old], weights[old] / weights[old].sum()
            overlap = torch.minimum(found.t_ends[new, None], end) - torch.maximum(found.t_starts[new, None], start)
            held = (overlap.clamp(min=0.0) / (end - start) * w).sum(1)
            torch.testing.assert_close(held, torch.full((n,), 1.0 / n), atol=1e-4, rtol=0.0)
            assert found.t_starts[new][0] == start[0] and torch.isclose(found.t_ends[new][-1], end[-1])
            assert bool((found.t_starts[new][1:] >= found.t_ends[new][:-1] - 1e-6).all())

    def test_nothing_reaches_into_a_gap_but_all_else_is_covered(self) -> None:
        samples = samples_of(COUNTS)
        weights = 0.01 + torch.rand(len(samples), generator=torch.Generator().manual_seed(3))
        jitter = torch.rand(5, generator=torch.Generator().manual_seed(4))
        found = resample(samples, weights, torch.tensor([60, 60, 60, 200, 90]), jitter)
        assert bool((found.t_ends >= found.t_starts).all()) and found.n_owned == 60 + 60 + 200 + 90
        assert bool((found.ray_indices[1 : found.n_owned] >= found.ray_indices[: found.n_owned - 1]).all())
        for old, new in zip(rows(samples), rows(found), strict=True):
            start, end = samples.t_starts[old], samples.t_ends[old]
            overlap = torch.minimum(found.t_ends[new, None], end) - torch.maximum(found.t_starts[new, None], start)
            inside, lengths = overlap.clamp(min=0.0).sum(1), (found.t_ends - found.t_starts)[new]
            torch.testing.assert_close(inside, lengths, atol=2e-5, rtol=0.0)
            # What is lost is the rest of an interval that a gap cut short: less than one new interval a gap.
            assert float(lengths.sum()) >= 0.9 * float((end - start).sum())

    def test_jitter_moves_borders_by_up_to_half_an_interval(self) -> None:
        samples = samples_of([10], gaps=False)
        weights = samples.t_ends - samples.t_starts  # uniform in t
        low, middle, high = (
            resample(samples, weights, torch.tensor([8]), torch.tensor([j])).t_starts[1:8] for j in (0.0, 0.5, 0.99)
        )
        length = float(weights[:10].sum()) / 8
        torch.testing.assert_close(middle - low, torch.full((7,), 0.5 * length), atol=1e-4, rtol=0.0)
        torch.testing.assert_close(high - middle, torch.full((7,), 0.49 * length), atol=1e-4, rtol=0.0)

    def test_rays_without_intervals_get_none(self) -> None:
        nothing = Samples(
            torch.zeros(3, 2, dtype=torch.int32), torch.zeros(0, dtype=torch.int32), *torch.zeros(2, 0), 0
        )
        found = resample(nothing, torch.zeros(0), torch.full((3,), 4), torch.zeros(3))
        assert found.n_owned == 0 and not found.packed_info.any()
        assert float(interlevel(torch.zeros(0), nothing, torch.zeros(0), nothing)) == 0.0

    def test_interlevel_is_its_slow_twin(self) -> None:
        coarse, fine = samples_of(COUNTS, seed=5), samples_of([9, 2, 4, 0, 30], seed=6)
        generator = torch.Generator().manual_seed(7)
        w, v = 0.2 * torch.rand(len(coarse), generator=generator), 0.3 * torch.rand(len(fine), generator=generator)
        expected = 0.0
        for old, new in zip(rows(coarse), rows(fine), strict=True):
            for i in range(new.start, new.stop):
                overlaps = (coarse.t_starts[old] < fine.t_ends[i]) & (coarse.t_ends[old] > fine.t_starts[i])
                lack = max(0.0, float(v[i] - w[old][overlaps].sum()))
                expected += lack**2 / (float(v[i]) + 1e-5) / 5
        assert expected > 0.1
        assert float(interlevel(w, coarse, v, fine)) == pytest.approx(expected, rel=1e-4)

    def test_a_proposal_that_bounds_is_not_pushed_and_one_that_lacks_is_pushed_up(self) -> None:
        coarse = samples_of([6], seed=5, gaps=False)
        fine = resample(coarse, torch.ones(len(coarse)), torch.tensor([12]), torch.tensor([0.5]))
        v = torch.full((len(fine),), 0.05)
        enough, little = (torch.full((len(coarse),), w, requires_grad=True) for w in (0.3, 0.01))
        assert float(interlevel(enough, coarse, v, fine).detach()) == 0.0
        (gradient,) = torch.autograd.grad(interlevel(little, coarse, v, fine), little)
        assert bool((gradient[:6] < 0.0).all())


def learn(sampler: ProposalSampler, steps: range) -> None:
    """A training on a ball, of few rays."""
    train(sampler, steps, Ball(0.25), 200)


def test_a_fresh_sampler_looks_everywhere(device: torch.device) -> None:
    sampler = ProposalSampler(CONFIG, 2, device)
    assert isinstance(sampler, LearningSampler) and sampler.occupancy == 1.0
    rays = rays_through(50, 0, device)
    samples = sampler.sample(rays, torch.full((50,), 0.5, device=device))
    lengths = torch.zeros(50, device=device).index_add_(
        0, samples.ray_indices.long(), samples.t_ends - samples.t_starts
    )
    with torch.no_grad():
        through = sampler.cells().sample(rays, torch.full((50,), 0.5, device=device))
    wanted = torch.zeros(50, device=device).index_add_(0, through.ray_indices.long(), through.t_ends - through.t_starts)
    assert float(lengths.sum() / wanted.sum()) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("n_levels", [1, 3])
@pytest.mark.parametrize("exponent", [0.0, 0.6, 1.0])
def test_whole_rays_are_proposed_as_in_stages(exponent: float, n_levels: int) -> None:
    x = torch.stack([(torch.arange(32) - 15.5) / 32 * 0.5 ** (n_levels - 1 - level) for level in range(n_levels)])
    allowed = (x.abs() > 0.1)[:, :, None, None].expand(n_levels, 32, 32, 32)  # two halves, and a gap between them
    sampler = ProposalSampler(CONFIG, n_levels, CPU, allowed, near_plane=0.05)
    with torch.no_grad():
        for i, tensor in enumerate((sampler.guide.table, *sampler.guide.matrices)):
            tensor.normal_(std=0.5, generator=torch.Generator().manual_seed(i))
    rays = rays_through(300, 2, CPU)
    rays.rays_o[:150] = 0.3 + 0.4 * torch.rand(150, 3, generator=torch.Generator().manual_seed(3))
    jitter, believed = torch.rand(300, generator=torch.Generator().manual_seed(4)), Believed(exponent, 0.01, 4, 20)
    guide = sampler.guide
    whole = propose(sampler._long, rays, jitter, guide.grid, [guide.table, *guide.matrices], believed)
    staged = sampler.in_stages(rays, jitter, believed)
    n_same = 0
    for (a, n), (b, m) in zip(whole.packed_info.tolist(), staged.packed_info.tolist(), strict=True):
        pairs = [(getattr(whole, name)[a : a + n], getattr(staged, name)[b : b + m]) for name in ("t_starts", "t_ends")]
        n_same += n == m and all(torch.allclose(one, other, atol=1e-3) for one, other in pairs)
    assert n_same > 0.95 * 300  # at the border of a cell a step may fall on either side of it
    assert torch.equal(whole.ray_indices[: whole.n_owned], torch.repeat_interleave(whole.packed_info[:, 1]).int())


def test_samples_gather_at_the_surface_and_leave_empty_rays(device: torch.device) -> None:
    sampler = ProposalSampler(CONFIG, 1, device)
    learn(sampler, range(1, 1201))
    rays = rays_through(400, 0, device)
    samples = sampler.sample(rays, torch.full((400,), 0.5, device=device))
    near = -((rays.rays_o - 0.5) * rays.rays_d).sum(1)
    off = (rays.rays_o + near[:, None] * rays.rays_d - 0.5).norm(dim=1)
    hits, counts = off < 0.2, samples.packed_info[:, 1]
    assert float(counts[hits].float().mean()) > 10.0 and float(counts[off > 0.35].float().mean()) < 6.0
    entry = near - (0.25**2 - off**2).clamp(min=0.0).sqrt()
    owner = samples.ray_indices[: samples.n_owned].long()
    middle = (0.5 * (samples.t_starts + samples.t_ends))[: samples.n_owned]
    close = ((middle - entry[owner]).abs() < 0.1)[hits[owner]]
    assert float(close.float().mean()) > 0.6
    # The surface lies in an interval: nothing is lost.
    holds = (samples.t_starts[: samples.n_owned] <= entry[owner] + 0.01) & (
        samples.t_ends[: samples.n_owned] >= entry[owner] + 0.01
    )
    found = torch.zeros(400, dtype=torch.bool, device=device)
    found[owner[holds]] = True
    assert float(found[hits].float().mean()) > 0.99


def test_nothing_is_proposed_outside_of_what_is_allowed(device: torch.device) -> None:
    allowed = torch.zeros(1, 32, 32, 32, dtype=torch.bool)
    allowed[:, :16] = True
    sampler = ProposalSampler(CONFIG, 1, device, allowed)
    learn(sampler, range(1, 101))
    rays = rays_through(300, 0, device)
    samples = sampler.sample(rays, torch.full((300,), 0.5, device=device))
    places = sample_positions(rays, samples)[: samples.n_owned]
    assert samples.n_owned > 500 and float(places[:, 0].max()) < 0.5 + 0.06  # a long step reaches over the border


@pytest.mark.parametrize("at", [3, 130])
def test_a_saved_one_goes_on_as_if_never_interrupted(at: int, device: torch.device) -> None:
    check_that_a_saved_one_goes_on(lambda allowed: ProposalSampler(CONFIG, 1, device, allowed), at, 161, learn)
