"""The steps between the networks: rows are moved unchanged, and the harmonics are those of the sphere."""

from __future__ import annotations

import math

import pytest
import torch
from compare import assert_close
from torch import Tensor
from torch.nn import functional as F

from nerfkit.kernels import reference
from nerfkit.kernels.shade import join_directions, spherical_harmonics, take_rows

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def normal(*shape: int, dtype: torch.dtype = torch.float32, device: torch.device, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def indices(values: list[int] | Tensor, device: torch.device) -> Tensor:
    return torch.as_tensor(values, dtype=torch.int32).to(device)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 2, 15, 16])
def test_rows_are_taken_as_they_are(width: int, dtype: torch.dtype, device: torch.device) -> None:
    values = normal(3000, width, dtype=dtype, device=device).requires_grad_()
    rows = indices(torch.randperm(3000, generator=torch.Generator().manual_seed(1))[:2500], device)
    rows[2100:] = 0
    seed = normal(2500, width, dtype=dtype, device=device, seed=2)
    actual, expected = (op(values, rows, 2100) for op in (take_rows, reference.take_rows))
    assert torch.equal(actual, expected)
    assert torch.equal(*(torch.autograd.grad(taken, values, seed)[0] for taken in (actual, expected)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("width", "n_harmonics"), [(16, 16), (16, 9), (15, 16), (15, 1), (2, 4)])
def test_directions_are_joined(width: int, n_harmonics: int, dtype: torch.dtype, device: torch.device) -> None:
    features = normal(2000, width, dtype=dtype, device=device).requires_grad_()
    harmonics = normal(30, n_harmonics, dtype=dtype, device=device, seed=1)
    owners = indices(torch.randint(0, 30, (2000,), generator=torch.Generator().manual_seed(1)), device)
    seed = normal(2000, width + n_harmonics, dtype=dtype, device=device, seed=2)
    actual, expected = (op(features, harmonics, owners) for op in (join_directions, reference.join_directions))
    assert torch.equal(actual, expected)
    assert torch.equal(*(torch.autograd.grad(joined, features, seed)[0] for joined in (actual, expected)))


@pytest.mark.parametrize(("width", "n_harmonics"), [(16, 16), (16, 9), (15, 9)])
def test_taking_and_joining_in_a_row(width: int, n_harmonics: int, device: torch.device) -> None:
    values = normal(500, width, dtype=torch.bfloat16, device=device).requires_grad_()
    harmonics = normal(30, n_harmonics, dtype=torch.bfloat16, device=device, seed=1)
    rows, owners = indices(torch.arange(0, 400, 2), device), indices(torch.arange(200) % 30, device)
    seed = normal(200, width + n_harmonics, dtype=torch.bfloat16, device=device, seed=2)
    (gradient,) = torch.autograd.grad(join_directions(take_rows(values, rows, 150), harmonics, owners), values, seed)
    assert torch.equal(gradient[rows[:150].long()], seed[:150, :width])
    gradient[rows[:150].long()] = 0.0
    assert not gradient.any()


def test_no_rows(device: torch.device) -> None:
    values = normal(10, 16, device=device).requires_grad_()
    taken = take_rows(values, indices([], device), 0)
    joined = join_directions(taken, normal(3, 4, device=device), indices([], device))
    joined.sum().backward()
    assert joined.shape == (0, 20) and not values.grad.any()


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_harmonics_are_those_of_the_recursion(degree: int, device: torch.device) -> None:
    d = F.normalize(normal(200, 3, device=device), dim=1)
    d[:6] = torch.cat([torch.eye(3), -torch.eye(3)]).to(device)
    actual = spherical_harmonics(d, degree)
    assert actual.shape == (200, degree**2)
    assert_close(actual, reference.spherical_harmonics(d, degree))


def test_harmonics_are_those_of_scipy() -> None:
    special = pytest.importorskip("scipy.special")
    d = F.normalize(normal(50, 3, device=torch.device("cpu")), dim=1).double()
    polar, azimuth = torch.acos(d[:, 2]).numpy(), torch.atan2(d[:, 1], d[:, 0]).numpy()
    columns = []
    for band in range(4):
        for m in range(-band, band + 1):
            value = special.sph_harm_y(band, abs(m), polar, azimuth)
            part = value.imag if m < 0 else value.real
            columns.append(torch.from_numpy(part * (math.sqrt(2.0) if m else 1.0)))
    assert_close(spherical_harmonics(d.float(), 4), torch.stack(columns, 1))


def test_harmonics_are_orthonormal(device: torch.device) -> None:
    # A product of two has the degree 6: midpoints in the azimuth and Gauss's nodes in z integrate it exactly.
    nodes = torch.tensor([0.1834346424956498, 0.5255324099163290, 0.7966664774136267, 0.9602898564975363])
    shares = torch.tensor([0.3626837833783620, 0.3137066458778873, 0.2223810344533745, 0.1012285362903763])
    z, share = torch.cat([nodes, -nodes]), torch.cat([shares, shares])
    turn = (torch.arange(16) + 0.5) / 16 * math.tau
    flat = (1.0 - z**2).sqrt()
    d = torch.stack([flat[:, None] * turn.cos(), flat[:, None] * turn.sin(), z[:, None].expand(8, 16)], -1).view(-1, 3)
    values = spherical_harmonics(d.to(device), 4).double()
    weights = (share[:, None] * math.tau / 16).expand(8, 16).reshape(-1, 1).to(device)
    assert_close(values.T @ (weights * values), torch.eye(16))


def test_each_band_has_the_same_power_everywhere(device: torch.device) -> None:
    values = spherical_harmonics(F.normalize(normal(100, 3, device=device), dim=1), 4)
    for band in range(4):
        power = (values[:, band**2 : (band + 1) ** 2] ** 2).sum(1)
        assert_close(power, torch.full_like(power, (2 * band + 1) / (4 * math.pi)))
