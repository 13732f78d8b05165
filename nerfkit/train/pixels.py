"""The training pixels of a scene: one row of all, drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from nerfkit.kernels.launch import sent
from nerfkit.kernels.pixels import Masks, Pictures, Views, pixel_colors, pixel_rays, usable_pixels
from nerfkit.poses import SceneError
from nerfkit.render import BACKGROUNDS
from nerfkit.scene.scene import Frame, Scene
from nerfkit.scene.store import read_at_random
from nerfkit.train.detail import Detail, every
from nerfkit.types import Rays

_TRIES = 8
"""Draws of a pixel that is not of a block that is left out, before one of those will do."""


@dataclass(frozen=True)
class Patches:
    """Square patches of photographs, by the places of their upper left pixels; each lies wholly in its view."""

    size: int
    views: Int[Tensor, " n"]
    """Training views, counted from 0."""
    first: Int[Tensor, " n"]
    """Index of each view's first pixel."""
    shape: Int[Tensor, "n 2"]
    """(height, width) of each view."""
    corner: Int[Tensor, "n 2"]
    """(y, x) in the view."""

    def __len__(self) -> int:
        return len(self.views)

    def pixels(self, margin: int = 0) -> Int[Tensor, " n_pixels"]:
        """Indices of their pixels, row after row of one after the other; with so many more on every side, where those
        beyond the border are the nearest within."""
        along = torch.arange(-margin, self.size + margin)
        y, x = (
            torch.minimum((at[:, None] + along).clamp(min=0), last[:, None] - 1)
            for at, last in zip(self.corner.unbind(1), self.shape.unbind(1), strict=True)
        )
        places = y[:, :, None] * self.shape[:, 1, None, None] + x[:, None, :]
        return (self.first[:, None, None] + places).flatten()

    def inside(self, reach: int) -> Bool[Tensor, "n m m"]:
        """Whether a patch that is moved by (y, x), up to ``reach`` pixels each way, still lies wholly in its view."""
        steps = torch.arange(-reach, reach + 1)
        moved = self.corner[:, :, None] + steps
        y, x = ((moved >= 0) & (moved + self.size <= self.shape[:, :, None])).unbind(1)
        return y[:, :, None] & x[:, None, :]

    def __getitem__(self, which: slice) -> Patches:
        return Patches(self.size, self.views[which], self.first[which], self.shape[which], self.corner[which])


