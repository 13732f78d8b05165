"""Which cells of the occupancy grid may be occupied at all: those that the photographs do not rule out."""

import torch
from jaxtyping import Bool
from torch import Tensor

from nerfkit.kernels.launch import parallel
from nerfkit.poses import SceneError
from nerfkit.scene.carve import visual_hull
from nerfkit.scene.scene import Scene

_NEAR = 4.0
_COARSE = 64
"""Cells along one side of a level at which cameras are asked; finer ones share the answer, with its margin."""


def seen_cells(scene: Scene, resolution: int, margin: float = 0.0) -> Bool[Tensor, "levels r r r"]:
    """Cells inside the silhouettes of a scene with alpha; for an opaque one, cells that two training cameras see.

    Without this, a field hides colour where nobody looks, and it floats in front of later cameras. What a camera has
    right before it (`_NEAR` near planes) does not count as seen: from there on other views must agree. Raises
    SceneError where nothing is left.

    ``margin`` widens silhouettes by this share of a picture's longer side: under poses that are not quite right they
    would cut off what is thin.
    """
    if scene.has_alpha and scene.frame.n_levels == 1:
        hull = visual_hull(scene, resolution, margin)[None]
        if not hull.any():
            raise SceneError(f"{scene.root}: the pictures' silhouettes share no point of space; are the poses theirs?")
        return hull
    cameras, views = scene.cameras, scene.splits["train"]
    finer = max(1, resolution // _COARSE) if resolution % _COARSE == 0 else 1
    coarse = resolution // finer
    centers = (torch.arange(coarse) + 0.5) / coarse
    cube = torch.stack(torch.meshgrid(centers, centers, centers, indexing="ij"), -1).reshape(-1, 3)
    wanted = min(2, len(views))

    def look(level: int) -> Tensor:
        side = 0.5 ** (scene.frame.n_levels - 1 - level)
        points = scene.frame.to_scene((cube - 0.5) * side + 0.5)
        n_views = torch.zeros(len(points), dtype=torch.uint8)
        radius = 0.87 * side / scene.frame.scale / coarse
        for view in views:
            todo = (n_views < wanted).nonzero()[:, 0]
            pixels, depth = cameras.project(view, points[todo])
            margin = radius * cameras.fl_x[view] / depth.clamp(min=1e-6)
            inside = (pixels > -margin[:, None]).all(1) & (depth > _NEAR * scene.frame.near_plane)
            inside &= (pixels[:, 0] < cameras.width[view] + margin) & (pixels[:, 1] < cameras.height[view] + margin)
            n_views[todo[inside]] += 1
        seen = (n_views >= wanted).view(coarse, coarse, coarse)
        for axis in range(3):
            seen = seen.repeat_interleave(finer, axis)
        return seen

    seen = torch.stack(parallel(look, range(scene.frame.n_levels), torch.device("cpu")))
    if not seen.any():
        raise SceneError(f"{scene.root}: no part of the scene is seen by {wanted} of its training cameras")
    return seen
