"""What a viewer shows of a model from a camera, all of it or what a box holds, and a sentence about that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from nerfkit.cameras import Cameras
from nerfkit.charts import nice_top, si
from nerfkit.render import Model, render_image
from nerfkit.scene.scene import Box
from nerfkit.tiles import Tiles
from nerfkit.types import Rendered
from nerfkit.video import depth_picture

LOOKS = ("colour", "depth", "opacity", "occupancy", "samples")
HEAT = cv2.COLORMAP_VIRIDIS
"""Colours of counts, from few to many."""
_FADED = 0.6
"""Share of white in the farthest of the occupied cells."""


@dataclass(frozen=True)
class Look:
    """A picture, and what there is to say about it."""

    picture: UInt8[np.ndarray, "h w 3"]
    """RGB."""
    caption: str = ""


@dataclass(frozen=True)
class _Blocks:
    """A field of opaque cells, chequered, in the colours of their places: what the occupancy grid believes."""

    resolution: int
    n_levels: int

    def density(self, positions: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]]:
        """Opaque everywhere: the sampler leaves empty cells out."""
        return torch.full_like(positions[:, 0], 1e5), positions

    def color(
        self, features: Float[Tensor, "n 3"], rays_d: Float[Tensor, "n_rays 3"], ray_indices: Int[Tensor, " n"]
    ) -> Float[Tensor, "n 3"]:
        """A hue for the place, light and dark in turn from cell to cell of the innermost level.

        Half of what hues there are, or more, is for the innermost cube, and the rest for all that is around it.
        """
        n_inner = 2 ** (self.n_levels - 1)
        cells = (features * self.resolution * n_inner).long().sum(1)
        away = (features - 0.5) * 2 * n_inner
        hue = torch.where(away.abs() <= 1, away, away.sign() * (2 - 1 / away.abs())) / (2 - 1 / n_inner)
        return (0.55 + 0.3 * hue) * torch.where(cells % 2 == 0, 1.0, 0.8)[:, None]


def cropped(model: Model | Tiles, box: Box | None) -> Model | Tiles:
    """The model without what lies outside of a box (xmin, ymin, zmin, xmax, ymax, zmax) in scene coordinates."""
    return model if box is None else model.within(box)


def look(model: Model | Tiles, camera: Cameras, kind: str, background: str = "white") -> Look:
    """The model as the first of ``camera`` sees it.

    ``kind`` is one of `LOOKS`. Depth is coloured between the nearest and the farthest that the picture shows (the
    hundredths at both ends apart), samples between 0 and `most_of` the picture.
    """
    if kind == "occupancy":
        return Look(_bytes(_occupancy(model, camera)), "occupied cells, the farther the paler")
    rendered = render_image(model, camera, 0, background)
    if kind == "depth":
        near, far = _depths(rendered)
        picture = depth_picture(rendered.depth, rendered.opacity, (near, far))
        return Look(picture, f"red {si(near)} to blue {si(far)} scene units")
    if kind == "samples":
        most, mean = most_of([rendered.counts]), float(rendered.counts.float().mean())
        return Look(heat_map(rendered.counts, most), f"{si(mean)} samples a ray; black 0, violet 1 to yellow {most}")
    if kind == "opacity":
        return Look(_bytes(rendered.opacity[..., None].expand(-1, -1, 3)))
    return Look(_bytes(rendered.rgb))


def heat_map(counts: Int[Tensor, "h w"], most: int) -> UInt8[np.ndarray, "h w 3"]:
    """Samples of each ray as a colour (RGB): 0 is black, 1 violet, ``most`` and above yellow."""
    share = (counts.cpu().double() / most).clamp(0, 1).numpy()
    colours = cv2.applyColorMap(np.rint(share * 255).astype(np.uint8), HEAT)[..., ::-1]
    return np.where(counts.cpu().numpy()[..., None] > 0, colours, 0).astype(np.uint8)


def most_of(pictures: Sequence[Int[Tensor, "h w"]]) -> int:
    """A round number of samples that few rays of these pictures exceed: one scale for all of them."""
    return max(1, round(nice_top(max(float(np.quantile(counts.cpu().numpy(), 0.99)) for counts in pictures))))


def _occupancy(model: Model | Tiles, camera: Cameras) -> Float[Tensor, "h w 3"]:
    """Blocks that fade with their distance, or there would be no telling those in front from those behind."""
    if isinstance(model, Tiles):
        blocks = replace(model, models=tuple(map(_blocky, model.models)))
    else:
        blocks = _blocky(model)
    seen = render_image(blocks, camera, 0)
    near, far = _depths(seen)
    share = ((seen.depth - near) / (far - near)).clamp(0, 1)[..., None]
    return seen.rgb + _FADED * share * (1 - seen.rgb)


def _depths(seen: Rendered) -> tuple[float, float]:
    """The depths between which most of a picture lies; (1, 1.01) where nothing is seen."""
    depths = seen.depth[(seen.opacity > 0.5) & (seen.depth > 0)]
    if not len(depths):
        return 1.0, 1.01
    near, far = torch.quantile(depths[:: len(depths) // 4096 + 1], torch.tensor([0.01, 0.99])).tolist()
    return near, max(far, 1.01 * near)


def _blocky(model: Model) -> Model:
    stepping = model.sampler.cells().stepping
    return replace(model, field=_Blocks(stepping.resolution, stepping.n_levels))


def _bytes(picture: Float[Tensor, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    return (picture.clamp(0, 1) * 255).round().byte().cpu().numpy()
