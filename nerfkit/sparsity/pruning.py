"""Pruning in the course of a training: masks that are drawn once, little by little, or exchanged, and then held."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nerfkit.config import Config, PruneConfig
from nerfkit.fields.hash import HashField
from nerfkit.sparsity.criteria import chains_of, score
from nerfkit.sparsity.masks import Masks, counts_of_all, draw, largest, pack, random_scores, unpack, with_paths
from nerfkit.sparsity.mining import Mining
from nerfkit.sparsity.ratios import RATIOS, n_kept, whole_counts
from nerfkit.sparsity.spaces import Part, gathered, on_parameters, parts_of
from nerfkit.train.training import Policy, Training

EXCHANGED = 0.3
"""Share of the units that stay which is exchanged at first; it falls along half a cosine (Evci et al. 2020)."""

YOUNG = 0.1
"""Share of a training before which a field knows so little that what stays of it may be lengthened."""


def policies_of(config: Config, field: HashField) -> list[Policy]:
    """What takes part in a training of this config, of that field. Raises PruneError where its units are not there."""
    mining = [Mining(config.train)] if config.train.mines else []
    return [*mining, *([Pruning(config.prune, field, config.train.seed)] if config.prune.fraction else [])]


def draw_masks(training: Training, parts: Sequence[Part], config: PruneConfig, seed: int) -> Masks:
    """Masks of a field as it is now, of which ``config.fraction`` of the units are False, exactly.

    Raises PruneError where a layer or an output would be left with nothing.
    """
    shapes, field = {part.name: part.shape for part in parts}, training.model.field
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    scores, total = random_scores(shapes, seed), n_kept(sum(sizes.values()), config.fraction)
    if config.score != "random":
        parameters = list(dict.fromkeys(part.parameter for part in parts))
        scores = gathered(parts, score(training, config.score, config.fraction, parameters))
    if config.ratio == "score":
        counts = counts_of_all(scores, total)
    else:
        shares = RATIOS[config.ratio](list(shapes.values()), total / sum(sizes.values()))
        counts = dict(zip(sizes, whole_counts(list(sizes.values()), shares, total), strict=True))
    if config.shuffle:
        scores = random_scores(shapes, seed)
    masks = draw(scores, counts)
    return with_paths(masks, scores, chains_of(field)) if config.space == "weights" else masks


def lengthen(field: HashField, masks: Masks) -> None:
    """Make the weights of each neuron longer by sqrt(n_in / n_left), so that it hears as much from what is left of its
    inputs as it did from all (Evci et al. 2022, "Gradient Flow in Sparse Neural Networks and How Lottery Tickets Win").
    Without that a network that knows nothing yet learns slowly, and a capture is fog until it does."""
    with torch.no_grad():
        for name, mask in masks.items():
            w = field.get_parameter(name)
            w.mul_((mask.shape[1] / mask.sum(1, keepdim=True).clamp(min=1)).sqrt().to(w.device))


class Pruning:
    """A `Policy` that holds what is pruned at zero: its values, its gradients and their moments."""

    def __init__(self, config: PruneConfig, field: HashField, seed: int):
        self.config, self.seed = config, seed
        self.parts = parts_of(field, config.space)
        self.masks: Masks | None = None
        """Of units, once they are drawn."""
        self._on_parameters: dict[str, Tensor] = {}

    def before_step(self, training: Training) -> None:
        """Change the masks where that is due, and let nothing that is pruned move."""
        config, clock = self.config, training.clock
        progress = clock.progress(training.model.config)
        x = min((progress - config.begin) / max(config.end - config.begin, 1e-9), 1.0)
        if progress >= config.begin and (self.masks is None or self._is_due(x, clock.step)):
            if config.schedule == "exchange" and self.masks is not None:
                self.put(self._exchanged(training, x), training)
            else:
                # Quickly at first, while all is still easy to learn anew (Zhu and Gupta 2018, equation 1).
                share = 1.0 - (1.0 - x) ** 3 if config.schedule == "gradual" else 1.0
                now = replace(config, fraction=config.fraction * share)
                masks = draw_masks(training, self.parts, now, self.seed)
                young = progress < YOUNG and training.optimizer.n_steps == clock.step
                if self.masks is None and config.space == "weights" and young:
                    lengthen(training.model.field, masks)
                self.put(masks, training)
        self._hold(training.model.field)

    def after_step(self, training: Training) -> None:
        """Nothing: what had no gradient and no moments has not moved."""

    def put(self, masks: Masks, training: Training) -> None:
        """Take masks of units from now on; what they prune is zero, and what comes back begins at zero."""
        field = training.model.field
        self.masks, self._on_parameters = masks, on_parameters(field, self.parts, masks)
        with torch.no_grad():
            for name, mask in self._on_parameters.items():
                parameter = field.get_parameter(name)
                for tensor in (parameter, *training.optimizer.moments_of(parameter)):
                    tensor.mul_(mask)

    def state_dict(self) -> dict[str, Tensor]:
        """The masks, eight units a byte; nothing before they are drawn."""
        return {name: pack(mask) for name, mask in (self.masks or {}).items()}

    def load_state_dict(self, state: dict[str, Tensor], training: Training) -> None:
        """The inverse of `state_dict`."""
        if state:
            self.masks = {part.name: unpack(state[part.name], part.shape) for part in self.parts}

    def _is_due(self, x: float, step: int) -> bool:
        """Whether masks that were drawn change, at the share x of the way from begin to end."""
        if self.config.schedule == "once" or x < 1.0:
            return self.config.schedule != "once" and step % self.config.every == 0
        n = sum(mask.numel() for mask in self.masks.values())
        n_on = sum(int(mask.sum()) for mask in self.masks.values())
        return self.config.schedule == "gradual" and n_on > n_kept(n, self.config.fraction)

    def _hold(self, field: HashField) -> None:
        if self.masks is not None and not self._on_parameters:
            self._on_parameters = on_parameters(field, self.parts, self.masks)
        for name, mask in self._on_parameters.items():
            gradient = field.get_parameter(name).grad
            if gradient is not None:
                gradient.mul_(mask)

    def _exchanged(self, training: Training, x: float) -> Masks:
        """The smallest units go, and of all others as many come in their place whose gradients are largest."""
        field = training.model.field
        weights, slopes = {}, {}
        for part in self.parts:
            parameter = field.get_parameter(part.parameter)
            weights[part.parameter] = parameter.detach().abs()
            slopes[part.parameter] = parameter.grad.detach().abs()
        sizes, growth = gathered(self.parts, weights), gathered(self.parts, slopes)
        masks, scores = {}, {}
        for name, mask in self.masks.items():
            n_stay = int(mask.sum())
            n_new = min(int(EXCHANGED / 2 * (1 + math.cos(math.pi * x)) * n_stay), mask.numel() - n_stay)
            stay = largest(sizes[name].double().masked_fill(~mask, -1.0), n_stay - n_new)
            masks[name] = stay | largest(growth[name].double().masked_fill(stay, -1.0), n_new)
            scores[name] = torch.where(stay, 1.0 + sizes[name].double(), growth[name].double().tanh())
        return with_paths(masks, scores, chains_of(field)) if self.config.space == "weights" else masks


def sparsity_of(field: HashField, space: str = "weights") -> dict[str, tuple[int, int]]:
    """Of each part of a space, how many units are not all zero, and how many there are.

    Raises PruneError where the field has no such units.
    """
    found = {}
    for part in parts_of(field, space):
        parameter = field.get_parameter(part.parameter).detach().abs()
        units = part.gather(part.of(parameter).cpu())
        found[part.name] = (int((units > 0).sum()), units.numel())
    return found
