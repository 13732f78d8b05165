"""Cameras: pixels to rays and back.

Pixels are (x, y) and the first one's centre is (0.5, 0.5), so that resizing a picture only multiplies. ``c2w`` has
OpenCV axes and scene coordinates. Three lenses:

    pinhole         x' = x / z
    opencv          x' = x / z bent by OpenCV's radial-tangential model, all eight coefficients
    opencv_fisheye  radius in the picture = theta (1 + k1 theta^2 + k2 theta^4 + k3 theta^6 + k4 theta^8)

and then pixel = fl * x' + c. Coefficients stand in OpenCV's order, `DISTORTION`, whichever lens uses them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerfkit.poses import SceneError
from nerfkit.types import Rays

DISTORTION = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
LENSES = ("pinhole", "opencv", "opencv_fisheye")
NEWTON_STEPS = 6
TABLE_BYTES = 64 << 20
"""Most memory for the directions of all pixels of bent lenses; beyond, they are solved for on each call."""

_LENS_OF_MODEL = {
    "PINHOLE": "pinhole",
    "SIMPLE_PINHOLE": "pinhole",
    "SIMPLE_RADIAL": "opencv",
    "RADIAL": "opencv",
    "OPENCV": "opencv",
    "FULL_OPENCV": "opencv",
    "OPENCV_FISHEYE": "opencv_fisheye",
}


def _bend(
    k: Float[Tensor, "#n 8"], xy: Float[Tensor, "n 2"]
) -> tuple[Float[Tensor, "n 2"], tuple[Float[Tensor, " n"], ...]]:
    """OpenCV's radial-tangential model of x/z, y/z, with its symmetric Jacobian (xx, xy, yy)."""
    k1, k2, p1, p2, k3, k4, k5, k6 = k.unbind(-1)
    x, y = xy.unbind(-1)
    r2 = x * x + y * y
    over, under = 1 + r2 * (k1 + r2 * (k2 + r2 * k3)), 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
    radial = over / under
    slope = (k1 + r2 * (2 * k2 + r2 * 3 * k3) - radial * (k4 + r2 * (2 * k5 + r2 * 3 * k6))) / under
    bent_x = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    bent_y = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    xx = radial + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x
    yy = radial + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x
    return torch.stack([bent_x, bent_y], dim=-1), (xx, 2 * (x * y * slope + p1 * x + p2 * y), yy)


def _fisheye_radius(k: Float[Tensor, "#n 8"], theta: Float[Tensor, " n"]) -> tuple[Tensor, Tensor]:
    """Radius in the picture of an angle to the axis, and its derivative."""
    k1, k2, k3, k4 = k[:, 0], k[:, 1], k[:, 4], k[:, 5]
    s = theta * theta
    radius = theta * (1 + s * (k1 + s * (k2 + s * (k3 + s * k4))))
    return radius, 1 + s * (3 * k1 + s * (5 * k2 + s * (7 * k3 + s * 9 * k4)))


def _reach(lens: str, k: Float[Tensor, "n 8"]) -> Float[Tensor, " n"]:
    """Radius (tan of the angle; the angle itself for fisheye) up to which a lens maps one to one."""
    most = math.pi if lens == "opencv_fisheye" else math.tan(math.radians(85))
    radii = torch.linspace(0, most, 2049, dtype=k.dtype, device=k.device)[1:]
    each, every = k.repeat_interleave(len(radii), 0), radii.repeat(len(k))
    if lens == "opencv_fisheye":
        slope = _fisheye_radius(each, every)[1]
    else:
        each = each * each.new_tensor([1, 1, 0, 0, 1, 1, 1, 1])  # tangential terms are too small to fold a picture
        slope = _bend(each, torch.stack([every, torch.zeros_like(every)], -1))[1][0]
    folded = slope.view(len(k), -1) <= 0
    first = torch.where(folded.any(1), folded.int().argmax(1), len(radii) - 1)
    return radii[first]


