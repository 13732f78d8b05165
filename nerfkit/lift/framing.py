"""Where a picture is taken to have been taken from, and what the networks see of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from nerfkit.lift.photo import LiftError, premultiplied, straightened
from nerfkit.lift.prior import SIZE
from nerfkit.lift.volume import distance_for, orbiting

_FILL = 0.85
"""Share of the frame's side that the object's longer side takes."""
_LEAST, _SPECK = 16, 0.01
"""Pixels of the longer side, at least; pieces of which the largest is a hundred times as large have no say in it."""
_ELEVATIONS, _FOVS = (-30.0, 89.0), (10.0, 110.0)
"""Degrees that a camera may have."""


@dataclass(frozen=True)
class Framing:
    """A square picture of an object, and the camera that took it: it looks at the middle of the unit ball."""

    rgba: UInt8[np.ndarray, "s s 4"]
    """Straight alpha."""
    elevation: float
    fov: float
    """Degrees."""
    radius: float
    """Distance from the middle of the object, in units of its radius."""

    @property
    def camera(self) -> Float[Tensor, "1 3"]:
        """As `LiftNet` takes it."""
        return torch.tensor([[math.radians(self.elevation), math.radians(self.fov), self.radius]])

    def seen(self, size: int = SIZE) -> Float[Tensor, "1 4 size size"]:
        """The picture as a network takes it, [0, 1]; colours under alpha count by their alpha."""
        scaled = self.scaled(size).rgba.astype(np.float32) / 255
        return torch.from_numpy(scaled).permute(2, 0, 1)[None]

    def scaled(self, size: int) -> Framing:
        """The same picture of another size."""
        if size == self.rgba.shape[0]:
            return self
        how = cv2.INTER_AREA if size < self.rgba.shape[0] else cv2.INTER_LINEAR
        light = cv2.resize(premultiplied(self.rgba), (size, size), interpolation=how)
        return replace(self, rgba=straightened(light))

    def looking(self, elevation: float, fov: float) -> Framing:
        """The same picture, taken from elsewhere. Raises LiftError where no camera can be there."""
        for name, value, (low, high) in (("elevation", elevation, _ELEVATIONS), ("fov", fov, _FOVS)):
            if not low <= value <= high:
                raise LiftError(f"--{name} {value:g}: expected {low:g} to {high:g} degrees")
        return replace(self, elevation=elevation, fov=fov, radius=distance_for(math.radians(fov)))


@dataclass(frozen=True)
class Similarity:
    """Where the world lies: x -> scale * turn (x - middle)."""

    turn: Float[Tensor, "3 3"]
    middle: Float[Tensor, " 3"]
    scale: float

    def points(self, x: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        """Places."""
        return self.scale * self.directions(x - self.middle)

    def directions(self, x: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        """Directions, as long as they were."""
        return x @ self.turn.T

    def cameras(self, c2w: Float[Tensor, "*n 3 4"]) -> Float[Tensor, "*n 3 4"]:
        """Cameras that see there what they saw before."""
        return torch.cat([self.turn @ c2w[..., :3], self.points(c2w[..., 3])[..., None]], -1)


@dataclass(frozen=True)
class Cut:
    """Where the world lies when a camera's picture is cut to a window, and which camera is in front of it then.

    The camera looks at the new origin from where the unit ball fills the frame. The origin lies on the ray through
    the window's middle, as near as may be to the old one. Turning a camera towards what lies off its axis bends its
    picture, which no cutting out does: that is let be.
    """

    world: Similarity
    axis: Float[Tensor, " 3"]
    """Unit, the new camera's, in the old one's coordinates."""
    elevation: float
    fov: float
    """Radians."""

    @classmethod
    def of(cls, c2w: Float[Tensor, "3 4"], fov: float, window: tuple[int, int, int], size: int) -> Cut:
        """Of a square picture of ``size`` pixels, whose camera sees through ``fov`` radians; see `window`."""
        top, left, side = window
        reach = math.tan(fov / 2)
        across, down = ((2 * edge + side) / size * reach - reach for edge in (left, top))
        axis = torch.tensor([across, down, 1.0])
        narrow = 2 * math.atan(reach * side / size / float(axis.norm()))
        axis = axis / axis.norm()
        forward, eye = c2w[:, :3] @ axis, c2w[:, 3]
        middle = eye - (eye @ forward) * forward
        azimuth, elevation = math.atan2(-forward[0], -forward[2]), math.asin(-float(forward[1]))
        cos, sin = math.cos(azimuth), math.sin(azimuth)
        turn = torch.tensor([[cos, 0.0, -sin], [0.0, 1.0, 0.0], [sin, 0.0, cos]])
        world = Similarity(turn, middle, distance_for(narrow) / float((middle - eye).norm()))
        return cls(world, axis, elevation, narrow)

    @property
    def c2w(self) -> Float[Tensor, "3 4"]:
        """The camera in front."""
        return orbiting(*(torch.tensor(x) for x in (0.0, self.elevation, distance_for(self.fov))))


def framed(
    rgb: UInt8[np.ndarray, "h w 3"],
    alpha: UInt8[np.ndarray, "h w"],
    elevation: float = 20.0,
    fov: float = 40.0,
    reach: float = 1.0,
) -> Framing:
    """The object cut out of its picture and put into its `window`, which raises LiftError; degrees."""
    y, x, side = window(alpha > 127, reach)
    rgba = np.zeros((side, side, 4), np.uint8)
    height, width = alpha.shape
    inside = np.s_[max(y, 0) : min(y + side, height), max(x, 0) : min(x + side, width)]
    placed = np.s_[inside[0].start - y : inside[0].stop - y, inside[1].start - x : inside[1].stop - x]
    rgba[placed] = np.concatenate([rgb[inside], alpha[inside][..., None]], -1)
    return Framing(rgba, 0.0, 40.0, 1.0).looking(elevation, fov)


def window(there: Bool[np.ndarray, "h w"], reach: float = 1.0) -> tuple[int, int, int]:
    """Upper and left edge and side of the square that the object's longer side fills to `_FILL`, pixels.

    An object is as tall from all sides, seen from one height, and wider from some: ``reach`` is the most of `breadth`
    of all its pictures, by which it has the same size in each.

    Raises LiftError where it has too few pixels to be told from others.
    """
    (top, left), (bottom, right) = _box(there)
    longer = max(bottom - top, right - left)
    if longer < _LEAST:
        raise LiftError(f"the object is {right - left}x{bottom - top} pixels, expected at least {_LEAST} one way")
    side = round(max(longer, reach * (bottom - top)) / _FILL)
    return (top + bottom - side) // 2, (left + right - side) // 2, side


def breadth(there: Bool[np.ndarray, "h w"]) -> float:
    """How many times as wide as tall an object is in its picture."""
    (top, left), (bottom, right) = _box(there)
    return (right - left) / (bottom - top)


def _box(there: Bool[np.ndarray, "h w"]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Upper left and lower right of what is there, but for specks, as cutting out leaves them."""
    n, pieces, stats, _ = cv2.connectedComponentsWithStats(there.astype(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    large = [i for i in range(1, n) if areas[i] >= _SPECK * areas[1:].max()]
    inside = np.argwhere(np.isin(pieces, large))
    (top, left), (bottom, right) = inside.min(0).tolist(), (inside.max(0) + 1).tolist()
    return (top, left), (bottom, right)
