"""Neurons taken out of a field's networks, so that it is smaller and faster: no mask is left behind."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerfkit.fields.hash import HashField
from nerfkit.fields.mlp import MLP
from nerfkit.sparsity.criteria import N_BATCHES, gradients
from nerfkit.sparsity.masks import largest
from nerfkit.sparsity.ratios import PruneError
from nerfkit.train.optim import Optimizer
from nerfkit.train.training import Training

WIDTHS = (8, 16, 32, 48, 64, 96, 128)
"""Neurons of a layer that fused kernels like: whole vectors of a processor."""

NETWORKS = ("density_network", "color_network")


def neuron_scores(training: Training, n_batches: int = N_BATCHES) -> dict[str, list[Float[Tensor, " width"]]]:
    """What the hidden neurons of each network are worth, layer by layer: the mean over batches of rays of

        (sum_i w_i dL/dw_i)^2

    over a neuron's inputs i, which without biases is its activation times the slope along it (Molchanov et al. 2019,
    equation 8): the square of what the loss would change by, at first order, were it gone.
    """
    field = training.model.field
    scores = {name: [torch.zeros(len(w)) for w in _hidden(getattr(field, name))] for name in NETWORKS}
    for batch in range(n_batches):
        slopes = gradients(training, 1, batch)
        for name in NETWORKS:
            for i, w in enumerate(_hidden(getattr(field, name))):
                heard = (w.detach() * slopes[f"{name}.weights.{i}"]).sum(1)
                scores[name][i] += heard.cpu() ** 2 / n_batches
    return scores


def narrowed(training: Training, scores: dict[str, list[Float[Tensor, " width"]]], width: int) -> Training:
    """The same training of a model with only the ``width`` best neurons of each hidden layer; its sampler is shared.

    Raises PruneError where that is none of `WIDTHS` or not fewer than there are.
    """
    model = training.model
    if width not in WIDTHS:
        raise PruneError(f"{width} neurons: expected one of {', '.join(map(str, WIDTHS))}, which kernels are fast with")
    if width >= model.config.field.width:
        raise PruneError(f"{width} neurons are not fewer than the {model.config.field.width} of this model")
    if model.field.neighbours is not None:
        raise PruneError("a field with convolutions at each sample keeps its neurons: they are its channels")
    config = replace(model.config, field=replace(model.config.field, width=width))
    field = HashField(config.field, model.device, 0, model.frame.n_levels)
    narrow = Optimizer(field, config.train)
    narrow.n_steps = training.optimizer.n_steps
    kept = {name: [largest(score, width).nonzero()[:, 0] for score in scores[name]] for name in NETWORKS}
    with torch.no_grad():
        for name, own in field.named_parameters():
            before = model.field.get_parameter(name)
            moments = zip(narrow.moments_of(own), training.optimizer.moments_of(before), strict=True)
            for to, tensor in [(own, before), *moments]:
                to.copy_(_without(tensor.detach(), name, kept))
    return replace(training, model=replace(model, field=field, config=config), optimizer=narrow)


def _hidden(network: MLP) -> list[Tensor]:
    """The matrices whose outputs are hidden neurons."""
    return list(network.weights)[:-1]


def _without(tensor: Tensor, name: str, kept: dict[str, list[Int[Tensor, " width"]]]) -> Tensor:
    """Of a parameter, or of its moments, what the neurons that stay have; all of it where it is no matrix of theirs."""
    network, _, number = name.partition(".weights.")
    if network not in kept:
        return tensor
    i, rows = int(number), kept[network]
    if i < len(rows):
        tensor = tensor[rows[i].to(tensor.device)]
    return tensor[:, rows[i - 1].to(tensor.device)] if i > 0 else tensor
