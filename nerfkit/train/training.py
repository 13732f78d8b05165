"""What a training is made of, one step of it, and its way to a checkpoint and back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from nerfkit.config import Config
from nerfkit.evaluate import peak_memory_bytes
from nerfkit.kernels.launch import parallel
from nerfkit.kernels.raycast import Learned, Lesson, learn
from nerfkit.render import Model, Staged, render_in_stages, restore_model
from nerfkit.run import Run
from nerfkit.scene.scene import Scene
from nerfkit.train.exposure import Exposure
from nerfkit.train.losses import LOSSES, Huber, distortion
from nerfkit.train.optim import Optimizer
from nerfkit.train.pixels import Pixels
from nerfkit.train.refine import Poses
from nerfkit.types import Met, Rays

_TASK_SAMPLES = 8192
"""Samples of one task: their number does not depend on the cores, so that every machine sums in the same order."""
_HALFWAY = 20.0
"""Distance of the subject in near planes, as scenes are framed."""
_ROOM = 8
"""Room that a task has for samples, in shares of what it should get: a young field is fog."""


@dataclass
class Clock:
    """Where a training stands; all of it is saved with a checkpoint."""

    step: int = 0
    seconds: float = 0.0
    n_rays: int = 0
    n_samples: int = 0
    samples_per_ray: float = 64.0
    """Running mean, from which the number of rays of the next step follows."""

    def progress(self, config: Config) -> float:
        """Share of the training that is done."""
        return self.step / config.train.steps if config.train.steps else self.seconds / config.train.time_budget


@dataclass(frozen=True)
class Step:
    """What came of a training step, beside the gradients."""

    loss: float
    squared_error: float
    """Its mean over rays and channels."""
    n_samples: int
    mets: list[Met]
    """What the rays met, part by part, where the sampler watches."""


@dataclass(frozen=True)
class Training:
    """A model, the pixels it learns from, and all that changes from step to step."""

    model: Model
    pixels: Pixels
    optimizer: Optimizer
    generator: torch.Generator
    clock: Clock
    exposure: Exposure | None
    poses: Poses | None

    @classmethod
    def new(cls, scene: Scene, model: Model) -> Training:
        """Before the first step."""
        config = model.config.train
        exposure = Exposure(len(scene.splits["train"]), model.device) if config.exposure else None
        generator = torch.Generator().manual_seed(config.seed)
        poses = Poses(scene.cameras[scene.splits["train"]]) if config.poses else None
        pixels, optimizer = Pixels(scene, model.device), Optimizer(model.field, config)
        return cls(model, pixels, optimizer, generator, Clock(), exposure, poses)

    def learn(self, n_rays: int) -> Step:
        """Draw rays and leave the gradients of all parameters in ``.grad``."""
        model, pixels, exposure, config = self.model, self.pixels, self.exposure, self.model.config.train
        picked = pixels.draw(n_rays, self.generator)
        jitter = torch.rand(n_rays, generator=self.generator).to(model.device)
        background = pixels.background(n_rays, self.generator)
        rays = pixels.rays(picked, model.frame)
        sky = model.field.behind(rays.rays_d) if pixels.scene.has_sky else None
        if pixels.scene.background == "sky":
            background = sky.detach()
        truth = pixels.colors(picked, background)
        if exposure is not None:
            view, photograph = pixels.views(picked), truth
            truth = photograph / exposure.gains(self.clock.step)[view]
        loss, reach = LOSSES[config.loss], config.gradient_reach * model.frame.near_plane * model.frame.scale
        room = _ROOM * _TASK_SAMPLES
        halfway = _HALFWAY * model.frame.near_plane * model.frame.scale
        limits = (config.early_stop, reach, room, config.distortion / n_rays, halfway)
        lesson = Lesson(truth, loss.delta, loss.factor / (3 * n_rays), *limits)
        learned = _learn(model, rays, jitter, background, lesson)
        model.field.grid.collect(model.field.table)
        rgb = torch.cat([one.rgb for one in learned])
        if exposure is not None:
            exposure.observe(view, photograph, rgb)
        if sky is not None:
            # Before a random background the sky takes no part in the picture: it is fitted to what shows through.
            shown = rgb if pixels.scene.background == "sky" else sky.detach()
            through = 1.0 - torch.cat([one.opacity for one in learned])
            g_shown = lesson.factor * (shown - truth).clamp(-loss.delta, loss.delta)
            (model.field.sky.grad,) = torch.autograd.grad(sky, model.field.sky, through[:, None] * g_shown)
        model.field.set_gradients(sum((one.g_weights for one in learned[1:]), learned[0].g_weights))
        error = sum(one.squared_error for one in learned) / (3 * n_rays)
        mets = [one.met for one in learned if one.met is not None]
        return Step(sum(one.loss for one in learned), error, sum(one.n_samples for one in learned), mets)

    def refine(self) -> dict[str, Any] | None:
        """Refine the poses of the training views, if that is asked for and due; what came of it, for the log."""
        if self.poses is None:
            return None
        gains = None if self.exposure is None else self.exposure.gains(self.clock.step)
        clock, progress = self.clock, self.clock.progress(self.model.config)
        found = self.poses.update(progress, clock.n_rays, self.model, self.pixels, gains)
        return None if found is None else {"step": clock.step, "seconds": clock.seconds, "poses": found}

    def warm_up(self) -> None:
        """Compile every kernel by one step whose result is thrown away."""
        model = self.model
        before = {name: value.clone() for name, value in model.sampler.state_dict().items()}
        replace(self, generator=torch.Generator().manual_seed(0), exposure=None).learn(64)
        model.sampler.load_state_dict(before)
        Optimizer(model.field, model.config.train).step(0.0)
        with torch.no_grad():
            model.field.density(torch.zeros(1024, 3, device=model.device))

    def save(self, run: Run) -> None:
        """Write a checkpoint."""
        clock = self.clock
        state: dict[str, Any] = dict(vars(clock))
        state["train"] = {
            "seconds": clock.seconds,
            "n_steps": clock.step,
            "n_rays": clock.n_rays,
            "n_samples": clock.n_samples,
            "peak_memory_bytes": peak_memory_bytes(),
        }
        tensors = {**self.optimizer.state_dict(), "generator": self.generator.get_state()}
        if self.exposure is not None:
            tensors["exposure"] = self.exposure.sums
            run.log({"step": clock.step, "seconds": clock.seconds, "exposure": self.exposure.record(clock.step)})
        if self.poses is not None:
            tensors |= self.poses.state_dict()
        field, sampler = dict(self.model.field.state_dict()), self.model.sampler.state_dict()
        run.save_checkpoint(clock.step, field, sampler, tensors, state)

    def restore(self, run: Run) -> None:
        """Go back to a run's newest checkpoint."""
        checkpoint = run.load_checkpoint()
        restore_model(self.model, checkpoint)
        tensors = dict(checkpoint.optimizer)
        self.generator.set_state(tensors.pop("generator"))
        if self.exposure is not None:
            self.exposure.sums.copy_(tensors.pop("exposure"))
        if self.poses is not None:
            self.poses.load_state_dict({name: tensors.pop(name) for name in self.poses.state_dict()})
            self.pixels.look_from(self.poses.c2w)
        self.optimizer.load_state_dict(tensors)
        for name in vars(self.clock):
            setattr(self.clock, name, checkpoint.state[name])