def _unbend(
    lens: str, k: Float[Tensor, "n 8"], reach: Float[Tensor, " n"], bent: Float[Tensor, "n 2"]
) -> Float[Tensor, "n 3"]:
    """Directions (not normalised) that a lens maps to ``bent``; beyond its reach the last that it maps."""
    if lens == "pinhole":
        return torch.cat([bent, torch.ones_like(bent[:, :1])], dim=-1)
    if lens == "opencv_fisheye":
        radius = torch.linalg.vector_norm(bent, dim=-1)
        theta = torch.minimum(radius, reach)
        for _ in range(NEWTON_STEPS):
            value, slope = _fisheye_radius(k, theta)
            theta = torch.minimum((theta - (value - radius) / slope.clamp_min(0.05)).clamp_min(0), reach)
        sideways = bent * (torch.sin(theta) / radius.clamp_min(1e-12))[:, None]
        return torch.cat([sideways, torch.cos(theta)[:, None]], dim=-1)
    xy = bent
    for _ in range(NEWTON_STEPS):
        radius = torch.linalg.vector_norm(xy, dim=-1)
        xy = xy * torch.clamp(reach / radius.clamp_min(1e-12), max=1.0)[:, None]
        value, (xx, xy_, yy) = _bend(k, xy)
        (dx, dy), det = (value - bent).unbind(-1), (xx * yy - xy_ * xy_).clamp_min(0.05)
        xy = xy - torch.stack([yy * dx - xy_ * dy, xx * dy - xy_ * dx], dim=-1) / det[:, None]
    return torch.cat([xy, torch.ones_like(xy[:, :1])], dim=-1)


