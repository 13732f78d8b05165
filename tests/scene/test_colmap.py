"""COLMAP's models: both forms say the same, lenses follow COLMAP's formulas, what is broken is named."""

import dataclasses
import math
import struct
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from conftest import CENTER, RADIUS, SIZE, ball_cameras, draw_ball

from nerfkit.cameras import Cameras
from nerfkit.config import DataConfig
from nerfkit.poses import look_at, quaternion
from nerfkit.scene import SceneError, load_scene
from nerfkit.scene.colmap import MODEL_FOLDERS, read_colmap
from nerfkit.scene.describe import describe

DATA = Path(__file__).parents[2].parent / "shared" / "data"
NUMBERS = {"SIMPLE_PINHOLE": 0, "PINHOLE": 1, "SIMPLE_RADIAL": 2, "RADIAL": 3, "OPENCV": 4, "OPENCV_FISHEYE": 5}
NUMBERS |= {"FULL_OPENCV": 6, "FOV": 7, "SIMPLE_RADIAL_FISHEYE": 8, "RADIAL_FISHEYE": 9, "THIN_PRISM_FISHEYE": 10}
NUMBERS |= {"RAD_TAN_THIN_PRISM_FISHEYE": 11, "SIMPLE_DIVISION": 12, "DIVISION": 13, "SIMPLE_FISHEYE": 14}
NUMBERS |= {"FISHEYE": 15, "EUCM": 16, "EQUIRECTANGULAR": 17}
LACKING = {"FOV": 5, "THIN_PRISM_FISHEYE": 12, "RAD_TAN_THIN_PRISM_FISHEYE": 16, "SIMPLE_DIVISION": 4, "DIVISION": 5}
LACKING |= {"EUCM": 6, "EQUIRECTANGULAR": 2}
"""How many parameters the models have that no lens of ours expresses."""
LENSES = {
    "SIMPLE_PINHOLE": [90.0, 31.0, 24.5],
    "PINHOLE": [90.0, 92.0, 31.0, 24.5],
    "SIMPLE_RADIAL": [90.0, 31.0, 24.5, -0.16],
    "RADIAL": [90.0, 31.0, 24.5, -0.16, 0.03],
    "OPENCV": [90.0, 92.0, 31.0, 24.5, -0.16, 0.03, 0.004, -0.003],
    "FULL_OPENCV": [90.0, 92.0, 31.0, 24.5, -0.1, 0.03, 0.004, -0.003, 0.01, 0.02, -0.01, 0.005],
    "SIMPLE_FISHEYE": [90.0, 31.0, 24.5],
    "FISHEYE": [90.0, 92.0, 31.0, 24.5],
    "SIMPLE_RADIAL_FISHEYE": [90.0, 31.0, 24.5, 0.05],
    "RADIAL_FISHEYE": [90.0, 31.0, 24.5, 0.05, -0.01],
    "OPENCV_FISHEYE": [90.0, 92.0, 31.0, 24.5, 0.05, -0.01, 0.004, -0.001],
}


@dataclass
class Model:
    """What a model's files say; written by the tests alone."""

    cameras: dict[int, tuple[str, int, int, list[float]]]
    images: list[tuple[int, list[float], int, str, list[int]]]
    """Number, quaternion and translation, camera, name, points of its features."""
    points: dict[int, list[float]] = field(default_factory=dict)


def model_of(cameras: Cameras, names: list[str], points: torch.Tensor | None = None) -> Model:
    """Cameras that share one pinhole, listed backwards; every one observes every point, and one feature is none."""
    fl, width, height = float(cameras.fl_x[0]), int(cameras.width[0]), int(cameras.height[0])
    points = torch.empty(0, 3) if points is None else points
    images = []
    for number, name in reversed(list(enumerate(names))):
        rotation = cameras.c2w[number, :, :3].double().T
        shift = -rotation @ cameras.c2w[number, :, 3].double()
        pose = [*(-quaternion(rotation[None])[0]).tolist(), *shift.tolist()]
        images.append((number + 1, pose, 3, name, [-1, *range(10, 10 + len(points))]))
    lens = ("SIMPLE_PINHOLE", width, height, [fl, width / 2, height / 2])
    return Model({3: lens}, images, {10 + i: point for i, point in enumerate(points.tolist())})


