"""The hash encoding: beside its twin, against numbers worked out by hand, and by its laws."""

from __future__ import annotations

import pytest
import torch
from compare import TOLERANCES, assert_close
from torch import Tensor

from nerfkit.kernels import reference
from nerfkit.kernels.contraction import contract
from nerfkit.kernels.hashgrid import GridLayout, HashGrid, grid_layout
from nerfkit.kernels.launch import parallel

FORMATS = [
    *[(n, torch.float32) for n in (1, 2, 4, 8)],
    (2, torch.float16),
    (4, torch.bfloat16),
]
SIZES = {
    "dense": (2, 10, 3, 9),
    "one level": (1, 12, 16, 16),
    "dense and hashed": (7, 9, 4, 200),
    "one cell": (1, 5, 1, 1),
}


def make(
    size: str, n_features: int, n: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[GridLayout, Tensor, Tensor, Tensor]:
    """A layout, positions (some on the faces of the cube and of cells), a table and a gradient of the features."""
    n_levels, log2_size, base, finest = SIZES[size]
    generator = torch.Generator().manual_seed(1)
    layout = grid_layout(n_levels, n_features, log2_size, base, finest)
    positions = torch.rand(n, 3, generator=generator)
    positions[: n // 4] = (positions[: n // 4] * 8).round() / 8
    table = torch.randn(layout.n_entries, n_features, generator=generator).to(device).requires_grad_()
    gradient = torch.randn(n, n_levels * n_features, generator=generator).to(device, dtype)
    return layout, positions.to(device), table, gradient


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("n_features", "dtype"), FORMATS)
def test_values_and_gradients_are_those_of_the_twin(
    size: str, n_features: int, dtype: torch.dtype, device: torch.device
) -> None:
    layout, positions, table, gradient = make(size, n_features, 1500, device, dtype)
    expected = reference.encode(positions, table, layout)
    (expected_gradient,) = torch.autograd.grad(expected, table, gradient.float())
    actual = HashGrid(layout, device).encode(positions, table, dtype)
    actual.backward(gradient)
    assert actual.dtype == dtype
    assert_close(actual, expected, dtype)
    assert_close(table.grad, expected_gradient)


@pytest.mark.parametrize("n_features", [1, 2, 4, 8])
def test_a_copy_in_half_precision_is_read_and_the_table_learns(n_features: int, device: torch.device) -> None:
    layout, positions, table, gradient = make("dense and hashed", n_features, 300, device)
    rounded = table.detach().half()
    grid = HashGrid(layout, device)
    features = grid.encode(positions, table, torch.float32, rounded)
    assert torch.equal(features, grid.forward(positions, rounded.float(), torch.float32))
    features.backward(gradient)
    (expected,) = torch.autograd.grad(reference.encode(positions, table, layout), table, gradient)
    assert_close(table.grad, expected)


def test_places_may_be_contracted_first(device: torch.device) -> None:
    layout, positions, table, gradient = make("dense and hashed", 4, 300, device)
    found = []
    for grid, where in (
        (HashGrid(layout, device, 0.125), positions),
        (HashGrid(layout, device), contract(positions, 0.125)),
    ):
        table.grad = None
        features = grid.encode(where, table, torch.float32)
        features.backward(gradient)
        found.append((features, table.grad))
    assert all(torch.equal(actual, wanted) for actual, wanted in zip(*found, strict=True))
    assert not torch.equal(found[0][0], HashGrid(layout, device).encode(positions, table, torch.float32))


@pytest.mark.parametrize("n", [0, 1, 1023, 1025])
def test_any_number_of_positions(n: int, device: torch.device) -> None:
    layout, positions, table, gradient = make("dense and hashed", 4, n, device)
    actual = HashGrid(layout, device).encode(positions, table, torch.float32)
    actual.backward(gradient)
    assert_close(actual, reference.encode(positions, table, layout))
    assert table.grad.shape == table.shape and (n > 0 or not table.grad.any())


def test_the_corners_of_the_cube(device: torch.device) -> None:
    layout, _, table, _ = make("dense and hashed", 2, 1, device)
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3).to(device)
    actual = HashGrid(layout, device).encode(corners, table, torch.float32)
    assert_close(actual, reference.encode(corners, table, layout))


@pytest.mark.parametrize(("log2_size", "dense"), [(10, True), (9, False)])
def test_a_grid_point_has_the_entry_of_the_formula(log2_size: int, dense: bool, device: torch.device) -> None:
    layout = grid_layout(1, 2, log2_size, 9, 9)
    table = torch.arange(2.0 * layout.n_entries).view(-1, 2).to(device)
    points = [(1, 2, 3), (8, 8, 8), (5, 1, 7), (1, 1, 1)]
    positions = (torch.tensor(points) - 0.5) / 8  # where 8 x + 0.5 is whole
    features = HashGrid(layout, device).forward(positions.to(device), table, torch.float32)
    for (x, y, z), feature in zip(points, features.tolist(), strict=True):
        index = x + 9 * y + 81 * z if dense else (x ^ y * 2654435761 ^ z * 805459861) % 2**32 % 512
        assert feature == [2.0 * index, 2.0 * index + 1.0]


