"""What a weight is worth: criteria at any moment of a training, the gradients through the renderer.

Scores are of a parameter's numbers, the larger the rather they stay; `spaces` sums them to units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from nerfkit.fields.hash import HashField
from nerfkit.sparsity.masks import Masks, counts_of_all, draw, largest, with_paths
from nerfkit.sparsity.ratios import PruneError, n_kept
from nerfkit.sparsity.spaces import Part, gathered
from nerfkit.train.training import Training

N_BATCHES = 8
"""Steps' worth of rays of which gradients are the sum."""
_SEED = 20
_DIFFERENCE = 1e-2
"""Length of the way on which the change of a gradient is taken, in units of the weights' own length."""
_N_ROUNDS = 100
"""In which SynFlow prunes: with one alone it may cut off a layer (Tanaka et al. 2020, section 6)."""

Gradients = dict[str, Tensor]


def chains_of(field: HashField) -> dict[tuple[str, ...], int]:
    """Names of the matrices of each network, and how many of its outputs must hear something: density, and colour."""
    names = [name for name, _ in field.named_parameters()]
    density = tuple(name for name in names if name.startswith("density_network."))
    return {density: 1, tuple(name for name in names if name.startswith("color_network.")): 3}


def smallest_pruned(field: HashField, parts: Sequence[Part], masks: Masks, share: float) -> Masks:
    """Masks without the ``share`` of the units still there whose numbers are smallest, of all layers together."""
    sizes = gathered(
        list(parts), {part.parameter: field.get_parameter(part.parameter).detach().abs() for part in parts}
    )
    scores = {name: size.double().masked_fill(~masks[name], -1.0) for name, size in sizes.items()}
    counts = counts_of_all(scores, n_kept(sum(int(mask.sum()) for mask in masks.values()), share))
    return with_paths(draw(scores, counts), scores, chains_of(field))


def gradients(training: Training, n_batches: int = N_BATCHES, seed: int = _SEED) -> Gradients:
    """The loss's gradient with respect to all parameters, summed over rays that are the same for each call and seed.

    The training itself is left as it was, gradients of its coming step too.
    """
    field, total = training.model.field, {}
    with _apart(training, seed) as apart:
        for _ in range(n_batches):
            apart.learn(training.n_rays)
            for name, p in field.named_parameters():
                if p.grad is not None:
                    total[name] = total[name] + p.grad if name in total else p.grad.clone()
            field.table.grad.zero_()
    return total


def error_now(training: Training, n_batches: int = 1, seed: int = _SEED) -> float:
    """Mean squared error of rays that are the same for each call and seed; the training is left as it was."""
    with _apart(training, seed) as apart:
        return sum(apart.learn(training.n_rays).squared_error for _ in range(n_batches)) / n_batches


@contextmanager
def _apart(training: Training, seed: int) -> Iterator[Training]:
    """The same training with rays of its own, without gradients; those that there were come back."""
    field = training.model.field
    if field.table.grad is None:
        field.table.grad = torch.zeros_like(field.table)
    kept = {name: p.grad.clone() for name, p in field.named_parameters() if p.grad is not None}
    generator = torch.Generator().manual_seed(seed)
    for p in field.parameters():
        p.grad = p.grad if p is field.table else None
    field.table.grad.zero_()
    try:
        yield replace(training, generator=generator, exposure=None, alignment=None)
    finally:
        for name, p in field.named_parameters():
            if p is field.table:
                p.grad.copy_(kept[name])
            else:
                p.grad = kept.get(name)


@contextmanager
def exactly(field: HashField) -> Iterator[None]:
    """Let the networks compute in single precision: differences of gradients drown in the rounding of bfloat16."""
    before, field.dtype = field.dtype, torch.float32
    try:
        yield
    finally:
        field.dtype = before


def magnitude(training: Training, fraction: float) -> Gradients:
    """``|w|``."""
    return {name: p.detach().abs() for name, p in training.model.field.named_parameters()}


def snip(training: Training, fraction: float) -> Gradients:
    """``|w dL/dw|``: how much the loss hears of a weight (Lee et al. 2019, equation 6)."""
    found, field = gradients(training), training.model.field
    return {name: (field.get_parameter(name).detach() * g).abs() for name, g in found.items()}


