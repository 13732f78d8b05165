"""Pictures of what was lifted: views side by side, what of them was seen in the photo, how like the photo it is."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nerfkit.aside import file_aside
from nerfkit.cameras import Cameras
from nerfkit.lift.bench import over_white, scored
from nerfkit.lift.framing import Framing
from nerfkit.lift.scene import cameras_at, picture_of, whole
from nerfkit.lift.volume import Volume
from nerfkit.render import Model, render_image
from nerfkit.types import Rendered

Rgba = UInt8[np.ndarray, "s s 4"]
_SIDE, _SMALL = 160, 96
_AZIMUTHS = (0.0, 45.0, 90.0, 135.0, 180.0, 225.0, 270.0, 315.0)
_GUESSED = (0.86, 0.44, 0.18)
"""Colour that is laid over what was guessed."""
_NEAR = 0.06
"""How near to what the photo shows a place must be to count as seen, in units of the object's radius."""


def straight(seen: Rendered, background: float = 1.0) -> Rgba:
    """A render over a grey as a picture with straight alpha."""
    alpha = seen.opacity[..., None].clamp(0, 1)
    rgb = ((seen.rgb - background * (1 - alpha)) / alpha.clamp(min=1e-3)).clamp(0, 1)
    return (255 * torch.cat([rgb, alpha], -1)).round().byte().numpy()


def view_of(model: Model, azimuth: float, elevation: float, size: int) -> Rgba:
    """What a field looks like from around; degrees."""
    return straight(render_image(model, whole([(azimuth, elevation)], size), 0))


def sheet(photo: Framing, lifted: Volume | Model) -> UInt8[np.ndarray, "h w 3"]:
    """The photo, and eight views from all around at its height; smaller ones of a volume, which has no more to show."""
    if isinstance(lifted, Volume):
        views = [picture_of(lifted, azimuth, photo.elevation, _SMALL, n_samples=48) for azimuth in _AZIMUTHS]
    else:
        views = [view_of(lifted, azimuth, photo.elevation, _SIDE) for azimuth in _AZIMUTHS]
    tiles = [photo.scaled(views[0].shape[0]).rgba, *views]
    blank = np.zeros_like(tiles[0])
    rows = [[tiles[0], *tiles[1:5]], [blank, *tiles[5:]]]
    whole_sheet = np.concatenate([np.concatenate(row, 1) for row in rows], 0)
    return np.rint(255 * over_white(whole_sheet)).astype(np.uint8)


def write_picture(path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> Path:
    """Write a PNG, whole or not at all."""
    with file_aside(path) as aside:
        cv2.imwrite(str(aside), rgb[..., ::-1])
    return path


def seen_share(model: Model, photo: Framing, cameras: Cameras) -> tuple[Rendered, Float[Tensor, "h w"]]:
    """What a camera sees, and how much of each pixel the photo showed: 1 of what it saw, 0 of what was guessed."""
    size = int(cameras.width[0])
    seen = render_image(model, cameras, 0)
    front = cameras_at([(0.0, photo.elevation)], photo.fov, photo.radius, size)
    shown = render_image(model, front, 0)
    rays = cameras.rays(torch.zeros(size * size, dtype=torch.long), cameras.pixel_grid(0).reshape(-1, 2))
    places = rays.rays_o + seen.distance.reshape(-1, 1) * rays.rays_d
    c2w = front.c2w[0]
    local = (places - c2w[:, 3]) @ c2w[:, :3]
    z = local[:, 2].clamp(min=1e-3)
    pixel = (local[:, :2] / z[:, None] * front.fl_x[0] + size / 2).floor().long()
    inside = ((pixel >= 0) & (pixel < size)).all(1)
    x, y = pixel.clamp(0, size - 1).unbind(1)
    near = (shown.depth[y, x] - z).abs() < _NEAR
    return seen, (inside & near & (shown.opacity[y, x] > 0.5)).view(size, size).float()


def seen_sheet(model: Model, photo: Framing) -> UInt8[np.ndarray, "h w 3"]:
    """Views from all around, with a colour over what the photo does not show."""
    tiles = []
    for azimuth in _AZIMUTHS:
        camera = whole([(azimuth, photo.elevation)], _SIDE)
        seen, share = seen_share(model, photo, camera)
        tint = torch.tensor(_GUESSED) * seen.rgb.mean(-1, keepdim=True)
        guessed = ((1 - share) * seen.opacity)[..., None]
        mixed = seen.rgb + 0.6 * guessed * (tint - seen.rgb)
        tiles.append((255 * mixed.clamp(0, 1)).round().byte().numpy())
    return np.concatenate([np.concatenate(tiles[:4], 1), np.concatenate(tiles[4:], 1)], 0)


def reference_scores(model: Model, photo: Framing) -> dict[str, float]:
    """How like the photo a render from its place is: see `bench.scored`."""
    size = photo.rgba.shape[0]
    front = cameras_at([(0.0, photo.elevation)], photo.fov, photo.radius, size)
    return scored(straight(render_image(model, front, 0)), photo.rgba)
