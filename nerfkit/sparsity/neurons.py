"""Neurons taken out of a field's networks, so that it is smaller and faster: no mask is left behind.

Much of what a neuron says, the others of its layer say as well. Those that go are the ones that can best be told from
those that stay, by a weighted sum whose weights go into the next layer's matrix; which of them and by what sum, linear
regression says, on samples that photographs' rays see (in the manner of He et al. 2017, "Channel Pruning for
Accelerating Very Deep Neural Networks", by backward elimination).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerfkit.fields.hash import HashField
from nerfkit.sparsity.ratios import PruneError
from nerfkit.sparsity.shown import shown_samples
from nerfkit.train.optim import Optimizer
from nerfkit.train.training import Training

WIDTHS = (8, 16, 32, 48, 64, 96, 128)
"""Neurons of a layer that fused kernels like: whole vectors of a processor."""

NETWORKS = ("density_network", "color_network")

_N_RAYS, _CHUNK = 8192, 1024
_SEED = 20
_RIDGE = 1e-6
"""Share of each neuron's own square that is added to it, so that neurons which are alike can be told apart; it does not
depend on how loud a neuron is, which the weights behind it can undo. Silent ones count as so much of the mean."""

Left = tuple[Int[Tensor, " width"], Float[Tensor, "width n"]]
"""Neurons of a layer that stay, and what all of them said as sums of what these say."""


def products_of(training: Training) -> dict[str, list[Float[Tensor, "_ _"]]]:
    """For each hidden layer of each network sum_s w_s h_s h_s^T, float64, over samples s that training rays see, with
    h_s what its neurons say and w_s the sample's share of its ray's colour."""
    model, pixels = training.model, training.pixels
    generator = torch.Generator().manual_seed(_SEED)
    products: dict[str, list[Tensor]] = {}
    for picked in torch.randint(len(pixels), (_N_RAYS,), generator=generator).split(_CHUNK):
        rays = pixels.rays(picked, model.frame)
        seen = shown_samples(model, model.sampler, rays)
        with torch.no_grad():
            said = model.field.layer_by_layer(seen.positions, rays.rays_d[seen.owners])
        for name, layers in zip(NETWORKS, said, strict=True):
            weighted = [(h * seen.weights.sqrt()[:, None]).double().cpu() for h in layers[:-1]]
            own = [h.t() @ h for h in weighted]
            products[name] = [a + b for a, b in zip(products[name], own, strict=True)] if name in products else own
    return products


def left_after(products: Float[Tensor, "n n"], outgoing: Float[Tensor, "n_out n"], width: int) -> Left:
    """The ``width`` neurons from which what a layer hands on can best be told, one after another left out.

    With G the products and W the outgoing matrix, of neurons S that are still there the sums W_S = W G[:, S] G_SS^-1
    are nearest to W h, and without neuron j of them the mean square error rises by |W_S[:, j]|^2 / (G_SS^-1)_jj.
    """
    squares = products.diagonal()
    squares = squares.clamp(min=_RIDGE * float(squares.mean().clamp(min=1e-30)))
    products, handed = products + torch.diag(_RIDGE * squares), outgoing.detach().double().cpu()
    stay = list(range(len(products)))
    while len(stay) > width:
        inverse = torch.linalg.inv(products[stay][:, stay])
        told = handed @ products[:, stay] @ inverse
        stay.pop(int(((told**2).sum(0) / inverse.diagonal()).argmin()))
    return torch.tensor(stay), torch.linalg.solve(products[stay][:, stay], products[stay]).float()


def narrowed(training: Training, width: int) -> Training:
    """The same training of a model with ``width`` neurons in each hidden layer; its sampler is shared.

    Raises PruneError where that is none of `WIDTHS` or not fewer than there are.
    """
    model = training.model
    if width not in WIDTHS:
        raise PruneError(f"{width} neurons: expected one of {', '.join(map(str, WIDTHS))}, which kernels are fast with")
    before = model.config.field
    if width >= min(before.width, before.color_width or before.width):
        raise PruneError(f"{width} neurons are not fewer than the {before.width} of this model")
    if model.field.neighbours is not None:
        raise PruneError("a field with convolutions at each sample keeps its neurons: they are its channels")
    config = replace(model.config, field=replace(before, width=width, color_width=0))
    field = HashField(config.field, model.device, 0, model.frame.n_levels)
    narrow = Optimizer(field, config.train)
    narrow.n_steps = training.optimizer.n_steps
    left = {name: _left(model.field, name, layers, width) for name, layers in products_of(training).items()}
    with torch.no_grad():
        for name, own in field.named_parameters():
            before = model.field.get_parameter(name)
            own.copy_(_without(before.detach(), name, left, told=True))
            moments = zip(narrow.moments_of(own), training.optimizer.moments_of(before), strict=True)
            for to, tensor in moments:
                to.copy_(_without(tensor, name, left, told=False))
    return replace(training, model=replace(model, field=field, config=config), optimizer=narrow)


def _left(field: HashField, name: str, products: list[Tensor], width: int) -> list[Left]:
    """Of each hidden layer. The last one goes first: what goes of a layer needs nothing from the one before."""
    weights, left = list(getattr(field, name).weights), []
    rows: Tensor | slice = slice(None)
    for i in reversed(range(len(products))):
        left.insert(0, left_after(products[i], weights[i + 1].detach().cpu()[rows], width))
        rows = left[0][0]
    return left


def _without(tensor: Tensor, name: str, left: dict[str, list[Left]], told: bool) -> Tensor:
    """Of a parameter, or of its moments, what the neurons that stay have; all of it where it is no matrix of theirs.
    ``told`` adds to their outgoing weights what the others said."""
    network, _, number = name.partition(".weights.")
    if network not in left:
        return tensor
    i, layers = int(number), left[network]
    if i < len(layers):
        tensor = tensor[layers[i][0].to(tensor.device)]
    if i == 0:
        return tensor
    stay, sums = layers[i - 1]
    return tensor @ sums.t().to(tensor.device) if told else tensor[:, stay.to(tensor.device)]
