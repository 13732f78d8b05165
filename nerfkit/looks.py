"""What a viewer shows of a model from a camera: colour, depth, opacity or occupancy, all of it or what a box holds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from nerfkit.cameras import Cameras
from nerfkit.render import Model, render_image
from nerfkit.tiles import Tiles
from nerfkit.video import depth_picture

LOOKS = ("colour", "depth", "opacity", "occupancy")
Box = tuple[float, float, float, float, float, float]


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
        """A hue for the place, light and dark in turn from cell to cell of the innermost level."""
        cells = (features * self.resolution * 2 ** (self.n_levels - 1)).long().sum(1)
        return (0.25 + 0.6 * features) * torch.where(cells % 2 == 0, 1.0, 0.8)[:, None]


def cropped(model: Model | Tiles, box: Box | None) -> Model | Tiles:
    """The model without what lies outside of a box (xmin, ymin, zmin, xmax, ymax, zmax) in scene coordinates."""
    if box is None:
        return model
    if isinstance(model, Tiles):
        return model.within(box)
    lower, upper = (model.frame.to_model(torch.tensor(corner)) for corner in (box[:3], box[3:]))
    with torch.no_grad():
        return replace(model, sampler=model.sampler.cells().within(lower, upper))


def look(model: Model | Tiles, camera: Cameras, kind: str, background: str = "white") -> UInt8[np.ndarray, "h w 3"]:
    """A picture of the model as the first of ``camera`` sees it, RGB.

    ``kind`` is one of `LOOKS`. Depth is coloured between the nearest and the farthest that the picture shows (the
    hundredths at both ends apart).
    """
    if kind == "occupancy":
        return _bytes(_occupancy(model, camera))
    rendered = render_image(model, camera, 0, background)
    if kind == "depth":
        seen = rendered.depth[(rendered.opacity > 0.5) & (rendered.depth > 0)]
        between = torch.quantile(seen[:: len(seen) // 4096 + 1], torch.tensor([0.01, 0.99])) if len(seen) else None
        near, far = (1.0, 2.0) if between is None else between.tolist()
        return depth_picture(rendered.depth, rendered.opacity, (near, max(far, 1.01 * near)))
    if kind == "opacity":
        return _bytes(rendered.opacity[..., None].expand(-1, -1, 3))
    return _bytes(rendered.rgb)


def _occupancy(model: Model | Tiles, camera: Cameras) -> Float[Tensor, "h w 3"]:
    if isinstance(model, Tiles):
        return render_image(replace(model, models=tuple(map(_blocky, model.models))), camera, 0).rgb
    return render_image(_blocky(model), camera, 0).rgb


def _blocky(model: Model) -> Model:
    stepping = model.sampler.cells().stepping
    return replace(model, field=_Blocks(stepping.resolution, stepping.n_levels))


def _bytes(picture: Float[Tensor, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    return (picture.clamp(0, 1) * 255).round().byte().cpu().numpy()
