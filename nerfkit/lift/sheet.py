"""Pictures of what was lifted: views side by side, what of them was seen in the photo, how like the photo it is."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nerfkit.aside import file_aside
from nerfkit.cameras import Cameras
from nerfkit.lift.framing import Framing
from nerfkit.lift.scene import FOV, picture_of, pose_of
from nerfkit.lift.volume import Volume, distance_for
from nerfkit.render import Model, render_image
from nerfkit.types import Rendered

Rgba = UInt8[np.ndarray, "s s 4"]
_SIDE, _SMALL = 160, 96
_AZIMUTHS = (0.0, 45.0, 90.0, 135.0, 180.0, 225.0, 270.0, 315.0)
_GUESSED = (0.86, 0.44, 0.18)
"""Colour that is laid over what was guessed."""
_NEAR = 0.06
"""How near to what the photo shows a place must be to count as seen, in units of the object's radius."""


def camera_at(azimuth: float, elevation: float, fov: float, radius: float, size: int) -> Cameras:
    """A camera that looks at the object; degrees."""
    focal = size / 2 / math.tan(math.radians(fov) / 2)
    pose = torch.from_numpy(pose_of(azimuth, elevation, radius))[None]
    return Cameras.pinhole(pose, focal, size, size)


def straight(seen: Rendered, background: float = 1.0) -> Rgba:
    """A render over a grey as a picture with straight alpha."""
    alpha = seen.opacity[..., None].clamp(0, 1)
    rgb = ((seen.rgb - background * (1 - alpha)) / alpha.clamp(min=1e-3)).clamp(0, 1)
    return (255 * torch.cat([rgb, alpha], -1)).round().byte().numpy()


def view_of(model: Model, azimuth: float, elevation: float, size: int) -> Rgba:
    """What a field looks like from around; degrees."""
    return straight(render_image(model, camera_at(azimuth, elevation, FOV, distance_for(math.radians(FOV)), size), 0))


def sheet(photo: Framing, lifted: Volume | Model) -> UInt8[np.ndarray, "h w 3"]:
    """The photo, and eight views from all around at its height; smaller ones of a volume, which has no more to show."""
    if isinstance(lifted, Volume):
        views = [picture_of(lifted, azimuth, photo.elevation, _SMALL, n_samples=48) for azimuth in _AZIMUTHS]
    else:
        views = [view_of(lifted, azimuth, photo.elevation, _SIDE) for azimuth in _AZIMUTHS]
    tiles = [photo.scaled(views[0].shape[0]).rgba, *views]
    blank = np.zeros_like(tiles[0])
    rows = [[tiles[0], *tiles[1:5]], [blank, *tiles[5:]]]
    return _on_white(np.concatenate([np.concatenate(row, 1) for row in rows], 0))


def _on_white(rgba: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w 3"]:
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def write_picture(path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> Path:
    """Write a PNG, whole or not at all."""
    with file_aside(path) as aside:
        cv2.imwrite(str(aside), rgb[..., ::-1])
    return path


def seen_share(model: Model, photo: Framing, cameras: Cameras) -> tuple[Rendered, Float[Tensor, "h w"]]:
    """What a camera sees, and how much of each pixel the photo showed: 1 of what it saw, 0 of what was guessed."""
    size = int(cameras.width[0])
    seen = render_image(model, cameras, 0)
    front = camera_at(0.0, photo.elevation, photo.fov, photo.radius, size)
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
        camera = camera_at(azimuth, photo.elevation, FOV, distance_for(math.radians(FOV)), _SIDE)
        seen, share = seen_share(model, photo, camera)
        tint = torch.tensor(_GUESSED) * seen.rgb.mean(-1, keepdim=True)
        guessed = ((1 - share) * seen.opacity)[..., None]
        mixed = seen.rgb + 0.6 * guessed * (tint - seen.rgb)
        tiles.append((255 * mixed.clamp(0, 1)).round().byte().numpy())
    return np.concatenate([np.concatenate(tiles[:4], 1), np.concatenate(tiles[4:], 1)], 0)


def reference_scores(model: Model, photo: Framing) -> dict[str, float]:
    """PSNR over white, and the outline's intersection over union, of the photo and a render from its place."""
    size = photo.rgba.shape[0]
    render = straight(render_image(model, camera_at(0.0, photo.elevation, photo.fov, photo.radius, size), 0))
    a, b = _on_white(render) / 255, _on_white(photo.rgba) / 255
    mine, there = render[..., 3] > 127, photo.rgba[..., 3] > 127
    error = max(float(np.square(a - b).mean()), 1e-10)
    return {"psnr": -10 * math.log10(error), "iou": float((mine & there).sum() / max((mine | there).sum(), 1))}
