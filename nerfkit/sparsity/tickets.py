"""Lottery tickets: train, prune the smallest weights, go back to where they were early on, and train again.

Iterative magnitude pruning with rewinding (Frankle and Carbin 2019; Frankle et al. 2020, "Linear Mode Connectivity and
the Lottery Ticket Hypothesis"). A ticket costs a whole training for each round: each says how many steps were taken for
it in all, and has two controls, without which it says little: other first weights in the same places, and the same
weights in other places.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from nerfkit.config import Config, PruneConfig
from nerfkit.fields.hash import HashField
from nerfkit.render import Model
from nerfkit.scene.scene import Scene
from nerfkit.sparsity.criteria import chains_of, smallest_pruned
from nerfkit.sparsity.masks import Masks, draw, random_scores, with_paths
from nerfkit.sparsity.pruning import Pruning
from nerfkit.sparsity.spaces import parts_of
from nerfkit.train.loop import fit, model_of
from nerfkit.train.training import Clock, Training

Control = Literal["none", "reinit", "reprune"]


@dataclass(frozen=True)
class Ticket:
    """What a round found."""

    round: int
    """0 is the dense field."""
    model: Model
    """Trained to the end."""
    masks: Masks
    """Of its networks' weights."""
    n_steps: int
    """Taken in all to come by it, those of the rounds before included."""


class _Early:
    """A `Policy` that remembers how things stood after so many steps."""

    def __init__(self, step: int):
        self.step = step
        self.field: dict[str, Tensor] = {}
        self.sampler: dict[str, Tensor] = {}
        self.clock = Clock()

    def before_step(self, training: Training) -> None:
        """Take it down, before the step that comes after."""
        if training.clock.step == self.step:
            self.field = {name: p.detach().clone() for name, p in training.model.field.state_dict().items()}
            self.sampler = {name: value.clone() for name, value in training.model.sampler.state_dict().items()}
            self.clock = replace(training.clock)

    def after_step(self, training: Training) -> None:
        """Nothing."""

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing: rounds are not interrupted."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor], training: Training) -> None:
        """Nothing."""


class _Held(Pruning):
    """Masks that are there from the start and stay."""

    def __init__(self, masks: Masks, field: HashField):
        super().__init__(PruneConfig(fraction=0.5, begin=0.0), field, 0)
        self._given = masks

    def before_step(self, training: Training) -> None:
        """Put the masks on before the first step; hold what they prune."""
        if self.masks is None:
            self.put(self._given, training)
        super().before_step(training)


def tickets(
    scene: Scene, config: Config, n_rounds: int, share: float = 0.2, rewind: int = 0, control: Control = "none"
) -> Iterator[Ticket]:
    """The dense field, then a ticket of each round, each with ``share`` of the weights less than the one before.

    Args:
        config: of each training; its steps are those of one.
        rewind: step to which the weights, the table and the sampler go back; 0 is the beginning.
        control: ``reinit`` gives the networks other first weights, ``reprune`` moves what stays to other places of its
            layer, both in each round's ticket, which was found without.

    Raises PruneError where a round would leave a layer or an output with nothing.
    """
    config = replace(config, prune=PruneConfig())
    model, early = model_of(scene, config), _Early(rewind)
    for _ in fit(scene, config, model=model, policies=[early]):
        pass
    parts = parts_of(model.field, "weights")
    masks = {part.name: torch.ones(part.shape, dtype=torch.bool) for part in parts}
    n_steps = config.train.steps
    yield Ticket(0, model, masks, n_steps)
    for round_ in range(1, n_rounds + 1):
        masks = smallest_pruned(model.field, parts, masks, share)
        # A control says what the ticket of this round would be worth otherwise; the next is found in the ticket itself.
        if control == "none" or round_ < n_rounds:
            model = _trained(scene, config, early, masks)
        worn = _moved(masks, round_, model.field) if control == "reprune" else masks
        seed = config.train.seed + 1000 * round_ if control == "reinit" else None
        shown = model if control == "none" else _trained(scene, config, early, worn, seed)
        n_steps += config.train.steps - early.clock.step
        yield Ticket(round_, shown, worn, n_steps)


def _trained(scene: Scene, config: Config, early: _Early, masks: Masks, seed: int | None = None) -> Model:
    """A model trained from where things stood early on, under masks; with other first weights, if there is a seed."""
    model = model_of(scene, config)
    model.field.load_state_dict(early.field)
    if seed is not None:
        _draw_anew(model.field, seed)
    model.sampler.load_state_dict(early.sampler)
    training = Training.new(scene, model, [_Held(masks, model.field)])
    for _ in fit(scene, config, training=replace(training, clock=replace(early.clock))):
        pass
    return model


def _moved(masks: Masks, seed: int, field: HashField) -> Masks:
    scores = random_scores({name: tuple(mask.shape) for name, mask in masks.items()}, seed)
    return with_paths(draw(scores, {name: int(mask.sum()) for name, mask in masks.items()}), scores, chains_of(field))


def _draw_anew(field: HashField, seed: int) -> None:
    """Give the networks other first weights."""
    other = HashField(field.config, field.table.device, seed)
    with torch.no_grad():
        for name, w in other.named_parameters():
            if "_network." in name:
                field.get_parameter(name).copy_(w)
