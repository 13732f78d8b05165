"""Which cells may be occupied: those that the photographs do not rule out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nerfkit.config import DataConfig
from nerfkit.poses import SceneError
from nerfkit.sampling.seen import seen_cells
from nerfkit.scene import load_scene
from nerfkit.scene.scene import Scene

RES = 32


def cell_centers(scene: Scene, level: int) -> torch.Tensor:
    """Middles of a level's cells in scene coordinates, (r, r, r, 3)."""
    axis = (torch.arange(RES) + 0.5) / RES - 0.5
    cube = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    side = 0.5 ** (scene.frame.n_levels - 1 - level)
    return scene.frame.to_scene(cube.view(-1, 3) * side + 0.5).view(RES, RES, RES, 3)


def test_silhouettes_bound_an_object(toy_scene: Path) -> None:
    scene = load_scene(toy_scene, DataConfig())
    cells = seen_cells(scene, RES)
    assert cells.shape == (1, RES, RES, RES)
    distance = (cell_centers(scene, 0) - torch.tensor([0.3, -0.2, 0.1])).norm(dim=-1)
    assert cells[0][distance < 0.7].all()
    assert float(cells.float().mean()) < 0.9
    assert not cells[0][distance > 1.8].any()


def test_of_an_opaque_scene_what_two_cameras_see_from_afar(toy_capture: Path) -> None:
    scene = load_scene(toy_capture, DataConfig())
    cells = seen_cells(scene, RES)
    n_levels = scene.frame.n_levels
    assert cells.shape == (n_levels, RES, RES, RES)
    for level in range(n_levels):
        points = cell_centers(scene, level).view(-1, 3)
        n_views = torch.zeros(len(points), dtype=torch.int)
        anywhere = torch.zeros(len(points), dtype=torch.int)
        for view in scene.splits["train"]:
            pixels, depth = scene.cameras.project(view, points)
            size = torch.tensor([scene.cameras.width[view], scene.cameras.height[view]])
            far = depth > 4.0 * scene.frame.near_plane
            n_views += ((pixels > 0) & (pixels < size)).all(1) & far
            anywhere += far
        assert cells[level].view(-1)[n_views >= 2].all()
        assert not cells[level].view(-1)[anywhere < 2].any()
    assert cells[0].all()


def test_views_held_out_do_not_count(toy_capture: Path) -> None:
    scene = load_scene(toy_capture, DataConfig())
    two = replace(scene, splits={**scene.splits, "train": scene.splits["train"][:2]})
    few, all_views = seen_cells(two, RES), seen_cells(scene, RES)
    assert not (few & ~all_views).any()
    assert int(few.sum()) < int(all_views.sum())


def test_where_nothing_is_left_it_is_said(toy_scene: Path, toy_capture: Path) -> None:
    scene = load_scene(toy_scene, DataConfig())
    blank = replace(scene, images=[image * 0 for image in scene.images])
    with pytest.raises(SceneError, match="silhouettes share no point"):
        seen_cells(blank, RES)
    capture = load_scene(toy_capture, DataConfig())
    away = replace(capture, frame=replace(capture.frame, near_plane=1e6))
    with pytest.raises(SceneError, match="no part of the scene is seen by 2"):
        seen_cells(away, RES)


def test_a_margin_widens_silhouettes(toy_scene: Path) -> None:
    scene = load_scene(toy_scene, DataConfig())
    cells, wider = seen_cells(scene, RES), seen_cells(scene, RES, margin=0.1)
    assert (wider | ~cells).all() and int(wider.sum()) > 1.1 * int(cells.sum())
    assert not wider.all(), "what is far beyond them stays out"
