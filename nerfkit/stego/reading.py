"""What a picture says of the bits that a scene carries.

The picture is laid onto what the unmarked scene would show from where it was taken (`registration`); what is left
between the two is what the mark added, and what was done to the picture since: compression, noise, a little blur, other
light. The carriers hear it through one backward pass (`carriers`), pixels counting the less the more the two differ
around them.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from nerfkit.render import Model
from nerfkit.stego.carriers import LUMA, Carriers, gradient_of
from nerfkit.stego.landmarks import Landmarks
from nerfkit.stego.pinhole import Projective
from nerfkit.stego.registration import Host, host_of, likeness, registered, residual

_GLANCE = 100
"""Pixels of the longer side in which a picture is compared with what a camera would show."""
_ALIKE = 0.7
"""The correlation that they need."""
_SURE = 0.97
"""The correlation from which on no further camera is looked at."""
_SIDE = 400
"""Pixels in which it is laid onto the scene, at most."""
_LEAST = 320
"""And at least."""
_HEARD = 256
"""And in which the carriers hear what is left: each is five of them wide."""
_LEAST_SHOWN = 0.01
"""Share of a picture that the scene fills, below which the camera cannot be right, or nothing can be read."""


def read_picture(
    model: Model, carriers: Carriers, landmarks: Landmarks, picture: UInt8[np.ndarray, "h w 3"], background: str
) -> Float[Tensor, " n"] | None:
    """How well each carrier's pattern, coin up, agrees with a picture; None where it does not show the scene."""
    camera = _camera_of(model, landmarks, picture, background)
    if camera is None:
        return None
    seen, camera = _luma(picture, camera, min(_SIDE, max(*picture.shape[:2], _LEAST)))
    host = host_of(model, camera, (seen.shape[1], seen.shape[0]), background)
    if not _filled(host):
        return None
    return carriers.answer(_heard(model, residual(seen, host, registered(camera, seen, host)), host, camera))


def _camera_of(
    model: Model, landmarks: Landmarks, picture: UInt8[np.ndarray, "h w 3"], background: str
) -> Projective | None:
    """The camera of a picture, of those that may be; None where all of them would see something else."""
    best, alike = None, _ALIKE
    for guess in landmarks.cameras_of(picture):
        camera, like = _at_a_glance(model, guess, picture, background)
        if like > alike:
            best, alike = camera, like
        if alike > _SURE:
            break
    return best


def _at_a_glance(
    model: Model, camera: Projective, picture: UInt8[np.ndarray, "h w 3"], background: str
) -> tuple[Projective, float]:
    """The camera of a picture, near a guess, and how like the picture is to what it would see."""
    seen, small = _luma(picture, camera, _GLANCE)
    height, width = seen.shape
    host = host_of(model, small, (width, height), background)
    if not _filled(host):
        return camera, 0.0
    small = registered(small, seen, host)
    return small.scaled(picture.shape[1] / width, picture.shape[0] / height), likeness(seen, host, small)


def _filled(host: Host) -> bool:
    """Whether the scene fills enough of a picture."""
    return float(host.solid.float().mean()) > _LEAST_SHOWN


def _heard(
    model: Model, upstream: Float[Tensor, "h w"], host: Host, camera: Projective
) -> Float[Tensor, "entries features"]:
    """The table's gradient of <upstream, luminance of what the camera sees>, of a few rays for each carrier."""
    height, width = upstream.shape
    factor = min(1.0, _HEARD / max(height, width))
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    few = torch.from_numpy(cv2.resize(upstream.numpy(), size, interpolation=cv2.INTER_AREA)).reshape(-1)
    few = few * (width * height / (size[0] * size[1]))
    counts = adaptive_max_pool2d(host.counts[None].float(), size[::-1]).reshape(-1).long()
    used = few != 0
    rays = model.frame.model_rays(camera.scaled(size[0] / width, size[1] / height).rays_of(size))[used].to(model.device)
    colors = few[used][:, None] * torch.tensor(LUMA)
    return gradient_of(model, rays, colors.to(model.device), counts[used].to(model.device))


def _luma(
    picture: UInt8[np.ndarray, "h w 3"], camera: Projective, side: int
) -> tuple[Float[Tensor, "rows columns"], Projective]:
    """Luminance of a picture resized to this longer side, and the camera of that."""
    height, width = picture.shape[:2]
    factor = side / max(height, width)
    size = max(round(width * factor), 2), max(round(height * factor), 2)
    resized = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if factor < 1.0 else cv2.INTER_CUBIC)
    return torch.from_numpy(resized).float() / 255 @ torch.tensor(LUMA), camera.scaled(
        size[0] / width, size[1] / height
    )