@dataclass(frozen=True)
class Cameras:
    """Calibrated cameras with one kind of lens, in scene coordinates."""

    c2w: Float[Tensor, "n 3 4"]
    """Camera-to-world, OpenCV axes."""
    fl_x: Float[Tensor, " n"]
    fl_y: Float[Tensor, " n"]
    cx: Float[Tensor, " n"]
    cy: Float[Tensor, " n"]
    """Focal lengths and principal point, pixels."""
    width: Int[Tensor, " n"]
    height: Int[Tensor, " n"]
    distortion: Float[Tensor, "n 8"]
    """Coefficients in the order of `DISTORTION`; zero for a pinhole."""
    lens: str = "pinhole"
    """One of `LENSES`."""

    @classmethod
    def pinhole(cls, c2w: Float[Tensor, "n 3 4"], fl: float | int, width: int, height: int) -> Cameras:
        """Cameras that share one pinhole with its principal point in the middle."""
        every = torch.ones(len(c2w), device=c2w.device)
        size = every.long()
        no_bend = torch.zeros(len(c2w), 8, device=c2w.device)
        half_x, half_y = every * (width / 2), every * (height / 2)
        return cls(c2w.float(), every * fl, every * fl, half_x, half_y, size * width, size * height, no_bend)

    @classmethod
    def from_intrinsics(cls, c2w: Float[Tensor, "n 3 4"], intrinsics: Sequence[Intrinsics]) -> Cameras:
        """Cameras from poses and fitted intrinsics. Raises SceneError if fisheye and other lenses are mixed."""
        lenses = {one.lens for one in intrinsics}
        if "opencv_fisheye" in lenses and len(lenses) > 1:
            raise SceneError("camera_model: fisheye and other lenses cannot share one scene")
        columns = [[getattr(one, name) for one in intrinsics] for name in ("fl_x", "fl_y", "cx", "cy")]
        fl_x, fl_y, cx, cy = torch.tensor(columns, dtype=torch.float64).float()
        width, height = torch.tensor([[one.width, one.height] for one in intrinsics]).long().T.contiguous()
        distortion = torch.tensor([one.distortion for one in intrinsics], dtype=torch.float64).float()
        return cls(c2w.float(), fl_x, fl_y, cx, cy, width, height, distortion, max(lenses, key=LENSES.index))

    def __len__(self) -> int:
        return self.c2w.shape[0]

    def __getitem__(self, which: slice | Sequence[int] | Tensor) -> Cameras:
        """A subset, in the order asked for."""
        if not isinstance(which, (slice, Tensor)):
            which = torch.tensor(which, dtype=torch.long)
        return self._each(lambda tensor: tensor[which])

    def to(self, device: torch.device | str) -> Cameras:
        """The same cameras on another device."""
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Any) -> Cameras:
        names = [field.name for field in dataclasses.fields(self) if field.name != "lens"]
        return dataclasses.replace(self, **{name: change(getattr(self, name)) for name in names})

    def at(self, c2w: Float[Tensor, "n 3 4"]) -> Cameras:
        """The same cameras at other poses; what their lenses alone decide is not computed again."""
        moved = dataclasses.replace(self, c2w=c2w)
        moved.__dict__.update({name: self.__dict__[name] for name in ("table", "_reach") if name in self.__dict__})
        return moved

    def scaled(self, factor: float | int) -> Cameras:
        """The cameras of pictures resized by ``factor``; parts of a pixel at the right and lower edge are cropped.

        A pixel is left of each side at least. Floats of 32 bits would make 419.99997 pixels of 420.
        """
        floats = {name: getattr(self, name) * factor for name in ("fl_x", "fl_y", "cx", "cy")}
        ints = {
            name: (getattr(self, name).double() * factor + 1e-6).long().clamp(min=1) for name in ("width", "height")
        }
        return dataclasses.replace(self, **floats, **ints)

    def pixel_grid(self, camera: int) -> Float[Tensor, "h w 2"]:
        """Centres (x, y) of all pixels of one camera."""
        width, height = int(self.width[camera]), int(self.height[camera])
        x = torch.arange(width, device=self.c2w.device) + 0.5
        y = torch.arange(height, device=self.c2w.device) + 0.5
        return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)

    def rays(self, camera_indices: Int[Tensor, " n"], pixels: Float[Tensor, "n 2"]) -> Rays:
        """Rays, in scene coordinates, through pixels (x, y) of cameras.

        Any real position will do, outside the picture too. Centres of pixels are looked up rather than solved for
        where the lens bends: a training step asks for thousands of them.
        """
        directions = self._directions(camera_indices, pixels)
        # Axis by axis: a third of the time of small matrix products.
        columns = self.c2w.movedim(-1, 0).contiguous()
        right, down, forward, position = (column.index_select(0, camera_indices) for column in columns)
        turned = right * directions[:, 0:1] + down * directions[:, 1:2] + forward * directions[:, 2:3]
        return Rays(position, turned, directions[:, 2])

    def project(
        self, camera_indices: Int[Tensor, " n"] | int, points: Float[Tensor, "n 3"]
    ) -> tuple[Float[Tensor, "n 2"], Float[Tensor, " n"]]:
        """Pixels (x, y) of points in scene coordinates, and their depth (z in the camera, scene units).

        ``camera_indices`` names a camera for each point, or one for all. Pixels are NaN where the lens cannot see the
        point: behind the camera, or beyond the angle up to which the distortion model maps one to one. They may lie
        outside the picture.
        """
        one = isinstance(camera_indices, int)
        which = torch.tensor([camera_indices], device=points.device) if one else camera_indices
        c2w, k, reach = (of.index_select(0, which) for of in (self.c2w, self.distortion, self._reach))
        offset = points - c2w[:, :, 3]
        local = offset @ c2w[0, :, :3] if one else torch.bmm(offset[:, None, :], c2w[:, :, :3])[:, 0]
        sideways, depth = local[:, :2], local[:, 2]
        if self.lens == "opencv_fisheye":
            aside = torch.linalg.vector_norm(sideways, dim=-1)
            theta = torch.atan2(aside, depth)
            bent = sideways * (_fisheye_radius(k, theta)[0] / aside.clamp_min(1e-12))[:, None]
            seen = theta <= reach
        else:
            bent = sideways / depth[:, None]
            seen = depth > 0
            if self.lens == "opencv":
                seen = seen & (torch.linalg.vector_norm(bent, dim=-1) <= reach)
                bent = _bend(k, bent)[0]
        focal = torch.stack([self.fl_x, self.fl_y], -1).index_select(0, which)
        centre = torch.stack([self.cx, self.cy], -1).index_select(0, which)
        return torch.where(seen[:, None], bent * focal + centre, torch.nan), depth

    @cached_property
    def _reach(self) -> Float[Tensor, " n"]:
        if self.lens == "pinhole":
            return torch.full_like(self.fl_x, torch.inf)
        kinds, kind = torch.unique(self.distortion, dim=0, return_inverse=True)
        return _reach(self.lens, kinds)[kind]

    @cached_property
    def table(self) -> tuple[Float[Tensor, "pixels 3"], Int[Tensor, " n"]] | None:
        """Unit directions, in camera axes, through all pixels of every distinct lens, and where each camera's begin.

        Line by line. None for pinholes, which need none, and where it would take more than `TABLE_BYTES`.
        """
        columns = [self.fl_x, self.fl_y, self.cx, self.cy, self.width, self.height, *self.distortion.T]
        kinds, kind = torch.unique(torch.stack([c.double() for c in columns], -1), dim=0, return_inverse=True)
        sizes = (kinds[:, 4] * kinds[:, 5]).long()
        if self.lens == "pinhole" or int(sizes.sum()) * 12 > TABLE_BYTES:
            return None
        found = []
        for number in range(len(kinds)):
            camera = int((kind == number).int().argmax())
            pixels = self.pixel_grid(camera).flatten(0, 1)
            found.append(self._solve(torch.full_like(pixels[:, 0], camera, dtype=torch.long), pixels))
        return torch.cat(found), (torch.cumsum(sizes, 0) - sizes)[kind]

    def _directions(self, camera_indices: Tensor, pixels: Tensor) -> Float[Tensor, "n 3"]:
        """Unit directions in the camera's own axes."""
        if self.lens == "pinhole" or not len(pixels) or self.table is None:
            return self._solve(camera_indices, pixels)
        cells = pixels.long()
        width = self.width.index_select(0, camera_indices)
        height = self.height.index_select(0, camera_indices)
        x, y = cells.unbind(-1)
        if not ((cells + 0.5 == pixels).all() and (x < width).all() and (y < height).all() and cells.min() >= 0):
            return self._solve(camera_indices, pixels)
        table, starts = self.table
        return table.index_select(0, starts.index_select(0, camera_indices) + y * width + x)

    def _solve(self, camera_indices: Tensor, pixels: Tensor) -> Float[Tensor, "n 3"]:
        centre = torch.stack([self.cx, self.cy], -1).index_select(0, camera_indices)
        focal = torch.stack([self.fl_x, self.fl_y], -1).index_select(0, camera_indices)
        bent = (pixels - centre) / focal
        if self.lens != "pinhole":
            k, reach = self.distortion.index_select(0, camera_indices), self._reach.index_select(0, camera_indices)
            return torch.nn.functional.normalize(_unbend(self.lens, k, reach, bent), dim=-1)
        directions = torch.nn.functional.pad(bent, (0, 1), value=1.0)
        return directions * (1 + (bent * bent).sum(-1, keepdim=True)).rsqrt()


