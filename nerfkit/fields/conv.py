"""The convolutional head: what neighbouring rays gathered corrects the colour of each pixel.

In the manner of AligNeRF (Jiang et al. 2023), which lets convolutions over a patch of rays take the place of the last
layers of a coordinate network, so that neighbours share what they know. Here they come after compositing: each ray
gathers a few numbers beside its colour, and a picture of both goes through two convolutions.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

APRON = 2
"""Pixels around one that its colour depends on, to each side."""
_MOST = 0.25
"""Largest correction of a colour."""
_STRIP = 1 << 18
"""Pixels that are corrected at once, about: what a whole picture needs in between would outweigh all else."""


class ConvHead(nn.Module):
    """``rgb + 0.25 tanh(conv(relu(conv([rgb, features]))))``, both convolutions 3x3, borders reflected.

    The second convolution begins as zero: a head that has learnt nothing changes no pixel.
    """

    def __init__(self, n_features: int, width: int, generator: torch.Generator):
        super().__init__()
        n_in = 3 + n_features
        bound = math.sqrt(6.0 / (9 * n_in))
        first = (torch.rand(width, n_in, 3, 3, generator=generator) * 2.0 - 1.0) * bound
        self.first, self.first_bias = nn.Parameter(first), nn.Parameter(torch.zeros(width))
        self.second, self.second_bias = nn.Parameter(torch.zeros(3, width, 3, 3)), nn.Parameter(torch.zeros(3))

    def forward(self, pixels: Float[Tensor, "n h w c"]) -> Float[Tensor, "n h w 3"]:
        """Corrected colours of pictures or patches of at least 2x2 pixels; about [0, 1]."""
        x = F.relu(F.conv2d(_framed(pixels.permute(0, 3, 1, 2)), self.first, self.first_bias))
        x = F.conv2d(_framed(x), self.second, self.second_bias)
        return pixels[..., :3] + _MOST * torch.tanh(x.permute(0, 2, 3, 1))


def corrected(head: ConvHead, picture: Float[Tensor, "h w c"]) -> Float[Tensor, "h w 3"]:
    """What a head makes of a whole picture, in [0, 1], without gradient: in strips, which see what is beside them."""
    height, width = picture.shape[:2]
    rows = max(_STRIP // width, 1)
    strips = []
    with torch.no_grad():
        for begin in range(0, height, rows):
            end = min(begin + rows, height)
            above, below = max(begin - APRON, 0), min(end + APRON, height)
            strips.append(head(picture[None, above:below])[0, begin - above : end - above])
    return torch.cat(strips).clamp(0.0, 1.0)


def _framed(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
    return F.pad(x, (1, 1, 1, 1), mode="reflect")
