"""What a reader makes of a folder, before any picture is opened: the same for every format."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from nerfkit.cameras import Intrinsics


@dataclass(frozen=True)
class View:
    """A picture that exists, and what its file says of the camera."""

    path: Path
    mask_path: Path | None
    c2w: Float[Tensor, "3 4"]
    """OpenCV axes, the file's own coordinates, float64."""
    intrinsics: Intrinsics
    split: str | None
    """train, val or test; None where the format names no splits."""
    where: str
    """File and key, for messages."""


@dataclass(frozen=True)
class Hints:
    """What a file says about the region to model; scene coordinates, each None where it is silent."""

    aabb: tuple[float, ...] | None = None
    """The whole of what is to be modelled."""
    center: tuple[float, float, float] | None = None
    side: float | None = None
    """The cube that the cameras look at."""
    aabb_scale: float | None = None
    """Side of the whole in units of that cube."""


@dataclass(frozen=True)
class Listing:
    """All usable views of a folder."""

    views: list[View]
    hints: Hints = Hints()
    warnings: list[str] = field(default_factory=list)
