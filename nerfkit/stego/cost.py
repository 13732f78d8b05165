"""What a mark costs: how far marked renders are from unmarked ones, and renders from photographs, in 8-bit pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np
from jaxtyping import Float
from torch import Tensor

from nerfkit.assess import truth
from nerfkit.cameras import Cameras
from nerfkit.render import Model, render_image
from nerfkit.scene.scene import Scene
from nerfkit.stego.attacks import Picture

_LOOKED_AT = 8
"""Held-out photographs, at most."""


def picture_of(model: Model, cameras: Cameras, view: int, background: str) -> Picture:
    """A render as a file of 8 bits holds it."""
    return as_bytes(render_image(model, cameras, view, background).rgb)


def as_bytes(rgb: Float[Tensor, "h w 3"]) -> Picture:
    """Colours in [0, 1], rounded."""
    return (rgb.clamp(0, 1) * 255).round().byte().numpy()


def psnr(pairs: Sequence[tuple[Picture, Picture]]) -> float:
    """Mean over pairs of pictures, dB, 100 at most each."""
    return fmean(-10.0 * math.log10(max(_off(a, b), 1e-10)) for a, b in pairs)


def worst_psnr(pairs: Sequence[tuple[Picture, Picture]]) -> float:
    """Of the pair that differs most, dB."""
    return min(psnr([pair]) for pair in pairs)


def against_photographs(model: Model, scene: Scene, background: str) -> float | None:
    """PSNR of renders against a few held-out photographs, dB; None where none are held out."""
    held_out = scene.splits["test"] or scene.splits["val"]
    if not held_out:
        return None
    views = held_out[:: -(-len(held_out) // _LOOKED_AT)]
    pairs = [
        (picture_of(model, scene.cameras, view, background), as_bytes(truth(scene, view, background))) for view in views
    ]
    return psnr(pairs)


def _off(a: Picture, b: Picture) -> float:
    """Mean squared difference, of values in [0, 1]."""
    return float(np.square(a / 255.0 - b / 255.0).mean())
