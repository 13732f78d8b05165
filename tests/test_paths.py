"""Paths stay where the photographs were taken, look at the subject, and go through files unchanged."""

import json
import math
from pathlib import Path

import pytest
import torch
from conftest import CENTER, DISTANCE, ball_cameras, frames_of

from nerfkit.cameras import Cameras
from nerfkit.paths import facing, focus, interpolate, orbit, read_path, spiral, write_path
from nerfkit.poses import SceneError, look_at

UP = torch.tensor([0.0, 0.0, 1.0])


def grid_of_views(n: int = 5) -> Cameras:
    """Forward-facing: a plane of parallel cameras, slightly disturbed."""
    place = torch.cartesian_prod(torch.linspace(-1, 1, n), torch.zeros(1), torch.linspace(-0.5, 0.5, n))
    target = place + torch.tensor([0.0, 10.0, 0.0]) + 0.3 * torch.randn(len(place), 3, generator=torch.manual_seed(0))
    return Cameras.pinhole(look_at(place, target, UP), 40.0, 64, 48)


def panorama() -> Cameras:
    turn = torch.arange(10) / 10 * math.tau
    place = 0.2 * torch.stack([turn.cos(), turn.sin(), torch.zeros(10)], -1)
    return Cameras.pinhole(look_at(place, 5 * place, UP), 40.0, 64, 48)


def test_facing():
    assert facing(ball_cameras(12)) == "inward"
    assert facing(grid_of_views()) == "forward"
    assert facing(panorama()) == "outward"
    assert facing(ball_cameras(1)) == "forward"


def test_orbit_goes_round_the_ball():
    path = orbit(ball_cameras(12), 40)
    offset = path.c2w[:, :, 3] - torch.tensor(CENTER)
    distance = torch.linalg.vector_norm(offset, dim=-1)
    assert len(path) == 40 and torch.allclose(distance, torch.tensor(DISTANCE), atol=0.05)
    assert torch.allclose(path.c2w[:, :, 2], -offset / DISTANCE, atol=0.03)
    assert (path.c2w[:, 2, 1] < 0).all()
    steps = torch.linalg.vector_norm(torch.diff(path.c2w[:, :, 3], dim=0), dim=-1)
    assert steps.max() < 1.1 * steps.min()


def test_orbit_on_an_arc_stays_on_it():
    cameras = ball_cameras(40)[10:20]
    path = orbit(cameras, 60)
    nearest = torch.cdist(path.c2w[:, :, 3], cameras.c2w[:, :, 3]).min(1).values
    assert nearest.max() < 0.5 * DISTANCE
    theirs, ours = (each.c2w[:, :2, 3] - torch.tensor(CENTER[:2]) for each in (cameras, path))
    middle = theirs.mean(0)
    assert torch.cosine_similarity(ours, middle, dim=-1).min() > torch.cosine_similarity(theirs, middle, dim=-1).min()


@pytest.mark.parametrize("path_fn", [spiral, orbit])
def test_forward_facing_paths_stay_within_the_views(path_fn):
    cameras = grid_of_views()
    path = path_fn(cameras, 50)
    low, high = cameras.c2w[:, :, 3].min(0).values, cameras.c2w[:, :, 3].max(0).values
    assert (path.c2w[:, :, 3] > low - 0.1).all() and (path.c2w[:, :, 3] < high + 0.1).all()
    assert path.c2w[:, 1, 2].min() > 0.9


@pytest.mark.parametrize("cameras", [panorama(), ball_cameras(1), ball_cameras(2)])
@pytest.mark.parametrize("path_fn", [spiral, orbit, interpolate])
def test_odd_captures_give_finite_rotations(cameras, path_fn):
    path = path_fn(cameras, 12)
    axes = path.c2w[:, :, :3]
    assert torch.allclose(axes.transpose(1, 2) @ axes, torch.eye(3).expand(12, 3, 3), atol=1e-4)
    assert path.c2w.isfinite().all() and math.isfinite(focus(cameras)[1])


def test_interpolation_passes_all_cameras_without_jumps():
    shuffled = ball_cameras(16)[torch.randperm(16, generator=torch.manual_seed(5))]
    path = interpolate(shuffled, 600)
    nearest = torch.cdist(shuffled.c2w[:, :, 3], path.c2w[:, :, 3]).min(1).values
    assert nearest.max() < 0.05
    steps = torch.linalg.vector_norm(torch.diff(path.c2w[:, :, 3], dim=0), dim=-1)
    assert steps.max() < 0.2


def test_path_files_give_back_the_same_cameras(tmp_path: Path):
    path = orbit(ball_cameras(12), 7)
    write_path(path, tmp_path / "path.json", fps=30.0)
    again, fps = read_path(tmp_path / "path.json")
    assert fps == 30.0 and torch.allclose(again.c2w, path.c2w, atol=1e-6)
    assert torch.allclose(again.fl_x, path.fl_x) and torch.equal(again.width, path.width)
    data = json.loads((tmp_path / "path.json").read_text())
    assert data["frame"] == "scene" and len(data["camera_path"][0]["camera_to_world"]) == 16
    assert data["camera_path"][0]["fov"] == pytest.approx(math.degrees(0.8), abs=1e-3)


def test_nerfstudio_paths_and_transforms_are_paths_too(tmp_path: Path):
    frames = frames_of(ball_cameras(3), ["a", "b", "c"])
    entries = [{"camera_to_world": sum(f["transform_matrix"], []), "fov": 90, "aspect": 2.0} for f in frames]
    file = tmp_path / "path.json"
    file.write_text(json.dumps({"camera_path": entries, "render_width": 200, "render_height": 100, "fps": 10}))
    cameras, fps = read_path(file)
    assert fps == 10 and cameras.width.tolist() == [200] * 3 and cameras.fl_y.tolist() == pytest.approx([50] * 3)
    assert torch.allclose(cameras.c2w, ball_cameras(3).c2w, atol=1e-6)
    file.write_text(json.dumps({"camera_angle_x": 0.8, "frames": frames, "fps": None}))
    cameras, fps = read_path(file, (64, 48))
    assert fps == 24 and cameras.width.tolist() == [64] * 3
    assert torch.allclose(cameras.c2w, ball_cameras(3).c2w, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not a JSON"),
        ("[]", "no cameras"),
        ('{"frames": []}', "no cameras"),
        ('{"camera_path": [3]}', r"camera_path\[0\]: expected an object"),
        ('{"camera_path": [{"camera_to_world": [1, 2]}]}', r"camera_path\[0\].camera_to_world"),
        ('{"frame": "moon", "camera_path": [{}]}', "frame is 'moon'"),
        ('{"camera_type": "equirectangular", "camera_path": [{}]}', "camera_type is 'equirectangular'"),
        ('{"fps": 0, "camera_path": [{}]}', "fps is 0"),
    ],
)
def test_bad_path_files_are_named(tmp_path: Path, text: str, said: str):
    (tmp_path / "path.json").write_text(text)
    with pytest.raises(SceneError, match=f"path.json: .*{said}|path.json: {said}"):
        read_path(tmp_path / "path.json")


def test_a_missing_path_file_is_named(tmp_path: Path):
    with pytest.raises(SceneError, match="gone.json: there is no such"):
        read_path(tmp_path / "gone.json")
