"""What a lifted field looks like: from around, with what of it was guessed, and from the place of the photo."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nerfkit.cameras import Cameras
from nerfkit.lift.bench import scored
from nerfkit.lift.framing import Framing
from nerfkit.lift.photo import Rgba
from nerfkit.lift.scene import cameras_at, whole
from nerfkit.lift.sheet import AZIMUTHS, in_rows
from nerfkit.render import Model, render_image
from nerfkit.types import Rendered

_SIDE = 160
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


def views_of(model: Model, photo: Framing) -> list[Rgba]:
    """For `sheet`."""
    return [view_of(model, azimuth, photo.elevation, _SIDE) for azimuth in AZIMUTHS]


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
    for azimuth in AZIMUTHS:
        camera = whole([(azimuth, photo.elevation)], _SIDE)
        seen, share = seen_share(model, photo, camera)
        tint = torch.tensor(_GUESSED) * seen.rgb.mean(-1, keepdim=True)
        guessed = ((1 - share) * seen.opacity)[..., None]
        mixed = seen.rgb + 0.6 * guessed * (tint - seen.rgb)
        tiles.append((255 * mixed.clamp(0, 1)).round().byte().numpy())
    return in_rows(tiles)


def reference_scores(model: Model, photo: Framing) -> dict[str, float]:
    """How like the photo a render from its place is: see `bench.scored`."""
    size = photo.rgba.shape[0]
    front = cameras_at([(0.0, photo.elevation)], photo.fov, photo.radius, size)
    return scored(straight(render_image(model, front, 0)), photo.rgba)
