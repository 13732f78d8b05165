"""The training loop, to be read from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence

import torch

from nerfkit.config import Config, ConfigError, TrainConfig
from nerfkit.engines import choose_device
from nerfkit.kernels.launch import prepare_cpu
from nerfkit.render import Model, new_model
from nerfkit.run import Run
from nerfkit.sampling.seen import seen_cells
from nerfkit.scene.scene import Scene
from nerfkit.train.later import Later, Told
from nerfkit.train.optim import rate_at
from nerfkit.train.progress import Report
from nerfkit.train.realign import MOST_BENT
from nerfkit.train.refine import MOST_OFF
from nerfkit.train.training import Clock, Policy, Training


def model_of(scene: Scene, config: Config, resume: bool = False) -> Model:
    """An untrained model of a scene. With ``resume`` a checkpoint will tell which cells may be occupied."""
    allowed = None if resume else seen_cells(scene, config.sampler.resolution, _most_off(scene, config.train))
    if choose_device(config.engine).type == "cpu":
        prepare_cpu()
    return new_model(config, scene.frame, allowed)


def _most_off(scene: Scene, config: TrainConfig) -> float:
    """How far off poses may be, as a share of a picture's longer side."""
    longer = float(torch.maximum(scene.cameras.width, scene.cameras.height).min())
    return MOST_OFF if config.poses else max(2 * config.align / longer, MOST_BENT if config.realign else 0.0)


def fit(
    scene: Scene,
    config: Config,
    run: Run | None = None,
    resume: bool = False,
    model: Model | None = None,
    policies: Sequence[Policy] = (),
    training: Training | None = None,
) -> Iterator[Report]:
    """Train a field on a scene; yields a `Report` every ``report_every`` steps and a last one.

    With a run, logs and checkpoints go there, also when the caller stops early by leaving its ``for``; an exception
    inside a step leaves the last checkpoint as it is. ``resume`` continues the run's newest checkpoint. Kernels are
    compiled and a first step is tried before the clock starts. ``model`` is trained if it is given, so that the caller
    can look at it in between; else one of `model_of`. ``policies`` take part in each step, and in checkpoints. A
    ``training`` of that scene goes on from where it stands, with a model, policies and ranks of its own; of several
    ranks each calls this, with the same run, which the first alone writes. Raises ConfigError where the config asks for
    pruning or mining and nothing is there to do it.
    """
    if (config.prune.fraction or config.train.mines) and not (policies or training):
        raise ConfigError("prune.fraction, train.mining: fit does that by policies; see sparsity.pruning.policies_of")
    training = training or Training.new(scene, model or model_of(scene, config, resume), policies)
    model = training.model
    training.warm_up()
    if resume and run is not None:
        training.restore(run)
    clock = training.clock
    tally, later = _Tally(clock), Later()
    saved = clock.seconds
    started = time.perf_counter() - clock.seconds
    try:
        while clock.progress(config) < 1.0:
            rate = rate_at(clock.step, clock.progress(config), config.train)
            learned = training.learn(training.n_rays)
            for policy in training.policies:
                policy.before_step(training)
            training.optimizer.step(rate)
            clock.step += 1
            for policy in training.policies:
                policy.after_step(training)
            if clock.step % config.sampler.update_every == 0:
                model.sampler.share(training.ranks)
            model.sampler.update(clock.step, model.field, learned.mets)
            tally.add(later.add(learned.loss, learned.squared_error, learned.n_rays, learned.n_samples))
            refined = training.refine()
            if refined is not None and run is not None:
                run.log(refined)
            clock.seconds = training.ranks.first(time.perf_counter() - started)  # one clock for all: they end together
            if clock.step % config.train.report_every == 0 or clock.progress(config) >= 1.0:
                tally.add(later.rest())
                report = tally.report(model, rate * config.train.table_lr)
                if run is not None:
                    run.log(vars(report))
                pause = time.perf_counter()
                yield report
                started += time.perf_counter() - pause
            if run is not None and clock.seconds - saved > config.train.checkpoint_every:
                pause = time.perf_counter()
                tally.add(later.rest())
                training.save(run)
                saved = clock.seconds
                started += time.perf_counter() - pause
    except GeneratorExit:  # the caller left its loop, between two steps; what interrupts a step saves nothing
        if run is not None:
            training.save(run)
        raise
    if run is not None:
        training.save(run)


class _Tally:
    """Means and rates since the last report."""

    def __init__(self, clock: Clock):
        self.clock = clock
        self._start()

    def _start(self) -> None:
        clock = self.clock
        self.loss = self.error = 0.0
        self.since = (clock.step, clock.seconds, clock.n_rays, clock.n_samples)

    def add(self, each: Sequence[Told]) -> None:
        """Count what is known of steps, here and on the clock."""
        for told in each:
            self.clock.count(told)
            self.loss += told.loss
            self.error += told.squared_error

    def report(self, model: Model, lr: float) -> Report:
        """What happened since the last report, and start anew."""
        clock = self.clock
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
        self._start()
        return report
