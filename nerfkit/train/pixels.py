"""The training pixels of a scene: compact bytes in one row, drawn at random."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerfkit.kernels.pixels import Views, pixel_colors, pixel_rays
from nerfkit.poses import SceneError
from nerfkit.scene.scene import Frame, Scene
from nerfkit.types import Rays


class Pixels:
    """All usable pixels of a scene's training views, as bytes; masked ones are left out."""

    def __init__(self, scene: Scene, device: torch.device):
        views = scene.splits["train"]
        channels = 4 if any(scene.images[i].shape[2] == 4 for i in views) else 3
        self.values = torch.from_numpy(np.concatenate([_row(scene.images[i], channels) for i in views])).to(device)
        self._views = torch.tensor(views)
        self._sizes = torch.tensor([scene.images[i].shape[:2] for i in views])
        self._ends = self._sizes.prod(1).cumsum(0)
        self._usable = None
        if scene.masks is not None:
            masks = np.concatenate([scene.masks[i].reshape(-1) for i in views])
            self._usable = torch.from_numpy(np.flatnonzero(masks).astype(np.int32))
            if not len(self._usable):
                raise SceneError(f"{scene.root}: the masks leave no pixel of any training picture")
        self._prepared: dict[Frame, Views | None] = {}
        self.scene = scene

    def draw(self, n: int, generator: torch.Generator) -> Int[Tensor, " n"]:
        """Indices of n random pixels, with replacement."""
        n_usable = len(self.values) if self._usable is None else len(self._usable)
        picked = torch.randint(n_usable, (n,), generator=generator)
        return picked if self._usable is None else self._usable[picked].long()

    def of_view(self, view: int, n: int, generator: torch.Generator) -> Int[Tensor, " n"]:
        """Indices of n random pixels of a training view, counted from 0, with replacement; none if all are masked."""
        ends = self._ends[view] - torch.tensor([self._sizes[view].prod(), 0])
        if self._usable is not None:
            ends = torch.searchsorted(self._usable, ends.int())
        first, last = ends.tolist()
        if first == last:
            return torch.empty(0, dtype=torch.int64)
        picked = torch.randint(first, last, (n,), generator=generator)
        return picked if self._usable is None else self._usable[picked].long()

    def look_from(self, c2w: Float[Tensor, "n_views 3 4"]) -> None:
        """Let the rays of all training views begin at other poses from now on."""
        self.scene = self.scene.with_poses(c2w)
        self._prepared.clear()

    def rays(self, picked: Int[Tensor, " n"], frame: Frame) -> Rays:
        """The rays of pixels, in model coordinates, through the pixels' centres."""
        if frame not in self._prepared:  # threads that come at once prepare the same
            self._prepared[frame] = self._prepare(frame)
        views = self._prepared[frame]
        if views is not None:
            return pixel_rays(picked.to(self.values.device), views)
        picked = picked.to(self._ends.device)
        view = self.views(picked).to(self._ends.device)
        within = picked - torch.where(view > 0, self._ends[view - 1], 0)
        width = self._sizes[view, 1]
        xy = torch.stack([within % width, within // width], 1).float() + 0.5
        return frame.model_rays(self.scene.cameras.rays(self._views[view], xy)).to(self.values.device)

    def views(self, picked: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Which training view each pixel is of, counted from 0."""
        return torch.searchsorted(self._ends, picked.to(self._ends.device), right=True).to(self.values.device)

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
        return Views(*(rows.to(self.values.device) for rows in (places, c2w, intrinsics, directions)))

    def colors(self, picked: Int[Tensor, " n"], background: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """True colours in [0, 1] over a background."""
        return pixel_colors(picked.to(self.values.device), self.values, background)


def _row(image: np.ndarray, channels: int) -> np.ndarray:
    """An image's pixels (h * w, channels), opaque where it has no alpha of its own."""
    if image.shape[2] < channels:
        image = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    return image.reshape(-1, channels)
