"""Pictures cut out as `nerfkit lift` cuts them, which knows no frame, and where the world lies then.

A photo tells neither how large its object is nor where its middle lies. Whoever lifts it takes the outline to fill the
frame about its middle; what is then called the world is the true one, moved, turned about the vertical and scaled. The
prior learns from such pictures, and from some of which it is told the true frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from nerfkit.lift.framing import Cut, Similarity, window


@dataclass(frozen=True)
class Picture:
    """What a camera sees."""

    rgba: Tensor
    """(s, s, 4) straight, [0, 1]."""
    depth: Tensor
    """(s, s) z, 0 where nothing is."""
    normals: Tensor
    """(s, s, 3) in the camera."""
    c2w: Tensor
    """(3, 4), OpenCV axes, y up."""
    fov: float
    """Radians."""

    @property
    def camera(self) -> Tensor:
        """(3,) elevation, field of view, distance, as `LiftNet` takes it; the camera looks at the origin."""
        eye = self.c2w[:, 3]
        return torch.stack([torch.asin(eye[1] / eye.norm()), torch.tensor(self.fov), eye.norm()])


def unmoved() -> Similarity:
    """Which leaves all where it is."""
    return Similarity(torch.eye(3), torch.zeros(3), 1.0)


def framed(picture: Picture) -> tuple[Picture, Similarity]:
    """The picture cut to its window, and where the world lies then. Raises LiftError for too few pixels."""
    size = picture.rgba.shape[0]
    top, left, side = window(picture.rgba[..., 3].numpy() > 0.5)
    cut = Cut.of(picture.c2w, picture.fov, (top, left, side), size)
    steps = (torch.arange(size) + 0.5) / size * side
    y, x = torch.meshgrid(top + steps, left + steps, indexing="ij")
    light = torch.cat([picture.rgba[..., :3] * picture.rgba[..., 3:], picture.rgba[..., 3:]], -1)
    rgba = _sampled(light, x, y, "bilinear")
    rgba = torch.cat([(rgba[..., :3] / rgba[..., 3:].clamp(min=1e-4)).clamp(0, 1), rgba[..., 3:]], -1)
    near = _sampled(torch.cat([picture.depth[..., None], picture.normals], -1), x, y, "nearest")
    reach = math.tan(picture.fov / 2)
    rays = torch.stack([(2 * x / size - 1) * reach, (2 * y / size - 1) * reach, torch.ones_like(x)], -1)
    depth = cut.world.scale * near[..., 0] * (rays @ cut.axis)
    normals = near[..., 1:] @ (cut.c2w[:, :3].T @ cut.world.turn @ picture.c2w[:, :3]).T
    return Picture(rgba, depth, normals, cut.c2w, cut.fov), cut.world


def _sampled(values: Tensor, x: Tensor, y: Tensor, how: str) -> Tensor:
    """(s, s, c) at these places, pixels; nothing beyond the edges."""
    size = values.shape[0]
    at = torch.stack([x, y], -1)[None] * 2 / size - 1
    found = grid_sample(values.permute(2, 0, 1)[None], at, mode=how, padding_mode="zeros", align_corners=False)
    return found[0].permute(1, 2, 0)
