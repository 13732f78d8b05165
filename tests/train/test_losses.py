"""Losses on pixels, in closed form."""

from __future__ import annotations

import pytest
import torch

from nerfkit.config import TrainConfig
from nerfkit.train.losses import LOSSES


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
