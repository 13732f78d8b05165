"""The training pixels of a scene: compact bytes in one row, drawn at random."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerfkit.scene.scene import Frame, Scene
from nerfkit.types import Rays


class Pixels:
    """All usable pixels of a scene's training views, as bytes; masked ones are left out."""

    def __init__(self, scene: Scene, device: torch.device):
        views = scene.splits["train"]
        channels = 4 if any(scene.images[i].shape[2] == 4 for i in views) else 3
        self.values = torch.from_numpy(np.concatenate([_row(scene.images[i], channels) for i in views])).to(device)
        sizes = torch.tensor([scene.images[i].shape[:2] for i in views])
        self._views = torch.tensor(views)
        self._widths = sizes[:, 1]
        self._ends = sizes.prod(1).cumsum(0)
        self._usable = None
        if scene.masks is not None:
            masks = np.concatenate([scene.masks[i].reshape(-1) for i in views])
            self._usable = torch.from_numpy(np.flatnonzero(masks).astype(np.int32))
        self.scene = scene

    def draw(self, n: int, generator: torch.Generator) -> Int[Tensor, " n"]:
        """Indices of n random pixels, with replacement."""
        n_usable = len(self.values) if self._usable is None else len(self._usable)
        picked = torch.randint(n_usable, (n,), generator=generator)
        return picked if self._usable is None else self._usable[picked].long()

    def rays(self, picked: Int[Tensor, " n"], frame: Frame) -> Rays:
        """The rays of pixels, in model coordinates, through the pixels' centres."""
        view = torch.searchsorted(self._ends, picked, right=True)
        within = picked - torch.where(view > 0, self._ends[view - 1], 0)
        width = self._widths[view]
        xy = torch.stack([within % width, within // width], 1).float() + 0.5
        return frame.model_rays(self.scene.cameras.rays(self._views[view], xy))

    def colors(self, picked: Int[Tensor, " n"], background: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """True colours in [0, 1] over a background."""
        values = self.values[picked.to(self.values.device)].float() / 255.0
        if values.shape[1] == 3:
            return values
        alpha = values[:, 3:]
        return values[:, :3] * alpha + background * (1.0 - alpha)


def _row(image: np.ndarray, channels: int) -> np.ndarray:
    """An image's pixels (h * w, channels), opaque where it has no alpha of its own."""
    if image.shape[2] < channels:
        image = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
    return image.reshape(-1, channels)
