"""Threads: results do not depend on their number, tasks keep their order, and errors come out."""

from __future__ import annotations

import threading
import time

import pytest
import torch
import warp as wp
from torch import Tensor

from nerfkit.kernels import launch as launching
from nerfkit.kernels.composite import composite, keep_visible
from nerfkit.kernels.hashgrid import HashGrid, grid_layout
from nerfkit.kernels.launch import array, current_task, launch, parallel
from nerfkit.kernels.march import Stepping, march, sample_positions
from nerfkit.kernels.occupancy import fold, observe, pack_bits
from nerfkit.kernels.shade import join_directions, take_rows
from nerfkit.types import Rays

CPU = torch.device("cpu")


@wp.kernel(module="tests.launch", grid_stride=False)
def _mark(first: int, out: wp.array(dtype=int)):
    i = first + wp.tid()
    out[i] = out[i] + i + 1


def everything() -> list[Tensor]:
    """One pass through all kernels, forward and backward."""
    generator = torch.Generator().manual_seed(0)
    origins = torch.rand(200, 3, generator=generator)
    directions = torch.nn.functional.normalize(torch.rand(200, 3, generator=generator) - 0.5, dim=1)
    rays = Rays(origins, directions, torch.ones(200))
    bits, blocks = pack_bits(torch.rand(1, 32**3, generator=generator), 0.5, 32)
    samples = march(rays, torch.rand(200, generator=generator), bits, blocks, Stepping(1, 32, 0.0, 0.01, 0.01))
    positions = sample_positions(rays, samples)
    layout = grid_layout(4, 4, 10, 8, 64)
    table = torch.randn(layout.n_entries, 4, generator=generator).requires_grad_()
    features = HashGrid(layout, CPU).encode(positions, table, torch.float32)
    sigmas = 50.0 * features[:, 0].sigmoid()
    kept, rows = keep_visible(samples, sigmas.detach(), 1e-2)
    values = torch.cat([sigmas[:, None], features], 1)
    joined = join_directions(take_rows(values, rows, kept.n_owned), torch.rand(200, 3), kept.ray_indices)
    outputs = composite(joined[:, 0].contiguous(), joined[:, 1:4].sigmoid(), kept, torch.rand(200, 3))
    sum(output.sum() for output in outputs[:3]).backward()
    window = torch.full((1, 32**3), -1.0)
    observe(positions, samples, sigmas.detach(), 32, window)
    known = torch.zeros(1, 32**3)
    mean = fold(known, window, 0.9)
    return [samples.t_starts, features, rows, *outputs, table.grad, known, mean]


@pytest.mark.parametrize("n_threads", [1, 2, 3, 8])
def test_results_do_not_depend_on_the_number_of_parts(n_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    expected = everything()
    monkeypatch.setattr(launching, "prepare_cpu", lambda: n_threads)
    torch.manual_seed(0)
    for actual, once in zip(everything(), expected, strict=True):
        assert torch.equal(actual, once)


@pytest.mark.parametrize("n_parts", [0, 1, 2, 7, 100])
@pytest.mark.parametrize("n", [0, 1, 5, 1000])
def test_each_index_runs_once(n: int, n_parts: int) -> None:
    out = torch.zeros(max(n, 1), dtype=torch.int32)
    launch(_mark, n, [out], CPU, n_parts)
    assert out[:n].tolist() == list(range(1, n + 1))


def test_a_launch_in_a_task_runs_there() -> None:
    outs = [torch.zeros(50, dtype=torch.int32) for _ in range(6)]
    parallel(lambda out: launch(_mark, 50, [out], CPU), outs, CPU)
    assert all(out.tolist() == list(range(1, 51)) for out in outs)


class TestParallel:
    def test_results_have_the_order_of_the_items(self) -> None:
        def slow_at_first(i: int) -> tuple[int, int]:
            time.sleep(0.002 * (5 - i))
            return i, current_task()

        assert parallel(slow_at_first, range(5), CPU) == [(i, i) for i in range(5)]
        assert current_task() == -1

    def test_no_items(self) -> None:
        assert parallel(str, [], CPU) == []

    def test_tasks_do_not_start_tasks_elsewhere(self) -> None:
        def outer(i: int) -> bool:
            here = threading.get_ident()
            return all(ident == here for ident in parallel(lambda _: threading.get_ident(), range(3), CPU))

        assert all(parallel(outer, range(4), CPU))

    def test_an_error_comes_out_and_the_next_call_works(self) -> None:
        def fail(i: int) -> int:
            if i == 2:
                raise ValueError("the third")
            return i

        with pytest.raises(ValueError, match="the third"):
            parallel(fail, range(4), CPU)
        assert parallel(lambda i: (i, current_task()), range(3), CPU) == [(0, 0), (1, 1), (2, 2)]


def test_a_view_shares_memory() -> None:
    tensor = torch.zeros(4, 3)
    launch(_mark, 4, [torch.zeros(4, dtype=torch.int32)], CPU)
    view = array(tensor, wp.vec3f)
    assert view.data == tensor.data_ptr() and view.shape[0] == 4


def test_a_type_that_no_kernel_knows_is_refused() -> None:
    with pytest.raises(KeyError):
        array(torch.zeros(3, dtype=torch.float64))
