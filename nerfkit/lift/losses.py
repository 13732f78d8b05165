"""What a lifted field should be like where no photograph says it: the losses of NeuralLift-360 (Xu et al. 2023) and of
its peers, each alone.

Depths are distances from the camera: larger is farther. What a network says of a picture is known up to scale, and
mostly up to shift: these losses do not care.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import relu


def ranking(
    depth: Float[Tensor, " n"], told: Float[Tensor, " n"], pairs: Int[Tensor, "m 2"], margin: float = 0.0
) -> Float[Tensor, ""]:
    """How much pixels stand in another order than was told, the mean over pairs (i, j) of

        max(0, margin - sign(told_i - told_j) (depth_i - depth_j))

    NeuralLift-360 takes all ordered pairs and no margin; a few thousand pairs have the same mean.

    >>> near_far, pairs = torch.tensor([1.0, 2.0]), torch.tensor([[0, 1]])
    >>> float(ranking(near_far, near_far, pairs)), float(ranking(near_far.flip(0), near_far, pairs))
    (0.0, 1.0)
    """
    order = torch.sign(told[pairs[:, 0]] - told[pairs[:, 1]])
    apart = depth[pairs[:, 0]] - depth[pairs[:, 1]]
    return (relu(margin - order * apart) * (order != 0)).mean()


def pearson(depth: Float[Tensor, " n"], told: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """One less the correlation of both, in [0, 2] (Make-It-3D's): neither scale nor shift matter.

    >>> depth = torch.tensor([1.0, 2.0, 4.0])
    >>> round(abs(float(pearson(depth, 3 * depth + 7))), 5), round(float(pearson(depth, -depth)), 5)
    (0.0, 2.0)
    """
    a, b = depth - depth.mean(), told - told.mean()
    return 1.0 - (a * b).sum() / (a.norm() * b.norm()).clamp(min=1e-8)


def scale_shift(depth: Float[Tensor, " n"], told: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean square of what is left of depth when told is laid onto it by the best scale and shift (MiDaS's)."""
    a, b = depth - depth.mean(), told - told.mean()
    scale = ((a * b).sum() / b.square().sum().clamp(min=1e-8)).detach()
    return (a - scale * b).square().mean()


def undecided(opacity: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean entropy of opacities in bits: nothing of what is there or not, one of what is half there."""
    a = opacity.clamp(1e-5, 1 - 1e-5)
    return -(a * a.log2() + (1 - a) * (1 - a).log2()).mean()


def orientation(
    weights: Float[Tensor, " n"], normals: Float[Tensor, "n 3"], rays_d: Float[Tensor, "n 3"], n_rays: int
) -> Float[Tensor, ""]:
    """How much of what is seen faces away, the mean over rays of sum_k w_k max(0, n_k . d)^2 (Ref-NeRF, equation 11);
    weights take no part in the gradient."""
    return (weights.detach() * relu((normals * rays_d).sum(-1)).square()).sum() / n_rays


def smoothness(depth: Float[Tensor, "h w"], rgb: Float[Tensor, "h w 3"]) -> Float[Tensor, ""]:
    """How uneven depth is where colours are even: mean of |dx depth| exp(-|dx rgb|), and the same in y."""
    edges = rgb.detach()
    x = (depth[:, 1:] - depth[:, :-1]).abs() * torch.exp(-(edges[:, 1:] - edges[:, :-1]).abs().sum(-1))
    y = (depth[1:] - depth[:-1]).abs() * torch.exp(-(edges[1:] - edges[:-1]).abs().sum(-1))
    return x.mean() + y.mean()


def spherical(a: Float[Tensor, "*n d"], b: Float[Tensor, "*n d"]) -> Float[Tensor, "*n"]:
    """Squared angle between features, 2 arcsin^2(|a - b| / 2) of unit vectors.

    >>> x, y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    >>> round(float(spherical(x, x)), 4), round(float(spherical(x, y)), 4)
    (0.0, 1.2337)
    """
    a, b = (x / x.norm(dim=-1, keepdim=True).clamp(min=1e-8) for x in (a, b))
    half = ((a - b).square().sum(-1) + 1e-12).sqrt() / 2
    return 2 * torch.arcsin(half.clamp(max=1.0)).square()
