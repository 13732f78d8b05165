"""The hash field: ranges, gradients against the plain formula, and what depends on what."""

from __future__ import annotations

import math

import pytest
import torch
from compare import assert_close
from torch import Tensor
from torch.nn import functional as F

from nerfkit.config import FieldConfig
from nerfkit.fields.hash import HashField
from nerfkit.kernels import reference
from nerfkit.types import Field

SMALL = FieldConfig(n_levels=4, n_features=4, log2_table_size=10, base_resolution=4, finest_resolution=64, width=16)


def make(config: FieldConfig, device: torch.device, dtype: torch.dtype = torch.float32) -> HashField:
    """A field with lively contents."""
    field = HashField(config, device)
    field.dtype = dtype
    with torch.no_grad():
        field.table *= 1e4
    return field


def places(n: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    d = F.normalize(torch.randn(7, 3, generator=generator), dim=1)
    owners = torch.randint(0, 7, (n,), generator=generator, dtype=torch.int32)
    return torch.rand(n, 3, generator=generator).to(device), d.to(device), owners.to(device)


def plain(field: HashField, positions: Tensor, d: Tensor, owners: Tensor) -> tuple[Tensor, Tensor]:
    """sigma = exp(g_0), rgb = sigmoid(color_network([g, SH(d)])) with g = density_network(encode(x))."""

    def network(x: Tensor, weights: list[Tensor]) -> Tensor:
        for w in weights[:-1]:
            x = torch.relu(x @ w.T)
        return x @ weights[-1].T

    g = network(reference.encode(positions, field.table, field.grid.layout), list(field.density_network.weights))
    seen = reference.join_directions(g, reference.spherical_harmonics(d, field.config.sh_degree), owners)
    return torch.exp(g[:, 0]), torch.sigmoid(network(seen, list(field.color_network.weights)))


def test_values_and_gradients_are_those_of_the_formula(device: torch.device) -> None:
    field, (positions, d, owners) = make(SMALL, device), places(500, device)
    parameters = [*field.network_parameters(), field.table]
    sigmas, features = field.density(positions)
    rgbs = field.color(features, d, owners)
    ((sigmas**2).mean() + (rgbs**2).mean()).backward()
    expected_sigmas, expected_rgbs = plain(field, positions, d, owners)
    expected = torch.autograd.grad((expected_sigmas**2).mean() + (expected_rgbs**2).mean(), parameters)
    assert_close(sigmas, expected_sigmas)
    assert_close(rgbs, expected_rgbs)
    for parameter, gradient in zip(parameters, expected, strict=True):
        assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ranges(dtype: torch.dtype, device: torch.device) -> None:
    field, (positions, d, owners) = make(SMALL, device, dtype), places(2000, device)
    with torch.no_grad():
        field.table *= 100.0
        sigmas, features = field.density(positions)
        rgbs = field.color(features, d, owners)
    assert sigmas.dtype == rgbs.dtype == torch.float32 and features.dtype == dtype
    assert float(sigmas.min()) >= 0.0 and bool(sigmas.isfinite().all())
    assert float(rgbs.min()) >= 0.0 and float(rgbs.max()) <= 1.0
    assert float(rgbs.std()) > 0.01


@pytest.mark.parametrize("sh_degree", [1, 2, 3, 4])
@pytest.mark.parametrize("geo_features", [15, 16])
def test_any_width_works_in_half_precision(sh_degree: int, geo_features: int, device: torch.device) -> None:
    config = FieldConfig(**{**vars(SMALL), "sh_degree": sh_degree, "geo_features": geo_features})
    field, (positions, d, owners) = make(config, device, torch.bfloat16), places(50, device)
    _, features = field.density(positions)
    (field.color(features, d, owners).sum() + field.behind(d).sum()).backward()
    assert all(bool(p.grad.isfinite().all()) and bool(p.grad.any()) for p in field.parameters())


def test_density_is_where_colour_depends_on_the_direction(device: torch.device) -> None:
    field, (positions, d, owners) = make(SMALL, device), places(100, device)
    with torch.no_grad():
        sigmas, features = field.density(positions)
        one, other = field.color(features, d, owners), field.color(features, -d, owners)
        assert torch.equal(field.density(positions)[0], sigmas)
    assert float((one - other).abs().max()) > 1e-3


def test_the_bands_of_degree_one_do_not_see_the_direction(device: torch.device) -> None:
    field = make(FieldConfig(**{**vars(SMALL), "sh_degree": 1}), device)
    positions, d, owners = places(100, device)
    with torch.no_grad():
        _, features = field.density(positions)
        assert torch.equal(field.color(features, d, owners), field.color(features, -d, owners))


def test_a_huge_density_has_a_bounded_gradient(device: torch.device) -> None:
    field, (positions, _, _) = make(SMALL, device), places(100, device)
    with torch.no_grad():
        field.table *= 1e6
    sigmas, _ = field.density(positions)
    sigmas.sum().backward()
    assert float(sigmas.detach().max()) <= math.exp(15.0) * 1.0001
    assert all(bool(p.grad.isfinite().all()) for p in field.parameters() if p.grad is not None)


def test_it_starts_clear_and_grey(device: torch.device) -> None:
    field, (positions, d, owners) = HashField(SMALL, device), places(100, device)
    with torch.no_grad():
        sigmas, features = field.density(positions)
        rgbs = field.color(features * 0.0, d, owners)
    assert_close(sigmas, torch.ones_like(sigmas), torch.bfloat16)
    assert float((rgbs - 0.5).abs().max()) < 0.5


def test_the_seed_decides(device: torch.device) -> None:
    one, same, other = (HashField(SMALL, device, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["table"], other["table"])


def test_the_state_is_named_fp32_tensors(device: torch.device) -> None:
    state = HashField(SMALL, device).state_dict()
    networks = {"density_network": SMALL.density_layers, "color_network": SMALL.color_layers}
    weights = {f"{name}.weights.{i}" for name, n_hidden in networks.items() for i in range(n_hidden + 1)}
    assert set(state) == {"table", "sky"} | weights
    assert all(value.dtype == torch.float32 for value in state.values())


def test_it_is_a_field_and_takes_no_positions_too(device: torch.device) -> None:
    field = make(SMALL, device)
    assert isinstance(field, Field)
    sigmas, features = field.density(torch.empty(0, 3, device=device))
    rgbs = field.color(features, torch.empty(0, 3, device=device), torch.empty(0, dtype=torch.int32, device=device))
    assert sigmas.shape == (0,) and rgbs.shape == (0, 3)
