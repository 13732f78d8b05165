"""Cameras from which a scene is seen anew: between its training cameras, where no photograph was taken."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.spatial.transform import Rotation, Slerp

from nerfkit.cameras import Cameras
from nerfkit.scene.scene import Scene

_NEAREST = 3
"""Neighbours of a camera, towards one of which a new one is moved."""
_DISTANCES = (0.75, 1.5)
"""About an object, in units of the training cameras' distance."""


def views_between(scene: Scene, n: int, size: int | tuple[int, int], seed: int | Sequence[int]) -> Cameras:
    """n pinholes between training cameras; about an object, nearer and further as well.

    Args:
        size: pixels across, or width and height, to which pictures are then stretched.
    """
    chance, train = np.random.default_rng(seed), scene.splits["train"]
    cameras = scene.cameras[train]
    poses = cameras.c2w.double().numpy()
    fx, fy = (float((f / d).median()) for f, d in ((cameras.fl_x, cameras.width), (cameras.fl_y, cameras.height)))
    aspect = float((cameras.height / cameras.width).median())
    width, height = size if isinstance(size, tuple) else (size, round(aspect * size))
    center, found = np.array(scene.frame.center), []
    for _ in range(n):
        first = int(chance.integers(len(poses)))
        near = np.argsort(np.linalg.norm(poses[:, :, 3] - poses[first, :, 3], axis=1))[: 1 + _NEAREST]
        near = near[1:] if len(near) > 1 else near  # a single camera has no other neighbour
        second, share = int(chance.choice(near)), chance.uniform(0.2, 0.8)
        turn = Slerp([0, 1], Rotation.from_matrix(poses[[first, second], :, :3]))(share).as_matrix()
        place = (1 - share) * poses[first, :, 3] + share * poses[second, :, 3]
        if scene.frame.n_levels == 1:
            place = center + (place - center) * chance.uniform(*_DISTANCES)
        found.append(np.concatenate([turn, place[:, None]], 1))
    c2w = torch.from_numpy(np.stack(found)).float()
    seen = Cameras.pinhole(c2w, fx * width, width, height)
    seen.fl_y.fill_(fy * height)
    return seen
