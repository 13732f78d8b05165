"""Where photographs show detail, and pixels that are drawn there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

BLOCK = 8
"""Pixels along one side of a block: so near to an edge is at it."""


def variation(image: UInt8[np.ndarray, "h w c"]) -> Float[np.ndarray, "n_rows n_columns"]:
    """The standard deviation of each block of a picture, root mean square over its channels, in [0, 128].

    Where there is an alpha, of that and of colours before black. Blocks at the right and lower border are filled up
    with the last pixels.
    """
    values = image.astype(np.float32)
    if image.shape[2] == 4:
        values[..., :3] *= values[..., 3:] / 255.0
    height, width = image.shape[:2]
    fill = (0, -height % BLOCK, 0, -width % BLOCK)
    values = cv2.copyMakeBorder(values, *fill, cv2.BORDER_REPLICATE)
    size = (values.shape[1] // BLOCK, values.shape[0] // BLOCK)
    mean, square = (cv2.resize(each, size, interpolation=cv2.INTER_AREA) for each in (values, values * values))
    return np.sqrt((square - mean * mean).clip(min=0.0).mean(2))


def every(share: float, n: int) -> Bool[Tensor, " n"]:
    """A share of n, evenly among the others."""
    return torch.arange(n + 1, dtype=torch.float64).mul(share).floor().diff() > 0


@dataclass(frozen=True)
class Detail:
    """Blocks of pictures whose pixels count as one row, and how likely a pixel is drawn from them."""

    first: Int[Tensor, " n_views"]
    """Index of each picture's first pixel."""
    shape: Int[Tensor, "n_views 2"]
    """(height, width) of each picture."""
    ends: Int[Tensor, " n_views"]
    """The row of all blocks' index after each picture's last one."""
    weights: Float[Tensor, " n_blocks"]
    """How likely a pixel is drawn from each, in any unit, float64."""

    @cached_property
    def up_to(self) -> Float[Tensor, " n_blocks"]:
        """Chance of a pixel from this block or one before it."""
        up_to = self.weights.cumsum(0)
        return up_to / up_to[-1]

    def __len__(self) -> int:
        return len(self.weights)

    @classmethod
    def of(
        cls, images: Sequence[UInt8[np.ndarray, "_ _ _"]], masks: Sequence[Bool[np.ndarray, "_ _"]] | None = None
    ) -> Detail | None:
        """Of pictures and what is usable of them; None where they are alike all over.

        A pixel is the more likely the more its block varies. Blocks of which a mask hides anything are left out.
        """
        shape = torch.tensor([image.shape[:2] for image in images])
        weights = []
        for i, image in enumerate(images):
            height, width = image.shape[:2]
            # Of the last blocks only a part is there.
            rows, columns = (np.minimum(BLOCK, n - np.arange(0, n, BLOCK)) for n in (height, width))
            weight = variation(image).astype(np.float64) * rows[:, None] * columns
            if masks is not None:
                fill = (0, -height % BLOCK, 0, -width % BLOCK)
                usable = cv2.copyMakeBorder(masks[i].astype(np.uint8), *fill, cv2.BORDER_REPLICATE)
                weight *= usable.reshape(len(rows), BLOCK, len(columns), BLOCK).all((1, 3))
            weights.append(weight.reshape(-1))
        weights_of_all = torch.from_numpy(np.concatenate(weights))
        if not weights_of_all.any():
            return None
        n_pixels, n_blocks = shape.prod(1), torch.tensor([len(weight) for weight in weights])
        return cls(n_pixels.cumsum(0) - n_pixels, shape, n_blocks.cumsum(0), weights_of_all)

    def draw(self, n: int, generator: torch.Generator) -> Int[Tensor, " n"]:
        """Indices of n random pixels, with replacement."""
        chance, *within = torch.rand(3, n, generator=generator, dtype=torch.float64).unbind()
        block = torch.searchsorted(self.up_to, chance, right=True).clamp(max=len(self) - 1)
        return self.pixels_of(block, torch.stack(within, 1))

    def pixels_of(self, block: Int[Tensor, " n"], within: Float[Tensor, "n 2"]) -> Int[Tensor, " n"]:
        """Indices of pixels at places (y, x) in [0, 1)^2 of blocks."""
        view = torch.searchsorted(self.ends, block, right=True)
        shape = self.shape[view]
        size = -(-shape // BLOCK)
        block = block - (self.ends[view] - size.prod(1))
        corner = torch.stack([block // size[:, 1], block % size[:, 1]], 1) * BLOCK
        y, x = (corner + within * (shape - corner).clamp(max=BLOCK)).long().unbind(1)
        return self.first[view] + y * shape[:, 1] + x

    def blocks_of(self, picked: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """The blocks that pixels lie in."""
        view = torch.searchsorted(self.first, picked, right=True) - 1
        size, width = -(-self.shape // BLOCK), self.shape[view, 1]
        y, x = (picked - self.first[view]) // width, (picked - self.first[view]) % width
        return (self.ends - size.prod(1))[view] + y // BLOCK * size[view, 1] + x // BLOCK
