"""What a picture says of the bits that a scene carries.

The picture is laid onto what the unmarked scene would show from where it was taken; what is left between the two is
what the mark added, and what was done to the picture since: compression, noise, a little blur, other light. The
carriers hear it through one backward pass (`carriers`), pixels counting the less the more the two differ around them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nerfkit.kernels.launch import parallel
from nerfkit.render import Model, background_color
from nerfkit.stego.carriers import LUMA, Carriers, gradient_of
from nerfkit.stego.landmarks import Landmarks, Projective
from nerfkit.types import Rays, Rendered

SIDE = 400
"""Pixels of the longer side in which a picture is read: the carriers are a few of them wide."""
_BLURS = (0.0, 0.5, 0.8, 1.2, 1.7, 2.4)
"""Pixels of Gaussian blur, of which the one is taken that fits the picture best."""
_NEAR = 4.0
"""Pixels around one, whose differences say how far it can be trusted."""
_WIDE = 12.0
"""Pixels over which light is taken to be even."""
_FLOOR = 0.004
"""Differences in luminance that a good picture has: rounding, and a camera that is found to a fifth of a pixel."""
_SMOOTH = (3.0, 1.0, 0.0)
"""Pixels of blur under which picture and host are laid onto one another, one after the other."""
_FAR = 4.0
"""Pixels that one such step moves a picture, at most."""
_ROUNDS = 3
_LEAST_SHOWN = 0.01
"""Share of a picture that the scene fills, below which the camera cannot be right, or nothing can be read."""
_GLANCE, _ALIKE = 96, 0.7
"""Pixels across in which a picture is compared with what a camera would show, and the correlation that they need."""


@dataclass(frozen=True)
class Host:
    """What the unmarked scene shows, in the size in which a picture is read."""

    rgb: Float[Tensor, "h w 3"]
    opacity: Float[Tensor, "h w"]
    points: Float[Tensor, "h w 3"]
    """Where rays end, scene coordinates."""
    counts: Tensor
    rays: Rays
    """In model coordinates."""


def read_picture(
    model: Model, carriers: Carriers, landmarks: Landmarks, picture: UInt8[np.ndarray, "h w 3"], background: str
) -> Float[Tensor, " n"] | None:
    """How well each carrier's pattern, coin up, agrees with a picture; None where it does not show the scene."""
    height, width = picture.shape[:2]
    camera = next((c for c in landmarks.cameras_of(picture) if _shows(model, c, picture, background)), None)
    if camera is None:
        return None
    factor = SIDE / max(height, width)
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if factor < 1.0 else cv2.INTER_CUBIC)
    camera = camera.scaled(size[0] / width, size[1] / height)
    host = _host(model, camera, size, background)
    seen = torch.from_numpy(picture).float() / 255 @ torch.tensor(LUMA)
    difference, solid = _difference(seen, host, camera)
    upstream = (difference * solid)[..., None] * torch.tensor(LUMA)
    used = (solid > 0).reshape(-1)
    rays = host.rays[used]
    return carriers.answer(gradient_of(model, rays, upstream.reshape(-1, 3)[used].to(model.device), host.counts[used]))


def _shows(model: Model, camera: Projective, picture: UInt8[np.ndarray, "h w 3"], background: str) -> bool:
    """Whether a picture is, roughly, what the scene shows a camera."""
    height, width = picture.shape[:2]
    factor = _GLANCE / max(height, width)
    size = max(round(width * factor), 2), max(round(height * factor), 2)
    host = _host(model, camera.scaled(size[0] / width, size[1] / height), size, background)
    solid = host.opacity > 0.9
    if float(solid.float().mean()) < _LEAST_SHOWN:
        return False
    small = torch.from_numpy(cv2.resize(picture, size, interpolation=cv2.INTER_AREA)).float() @ torch.tensor(LUMA)
    a, b = _blurred(small, 1.0)[solid], _blurred(host.rgb @ torch.tensor(LUMA), 1.0)[solid]
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1]) > _ALIKE


def _host(model: Model, camera: Projective, size: tuple[int, int], background: str) -> Host:
    """The scene as a camera sees it, in a picture of ``size`` (width, height)."""
    width, height = size
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    rays = camera.rays(torch.stack([x, y], -1).reshape(-1, 2))
    behind = None if background == "sky" else background_color(background).expand(len(rays), 3)

    def look(part: Tensor) -> Rendered:
        return model.render(rays[part], None if behind is None else behind[part])

    pieces = parallel(look, list(torch.arange(len(rays)).split(4096)), model.device)
    rgb, opacity, distance, counts = (
        torch.cat([getattr(piece, name) for piece in pieces]).cpu() for name in ("rgb", "opacity", "distance", "counts")
    )
    points = rays.rays_o + rays.rays_d * distance[:, None]
    inside = model.frame.model_rays(rays).to(model.device)
    grid = (height, width)
    return Host(rgb.view(*grid, 3), opacity.view(grid), points.view(*grid, 3), counts.to(model.device), inside)


