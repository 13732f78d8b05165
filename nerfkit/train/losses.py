"""Losses: on pixels, rendered against true colours (n, 3), and on where along its ray the weights of a pixel lie."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from nerfkit.types import Samples


@dataclass(frozen=True)
class Huber:
    """``factor`` times Huber's loss: e^2 / 2 up to ``delta``, delta (e - delta / 2) above (Huber 1964)."""

    delta: float
    factor: float

    def __call__(self, rgb: Float[Tensor, "n 3"], target: Float[Tensor, "n 3"]) -> Float[Tensor, ""]:
        """The loss, summed over all numbers."""
        if math.isinf(self.delta):
            return 0.5 * self.factor * F.mse_loss(rgb, target, reduction="sum")
        return self.factor * F.huber_loss(rgb, target, reduction="sum", delta=self.delta)


def distortion(weights: Float[Tensor, " n_samples"], samples: Samples, halfway: float) -> Float[Tensor, ""]:
    """How far apart the weights of each ray lie, summed over the rays (Barron et al. 2022, equation 15):

        sum_ij w_i w_j |s_i - s_j| + 1/3 sum_i w_i^2 d_i

    with places s = t / (t + halfway) of the samples' middles and d = ds/dt times their lengths: haze and what floats
    before a surface are drawn together to one place, and what is far counts less. Differentiable in ``weights``.
    """
    t, length = (samples.t_starts + samples.t_ends) / 2, samples.t_ends - samples.t_starts
    s, d = t / (t + halfway), length * halfway / (t + halfway) ** 2

    def earlier(values: Tensor) -> Tensor:
        """Sums over the samples before each one on its ray."""
        before = values.cumsum(0) - values
        first = samples.packed_info[:, 0].long().clamp(max=max(len(values) - 1, 0))
        return before - before[first][samples.ray_indices.long()]

    w, s, d = weights.double(), s.double(), d.double()  # sums over all rays, of which differences are taken
    return (2 * w * (s * earlier(w) - earlier(w * s)) + w * w * d / 3)[: samples.n_owned].sum().float()


def _filters() -> Float[Tensor, "4 1 3 3"]:
    """Sobel in x and y, Laplace, and what a Gaussian of one pixel leaves out, each with squares that sum to 1."""
    slope, hill = torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([1.0, 2.0, 1.0])
    bell = torch.exp(-torch.tensor([1.0, 0.0, 1.0]) / 2)
    middle = torch.tensor([0.0, 1.0, 0.0]).outer(torch.tensor([0.0, 1.0, 0.0]))
    laplace = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
    blur = bell.outer(bell) / bell.sum() ** 2
    bank = torch.stack([hill.outer(slope), slope.outer(hill), laplace, middle - blur])
    return (bank / bank.square().sum((1, 2), keepdim=True).sqrt())[:, None]


def high_frequency(patches: Float[Tensor, "n s s 3"], truth: Float[Tensor, "n s s 3"]) -> Float[Tensor, ""]:
    """How much patches differ in detail: the sum over filters k of |F_k * (patch - truth)|^2, over all that they reach.

    A bank of fixed filters in place of the first block of a trained network (Jiang et al. 2023): it needs no weights
    and is blind to what is smooth, which the loss on pixels cares for. For differences without any structure it is,
    beside the border that is left out, four times their squared sum.
    """
    e = (patches - truth).permute(0, 3, 1, 2).reshape(-1, 1, *patches.shape[1:3])
    return F.conv2d(e, _FILTERS.to(e.device)).square().sum()


_FILTERS = _filters()
LOSSES = {
    # Squared for small errors, absolute for outliers.
    "huber": Huber(0.1, 10.0),
    # What PSNR measures.
    "squared": Huber(math.inf, 2.0),
}