@dataclass(frozen=True)
class Intrinsics:
    """One camera's lens as a file states it: what the file leaves open is None until the picture's size is known."""

    lens: str
    distortion: tuple[float, ...] = (0.0,) * 8
    fl_x: float | None = None
    fl_y: float | None = None
    angle_x: float | None = None
    angle_y: float | None = None
    """Fields of view, radians, used where the focal length is None."""
    cx: float | None = None
    cy: float | None = None
    width: int | None = None
    height: int | None = None

    def fitted(self, width: int, height: int, where: str) -> Intrinsics:
        """The same lens, complete, for a picture of this size.

        Where the file states another size of the same shape the numbers are scaled to the picture. Raises SceneError,
        beginning with ``where``, if the shapes differ (cropped or turned: nothing says how).
        """
        stated_w, stated_h = self.width or width, self.height or height
        if abs(stated_w * height - stated_h * width) > max(stated_w, stated_h, width, height):
            turned = ", as if turned by its EXIF note" if (stated_w > stated_h) != (width > height) else ""
            stated = f"its intrinsics are for {stated_w}x{stated_h}{turned}"
            raise SceneError(f"{where}: the picture is {width}x{height}, {stated}")
        fl_x = self.fl_x or stated_w / 2 / math.tan((self.angle_x or 1.0) / 2)
        fl_y = self.fl_y or (stated_h / 2 / math.tan(self.angle_y / 2) if self.angle_y else fl_x)
        cx = stated_w / 2 if self.cx is None else self.cx
        cy = stated_h / 2 if self.cy is None else self.cy
        by_x, by_y = width / stated_w, height / stated_h
        sizes = {"fl_x": fl_x * by_x, "fl_y": fl_y * by_y, "cx": cx * by_x, "cy": cy * by_y}
        return dataclasses.replace(self, **sizes, width=width, height=height)


