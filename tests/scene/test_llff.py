"""poses_bounds.npy: axes, sizes and bounds come out right; rows without their picture and broken files are named."""

from pathlib import Path

import cv2
import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from conftest import CENTER, SIZE, ball_cameras, draw_ball

from nerfkit.cameras import Cameras
from nerfkit.config import DataConfig
from nerfkit.scene import SceneError, load_scene

DATA = Path(__file__).parents[2].parent / "shared" / "data"
NAMES = [f"img_{number}.jpg.png" for number in range(1, 13)]
"""By name 1, 10, 11, 12, 2, ...: rows follow that order."""


def rows_of(cameras: Cameras, factor: int = 1) -> np.ndarray:
    """poses_bounds.npy of cameras whose full-size pictures are ``factor`` times as large; depths 2 to 4."""
    rows = []
    for number in range(len(cameras)):
        right, down, forward, position = cameras.c2w[number].double().numpy().T
        hwf = np.array([cameras.height[number], cameras.width[number], cameras.fl_x[number]], float) * factor
        matrix = np.stack([down, right, -forward, position, hwf], axis=1)
        rows.append(np.concatenate([matrix.ravel(), [2.0, 4.0]]))
    return np.stack(rows)


def write_pictures(folder: Path, cameras: Cameras, scale: int = 1) -> None:
    folder.mkdir(parents=True)
    large = cameras.scaled(scale) if scale != 1 else cameras
    for number, name in enumerate(sorted(NAMES[: len(cameras)])):
        rgba = draw_ball(cameras, number)
        rgb = np.where(rgba[..., 3:] > 0, rgba[..., :3], 90).astype(np.uint8)
        imageio.imwrite(folder / name, np.kron(rgb, np.ones((scale, scale, 1), np.uint8)))
    assert large.width[0] == SIZE * scale


def write_scene(root: Path, folder: str = "images", factor: int = 1) -> Path:
    write_pictures(root / folder, ball_cameras(12))
    np.save(root / "poses_bounds.npy", rows_of(ball_cameras(12), factor))
    return root


def test_poses_and_lens(tmp_path):
    scene = load_scene(write_scene(tmp_path / "x"), DataConfig())
    assert scene.format == "poses_bounds.npy" and scene.warnings == [] and scene.masks is None
    assert scene.image_names == [f"images/{name}" for name in sorted(NAMES)]
    assert (scene.splits["test"], scene.split_rule) == ([0, 8], "every 8th")
    wanted = ball_cameras(12)
    assert torch.allclose(scene.cameras.c2w, wanted.c2w, atol=1e-6) and scene.cameras.lens == "pinhole"
    assert torch.allclose(scene.cameras.fl_x, wanted.fl_x) and torch.equal(scene.cameras.fl_x, scene.cameras.fl_y)
    assert scene.cameras.cx.tolist() == scene.cameras.cy.tolist() == [SIZE / 2] * 12
    assert torch.allclose(torch.tensor(scene.frame.center), torch.tensor(CENTER), atol=0.02)
    assert np.array_equal(scene.images[3][16, 16], draw_ball(wanted, 3)[16, 16, :3])


@pytest.mark.parametrize(("folder", "factor"), [("images", 1), ("images_4", 4), ("images", 3)])
def test_the_pictures_size_decides_the_focal_length(tmp_path, folder, factor):
    scene = load_scene(write_scene(tmp_path / "x", folder, factor), DataConfig())
    assert torch.allclose(scene.cameras.fl_x, ball_cameras(12).fl_x)
    assert len(scene.warnings) == (folder == "images" and factor > 1)  # a folder's name that says so needs no remark


def test_of_several_folders_the_largest_pictures_count_if_there_are_enough(tmp_path):
    root = write_scene(tmp_path / "x", "images_4", 4)
    write_pictures(root / "images_2", ball_cameras(12), 2)
    (root / "images_x").mkdir()
    scene = load_scene(root, DataConfig())
    assert scene.image_names[0].startswith("images_2/") and scene.cameras.width[0] == 2 * SIZE
    assert torch.allclose(scene.cameras.fl_x, 2 * ball_cameras(12).fl_x)
    (root / "images_2" / NAMES[4]).unlink()
    (root / "images_4" / "._a.png").touch()
    assert load_scene(root, DataConfig()).image_names[0].startswith("images_4/")


