"""Masks that are searched for: by scores while the weights stay as they are, or by trying some at random.

A score for each weight says whether it is in its layer's mask, which holds the largest. Weights do not move, scores do,
along the gradient that would have moved the weight, "straight through" the choice: dL/ds = w dL/d(w m). In a trained
field (Zhang et al. 2021, "Lottery Jackpots Exist in Pre-trained Models") scores begin at 1 where the magnitude is among
the largest and at 0.99 elsewhere, so that one file of weights serves many sizes; in one of random signs (Ramanujan et
al. 2020, "What's Hidden in a Randomly Weighted Neural Network?") they begin anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nerfkit.fields.hash import HashField
from nerfkit.kernels.adam import Adam
from nerfkit.sparsity.criteria import chains_of, error_now
from nerfkit.sparsity.masks import Masks, Scores, counts_of_all, draw, largest, random_scores, with_paths
from nerfkit.sparsity.ratios import n_kept
from nerfkit.sparsity.spaces import on_parameters, parts_of
from nerfkit.train.training import Training

RATE = 0.01
"""Of the scores; those of a jackpot begin a hundredth apart."""


class MaskSearch:
    """A `Policy` that moves masks over the networks' weights; in a ``frozen`` field nothing else is learnt."""

    def __init__(
        self, field: HashField, scores: Scores, counts: Mapping[str, int], restricted: bool = False, frozen: bool = True
    ):
        """``counts`` of each matrix stay; ``restricted`` lets of the swaps that scores ask for only a share happen in
        a step, from all to none along half a cosine."""
        self.counts, self.restricted, self.frozen = dict(counts), restricted, frozen
        self.weights = {part.name: field.get_parameter(part.name) for part in parts_of(field, "weights")}
        self._still = {name: w.detach().clone() for name, w in self.weights.items()}
        self.scores = {name: nn.Parameter(score.to(self._still[name])) for name, score in scores.items()}
        self._adam, self._n = Adam(list(self.scores.values())), 0
        self._chains = chains_of(field)
        self.masks = with_paths(draw(self._scores(), self.counts), self._scores(), self._chains)
        self._wear()

    def before_step(self, training: Training) -> None:
        """Move the scores, and let the optimiser move nothing that is frozen."""
        field = training.model.field
        for name, w in self.weights.items():
            self.scores[name].grad = self._still[name] * w.grad
            w.grad = torch.zeros_like(w)
        self._n += 1
        self._adam.step(self._n, RATE)
        if self.frozen:
            field.table.grad.zero_()
            for parameter in field.small_parameters():
                parameter.grad = None

    def after_step(self, training: Training) -> None:
        """Move the masks."""
        progress = min(training.clock.progress(training.model.config), 1.0)
        share = 0.5 * (1.0 + math.cos(math.pi * progress)) if self.restricted else 1.0
        scores = self._scores()
        wanted = draw(scores, self.counts)
        for name, mask in self.masks.items():
            outs, ins = mask & ~wanted[name], wanted[name] & ~mask
            n = math.ceil(share * int(outs.sum()))
            worst = largest((-scores[name]).masked_fill(~outs, -math.inf), n)
            best = largest(scores[name].masked_fill(~ins, -math.inf), n)
            self.masks[name] = mask & ~worst | best
        self.masks = with_paths(self.masks, scores, self._chains)
        self._wear()

    def state_dict(self) -> dict[str, Tensor]:
        """Scores and masks; their moments begin anew."""
        masks = {f"mask.{name}": mask for name, mask in self.masks.items()}
        return {**{f"score.{name}": score.detach() for name, score in self.scores.items()}, **masks}

    def load_state_dict(self, state: dict[str, Tensor], training: Training) -> None:
        """The inverse of `state_dict`."""
        with torch.no_grad():
            for name, score in self.scores.items():
                score.copy_(state[f"score.{name}"])
        self.masks = {name: state[f"mask.{name}"].bool() for name in self.masks}
        self._wear()

    def _scores(self) -> dict[str, Tensor]:
        return {name: score.detach().cpu() for name, score in self.scores.items()}

    def _wear(self) -> None:
        with torch.no_grad():
            for name, w in self.weights.items():
                w.copy_(self._still[name] * self.masks[name].to(w.device))


def jackpot(field: HashField, fraction: float, restricted: bool = False) -> MaskSearch:
    """The search in a trained field, for masks without a ``fraction`` of its weights; magnitudes say how many of each
    layer go."""
    sizes = {part.name: field.get_parameter(part.name).detach().abs() for part in parts_of(field, "weights")}
    counts = counts_of_all(sizes, n_kept(sum(size.numel() for size in sizes.values()), fraction))
    scores = {name: 0.99 + 0.01 * largest(size, counts[name]).float() for name, size in sizes.items()}
    return MaskSearch(field, scores, counts, restricted)


def popup(field: HashField, fraction: float, seed: int) -> MaskSearch:
    """The search in networks that are never trained: weights of one size and random signs. The table is."""
    weights = {part.name: field.get_parameter(part.name) for part in parts_of(field, "weights")}
    shapes = {name: tuple(w.shape) for name, w in weights.items()}
    signs = random_scores(shapes, seed)
    with torch.no_grad():
        for name, w in weights.items():
            w.copy_(((signs[name] > 0.5) * 2.0 - 1.0).float() * math.sqrt(2.0 / ((1.0 - fraction) * w.shape[1])))
    counts = {name: n_kept(w.numel(), fraction) for name, w in weights.items()}
    return MaskSearch(field, random_scores(shapes, seed + 1), counts, frozen=False)


def best_of_random(training: Training, fraction: float, n_tried: int, seed: int) -> tuple[Masks, list[float]]:
    """Of ``n_tried`` random choices of neurons the one whose field has the smallest error now, and all errors: what
    every search must beat with as many evaluations (arXiv 2403.08265 finds that many do not)."""
    field = training.model.field
    parts = parts_of(field, "neurons")
    shapes = {part.name: part.shape for part in parts}
    kept = {part.name: field.get_parameter(part.parameter).detach().clone() for part in parts}
    tried: list[tuple[float, Masks]] = []
    for number in range(n_tried):
        masks = draw(random_scores(shapes, seed + number), {n: n_kept(s[0], fraction) for n, s in shapes.items()})
        with torch.no_grad():
            for name, mask in on_parameters(field, parts, masks).items():
                field.get_parameter(name).mul_(mask)
        tried.append((error_now(training), masks))
        with torch.no_grad():
            for part in parts:
                field.get_parameter(part.parameter).copy_(kept[part.name])
    return min(tried, key=lambda one: one[0])[1], [error for error, _ in tried]
