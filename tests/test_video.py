"""Films are whole or not there, and play everywhere."""

from __future__ import annotations

from pathlib import Path

import cv2
import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from conftest import ball_cameras

from nerfkit import video
from nerfkit.aside import PlaceError
from nerfkit.cameras import Cameras
from nerfkit.config import Config, DataConfig
from nerfkit.poses import SceneError
from nerfkit.render import Model, new_model
from nerfkit.scene import Scene, load_scene
from nerfkit.types import Rendered
from nerfkit.video import VideoError, camera_path, depth_picture, depth_range, film


def frame(value: int, height: int = 32, width: int = 48) -> np.ndarray:
    return np.full((height, width, 3), value, dtype=np.uint8)


def read_video(path: Path) -> tuple[np.ndarray, float, str]:
    """Frames, frames a second and codec of a video."""
    reader, frames = cv2.VideoCapture(str(path)), []
    codec = int(reader.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode()
    rate = reader.get(cv2.CAP_PROP_FPS)
    while (found := reader.read())[0]:
        frames.append(found[1].astype(int))
    reader.release()
    return np.stack(frames), rate, codec


def test_a_video_has_its_frames_at_its_pace(tmp_path: Path) -> None:
    path = tmp_path / "new" / "film.mp4"
    with film(path, fps=10.0) as add:
        for value in (0, 120, 240):
            add(frame(value))
    found, rate, codec = read_video(path)
    assert found.shape == (3, 32, 48, 3)
    assert np.abs(found.mean((1, 2, 3)) - [0, 120, 240]).max() < 4
    assert rate == 10.0 and codec in ("h264", "avc1")
    assert [entry.name for entry in path.parent.iterdir()] == ["film.mp4"]


def test_an_odd_row_and_column_are_cropped(tmp_path: Path) -> None:
    with film(tmp_path / "odd.mp4") as add:
        add(frame(100, 33, 47))
    assert read_video(tmp_path / "odd.mp4")[0].shape[1:3] == (32, 46)


@pytest.mark.parametrize("name", ["film.mp4", "frames"])
def test_an_interrupted_film_leaves_nothing_and_the_old_one_stays(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(KeyboardInterrupt), film(path) as add:
        add(frame(10))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with film(path) as add:
        add(frame(10))
    before = path.read_bytes() if path.is_file() else sorted(path.iterdir())
    with pytest.raises(KeyboardInterrupt), film(path) as add:
        add(frame(20))
        raise KeyboardInterrupt
    assert before == (path.read_bytes() if path.is_file() else sorted(path.iterdir()))
    assert list(tmp_path.iterdir()) == [path]


def test_frames_become_pictures_that_lose_nothing(tmp_path: Path) -> None:
    path, noise = tmp_path / "frames", np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    with film(path) as add:
        add(frame(1))
        add(noise)
    assert sorted(entry.name for entry in path.iterdir()) == ["frame-00000.png", "frame-00001.png"]
    assert np.array_equal(imageio.imread(path / "frame-00001.png"), noise)
    with film(path) as add:
        add(noise)
    assert [entry.name for entry in path.iterdir()] == ["frame-00000.png"]


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.pdf").write_text("years of work")
    with pytest.raises(PlaceError, match="holds thesis.pdf"), film(tmp_path) as add:
        add(frame(1))
    assert (tmp_path / "thesis.pdf").read_text() == "years of work"


@pytest.mark.parametrize(
    ("name", "frames", "sentence"),
    [
        ("film.avi", [], "a video ends in .mp4"),
        ("film.mp4", [], "at least one frame"),
        ("frames", [], "at least one frame"),
        ("film.mp4", [frame(1), frame(1, 16, 16)], "several sizes .16x16 after 48x32."),
        ("film.mp4", [frame(1, 1, 1)], "too small"),
    ],
)
def test_a_film_that_cannot_be_is_told(tmp_path: Path, name: str, frames: list[np.ndarray], sentence: str) -> None:
    with pytest.raises(VideoError, match=sentence), film(tmp_path / name) as add:
        for one in frames:
            add(one)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def ball(toy_scene: Path) -> Scene:
    return load_scene(toy_scene, DataConfig())


@pytest.mark.parametrize(
    ("name", "n_frames", "fps", "expected"),
    [
        ("orbit", None, None, (120, 24.0)),
        ("spiral", None, 10, (50, 10.0)),
        ("interpolate", None, None, (240, 24.0)),
        ("orbit", 7, 30.0, (7, 30.0)),
        ("test", None, None, (4, 24.0)),
    ],
)
def test_paths_have_the_frames_asked_for(
    ball: Scene, name: str, n_frames: int | None, fps: float | None, expected: tuple[int, float]
) -> None:
    cameras, rate = camera_path(ball, name, n_frames, fps)
    assert (len(cameras), rate) == expected


def test_a_path_file_keeps_its_own_pace(ball: Scene, tmp_path: Path) -> None:
    from nerfkit.paths import write_path

    write_path(ball_cameras(3), tmp_path / "path.json", fps=12.0)
    cameras, rate = camera_path(ball, str(tmp_path / "path.json"))
    assert (len(cameras), rate) == (3, 12.0)
    assert camera_path(ball, str(tmp_path / "path.json"), fps=30.0)[1] == 30.0


def test_a_path_that_is_none_is_told(ball: Scene) -> None:
    with pytest.raises(VideoError, match="no path is called orbti; there is orbit, spiral"):
        camera_path(ball, "orbti")
    with pytest.raises(SceneError, match="no such camera path"):
        camera_path(ball, "missing.json")


def test_depth_is_warm_near_and_cold_far_and_black_where_nothing_is() -> None:
    depth = torch.tensor([[1.0, 4.0, 2.0]])
    picture = depth_picture(depth, torch.tensor([[1.0, 1.0, 0.0]]), (1.0, 4.0)).astype(int)
    near, far, nothing = picture[0]
    assert near[0] > near[2] and far[2] > far[0]
    assert nothing.tolist() == [0, 0, 0]
    assert depth_picture(depth * 9, torch.ones(1, 3), (1.0, 4.0))[0, 0].tolist() == far.tolist()
    with pytest.raises(ValueError, match="make no scale"):
        depth_picture(depth, torch.ones(1, 3), (2.0, 2.0))


def test_one_scale_of_depth_serves_a_path(ball: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes = new_model(Config(engine="cpu"), ball.frame), []

    def look(model: Model, cameras: Cameras, index: int, background: str) -> Rendered:
        height, width = int(cameras.height[index]), int(cameras.width[index])
        sizes.append(max(height, width))
        depth = torch.linspace(2, 6, height * width).view(height, width)
        opacity = (depth > 3).float()
        nothing = torch.zeros(height, width, 3)
        return Rendered(nothing, opacity, depth, depth, nothing[..., 0].int(), nothing[..., :0])

    monkeypatch.setattr(video, "render_image", look)
    near, far = depth_range(model, Cameras.pinhole(ball_cameras(20).c2w, 500.0, 800, 400))
    assert 3 <= near < 3.2 and 5.8 < far <= 6
    assert len(sizes) == 8 and max(sizes) == 64