def test_sides_that_do_not_divide(tmp_path):
    root = write_scene(tmp_path / "x", "images_4", 4)
    rows = rows_of(ball_cameras(12), 4)
    rows[:, [4, 9]] += 1  # 129 pixels, of which a quarter is 32
    np.save(root / "poses_bounds.npy", rows)
    scene = load_scene(root, DataConfig())
    assert scene.warnings == []
    assert torch.allclose(scene.cameras.fl_x, ball_cameras(12).fl_x * 128 / 129)


def test_masks(tmp_path):
    root = write_scene(tmp_path / "x", "images_4", 4)
    for folder in ("masks", "masks_4"):
        (root / folder).mkdir()
    mask = np.full((SIZE, SIZE), 255, np.uint8)
    mask[:4] = 0
    cv2.imwrite(str(root / "masks_4/img_10.jpg.png"), mask)
    scene = load_scene(root, DataConfig())
    assert [int((~found).sum()) for found in scene.masks] == [0, 4 * SIZE] + [0] * 10


def test_bounds_that_are_none_are_told(tmp_path):
    root = write_scene(tmp_path / "x")
    rows = rows_of(ball_cameras(12))
    rows[3, 15] = -1.0
    np.save(root / "poses_bounds.npy", rows)
    assert load_scene(root, DataConfig()).warnings == [
        "poses_bounds.npy: its bounds -1 and 4 are no depths, so they are not used"
    ]


def drop(root: Path, rows: np.ndarray) -> None:
    (root / "images" / NAMES[0]).unlink()


def no_pictures(root: Path, rows: np.ndarray) -> None:
    (root / "images").rename(root / "pictures")


def mirror(root: Path, rows: np.ndarray) -> None:
    rows[2, [0, 5, 10]] *= -1


def cell(column: int, value: float):
    return lambda root, rows: rows[5].__setitem__(column, value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop, "poses_bounds.npy: has 12 poses, but there are 11 in images: pictures must match its rows"),
        (no_pictures, "poses_bounds.npy: no folder images or images_K with the 12 pictures"),
        (mirror, "poses_bounds.npy: row 2: not a rigid transform but a mirrored one"),
        (cell(0, 7.0), "poses_bounds.npy: row 5: not a rigid transform"),
        (cell(3, np.nan), "poses_bounds.npy: not all of its numbers are finite"),
        (cell(14, 0.0), "poses_bounds.npy: row 5: height, width and focal length are 32, 32 and 0 pixels"),
        (cell(9, 64.0), r"poses_bounds.npy: row 5 \(img_3.jpg.png\): the picture is 32x32, .* for 64x32"),
    ],
)
def test_broken_scenes_are_named(tmp_path, change, said):
    root = write_scene(tmp_path / "x")
    rows = rows_of(ball_cameras(12))
    change(root, rows)
    np.save(root / "poses_bounds.npy", rows)
    refused(root, said)


def refused(path: Path, said: str) -> None:
    with pytest.raises(SceneError, match=said) as caught:
        load_scene(path, DataConfig())
    assert "\n" not in str(caught.value)


def test_broken_arrays_are_named(tmp_path):
    root = write_scene(tmp_path / "x")
    file = root / "poses_bounds.npy"
    whole = file.read_bytes()
    for length in (0, 4, 60, 130, len(whole) - 1):
        file.write_bytes(whole[:length])
        refused(root, "poses_bounds.npy: not an array of numbers that NumPy can read whole")
    np.save(file, np.zeros((12, 15)))
    refused(root, r"poses_bounds.npy: holds \(12, 15\), not 17 numbers for each picture")
    np.save(file, np.full((12, 17), "a"))
    refused(root, "poses_bounds.npy: not all of its numbers are finite")
    np.save(file, np.array([[{}] * 17] * 12), allow_pickle=True)
    refused(root, "poses_bounds.npy: not an array of numbers")


