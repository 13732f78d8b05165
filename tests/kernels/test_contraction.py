"""Contraction: what stays, where all else goes, and how finely a contracted field describes it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from nerfkit.config import FieldConfig
from nerfkit.fields.hash import HashField
from nerfkit.kernels.contraction import contract, half_of

CPU = torch.device("cpu")


def test_contraction_keeps_the_inner_cube_and_draws_all_else_into_a_shell() -> None:
    places = torch.rand(200, 3, generator=torch.Generator().manual_seed(0)) * 4.0 - 1.5
    inner = (places - 0.5).abs().amax(1) <= 0.125
    found = contract(places, 0.125)
    torch.testing.assert_close(found[inner], (places[inner] - 0.5) * 2.0 + 0.5)
    assert bool(((found - 0.5).abs().amax(1)[~inner] > 0.25).all()) and bool(((found > 0.0) & (found < 1.0)).all())
    assert float(contract(torch.tensor([[0.625 + 1e-6, 0.5, 0.5]]), 0.125)[0, 0]) == pytest.approx(0.75, abs=1e-4)
    directions = F.cosine_similarity(found - 0.5, places - 0.5)
    torch.testing.assert_close(directions, torch.ones(200))
    assert torch.equal(contract(places, 0.0), places)


@pytest.mark.parametrize("n_cubes", [1, 2, 4])
def test_a_fields_innermost_cube_is_described_as_finely_either_way(n_cubes: int) -> None:
    config = FieldConfig(n_levels=4, log2_table_size=10, base_resolution=4, finest_resolution=64, width=16)
    for contracted in (False, True):
        field = HashField(replace(config, contracted=contracted), CPU, 0, n_cubes)
        side = 0.5 ** (n_cubes - 1)  # of the innermost cube
        ends = torch.tensor([[0.5 - side / 2 + 1e-6, 0.5, 0.5], [0.5 + side / 2 - 1e-6, 0.5, 0.5]])
        first, last = contract(ends, field.grid.half)[:, 0].tolist()
        finest = field.grid.layout.resolutions[-1]
        assert (last - first) * finest == pytest.approx(64, rel=1e-3)
        assert field.grid.half == (half_of(n_cubes) if contracted else 0.0)