def write_binary(folder: Path, model: Model) -> None:
    data = struct.pack("<Q", len(model.cameras))
    for number, (name, width, height, numbers) in model.cameras.items():
        data += struct.pack(f"<iiQQ{len(numbers)}d", number, NUMBERS.get(name, 99), width, height, *numbers)
    (folder / "cameras.bin").write_bytes(data)
    data = struct.pack("<Q", len(model.images))
    for number, pose, camera, name, seen in model.images:
        data += struct.pack("<I7dI", number, *pose, camera) + name.encode() + b"\0" + struct.pack("<Q", len(seen))
        data += b"".join(struct.pack("<ddq", 1.5, 2.5, point) for point in seen)
    (folder / "images.bin").write_bytes(data)
    data = struct.pack("<Q", len(model.points))
    for number, place in model.points.items():
        data += struct.pack("<Q3d3BdQ4i", number, *place, 9, 9, 9, 0.5, 2, 1, 0, 2, 0)
    (folder / "points3D.bin").write_bytes(data)


def write_text(folder: Path, model: Model) -> None:
    def words(*values: object) -> str:
        return " ".join(map(str, values))

    lines = ["# Camera list"]
    lines += [words(n, name, w, h, *numbers) for n, (name, w, h, numbers) in model.cameras.items()]
    (folder / "cameras.txt").write_text("\n".join(lines) + "\n")
    lines = ["# Image list", ""]
    for number, pose, camera, name, seen in model.images:
        lines += [words(number, *pose, camera, name), " ".join(f"1.5 2.5 {point}" for point in seen)]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    lines = [words(n, *place, 9, 9, 9, 0.5, 1, 0, 2, 0) for n, place in model.points.items()]
    (folder / "points3D.txt").write_text("\n".join(["# 3D points", *lines]))


WRITERS = {"bin": write_binary, "txt": write_text}
NAMES = [f"img_{number}.png" for number in range(1, 13)]
"""By name 1, 10, 11, 12, 2, ...: the order in which COLMAP's and mip-NeRF 360's tools hold out."""


def write_pictures(folder: Path, names: list[str] = NAMES) -> None:
    cameras = ball_cameras(len(names))
    for number, name in enumerate(names):
        rgba = draw_ball(cameras, number)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        imageio.imwrite(folder / name, np.where(rgba[..., 3:] > 0, rgba[..., :3], 90).astype(np.uint8))


def write_scene(root: Path, form: str = "bin", place: str = "sparse/0") -> Path:
    """The ball before a grey wall in ``images``, and its model."""
    write_pictures(root / "images")
    (root / place).mkdir(parents=True, exist_ok=True)
    WRITERS[form](root / place, model_of(ball_cameras(12), NAMES))
    return root


@pytest.mark.parametrize("form", WRITERS)
def test_a_model_is_read(tmp_path, form):
    scene = load_scene(write_scene(tmp_path / "ball", form), DataConfig())
    order = sorted(range(12), key=lambda number: NAMES[number])
    assert scene.format == f"images.{form}" and scene.name == "ball" and scene.warnings == [] and scene.masks is None
    assert scene.image_names == [f"images/{NAMES[number]}" for number in order]
    assert (scene.splits["test"], scene.split_rule) == ([0, 8], "every 8th")
    wanted = ball_cameras(12)[order]
    assert torch.allclose(scene.cameras.c2w, wanted.c2w, atol=1e-6) and scene.cameras.lens == "pinhole"
    assert torch.allclose(scene.cameras.fl_x, wanted.fl_x) and scene.cameras.cx.tolist() == [SIZE / 2] * 12
    assert np.array_equal(scene.images[1][16, 16], draw_ball(wanted, 1)[16, 16, :3])
    assert torch.allclose(torch.tensor(scene.frame.center), torch.tensor(CENTER), atol=0.02)


