"""The occupancy grid's kernels: what goes in, what comes out as bits, and the baked cells."""

from __future__ import annotations

import pytest
import torch
from compare import assert_close
from torch import Tensor

from nerfkit.kernels import reference
from nerfkit.kernels.cells import Cells
from nerfkit.kernels.march import Stepping
from nerfkit.kernels.occupancy import UNKNOWN, fold, observe, pack_bits
from nerfkit.types import Samples

RES = 32


def uniform(*shape: int, device: torch.device, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)).to(device)


def samples_of(lengths: Tensor, n_owned: int) -> Samples:
    """As many samples as lengths, of one ray."""
    n = len(lengths)
    info = torch.tensor([[0, n_owned]], dtype=torch.int32, device=lengths.device)
    return Samples(info, torch.zeros(n, dtype=torch.int32, device=lengths.device), lengths * 0.0, lengths, n_owned)


def nothing_seen(n_levels: int, device: torch.device) -> Tensor:
    return torch.full((n_levels, RES**3), -1.0, device=device)


class TestObserve:
    @pytest.mark.parametrize("n_levels", [1, 2, 4])
    def test_cells_are_those_of_the_twin(self, n_levels: int, device: torch.device) -> None:
        samples = samples_of(0.05 * uniform(3000, device=device, seed=1), 2500)
        positions = (0.5 + (uniform(3000, 3, device=device) - 0.5) ** 3 * 4.0).clamp(0.0, 1.0)
        sigmas = uniform(3000, device=device, seed=2)
        results = []
        for op in (observe, reference.observe):
            results.append(nothing_seen(n_levels, device))
            op(positions, samples, sigmas, RES, results[-1])
        assert torch.equal(*results)
        assert all(bool((level >= 0.0).any()) for level in results[0])

    def test_the_largest_of_a_cell_stays(self, device: torch.device) -> None:
        values = nothing_seen(1, device)
        positions = torch.tensor([0.51, 0.27, 0.99], device=device).expand(4, 3).contiguous()
        sigmas = torch.tensor([1.0, 3.0, 2.0, 9.0], device=device)
        observe(positions, samples_of(torch.full((4,), 0.01, device=device), 3), sigmas, RES, values)
        cell = (int(0.51 * RES) * RES + int(0.27 * RES)) * RES + int(0.99 * RES)
        assert float(values[0, cell]) == 3.0 and int((values >= 0.0).sum()) == 1
        observe(positions, samples_of(torch.full((4,), 0.01, device=device), 1), sigmas, RES, values)
        assert float(values[0, cell]) == 3.0

    def test_a_long_step_belongs_to_large_cells(self, device: torch.device) -> None:
        positions = torch.full((3, 3), 0.51, device=device)
        lengths = torch.tensor([0.2 / RES, 0.3 / RES, 0.6 / RES], device=device)  # cells are 1/4, 1/2 and 1 of these
        values = nothing_seen(3, device)
        observe(positions, samples_of(lengths, 3), torch.tensor([1.0, 2.0, 3.0], device=device), RES, values)
        assert values.max(1).values.tolist() == [1.0, 2.0, 3.0]

    def test_corners_of_the_cube_are_in_the_grid(self, device: torch.device) -> None:
        corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3).to(device)
        values = nothing_seen(2, device)
        samples = samples_of(torch.full((8,), 0.01, device=device), 8)
        observe(corners, samples, torch.ones(8, device=device), RES, values)
        assert not (values[0] >= 0.0).any() and int((values[1] >= 0.0).sum()) == 8

    def test_no_samples(self, device: torch.device) -> None:
        values = nothing_seen(1, device)
        four = uniform(4, device=device)
        observe(uniform(4, 3, device=device), samples_of(four, 0), four, RES, values)
        assert (values == -1.0).all()


