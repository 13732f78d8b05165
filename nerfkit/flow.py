"""Dense flow between two pictures of the same thing, and one picture laid onto the other by it.

A flow f says where what is at pixel x of the first picture stands in the second: at x + f(x), in pixels. It is found by
OpenCV's DIS (Kroeger et al. 2016), dense inverse search at several scales with variational refinement, on brightness.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

LEAST = 16
"""Pixels a side below which pictures are too small for the search."""


def flow_between(first: UInt8[np.ndarray, "h w 3"], second: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 2"]:
    """The flow (x, y) from the first picture to the second, RGB of 8 bit.

    Raises ValueError where a side is shorter than `LEAST` pixels.
    """
    if min(first.shape[:2]) < LEAST:
        raise ValueError(f"flow needs pictures of at least {LEAST} pixels a side, found {first.shape[:2]}")
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)
    grey = [cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY) for picture in (first, second)]
    return search.calc(*grey, None)


def warped(picture: Float[np.ndarray, "h w c"], flow: Float[np.ndarray, "h w 2"]) -> Float[np.ndarray, "h w c"]:
    """The second picture laid onto the first: its colours at x + f(x), between pixels by Lanczos' kernel.

    Beyond its border stand the colours of the border; the kernel may overshoot the range of colours at hard edges.
    """
    values = np.ascontiguousarray(picture, np.float32)
    return cv2.remap(values, *_places(flow), cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE)


def reached(usable: Bool[np.ndarray, "h w"], flow: Float[np.ndarray, "h w 2"]) -> Bool[np.ndarray, "h w"]:
    """Pixels of the first picture that the flow leads to usable ones of the second, not beyond its border."""
    share = cv2.remap(usable.astype(np.float32), *_places(flow), cv2.INTER_LINEAR, borderValue=0.0)
    return share > 0.99


def _places(flow: Float[np.ndarray, "h w 2"]) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"]]:
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return x + flow[..., 0], y + flow[..., 1]
