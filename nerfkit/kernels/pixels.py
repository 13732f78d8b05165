"""Training pixels: which view one of the row of all is of, where it looks, and what it saw.

Looking up views, cameras, directions and colours as a chain of tensor operations would cost several times as much as
the arithmetic. The row is one of numbers alone: every picture stays where it lies in memory, or in a file that is
mapped there, and is found by its address, so that no picture is copied.

Which view an index is of, a guide table tells (Chen and Asau 1974): the row is cut into a few times as many equal
parts as there are views, and for each part the table names the first view that reaches beyond its start. From there
the right one is two steps away at most, on average, however the sizes differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, no_type_check

import numpy as np
import torch
import warp as wp
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from nerfkit.kernels.launch import array, launch
from nerfkit.types import Rays

LIST_BYTES = 1 << 30
"""Most memory for a list of usable pixels. Where one of all pixels would take more, one in `SPARSE` is listed and the
others are counted off from there, which takes some ten times as long."""
SPARSE = 64


def _guide(ends: Int[Tensor, " n_views"]) -> list[Any]:
    """The guide table of a row whose views end at these (ascending) indices: the parts' length as a power of two, and
    the first view of each part."""
    shift = max(0, (int(ends[-1]) // (4 * len(ends))).bit_length() - 1)
    starts = torch.arange(0, int(ends[-1]), 1 << shift, device=ends.device)
    return [wp.int64(shift), array(torch.searchsorted(ends, starts, right=True).int())]


def _addresses(tensors: Sequence[Tensor]) -> Int[Tensor, " n"]:
    return torch.tensor([tensor.data_ptr() for tensor in tensors], dtype=torch.int64, device=tensors[0].device)


@wp.func
@no_type_check
def _view_of(pixel: wp.int64, shift: wp.int64, guide: wp.array(dtype=int), places: wp.array2d(dtype=wp.int64)):
    view = guide[int(wp.rshift(pixel, shift))]
    while pixel >= places[view, 0]:
        view += 1
    return view


@wp.func_native("return *(const unsigned char*)address;")
def _byte_at(address: wp.int64) -> wp.uint8: ...


@dataclass(frozen=True)
class Views:
    """Views whose pixels count as one row, and their cameras; all on one device."""

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
        return [*_guide(self.places[:, 0].contiguous()), array(self.places), *rows, array(self.directions, wp.vec3f)]


@wp.kernel(module="nerfkit.kernels.pixels", grid_stride=False)
@no_type_check
def _pixel_rays(
    first: int,
    picked: wp.array(dtype=wp.int64),
    shift: wp.int64,
    guide: wp.array(dtype=int),
    places: wp.array2d(dtype=wp.int64),
    c2w: wp.array2d(dtype=wp.vec4f),
    intrinsics: wp.array(dtype=wp.vec4f),
    directions: wp.array(dtype=wp.vec3f),
    rays: wp.array2d(dtype=wp.vec3f),
    cos: wp.array(dtype=float),
):
    i = first + wp.tid()
    pixel = picked[i]
    view = _view_of(pixel, shift, guide, places)
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


@dataclass(frozen=True)
class Pictures:
    """Pictures whose pixels count as one row, line by line and picture after picture."""

    each: Sequence[UInt8[Tensor, "_ _ _"]]
    """(h, w, channels), RGB, or RGB and straight alpha; contiguous, on one device, and not empty."""

    @cached_property
    def arrays(self) -> list[Any]:
        """The guide table, and for each picture its end, the address where the row's first pixel would lie if all of
        the row were of this picture's kind and lay before it, and its channels."""
        ends = torch.tensor([picture.shape[0] * picture.shape[1] for picture in self.each]).cumsum(0)
        starts = torch.cat([ends.new_zeros(1), ends[:-1]])
        channels = torch.tensor([picture.shape[2] for picture in self.each])
        device = self.each[0].device
        base = _addresses(self.each) - (starts * channels).to(device)
        places = torch.stack([ends.to(device), base, channels.to(device)], 1)
        return [*_guide(ends.to(device)), array(places)]


@wp.kernel(module="nerfkit.kernels.pixels", grid_stride=False)
@no_type_check
def _pixel_colors(
    first: int,
    picked: wp.array(dtype=wp.int64),
    shift: wp.int64,
    guide: wp.array(dtype=int),
    places: wp.array2d(dtype=wp.int64),
    background: wp.array(dtype=wp.vec3f),
    colors: wp.array(dtype=wp.vec3f),
):
    i = first + wp.tid()
    pixel = picked[i]
    view = _view_of(pixel, shift, guide, places)
    at = places[view, 1] + pixel * places[view, 2]
    red, green, blue = _byte_at(at), _byte_at(at + wp.int64(1)), _byte_at(at + wp.int64(2))
    color = wp.vec3f(float(red), float(green), float(blue)) / 255.0
    if places[view, 2] == wp.int64(4):
        alpha = float(_byte_at(at + wp.int64(3))) / 255.0
        color = background[i] + alpha * (color - background[i])
    colors[i] = color


