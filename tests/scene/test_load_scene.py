"""Folders as people have them: what is read, what is skipped with a word, what is refused by name."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import CENTER, RADIUS, SIZE, ball_cameras, draw_ball

from nerfkit.config import DataConfig
from nerfkit.scene import SceneError, load_scene
from nerfkit.scene.describe import describe
from nerfkit.scene.images import outline_an_object
from nerfkit.scene.transforms import write_transforms


def edit(file: Path, change) -> None:
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


def test_blender(toy_scene):
    scene = load_scene(toy_scene, DataConfig())
    assert {name: len(rows) for name, rows in scene.splits.items()} == {"train": 8, "val": 0, "test": 4}
    assert scene.split_rule == "files" and scene.format == "transforms_train.json" and scene.warnings == []
    assert scene.background == "random" and scene.has_alpha and scene.masks is None
    train = scene.splits["train"]
    assert [scene.image_names[i] for i in train] == [f"train/r_{i}.png" for i in range(8)]
    assert torch.allclose(scene.cameras[train].c2w, ball_cameras(8).c2w, atol=1e-6)
    assert torch.allclose(scene.cameras.fl_x, ball_cameras(1).fl_x)
    for number, i in enumerate(train):
        assert np.array_equal(scene.images[i], draw_ball(ball_cameras(8), number))


def test_the_box_of_an_object_holds_it_closely(toy_scene):
    frame = load_scene(toy_scene, DataConfig()).frame
    box = torch.tensor(frame.aabb).view(2, 3)
    center = torch.tensor(CENTER)
    assert (box[0] < center - RADIUS).all() and (box[1] > center + RADIUS).all()
    assert (box[1] - box[0]).max() < 2 * RADIUS * 1.6 and frame.n_levels == 1
    assert torch.allclose(frame.to_model(box).aminmax(dim=0).min.min(), torch.tensor(0.0), atol=1e-5)
    assert load_scene(toy_scene, DataConfig(aabb_scale=2.0)).frame.scale == pytest.approx(frame.scale / 2)


def test_one_file_with_pixels_as_units(toy_capture):
    scene = load_scene(toy_capture, DataConfig())
    assert scene.splits == {"train": [1, 2, 3, 4, 5, 6, 7, 9, 10, 11], "val": [], "test": [0, 8]}
    assert scene.split_rule == "every 8th" and scene.background == "random" and scene.cameras.lens == "pinhole"
    assert torch.allclose(torch.tensor(scene.frame.center), torch.tensor(CENTER), atol=0.02)
    assert scene.frame.n_levels == 4
    again = load_scene(toy_capture / "transforms.json", DataConfig(hold_out_every=0))
    assert again.split_rule == "all train" and again.splits["test"] == [] and again.fingerprint == scene.fingerprint


def test_the_fingerprint_knows_pictures_and_poses_but_not_the_place(toy_capture):
    first = load_scene(toy_capture, DataConfig()).fingerprint
    moved = toy_capture.rename(toy_capture.with_name("moved"))
    assert load_scene(moved, DataConfig(downscale=2)).fingerprint == first
    edit(moved / "transforms.json", lambda data: data["frames"][0]["transform_matrix"][0].__setitem__(3, 2.5))
    assert load_scene(moved, DataConfig()).fingerprint != first


def test_downscaling(toy_scene):
    scene, small = load_scene(toy_scene, DataConfig()), load_scene(toy_scene, DataConfig(downscale=4))
    assert small.images[0].shape == (8, 8, 4) and small.cameras.width.tolist() == [8] * 12
    assert torch.allclose(small.cameras.fl_x * 4, scene.cameras.fl_x)


def test_hints_of_instant_ngp(toy_capture):
    file = toy_capture / "transforms.json"
    edit(file, lambda data: data.update(aabb_scale=4, scale=0.5, offset=[0.5, 0.6, 0.5]))
    frame = load_scene(toy_capture, DataConfig()).frame
    assert frame.n_levels == 3 and frame.scale == pytest.approx(0.5 / 4)
    assert frame.center == pytest.approx((0.0, -0.2, 0.0))
    assert load_scene(toy_capture, DataConfig(aabb_scale=1.0)).frame.scale == pytest.approx(0.5)
    edit(file, lambda data: data.update(aabb=[[-1, -1, -1], [2, 1, 1]]))
    assert load_scene(toy_capture, DataConfig()).frame.aabb == (-1, -1, -1, 2, 1, 1)


def test_dialects(toy_capture):
    def change(data):
        for frame in data["frames"][:4]:
            frame["file_path"] = ".\\" + frame["file_path"].replace("/", "\\")
        for frame in data["frames"][4:8]:
            frame["file_path"] = "./" + frame["file_path"].removesuffix(".png")
        for key in ("w", "h"):
            del data[key]
        data["frames"][5].update(fl_x=30.0, k1=0.01)
        data["train_filenames"] = [frame["file_path"] for frame in data["frames"][:8]]
        data["test_filenames"] = [frame["file_path"] for frame in data["frames"][8:11]]
        data["camera_model"] = "OPENCV"

    edit(toy_capture / "transforms.json", change)
    scene = load_scene(toy_capture, DataConfig())
    assert scene.splits == {"train": list(range(8)), "val": [], "test": [8, 9, 10]} and scene.split_rule == "files"
    assert scene.warnings == ["transforms.json: 1 pictures are in none of its lists of file names and are left out"]
    assert scene.cameras.lens == "opencv" and scene.cameras.fl_x[5] == 30
    assert scene.cameras.distortion[:, 0].nonzero().tolist() == [[5]]


def test_masks_are_read_and_missing_pictures_counted(toy_capture):
    mask = np.full((SIZE, SIZE), 255, np.uint8)
    mask[:4] = 0
    cv2.imwrite(str(toy_capture / "mask.png"), mask)
    edit(toy_capture / "transforms.json", lambda data: data["frames"][3].update(mask_path="mask.png"))
    for number in (5, 7):
        (toy_capture / f"images/{number:03d}.png").unlink()
    scene = load_scene(toy_capture, DataConfig())
    assert len(scene.images) == 10 and len(scene.warnings) == 1 and "2 of 12 listed pictures" in scene.warnings[0]
    assert [int((~mask).sum()) for mask in scene.masks] == [0, 0, 0, 4 * SIZE, 0, 0, 0, 0, 0, 0]


def test_written_cameras_are_read_again(toy_capture):
    scene = load_scene(toy_capture, DataConfig())
    write_transforms(scene.cameras, scene.image_names, toy_capture / "transforms.json")
    again = load_scene(toy_capture, DataConfig())
    assert torch.allclose(again.cameras.c2w, scene.cameras.c2w, atol=1e-6)
    assert torch.equal(again.cameras.fl_x, scene.cameras.fl_x) and again.image_names == scene.image_names


def test_pictures_of_another_size(toy_capture):
    edit(toy_capture / "transforms.json", lambda data: data.update(w=64, h=64, fl_x=80.0, fl_y=80.0))
    scene = load_scene(toy_capture, DataConfig())
    assert scene.cameras.fl_x[0] == 40 and "12 pictures have another size" in scene.warnings[0]
    edit(toy_capture / "transforms.json", lambda data: data.update(w=64, h=48))
    with pytest.raises(SceneError, match=r"transforms.json: frames\[0\] \(000.png\): the picture is 32x32.* for 64x48"):
        load_scene(toy_capture, DataConfig())


def test_plain_backgrounds_are_noticed(toy_capture):
    for number in range(12):
        rgba = draw_ball(ball_cameras(12), number)
        white = np.where(rgba[..., 3:] > 0, rgba[..., :3], 255).astype(np.uint8)
        cv2.imwrite(str(toy_capture / f"images/{number:03d}.png"), white[..., ::-1])
    scene = load_scene(toy_capture, DataConfig())
    assert scene.background == "white" and scene.frame.n_levels == 1
    assert load_scene(toy_capture, DataConfig(background="black")).background == "black"


def test_a_description_says_what_is_there(toy_capture):
    (toy_capture / "images/005.png").unlink()
    lines = describe(load_scene(toy_capture, DataConfig()))
    assert "11 opaque, 11 of 32x32" in lines["images"] and "every 8th" in lines["splits"]
    assert "inward" in lines["cameras"] and "1 of 12" in lines["warning 1"]


def refused(path: Path, said: str, config: DataConfig | None = None) -> None:
    with pytest.raises(SceneError, match=said) as caught:
        load_scene(path, config or DataConfig())
    assert "\n" not in str(caught.value)


def test_folders_that_are_no_scene(tmp_path):
    refused(tmp_path / "gone", "gone: there is no such folder")
    refused(tmp_path, "the folder is empty")
    (tmp_path / "a.jpg").touch()
    refused(
        tmp_path, "no transforms_train.json, transforms.json, .* or poses_bounds.npy here; .* need `nerfkit prepare`"
    )
    refused(tmp_path / "a.jpg", "no such folder")


POSE = "transform_matrix"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.pop("frames"), "transforms.json: no key frames"),
        (lambda d: d["frames"].clear(), "transforms.json: no usable frame"),
        (lambda d: d["frames"].insert(0, 3), r"frames\[0\] is 3"),
        (lambda d: d["frames"][2].pop("file_path"), r"frames\[2\] has no key file_path"),
        (lambda d: d["frames"][2].update(file_path=7), r"frames\[2\].file_path is 7"),
        (lambda d: d["frames"][3].pop(POSE), r"frames\[3\] has no key transform_matrix"),
        (lambda d: d["frames"][3][POSE][0].__setitem__(0, 3.0), r"frames\[3\].transform_matrix: not a rigid transform"),
        (lambda d: d["frames"][3][POSE][0].__setitem__(3, float("nan")), r"frames\[3\].transform_matrix: .*finite"),
        (lambda d: d.pop("fl_x"), r"frames\[0\]: no focal length"),
        (lambda d: d.update(fl_x=float("inf")), "fl_x is inf"),
        (lambda d: d.update(w=0), "w is 0"),
        (lambda d: d.update(camera_model="PANORAMA"), "camera_model is 'PANORAMA'"),
        (lambda d: d.update(aabb_scale="big"), "aabb_scale is 'big'"),
        (lambda d: d.update(aabb_scale=-1), "aabb_scale is -1"),
        (lambda d: d.update(aabb=[1, 1, 1, 0, 0, 0]), "aabb is"),
        (lambda d: d.update(offset=[1, 2]), "offset is"),
        (lambda d: d["frames"][1].update(mask_path="no.png"), r"frames\[1\].mask_path: there is no file no.png"),
        (lambda d: d.update(test_filenames=[f["file_path"] for f in d["frames"]]), "no picture is left to train on"),
        (lambda d: d.update(train_filenames="all"), "train_filenames is not a list"),
        (lambda d: [f.update(file_path="x") for f in d["frames"]], "no usable frame .*12 of 12 listed pictures"),
        (lambda d: d["frames"][4].update(camera_model="OPENCV_FISHEYE"), "transforms.json: camera_model: fisheye"),
    ],
)
def test_bad_files_are_named(toy_capture, change, said):
    edit(toy_capture / "transforms.json", change)
    refused(toy_capture, said)


def test_other_bad_inputs_are_named(toy_capture):
    refused(toy_capture, "hold_out_every = 1", DataConfig(hold_out_every=1))
    refused(toy_capture, "downscale must be at least 1", DataConfig(downscale=0))
    (toy_capture / "images/004.png").write_bytes(b"")
    refused(toy_capture, "004.png: not a complete picture")
    (toy_capture / "transforms.json").write_text("{'frames'")
    refused(toy_capture, "transforms.json: not a JSON file")


def test_masks_can_cut_an_object_out_or_be_left_unread(toy_capture):
    data = json.loads((toy_capture / "transforms.json").read_text())
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[8:24, 8:24] = 255
    cv2.imwrite(str(toy_capture / "mask.png"), mask)
    for frame in data["frames"]:
        frame["mask_path"] = "mask.png"
    (toy_capture / "transforms.json").write_text(json.dumps(data))
    kinds = ("ignore", "cut", "off", "auto")
    ignored, cut, off, auto = (load_scene(toy_capture, DataConfig(masks=kind)) for kind in kinds)
    assert all(np.array_equal(one, mask > 0) for one in ignored.masks) and not ignored.has_alpha
    assert cut.masks is None and all(np.array_equal(image[..., 3], mask) for image in cut.images)
    assert cut.background == "random" and cut.frame.n_levels == 1, "an object on nothing"
    assert off.masks is None and not off.has_alpha
    assert ignored.fingerprint == cut.fingerprint != off.fingerprint
    assert auto.has_alpha and any("outline an object" in text for text in auto.warnings)


@pytest.mark.parametrize(
    "hidden",
    [
        (slice(8, 24), slice(8, 24)),  # a passer-by
        (slice(0, 32), slice(0, 20)),  # a wall: what is shown reaches three borders
        (slice(0, 0), slice(0, 0)),  # nothing
        (slice(0, 32), slice(0, 32)),  # all
    ],
)
def test_masks_that_outline_no_object_hide(hidden, tmp_path):
    hiding, showing = np.full((SIZE, SIZE), 255, np.uint8), np.zeros((SIZE, SIZE), np.uint8)
    hiding[hidden] = 0
    showing[10:30, 6:26] = 255
    no, yes = tmp_path / "no.png", tmp_path / "yes.png"
    cv2.imwrite(str(no), hiding)
    cv2.imwrite(str(yes), showing)
    assert not outline_an_object([no] * 5) and not outline_an_object([yes] * 3 + [no] * 5)
    assert outline_an_object([yes] * 5) and not outline_an_object([yes] * 5 + [None])
    assert outline_an_object([yes] * 200 + [no] * 100) and not outline_an_object([yes] * 100 + [no] * 200)
