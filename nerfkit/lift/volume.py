"""Boxes of numbers that can be looked at: what the prior makes of a picture, before a field learns it.

A volume fills the cube [-1, 1]^3 about what the camera looks at: +y is up, and the picture was taken from azimuth 0, on
the side of +z, from `elevation` above the horizon. Lengths are in units of half the cube.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample


@dataclass(frozen=True)
class Seen:
    """What rays see of volumes."""

    rgb: Float[Tensor, "b n 3"]
    """Times opacity: nothing stands behind."""
    opacity: Float[Tensor, "b n"]
    depth: Float[Tensor, "b n"]
    """Mean distance along the ray, times opacity."""


@dataclass(frozen=True)
class Volume:
    """Density per unit of length, >= 0, and colour in [0, 1], of the middles of s^3 cells, indexed (z, y, x)."""

    sigmas: Float[Tensor, "b s s s"]
    rgbs: Float[Tensor, "b 3 s s s"]

    def at(self, points: Float[Tensor, "b n 3"]) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n 3"]]:
        """Density and colour, linear between the middles of cells; nothing outside."""
        both = torch.cat([self.sigmas[:, None], self.rgbs], 1)
        found = grid_sample(both, points[:, :, None, None], align_corners=False, padding_mode="zeros")
        found = found[:, :, :, 0, 0].transpose(1, 2)
        return found[..., 0], found[..., 1:]

    def decided(self, contrast: float, threshold: float) -> Volume:
        """The same with cells that are rather there or not: odds of the opacity of each, in units of those at which it
        counts as there (an opacity, in (0, 1)), to the power of ``contrast``.

        What a network says of what it cannot know is a mean of what may be, which is fog.

        >>> half = Volume(torch.full((1, 2, 2, 2), math.log(2.0)), torch.zeros(1, 3, 2, 2, 2))
        >>> [round(float(half.decided(2.0, t).sigmas[0, 0, 0, 0]), 4) for t in (0.5, 0.2)]  # log(1 + (1, 4)^2)
        [0.6931, 2.8332]
        """
        side = 2.0 / self.sigmas.shape[-1]
        odds = torch.expm1(self.sigmas * side)
        odds = (odds * (1 - threshold) / threshold) ** contrast
        return Volume(torch.log1p(odds) / side, self.rgbs)

    def mirrored(self) -> Volume:
        """What the mirrored picture shows."""
        return Volume(self.sigmas.flip(3), self.rgbs.flip(4))

    def agreed(self, other: Volume) -> Volume:
        """The mean of two opinions: of the logarithms of the odds of opacities, and of colours."""
        side = 2.0 / self.sigmas.shape[-1]
        odds = [torch.expm1(one.sigmas * side).clamp(min=1e-7) for one in (self, other)]
        return Volume(torch.log1p((odds[0] * odds[1]).sqrt()) / side, (self.rgbs + other.rgbs) / 2)

    def look(
        self, rays_o: Float[Tensor, "b n 3"], rays_d: Float[Tensor, "b n 3"], n_samples: int = 64, jitter: float = 0.5
    ) -> Seen:
        """What rays with unit directions see within the unit ball; ``jitter`` in [0, 1] is where in its interval each
        sample lies, drawn anew for each ray where it is negative."""
        middle = -(rays_o * rays_d).sum(-1)
        off = (rays_o.square().sum(-1) - middle.square()).clamp(min=0.0)
        half = (1.0 - off).clamp(min=0.0).sqrt()
        near, length = (middle - half).clamp(min=0.0), 2 * half / n_samples
        shift = torch.full_like(near, jitter) if jitter >= 0 else torch.rand_like(near)
        steps = torch.arange(n_samples, device=near.device)
        t = near[..., None] + (steps + shift[..., None]) * length[..., None]
        points = rays_o[:, :, None] + t[..., None] * rays_d[:, :, None]
        sigmas, rgbs = self.at(points.flatten(1, 2))
        sigmas, rgbs = sigmas.unflatten(1, t.shape[1:]), rgbs.unflatten(1, t.shape[1:])
        thick = sigmas * length[..., None]
        weights = torch.exp(thick - thick.cumsum(-1)) * (1.0 - torch.exp(-thick))
        return Seen((weights[..., None] * rgbs).sum(-2), weights.sum(-1), (weights * t).sum(-1))


def orbiting(
    azimuth: Float[Tensor, "*n"], elevation: Float[Tensor, "*n"], radius: Float[Tensor, "*n"]
) -> Float[Tensor, "*n 3 4"]:
    """Camera-to-world of cameras that look at the middle of the cube; radians, OpenCV axes."""
    flat = elevation.cos()
    back = torch.stack([azimuth.sin() * flat, elevation.sin(), azimuth.cos() * flat], -1)
    right = torch.stack([azimuth.cos(), torch.zeros_like(azimuth), -azimuth.sin()], -1)
    down = torch.linalg.cross(-back, right, dim=-1)
    return torch.stack([right, down, -back, radius[..., None] * back], -1)


def pixel_rays(
    c2w: Float[Tensor, "*n 3 4"], fov: Float[Tensor, "*n"], xy: Float[Tensor, "*n m 2"]
) -> tuple[Float[Tensor, "*n m 3"], Float[Tensor, "*n m 3"]]:
    """Origins and unit directions of rays through places of square pictures, from (0, 0) to (1, 1)."""
    reach = (fov / 2).tan()[..., None]
    x, y = (2 * xy[..., 0] - 1) * reach, (2 * xy[..., 1] - 1) * reach
    away = torch.stack([x, y, torch.ones_like(x)], -1)
    rays_d = away @ c2w[..., :3].transpose(-1, -2)
    rays_o = c2w[..., None, :, 3].expand_as(rays_d)
    return rays_o, rays_d / rays_d.norm(dim=-1, keepdim=True)


def pixel_places(size: int) -> Float[Tensor, "n 2"]:
    """The middles of all pixels of a square picture, row after row, between (0, 0) and (1, 1)."""
    steps = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], -1)


def distance_for(fov: float) -> float:
    """From which the unit ball just fills a square picture of this angle (radians)."""
    return 1.0 / math.sin(fov / 2)