def pixel_colors(
    picked: Int[Tensor, " n"], pictures: Pictures, background: Float[Tensor, "n 3"]
) -> Float[Tensor, "n 3"]:
    """Colours in [0, 1] of pixels of the row (int64, within it: nothing checks that) over a background."""
    colors = torch.empty(len(picked), 3, device=picked.device)
    inputs = [picked, *pictures.arrays, array(background, wp.vec3f), array(colors, wp.vec3f)]
    launch(_pixel_colors, len(picked), inputs, picked.device)
    return colors


_NTH_SET = """
    // Eight bytes at a time: the highest byte of their product with eight ones is their sum.
    const unsigned char* bytes = (const unsigned char*)address;
    int at = 0;
    for (; at + 8 <= n; at += 8) {
        unsigned long long word = 0;
        for (int k = 0; k < 8; ++k) word |= (unsigned long long)bytes[at + k] << 8 * k;
        const int count = (int)((word * 0x0101010101010101ull) >> 56);
        if (left < count) break;
        left -= count;
    }
    while (left > 0 || !bytes[at]) left -= bytes[at++];
    return at;
"""


@wp.func_native(_NTH_SET)
def _nth_set(address: wp.int64, n: int, left: int) -> int: ...


@dataclass(frozen=True)
class Masks:
    """Which pixels of a row are usable, as one mask for each picture."""

    each: Sequence[Bool[Tensor, "_ _"]]
    """(h, w), contiguous, on the CPU, and not empty."""

    @cached_property
    def _listed(self) -> tuple[int, Int[Tensor, " n"], list[Int[np.ndarray, " _"]]]:
        """Of how many usable pixels one is listed; how many each picture has; the lists."""
        stride = 1 if 4 * sum(mask.numel() for mask in self.each) <= LIST_BYTES else SPARSE
        usable = (np.flatnonzero(mask.numpy()) for mask in self.each)
        found = [(len(which), which[::stride].astype(np.int32)) for which in usable]
        return stride, torch.tensor([count for count, _ in found]), [which for _, which in found]

    @property
    def counts(self) -> Int[Tensor, " n_pictures"]:
        """How many usable pixels each picture has."""
        return self._listed[1]

    @property
    def n_usable(self) -> int:
        """Of all pictures together."""
        return int(self.counts.sum())

    @cached_property
    def arrays(self) -> list[Any]:
        """The guide table of the row of usable pixels. For each picture: its end there, how many come before it, its
        first pixel in the row of all, its number of pixels, its mask's address, and where its list begins. The lists,
        and of how many usable pixels they name one.
        """
        stride, counts, lists = self._listed
        n_pixels = torch.tensor([mask.numel() for mask in self.each])
        n_listed = torch.tensor([len(one) for one in lists])
        begins, first_pixels, first_listed = (n.cumsum(0) - n for n in (counts, n_pixels, n_listed))
        ends = begins + counts
        places = torch.stack([ends, begins, first_pixels, n_pixels, _addresses(self.each), first_listed], 1)
        return [*_guide(ends), array(places), array(torch.from_numpy(np.concatenate(lists))), stride]


@wp.kernel(module="nerfkit.kernels.pixels", grid_stride=False)
@no_type_check
def _usable_pixels(
    first: int,
    ranks: wp.array(dtype=wp.int64),
    shift: wp.int64,
    guide: wp.array(dtype=int),
    places: wp.array2d(dtype=wp.int64),
    listed: wp.array(dtype=int),
    stride: int,
    picked: wp.array(dtype=wp.int64),
):
    i = first + wp.tid()
    view = _view_of(ranks[i], shift, guide, places)
    rank = int(ranks[i] - places[view, 1])
    at = listed[int(places[view, 5]) + rank / stride]
    if rank % stride > 0:
        at += _nth_set(places[view, 4] + wp.int64(at), int(places[view, 3]) - at, rank % stride)
    picked[i] = places[view, 2] + wp.int64(at)


def usable_pixels(ranks: Int[Tensor, " n"], masks: Masks) -> Int[Tensor, " n"]:
    """Indices in the row of all pixels of the usable ones of these ranks (int64, from 0, less than ``n_usable``)."""
    picked = torch.empty_like(ranks)
    launch(_usable_pixels, len(ranks), [ranks, *masks.arrays, picked], ranks.device)
    return picked
