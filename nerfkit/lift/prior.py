"""LiftNet: a picture of an object, and whence it was taken, to a volume. Ours, trained by tools/lift_prior.

A network of two dimensions looks at the picture, says how far away each pixel is and which way it faces, and whence the
picture was taken, should nobody know. What it found is put into the volume along the rays of the pixels, with how far
each cell lies behind what is seen there; a network of three dimensions then fills in the rest. Colours are its own, or
those of the pixel that a cell lies behind, as it chooses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import grid_sample, interpolate, silu, softplus

from nerfkit.lift.volume import Volume, orbiting

SIZE = 128
"""Pixels of the pictures that it looks at."""
CELLS = 32
"""Cells a side of what the network of three dimensions sees."""
_FLAT = (32, 64, 128, 160, 192)
"""Channels at half of these, at a quarter, ..."""
_DEEP = (32, 64, 96, 128)
"""Channels at `CELLS` cells a side, at half, ..."""
COARSEST = 2 ** (len(_DEEP) - 1)
"""Cells that are one where they are coarsest."""
_CODE = 160
_POINTS = 40
"""Channels of what a pixel tells the cells behind it."""
_SHARP = (4.0, 16.0)
"""How sharply cells are told from which side of what is seen they lie."""


@dataclass(frozen=True)
class Lifted:
    """What is made of pictures."""

    volume: Volume
    depth: Float[Tensor, "b h h"]
    """z of what is seen, at half of the size, less the camera's distance: in [-1, 1]."""
    normals: Float[Tensor, "b 3 h h"]
    """In the camera (OpenCV axes), unit."""
    camera: Float[Tensor, "b 2"]
    """Guess of elevation and field of view, radians."""


class _Block(nn.Module):
    """Two convolutions and a way past them."""

    def __init__(self, conv: type[nn.Conv2d] | type[nn.Conv3d], n_in: int, n_out: int, stride: int = 1):
        super().__init__()
        self.norm = nn.GroupNorm(8, n_in)
        self.conv1 = conv(n_in, n_out, 3, stride=stride, padding=1)
        self.conv2 = conv(n_out, n_out, 3, padding=1)
        self.past = None if n_in == n_out and stride == 1 else conv(n_in, n_out, stride, stride=stride)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(silu(self.conv1(silu(self.norm(x)))))
        return y + (x if self.past is None else self.past(x))


class _UNet(nn.Module):
    """Down to the coarsest and up again; gives the finest, and the coarsest."""

    def __init__(self, conv: type[nn.Conv2d] | type[nn.Conv3d], widths: tuple[int, ...]):
        super().__init__()
        pairs = list(zip(widths, widths[1:], strict=False))
        self.down = nn.ModuleList([nn.Sequential(_Block(conv, a, b, 2), _Block(conv, b, b)) for a, b in pairs])
        self.across = nn.ModuleList([conv(b, a, 1) for a, b in pairs])
        self.up = nn.ModuleList([_Block(conv, a, a) for a, _ in pairs])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        levels = [x]
        for down in self.down:
            levels.append(down(levels[-1]))
        y = coarsest = levels.pop()
        for across, up in zip(reversed(self.across), reversed(self.up), strict=True):
            beside = levels.pop()
            y = up(beside + interpolate(across(y), size=beside.shape[2:], mode="nearest"))
        return y, coarsest


