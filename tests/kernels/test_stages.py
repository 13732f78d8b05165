"""Rays taken stage after stage, without a word to the host: the plain twins in a row, and what whole rays learn."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from compare import assert_close
from targets import N_RAYS, NETWORKS, NEVER, STEPPINGS, cells_of, columns, listed, rays, target_of
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nerfkit.kernels import raycast, reference_rays, stages
from nerfkit.kernels.cells import Cells
from nerfkit.kernels.check import relative_error
from nerfkit.kernels.contraction import half_of
from nerfkit.kernels.lesson import Learned, Lesson, Verdict
from nerfkit.kernels.raycast import Target, Where
from nerfkit.types import Samples

ROOM = 20000


def truth() -> Tensor:
    return torch.rand(N_RAYS, 3, generator=torch.Generator().manual_seed(5))


def lesson_of(device: torch.device, early_stop: float = NEVER, **changes: Any) -> Lesson:
    return dataclasses.replace(Lesson(truth().to(device), 0.1, 3.0, early_stop, 0.8, ROOM), **changes)


def learnt(learn: Any, target: Target, where: Where, lesson: Lesson, **more: Any) -> tuple[list[Tensor], Learned]:
    """Gradients of weights and table, colours, opacity and loss by one of the functions that learn."""
    device = target.table.device
    target.table.grad = None
    jitter, background = (x.to(device) for x in columns())
    found = learn(target, where, rays().to(device), jitter, background, lesson, **more)
    numbers = [torch.as_tensor(x, dtype=torch.float32, device=device) for x in (found.loss, found.n_samples)]
    return [found.g_weights, target.table.grad, found.rgb, found.opacity, *numbers], found


def assert_alike(target: Target, where: Where, lesson: Lesson) -> None:
    (actual, _), (wanted, _) = (learnt(one.learn, target, where, lesson) for one in (stages, reference_rays))
    for one, other in zip(actual, wanted, strict=True):
        assert relative_error(one, other) < 1e-3


@pytest.mark.parametrize("steps", STEPPINGS)
@pytest.mark.parametrize("shape", NETWORKS)
def test_a_step_learns_what_the_twin_does(shape: str, steps: str, device: torch.device) -> None:
    target = target_of(NETWORKS[shape], device=device)
    assert_alike(target, cells_of(STEPPINGS[steps], device=device), lesson_of(device, reach=0.0))


@pytest.mark.parametrize(
    "changes", [{"delta": math.inf}, {"distortion": 5.0, "halfway": 0.4}, {"factor": 0.0}], ids=str
)
def test_losses_are_those_of_the_twin(changes: dict[str, float], device: torch.device) -> None:
    target, cells = target_of(NETWORKS["default"], device=device), cells_of(STEPPINGS["even"], device=device)
    if changes.get("delta"):
        changes = {"delta": 1e6}
    assert_alike(target, cells, lesson_of(device, reach=0.0, **changes))


@pytest.mark.parametrize("n_cubes", [2, 3])
def test_places_may_be_contracted(n_cubes: int, device: torch.device) -> None:
    target = target_of(NETWORKS["default"], half=half_of(n_cubes), device=device)
    assert_alike(target, cells_of(STEPPINGS["growing"], device=device), lesson_of(device))


@pytest.mark.parametrize("early_stop", [NEVER, 0.5, 0.01])
def test_opaque_rays_end_early_and_near_gradients_are_damped(early_stop: float, device: torch.device) -> None:
    target = target_of(NETWORKS["default"], thickness=3.0, device=device)
    assert_alike(target, cells_of(STEPPINGS["even"], device=device), lesson_of(device, early_stop))


def test_samples_may_be_listed(device: torch.device) -> None:
    target, samples = target_of(NETWORKS["default"], device=device), listed()
    on_device = {name: x.to(device) if isinstance(x, Tensor) else x for name, x in vars(samples).items()}
    assert_alike(target, dataclasses.replace(samples, **on_device), lesson_of(device, 0.5))


@pytest.mark.parametrize("early_stop", [0.3, 1e-3])
def test_whole_rays_learn_the_same(early_stop: float) -> None:
    target, cells = target_of(NETWORKS["deferring"], thickness=2.0), cells_of(STEPPINGS["even"], 0.4)
    mix = torch.randn(10, 3, generator=torch.Generator().manual_seed(6))

    def judge(gathered: Tensor) -> Verdict:
        e = gathered @ mix - truth()
        return Verdict(float(e.square().sum()), 2 * e @ mix.T, gathered @ mix, (e,))

    ops, lesson = (stages, raycast), lesson_of(torch.device("cpu"), early_stop)
    (actual, one), (wanted, other) = (learnt(op.learn, target, cells, lesson, judge=judge) for op in ops)
    for a, b in zip([*actual, *one.g_more], [*wanted, *other.g_more], strict=True):
        assert relative_error(a, b) < 1e-3


@pytest.mark.parametrize("shape", ["default", "deferring"])
def test_half_precision_differs_by_its_rounding(shape: str, device: torch.device) -> None:
    cells, found = cells_of(STEPPINGS["even"], device=device), []
    for word in ("float32", "bfloat16"):
        found.append(
            learnt(stages.learn, target_of(NETWORKS[shape], word, 0.3, device=device), cells, lesson_of(device))
        )
    (wanted, _), (actual, _) = found
    assert 0.0 < relative_error(actual[2], wanted[2]) < 0.02
    for one, other in zip(actual[:2], wanted[:2], strict=True):
        assert float((one - other).norm() / other.norm()) < 0.1


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_rays_end_where_the_room_is_used_up(share: float, device: torch.device) -> None:
    target, cells = target_of(NETWORKS["default"], device=device), cells_of(STEPPINGS["even"], device=device)
    whole, all_of_them = learnt(stages.learn, target, cells, lesson_of(device))
    room = int(whole[-1] * share)
    found, learned = learnt(stages.learn, target, cells, lesson_of(device, capacity=room))
    assert int(found[-1]) == room
    assert_close(found[2][:2], whole[2][:2])
    assert int(learned.n_rays) < N_RAYS == int(all_of_them.n_rays)
    assert torch.equal(found[2][-1], columns()[1][-1].to(device))
    assert all(torch.isfinite(x).all() for x in found)


def test_where_nothing_is_there_is_nothing_to_learn(device: torch.device) -> None:
    target, cells = target_of(NETWORKS["default"], device=device), cells_of(STEPPINGS["even"], 0.0, device=device)
    found, _ = learnt(stages.learn, target, cells, lesson_of(device))
    assert not found[0].any() and not found[1].any() and not found[3].any() and not found[-1]
    assert torch.equal(found[2], columns()[1].to(device))


def test_rays_that_are_offered_nothing_show_what_lies_behind_them(device: torch.device) -> None:
    nothing, none = torch.zeros(0, device=device), torch.zeros(N_RAYS, 2, dtype=torch.int32, device=device)
    offered = Samples(none, nothing.int(), nothing, nothing, 0)
    found, learned = learnt(stages.learn, target_of(NETWORKS["default"], device=device), offered, lesson_of(device))
    assert not found[0].any() and not found[1].any() and not found[-1]
    assert torch.equal(found[2], columns()[1].to(device)) and int(learned.n_rays) == N_RAYS


@pytest.mark.parametrize("steps", STEPPINGS)
def test_what_rays_met_is_noted_as_whole_rays_note_it(steps: str) -> None:
    target, windows = target_of(NETWORKS["default"], thickness=3.0), []
    for op in (stages, raycast):
        cells = cells_of(STEPPINGS[steps], noting=True)
        learnt(op.learn, target, cells, lesson_of(torch.device("cpu"), 0.1))
        windows.append(cells.window)
    dense = windows[1] > 0.0
    assert dense.sum() > 100 and relative_error(windows[0][dense], windows[1][dense]) < 1e-4
    # Whole rays do not look at what lies far behind a surface; here it counts as empty.
    assert (windows[0][~dense] <= 0.0).all() and (windows[0][windows[1] == 0.0] == 0.0).all()


def test_what_rays_met_is_told(device: torch.device) -> None:
    target, cells = (
        target_of(NETWORKS["default"], thickness=3.0, device=device),
        cells_of(STEPPINGS["even"], device=device),
    )
    _, found = learnt(stages.learn, target, cells, lesson_of(device, 0.1), meeting=True)
    met = found.met
    assert torch.equal(met.truth, truth().to(device)) and len(met.sigmas) == len(met.samples)
    assert int((met.sigmas > 0.0).sum()) == int(found.n_samples)
    lengths = met.samples.t_ends - met.samples.t_starts
    assert not met.sigmas[lengths == 0.0].any() and int((lengths > 0.0).sum()) > int(found.n_samples)
    assert len(cells.window) == 0


class Silent(TorchDispatchMode):
    """Forbids all by which a number on the device would come to the host, which would have to wait for it."""

    TALKS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "repeat_interleave", "is_nonzero", "equal")

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = op.overloadpacket.__name__
        indices = [x for x in args[1] if x is not None] if name in ("index", "index_put_") else []
        masked = any(x.dtype in (torch.bool, torch.uint8) for x in indices)
        if masked or any(talk in name for talk in self.TALKS):
            raise AssertionError(f"{op} asks the device for a number")
        return op(*args, **(kwargs or {}))


@pytest.mark.parametrize("meeting", [False, True])
@pytest.mark.parametrize("steps", STEPPINGS)
def test_no_number_comes_to_the_host(steps: str, meeting: bool, device: torch.device) -> None:
    target = target_of(NETWORKS["default"], "bfloat16", half=half_of(2), device=device)
    cells, lesson = cells_of(STEPPINGS[steps], noting=not meeting, device=device), lesson_of(device, 0.1)
    jitter, background = (x.to(device) for x in columns())
    with Silent():
        stages.learn(target, cells, rays().to(device), jitter, background, lesson, meeting)
    with pytest.raises(AssertionError, match="asks the device"), Silent():
        Cells.sample(cells, rays().to(device), jitter)
