"""Searches of masks for `pruning.py`, each within as many steps in all as any other training there takes.

What a search looks at counts: a round of tickets is a training, a step of a jackpot is one, and so is a look at one of
many random choices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from nerfkit.config import Config, PruneConfig
from nerfkit.fields.hash import HashField
from nerfkit.render import Model
from nerfkit.scene.scene import Scene
from nerfkit.sparsity.again import further
from nerfkit.sparsity.pruning import Pruning
from nerfkit.sparsity.search import best_of_random, jackpot, popup
from nerfkit.sparsity.shape import DEPTHS, search_shapes
from nerfkit.sparsity.tickets import Control, tickets
from nerfkit.train.loop import fit, model_of
from nerfkit.train.training import Training

N_ROUNDS = 3
"""Of tickets."""
N_TRIED = 32
"""Random choices of neurons."""
CHOSEN_AT = 0.02
"""Share of the steps before a random choice, as before other masks are drawn."""

Search = Callable[[Scene, Config, float], Model]
"""A scene, a config with the steps of all, and the share of the weights that goes -> the best model that was found."""


def shorter(config: Config, steps: int) -> Config:
    """The same with so many steps."""
    return replace(config, train=replace(config.train, steps=steps, report_every=steps))


def run(scene: Scene, config: Config, training: Training) -> None:
    """Train to the end."""
    for _ in fit(scene, config, training=training):
        pass


def ticket(scene: Scene, config: Config, fraction: float, rewind: float, control: Control = "none") -> Model:
    """The last of three rounds, each back to a ``rewind`` share of a training; all of them, and the dense one, are as
    many steps together as others take for one."""
    steps = round(config.train.steps / (1 + N_ROUNDS * (1 - rewind)))
    share = 1 - (1 - fraction) ** (1 / N_ROUNDS)
    (*_, last) = tickets(scene, shorter(config, steps), N_ROUNDS, share, round(rewind * steps), control)
    return last.model


def jackpots(scene: Scene, config: Config, fraction: float, restricted: bool) -> Model:
    """A dense field after half of the steps, and then only its masks move."""
    half = shorter(config, config.train.steps // 2)
    model = model_of(scene, half)
    run(scene, half, Training.new(scene, model))
    search = jackpot(model.field, fraction, restricted)
    again = further(half, half.train.steps, 1.0)
    run(scene, again, Training.new(scene, replace(model, config=again), [search]))
    return model


def signs(scene: Scene, config: Config, fraction: float) -> Model:
    """Networks of random signs, of which masks are learnt, and the table."""
    model = model_of(scene, config)
    run(scene, config, Training.new(scene, model, [popup(model.field, fraction, config.train.seed)]))
    return model


class _Chosen(Pruning):
    """The best of many random choices of neurons, once the training knows a little."""

    def __init__(self, config: Config, fraction: float, field: HashField):
        neurons = PruneConfig(fraction=fraction, space="neurons", begin=1.0)
        super().__init__(neurons, field, config.train.seed)
        self._fraction = fraction

    def before_step(self, training: Training) -> None:
        """Choose, when it is time to; hold what was not chosen."""
        if self.masks is None and training.clock.progress(training.model.config) >= CHOSEN_AT:
            masks, _ = best_of_random(training, self._fraction, N_TRIED, self.seed)
            self.put(masks, training)
        super().before_step(training)


class Coarse(Pruning):
    """The coarsest levels of the table held at zero from the first step on: what photographs share goes, and what can
    remember each of them stays. Of this a collapse while noise is still learnt was to be expected."""

    def __init__(self, config: Config, fraction: float, field: HashField):
        super().__init__(PruneConfig(fraction=fraction, space="levels", begin=0.0), field, config.train.seed)
        self._fraction = fraction

    def before_step(self, training: Training) -> None:
        """Take them out; hold them."""
        if self.masks is None:
            (part,) = self.parts
            n = part.shape[0]
            self.put({part.name: torch.arange(n) >= round(self._fraction * n)}, training)
        super().before_step(training)


def random_search(scene: Scene, config: Config, fraction: float) -> Model:
    """The best of 32 random choices of neurons, trained on; each look at one counts as a step."""
    config = shorter(config, config.train.steps - N_TRIED)
    model = model_of(scene, config)
    run(scene, config, Training.new(scene, model, [_Chosen(config, fraction, model.field)]))
    return model


def shape(scene: Scene, config: Config, fraction: float) -> Model:
    """Widths and a depth with as many weights as are left, found in half of the steps, trained in the other half."""
    half = config.train.steps // 2
    found = search_shapes(scene, shorter(config, half // len(DEPTHS)), 1 - fraction)[0]
    config = replace(shorter(config, half), field=found.field)
    model = model_of(scene, config)
    run(scene, config, Training.new(scene, model))
    return model


SEARCHES: dict[str, Search] = {
    "ticket-0": partial(ticket, rewind=0.0),
    "ticket-5": partial(ticket, rewind=0.05),
    "ticket-5-reinit": partial(ticket, rewind=0.05, control="reinit"),
    "ticket-5-reprune": partial(ticket, rewind=0.05, control="reprune"),
    "jackpot": partial(jackpots, restricted=False),
    "jackpot-restricted": partial(jackpots, restricted=True),
    "signs": signs,
    "random-search": random_search,
    "shape": shape,
}
