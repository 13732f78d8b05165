"""Laws of the losses, each against a slow twin."""

from __future__ import annotations

import math

import pytest
import torch

from nerfkit.lift.losses import (
    orientation,
    pearson,
    ranking,
    scale_shift,
    smoothness,
    spherical,
    undecided,
)


@pytest.fixture
def depths() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(24, generator=generator), torch.rand(24, generator=generator)


def every_pair(n: int) -> torch.Tensor:
    i, j = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    return torch.stack([i.flatten(), j.flatten()], 1)


def test_ranking_is_the_mean_over_pairs(depths):
    depth, told = depths
    slow = [
        max(0.0, -math.copysign(1.0, float(told[i] - told[j])) * float(depth[i] - depth[j]))
        if told[i] != told[j]
        else 0.0
        for i in range(24)
        for j in range(24)
    ]
    assert float(ranking(depth, told, every_pair(24))) == pytest.approx(sum(slow) / len(slow), rel=1e-5)


def test_ranking_hears_order_alone(depths):
    depth, told = depths
    pairs = every_pair(24)
    assert float(ranking(told, told, pairs)) == 0.0
    assert float(ranking(told.exp() * 5 + 3, told, pairs)) == 0.0
    assert ranking(depth, told, pairs) == ranking(depth, told.exp(), pairs) > 0


def test_a_step_down_the_ranking_puts_depths_in_order():
    told, depth = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([3.0, 2.0, 1.0], requires_grad=True)
    ranking(depth, told, every_pair(3)).backward()
    assert depth.grad[0] > 0 > depth.grad[2]


@pytest.mark.parametrize("loss", [pearson, scale_shift])
def test_scale_and_shift_do_not_matter(loss, depths):
    depth, told = depths
    assert float(loss(3 * told + 7, told)) == pytest.approx(0.0, abs=1e-5)
    assert float(loss(depth, told)) == pytest.approx(float(loss(depth, 5 * told - 2)), rel=1e-4)
    assert float(loss(depth, told)) > 1e-3


def test_scale_and_shift_are_the_best_ones(depths):
    depth, told = depths
    design = torch.stack([told, torch.ones_like(told)], 1)
    best = torch.linalg.lstsq(design, depth[:, None]).solution
    assert float(scale_shift(depth, told)) == pytest.approx(
        float((design @ best - depth[:, None]).square().mean()), rel=1e-4
    )


def test_what_is_half_there_is_one_bit_undecided():
    assert float(undecided(torch.tensor([0.5, 0.5]))) == pytest.approx(1.0)
    assert float(undecided(torch.tensor([0.0, 1.0]))) == pytest.approx(0.0, abs=1e-3)


def test_surfaces_that_face_the_camera_cost_nothing():
    weights, rays_d = torch.tensor([1.0, 2.0]), torch.tensor([[0.0, 0.0, 1.0]] * 2)
    towards = torch.tensor([[0.0, 0.0, -1.0]] * 2)
    assert float(orientation(weights, towards, rays_d, 2)) == 0.0
    assert float(orientation(weights, -towards, rays_d, 2)) == pytest.approx(1.5)


def test_depth_may_jump_where_colours_do():
    depth = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(4, 1)
    plain, edged = torch.zeros(4, 4, 3), torch.zeros(4, 4, 3)
    edged[:, 2:] = 1.0
    assert float(smoothness(depth, plain)) == pytest.approx(1 / 3)
    assert float(smoothness(depth, edged)) == pytest.approx(math.exp(-3) / 3)


def test_angles_between_features(depths):
    a, b = depths
    angle = math.acos(float(a @ b / a.norm() / b.norm()))
    assert float(spherical(a, b)) == pytest.approx(2 * math.asin(math.sin(angle / 2)) ** 2, rel=1e-4)
    assert float(spherical(a, 7 * a)) == pytest.approx(0.0, abs=1e-5)
