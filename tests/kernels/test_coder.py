"""The coder: what is read is what was written, in about as many bits as its entropy, and by integers alone."""

from __future__ import annotations

import hashlib
import math

import pytest
import torch
from torch import Tensor

from nerfkit.kernels.coder import Coder, _tables


def normal(n: int, f: int, spread: float) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(n, f, generator=generator) * spread).round().clamp(-2047, 2047).to(torch.int16)


def entropy_bytes(values: Tensor) -> float:
    p = values.reshape(-1).long().add(2047).bincount().double()
    p = p[p > 0] / p.sum()
    return float(-(p * p.log2()).sum()) * values.numel() / 8


def shells(n_levels: int, r: int) -> Tensor:
    at = torch.linspace(-1, 1, r)
    x, y, z = torch.meshgrid(at, at, at, indexing="ij")
    radius = (x * x + y * y + z * z).sqrt()
    return torch.stack([(radius - 0.7 / 2**level).abs() < 0.05 for level in range(n_levels)])


@pytest.mark.parametrize(
    ("spread", "f", "most"), [(0.05, 4, 1.06), (0.4, 4, 1.01), (3.0, 2, 1.01), (60.0, 1, 1.02), (600.0, 1, 1.1)]
)
def test_numbers_come_back_and_take_their_entropy(spread: float, f: int, most: float) -> None:
    values = normal(100_000 // f, f, spread)
    everything = torch.ones(len(values), dtype=torch.bool)
    stream = Coder().write_numbers(values, everything)
    assert torch.equal(Coder().read_numbers(stream, everything, f), values)
    assert len(stream) < most * entropy_bytes(values) + 20


@pytest.mark.parametrize("value", [0, 1, -2047, 2047])
@pytest.mark.parametrize("n", [0, 1, 5])
def test_few_and_equal_numbers_come_back(value: int, n: int) -> None:
    values, everything = torch.full((n, 3), value, dtype=torch.int16), torch.ones(n, dtype=torch.bool)
    stream = Coder().write_numbers(values, everything)
    assert torch.equal(Coder().read_numbers(stream, everything, 3), values)


def test_what_is_not_coded_costs_nothing_and_is_zero() -> None:
    values, coded = normal(20_000, 4, 1.0), torch.rand(20_000) < 0.3
    stream = Coder().write_numbers(values, coded)
    assert torch.equal(Coder().read_numbers(stream, coded, 4), values * coded[:, None])
    assert len(stream) < 1.05 * entropy_bytes(values) * float(coded.float().mean()) + 50


def test_neighbours_that_are_alike_cost_less() -> None:
    """Zeros that lie together, in a lattice of 40 x 40 x 40."""
    r = 40
    full = shells(1, r)[0].reshape(-1, 1)
    values, everything = (normal(r**3, 1, 2.0) * full).to(torch.int16), torch.ones(r**3, dtype=torch.bool)
    known = len(Coder().write_numbers(values, everything, (r, r * r)))
    unknown = len(Coder().write_numbers(values, everything))
    mixed = values[torch.randperm(r**3)]
    assert known < unknown < 0.95 * len(Coder().write_numbers(mixed, everything))
    stream = Coder().write_numbers(values, everything, (r, r * r))
    assert torch.equal(Coder().read_numbers(stream, everything, 1, (r, r * r)), values)


def test_streams_one_after_the_other_share_what_was_learnt() -> None:
    values, everything = normal(3000, 4, 0.8), torch.ones(3000, dtype=torch.bool)
    writer, reader = Coder(), Coder()
    first, second = (writer.write_numbers(values, everything) for _ in range(2))
    assert len(second) < len(first)
    for stream in (first, second):
        assert torch.equal(reader.read_numbers(stream, everything, 4), values)


@pytest.mark.parametrize(("n_levels", "r"), [(1, 32), (3, 64)])
def test_cells_come_back_in_few_bytes(n_levels: int, r: int) -> None:
    cells = shells(n_levels, r)
    stream = Coder().write_cells(cells)
    assert torch.equal(Coder().read_cells(stream, n_levels, r), cells)
    p = float(cells.float().mean())
    alone = -(p * math.log2(p) + (1 - p) * math.log2(1 - p)) * cells.numel() / 8
    assert len(stream) < 0.4 * alone
    for plain in (torch.zeros_like(cells), torch.ones_like(cells)):
        stream = Coder().write_cells(plain)
        assert torch.equal(Coder().read_cells(stream, n_levels, r), plain) and len(stream) < 500


def test_random_bytes_are_read_as_something() -> None:
    stream = bytes(torch.randint(0, 256, (400,), dtype=torch.uint8).tolist())
    everything = torch.ones(5000, dtype=torch.bool)
    assert Coder().read_numbers(stream, everything, 4).shape == (5000, 4)
    assert Coder().read_cells(stream, 2, 32).shape == (2, 32, 32, 32)


def test_logits_and_probabilities_are_each_others_inverse() -> None:
    stretch, squash, _ = _tables()
    assert torch.equal(stretch, stretch.sort().values) and torch.equal(squash, squash.sort().values)
    p = (torch.arange(4096, dtype=torch.float64) + 0.5) / 4096
    torch.testing.assert_close(stretch.double() / 256, p.logit(), atol=2e-3, rtol=0)
    logits = torch.arange(-2047, 2048, dtype=torch.float64) / 256
    torch.testing.assert_close(squash.double() / 65536, logits.sigmoid(), atol=4e-4, rtol=0)


def test_the_format_is_what_it_was() -> None:
    """A file that was written yesterday must be read tomorrow: who changes the coder raises the version of the file."""
    values = (torch.arange(4000, dtype=torch.int64) ** 2 % 7919 % 5 - 2).to(torch.int16).view(-1, 4)
    coder = Coder()
    numbers = coder.write_numbers(values, torch.ones(1000, dtype=torch.bool), (10, 100))
    cells = coder.write_cells(torch.arange(2 * 16**3).view(2, 16, 16, 16) % 37 < 9)
    found = hashlib.blake2b(numbers + cells, digest_size=8).hexdigest()
    assert found == "bf9c3f3a19f0ea74"
