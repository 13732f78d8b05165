"""Losses on pixels: each compares rendered with true colours, (n, 3), and is summed over the pixels by the caller."""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


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


LOSSES = {
    # Squared for small errors, absolute for outliers.
    "huber": Huber(0.1, 10.0),
    # What PSNR measures.
    "squared": Huber(math.inf, 2.0),
}