def test_both_forms_and_a_transforms_json_are_one_scene(tmp_path, toy_capture):
    found = [load_scene(write_scene(tmp_path / form, form), DataConfig()) for form in WRITERS]
    assert torch.allclose(found[0].cameras.c2w, found[1].cameras.c2w, atol=1e-7)
    assert found[0].frame == found[1].frame and found[0].image_names == found[1].image_names
    assert found[0].frame.scale == pytest.approx(load_scene(toy_capture, DataConfig()).frame.scale, rel=0.05)


@pytest.mark.parametrize(
    "place", ["", "sparse/0", "sparse", "0", "sparse/1", "colmap/sparse/0", "colmap", "colmap_bin"]
)
def test_places_of_the_model(tmp_path, place):
    assert any((tmp_path / "x" / place).match(f"x/{usual}".rstrip("/")) for usual in MODEL_FOLDERS)
    root = write_scene(tmp_path / "x", place=place)
    scene = load_scene(root, DataConfig())
    assert len(scene.images) == 12 and scene.root == root and scene.image_names[0] == "images/img_1.png"
    named = load_scene(root / place, DataConfig())
    assert torch.equal(named.cameras.c2w, scene.cameras.c2w)
    assert torch.equal(load_scene(root / place / "images.bin", DataConfig()).cameras.c2w, scene.cameras.c2w)


def test_a_model_in_the_working_folder(tmp_path, monkeypatch):
    root = write_scene(tmp_path / "x")
    monkeypatch.chdir(root)
    here = load_scene(Path("."), DataConfig())
    assert here.name == "x" and here.image_names[0] == "images/img_1.png"
    monkeypatch.chdir(root / "sparse" / "0")
    assert load_scene(Path("."), DataConfig()).image_names[0] == "../../images/img_1.png"


@pytest.mark.parametrize("place", ["images", "images_4", ".", "sparse/0"])
def test_places_of_the_pictures(tmp_path, place):
    root = write_scene(tmp_path / "x")
    (root / "images").rename(root / "gone")
    names = ["left/a b.png", "right/a b.png"]
    write_pictures(root / place, names)
    write_text(root / "sparse/0", model_of(ball_cameras(2), names))
    (root / "sparse/0/images.bin").unlink()
    scene = load_scene(root, DataConfig())
    assert scene.image_names == [(Path(place) / name).as_posix() for name in names]


def test_better_known_formats_come_first(tmp_path, toy_capture):
    write_scene(toy_capture)
    assert load_scene(toy_capture, DataConfig()).format == "transforms.json"
    assert load_scene(toy_capture / "sparse/0/images.bin", DataConfig()).format == "images.bin"


def test_several_models_are_told(tmp_path):
    root = write_scene(tmp_path / "x")
    write_scene(root, place="sparse/1")
    assert ["0 of the models 0, 1" in text for text in load_scene(root, DataConfig()).warnings] == [True]
    assert "1 of the models 0, 1" in load_scene(root / "sparse/1", DataConfig()).warnings[0]


def test_pictures_of_another_size_scale_the_lens(tmp_path):
    root = write_scene(tmp_path / "x")
    write_binary(root / "sparse/0", model_of(ball_cameras(12).scaled(4), NAMES))
    scene = load_scene(root, DataConfig())
    assert torch.allclose(scene.cameras.fl_x, ball_cameras(12).fl_x) and scene.cameras.cx.tolist() == [SIZE / 2] * 12
    assert "12 pictures have another size" in scene.warnings[0] and "not 128x128" in scene.warnings[0]


def test_masks_of_both_names(tmp_path):
    root = write_scene(tmp_path / "x")
    (root / "masks").mkdir()
    mask = np.full((SIZE, SIZE), 255, np.uint8)
    mask[:4] = 0
    cv2.imwrite(str(root / "masks/img_1.png.png"), mask)
    cv2.imwrite(str(root / "masks/img_2.png"), mask.T)
    scene = load_scene(root, DataConfig())
    assert [int((~found).sum()) for found in scene.masks] == [4 * SIZE, 0, 0, 0, 4 * SIZE] + [0] * 7
    assert not scene.masks[0][:4].any() and not scene.masks[4][:, :4].any() and scene.warnings == []
    for path in (root / "masks").iterdir():
        path.rename(path.with_name(f"mask-{path.name}"))
    scene = load_scene(root, DataConfig())
    assert scene.masks is None and "masks: no mask is named after a picture" in scene.warnings[0]


