"""`Scene`, a folder of posed images, and `Frame`, where in it the model's unit cube lies."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from nerfkit.cameras import Cameras
from nerfkit.poses import SceneError
from nerfkit.types import Rays

Box = tuple[float, float, float, float, float, float]
"""(xmin, ymin, zmin, xmax, ymax, zmax), scene coordinates."""


@dataclass(frozen=True)
class Frame:
    """The similarity between scene and model coordinates: model = (scene - center) * scale + 0.5, no rotation.

    The unit cube is the whole of what is modelled. The occupancy grid covers it with ``n_levels`` nested boxes about
    its centre: level k has 2 ** k times the side of level 0, the last is the unit cube.
    """

    center: tuple[float, float, float]
    """Scene coordinates of the cube's centre."""
    scale: float
    """1 / side of the cube in scene units."""
    aabb: tuple[float, float, float, float, float, float]
    """Where anything is expected, scene coordinates: within the cube, at most as large."""
    near_plane: float
    far_plane: float
    """Bounds on ``t``, scene units."""
    n_levels: int = 1
    """1 for an object that the box encloses; more where the background is modelled too."""

    def to_model(self, points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        """Scene coordinates to the unit cube."""
        return (points - points.new_tensor(self.center)) * self.scale + 0.5

    def to_scene(self, points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        """The unit cube to scene coordinates."""
        return (points - 0.5) / self.scale + points.new_tensor(self.center)

    def model_rays(self, rays: Rays) -> Rays:
        """Scene rays in model coordinates: directions stay, lengths along them are ``scale`` times as large."""
        return dataclasses.replace(rays, rays_o=self.to_model(rays.rays_o))

    @property
    def model_aabb(self) -> tuple[float, ...]:
        """``aabb`` in the unit cube."""
        return tuple((value - self.center[i % 3]) * self.scale + 0.5 for i, value in enumerate(self.aabb))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for ``frame.json``."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Frame:
        """The inverse of `to_dict`. Raises SceneError if a key is missing or unknown."""
        names = {field.name for field in dataclasses.fields(cls)}
        if set(data) != names:
            raise SceneError(f"frame: expected the keys {', '.join(sorted(names))}, found {', '.join(sorted(data))}")
        return cls(**{**data, "center": tuple(data["center"]), "aabb": tuple(data["aabb"])})


@dataclass(frozen=True)
class Scene:
    """Posed images, all that training and evaluation need to know of a folder."""

    name: str
    root: Path
    source: Path
    """What `load_scene` read: ``root``, or a file in it that lists the images."""
    format: str
    """Key of `nerfkit.scene.READERS`: the file that revealed it."""
    cameras: Cameras
    """As many as images and for their (reduced) size, in scene coordinates: those of the files."""
    image_names: list[str]
    """File names relative to ``root``, in the order of the format: that in which views are held out."""
    images: list[UInt8[np.ndarray, "_ _ _"]]
    """RGB, or RGB and straight alpha where the file is not opaque; in memory, or in a file that is mapped there: to be
    looked at one by one."""
    masks: list[Bool[np.ndarray, "_ _"]] | None
    """True = use the pixel; None if no image has a mask."""
    splits: dict[str, list[int]]
    """Indices of train (never empty), val and test."""
    split_rule: str
    """Where the splits come from: ``files``, ``every 8th`` or ``all train``."""
    background: str
    """``white``, ``black``, ``random`` or ``sky``: what training puts behind alpha and behind what the model leaves
    uncovered. Random asks of an opaque scene that the model cover every pixel; sky is a colour for each direction that
    is learnt with the model."""
    frame: Frame
    warnings: list[str]
    """Sentences for the user: what was skipped, scaled or guessed."""
    fingerprint: str
    """Hash of names, files, poses and lenses, independent of where the folder lies and of ``downscale``."""

    def with_poses(self, c2w: Float[Tensor, "n_train 3 4"]) -> Scene:
        """The scene with its training views, in the order of their split, at other poses; the others keep theirs."""
        every = self.cameras.c2w.clone()
        every[self.splits["train"]] = c2w.to(every)
        return dataclasses.replace(self, cameras=self.cameras.at(every))

    @property
    def has_sky(self) -> bool:
        """Whether pictures are rendered over a learnt sky: those of opaque photographs without a plain background."""
        return self.background in ("random", "sky") and not self.has_alpha

    @property
    def has_alpha(self) -> bool:
        """Whether some image has transparent pixels."""
        return any(image.shape[2] == 4 for image in self.images)


def alpha_of(image: UInt8[np.ndarray, "h w c"]) -> UInt8[Tensor, "h w"]:
    """Alpha, 0 to 255; opaque where the image has none."""
    if image.shape[2] == 4:
        return torch.from_numpy(np.ascontiguousarray(image[..., 3]))
    return torch.full(image.shape[:2], 255, dtype=torch.uint8)
