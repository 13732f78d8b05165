"""The pictures of held-out views that a run's report shows, made once and kept beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from nerfkit.evaluate import AnyPicture, Picture, high_pass, to_bytes
from nerfkit.looks import heat_map, most_of
from nerfkit.run import Run, RunError

PICTURES = "renders/report"
MAX_WIDTH = 640
"""Pixels; wider pictures are reduced (area average)."""

_LESSER = {"cells": 480, "samples": 480}
"""Widths of pictures of which no pixel has to be seen; they are kept at a lower quality, too."""

_CLOSE = 240
"""Pixels a side of a close-up, which is shown as it is."""


@dataclass(frozen=True)
class View:
    """A held-out view: pictures of one size."""

    render: AnyPicture
    truth: AnyPicture
    cells: AnyPicture
    """The cells that the sampler believes to be occupied."""
    counts: Int[Tensor, "h w"]
    """Samples that each ray of ``render`` reached."""


ViewFn = Callable[[str], View]
"""Name of a view -> what it shows."""


def pick_views(per_image: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Records of the worst, the median and the best view by PSNR; fewer where there are fewer views."""
    ranked = sorted(per_image, key=lambda record: record["psnr"])
    if not ranked:
        return {}
    picked = {"Worst": ranked[0], "Median": ranked[(len(ranked) - 1) // 2], "Best": ranked[-1]}
    names = [record["name"] for record in picked.values()]
    return {label: record for i, (label, record) in enumerate(picked.items()) if record["name"] not in names[:i]}


def error_map(render: Picture, truth: Picture, top: float) -> UInt8[np.ndarray, "h w 3"]:
    """Mean absolute difference over the channels as a colour (RGB), from 0 (black) to ``top`` and above (pale)."""
    error = _difference(render, truth) / top
    return cv2.applyColorMap(np.rint(np.clip(error, 0, 1) * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]


def _difference(render: Picture, truth: Picture) -> Float[np.ndarray, "h w"]:
    return np.abs(to_bytes(render).astype(float) - to_bytes(truth)).mean(-1) / 255


def closest_look(truth: Picture, side: int = _CLOSE) -> tuple[slice, slice]:
    """Rows and columns of the square with the most fine detail in it; of the whole where that is smaller."""
    detail = (high_pass(to_bytes(truth) / 255) ** 2).sum(-1)
    height, width = (min(side, n) for n in detail.shape)
    sums = np.pad(detail, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    within = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    y, x = np.unravel_index(int(within.argmax()), within.shape)
    return slice(int(y), int(y) + height), slice(int(x), int(x) + width)


def kept_pictures(run: Run, names: dict[str, str], view_fn: ViewFn | None) -> dict[str, Any]:
    """What is known of the pictures of these views, which are written if there is a source; empty if there are none."""
    if view_fn is not None and names:
        _write_pictures(run, {label: view_fn(name) for label, name in names.items()}, names)
    try:
        kept = run.read_json(f"{PICTURES}/views.json")
    except RunError:
        return {}
    return kept if names and kept["names"] == names else {}


def _write_pictures(run: Run, views: dict[str, View], names: dict[str, str]) -> None:
    # One scale for all, set by the larger errors but not by a handful of outliers.
    top = max(float(np.quantile(_difference(view.render, view.truth), 0.995)) for view in views.values()) or 1 / 255
    most = most_of([view.counts for view in views.values()])
    folder = run.path / PICTURES
    folder.mkdir(parents=True, exist_ok=True)
    for label, view in views.items():
        images = {kind: to_bytes(getattr(view, kind)) for kind in ("render", "truth", "cells")}
        images |= {"error": error_map(view.render, view.truth, top), "samples": heat_map(view.counts, most)}
        for kind, image in images.items():
            width = _LESSER.get(kind, MAX_WIDTH)
            if image.shape[1] > width:
                height = round(image.shape[0] * width / image.shape[1])
                image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            quality = 80 if kind in _LESSER else 93
            options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
            cv2.imwrite(str(folder / f"{label.lower()}-{kind}.jpg"), image[..., ::-1], options)
        where = closest_look(view.truth)
        for kind in ("render", "truth"):
            close = to_bytes(getattr(view, kind))[where]
            cv2.imwrite(str(folder / f"{label.lower()}-{kind}-close.png"), close[..., ::-1])
    run.write_json(f"{PICTURES}/views.json", {"names": names, "top": top, "most": most, "close": True})
