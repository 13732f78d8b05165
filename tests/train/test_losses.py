"""Losses on pixels, in closed form."""

from __future__ import annotations

import pytest
import torch

from nerfkit.config import TrainConfig
from nerfkit.kernels import reference_rays
from nerfkit.train.losses import LOSSES, distortion
from nerfkit.types import Samples


def colors() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    rgb, target = (torch.rand(40, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    return rgb.requires_grad_(), target


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_is_lost_where_all_is_right(name: str) -> None:
    rgb, _ = colors()
    loss = LOSSES[name](rgb, rgb.detach())
    loss.backward()
    assert loss.item() == 0.0 and not rgb.grad.any()


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_finite_differences(name: str) -> None:
    rgb, target = colors()
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](x, target), rgb)


def test_squared_is_the_sum_of_squares() -> None:
    rgb, target = colors()
    assert LOSSES["squared"](rgb, target).item() == pytest.approx(((rgb - target) ** 2).sum().item())


def test_huber_is_squared_for_small_and_straight_for_large_errors() -> None:
    zero = torch.zeros(1, 3)
    huber = LOSSES["huber"]
    assert huber(zero + 0.05, zero).item() == pytest.approx(3 * 10.0 * 0.5 * 0.05**2)
    assert huber(zero + 0.5, zero).item() == pytest.approx(3 * 10.0 * 0.1 * (0.5 - 0.05))


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_of_parts_adds_up(name: str) -> None:
    rgb, target = colors()
    parts = sum(LOSSES[name](rgb[i : i + 10], target[i : i + 10]) for i in range(0, 40, 10))
    assert LOSSES[name](rgb, target).item() == pytest.approx(parts.item())


def test_every_name_of_the_config_is_there() -> None:
    assert TrainConfig().loss in LOSSES and set(LOSSES) == {"huber", "squared"}


def intervals(counts: list[int], spare: int = 3) -> tuple[torch.Tensor, Samples]:
    """Weights, and samples one after the other on each ray, with some rows that no ray owns."""
    generator = torch.Generator().manual_seed(1)
    n, count = sum(counts), torch.tensor(counts, dtype=torch.int32)
    owner = torch.arange(len(counts), dtype=torch.int32).repeat_interleave(count.long())
    lengths = torch.rand(n + spare, generator=generator, dtype=torch.float64)
    ends = lengths.cumsum(0)
    info = torch.stack([count.cumsum(0).int() - count, count], 1)
    samples = Samples(info, torch.cat([owner, owner.new_zeros(spare)]), ends - lengths, ends, n)
    return torch.rand(n + spare, generator=generator, dtype=torch.float64), samples


@pytest.mark.parametrize("counts", [[4, 0, 1, 7], [0, 0], [5], [3, 0]])
def test_distortion_is_the_sum_over_all_pairs(counts: list[int]) -> None:
    weights, samples = intervals(counts)
    weights.requires_grad_()
    losses = [of(weights, samples, 2.0) for of in (distortion, reference_rays.distortion)]
    gradients = [torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)[0] for loss in losses]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5, abs=1e-9)
    assert torch.allclose(*(gradient[: samples.n_owned] for gradient in gradients), rtol=1e-5)
    assert not gradients[0][samples.n_owned :].any()


def test_weights_in_one_place_are_the_least_distorted() -> None:
    _, samples = intervals([6], 0)
    spread, moved, gathered = torch.full((6,), 1 / 6), torch.zeros(6), torch.zeros(6)
    moved[[0, 5]] = 0.5
    gathered[2] = 1.0
    least, middle, most = (distortion(w.double(), samples, 2.0).item() for w in (gathered, spread, moved))
    assert 0 < least < middle < most
