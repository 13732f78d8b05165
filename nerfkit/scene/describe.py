"""What a scene is, in a few lines a person can check at a glance: the words of ``nerfkit info``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch

from nerfkit.paths import facing, focus
from nerfkit.scene.scene import Scene


def _span(values: Iterable[float]) -> str:
    ascending = sorted(values)
    low, high = f"{ascending[0]:.4g}", f"{ascending[-1]:.4g}"
    return low if low == high else f"{low} to {high}"


def _corner(values: Iterable[float]) -> str:
    return "(" + ", ".join(f"{value:.3g}" for value in values) + ")"


def describe(scene: Scene) -> dict[str, str]:
    """Label and text of everything worth knowing before a training; lengths in scene units.

    The last entries are the scene's warnings, if there are any.
    """
    cameras, frame = scene.cameras, scene.frame
    sizes = Counter(f"{image.shape[1]}x{image.shape[0]}" for image in scene.images)
    n_clear = sum(image.shape[2] == 4 for image in scene.images)
    kinds = "opaque" if not n_clear else "with alpha" if n_clear == len(scene.images) else f"({n_clear} with alpha)"
    train = cameras[scene.splits["train"]]
    center, distance = focus(train)
    from_center = torch.linalg.vector_norm(train.c2w[:, :, 3] - center, dim=-1)
    levels = f", {frame.n_levels} levels of occupancy" if frame.n_levels > 1 else ""
    lines = {
        "scene": f"{scene.name}, read from {scene.format} in {scene.root}",
        "images": f"{len(scene.images)} {kinds}, " + ", ".join(f"{count} of {size}" for size, count in sizes.items()),
        "masks": "none" if scene.masks is None else f"{sum(not mask.all() for mask in scene.masks)} images have one",
        "splits": ", ".join(f"{len(rows)} {name}" for name, rows in scene.splits.items()) + f" ({scene.split_rule})",
        "lens": f"{cameras.lens}, focal length {_span(cameras.fl_x.tolist())} pixels",
        "cameras": f"facing {facing(train)}, {_span(from_center.tolist())} from {_corner(center.tolist())}",
        "box": f"{_corner(frame.aabb[:3])} to {_corner(frame.aabb[3:])}{levels}",
        "model": f"unit cube of side {1 / frame.scale:.4g} about {_corner(frame.center)}",
        "planes": f"near {frame.near_plane:.3g}, far {frame.far_plane:.3g}",
        "background": scene.background,
        "fingerprint": scene.fingerprint,
    }
    return lines | {f"warning {number}": text for number, text in enumerate(scene.warnings, 1)}
