"""Losses on pixels: each compares rendered with true colours, (n, 3), and is summed over the pixels by the caller."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]


def squared(rgb: Float[Tensor, "n 3"], target: Float[Tensor, "n 3"]) -> Float[Tensor, ""]:
    """Sum of squared differences: what PSNR measures."""
    return F.mse_loss(rgb, target, reduction="sum")


def huber(rgb: Float[Tensor, "n 3"], target: Float[Tensor, "n 3"]) -> Float[Tensor, ""]:
    """Sum of Huber's loss (delta 0.1) times 10: squared for small errors, absolute for outliers."""
    return 10.0 * F.huber_loss(rgb, target, reduction="sum", delta=0.1)


LOSSES: dict[str, Loss] = {"huber": huber, "squared": squared}
