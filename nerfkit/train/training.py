"""What a training is made of, one step of it, and its way to a checkpoint and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from nerfkit.config import Config
from nerfkit.evaluate import peak_memory_bytes
from nerfkit.kernels.launch import sent
from nerfkit.kernels.lesson import Lesson
from nerfkit.ranks import ALONE, Ranks
from nerfkit.render import Model, restore_model
from nerfkit.run import Run, RunError
from nerfkit.scene.scene import Scene
from nerfkit.scene.store import room_for_pictures
from nerfkit.train.align import Alignment, joined
from nerfkit.train.detail import every
from nerfkit.train.exposure import Exposure
from nerfkit.train.later import Told, known
from nerfkit.train.losses import LOSSES, Huber
from nerfkit.train.optim import Optimizer
from nerfkit.train.patches import Detail, PatchLoss, Windows, detail_of, draw, judges_of, share_at
from nerfkit.train.pixels import Patches, Pixels
from nerfkit.train.realign import Realignment
from nerfkit.train.refine import Poses
from nerfkit.train.step import Batch, learn_batch, n_tasks_of, room_of
from nerfkit.types import Met

_HALFWAY = 20.0
"""Distance of the subject in near planes, as scenes are framed."""


@dataclass
class Clock:
    """Where a training stands; all of it is saved with a checkpoint."""

    step: int = 0
    seconds: float = 0.0
    n_rays: int = 0
    n_samples: int = 0
    samples_per_ray: float = 64.0
    """Running mean, from which the number of rays of the next step follows."""

    def count(self, told: Told) -> None:
        """What a step took."""
        self.n_rays += told.n_rays
        self.n_samples += told.n_samples
        self.samples_per_ray = 0.9 * self.samples_per_ray + 0.1 * told.n_samples / told.n_rays

    def progress(self, config: Config) -> float:
        """Share of the training that is done."""
        return self.step / config.train.steps if config.train.steps else self.seconds / config.train.time_budget


@dataclass(frozen=True)
class Step:
    """What came of a training step, beside the gradients."""

    loss: float | Tensor
    """This and the following numbers are still on the device where that is CUDA: see `Later`."""
    squared_error: float | Tensor
    """Its mean over channels and those rays that were drawn from everywhere alike."""
    n_rays: int | Tensor
    """Of about as many as were asked for, those that there was room for."""
    n_samples: int | Tensor
    mets: list[Met]
    """What the rays met, part by part, where the sampler watches."""


@runtime_checkable
class Policy(Protocol):
    """What takes part in each step of a training that knows nothing of it."""

    def before_step(self, training: Training) -> None:
        """Between the gradients, which lie in ``.grad``, and the optimiser's step."""
        ...

    def after_step(self, training: Training) -> None:
        """After the optimiser's step."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        ...

    def load_state_dict(self, state: dict[str, Tensor], training: Training) -> None:
        """The inverse of `state_dict`, of a policy that has seen nothing yet. The model is that of the checkpoint."""
        ...


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
    alignment: Alignment | None
    realignment: Realignment | None
    detail: Detail
    policies: Sequence[Policy] = ()
    ranks: Ranks = ALONE
    """All that go through the same training; each learns a share of every step."""

    @classmethod
    def new(cls, scene: Scene, model: Model, policies: Sequence[Policy] = (), ranks: Ranks = ALONE) -> Training:
        """Before the first step."""
        config = model.config.train
        exposure = Exposure(len(scene.splits["train"]), model.device) if config.exposure else None
        generator = torch.Generator().manual_seed(config.seed)
        poses = Poses(scene.cameras[scene.splits["train"]]) if config.moves_cameras else None
        alignment = Alignment(len(scene.splits["train"]), config.align) if config.align else None
        room = room_for_pictures(model.config.data.memory)
        realignment = Realignment(scene, config.realign, room) if config.realign else None
        pixels, optimizer = Pixels(scene, model.device), Optimizer(model.field, config)
        return cls(
            model,
            pixels,
            optimizer,
            generator,
            Clock(),
            exposure,
            poses,
            alignment,
            realignment,
            detail_of(config),
            policies,
            ranks,
        )

    @property
    def n_rays(self) -> int:
        """Rays whose samples fill a step, as far as is known."""
        n_samples = self.model.config.train.samples_per_step
        return min(max(round(n_samples / max(self.clock.samples_per_ray, 1.0)), 64), n_samples)

    def learn(self, n_rays: int) -> Step:
        """Draw rays and leave the gradients of all parameters in ``.grad``."""
        model, pixels, exposure, config = self.model, self.pixels, self.exposure, self.model.config.train
        share = share_at(self.clock.step, self.clock.progress(model.config), model.config)
        drawn = draw(pixels, n_rays, share, config, self.generator)
        n_rays = len(drawn.picked)
        jitter = sent(torch.rand(n_rays, generator=self.generator), model.device)
        backdrops = pixels.background(drawn.n_draws, self.generator)
        rays, background = pixels.rays(drawn.picked, model.frame), drawn.each(backdrops)
        sky = model.field.behind(rays.rays_d) if pixels.scene.has_sky else None
        if pixels.scene.background == "sky":
            background = sky.detach()
        truth = pixels.colors(drawn.picked, background)
        if exposure is not None:
            view, photograph = pixels.views(drawn.picked), truth
            truth = photograph / exposure.gains(self.clock.step)[view]
        loss, reach = LOSSES[config.loss], config.gradient_reach * model.frame.near_plane * model.frame.scale
        halfway = _HALFWAY * model.frame.near_plane * model.frame.scale
        room = room_of(config.samples_per_step, model.device)
        limits = (config.early_stop, reach, room, config.distortion / n_rays, halfway)
        lesson = Lesson(truth, loss.delta, loss.factor / (3 * n_rays), *limits)
        windows = self._windows(drawn.patches, backdrops[len(drawn.singles) :])
        n_tasks = n_tasks_of(config.samples_per_step, model.device, self.ranks.size)
        weight = config.high_frequency * lesson.factor
        patch_loss = PatchLoss(Huber(lesson.delta, lesson.factor), self.detail, weight, config.patch_share)
        judges = judges_of(drawn, windows, model.field.head, truth, patch_loss, n_tasks)
        learned = learn_batch(model, Batch(rays, jitter, background, lesson, judges), self.ranks)
        if windows is not None:
            self.alignment.observe(drawn.patches.views, joined([judge.found for judge in judges]))
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
        field, more = model.field, [one.g_more for one in learned if one.g_more]
        field.set_gradients(sum((one.g_weights for one in learned[1:]), learned[0].g_weights))
        for i, weight in enumerate(field.head_parameters()):
            weight.grad = sum((parts[i] for parts in more), torch.zeros_like(weight))
        # Rays that were sent where there is most to be wrong about are no sample of the pictures.
        fair = torch.cat([~every(config.detail_share, len(drawn.singles)), torch.ones(n_rays - len(drawn.singles)) > 0])
        share = sent(fair / fair.sum(), model.device)
        error = known((share * (rgb - truth).square().mean(1)).sum())
        mets = [one.met for one in learned if one.met is not None]
        told = (sum(getattr(one, name) for one in learned) for name in ("n_rays", "n_samples"))
        return Step(sum(one.loss for one in learned), error, *told, mets)

    def _windows(self, patches: Patches | None, backdrops: Float[Tensor, "n 3"]) -> Windows | None:
        """What is about patches in their photographs, if they are to be laid where they fit."""
        config = self.model.config.train
        if patches is None or self.alignment is None:
            return None
        side = patches.size + 2 * config.align
        around = patches.pixels(config.align)
        truth = self.pixels.colors(around, backdrops.repeat_interleave(side**2, 0)).view(-1, side, side, 3)
        if self.exposure is not None:
            truth = truth / self.exposure.gains(self.clock.step)[patches.views][:, None, None]
        return Windows(truth, patches.inside(config.align).to(truth.device), config.offset_weight)

    def refine(self) -> dict[str, Any] | None:
        """Lay photographs and cameras where they fit, if that is asked for and due; what came of it, for the log."""
        clock, progress = self.clock, self.clock.progress(self.model.config)
        if self.realignment is not None:
            bent = self.realignment.update(progress, clock.n_rays, self.model, self.pixels)
            if bent is not None:
                return {"step": clock.step, "seconds": clock.seconds, "realignment": bent}
        if self.poses is None:
            return None
        if self.alignment is not None and self.alignment.is_due(progress):
            self.poses.turn(self.alignment.take(), self.model, self.pixels)
        if not self.model.config.train.poses:
            return None
        gains = None if self.exposure is None else self.exposure.gains(self.clock.step)
        found = self.poses.update(progress, clock.n_rays, self.model, self.pixels, gains)
        return None if found is None else {"step": clock.step, "seconds": clock.seconds, "poses": found}

    def warm_up(self) -> None:
        """Compile every kernel by two steps whose result is thrown away."""
        model = self.model
        before = {name: value.clone() for name, value in model.sampler.state_dict().items()}
        train = model.config.train
        for clock in (Clock(), Clock(4 * train.steps, train.time_budget)):  # at the end of a training there are patches
            generator = torch.Generator().manual_seed(0)
            replace(self, clock=clock, generator=generator, exposure=None, alignment=None).learn(64)
        model.sampler.load_state_dict(before)
        Optimizer(model.field, train).step(0.0)
        with torch.no_grad():
            model.field.density(torch.zeros(1024, 3, device=model.device))

    def save(self, run: Run) -> None:
        """Write a checkpoint: all ranks must, and that of the first is kept."""
        clock = self.clock
        self.model.sampler.share(self.ranks)
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
        if self.alignment is not None:
            tensors |= self.alignment.state_dict()
            run.log({"step": clock.step, "seconds": clock.seconds, "alignment": self.alignment.record()})
        if self.realignment is not None:
            tensors |= self.realignment.state_dict()
        for i, policy in enumerate(self.policies):
            tensors |= {f"policy.{i}.{name}": value for name, value in policy.state_dict().items()}
        field, sampler = dict(self.model.field.state_dict()), self.model.sampler.state_dict()
        run.save_checkpoint(clock.step, field, sampler, tensors, state)

    def restore(self, run: Run) -> None:
        """Go back to a run's newest checkpoint."""
        checkpoint = run.load_checkpoint()
        restore_model(self.model, checkpoint)
        tensors = dict(checkpoint.optimizer)
        self.generator.set_state(tensors.pop("generator"))
        if self.exposure is not None:
            sums = tensors.pop("exposure")
            if "begun_with" in run.provenance:
                self.exposure.take_up(sums)
            else:
                self.exposure.sums.copy_(sums)
        if self.poses is not None:
            self.poses.load_state_dict({name: tensors.pop(name) for name in self.poses.state_dict()})
            self.pixels.look_from(self.poses.c2w)
        if self.alignment is not None:
            self.alignment.load_state_dict({name: tensors.pop(name) for name in self.alignment.state_dict()})
        if self.realignment is not None:
            state = {name: tensors.pop(name) for name in self.realignment.state_dict()}
            self.realignment.load_state_dict(state, self.pixels)
        for i, policy in enumerate(self.policies):
            own = [name for name in tensors if name.startswith(f"policy.{i}.")]
            policy.load_state_dict({name.removeprefix(f"policy.{i}."): tensors.pop(name) for name in own}, self)
        if any(name.startswith("policy.") for name in tensors):
            raise RunError(f"{run.path}: was taught by more than its pictures, which does not go on by itself")
        self.optimizer.load_state_dict(tensors)
        for name in vars(self.clock):
            setattr(self.clock, name, checkpoint.state[name])