def _difference(
    seen: Float[Tensor, "h w"], host: Host, camera: Projective
) -> tuple[Float[Tensor, "h w"], Float[Tensor, "h w"]]:
    """What the picture shows beyond the host, in luminance, times how much each pixel counts; and which do.

    The picture is moved onto the host, which is blurred and scaled in brightness as fits the picture best.
    """
    expected = host.rgb @ torch.tensor(LUMA)
    solid = (_blurred(host.opacity, 1.0) > 0.9).float()
    moves = _moves(host, solid, camera)
    moved, total = seen, torch.zeros(*seen.shape, 2)
    for sigma in _SMOOTH:
        total = total + _fit(_blurred(moved, sigma), _blurred(expected, sigma), solid, moves).shift
        moved = _resampled(seen, total)
    fits = {sigma: _fit(moved, _blurred(expected, sigma), solid, moves) for sigma in _BLURS}
    sigma = min(fits, key=lambda sigma: fits[sigma].error)
    difference = fits[sigma].difference
    around = _blurred(solid, _WIDE).clamp_min(1e-3)
    difference = (difference - _blurred(difference * solid, _WIDE) / around) * solid
    variance = _blurred(difference**2 * solid, _NEAR) / _blurred(solid, _NEAR).clamp_min(1e-3)
    # The carriers were blurred as well: what they hear of a blurred pattern is its blur once more.
    return _blurred(difference / (variance + _FLOOR**2) * solid, sigma), solid


def _moves(host: Host, solid: Float[Tensor, "h w"], camera: Projective) -> Float[Tensor, "h w n"]:
    """Fields that a small move of the camera, to first order, or a bend of its lens of third order, is a sum of."""
    height, width = solid.shape
    x = torch.linspace(-1, 1, width).expand(height, width)
    y = torch.linspace(-1, 1, height)[:, None].expand(height, width)
    depth = host.points @ torch.from_numpy(camera.matrix[2, :3]).float() + float(camera.matrix[2, 3])
    near = 1.0 / depth.clamp_min(1e-6)
    near = (near / near[solid > 0].mean() - 1.0) * solid
    return torch.stack([*(x**i * y**j for i in range(4) for j in range(4 - i)), near, near * x, near * y], -1)


@dataclass(frozen=True)
class Fit:
    """How a picture lies on what it should show."""

    difference: Float[Tensor, "h w"]
    """In the brightness of the host."""
    error: float
    """Its mean size."""
    shift: Float[Tensor, "h w 2"]
    """Pixels (x, y) by which the picture is off."""


def _fit(
    seen: Float[Tensor, "h w"], shown: Float[Tensor, "h w"], solid: Float[Tensor, "h w"], moves: Float[Tensor, "h w n"]
) -> Fit:
    """seen ~ gain * shown + offset + slopes of shown * moves, by robust least squares."""
    down, across = torch.gradient(shown)
    even = torch.ones_like(shown)
    a = torch.cat([shown[..., None], even[..., None], across[..., None] * moves, down[..., None] * moves], -1)
    a, b, some = a.flatten(0, 1), seen.flatten(), solid.flatten()
    scale = a.square().mean(0).sqrt().clamp_min(1e-9)
    a, weight = a / scale, some
    for _ in range(_ROUNDS):
        normal = (a.T @ (a * weight[:, None])).double()
        normal += 1e-5 * normal.diagonal().mean() * torch.eye(len(normal))
        found = torch.linalg.solve(normal, (a.T @ (b * weight)).double()).float()
        off = b - a @ found
        size = (off.abs() * some).sum() / some.sum()
        weight = some / (1.0 + (off / (2.0 * size).clamp_min(1e-4)) ** 2)
    found = found / scale
    gain = float(found[0].clamp_min(0.1))
    n = moves.shape[-1]
    shift = -torch.stack([moves @ found[2 : 2 + n], moves @ found[2 + n :]], -1) / gain
    return Fit((off / gain).view_as(seen), float(size) / gain, shift.clamp(-_FAR, _FAR))


def _resampled(seen: Float[Tensor, "h w"], shift: Float[Tensor, "h w 2"]) -> Float[Tensor, "h w"]:
    """A picture taken from where each pixel is shifted to."""
    height, width = seen.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    at = (x + shift[..., 0].numpy(), y + shift[..., 1].numpy())
    return torch.from_numpy(cv2.remap(seen.numpy(), *at, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE))


def _blurred(values: Float[Tensor, "h w"], sigma: float) -> Float[Tensor, "h w"]:
    """Gaussian blur, zeros outside."""
    if not sigma:
        return values
    return torch.from_numpy(cv2.GaussianBlur(values.numpy(), (0, 0), sigma, borderType=cv2.BORDER_CONSTANT))
