"""What a learned occupancy learns by, in the manner of LeC2O-NeRF (Mi and Xu 2024, arXiv 2411.11374).

A network calls a place occupied with probability p. Its rays are rendered by two branches: a place of p >= 1/2 belongs
to the field, another one to a branch for empty space, which can be little more than haze:

    sigma(x) = p sigma_field(x)    or    (1 - p) sigma_empty(x),

and what the picture loses teaches the network. The paper's own formulas are not public; these are ours.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from nerfkit.kernels.composite import composite
from nerfkit.types import Samples

_DELTA = 0.1
"""Of the Huber loss of colours."""


def imbalance(p: Float[Tensor, " n"], share: float) -> Float[Tensor, ""]:
    """How far a classification is from calling ``share``, in (0, 1), of the places occupied:

        f P / r + (1 - f) (1 - P) / (1 - r),

    with P the mean probability and f the share of places of p >= 1/2; 1, its least value with f = P, at P = r. For r =
    1/2 it is the balanced loss of gates in mixtures of experts. Differentiable in P.
    """
    mean, assigned = p.mean(), (p >= 0.5).float().mean()
    return assigned * mean / share + (1.0 - assigned) * (1.0 - mean) / (1.0 - share)


def density_loss(logits: Float[Tensor, " n"], alphas: Float[Tensor, " n"], emptiness: float = 1.0) -> Float[Tensor, ""]:
    """What is dense must not be called empty, what is thin not occupied, with ``alphas`` in [0, 1] the opacities:

    mean( - alpha log p - emptiness (1 - alpha) log(1 - p) ),  p = sigmoid(logit).
    """
    return (F.softplus(-logits) * alphas + emptiness * F.softplus(logits) * (1.0 - alphas)).mean()


def two_branches(
    p: Float[Tensor, " n"],
    sigmas: Float[Tensor, " n"],
    rgbs: Float[Tensor, "n 3"],
    haze: Float[Tensor, "n 4"],
    samples: Samples,
    background: Float[Tensor, "n_rays 3"],
    truth: Float[Tensor, "n_rays 3"],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The loss of a picture of two branches, and the mean opacity of the empty one where places were called empty.

    ``haze`` is what the empty branch says before activation, density first. Differentiable in ``p`` and ``haze``.
    """
    empty_sigmas, empty_rgbs = F.softplus(haze[:, 0] - 3.0), torch.sigmoid(haze[:, 1:])
    occupied = p >= 0.5
    mixed = torch.where(occupied, p * sigmas, (1.0 - p) * empty_sigmas)
    rgb, *_ = composite(mixed, torch.where(occupied[:, None], rgbs, empty_rgbs), samples, background)
    rendering = F.huber_loss(rgb, truth, delta=_DELTA) / _DELTA
    empty = ~occupied[: samples.n_owned]
    lengths = (samples.t_ends - samples.t_starts)[: samples.n_owned]
    thin = ((1.0 - torch.exp(-empty_sigmas[: samples.n_owned] * lengths)) * empty).sum() / empty.sum().clamp(min=1)
    return rendering, thin
