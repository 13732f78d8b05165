"""Pictures in rounds: those of the plain twins, however many samples a round has."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from targets import NETWORKS, NEVER, STEPPINGS, cells_of, columns, listed, rays, target_of
from torch import Tensor
from torch.nn import functional as F

from nerfkit.kernels import reference_rays, rounds, stages
from nerfkit.kernels.check import relative_error
from nerfkit.kernels.raycast import Target, Where
from nerfkit.types import Rays, Samples


def assert_alike(target: Target, where: Where, early_stop: float, least: int = 500) -> None:
    device = target.table.device
    inputs = target, where, rays().to(device), *(x.to(device) for x in columns()), early_stop
    *actual, packed_info = rounds.cast(*inputs)
    *wanted, wanted_info = reference_rays.cast(*inputs)
    assert int(wanted_info[:, 1].sum()) > least
    # One step in some hundreds may lie on the two sides of a cell's face, by rounding.
    assert int((packed_info[:, 1] - wanted_info[:, 1]).abs().sum()) <= int(wanted_info[:, 1].sum()) // 300
    for one, other in zip(actual, wanted, strict=True):
        assert relative_error(one, other) < 1e-4


@pytest.mark.parametrize(("first", "rows"), [(1, 1 << 20), (5, 64), (16, 1), (1000, 1 << 20)])
@pytest.mark.parametrize("early_stop", [NEVER, 0.1])
@pytest.mark.parametrize("steps", STEPPINGS)
def test_a_picture_is_that_of_the_twin(
    steps: str, early_stop: float, first: int, rows: int, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "FIRST", first)
    monkeypatch.setattr(rounds, "ROWS", rows)
    target = target_of(NETWORKS["default"], thickness=0.5, device=device)
    assert_alike(target, cells_of(STEPPINGS[steps], 0.7, device=device), early_stop)


@pytest.mark.parametrize("shape", NETWORKS)
def test_networks_may_have_any_shape(shape: str, device: torch.device) -> None:
    assert_alike(target_of(NETWORKS[shape], device=device), cells_of(STEPPINGS["even"], device=device), 0.05, 100)


def test_samples_may_be_listed(device: torch.device) -> None:
    samples = listed()
    on_device = {name: x.to(device) if isinstance(x, Tensor) else x for name, x in vars(samples).items()}
    assert_alike(target_of(NETWORKS["default"], device=device), dataclasses.replace(samples, **on_device), 0.5, 100)


def test_what_lies_behind_surfaces_is_not_looked_up(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    target, offered = target_of(NETWORKS["default"], thickness=8.0, device=device), []
    look = rounds.look

    def listen(target: Target, samples: Samples, *more: object, **how: object) -> stages.Pass:
        offered.append(samples.n_owned)
        return look(target, samples, *more, **how)

    monkeypatch.setattr(rounds, "look", listen)
    monkeypatch.setattr(rounds, "FIRST", 4)
    cells = cells_of(STEPPINGS["even"], device=device)
    jitter, background = (x.to(device) for x in columns())
    *_, info = rounds.cast(target, cells, rays().to(device), jitter, background, 1e-3)
    everything = cells.sample(rays().to(device), jitter).n_owned
    assert int(info[:, 1].sum()) < sum(offered) < 0.7 * everything and len(offered) > 1


def test_a_ray_ends_after_its_most_samples(device: torch.device) -> None:
    target = target_of(NETWORKS["default"], thickness=0.1, device=device)
    stepping = dataclasses.replace(STEPPINGS["even"], max_samples=20)
    assert_alike(target, cells_of(stepping, device=device), NEVER, 300)


def test_no_rays_and_rays_that_miss(device: torch.device) -> None:
    target, cells = target_of(NETWORKS["default"], device=device), cells_of(STEPPINGS["even"], device=device)
    away = Rays(rays().rays_o[4:7] + 3.0, F.normalize(torch.ones(3, 3), dim=1), torch.ones(3)).to(device)
    background = columns()[1][:3].to(device)
    rgb, opacity, t_sum, info = rounds.cast(target, cells, away, torch.rand(3, device=device), background, 1e-3)
    assert torch.equal(rgb, background) and not opacity.any() and not t_sum.any() and not info[:, 1].any()
    assert rounds.cast(target, cells, away[:0], rgb[:0, 0], background[:0], 1e-3)[0].shape == (0, 3)
