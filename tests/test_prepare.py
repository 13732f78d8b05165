"""From photographs to a scene: two painted walls that meet, photographed from places that are known."""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from nerfkit.cli import main
from nerfkit.config import DataConfig
from nerfkit.poses import SceneError, look_at
from nerfkit.prepare import WORK, prepare
from nerfkit.scene import load_scene
from nerfkit.scene.photos import Photos
from nerfkit.scene.sfm import choose_pairs

needs_colmap = pytest.mark.skipif(find_spec("pycolmap") is None, reason="structure from motion needs pycolmap")

WIDTH, HEIGHT, FOCAL = 400, 300, 420.0
N = 8


def silent(stage: str, done: int, total: int) -> None:
    assert 0 <= done <= total and stage


def wall(seed: int) -> np.ndarray:
    """Blots of many sizes, 512x512."""
    generator, paint = np.random.default_rng(seed), np.zeros((512, 512, 3), np.float32)
    for cells in (16, 32, 64, 128):
        noise = generator.random((cells, cells, 3)).astype(np.float32)
        paint += cv2.resize(noise, (512, 512), interpolation=cv2.INTER_CUBIC)
    return np.clip(paint * 64, 0, 255).astype(np.uint8)


def cameras(n: int = N) -> torch.Tensor:
    """Camera to world, in an arc before the walls x = 0 and y = 0."""
    angle = torch.linspace(0.4, math.tau / 4 - 0.4, n)
    places = torch.stack([4 * torch.cos(angle), 4 * torch.sin(angle), 1.0 + 0.4 * torch.sin(5 * angle)], 1)
    center = torch.tensor([0.4, 0.4, 1.0]).expand(n, 3)
    return look_at(places, center, torch.tensor([0.0, 0.0, 1.0]))


def photograph(c2w: np.ndarray) -> np.ndarray:
    """The two walls, each 2 wide and high from the corner at the origin, as a pinhole sees them."""
    k = np.array([[FOCAL, 0, WIDTH / 2 - 0.5], [0, FOCAL, HEIGHT / 2 - 0.5], [0, 0, 1.0]])
    turn = c2w[:, :3].T
    shift = -turn @ c2w[:, 3]
    photo = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    for number, along in enumerate(np.eye(3)[:2]):
        plane = np.stack([along * 2 / 512, np.array([0, 0, 2 / 512]), np.zeros(3)], 1)
        homography = k @ (turn @ plane + np.outer(shift, [0, 0, 1]))
        cv2.warpPerspective(wall(number), homography, (WIDTH, HEIGHT), photo, borderMode=cv2.BORDER_TRANSPARENT)
    return photo


def photograph_all(folder: Path) -> None:
    """Write the photographs from all cameras into a new folder."""
    folder.mkdir(parents=True)
    for number, c2w in enumerate(cameras().double().numpy()):
        cv2.imwrite(str(folder / f"{number}.png"), photograph(c2w))


