"""A part of a bundled scene: surfaces and the one painter they share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scene_paints as paints
from scene_shapes import Surface


@dataclass
class Part:
    """Surfaces that share one painter; ``texture`` is (height, width) in texels, one texture for each surface.

    ``share`` paints only the first surface and lets the others wear its texture. ``coat`` in [0, 1] is lacquer on top.
    ``glow`` > 0 makes a sheet as thin as paper that lets light through, up to 2 for all of it.
    """

    name: str
    surfaces: list[Surface]
    paint: Callable[[np.ndarray, np.ndarray], paints.Paint]
    texture: tuple[int, int] = (16, 16)
    coat: float = 0.0
    share: bool = False
    glow: float = 0.0

    def placed(self, pose: np.ndarray) -> Part:
        """The same part moved by ``pose`` (3, 4)."""
        self.surfaces = [surface.placed(pose) for surface in self.surfaces]
        return self
