"""Sparse Adam: number by number as the paper has it, and torch's Adam where every number has a gradient."""

from __future__ import annotations

import pytest
import torch
from compare import assert_close

from nerfkit.kernels import reference
from nerfkit.kernels.adam import SparseAdam


def table_of(entries: int, features: int, device: torch.device) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(entries, features, generator=generator).to(device).requires_grad_()


def gradient_of(table: torch.Tensor, step: int, share: float, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step)
    touched = torch.rand(table.shape, generator=generator) < share
    return (touched * scale * torch.randn(table.shape, generator=generator)).to(table.device)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("entries", "features"), [(1, 1), (50, 4), (1025, 4)])
def test_each_number_moves_as_in_the_twin(entries: int, features: int, share: float, device: torch.device) -> None:
    table = table_of(entries, features, device)
    optimizer = SparseAdam(table)
    columns = [table.detach().double().flatten().tolist(), *([0.0] * table.numel() for _ in range(3))]
    for step in range(1, 6):
        table.grad = gradient_of(table, step, share)
        columns[1][:] = table.grad.flatten().tolist()
        reference.adam_step(*columns, step, 0.05)
        optimizer.step(step, 0.05)
    expected = [torch.tensor(column, dtype=torch.float64).view(entries, features) for column in columns]
    for actual, twin in zip((table, table.grad, optimizer.means, optimizer.squares), expected, strict=True):
        assert_close(actual, twin)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_it_is_adam_where_every_number_is_touched(scale: float, device: torch.device) -> None:
    table, other = table_of(300, 2, device), table_of(300, 2, device)
    optimizer, adam = SparseAdam(table), torch.optim.Adam([other], lr=0.02, betas=(0.9, 0.99), eps=1e-15)
    for step in range(1, 20):
        table.grad, other.grad = (gradient_of(table, step, 1.0, scale) for _ in range(2))
        optimizer.step(step, 0.02)
        adam.step()
    assert_close(table, other)


def test_what_has_no_gradient_stays_bit_for_bit(device: torch.device) -> None:
    table = table_of(1000, 4, device)
    optimizer = SparseAdam(table)
    table.grad = gradient_of(table, 1, 1.0)
    optimizer.step(1, 0.05)
    before = [x.detach().clone() for x in (table, optimizer.means, optimizer.squares)]
    table.grad = gradient_of(table, 2, 0.2)
    touched = table.grad != 0.0
    optimizer.step(2, 0.05)
    for old, new in zip(before, (table, optimizer.means, optimizer.squares), strict=True):
        assert torch.equal(old[~touched], new[~touched])
        assert (old[touched] != new[touched]).all()


def test_the_gradient_is_cleared(device: torch.device) -> None:
    table = table_of(1500, 4, device)
    table.grad = gradient_of(table, 1, 0.5)
    SparseAdam(table).step(1, 0.05)
    assert not table.grad.any()


def test_the_first_step_has_the_length_of_the_rate(device: torch.device) -> None:
    table = table_of(200, 2, device)
    before = table.detach().clone()
    table.grad = gradient_of(table, 1, 1.0, 1e-4)
    signs = table.grad.sign()
    SparseAdam(table).step(1, 0.01)
    assert_close(table - before, -0.01 * signs, torch.float16)


def test_a_rate_of_zero_moves_nothing(device: torch.device) -> None:
    table = table_of(200, 2, device)
    before = table.detach().clone()
    table.grad = gradient_of(table, 1, 0.5)
    SparseAdam(table).step(1, 0.0)
    assert torch.equal(before, table)