@pytest.mark.skipif(not (DATA / "fern").is_dir(), reason="../shared/data/fern is not here")
def test_fern():
    scene = load_scene(DATA / "fern", DataConfig(downscale=2))
    assert len(scene.images) == 20 and scene.splits["test"] == [0, 8, 16] and scene.warnings == []
    assert scene.image_names[3] == "images_4/image003.jpg" and scene.images[0].shape == (378, 504, 3)
    assert scene.cameras.fl_x[0] == pytest.approx(3260.526 / 8, abs=1e-3)
    assert epipolar_distance(scene.cameras, scene.images, 3, 6) < 1.0
    ends = torch.tensor([[1.0, 0, 0, 0], [0.0, 1, 0, 0], [0.0, 0, 1, 0]])
    ahead = scene.cameras.c2w @ torch.nn.functional.pad(ends, (0, 0, 0, 1))
    depths = torch.tensor([17.0, 80.0])[:, None, None] * ahead[:, :, 2] + scene.cameras.c2w[:, :, 3]
    inside = scene.frame.to_model(depths)
    assert inside.min() > 0 and inside.max() < 1


def epipolar_distance(cameras: Cameras, images: list[np.ndarray], one: int, other: int) -> float:
    """Median distance (pixels) of matched features to the line on which the poses say that they lie."""
    sift, found = cv2.SIFT_create(1500), []
    for view in (one, other):
        points, features = sift.detectAndCompute(cv2.cvtColor(images[view], cv2.COLOR_RGB2GRAY), None)
        found.append((np.array([point.pt for point in points], np.float32) + 0.5, features))
    pairs = cv2.BFMatcher().knnMatch(found[0][1], found[1][1], k=2)
    good = [best for best, second in pairs if best.distance < 0.7 * second.distance]
    assert len(good) > 100
    here = torch.tensor(found[0][0][[match.queryIdx for match in good]])
    there = torch.tensor(found[1][0][[match.trainIdx for match in good]])
    rays = cameras.rays(torch.full((len(good),), one), here)
    near, far = (cameras.project(other, rays.rays_o + t * rays.rays_d)[0] for t in (15.0, 100.0))
    along = torch.nn.functional.normalize(far - near, dim=-1)
    offset = there - near
    return float((offset[:, 0] * along[:, 1] - offset[:, 1] * along[:, 0]).abs().median())


@pytest.mark.skipif(not (DATA / "cape").is_dir(), reason="../shared/data/cape is not here")
def test_cape():
    scene = load_scene(DATA / "cape", DataConfig(downscale=2, masks="ignore"))
    assert len(scene.images) == 119 and len(scene.splits["test"]) == 15 and scene.images[0].shape == (228, 228, 3)
    assert scene.cameras.fl_x[0] == pytest.approx(7689.23 / 16, abs=1e-2) and scene.frame.n_levels == 4
    assert scene.warnings == [] and all(0.01 < mask.mean() < 0.9 for mask in scene.masks)
    # The masks of many views outline one object only if the poses are right.
    views = list(range(0, 116, 10))
    cameras, masks = scene.cameras[views], [torch.from_numpy(scene.masks[view]) for view in views]
    steps = (torch.arange(56) + 0.5) / 56 * 2.4 - 1.2
    hull = torch.tensor(scene.frame.center) + torch.cartesian_prod(steps, steps, steps)
    for number, mask in enumerate(masks):
        x, y = cameras.project(number, hull)[0].nan_to_num(-1).clamp(-1, 228).floor().long().unbind(-1)
        seen = (x >= 0) & (y >= 0) & (x < 228) & (y < 228)
        hull = hull[~seen | mask[y.clamp(0, 227), x.clamp(0, 227)]]
    shares = []
    for number, mask in enumerate(masks):
        x, y = cameras.project(number, hull)[0].floor().long().clamp(0, 227).unbind(-1)
        drawn = torch.zeros(228, 228)
        drawn[y, x] = 1
        drawn = torch.nn.functional.max_pool2d(drawn[None], 5, 1, 2)[0] > 0  # cells are some 6 pixels apart
        shares.append(float((mask & drawn).sum() / (mask | drawn).sum()))
    assert np.median(shares) > 0.8, shares