def one_camera(folder: Path, form: str, model: str, numbers: list[float]) -> Cameras:
    """The camera of a model with a single, unopened picture."""
    pose = look_at(torch.tensor([[0.4, -0.3, -2.0]]), torch.zeros(1, 3), torch.tensor([0.1, -1.0, 0.0]))
    written = model_of(Cameras.pinhole(pose, 90.0, 64, 48), ["a.jpg"])
    WRITERS[form](folder, dataclasses.replace(written, cameras={3: (model, 64, 48, numbers)}))
    (folder / "a.jpg").touch()
    (view,) = read_colmap(folder / f"images.{form}").views
    return Cameras.from_intrinsics(view.c2w[None], [view.intrinsics])


def n_focal(model: str) -> int:
    """How many focal lengths a model has."""
    return 1 if "SIMPLE" in model or model in ("RADIAL", "RADIAL_FISHEYE") else 2


def pixel(model: str, numbers: list[float], point: np.ndarray) -> tuple[float, float]:
    """COLMAP's camera models, written out one by one, of a point in the camera's axes."""
    u, v = point[0] / point[2], point[1] / point[2]
    n = n_focal(model)
    fx, fy = numbers[0], numbers[n - 1]
    cx, cy, *k = numbers[n:]
    if model.endswith("FISHEYE"):
        r = math.hypot(u, v)
        theta = math.atan(r)
        bent = theta + sum(value * theta ** (2 * i + 3) for i, value in enumerate(k))
        return fx * u * bent / r + cx, fy * v * bent / r + cy
    r2 = u * u + v * v
    if model in ("SIMPLE_RADIAL", "RADIAL"):
        radial = 1 + sum(value * r2 ** (i + 1) for i, value in enumerate(k))
        return fx * u * radial + cx, fy * v * radial + cy
    k1, k2, p1, p2, k3, k4, k5, k6 = [*k, *[0.0] * (8 - len(k))]
    radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
    x = u * radial + 2 * p1 * u * v + p2 * (r2 + 2 * u * u)
    y = v * radial + 2 * p2 * u * v + p1 * (r2 + 2 * v * v)
    return fx * x + cx, fy * y + cy


def points_before(camera: Cameras, n: int = 60) -> tuple[torch.Tensor, np.ndarray]:
    """Random points before a camera: in the scene's coordinates and in the camera's axes."""
    local = torch.randn(n, 3, generator=torch.manual_seed(5)).double() * 0.4
    local[:, 2] = 1.0 + local[:, 2].abs()
    c2w = camera.c2w[0].double()
    return local @ c2w[:, :3].T + c2w[:, 3], local.numpy()


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("model", LENSES)
def test_lenses_follow_colmaps_formulas(tmp_path, form, model):
    camera = one_camera(tmp_path, form, model, LENSES[model])
    assert camera.lens == ("opencv_fisheye" if "FISHEYE" in model else "pinhole" if "PINHOLE" in model else "opencv")
    points, local = points_before(camera)
    wanted = np.array([pixel(model, LENSES[model], point) for point in local])
    found = camera.project(0, points.float())[0].numpy()
    assert np.abs(found - wanted).max() < 1e-3


@pytest.mark.parametrize("model", LENSES)
def test_lenses_are_colmaps_own(tmp_path, model):
    pycolmap = pytest.importorskip("pycolmap", reason="pycolmap is not installed")
    camera = one_camera(tmp_path, "bin", model, LENSES[model])
    theirs = pycolmap.Reconstruction(tmp_path)
    (image,) = theirs.images.values()
    points, _ = points_before(camera)
    wanted = np.array([image.project_point(point) for point in points.numpy()])
    assert np.abs(camera.project(0, points.float())[0].numpy() - wanted).max() < 1e-3