class Pixels:
    """All usable pixels of a scene's training views, where the scene has them; masked ones are left out.

    On CUDA they are copied to the device, unless they would take more than half of what is free there.
    """

    def __init__(self, scene: Scene, device: torch.device):
        self.scene, self.device = scene, device
        views = scene.splits["train"]
        self.show([scene.images[i] for i in views])
        self._views = torch.tensor(views)
        self._sizes = torch.tensor([image.shape[:2] for image in self.pictures.each])
        self._ends = self._sizes.prod(1).cumsum(0)
        self._masks = None
        if scene.masks is not None:
            self._masks = Masks([torch.from_numpy(np.ascontiguousarray(scene.masks[i])) for i in views])
            if not self._masks.n_usable:
                raise SceneError(f"{scene.root}: the masks leave no pixel of any training picture")
        self._prepared: dict[Frame, Views | None] = {}
        self._corners: dict[tuple[int, int], Masks] = {}
        self._left_out: Tensor | None = None

    def __len__(self) -> int:
        """How many pixels the row has, masked ones too."""
        return int(self._ends[-1])

    def draw(self, n: int, generator: torch.Generator, detail_share: float = 0.0) -> Int[Tensor, " n"]:
        """Indices of n random pixels, with replacement, all alike but those of `every` such a share: they are drawn
        where the photographs that were shown first have detail, if they have any."""
        picked = self._anywhere(n, generator)
        for _ in range(_TRIES if self._left_out is not None else 0):
            again = self._left_out[self.detail.blocks_of(picked)]
            picked[again] = self._anywhere(int(again.sum()), generator)
        if detail_share and self.detail is not None:
            there = every(detail_share, n)
            picked[there] = self.detail.draw(int(there.sum()), generator)
        return picked

    def _anywhere(self, n: int, generator: torch.Generator) -> Int[Tensor, " n"]:
        if self._masks is None:
            return torch.randint(len(self), (n,), generator=generator)
        return usable_pixels(torch.randint(self._masks.n_usable, (n,), generator=generator), self._masks)

    def prefer(self, weights: Float[Tensor, " n_blocks"], left_out: Bool[Tensor, " n_blocks"]) -> None:
        """Draw those of detail by other weights of its blocks from now on, and next to none from some of the blocks."""
        kept = weights.masked_fill(left_out, 0.0)
        self.detail = replace(self.detail, weights=kept if kept.any() else weights)
        self._left_out = left_out if left_out.any() else None

    @cached_property
    def detail(self) -> Detail | None:
        """Of the scene's own photographs, also where others are shown by now: they are off by a few pixels."""
        views = self._views.tolist()
        masks = None if self.scene.masks is None else [self.scene.masks[i] for i in views]
        return Detail.of([self.scene.images[i] for i in views], masks)

    def patches(self, n: int, size: int, generator: torch.Generator, margin: int = 0) -> Patches:
        """n random patches: about a random pixel each, which may be any of its pixels.

        Where there are masks, only such patches of which they hide nothing, nor so many pixels beside them; all of
        these alike. Raises SceneError where there is none or a view is smaller.
        """
        if int(self._sizes.min()) < size:
            found = "x".join(map(str, self._sizes[self._sizes.amin(1).argmin()].flip(0).tolist()))
            raise SceneError(f"{self.scene.root}: a picture of {found} pixels has no patch of {size}x{size}")
        if self._masks is None:
            places = torch.randint(len(self), (n,), generator=generator)
        else:
            free = self._free_corners(size, margin)
            places = usable_pixels(torch.randint(free.n_usable, (n,), generator=generator), free)
        views = torch.searchsorted(self._ends, places, right=True)
        shape = self._sizes[views]
        first = self._ends[views] - shape.prod(1)
        corner = torch.stack([(places - first) // shape[:, 1], (places - first) % shape[:, 1]], 1)
        if self._masks is None:
            corner = corner - torch.randint(size, (n, 2), generator=generator)
            corner = torch.minimum(corner.clamp(min=0), shape - size)
        return Patches(size, views, first, shape, corner)

    def _free_corners(self, size: int, margin: int) -> Masks:
        """The upper left pixels of all patches that masks leave whole, with a margin as far as there is a picture."""
        if (size, margin) not in self._corners:
            kernel, found = np.ones((size + 2 * margin,) * 2, np.uint8), []
            for mask in self._masks.each:
                whole = cv2.erode(mask.numpy().astype(np.uint8), kernel, anchor=(margin, margin)).astype(bool)
                whole[len(whole) - size + 1 :], whole[:, whole.shape[1] - size + 1 :] = False, False
                found.append(torch.from_numpy(whole))
            self._corners[size, margin] = Masks(found)
            if not self._corners[size, margin].n_usable:
                side = size + 2 * margin
                raise SceneError(f"{self.scene.root}: the masks leave no patch of {side}x{side} pixels whole")
        return self._corners[size, margin]

    def of_view(self, view: int, n: int, generator: torch.Generator) -> Int[Tensor, " n"]:
        """Indices of n random pixels of a training view, counted from 0, with replacement; none if all are masked."""
        counts = self._sizes.prod(1) if self._masks is None else self._masks.counts
        last = int(counts[: view + 1].sum())
        if not counts[view]:
            return torch.empty(0, dtype=torch.int64)
        picked = torch.randint(last - int(counts[view]), last, (n,), generator=generator)
        return picked if self._masks is None else usable_pixels(picked, self._masks)

    def look_from(self, c2w: Float[Tensor, "n_views 3 4"]) -> None:
        """Let the rays of all training views begin at other poses from now on."""
        self.scene = self.scene.with_poses(c2w)
        self._prepared.clear()

    def show(self, images: Sequence[UInt8[np.ndarray, "_ _ _"]]) -> None:
        """Take the colours of all training views from these pictures, always of the same sizes, from now on."""
        pictures = [torch.from_numpy(np.ascontiguousarray(image)) for image in images]
        home = self.device if sum(one.numel() for one in pictures) <= _room(self.device) else torch.device("cpu")
        self.pictures = Pictures([one.to(home) for one in pictures])
        for image in images:
            read_at_random(image)

    def rays(self, picked: Int[Tensor, " n"], frame: Frame) -> Rays:
        """The rays of pixels, in model coordinates, through the pixels' centres."""
        if frame not in self._prepared:  # threads that come at once prepare the same
            self._prepared[frame] = self._prepare(frame)
        views = self._prepared[frame]
        if views is not None:
            return pixel_rays(sent(picked, self.device), views)
        picked = picked.to(self._ends.device)
        view = self.views(picked).to(self._ends.device)
        within = picked - torch.where(view > 0, self._ends[view - 1], 0)
        width = self._sizes[view, 1]
        xy = torch.stack([within % width, within // width], 1).float() + 0.5
        return frame.model_rays(self.scene.cameras.rays(self._views[view], xy)).to(self.device)

    def views(self, picked: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Which training view each pixel is of, counted from 0."""
        return sent(torch.searchsorted(self._ends, picked.to(self._ends.device), right=True), self.device)

    def _prepare(self, frame: Frame) -> Views | None:
        """All that `rays` needs but the pixels, on their device; None where each direction has to be solved for.

        That is behind bent lenses whose table of directions would be too large, or is for pictures of another size.
        """
        cameras, bases = self.scene.cameras[self._views], self._ends - self._sizes.prod(1)
        directions = cameras.c2w.new_empty(0, 3)
        if cameras.lens != "pinhole":
            table = self.scene.cameras.table
            if table is None or not torch.equal(self._sizes, torch.stack([cameras.height, cameras.width], 1)):
                return None
            directions, starts = table
            bases = bases - starts[self._views]
        places = torch.stack([self._ends, bases, self._sizes[:, 1]], 1)
        c2w = torch.cat([cameras.c2w[:, :, :3], frame.to_model(cameras.c2w[:, :, 3])[:, :, None]], 2)
        intrinsics = torch.stack([cameras.fl_x, cameras.fl_y, cameras.cx, cameras.cy], 1)
        return Views(*(rows.to(self.device) for rows in (places, c2w, intrinsics, directions)))

    def background(self, n: int, generator: torch.Generator) -> Float[Tensor, "n 3"]:
        """What n pixels are seen before: the scene's plain colour, or random ones."""
        if self.scene.background in BACKGROUNDS:
            return torch.full((n, 3), BACKGROUNDS[self.scene.background], device=self.device)
        return sent(torch.rand(n, 3, generator=generator), self.device)

    def colors(self, picked: Int[Tensor, " n"], background: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """True colours in [0, 1] over a background."""
        home = self.pictures.each[0].device
        if home != background.device and all(picture.shape[2] == 3 for picture in self.pictures.each):
            background = torch.empty(len(picked), 3, device=home)  # nobody looks at it, so it need not come
        colors = pixel_colors(sent(picked, home), self.pictures, background.to(home))
        return sent(colors, self.device)


def _room(device: torch.device) -> float:
    """Bytes that pictures may take on a device."""
    return torch.cuda.mem_get_info(device)[0] / 2 if device.type == "cuda" else float("inf")