def grasp(training: Training, fraction: float) -> Gradients:
    """``w (H g)``: what stays keeps the gradient's norm (Wang et al. 2020, equation 8, sign turned; no temperature).

    Of the networks' weights alone; H g is the difference of two gradients on the same rays, a step along g apart.
    """
    field = training.model.field
    weights = {name: p for chain in chains_of(field) for name, p in _named(field, chain)}
    before = {name: p.detach().clone() for name, p in weights.items()}
    length = torch.cat([w.reshape(-1) for w in before.values()]).norm()
    with exactly(field):
        g = gradients(training)
        norm = torch.cat([g[name].reshape(-1) for name in weights]).norm().clamp(min=1e-30)
        ends = []
        for sign in (1.0, -1.0):
            _put(weights, {name: w + sign * _DIFFERENCE * length / norm * g[name] for name, w in before.items()})
            ends.append(gradients(training))
        _put(weights, before)
    scale = norm / (2.0 * _DIFFERENCE * length)
    return {name: w * (ends[0][name] - ends[1][name]) * scale for name, w in before.items()}


@torch.no_grad()
def _put(weights: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    for name, p in weights.items():
        p.copy_(values[name])


def synflow(training: Training, fraction: float) -> Gradients:
    """``w dR/dw`` with R the sum of the outputs for inputs of one and weights |w| (Tanaka et al. 2020, equation 2).

    No data take part. Pruned in a hundred rounds, each a little, by the scores of what is left; in double precision.
    """
    field = training.model.field
    names = [name for chain in chains_of(field) for name in chain]
    weights = [field.get_parameter(name).detach().cpu().double().abs() for name in names]
    masks = [torch.ones_like(w, dtype=torch.bool) for w in weights]
    n = sum(w.numel() for w in weights)
    for round_ in range(1, _N_ROUNDS + 1):
        scores = _flow(field, [w * mask for w, mask in zip(weights, masks, strict=True)])
        if round_ < _N_ROUNDS:
            count = n_kept(n, 1.0 - (1.0 - fraction) ** (round_ / _N_ROUNDS))
            joined = largest(torch.cat([score.reshape(-1) for score in scores]), count)
            masks = [m.view_as(w) for m, w in zip(joined.split([w.numel() for w in weights]), weights, strict=True)]
    return dict(zip(names, scores, strict=True))


def _flow(field: HashField, weights: Sequence[Tensor]) -> list[Float[Tensor, "n_out n_in"]]:
    """SynFlow's scores of non-negative matrices, those of the density network first."""
    weights = [w.requires_grad_() for w in weights]
    n = len(field.density_network.weights)
    with torch.enable_grad():
        x = torch.ones(weights[0].shape[1], dtype=torch.float64)
        for w in weights[:n]:
            x = w @ x
        density, x = x[0], torch.cat([x, torch.ones(field.config.sh_degree**2, dtype=torch.float64)])
        for w in weights[n:]:
            x = w @ x
        flows = torch.autograd.grad(density + x.sum(), weights)
    return [(w * g).detach() for w, g in zip(weights, flows, strict=True)]


def _named(field: HashField, names: Sequence[str]) -> list[tuple[str, Tensor]]:
    return [(name, field.get_parameter(name)) for name in names]


def score(training: Training, criterion: str, fraction: float, parameters: Sequence[str]) -> Gradients:
    """Scores of these parameters' numbers by a criterion of `CRITERIA`. Raises PruneError where it has none for one."""
    found = CRITERIA[criterion](training, fraction)
    missing = [name for name in parameters if name not in found]
    if missing:
        raise PruneError(f"prune.score: {criterion} says nothing about {missing[0]}; take magnitude or random")
    return {name: found[name] for name in parameters}


CRITERIA: dict[str, Callable[[Training, float], Gradients]] = {
    "magnitude": magnitude,
    "snip": snip,
    "grasp": grasp,
    "synflow": synflow,
}
"""What the units are worth, of a training and the share that is to go."""