@pytest.mark.parametrize("model", LENSES)
def test_every_pixel_goes_to_and_fro_as_colmaps(tmp_path, model):
    camera = one_camera(tmp_path, "bin", model, LENSES[model]).scaled(10)
    camera = dataclasses.replace(camera, c2w=torch.eye(3, 4)[None])
    pixels = camera.pixel_grid(0).flatten(0, 1)
    rays = camera.rays(torch.zeros(len(pixels), dtype=torch.long), pixels)
    again, _ = camera.project(0, 3 * rays.rays_d)
    assert len(pixels) == 640 * 480 and (again - pixels).abs().max() < 1e-3

    pycolmap = pytest.importorskip("pycolmap", reason="pycolmap is not installed")
    n_sizes = n_focal(model) + 2
    numbers = [10 * value for value in LENSES[model][:n_sizes]] + LENSES[model][n_sizes:]
    theirs = pycolmap.Camera(model=model, width=640, height=480, params=numbers)
    assert np.abs(theirs.img_from_cam(rays.rays_d.double().numpy()) - pixels.numpy()).max() < 1e-3
    found = torch.from_numpy(theirs.cam_from_img(pixels.double().numpy()))
    ahead = torch.nn.functional.normalize(torch.nn.functional.pad(found, (0, 1), value=1.0), dim=1)
    # An angle between directions of this size moves a picture of this focal length by a thousandth of a pixel.
    assert (ahead - rays.rays_d).norm(dim=1).max() < 1e-3 / 900
    assert (camera.project(0, ahead.float())[0] - pixels).abs().max() < 1e-3


def test_coefficients_of_zero_are_a_pinhole(tmp_path):
    assert one_camera(tmp_path, "bin", "OPENCV", [90.0, 92.0, 31.0, 24.5, 0.0, 0.0, 0.0, 0.0]).lens == "pinhole"


FRONT = torch.cartesian_prod(torch.linspace(-4, 4, 4), torch.linspace(-1, 1, 3), torch.zeros(1))
AHEAD = Cameras.pinhole(look_at(FRONT, FRONT + torch.tensor([0.0, 0, 1]), torch.tensor([0.0, -1, 0])), 30.0, SIZE, SIZE)
CLOUD = torch.tensor([0.0, 0.0, 15.0]) + 10 * torch.rand(300, 3, generator=torch.manual_seed(0))


@pytest.mark.parametrize("form", WRITERS)
def test_points_say_how_far_the_pictures_see(tmp_path, form):
    for name in NAMES:
        (tmp_path / name).touch()
    model = model_of(AHEAD, NAMES, CLOUD)
    model.points[9000] = [0.0, 0.0, 1e6]  # of no picture
    model.points[311 - 2] = [0.0, 0.0, 1e5]  # mistaken: one of 300
    WRITERS[form](tmp_path, model)
    least, most = read_colmap(tmp_path / f"images.{form}").hints.depths
    assert 15.0 <= least < 15.3 and 24.6 < most <= 25.0
    (tmp_path / f"points3D.{form}").unlink()
    assert read_colmap(tmp_path / f"images.{form}").hints.depths is None


def test_points_place_the_box_of_a_capture_that_faces_one_way(tmp_path):
    root = write_scene(tmp_path / "x")
    write_binary(root / "sparse/0", model_of(AHEAD, NAMES, CLOUD))
    scene = load_scene(root, DataConfig())
    assert "facing forward" in describe(scene)["cameras"]
    inside = scene.frame.to_model(CLOUD)
    assert inside.min() > 0 and inside.max() < 1 and scene.frame.center[2] == pytest.approx(18.8, abs=0.3)
    (root / "sparse/0/points3D.bin").unlink()
    assert load_scene(root, DataConfig()).frame.scale < scene.frame.scale


def refused(path: Path, said: str) -> None:
    with pytest.raises(SceneError, match=said) as caught:
        load_scene(path, DataConfig())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
