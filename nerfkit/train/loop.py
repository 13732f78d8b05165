"""The training loop, to be read from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from nerfkit.config import Config
from nerfkit.evaluate import peak_memory_bytes
from nerfkit.kernels.launch import parallel, prepare_cpu
from nerfkit.kernels.raycast import Learned, Lesson, learn
from nerfkit.render import BACKGROUNDS, EARLY_STOP, Model, new_model, render_rays
from nerfkit.run import Run
from nerfkit.sampling.seen import seen_cells
from nerfkit.scene.scene import Scene
from nerfkit.train.exposure import Exposure
from nerfkit.train.losses import LOSSES, Huber
from nerfkit.train.optim import Optimizer, rate_at
from nerfkit.train.pixels import Pixels
from nerfkit.train.progress import Report
from nerfkit.types import Rays

_TASK_SAMPLES = 8192
"""Samples of one task: their number does not depend on the cores, so that every machine sums in the same order."""
_ROOM = 8
"""Room that a task has for samples, in shares of what it should get: a young field is fog."""


@dataclass
class Clock:
    """Where a training stands; all of it is saved with a checkpoint."""

    step: int = 0
    seconds: float = 0.0
    n_rays: int = 0
    n_samples: int = 0
    samples_per_ray: float = 0.0
    """Running mean, from which the number of rays of the next step follows."""

    def progress(self, config: Config) -> float:
        """Share of the training that is done."""
        return self.step / config.train.steps if config.train.steps else self.seconds / config.train.time_budget


def _learn_in_stages(model: Model, rays: Rays, background: Tensor, jitter: Tensor, lesson: Lesson) -> Learned:
    """What `learn` does, one stage after the other, over all rays."""
    rendered = render_rays(model.field, model.sampler, rays, background, jitter, lesson.reach)
    loss = Huber(lesson.delta, lesson.factor)(rendered.rgb, lesson.truth)
    # The table is named so that its backward pass runs; it hands its gradient to the grid itself.
    parameters = [*model.field.network_parameters(), model.field.table]
    *gradients, _ = torch.autograd.grad(loss, parameters)
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    error = mse_loss(rendered.rgb.detach(), lesson.truth, reduction="sum")
    return Learned(flat, rendered.rgb.detach(), rendered.n_samples, loss.item(), error.item())


def _step(
    model: Model,
    pixels: Pixels,
    n_rays: int,
    generator: torch.Generator,
    exposure: Exposure | None = None,
    step: int = 0,
) -> tuple[float, float, int]:
    """Draw rays and leave the gradients of all parameters in ``.grad``; returns loss, mean squared error, samples."""
    device, field, config = model.device, model.field, model.config.train
    picked = pixels.draw(n_rays, generator)
    jitter = torch.rand(n_rays, generator=generator).to(device)
    if pixels.scene.background in BACKGROUNDS:
        background = torch.full((n_rays, 3), BACKGROUNDS[pixels.scene.background], device=device)
    else:
        background = torch.rand(n_rays, 3, generator=generator).to(device)
    n_tasks = max(1, round(config.samples_per_step / _TASK_SAMPLES)) if device.type == "cpu" else 1
    bounds = [n_rays * i // n_tasks for i in range(n_tasks + 1)]
    loss, reach = LOSSES[config.loss], config.gradient_reach * model.frame.near_plane * model.frame.scale
    rays, truth = pixels.rays(picked, model.frame), pixels.colors(picked, background)
    target, cells = field.target(), model.sampler.cells()
    if exposure is not None:
        view, photograph = pixels.views(picked), truth
        truth = photograph / exposure.gains(step)[view]

    def task(i: int) -> Learned:
        part = slice(bounds[i], bounds[i + 1])
        room = _ROOM * _TASK_SAMPLES
        lesson = Lesson(truth[part], loss.delta, loss.factor / (3 * n_rays), EARLY_STOP, reach, room)
        if device.type == "cpu":
            return learn(target, cells, rays[part], jitter[part], background[part], lesson)
        return _learn_in_stages(model, rays[part], background[part], jitter[part], lesson)

    learned = parallel(task, range(n_tasks), device)
    field.grid.collect(field.table)
    if exposure is not None:
        exposure.observe(view, photograph, torch.cat([one.rgb for one in learned]))
    field.set_gradients(sum((one.g_weights for one in learned[1:]), learned[0].g_weights))
    error = sum(one.squared_error for one in learned) / (3 * n_rays)
    return sum(one.loss for one in learned), error, sum(one.n_samples for one in learned)


def model_of(scene: Scene, config: Config, resume: bool = False) -> Model:
    """An untrained model of a scene. With ``resume`` a checkpoint will tell which cells may be occupied."""
    allowed = None if resume else seen_cells(scene, config.sampler.resolution)
    prepare_cpu()
    return new_model(config, scene.frame, allowed)


def fit(
    scene: Scene, config: Config, run: Run | None = None, resume: bool = False, model: Model | None = None
) -> Iterator[Report]:
    """Train a field on a scene; yields a `Report` every ``report_every`` steps and a last one.

    With a run, logs and checkpoints go there, also when the caller stops early by leaving its ``for``; an exception
    inside a step leaves the last checkpoint as it is. ``resume`` continues the run's newest checkpoint. Kernels are
    compiled and a first step is tried before the clock starts. ``model`` is trained if it is given, so that the caller
    can look at it in between; else one of `model_of`.
    """
    model = model or model_of(scene, config, resume)
    pixels = Pixels(scene, model.device)
    optimizer = Optimizer(model.field, config.train)
    generator = torch.Generator().manual_seed(config.train.seed)
    clock = Clock(samples_per_ray=64.0)
    exposure = Exposure(len(scene.splits["train"]), model.device) if config.train.exposure else None
    _warm_up(model, pixels)
    if resume and run is not None:
        _restore(run, model, optimizer, generator, clock, exposure)

    def checkpoint() -> None:
        if run is not None:
            _save(run, model, optimizer, generator, clock, exposure)

    tally = _Tally(clock)
    saved = clock.seconds
    started = time.perf_counter() - clock.seconds
    try:
        while clock.progress(config) < 1.0:
            n_rays = round(config.train.samples_per_step / max(clock.samples_per_ray, 1.0))
            n_rays = min(max(n_rays, 64), config.train.samples_per_step)
            rate = rate_at(clock.step, clock.progress(config), config.train)
            loss, error, n_samples = _step(model, pixels, n_rays, generator, exposure, clock.step)
            optimizer.step(rate)
            clock.step += 1
            model.sampler.update(clock.step, model.field)
            clock.n_rays += n_rays
            clock.n_samples += n_samples
            clock.samples_per_ray = 0.9 * clock.samples_per_ray + 0.1 * n_samples / n_rays
            clock.seconds = time.perf_counter() - started
            tally.add(loss, error)
            if clock.step % config.train.report_every == 0 or clock.progress(config) >= 1.0:
                report = tally.report(clock, model, rate * config.train.table_lr)
                if run is not None:
                    run.log(vars(report))
                pause = time.perf_counter()
                yield report
                started += time.perf_counter() - pause
            if run is not None and clock.seconds - saved > config.train.checkpoint_every:
                pause = time.perf_counter()
                checkpoint()
                saved = clock.seconds
                started += time.perf_counter() - pause
    except GeneratorExit:  # the caller left its loop, between two steps; what interrupts a step saves nothing
        checkpoint()
        raise
    checkpoint()


class _Tally:
    """Means and rates since the last report."""

    def __init__(self, clock: Clock):
        self._start(clock)

    def _start(self, clock: Clock) -> None:
        self.loss = self.error = 0.0
        self.since = (clock.step, clock.seconds, clock.n_rays, clock.n_samples)

    def add(self, loss: float, error: float) -> None:
        """Count one step."""
        self.loss += loss
        self.error += error

    def report(self, clock: Clock, model: Model, lr: float) -> Report:
        """What happened since the last report, and start anew."""
        now = (clock.step, clock.seconds, clock.n_rays, clock.n_samples)
        steps, seconds, rays, samples = (a - b for a, b in zip(now, self.since, strict=True))
        progress = clock.progress(model.config)
        report = Report(
            step=clock.step,
            seconds=clock.seconds,
            loss=self.loss / steps,
            psnr=-10.0 * math.log10(max(self.error / steps, 1e-10)),
            rays_per_second=rays / max(seconds, 1e-9),
            samples_per_ray=samples / rays,
            samples_per_second=samples / max(seconds, 1e-9),
            learning_rate=lr,
            occupancy=model.sampler.occupancy,
            progress=min(progress, 1.0),
            eta=clock.seconds * (1.0 / progress - 1.0) if 0.0 < progress < 1.0 else 0.0,
        )
        self._start(clock)
        return report


def _warm_up(model: Model, pixels: Pixels) -> None:
    """Compile every kernel by one step whose result is thrown away."""
    field, sampler = model.field, model.sampler
    _step(model, pixels, 64, torch.Generator().manual_seed(0))
    sampler.forget()
    optimizer = Optimizer(field, model.config.train)
    optimizer.step(0.0)
    with torch.no_grad():
        field.density(torch.zeros(1024, 3, device=model.device))


def _save(
    run: Run,
    model: Model,
    optimizer: Optimizer,
    generator: torch.Generator,
    clock: Clock,
    exposure: Exposure | None,
) -> None:
    state: dict[str, Any] = dict(vars(clock))
    state["train"] = {
        "seconds": clock.seconds,
        "n_steps": clock.step,
        "n_rays": clock.n_rays,
        "n_samples": clock.n_samples,
        "peak_memory_bytes": peak_memory_bytes(),
    }
    tensors = {**optimizer.state_dict(), "generator": generator.get_state()}
    if exposure is not None:
        tensors["exposure"] = exposure.sums
    run.save_checkpoint(clock.step, dict(model.field.state_dict()), model.sampler.state_dict(), tensors, state)


def _restore(
    run: Run,
    model: Model,
    optimizer: Optimizer,
    generator: torch.Generator,
    clock: Clock,
    exposure: Exposure | None,
) -> None:
    checkpoint = run.load_checkpoint()
    model.field.load_state_dict(checkpoint.field)
    model.sampler.load_state_dict(checkpoint.sampler)
    tensors = dict(checkpoint.optimizer)
    generator.set_state(tensors.pop("generator"))
    if exposure is not None:
        exposure.sums.copy_(tensors.pop("exposure"))
    optimizer.load_state_dict(tensors)
    for name in vars(clock):
        setattr(clock, name, checkpoint.state[name])