def test_the_weights_of_a_cell_sum_to_one(device: torch.device) -> None:
    layout, positions, table, _ = make("dense and hashed", 4, 500, device)
    features = HashGrid(layout, device).forward(positions, torch.full_like(table, 0.7), torch.float32)
    assert_close(features, torch.full_like(features, 0.7))


def test_a_finite_difference_is_the_gradient(device: torch.device) -> None:
    # The encoding is linear in the table: <g, encode(t + d) - encode(t)> = <gradient of g, d>, for a d of any size.
    layout, positions, table, gradient = make("dense and hashed", 4, 500, device)
    direction = torch.randn(table.shape, generator=torch.Generator().manual_seed(2)).to(device)
    grid = HashGrid(layout, device)
    grid.encode(positions, table, torch.float32).backward(gradient)
    before, after = (grid.forward(positions, t, torch.float32) for t in (table.detach(), table.detach() + direction))
    assert_close((gradient.double() * (after - before)).sum(), (table.grad.double() * direction).sum())


def test_features_are_continuous_across_faces(device: torch.device) -> None:
    layout, _, table, _ = make("dense and hashed", 2, 1, device)
    faces = torch.rand(200, 3, generator=torch.Generator().manual_seed(0))
    faces[:, 0] = torch.arange(200) % 3 / 3 + 0.5 / 3
    grid = HashGrid(layout, device)
    before, after = (grid.forward((faces + h).to(device), table, torch.float32) for h in (-1e-6, 1e-6))
    assert float((before - after).abs().max()) < 1e-6 * 2 * 200 * 3 * 8


def test_gradients_add_up(device: torch.device) -> None:
    layout, positions, table, gradient = make("dense", 4, 300, device)
    grid = HashGrid(layout, device)
    grid.encode(positions, table, torch.float32).backward(gradient)
    once = table.grad.clone()
    grid.encode(positions, table, torch.float32).backward(gradient)
    assert_close(table.grad, 2 * once)


def test_a_zero_gradient_touches_nothing(device: torch.device) -> None:
    layout, positions, table, gradient = make("dense and hashed", 4, 300, device)
    gradient[10:] = 0.0
    grid = HashGrid(layout, device)
    grid.encode(positions, table, torch.float32).backward(gradient)
    few = table.grad.clone()
    table.grad = None
    grid.encode(positions[:10], table, torch.float32).backward(gradient[:10])
    assert_close(few, table.grad)


def test_tasks_leave_the_same_gradient(device: torch.device) -> None:
    layout, positions, table, gradient = make("dense and hashed", 4, 4000, device)
    grid = HashGrid(layout, device)
    grid.encode(positions, table, torch.float32).backward(gradient)
    whole, table.grad = table.grad, None

    def task(begin: int) -> None:
        part = slice(begin, begin + 1000)
        features = grid.encode(positions[part], table, torch.float32)
        torch.autograd.grad(features, table, gradient[part], allow_unused=True)

    parallel(task, range(0, 4000, 1000), device)
    grid.collect(table)
    if device.type == "cpu":
        assert torch.equal(table.grad, whole)  # the order of the sums is that of the positions
    assert_close(table.grad, whole)


def test_half_precision_rounds_to_nearest(device: torch.device) -> None:
    layout, positions, table, _ = make("dense", 4, 2000, device)
    grid = HashGrid(layout, device)
    exact = grid.forward(positions, table, torch.float32)
    rounded = grid.forward(positions, table, torch.bfloat16)
    assert torch.equal(rounded, exact.bfloat16())
    assert TOLERANCES[torch.bfloat16] < 5e-3


class TestLayout:
    def test_sizes_are_those_of_the_formula(self) -> None:
        layout = grid_layout(3, 2, 12, 8, 32)
        assert layout.scales == (7.0, 15.0, 31.0)
        assert layout.resolutions == (8, 16, 32)
        assert layout.offsets == (0, 512, 512 + 4096, 512 + 2 * 4096)

    def test_entries_come_in_eights(self) -> None:
        layout = grid_layout(2, 2, 16, 3, 5)
        assert layout.resolutions == (3, 5)
        assert layout.offsets == (0, 32, 32 + 128)

    def test_one_level(self) -> None:
        assert grid_layout(1, 4, 10, 16, 512).resolutions == (16,)