def test_binaries_cut_anywhere_are_named(tmp_path, name):
    for picture in NAMES[:2]:
        (tmp_path / picture).touch()
    write_binary(tmp_path, model_of(ball_cameras(2), NAMES[:2], CLOUD[:3]))
    whole = (tmp_path / name).read_bytes()
    assert len(read_colmap(tmp_path / "images.bin").views) == 2
    for length in range(len(whole)):
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(SceneError, match=f"/{name}: its {length} bytes end in the middle of .*cut short"):
            read_colmap(tmp_path / "images.bin")


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("model", LACKING)
def test_lenses_that_we_lack_are_named(tmp_path, form, model):
    numbers = [0.5] * LACKING[model]
    with pytest.raises(SceneError, match=f"cameras.{form}: camera 3 has the model {model}, which cannot be used"):
        one_camera(tmp_path, form, model, numbers)


def test_every_model_of_colmaps_is_read_or_named():
    pycolmap = pytest.importorskip("pycolmap", reason="pycolmap is not installed")
    theirs = {name: int(model) for name, model in pycolmap.CameraModelId.__members__.items() if name != "INVALID"}
    assert theirs == NUMBERS and set(theirs) == set(LENSES) | set(LACKING)
    for name, count in LACKING.items():
        assert len(pycolmap.Camera.create_from_model_name(1, name, 90.0, 64, 48).params) == count


def test_unknown_lenses_are_named(tmp_path):
    with pytest.raises(SceneError, match="cameras.bin: camera 3 has model number 99, which is unknown"):
        one_camera(tmp_path, "bin", "BUBBLE", [])
    with pytest.raises(SceneError, match="cameras.txt: camera 3 has the model BUBBLE, which cannot be used"):
        one_camera(tmp_path, "txt", "BUBBLE", [1.0])


def drop_pictures(root: Path, model: Model) -> None:
    for path in (root / "images").iterdir():
        path.unlink()


BROKEN = {
    "no image": (lambda root, model: model.images.clear(), "images.{form}: no image is registered"),
    "no picture": (drop_pictures, r"images.{form}: none of its 12 pictures is there: no img_1.png in .*images"),
    "unknown camera": (
        lambda root, model: model.cameras.update({4: model.cameras.pop(3)}),
        r"images.{form}: image 1 \(img_1.png\) was taken by camera 3, which is not in cameras.{form}",
    ),
    "no focal length": (
        lambda root, model: model.cameras.update({3: ("SIMPLE_PINHOLE", SIZE, SIZE, [0.0, 1.0, 1.0])}),
        r"cameras.{form}: camera 3: its parameters \(0.0, 1.0, 1.0\) are no lens",
    ),
    "no number": (
        lambda root, model: model.cameras.update({3: ("SIMPLE_PINHOLE", SIZE, SIZE, [9.0, math.nan, 1.0])}),
        "cameras.{form}: camera 3: its parameters .*nan",
    ),
    "no rotation": (
        lambda root, model: model.images[0][1].__setitem__(slice(0, 4), [0.0] * 4),
        "images.{form}: image 12: its pose .* is no rotation",
    ),
    "another shape": (
        lambda root, model: model.cameras.update({3: ("SIMPLE_PINHOLE", 64, 48, [90.0, 32.0, 24.0])}),
        r"images.{form}: image 1 \(img_1.png\): the picture is 32x32, its intrinsics are for 64x48",
    ),
}


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("kind", BROKEN)
def test_broken_models_are_named(tmp_path, form, kind):
    change, said = BROKEN[kind]
    root = write_scene(tmp_path / "x", form)
    model = model_of(ball_cameras(12), NAMES)
    change(root, model)
    WRITERS[form](root / "sparse/0", model)
    refused(root, said.replace("{form}", form))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "cameras.txt",
            "3 PINHOLE wide 48 1 1 1 1",
            "cameras.txt: line 1 is '3 PINHOLE wide 48 1 1 1 1', not a camera",
        ),
        ("cameras.txt", "3 PINHOLE 64 48 1 1 1", "cameras.txt: camera 3: its model PINHOLE has 3 parameters, not 4"),
        ("images.txt", "1 1 0 0 0 0 0 0 3", "images.txt: line 1 is '1 1 0 0 0 0 0 0 3', not an image"),
        ("images.txt", "1 1 0 0 0 0 0 0 3 img_1.png\n1.0 2.0", "images.txt: line 2: the features of img_1.png are no"),
        ("images.txt", "# nothing\n", "images.txt: no image is registered"),
        ("points3D.txt", "\n1 2 3", "points3D.txt: line 2 is '1 2 3', not a point"),
    ],
)
def test_broken_text_is_named(tmp_path, name, text, said):
    root = write_scene(tmp_path / "x", "txt")
    (root / "sparse/0" / name).write_text(text)
    refused(root, said)


