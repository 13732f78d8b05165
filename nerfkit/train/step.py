"""The arithmetic of one training step: rays in tasks, each through the model and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from nerfkit.kernels import raycast, stages
from nerfkit.kernels.launch import parallel
from nerfkit.kernels.lesson import Learned, Lesson
from nerfkit.ranks import ALONE, Ranks
from nerfkit.render import Model, Staged, render_in_stages, render_patches
from nerfkit.train.losses import Huber, distortion
from nerfkit.train.patches import PatchJudge
from nerfkit.types import Met, Rays

TASK_SAMPLES = 8192
"""Samples of one task: their number does not depend on the cores, so that every machine sums in the same order."""
_ROOM, _ROOM_ON_CUDA = 8, 2
"""Room that a task has for samples, in shares of what it should get."""
_PARTS = 16
"""Of the room for a step, in which that of a task is measured on CUDA, so that shapes repeat."""
_SCALE = 1024.0
"""Factor on a loss that goes back through tiny-cuda-nn, in whose half precision its gradients would be nothing."""

LEARN = {"cpu": raycast.learn, "cuda": stages.learn}
"""What takes all rays of a task there and back, on each kind of device."""


def room_of(samples_per_step: int, device: torch.device) -> int:
    """Samples that there is room for, on a CPU in a task, were all alike, on CUDA in a step: a young field is fog."""
    return _ROOM * TASK_SAMPLES if device.type == "cpu" else _ROOM_ON_CUDA * samples_per_step


def _capacity(room: int, n: int, n_rays: int, n_tasks: int, device: torch.device) -> int:
    """Room for the samples of n of the rays of a step, all rays having as much.

    On a CPU that is what a task has, or a multiple of it where there is one large patch and little else: more costs
    nothing. On CUDA rows are computed whether a ray owns them or not, so a part has its share.
    """
    if device.type == "cpu":
        return math.ceil(n * n_tasks / n_rays) * room
    part = max(room // _PARTS, 1)
    return math.ceil(n * room / n_rays / part) * part


@dataclass(frozen=True)
class Batch:
    """The rays of a step: those of single pixels, and behind them those of patches."""

    rays: Rays
    """In model coordinates."""
    jitter: Float[Tensor, " n_rays"]
    background: Float[Tensor, "n_rays 3"]
    lesson: Lesson
    judges: Sequence[PatchJudge]
    """Of the patches, in their order, some to each: a task each."""


def n_tasks_of(samples_per_step: int, device: torch.device, n_ranks: int = 1) -> int:
    """Tasks of a step: on a CPU by about how many samples it has, else one for each rank."""
    return max(1, round(samples_per_step / TASK_SAMPLES)) if device.type == "cpu" else n_ranks


def learn_batch(model: Model, batch: Batch, ranks: Ranks = ALONE) -> list[Learned]:
    """What came of the rays, part by part and in their order.

    Each task takes a share of the single pixels and one of the patches, so that all take as long; their number and the
    order of the parts no machine changes. Each rank does some of the tasks, and is told what came of the others.
    """
    n_tasks = n_tasks_of(model.config.train.samples_per_step, model.device, ranks.size)
    n = len(batch.rays) - sum(len(judge.truth) for judge in batch.judges)
    bounds = [n * i // n_tasks for i in range(n_tasks + 1)]
    for judge in batch.judges:
        bounds.append(bounds[-1] + len(judge.truth))
    watched, learn = model.sampler.watches(), LEARN[model.device.type]
    target = None if model.field.tcnn or model.by_nerfacc else model.field.target()

    def learn_part(i: int) -> Learned | None:
        part = slice(bounds[i], bounds[i + 1])
        if part.start == part.stop:
            return None
        n_own, room = part.stop - part.start, batch.lesson.capacity
        capacity = _capacity(room, n_own, len(batch.rays), n_tasks, model.device)
        lesson = replace(batch.lesson, truth=batch.lesson.truth[part], capacity=capacity)
        some = batch.rays[part], batch.jitter[part], batch.background[part]
        judge = batch.judges[i - n_tasks] if i >= n_tasks else None
        if target is None or (judge is not None and model.apron):
            return learn_in_stages(model, *some, lesson, judge)
        return learn(target, model.sampler.steps(*some[:2]), *some, lesson, watched, judge)

    def task(i: int) -> list[Learned | None]:
        return [learn_part(part) for part in range(i, len(bounds) - 1, n_tasks)]

    own = ranks.own(n_tasks)
    found = _told(model, batch.judges, ranks, dict(zip(own, parallel(task, own, model.device), strict=True)), n_tasks)
    parts = [found[part % n_tasks][part // n_tasks] for part in range(len(bounds) - 1)]
    return [one for one in parts if one is not None]


def _told(
    model: Model, judges: Sequence[PatchJudge], ranks: Ranks, own: dict[int, list[Learned | None]], n_tasks: int
) -> list[list[Learned | None]]:
    """What came of all tasks, given this rank's own; judges and the table's gradient are as if all had been done here.

    On a CPU that gradient is still to be collected: ranks tell each other its parts, which are then summed in the
    same order whatever the number of ranks. Those of other devices have been summed already.
    """
    grid, table = model.field.grid, model.field.table
    laid = {i: judges[i].found if i < len(judges) else None for i in own}
    mine = [(parts, laid[i], grid.pending.get(k, [])) for k, (i, parts) in enumerate(own.items())]
    done = ranks.together(mine, n_tasks)
    grid.pending = {i: pending for i, (_, _, pending) in enumerate(done) if pending}
    for judge, (_, found, _) in zip(judges, done, strict=False):
        judge.found = found
    if model.device.type != "cpu":
        if table.grad is None:
            table.grad = torch.zeros_like(table)
        ranks.sum(table.grad)
    return [parts for parts, _, _ in done]


def learn_in_stages(
    model: Model, rays: Rays, jitter: Tensor, background: Tensor, lesson: Lesson, judge: PatchJudge | None
) -> Learned:
    """What `learn` does, one stage after the other, over all rays.

    Where neighbours take part, rays do not end early: all have as many samples.
    """
    field, sampler, neighbours = model.field, model.sampler, [] if judge is None else model.field.neighbour_parameters()
    if neighbours:
        size = judge.size
        shape, alike = (len(rays) // size**2, size, size), jitter[:: size**2].repeat_interleave(size**2)
        staged = render_patches(field, sampler, rays, shape, background, alike, lesson.reach)
    else:
        ways = lesson.reach, lesson.early_stop, model.by_nerfacc
        staged = render_in_stages(field, sampler, rays, background, jitter, *ways)
    if judge is None:
        rgb, g_more = staged.rgb[:, :3].detach(), ()
        loss = Huber(lesson.delta, lesson.factor)(staged.rgb[:, :3], lesson.truth)
        told = loss.item()
    else:
        verdict = judge(staged.rgb)
        rgb, g_more, told = verdict.rgb, verdict.g_more, verdict.loss
        loss = (staged.rgb * verdict.g_gathered).sum()  # of the same gradient
    if lesson.distortion:
        loss = loss + lesson.distortion * distortion(staged.weights, staged.reached, lesson.halfway)
    # The table is named so that its backward pass runs, which adds to its gradient itself and returns none; that of
    # tiny-cuda-nn returns one.
    parameters = [*field.network_parameters(), *neighbours, field.table]
    scale = _SCALE if field.tcnn else 1.0
    *gradients, g_table = torch.autograd.grad(scale * loss, parameters, allow_unused=True)
    if field.tcnn:
        gradients = [None if gradient is None else gradient / scale for gradient in gradients]
    if g_table is not None:
        g_table = g_table / scale
        field.table.grad = g_table if field.table.grad is None else field.table.grad.add_(g_table)
    n = len(gradients) - len(neighbours)
    flat, g_more = torch.cat([gradient.reshape(-1) for gradient in gradients[:n]]), (*g_more, *gradients[n:])
    met = _met(rays, staged, lesson.truth, background) if sampler.watches() else None
    return Learned(flat, rgb, staged.opacity.detach(), staged.reached.n_owned, len(rays), told, met, g_more)


def _met(rays: Rays, staged: Staged, truth: Tensor, background: Tensor) -> Met:
    rows, sigmas = staged.rows[: staged.reached.n_owned].long(), staged.sigmas.detach()
    sigmas = torch.zeros_like(sigmas).index_copy_(0, rows, sigmas[rows])
    return Met(rays, staged.samples, sigmas, truth, background)