def _learn(model: Model, rays: Rays, jitter: Tensor, background: Tensor, lesson: Lesson) -> list[Learned]:
    """Rays and what they should have shown, in tasks whose number and order no machine changes."""
    if model.device.type != "cpu":
        return [_learn_in_stages(model, rays, jitter, background, lesson)]
    target, watched = model.field.target(), model.sampler.watches()
    n_tasks = max(1, round(model.config.train.samples_per_step / _TASK_SAMPLES))
    bounds = [len(rays) * i // n_tasks for i in range(n_tasks + 1)]

    def task(i: int) -> Learned:
        part = slice(bounds[i], bounds[i + 1])
        share = replace(lesson, truth=lesson.truth[part])
        where = model.sampler.steps(rays[part], jitter[part])
        return learn(target, where, rays[part], jitter[part], background[part], share, watched)

    return parallel(task, range(n_tasks), model.device)


def _learn_in_stages(model: Model, rays: Rays, jitter: Tensor, background: Tensor, lesson: Lesson) -> Learned:
    """What `learn` does, one stage after the other, over all rays."""
    staged = render_in_stages(model.field, model.sampler, rays, background, jitter, lesson.reach, lesson.early_stop)
    loss = Huber(lesson.delta, lesson.factor)(staged.rgb, lesson.truth)
    if lesson.distortion:
        loss = loss + lesson.distortion * distortion(staged.weights, staged.reached, lesson.halfway)
    # The table is named so that its backward pass runs, which adds to its gradient itself and returns none.
    parameters = [*model.field.network_parameters(), model.field.table]
    *gradients, _ = torch.autograd.grad(loss, parameters, allow_unused=True)
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    met = _met(rays, staged, lesson.truth, background) if model.sampler.watches() else None
    rgb = staged.rgb.detach()
    error = mse_loss(rgb, lesson.truth, reduction="sum").item()
    return Learned(flat, rgb, staged.opacity.detach(), staged.reached.n_owned, loss.item(), error, met)


def _met(rays: Rays, staged: Staged, truth: Tensor, background: Tensor) -> Met:
    rows, sigmas = staged.rows[: staged.reached.n_owned].long(), staged.sigmas.detach()
    sigmas = torch.zeros_like(sigmas).index_copy_(0, rows, sigmas[rows])
    return Met(rays, staged.samples, sigmas, truth, background)