def test_missing_files_are_named_and_missing_pictures_counted(tmp_path):
    root = write_scene(tmp_path / "x")
    (root / "images/img_3.png").unlink()
    scene = load_scene(root, DataConfig())
    assert len(scene.images) == 11 and "1 of 12 listed pictures do not exist" in scene.warnings[0]
    assert "img_3.png" in scene.warnings[0]
    (root / "sparse/0/cameras.bin").unlink()
    refused(root, r"cameras.bin: cannot be read \(No such file")


def test_the_last_line_of_a_text_may_be_missing(tmp_path):
    root = write_scene(tmp_path / "x", "txt")
    file = root / "sparse/0/images.txt"
    lines = file.read_text().splitlines()
    file.write_text("\n".join("" if line.startswith("1.5") else line for line in lines).rstrip("\n"))
    assert len(load_scene(root, DataConfig()).images) == 12


@pytest.mark.skipif(not (DATA / "sceaux").is_dir(), reason="../shared/data/sceaux is not here")
def test_sceaux():
    scene = load_scene(DATA / "sceaux", DataConfig())
    assert scene.image_names == [f"images/100_{number}.JPG" for number in range(7100, 7111)]
    assert scene.splits["test"] == [0, 8] and scene.cameras.lens == "opencv"
    assert scene.cameras.fl_x[0] == pytest.approx(2971.712 / 2, abs=1e-3) and scene.cameras.width[0] == 1416
    assert len(scene.warnings) == 1 and "not 2832x2128" in scene.warnings[0]
    places, observed = sceaux_features()
    for view, name in enumerate(scene.image_names):
        numbers, pixels = observed[Path(name).name]
        points = torch.tensor([places[number] for number in numbers], dtype=torch.float32)
        found, depth = scene.cameras.project(view, points)
        apart = torch.linalg.vector_norm(found - torch.tensor(pixels, dtype=torch.float32) / 2, dim=-1)
        assert apart.median() < 0.4 and (depth > 0).all() and len(numbers) > 1000
    inside = scene.frame.to_model(torch.tensor(list(places.values()), dtype=torch.float32))
    assert ((inside > 0) & (inside < 1)).all(-1).float().mean() > 0.98


def sceaux_features() -> tuple[dict[int, tuple], dict[str, tuple[list[int], list[tuple]]]]:
    """Places of the points, and by name of picture which points it shows and at which pixels of the full size."""
    data, at, places = (DATA / "sceaux/colmap_bin/points3D.bin").read_bytes(), 8, {}
    for _ in range(*struct.unpack_from("<Q", data)):
        number, *place = struct.unpack_from("<Q3d", data, at)
        places[number] = tuple(place)
        at += 51 + 8 * struct.unpack_from("<Q", data, at + 43)[0]
    data, at, observed = (DATA / "sceaux/colmap_bin/images.bin").read_bytes(), 8, {}
    for _ in range(*struct.unpack_from("<Q", data)):
        end = data.index(b"\0", at + 64)
        (count,) = struct.unpack_from("<Q", data, end + 1)
        rows = [struct.unpack_from("<ddq", data, end + 9 + 24 * row) for row in range(count)]
        rows = [row for row in rows if row[2] >= 0]
        observed[data[at + 64 : end].decode()] = [row[2] for row in rows], [row[:2] for row in rows]
        at = end + 9 + 24 * count
    return places, observed


def test_the_ball_fills_the_box(tmp_path):
    frame = load_scene(write_scene(tmp_path / "x"), DataConfig()).frame
    box = torch.tensor(frame.aabb).view(2, 3)
    assert (box[0] < torch.tensor(CENTER) - RADIUS).all() and (box[1] > torch.tensor(CENTER) + RADIUS).all()
