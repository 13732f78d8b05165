"""Few neurons active from the start: constant inputs that act as a bias, for networks that have none.

A neuron of weights w and the bias -B fires where <w, x> > B; for inputs that make <w, x> about normal with the standard
deviation s, and B = s times the (1 - p)-quantile of the normal distribution, that is the share p of the time (Yang et
al. 2023, "Neural networks with sparse activation induced by large bias"). The claim is that this stays so while
the network learns, and that it learns as fast.

The networks here take no biases, so that other engines can hold them. The colour network sees a constant anyway, the
first of the spherical harmonics; for the density network the first feature of the coarsest level is one number
everywhere at first. Both may be learnt on.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from nerfkit.fields.hash import HashField

SPREAD = 0.1
"""Features begin within so much of 0, and the constant one at it: far less, and what is learnt would drown it."""


def begin_sparse(field: HashField, share: float) -> None:
    """Give an untrained field the weights and features with which a ``share`` in (0, 1) of its hidden neurons of the
    first layers is active."""
    quantile = NormalDist().inv_cdf(1.0 - share)
    with torch.no_grad():
        table, first = field.table, slice(0, field.grid.layout.offsets[1])
        table.mul_(SPREAD / table.abs().max())
        table[first, 0] = SPREAD
        density, color = field.density_network.weights[0], field.color_network.weights[0]
        # Of eight corners that are blended, the variance is 8/27 of that of one in the mean of all places.
        spread = SPREAD * math.sqrt(8.0 / 27.0 / 3.0)
        density[:, 0] = -quantile * spread / SPREAD * density[:, 1:].norm(dim=1)
        constant = field.config.geo_features
        # Harmonics are orthonormal on the sphere: each has the mean square 1 / (4 pi), which is the first one's square.
        color[:, constant] = -quantile * color[:, constant + 1 :].norm(dim=1)


def active_shares(
    field: HashField, positions: Float[Tensor, "n 3"], rays_d: Float[Tensor, "n 3"]
) -> dict[str, list[float]]:
    """Share of the neurons of each hidden layer that are active, in the mean over places seen along directions."""
    with torch.no_grad():
        density, color = field.layer_by_layer(positions, rays_d)

    def shares(said: list[Tensor]) -> list[float]:
        return [float((layer > 0).float().mean()) for layer in said[:-1]]

    return {"density_network": shares(density), "color_network": shares(color)}
