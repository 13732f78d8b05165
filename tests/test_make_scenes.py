"""The maker of the bundled scenes, as far as it goes without a renderer: shapes, what stands in the yard, cameras."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from nerfkit.scene.transforms import read_transforms

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tools() -> dict[str, ModuleType]:
    """The maker's modules, which import each other by their bare names."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import scene_shapes
        import scene_walk
        import scene_yard
    finally:
        sys.path.remove(str(ROOT / "tools"))
    return {"shapes": scene_shapes, "walk": scene_walk, "yard": scene_yard}


def test_a_hole_leaves_its_faces_out(tools, tmp_path: Path):
    panel = tools["shapes"].panel((0, 0, 0), (4, 0, 0), (0, 0, 3), (3, 4))
    panel.holes = np.zeros((3, 4), dtype=bool)
    panel.holes[1, 1:3] = True
    tools["shapes"].write_ply(tmp_path / "wall.ply", [panel])
    header = (tmp_path / "wall.ply").read_bytes().split(b"end_header")[0].decode()
    assert "element vertex 20\n" in header and "element face 20\n" in header  # two of twelve cells cut out


def test_the_back_of_a_sheet_lies_behind_it_and_faces_the_other_way(tools):
    shapes = tools["shapes"]
    sheet = shapes.panel((0, 0, 0), (1, 0, 0), (0, 1, 0), (2, 2))
    back = shapes.reverse(sheet, 0.01)
    assert np.allclose(shapes.normals(sheet), [0, 0, 1]) and np.allclose(shapes.normals(back), [0, 0, -1])
    assert np.allclose(back.points[..., 2], -0.01)


def test_everything_in_the_yard_can_be_written_and_painted(tools):
    parts = tools["yard"].courtyard(1)
    names = [part.name for part in parts]
    assert len(set(names)) == len(names)
    for part in parts:
        assert part.surfaces, part.name
        for surface in part.surfaces:
            assert np.isfinite(surface.points).all(), part.name
        points = part.surfaces[0].enlarged(4, 6)
        paint = part.paint(points, np.full((4, 6, 2), 0.3))
        base = np.broadcast_to(paint.base, (4, 6, 3))
        assert base.min() >= 0 and base.max() <= 1.2, part.name


def test_cameras_stay_in_the_yard_and_tests_lie_between_training_views(tools):
    shots = tools["walk"].shots(lambda place, way: np.inf)
    train = np.array([shot.pose[:3, 3] for shot in shots if not shot.test])
    tests = np.array([shot.pose[:3, 3] for shot in shots if shot.test])
    assert len(train) >= 120 and len(tests) >= 16
    assert len({shot.name for shot in shots}) == len(shots)
    every = np.concatenate([train, tests])
    assert (np.abs(every[:, 0]) < tools["yard"].EAST).all() and (np.abs(every[:, 1]) < tools["yard"].NORTH).all()
    assert every[:, 2].min() > 0.5 and every[:, 2].max() < 8
    near = np.sort(np.linalg.norm(tests[:, None] - train[None], axis=-1), axis=1)
    assert near[:, 1].max() < 4.5  # each has two training views beside it


def test_a_camera_steps_away_from_a_wall(tools):
    walk = tools["walk"]

    def to_wall(place: np.ndarray, way: np.ndarray) -> float:
        return (1 - place[0]) / way[0] if way[0] > 1e-9 else np.inf

    eye, target = np.array([0.8, 0.0, 1.6]), np.array([-5.0, 0.0, 1.6])
    place = walk.stand_clear(eye, target, to_wall)
    assert place[0] < 1 - walk.GAP
    with pytest.raises(ValueError, match="no room"):
        walk.stand_clear(eye, target, lambda place, way: 0.1)


def test_the_bundled_courtyard_says_which_views_are_held_out(tools):
    listing = read_transforms(ROOT / "scenes" / "courtyard" / "transforms.json")
    splits = [view.split for view in listing.views]
    names = {shot.name: shot.test for shot in tools["walk"].shots(lambda place, way: np.inf)}
    assert {view.path.stem: view.split == "test" for view in listing.views} == names
    assert splits.count("train") >= 120 and not listing.warnings
