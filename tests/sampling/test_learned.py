"""Learned occupancy: what its losses teach, what it finds, keeps and gives up, and that a saved one goes on."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from worlds import Ball, check_that_a_saved_one_goes_on, distances, half_cell, train

from nerfkit.config import SamplerConfig
from nerfkit.sampling.branches import density_loss, imbalance, two_branches
from nerfkit.sampling.guide import Guide
from nerfkit.sampling.learned import _CLEAR, LearnedOccupancy, Seen
from nerfkit.sampling.trust import FULL, Trust
from nerfkit.types import LearningSampler, Samples

CPU = torch.device("cpu")
CONFIG = SamplerConfig(kind="learned", resolution=32, n_steps=128, update_every=4, warmup_steps=16)


def occupied(sampler: LearnedOccupancy) -> Tensor:
    return sampler.cells().occupied.cpu()


class TestLosses:
    @pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
    def test_imbalance_is_least_at_the_share(self, share: float) -> None:
        n = 1000

        def value(p: float) -> float:
            sure = torch.cat([torch.ones(round(p * n)), torch.zeros(n - round(p * n))])
            return float(imbalance(sure, share))

        values = {p: value(p) for p in torch.linspace(0.0, 1.0, 101).tolist()}
        assert min(values, key=lambda p: values[p]) == pytest.approx(share, abs=0.011)
        assert value(share) == pytest.approx(1.0, abs=1e-6)

    def test_imbalance_moves_probabilities_towards_the_share(self) -> None:
        for start, sign in ((0.9, 1.0), (0.2, -1.0)):
            p = torch.full((50,), start, requires_grad=True)
            (gradient,) = torch.autograd.grad(imbalance(p, 0.6), p)
            assert bool((gradient * sign > 0.0).all())

    def test_density_loss_is_its_formula(self) -> None:
        logits, alphas = torch.tensor([-3.0, 0.2, 4.0]), torch.tensor([0.1, 0.7, 1.0])
        p = torch.sigmoid(logits)
        each = -alphas * p.log() - 2.0 * (1.0 - alphas) * (1.0 - p).log()
        assert float(density_loss(logits, alphas, 2.0)) == pytest.approx(float(each.mean()), rel=1e-5)

    def branches(self, p: Tensor, haze: Tensor) -> tuple[Tensor, Tensor]:
        """One ray of four samples before black, that should have been red."""
        edges = torch.tensor([1.0, 1.5, 2.0, 2.5, 3.0])
        samples = Samples(
            torch.tensor([[0, 4]], dtype=torch.int32), torch.zeros(4, dtype=torch.int32), edges[:-1], edges[1:], 4
        )
        sigmas, rgbs = torch.tensor([0.0, 3.0, 1.0, 9.0]), torch.rand(4, 3, generator=torch.Generator().manual_seed(1))
        return two_branches(p, sigmas, rgbs, haze, samples, torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0]]))

    def test_two_branches_are_a_slow_composite_of_both(self) -> None:
        p, haze = torch.tensor([0.3, 0.9, 0.1, 0.6]), torch.randn(4, 4, generator=torch.Generator().manual_seed(2))
        rendering, thin = self.branches(p, haze)
        rgbs = torch.rand(4, 3, generator=torch.Generator().manual_seed(1))
        color, trans, opacities = torch.zeros(3), 1.0, []
        for i, sigma in enumerate([0.0, 3.0, 1.0, 9.0]):
            haze_sigma = math.log1p(math.exp(float(haze[i, 0]) - 3.0))
            is_field = float(p[i]) >= 0.5
            density = float(p[i]) * sigma if is_field else (1.0 - float(p[i])) * haze_sigma
            opacities += [] if is_field else [1.0 - math.exp(-0.5 * haze_sigma)]
            alpha = 1.0 - math.exp(-0.5 * density)
            color += trans * alpha * (rgbs[i] if is_field else torch.sigmoid(haze[i, 1:]))
            trans *= 1.0 - alpha
        wanted = 10.0 * F.huber_loss(color, torch.tensor([1.0, 0.0, 0.0]), delta=0.1)
        assert float(rendering) == pytest.approx(float(wanted), rel=1e-4)
        assert float(thin) == pytest.approx(sum(opacities) / 2, rel=1e-4)

    def test_a_picture_that_lacks_a_place_raises_its_probability(self) -> None:
        p, haze = torch.tensor([0.9, 0.6, 0.6, 0.6], requires_grad=True), torch.zeros(4, 4)
        rendering, _ = self.branches(p, haze)
        (gradient,) = torch.autograd.grad(rendering, p)
        step = 1e-3
        for i in range(4):
            near = p.detach().clone()
            near[i] += step
            slope = (self.branches(near, haze)[0] - rendering.detach()) / step
            assert float(gradient[i]) == pytest.approx(float(slope), abs=2e-3)


def test_a_guide_is_small_and_says_what_it_is_told_to(device: torch.device) -> None:
    guide = Guide(1, 128, device, bias=2.0)
    assert guide.n_parameters <= 150_000
    places = torch.rand(4096, 3, generator=torch.Generator().manual_seed(0)).to(device)
    wanted = ((places - 0.5).norm(dim=1) < 0.3).float()
    assert float((guide.ask(places) > 0.0).float().mean()) > 0.9  # at first all is occupied
    for _ in range(100):
        loss = F.binary_cross_entropy_with_logits(guide.answer(guide.features(places)), wanted)
        guide.learn([torch.autograd.grad(loss, [*guide.matrices, guide.table], allow_unused=True)[:-1]])
    assert float(((guide.ask(places) > 0.0) == (wanted > 0.0)).float().mean()) > 0.97


def test_a_fresh_sampler_is_full(device: torch.device) -> None:
    sampler = LearnedOccupancy(CONFIG, 2, device)
    assert isinstance(sampler, LearningSampler) and sampler.occupancy == 1.0


@pytest.mark.parametrize("n_levels", [1, 2])
def test_it_finds_the_ball_and_little_else(n_levels: int, device: torch.device) -> None:
    sampler, field = LearnedOccupancy(CONFIG, n_levels, device), Ball()
    train(sampler, range(1, 201), field)
    half, distance, found = half_cell(n_levels), distances(n_levels), occupied(sampler)
    # Rays step through the outer level's cells only where the inner cube ends. Half full is found, less may be missed.
    assert float(found[:1][distance[:1] < 0.195].float().mean()) > 0.99
    assert float(found[:1][distance[:1] > 0.2 + half[0]].float().mean()) < 0.01


def test_what_appears_is_found_again(device: torch.device) -> None:
    sampler, field = LearnedOccupancy(CONFIG, 1, device), Ball(0.15, middle=0.35)
    train(sampler, range(1, 201), field)
    there = distances(middle=0.65) < 0.12
    assert not occupied(sampler)[there].any()
    grown = Ball(0.45, middle=0.5)
    train(sampler, range(201, 601), grown)
    surface = (distances() < 0.445) & (distances() > 0.42)
    assert float(occupied(sampler)[surface].float().mean()) > 0.95


def test_what_vanishes_is_given_up(device: torch.device) -> None:
    sampler = LearnedOccupancy(CONFIG, 1, device)
    train(sampler, range(1, 101), Ball(0.3))
    before = sampler.occupancy
    train(sampler, range(101, 301), Ball(0.15))
    assert sampler.occupancy < 0.35 * before
    assert float(occupied(sampler)[(distances() < 0.145) & (distances() > 0.12)].float().mean()) > 0.99


def test_only_allowed_cells_are_ever_occupied(device: torch.device) -> None:
    allowed = torch.zeros(1, 32, 32, 32, dtype=torch.bool)
    allowed[:, :16] = True
    sampler = LearnedOccupancy(CONFIG, 1, device, allowed)
    assert sampler.occupancy == 0.5
    train(sampler, range(1, 81), Ball(0.4))
    assert occupied(sampler).any() and not occupied(sampler)[~allowed].any()


def seen_in(cells: Tensor, density: float) -> Seen:
    return Seen(cells, torch.full((len(cells),), density), torch.ones_like(cells))


def test_what_was_solid_is_closed_late_and_fog_at_once() -> None:
    sampler, nothing = LearnedOccupancy(CONFIG, 1, CPU), Ball(0.0)
    sampler._step = CONFIG.warmup_steps + 4
    sampler._mean_sigma = 1.0e9
    solid, fog = torch.arange(16000, 16200), torch.arange(20000, 20200)

    def share(cells: Tensor) -> float:
        return float(sampler.cells().occupied.flatten()[cells].float().mean())

    sampler._revise(seen_in(solid, 20.0 * sampler.limit), nothing)
    sampler._revise(seen_in(fog, 2.0 * sampler.limit), nothing)
    for _ in range(FULL):
        sampler._revise(seen_in(solid, 0.0), nothing)
        assert share(solid) == 1.0
    sampler._revise(seen_in(solid, 20.0 * sampler.limit), nothing)  # one solid sample in between, and all is as before
    for _ in range(FULL):
        sampler._revise(seen_in(solid, 0.0), nothing)
        assert share(solid) == 1.0
    sampler._revise(seen_in(solid, 0.0), nothing)
    assert share(solid) == 0.0
    sampler._revise(seen_in(fog, 0.0), nothing)
    assert share(fog) == 0.0


@pytest.mark.parametrize(("step", "survived"), [(_CLEAR - 8, 0), (_CLEAR, 2)])
def test_edges_of_things_are_trusted_a_little_once_fog_has_gone(step: int, survived: int) -> None:
    sampler, nothing = LearnedOccupancy(CONFIG, 1, CPU), Ball(0.0)
    sampler._step, sampler._mean_sigma = step, 1.0e9
    edge = torch.arange(16000, 16200)
    sampler._revise(seen_in(edge, 2.0 * sampler.limit), nothing)
    for _ in range(survived):
        sampler._revise(seen_in(edge, 0.0), nothing)
        assert sampler.cells().occupied.flatten()[edge].all()
    sampler._revise(seen_in(edge, 0.0), nothing)
    assert not sampler.cells().occupied.flatten()[edge].any()


def test_samples_of_rays_are_as_good_as_probes() -> None:
    sampler, probed = LearnedOccupancy(CONFIG, 1, CPU), []
    sampler._step, sampler._mean_sigma = CONFIG.warmup_steps + 4, 1.0e9
    sampler._densest = lambda cells, n, field: probed.append(cells) or torch.zeros(len(cells))
    cells, counts = torch.arange(16000, 16200), torch.tensor([1, 2]).repeat(100)
    sampler._revise(Seen(cells, torch.zeros(200), counts), Ball(0.0))
    (asked,) = probed
    assert torch.isin(cells[counts == 1], asked).all() and not torch.isin(cells[counts == 2], asked).all()
    assert not sampler.cells().occupied.flatten()[cells].any()


def test_trust_counts_down_cell_by_cell(device: torch.device) -> None:
    trust, slow = Trust(1024, device), torch.zeros(1024, dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    for turn in range(40):
        cells = torch.randperm(1024, generator=generator)
        filled, spent, least = cells[:100], cells[100:800], FULL if turn % 2 else 3
        trust.raise_to(least, filled.to(device))
        slow[filled] = slow[filled].clamp(min=least)
        assert torch.equal(trust.spend(spent.to(device)).cpu(), slow[spent] == 0)
        slow[spent] = (slow[spent] - 1).clamp(min=0)
        assert torch.equal(trust.of(torch.arange(1024, device=device)).cpu(), slow)
    assert slow.unique().tolist() == list(range(FULL + 1))


def test_refreshes_grow_rarer() -> None:
    sampler, refreshes = LearnedOccupancy(CONFIG, 1, CPU), []
    for step in range(1, 8193):
        sampler._step = step
        refreshes += [step] if step % sampler._period() == 0 else []
    gaps = [b - a for a, b in zip(refreshes, refreshes[1:], strict=False)]
    assert gaps[:2] == [2, 2] and gaps[-1] == 4 * 8 and sorted(gaps) == gaps


@pytest.mark.parametrize("at", [3, 18, 30])
def test_a_saved_one_goes_on_as_if_never_interrupted(at: int, device: torch.device) -> None:
    check_that_a_saved_one_goes_on(lambda allowed: LearnedOccupancy(CONFIG, 1, device, allowed), at, 61, train)


@pytest.mark.parametrize("off", ["imbalance_weight", "density_weight", "render_weight"])
def test_each_loss_can_be_left_out(off: str) -> None:
    whole, without = LearnedOccupancy(CONFIG, 1, CPU), LearnedOccupancy(replace(CONFIG, **{off: 0.0}), 1, CPU)
    for sampler in (whole, without):
        train(sampler, range(1, 41), Ball())
    assert not torch.equal(whole.guide.table, without.guide.table)