def intrinsics_from_json(entry: dict[str, Any], shared: dict[str, Any], where: str) -> Intrinsics:
    """The lens of one entry of a transforms.json; what the entry leaves out is taken from ``shared``, the whole file.

    Raises SceneError, beginning with ``where`` and naming the key, for an unknown camera model, something that is not
    a finite number, or no focal length.
    """

    def number(key: str) -> float | None:
        value = entry.get(key, shared.get(key))
        if value is not None and (type(value) not in (int, float) or not math.isfinite(value)):
            raise SceneError(f"{where}: {key} is {value!r}, not a number")
        return None if value is None else float(value)

    lengths = {key: number(key) for key in ("fl_x", "fl_y", "camera_angle_x", "camera_angle_y", "w", "h")}
    for key, value in lengths.items():
        if value is not None and value <= 0:
            raise SceneError(f"{where}: {key} is {value!r}, it must be positive")
    if lengths["fl_x"] is None and lengths["camera_angle_x"] is None:
        raise SceneError(f"{where}: no focal length (fl_x, in pixels, or camera_angle_x, in radians)")
    model = entry.get("camera_model", shared.get("camera_model", "OPENCV"))
    if model not in _LENS_OF_MODEL:
        raise SceneError(f"{where}: camera_model is {model!r}; known are {', '.join(_LENS_OF_MODEL)}")
    distortion = tuple(float(number(key) or 0.0) for key in DISTORTION)
    lens = "opencv_fisheye" if entry.get("is_fisheye", shared.get("is_fisheye")) else _LENS_OF_MODEL[model]
    if lens != "opencv_fisheye":
        # Programs write PINHOLE beside coefficients and OPENCV without any: the numbers decide.
        lens = "opencv" if any(distortion) else "pinhole"
    width, height = (None if lengths[key] is None else round(lengths[key]) for key in ("w", "h"))
    angles = {"angle_x": lengths["camera_angle_x"], "angle_y": lengths["camera_angle_y"]}
    focal = {"fl_x": lengths["fl_x"], "fl_y": lengths["fl_y"]}
    return Intrinsics(lens, distortion, **focal, **angles, cx=number("cx"), cy=number("cy"), width=width, height=height)


def intrinsics_to_json(cameras: Cameras, number: int) -> dict[str, Any]:
    """The lens of one camera under the keys of transforms.json: what `intrinsics_from_json` reads."""
    bent = {} if cameras.lens == "pinhole" else dict(zip(DISTORTION, cameras.distortion[number].tolist(), strict=True))
    data = {key: float(getattr(cameras, key)[number]) for key in ("fl_x", "fl_y", "cx", "cy")}
    size = {"w": int(cameras.width[number]), "h": int(cameras.height[number])}
    return {"camera_model": cameras.lens.upper(), **size, **data, **bent}