class LiftNet(nn.Module):
    """See the file."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(4, _FLAT[0], 4, stride=2, padding=1)
        self.flat = _UNet(nn.Conv2d, _FLAT)
        n_coarse = _FLAT[-1] * (SIZE // 2 ** len(_FLAT)) ** 2
        self.code = nn.Sequential(
            nn.GroupNorm(8, _FLAT[-1]), nn.SiLU(), nn.Flatten(), nn.Linear(n_coarse, _CODE), nn.SiLU()
        )
        self.camera = nn.Linear(_CODE, 2)
        self.surface = nn.Conv2d(_FLAT[0], 4, 3, padding=1)
        self.points = nn.Conv2d(_FLAT[0], _POINTS, 1)
        self.into = nn.Conv3d(_POINTS + len(_SHARP) + 1 + 6, _DEEP[0], 3, padding=1)
        self.told = nn.Linear(_CODE + 2, _DEEP[0])
        self.deep = _UNet(nn.Conv3d, _DEEP)
        self.density, self.color = nn.Conv3d(_DEEP[0], 8, 3, padding=1), nn.Conv3d(_DEEP[0], 4, 1)
        for module in self.modules():  # in this order of memory CPUs with bf16 are four times as fast
            if isinstance(module, nn.Conv2d):
                module.to(memory_format=torch.channels_last)
            elif isinstance(module, nn.Conv3d):
                module.to(memory_format=torch.channels_last_3d)

    def forward(self, rgba: Float[Tensor, "b 4 s s"], camera: Float[Tensor, "b 3"], n_cells: int = CELLS) -> Lifted:
        """Volumes of pictures (straight colour, alpha, [0, 1]) taken from ``camera``: elevation and field of view in
        radians, distance from the middle of the cube. They have twice ``n_cells`` cells a side."""
        alpha = rgba[:, 3:]
        flat, code = self._looked(rgba)
        surface = self.surface(silu(flat)).float()
        depth = torch.tanh(surface[:, 0])
        normals = surface[:, 1:] / surface[:, 1:].norm(dim=1, keepdim=True).clamp(min=1e-6)
        x = self.into(self._placed(self.points(flat), depth, alpha, camera, n_cells))
        x = x + self.told(torch.cat([code, camera[:, :2]], 1))[:, :, None, None, None]
        x, _ = self.deep(x.contiguous(memory_format=torch.channels_last_3d))
        return Lifted(self._volume(x, rgba, camera), depth, normals, self._guess(code))

    def whence(self, rgba: Float[Tensor, "b 4 s s"]) -> Float[Tensor, "b 2"]:
        """`Lifted.camera` alone, which asks for no volume."""
        return self._guess(self._looked(rgba)[1])

    def _looked(self, rgba: Tensor) -> tuple[Tensor, Tensor]:
        """What is seen at each pixel, and all in all."""
        alpha = rgba[:, 3:]
        shown = torch.cat([rgba[:, :3] * alpha + 0.5 * (1 - alpha), alpha], 1) * 2 - 1
        flat, coarsest = self.flat(self.stem(shown))
        return flat, self.code(coarsest)

    def _guess(self, code: Tensor) -> Tensor:
        return self.camera(code).float() * 0.3 + torch.tensor([math.radians(20), math.radians(40)], device=code.device)

    def _placed(self, flat: Tensor, depth: Tensor, alpha: Tensor, camera: Tensor, n: int) -> Tensor:
        """What pixels tell the cells behind them, and where these are."""
        xyz = cells(n, flat.device)
        uv, z = projected(xyz, camera)
        seen = torch.cat([flat.float(), depth[:, None], interpolate(alpha, size=flat.shape[2:], mode="area")], 1)
        found = grid_sample(seen, uv, align_corners=False, padding_mode="border")[..., 0]
        behind = z - camera[:, 2:] - found[:, -2]
        sharp = torch.stack([torch.tanh(k * behind) for k in _SHARP], 1)
        where = xyz.T.expand(len(flat), -1, -1)
        towards = orbiting(torch.zeros_like(camera[:, 0]), camera[:, 0], camera[:, 2])[:, :, 3] / camera[:, 2:]
        along = (where * towards[:, :, None]).sum(1, keepdim=True)
        both = torch.cat([found[:, :-2], sharp, found[:, -1:], where, where.square()[:, :2], along], 1)
        return both.unflatten(2, (n,) * 3).contiguous(memory_format=torch.channels_last_3d)

    def _volume(self, x: Tensor, rgba: Tensor, camera: Tensor) -> Volume:
        """Cells of half the size, with density and colour."""
        x = silu(x)
        b, _, n, _, _ = x.shape
        density = (
            self.density(x).float().view(b, 2, 2, 2, n, n, n).permute(0, 4, 1, 5, 2, 6, 3).reshape(b, *(2 * n,) * 3)
        )
        color = interpolate(self.color(x).float(), scale_factor=2, mode="trilinear")
        uv, _ = projected(cells(2 * n, x.device), camera)
        pixel = grid_sample(rgba[:, :3], uv, align_corners=False, padding_mode="border")[..., 0]
        share = color[:, 3:].sigmoid()
        rgbs = share * pixel.unflatten(2, (2 * n,) * 3) + (1 - share) * color[:, :3].sigmoid()
        return Volume(20.0 * softplus(density - 3.0), rgbs)


def cells(n: int, device: torch.device) -> Float[Tensor, "cells 3"]:
    """Middles of the n^3 cells of the cube, in the order (z, y, x)."""
    steps = (torch.arange(n, device=device) + 0.5) * (2 / n) - 1
    z, y, x = torch.meshgrid(steps, steps, steps, indexing="ij")
    return torch.stack([x.flatten(), y.flatten(), z.flatten()], -1)


def projected(
    points: Float[Tensor, "n 3"], camera: Float[Tensor, "b 3"]
) -> tuple[Float[Tensor, "b n 1 2"], Float[Tensor, "b n"]]:
    """Where in their pictures, from (-1, -1) to (1, 1), and how far away (z) points are; see `LiftNet.forward`."""
    c2w = orbiting(torch.zeros_like(camera[:, 0]), camera[:, 0], camera[:, 2])
    local = (points - c2w[:, None, :, 3]) @ c2w[:, :, :3]
    z = local[..., 2].clamp(min=1e-3)
    uv = local[..., :2] / (z * (camera[:, 1, None] / 2).tan())[..., None]
    return uv[:, :, None], z
