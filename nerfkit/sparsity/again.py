"""A trained model taken up again to be made smaller: less of it, and a while to get used to that."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nerfkit.config import Config, PruneConfig
from nerfkit.render import new_model, restore_model
from nerfkit.run import Run
from nerfkit.scene.scene import Frame, Scene
from nerfkit.sparsity.neurons import narrowed
from nerfkit.sparsity.pruning import policies_of
from nerfkit.sparsity.ratios import PruneError
from nerfkit.train.training import Training

RATE = 0.3
"""Learning rates, in units of those of the first training: what is there is to be mended, not learnt anew."""
ANEW = 1.0
"""The same where parts are gone, and the others have to learn what those knew: lego with half of its neurons wins 0.1
dB by it."""


@dataclass(frozen=True)
class Smaller:
    """What a model is to lose."""

    width: int = 0
    """Neurons that each hidden layer keeps; 0 keeps all."""
    prune: PruneConfig = PruneConfig()
    """What is pruned while it trains on."""
    steps: float = 0.2
    """Further steps, as a share of those that it was trained for."""


def take_up(run: Run, scene: Scene, n_steps: int = 1, rate: float = RATE) -> Training:
    """A run's newest model, to be trained on for ``n_steps``, at ``rate`` times the learning rates of the run.

    The moments of its optimiser are there as well: without them the first steps would move every weight as far as the
    learning rate goes, whatever its gradient. Raises RunError, or PruneError for a run in tiles.
    """
    _check_whole(run)
    checkpoint = run.load_checkpoint()
    model = new_model(further(run.config, n_steps, rate), Frame.from_dict(run.frame))
    restore_model(model, checkpoint)
    training = Training.new(scene, model)
    training.clock.samples_per_ray = checkpoint.state["samples_per_ray"]
    training.optimizer.load_state_dict(checkpoint.optimizer)
    if training.exposure is not None:
        training.exposure.take_up(checkpoint.optimizer["exposure"])
    training.warm_up()
    return training


def steps_of(run: Run, share: float) -> int:
    """A share of a run's steps, at least one. Raises PruneError where it is no such share, or the run in tiles."""
    _check_whole(run)
    if not 0.0 < share <= 10.0:
        raise PruneError(f"{share:g} of the run's steps: expected a share above 0, 10 at most")
    return max(math.ceil(share * run.load_checkpoint().step), 1)


def _check_whole(run: Run) -> None:
    if run.config.train.tiles:
        raise PruneError(f"{run.path}: is in tiles; take one of them, such as {run.path}/tiles/1")


def further(config: Config, n_steps: int, rate: float) -> Config:
    """The settings of a training that goes on with a trained model, at poses and photographs as they are now."""
    train, sampler = config.train, replace(config.sampler, warmup_steps=0)
    rates = {"table_lr": rate * train.table_lr, "network_lr": rate * train.network_lr}
    warmup = min(train.warmup_steps, n_steps // 10)
    train = replace(train, steps=n_steps, warmup_steps=warmup, poses=False, align=0, realign=0, **rates)
    return replace(config, train=train, sampler=sampler)


def begin_smaller(run: Run, scene: Scene, smaller: Smaller, out: Path, command: list[str]) -> tuple[Run, Training]:
    """Begin a run in the folder ``out`` whose model is that of ``run`` with less in it, which is its first checkpoint.

    Args:
        scene: of the run (`assess.scene_of`).
        command: the words of the command line.

    Returns the new run and its training. Raises PruneError, and RunError where the
    folder cannot be used; nothing was written then.
    """
    training = take_up(run, scene, steps_of(run, smaller.steps), ANEW)
    if smaller.width:
        training = narrowed(training, smaller.width)
    model = replace(training.model, config=replace(training.model.config, prune=smaller.prune))
    training = replace(training, model=model, policies=policies_of(model.config, model.field))
    # Of a tile, the frame is not that of the scene.
    made = Run.create(out, model.config, scene.source, scene.name, run.frame, scene.fingerprint, run.splits, command)
    known: dict[str, Any] = {"begun_with": {"run": run.path.name, "step": run.load_checkpoint().step}}
    if run.config.train.moves_cameras or "poses" in run.provenance:
        known["poses"] = scene.cameras.c2w[scene.splits["train"]].tolist()
    if run.provenance.get("marked"):
        known["marked"] = True
    made.note(known)
    training.save(made)
    return made, training