@pytest.fixture(scope="module")
def holiday(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight photographs of the walls, and one of something else; to be read, not written."""
    folder = tmp_path_factory.mktemp("photos") / "holiday"
    photograph_all(folder)
    cv2.imwrite(str(folder / "elsewhere.png"), wall(7)[:HEIGHT, :WIDTH])
    return folder


@pytest.fixture(scope="module")
def scene(holiday: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is made of them."""
    out = tmp_path_factory.mktemp("scenes") / "walls"
    prepare(holiday, out, 10, 0, silent)
    return out


@needs_colmap
def test_the_cameras_are_where_they_were(scene: Path) -> None:
    found = load_scene(scene, DataConfig())
    assert found.image_names == [f"images/{number}.png" for number in range(N)]
    true = cameras().double()
    ours = found.cameras.c2w.double()
    # Structure from motion knows neither place nor size of the world: compare turns, and ratios of distances.
    for one in range(N):
        for other in range(N):
            between = true[one, :, :3].T @ true[other, :, :3] @ ours[other, :, :3].T @ ours[one, :, :3]
            assert math.degrees(math.acos(min(1.0, float((between.trace() - 1) / 2)))) < 0.5
    apart, wanted = (torch.pdist(c2w[:, :, 3]) for c2w in (ours, true))
    ratio = apart / wanted
    assert float((ratio / ratio.median() - 1).abs().max()) < 0.02
    assert float(found.cameras.fl_x[0]) == pytest.approx(FOCAL, rel=0.03)


@needs_colmap
def test_looking_at_the_work_does_not_disturb_it(
    holiday: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nerfkit.scene.sfm._PAUSE", 0.001)
    seen: dict[str, set[int]] = {}
    record = prepare(
        holiday, tmp_path / "scene", 100, 0, lambda stage, done, total: seen.setdefault(stage, set()).add(done)
    )
    assert record["n_registered"] == N
    assert max(seen["finding features"]) == N + 1 and max(seen["comparing photos"]) > 0


@needs_colmap
def test_the_folder_holds_what_a_scene_needs(scene: Path) -> None:
    assert sorted(entry.name for entry in scene.iterdir()) == ["cameras.html", "images", "prepare.json", "sparse"]
    record = json.loads((scene / "prepare.json").read_text())
    assert (record["n_photos"], record["n_registered"]) == (N + 1, N)
    assert record["reprojection_error"] < 1.0 and record["n_points"] > 300 and record["gps_error"] is None
    assert list(record["missing"]) == ["elsewhere.png"]
    assert "overlaps with no other photo" in record["missing"]["elsewhere.png"]
    assert "36 pairs" in record["matching"]
    assert "<svg" in (scene / "cameras.html").read_text()


@needs_colmap
def test_a_scene_is_not_written_over(scene: Path, holiday: Path, tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="holds a scene already"):
        prepare(holiday, scene, 10, 0, silent)
    (tmp_path / "thesis.pdf").write_text("years of work")
    with pytest.raises(SceneError, match="is not empty .it holds thesis.pdf."):
        prepare(holiday, tmp_path, 10, 0, silent)


@needs_colmap
def test_an_interrupted_one_goes_on_where_it_was(holiday: Path, tmp_path: Path) -> None:
    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "placing cameras":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(holiday, tmp_path / "walls", 10, 0, interrupt)
    assert len(list((tmp_path / "walls" / WORK).glob("*/database.db"))) == 1
    seen: dict[str, list[int]] = {}

    def note(stage: str, done: int, total: int) -> None:
        seen.setdefault(stage, []).append(done)

    record = prepare(holiday, tmp_path / "walls", 10, 0, note)
    assert record["n_registered"] == N and not (tmp_path / "walls" / WORK).exists()
    assert "reading photos" not in seen
    assert seen["finding features"][0] == N + 1, "all features were there"


@needs_colmap
def test_photographs_that_do_not_overlap(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3):
        cv2.imwrite(str(tmp_path / "in" / f"{number}.png"), wall(10 + number)[:HEIGHT, :WIDTH])
    with pytest.raises(SceneError, match="the 3 photos do not overlap"):
        prepare(tmp_path / "in", tmp_path / "out", 10, 0, silent)


@needs_colmap
def test_two_photographs(holiday: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    for name in ("0.png", "1.png"):
        (tmp_path / "in" / name).write_bytes((holiday / name).read_bytes())
    assert main(["prepare", str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 1
    assert "2 photos: a scene needs at least 3" in capsys.readouterr().err


def test_without_pycolmap_one_is_told(holiday: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pycolmap", None)
    with pytest.raises(SceneError, match="pip install 'nerfkit.sfm.'"):
        prepare(holiday, tmp_path / "out", 10, 0, silent)


@pytest.mark.parametrize(
    ("n", "located", "ordered", "kind"),
    [
        (20, 0, False, "exhaustive"),
        (20, 20, True, "exhaustive"),
        (500, 0, True, "sequential"),
        (500, 490, False, "spatial"),
        (500, 100, False, "exhaustive"),
    ],
)
def test_pairs_are_chosen_by_count_place_and_order(n: int, located: int, ordered: bool, kind: str) -> None:
    names = [str(number) for number in range(n)]
    photos = Photos(names, ordered, True, {name: (0.0, 0.0, 0.0) for name in names[:located]})
    assert choose_pairs(photos)[0] == kind
