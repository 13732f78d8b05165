"""Entries that no sample can reach: whatever stands there, no picture changes; those that are reached, are."""

from __future__ import annotations

import pytest
import torch

from nerfkit.config import SamplerConfig
from nerfkit.kernels.cells import Cells
from nerfkit.kernels.hashgrid import grid_layout
from nerfkit.kernels.reach import reachable
from nerfkit.kernels.reference import encode
from nerfkit.sampling.stepping import places_in, stepping_of


def some_cells(n_levels: int, share: float) -> Cells:
    stepping = stepping_of(SamplerConfig(resolution=32), n_levels, 0.0, 1e9)
    generator = torch.Generator().manual_seed(1)
    return Cells.of(torch.rand(n_levels, 32, 32, 32, generator=generator) < share, stepping)


@pytest.mark.parametrize(("n_levels", "share"), [(1, 0.002), (1, 0.05), (2, 0.001), (3, 0.0005)])
def test_samples_in_cells_find_only_entries_that_are_reached(n_levels: int, share: float) -> None:
    cells, layout = some_cells(n_levels, share), grid_layout(5, 2, 12, 6, 90 * 2 ** (n_levels - 1))
    reached = reachable(cells, layout)
    at = cells.occupied.reshape(-1).nonzero()[:, 0]
    generator = torch.Generator().manual_seed(2)
    within = torch.rand(64, len(at), 3, generator=generator)
    within[:8] = (within[:8] * 2).floor()  # corners of cells, too
    positions = places_in(at.repeat(64), within.view(-1, 3), cells.stepping).clamp(0, 1)
    table = torch.zeros(layout.n_entries, 2, requires_grad=True)
    encode(positions, table, layout).sum().backward()
    touched = table.grad.abs().sum(1) > 0
    assert not bool((touched & ~reached).any())
    for a, b in zip(layout.offsets, layout.offsets[1:], strict=False):
        assert int(touched[a:b].sum()) >= 0.85 * int(reached[a:b].sum()) or b - a > 1 << 11
    assert not bool(reached.all()) and bool(reached.any())


def test_no_cells_reach_nothing_and_all_cells_everything_that_exists() -> None:
    layout = grid_layout(4, 2, 12, 6, 60)
    stepping = stepping_of(SamplerConfig(resolution=32), 1, 0.0, 1e9)
    for fill in (False, True):
        reached = reachable(Cells.of(torch.full((1, 32, 32, 32), fill), stepping), layout)
        assert bool(reached.any()) is fill
        if fill:  # some fill a dense level up to a multiple of eight, and the hash finds not quite all others
            assert int((~reached).sum()) < 0.01 * layout.n_entries


def test_where_space_is_contracted_all_entries_count() -> None:
    layout = grid_layout(4, 2, 12, 6, 60)
    assert bool(reachable(some_cells(2, 0.001), layout, contracted=True).all())
