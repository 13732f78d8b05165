"""Training pixels: where a view's pixels lie in one row of all, where each of them looks, and what it saw.

Looking up views, cameras, directions and colours as a chain of tensor operations would cost several times as much as
the arithmetic.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, no_type_check

import torch
import warp as wp
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from nerfkit.kernels.launch import array, launch
from nerfkit.types import Rays


@dataclass(frozen=True)
class Views:
    """Pictures whose pixels lie in one row, view after view, and their cameras; all on one device."""

    places: Int[Tensor, "n_views 3"]
    """(end, base, width), int64: the row's index after the view's last pixel; what to subtract from an index in the row
    for one in the picture or, if there are ``directions``, in those; pixels in a row of the picture."""
    c2w: Float[Tensor, "n_views 3 4"]
    """Camera to model: OpenCV axes of unit length, and the position in model coordinates."""
    intrinsics: Float[Tensor, "n_views 4"]
    """(fl_x, fl_y, cx, cy), pixels."""
    directions: Float[Tensor, "n_directions 3"]
    """Unit directions through centres of pixels, in the axes of their camera; empty: all cameras are pinholes."""

    @cached_property
    def arrays(self) -> list[Any]:
        """All of it as the kernel takes it: a view of a tensor costs as much as the kernel itself, so they are kept."""
        rows = [array(rows, wp.vec4f) for rows in (self.c2w, self.intrinsics)]
        return [array(self.places, wp.int64), *rows, array(self.directions, wp.vec3f)]


@wp.kernel(module="nerfkit.kernels.pixels", grid_stride=False)
@no_type_check
def _pixel_rays(
    first: int,
    picked: wp.array(dtype=wp.int64),
    places: wp.array2d(dtype=wp.int64),
    c2w: wp.array2d(dtype=wp.vec4f),
    intrinsics: wp.array(dtype=wp.vec4f),
    directions: wp.array(dtype=wp.vec3f),
    rays: wp.array2d(dtype=wp.vec3f),
    cos: wp.array(dtype=float),
):
    i = first + wp.tid()
    pixel = picked[i]
    view = int(0)
    last = places.shape[0] - 1
    while view < last:
        middle = (view + last) / 2
        if pixel < places[middle, 0]:
            last = middle
        else:
            view = middle + 1
    at = pixel - places[view, 1]
    d = wp.vec3f()
    if directions.shape[0] > 0:
        d = directions[int(at)]
    else:
        lens = intrinsics[view]
        width = places[view, 2]
        x = (float(at % width) + 0.5 - lens[2]) / lens[0]
        y = (float(at / width) + 0.5 - lens[3]) / lens[1]
        d = wp.vec3f(x, y, 1.0) / wp.sqrt(x * x + y * y + 1.0)
    toward = wp.vec4f(d[0], d[1], d[2], 0.0)
    a = c2w[view, 0]
    b = c2w[view, 1]
    c = c2w[view, 2]
    rays[0, i] = wp.vec3f(a[3], b[3], c[3])
    rays[1, i] = wp.vec3f(wp.dot(a, toward), wp.dot(b, toward), wp.dot(c, toward))
    cos[i] = d[2]


def pixel_rays(picked: Int[Tensor, " n"], views: Views) -> Rays:
    """Rays, in model coordinates, through the centres of pixels of the row (int64, within it: nothing checks that)."""
    n, device = len(picked), picked.device
    rays, cos = torch.empty(2, n, 3, device=device), torch.empty(n, device=device)
    launch(_pixel_rays, n, [picked, *views.arrays, array(rays, wp.vec3f), cos], device)
    return Rays(*rays.unbind(), cos)


@wp.kernel(module="nerfkit.kernels.pixels", grid_stride=False)
@no_type_check
def _pixel_colors(
    first: int,
    picked: wp.array(dtype=wp.int64),
    values: wp.array2d(dtype=wp.uint8),
    background: wp.array(dtype=wp.vec3f),
    colors: wp.array(dtype=wp.vec3f),
):
    i = first + wp.tid()
    pixel = picked[i]
    color = wp.vec3f(float(values[pixel, 0]), float(values[pixel, 1]), float(values[pixel, 2])) / 255.0
    if values.shape[1] == 4:
        alpha = float(values[pixel, 3]) / 255.0
        color = background[i] + alpha * (color - background[i])
    colors[i] = color


def pixel_colors(
    picked: Int[Tensor, " n"], values: UInt8[Tensor, "n_pixels c"], background: Float[Tensor, "n 3"]
) -> Float[Tensor, "n 3"]:
    """Colours in [0, 1] of pixels of the row (int64, within it), RGB or RGBA bytes, over a background."""
    colors = torch.empty(len(picked), 3, device=picked.device)
    inputs = [picked, values, array(background, wp.vec3f), array(colors, wp.vec3f)]
    launch(_pixel_colors, len(picked), inputs, picked.device)
    return colors