class TestFold:
    def test_it_is_the_twin(self, device: torch.device) -> None:
        start = uniform(2, RES**3, device=device)
        start[:, ::5], start[:, 1::7] = UNKNOWN, -1.0
        seen = uniform(2, RES**3, device=device, seed=1) * 2.0
        seen[seen < 1.0] = -1.0
        results = []
        for op in (fold, reference.fold):
            values, window = start.clone(), seen.clone()
            mean = op(values, window, 0.9)
            results.append((values, window, torch.as_tensor(mean)))
        (values, window, mean), (expected, _, expected_mean) = results
        assert torch.equal(values >= UNKNOWN, expected >= UNKNOWN)
        assert_close(values.clamp(max=2.0), expected.clamp(max=2.0))
        assert (window == -1.0).all()
        assert_close(mean, expected_mean)

    def test_one_cell_of_each_kind(self, device: torch.device) -> None:
        values, window = torch.zeros(1, 32, device=device), torch.full((1, 32), -1.0, device=device)
        values[0, :6] = torch.tensor([UNKNOWN, UNKNOWN, 2.0, 2.0, 2.0, -1.0])
        window[0, :6] = torch.tensor([-1.0, 0.5, -1.0, 0.1, 5.0, 3.0])
        mean = fold(values, window, 0.5)
        assert values[0, :6].tolist() == [UNKNOWN, 0.5, 2.0, 1.0, 5.0, -1.0]
        assert mean == pytest.approx((0.5 + 2.0 + 1.0 + 5.0) / 30)
        assert (window == -1.0).all()

    def test_a_cell_that_may_not_be_occupied_never_is(self, device: torch.device) -> None:
        values = torch.full((1, 32), -1.0, device=device)
        assert fold(values, torch.full((1, 32), 7.0, device=device), 0.95) == 0.0
        assert (values == -1.0).all()

    def test_nothing_known_has_the_mean_zero(self, device: torch.device) -> None:
        values = torch.full((1, 64), UNKNOWN, device=device)
        assert fold(values, torch.full((1, 64), -1.0, device=device), 0.95) == 0.0


class TestPackBits:
    @pytest.mark.parametrize("n_levels", [1, 3])
    @pytest.mark.parametrize("resolution", [32, 64])
    @pytest.mark.parametrize("threshold", [0.0, 0.998, 2.0])
    def test_bits_are_those_of_the_twin(
        self, n_levels: int, resolution: int, threshold: float, device: torch.device
    ) -> None:
        values = uniform(n_levels, resolution**3, device=device)
        for actual, expected in zip(
            pack_bits(values, threshold, resolution), reference.pack_bits(values, threshold, resolution), strict=True
        ):
            assert torch.equal(actual, expected)

    def test_bits_are_the_cells_above_the_threshold(self, device: torch.device) -> None:
        values = uniform(2, RES**3, device=device)
        values[0, 31] = 0.5
        bits, _ = pack_bits(values, 0.5, RES)
        assert torch.equal(reference.unpack_bits(bits), (values > 0.5).flatten())

    @pytest.mark.parametrize("cell", [(0, 0, 0, 0), (1, 31, 31, 31), (1, 7, 8, 24)])
    def test_one_cell_sets_one_block(self, cell: tuple[int, int, int, int], device: torch.device) -> None:
        values = torch.zeros(2, RES, RES, RES, device=device)
        values[cell] = 1.0
        bits, blocks = (reference.unpack_bits(words) for words in pack_bits(values.view(2, -1), 0.5, RES))
        assert bits.view_as(values).nonzero().tolist() == [list(cell)]
        level, *place = cell
        assert blocks.view(2, 4, 4, 4).nonzero().tolist() == [[level, *(v // 8 for v in place)]]

    def test_unknown_cells_count_and_forbidden_ones_do_not(self, device: torch.device) -> None:
        values = torch.full((1, RES**3), -1.0, device=device)
        values[0, 5] = UNKNOWN
        bits, _ = pack_bits(values, 0.0, RES)
        assert reference.unpack_bits(bits).nonzero().flatten().tolist() == [5]


def test_cells_that_nobody_visits_fade(device: torch.device) -> None:
    values = torch.tensor([[8.0, UNKNOWN, -1.0, 4.0] + [0.0] * 28], device=device)
    window = torch.full((1, 32), -1.0, device=device)
    window[0, 3] = 1.0
    fold(values, window, 0.5, 0.25)
    assert values[0, :4].tolist() == [2.0, UNKNOWN, -1.0, 2.0]


class TestBaked:
    def test_every_bit_is_told(self, device: torch.device) -> None:
        values = uniform(2, RES**3, device=device, seed=4)
        cells = Cells.bake(values, 0.7, Stepping(2, RES, 0.0, 0.01, 0.01))
        assert torch.equal(cells.occupied, (values > 0.7).view(2, RES, RES, RES))

    @pytest.mark.parametrize("n_levels", [1, 3])
    def test_a_box_leaves_the_cells_whose_middle_it_holds(self, n_levels: int, device: torch.device) -> None:
        values = uniform(n_levels, RES**3, device=device, seed=4)
        cells = Cells.bake(values, 0.7, Stepping(n_levels, RES, 1 / 64, 0.004, 0.05))
        lower, upper = torch.tensor([0.3, 0.0, 0.4]), torch.tensor([0.6, 1.0, 0.55])
        part = cells.within(lower.to(device), upper.to(device))
        axis = (torch.arange(RES) + 0.5) / RES - 0.5
        cube = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
        middles = torch.stack([0.5 + cube * 0.5 ** (n_levels - 1 - level) for level in range(n_levels)])
        inside = ((middles >= lower) & (middles <= upper)).all(-1).to(device)
        assert torch.equal(part.occupied, cells.occupied & inside) and part.occupied.any()
        assert part.stepping == cells.stepping
