"""What a picture says of the bits that a scene carries, at a first look or at a close one.

The picture is laid onto what the unmarked scene would show from where it was taken (`registration`); what is left
between the two is what the mark added, and what was done to the picture since: compression, noise, a little blur, other
light. The carriers hear it through one backward pass (`carriers`), pixels counting the less the more the two differ
around them, and colours by how channels differ together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

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
from nerfkit.stego.registration import Host, host_of, likeness, lit, registered, relocated, residual

N_LOOKS = 2
"""At a picture, until the message is found. Of most pictures the first tells it, in half of the time."""
_FIRST, _CLOSE, _LEAST = 256, 512, 320
"""Pixels of the longer side in which a picture is laid onto the scene at a first look, and at a close one: at most, and
at least."""
_HEARD_FIRST, _HEARD = 144, 256
"""Pixels in which the carriers hear what is left, at most: each is three of them wide, or five."""
_ALIKE, _SURE = 0.7, 0.97
"""The correlation that a picture and what a camera shows need, and that from which on no other camera is looked at."""
_HOPEFUL, _ALMOST = 0.3, 0.99
"""Between which features of both say better where it was: what is less alike shows something else, what is more is not
many pixels off."""
_COARSE = 2.5
"""Pixels of blur under which a first look compares them: noise does not count."""
_LEAST_SHOWN = 0.01
"""Share of a picture that the scene fills, below which the camera cannot be right, or nothing can be read."""


@dataclass(frozen=True)
class Sight:
    """A picture, in the size in which it is looked at, and what the scene shows from about there."""

    model: Model
    picture: Float[Tensor, "h w 3"]
    host: Host
    camera: Projective
    """Of the host."""
    found: Projective
    """That of the picture."""

    def answer(self, carriers: Carriers, side: int) -> Float[Tensor, " n"]:
        """How well each carrier's pattern, coin up, agrees with the picture, heard in so many pixels."""
        left = residual(self.picture, self.host, self.found)
        return carriers.answer(_heard(self.model, left, self.host, self.camera, side))

    @cached_property
    def seen(self) -> Float[Tensor, "h w"]:
        """The picture's luminance."""
        return self.picture @ torch.tensor(LUMA)

    @cached_property
    def likeness(self) -> float:
        """Correlation of both, the fine things in them left out."""
        return likeness(self.seen, self.host, self.found, _COARSE)

    def relocated(self) -> Sight | None:
        """The same from where features of both say that it was taken; None where there are too few."""
        found = relocated(self.found, self.seen, self.host, self.camera)
        return None if found is None else replace(self, found=registered(found, self.seen, self.host))

    def camera_of(self, picture: UInt8[np.ndarray, "h w 3"]) -> Projective:
        """The camera of the picture in its own size."""
        height, width = self.seen.shape
        return self.found.scaled(picture.shape[1] / width, picture.shape[0] / height)


def sighted(model: Model, landmarks: Landmarks, picture: UInt8[np.ndarray, "h w 3"], background: str) -> Sight | None:
    """A picture from where it was taken; None where it does not show the scene: all cameras that may have taken it
    would see something else."""
    best, alike = None, _ALIKE
    for guess in landmarks.cameras_of(picture):
        sight = _sight(model, picture, guess, background, _FIRST)
        like = 0.0 if sight is None else sight.likeness
        again = sight.relocated() if _HOPEFUL < like < _ALMOST else None
        if again is not None and again.likeness > like:
            sight, like = again, again.likeness
        if like > alike:
            best, alike = sight, like
        if alike > _SURE:
            break
    return best


def first_look(
    model: Model, carriers: Carriers, landmarks: Landmarks, picture: UInt8[np.ndarray, "h w 3"], background: str
) -> tuple[Float[Tensor, " n"], Projective] | None:
    """How well each carrier's pattern, coin up, agrees with a picture, and its camera; None where it does not show the
    scene."""
    sight = sighted(model, landmarks, picture, background)
    return None if sight is None else (sight.answer(carriers, _HEARD_FIRST), sight.camera_of(picture))


def close_look(
    model: Model, carriers: Carriers, picture: UInt8[np.ndarray, "h w 3"], camera: Projective, background: str
) -> Float[Tensor, " n"] | None:
    """The same of more pixels, from the camera that a first look has found."""
    side = min(_CLOSE, max(*picture.shape[:2], _LEAST))
    sight = _sight(model, picture, camera, background, side)
    return None if sight is None else sight.answer(carriers, _HEARD)


def _sight(
    model: Model, picture: UInt8[np.ndarray, "h w 3"], camera: Projective, background: str, side: int
) -> Sight | None:
    """A picture of this longer side on what the scene shows a camera nearby; None where that shows next to nothing."""
    resized, camera = _resized(picture, camera, side)
    height, width = resized.shape[:2]
    seen, host = resized @ torch.tensor(LUMA), host_of(model, camera, (width, height), background)
    if float(host.solid.float().mean()) <= _LEAST_SHOWN:
        return None
    found = registered(camera, seen, host)
    if (cut := lit(host, resized, found)) is not host:
        host, found = cut, registered(found, seen, cut)
    return Sight(model, resized, host, camera, found)


def _heard(
    model: Model, upstream: Float[Tensor, "h w 3"], host: Host, camera: Projective, side: int
) -> Float[Tensor, "entries features"]:
    """The table's gradient of <upstream, colours that the camera sees>, of a few rays for each carrier."""
    height, width = upstream.shape[:2]
    factor = min(1.0, side / max(height, width))
    size = max(round(width * factor), 1), max(round(height * factor), 1)
    few = torch.from_numpy(cv2.resize(upstream.numpy(), size, interpolation=cv2.INTER_AREA)).reshape(-1, 3)
    few = few * (width * height / (size[0] * size[1]))
    counts = adaptive_max_pool2d(host.counts[None].float(), size[::-1]).reshape(-1).long()
    used = (few != 0).any(1)
    rays = model.frame.model_rays(camera.scaled(size[0] / width, size[1] / height).rays_of(size))[used].to(model.device)
    live = torch.from_numpy(cv2.resize(host.live.float().numpy(), size, interpolation=cv2.INTER_AREA)).reshape(-1, 3)
    colors = few[used] * live[used]
    return gradient_of(model, rays, colors.to(model.device), counts[used].to(model.device))


def _resized(
    picture: UInt8[np.ndarray, "h w 3"], camera: Projective, side: int
) -> tuple[Float[Tensor, "rows columns 3"], Projective]:
    """A picture resized to this longer side, and the camera of that."""
    height, width = picture.shape[:2]
    factor = side / max(height, width)
    size = max(round(width * factor), 2), max(round(height * factor), 2)
    resized = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if factor < 1.0 else cv2.INTER_CUBIC)
    return torch.from_numpy(resized).float() / 255, camera.scaled(size[0] / width, size[1] / height)
