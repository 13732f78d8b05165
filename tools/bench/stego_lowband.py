"""A message in the low band of renders, in the manner of WateRF (Jang et al. 2024): a rival for `stego_rivals.py`.

1. A network in the manner of HiDDeN (Zhu et al. 2018) learns to read bits that another one writes into pictures,
   through noise, blur, light, turns and cuts. Pictures are low bands LL of two levels of the wavelet bior4.4: a quarter
   of a render's sides. Only the reader is kept. Its logits are whitened over what unmarked pictures say, as do
   Fernandez et al. (2023).
2. The whole field is tuned, the reader stays as it is. With x a whole render, x_0 that of the scene as it was, F(LL(x))
   the logits, b bits as 1 and -1:

       mean softplus(-10 b F(LL(x))) + max(0, |x - x_0|^2 / allowed - 1)

   A render is made without gradients, and then its rays once more, part by part, with the gradient of its pixels.

Ours, not theirs: the networks are smaller and learn for minutes; the image term is a mean square with a bound in place
of the weighed Watson-VGG distance, whose weights are not to be had offline, and there is no term of patches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import (
    affine_grid,
    avg_pool2d,
    binary_cross_entropy_with_logits,
    conv2d,
    grid_sample,
    mse_loss,
    pad,
    relu,
    softplus,
)

from nerfkit.assess import backdrop
from nerfkit.cameras import Cameras
from nerfkit.render import Model, background_color, render_rays
from nerfkit.scene.scene import Scene
from nerfkit.stego.cost import Picture
from nerfkit.stego.views import views_between

LOW = (0.0378, -0.0238, -0.1106, 0.3774, 0.8527, 0.3774, -0.1106, -0.0238, 0.0378)
"""Low-pass of the analysis of bior4.4 (Cohen, Daubechies and Feauveau's 9/7), to four digits."""
_PATCH, _BATCH, _CHANNELS, _READER_RATE = 32, 16, 32, 4e-3
_STRENGTHS = (0.3, 0.06)
"""Root mean square of what is written into low bands, at first and in the end."""
_TEMPERATURE = 10.0
_TABLE_RATE, _NETWORK_RATE = 1e-3, 3e-4
_ROOM = 1 << 17
"""Samples of rays whose gradients are had together."""


def low_band(pictures: Tensor) -> Tensor:
    """LL of two levels, (n, 3, h, w) -> about (n, 3, h/4, w/4), scaled so that colours stay in [0, 1]."""
    taps = torch.tensor(LOW)
    taps = (taps / taps.sum()).expand(3, 1, -1)
    for _ in range(2):
        wide = pad(pictures, (4, 4, 4, 4), "reflect")
        wide = conv2d(wide, taps[..., None], stride=(2, 1), groups=3)
        pictures = conv2d(wide, taps[:, :, None], stride=(1, 2), groups=3)
    return pictures


def _block(a: int, b: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(a, b, 3, stride, 1), nn.BatchNorm2d(b), nn.GELU())


class Reader(nn.Module):
    """Low bands (n, 3, h, w) of any size -> logits (n, bits)."""

    def __init__(self, n_bits: int):
        super().__init__()
        c = _CHANNELS
        self.looks = nn.Sequential(_block(3, c), _block(c, c, 2), _block(c, c), _block(c, c), _block(c, 2 * n_bits))
        self.says = nn.Linear(2 * n_bits, n_bits)
        self.whitens = nn.Linear(n_bits, n_bits)
        nn.init.eye_(self.whitens.weight)
        nn.init.zeros_(self.whitens.bias)

    def forward(self, low: Tensor) -> Tensor:
        """What a low band says."""
        return self.whitens(self.says(self.looks(2.0 * low - 1.0).mean((2, 3))))

    @torch.no_grad()
    def whiten(self, low: Tensor) -> None:
        """Make logits of these, which carry nothing, uncorrelated, of mean 0 and deviation 1."""
        said = torch.cat([self(some) for some in low.split(64)]).double()
        values, vectors = torch.linalg.eigh(torch.cov(said.T))
        floor = 1e-3 * float(values.mean())
        matrix = vectors @ torch.diag((values + floor).rsqrt()) @ vectors.T
        self.whitens.weight.copy_(matrix)
        self.whitens.bias.copy_(-matrix @ said.mean(0))


def written(bits: Tensor, side: int) -> Tensor:
    """Textures (n, 3, side, side) of bits (n, bits), of mean square 1: of two waves that each bit has, one is there.

    Waves lie on a spiral in the plane of frequencies, bits in turn in three colours; phases are by chance.
    """
    n, n_bits = bits.shape
    colors = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])
    colors = colors / colors.square().mean(1, keepdim=True).sqrt()
    which = torch.arange(n_bits)
    order = 2 * (which // 3) + bits.long()
    share = (order + 0.5) / (2 * (-(-n_bits // 3)))
    angle, speed = 2.4 * order, (0.3 + 4.5 * share).sqrt()
    y, x = torch.arange(side)[:, None, None, None], torch.arange(side)[:, None, None]
    phase = speed * (angle.cos() * x + angle.sin() * y) + 2 * math.pi * torch.rand(n, n_bits)
    return torch.einsum("yxnk,kc->ncyx", phase.cos(), colors[which % 3]) * (2.0 / n_bits) ** 0.5


def learned(n_bits: int, pictures: Sequence[Picture], steps: int, seed: int = 0) -> tuple[Reader, list[float]]:
    """A reader that learnt from these pictures, frozen; and shares of right bits on its way."""
    torch.manual_seed(seed)
    chance, reader = np.random.default_rng(seed), Reader(n_bits)
    lows = [low_band(_tensor(picture)[None])[0] for picture in pictures]
    optimizer = torch.optim.Adam(reader.parameters(), _READER_RATE)
    right = []
    for step in range(steps):
        share = step / steps
        for group in optimizer.param_groups:
            group["lr"] = _READER_RATE * 0.1**share
        low, bits = _patches(lows, _BATCH, chance), torch.randint(0, 2, (_BATCH, n_bits)).float()
        strength = _STRENGTHS[0] * (_STRENGTHS[1] / _STRENGTHS[0]) ** share
        said = reader(_worn(low + strength * written(bits, _PATCH), chance, share))
        loss = binary_cross_entropy_with_logits(said, bits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        right.append(float(((said > 0) == (bits > 0)).float().mean()))
    reader.eval()
    reader.whiten(_patches(lows, 1024, chance))
    return reader.requires_grad_(False), right


@dataclass(frozen=True)
class Tuning:
    """How long, from how many views of how many pixels, and how far from unmarked renders, dB."""

    steps: int = 80
    n_views: int = 12
    size: int = 200
    psnr: float = 36.0


def tuned(model: Model, scene: Scene, reader: Reader, bits: np.ndarray, asked: Tuning) -> list[float]:
    """Tune a model, in place, until the reader tells the bits; shares of right bits on its way."""
    background = backdrop(scene)
    views = views_between(scene, asked.n_views, asked.size, 1)
    looks = [_Look(model, views, view, background) for view in range(len(views))]
    plain = [look.seen() for look in looks]
    signs = torch.from_numpy(2.0 * bits - 1.0).float()
    others = [p for p in model.field.parameters() if p is not model.field.table]
    groups = [{"params": [model.field.table], "lr": _TABLE_RATE}, {"params": others, "lr": _NETWORK_RATE}]
    optimizer = torch.optim.Adam(groups, eps=1e-15)
    right, chance, allowed = [], np.random.default_rng(0), 10.0 ** (-asked.psnr / 10)
    for step in range(asked.steps):
        for group, rate in zip(optimizer.param_groups, (_TABLE_RATE, _NETWORK_RATE), strict=True):
            group["lr"] = rate * 0.1 ** (step / asked.steps)
        view = int(chance.integers(len(looks)))
        picture = looks[view].seen().requires_grad_()
        said = signs * reader(low_band(picture))[0]
        loss = softplus(-_TEMPERATURE * said).mean() + relu(mse_loss(picture, plain[view]) / allowed - 1.0)
        loss.backward()
        optimizer.zero_grad(set_to_none=True)
        looks[view].back(picture.grad)
        optimizer.step()
        right.append(float((said > 0).float().mean()))
    return right


class _Look:
    """A whole render of a view, and what its pixels' gradients mean for the field."""

    def __init__(self, model: Model, views: Cameras, view: int, background: str):
        self.model, self.shape = model, (int(views.height[view]), int(views.width[view]))
        pixels = views.pixel_grid(view).reshape(-1, 2)
        self.rays = model.frame.model_rays(views.rays(torch.full((len(pixels),), view), pixels))
        with torch.no_grad():
            sky = model.field.behind(self.rays.rays_d) if background == "sky" else background_color(background)
        self.behind = sky.expand(len(pixels), 3)
        self.half = torch.full((len(pixels),), 0.5)
        self.counts = torch.zeros(0)

    def seen(self) -> Tensor:
        """(1, 3, h, w), without gradient."""
        with torch.no_grad():
            seen = render_rays(self.model.field, self.model.sampler, self.rays, self.behind, self.half)
        self.counts = seen.counts
        return seen.rgb.view(1, *self.shape, 3).permute(0, 3, 1, 2).contiguous()

    def back(self, upstream: Tensor) -> None:
        """Add the gradients of <upstream, render> to the field's."""
        upstream = upstream[0].permute(1, 2, 0).reshape(-1, 3)
        number = (self.counts.long() + 1).cumsum(0) // (_ROOM // 2)
        sizes = number.unique_consecutive(return_counts=True)[1].tolist()
        for part in torch.arange(len(self.rays)).split(sizes):
            some = self.rays[part], self.behind[part], self.half[part]
            seen = render_rays(self.model.field, self.model.sampler, *some, capacity=_ROOM)
            (seen.rgb * upstream[part]).sum().backward()


def read(reader: Reader, picture: Picture) -> np.ndarray:
    """Bits of a picture of any size."""
    with torch.no_grad():
        return (reader(low_band(_tensor(picture)[None]))[0] > 0).numpy()


def _tensor(picture: Picture) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1).float() / 255


def _patches(lows: list[Tensor], n: int, chance: np.random.Generator) -> Tensor:
    """(n, 3, side, side) of low bands, from anywhere."""
    found = []
    for low in (lows[int(i)] for i in chance.integers(len(lows), size=n)):
        y, x = (int(chance.integers(side - _PATCH + 1)) for side in low.shape[1:])
        found.append(low[:, y : y + _PATCH, x : x + _PATCH])
    return torch.stack(found)


def _worn(low: Tensor, chance: np.random.Generator, share: float) -> Tensor:
    """What may happen to pictures, as low bands know it, none at first."""
    share = min(max(2.5 * share - 1.0, 0.0), 1.0)
    low = low + share * chance.uniform(0.0, 0.03) * torch.randn_like(low)
    low = (low - 0.5) * (1 + share * chance.uniform(-0.4, 0.4)) + 0.5 + share * chance.uniform(-0.15, 0.15)
    if chance.random() < 0.3 * share:
        low = avg_pool2d(low, 3, 1, 1)
    if chance.random() < 0.4 * share:
        side = int(chance.integers(_PATCH // 2, _PATCH))
        low = low[..., :side, :side]
    if chance.random() < 0.4 * share:
        turn = math.radians(chance.uniform(-30, 30))
        c, s = math.cos(turn), math.sin(turn)
        grid = affine_grid(torch.tensor([[[c, -s, 0.0], [s, c, 0.0]]]).expand(len(low), 2, 3), list(low.shape), False)
        low = grid_sample(low, grid, align_corners=False)
    return low.clamp(0.0, 1.0)
