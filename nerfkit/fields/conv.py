"""Convolutional heads: what neighbouring rays hold takes part in the colour of each pixel.

In the manner of AligNeRF (Jiang et al. 2023), which lets convolutions over a patch of rays take the place of the last
layers of a coordinate network, so that neighbours share what they know. They run in one of two places: after
compositing, where each ray has gathered a few numbers beside its colour (`DeferredHead`, for any sampler), or before,
at each sample, where neighbouring rays must have their samples at like depths (`SampleHead`; `sampling.alike`).
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

APRON = 2
"""Pixels around one that its colour depends on, to each side, behind a `DeferredHead`."""
_MOST = 0.25
"""Largest correction of a colour."""
_STRIP = 1 << 18
"""Pixels that are corrected at once, about: what a whole picture needs in between would outweigh all else."""


class DeferredHead(nn.Module):
    """What neighbours differ in, put into their colours: of what rays gathered, a colour and features f,

        rgb + 0.25 tanh(conv(relu(conv(f)))),

    the first a `convolved` with a matrix, the second one without. Where neighbours are alike nothing changes, and a
    ray that is seen alone needs no head: what one pixel knows of itself is the colour network's to say. The second
    convolution begins as zero: a head that has learnt nothing changes no pixel.
    """

    def __init__(self, n_features: int, width: int, generator: torch.Generator):
        super().__init__()
        bound = math.sqrt(6.0 / n_features)
        first = (torch.rand(width, n_features, generator=generator) * 2.0 - 1.0) * bound
        self.matrix = nn.Parameter(first)
        self.sides = nn.ParameterList([torch.zeros(width, n_features, 8), torch.zeros(3, width, 8)])

    def forward(self, pixels: Float[Tensor, "n h w c"]) -> Float[Tensor, "n h w 3"]:
        """Corrected colours of pictures or patches; about [0, 1]."""
        x = convolved(pixels[..., 3:].permute(0, 3, 1, 2), self.sides[0], self.matrix)
        x = convolved(F.relu(x), self.sides[1])
        return pixels[..., :3] + _MOST * torch.tanh(x.permute(0, 2, 3, 1))


def corrected(head: DeferredHead, picture: Float[Tensor, "h w c"]) -> Float[Tensor, "h w 3"]:
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


def convolved(
    x: Float[Tensor, "n c h w"], sides: Float[Tensor, "d c 8"], matrix: Float[Tensor, "d c"] | float = 0.0
) -> Float[Tensor, "n d h w"]:
    """3x3 convolution that is a matrix M, or nothing, for pixels whose neighbours are like them.

        y_p = M x_p + sum_t D_t (x_t - x_p)

    with the eight neighbours t of a pixel p and ``sides`` D. Beyond the border everything is like the pixel beside it.
    """
    middle = (matrix - sides.sum(2))[:, :, None]
    taps = torch.cat([sides[:, :, :4], middle, sides[:, :, 4:]], 2).unflatten(2, (3, 3))
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), taps.to(x.dtype))


class SampleHead(nn.Module):
    """3x3 convolutions in place of all layers of a colour network but the first, at each sample of a patch of rays.

    With the matrix M of a layer and eight more, D_t, one for each neighbour t of a pixel p,

        y_p = M x_p + sum_t D_t (x_t - x_p),

    where x_t is what the same sample, by its number, of the neighbouring ray holds (`convolved`). The D_t begin as
    zero, and do nothing where neighbours are alike: a single ray, which knows of none, is seen by M alone.
    """

    def __init__(self, sizes: Sequence[int]):
        """``sizes`` are those of the colour network."""
        super().__init__()
        pairs = list(zip(sizes, sizes[1:], strict=False))[1:]
        self.sides = nn.ParameterList(nn.Parameter(torch.zeros(n_out, n_in, 8)) for n_in, n_out in pairs)

    @property
    def apron(self) -> int:
        """Pixels around one that its colour depends on, to each side."""
        return len(self.sides)

    def forward(self, x: Float[Tensor, "n h w k c"], matrices: Sequence[Tensor]) -> Float[Tensor, "n h w k d"]:
        """What the colour network of these matrices says of the samples of patches."""
        n, height, width, k, _ = x.shape
        first, *others = matrices
        x = torch.mm(x.reshape(-1, x.shape[-1]), first.to(x.dtype).t()).view(n, height, width, k, -1)
        x = x.permute(0, 3, 4, 1, 2).reshape(n * k, -1, height, width)
        for matrix, sides in zip(others, self.sides, strict=True):
            x = convolved(F.relu(x), sides, matrix)
        return x.view(n, k, -1, height, width).permute(0, 3, 4, 1, 2)
