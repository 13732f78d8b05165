"""The method for nerfbaselines: its interface on arrays, and its judge's metrics beside ours where it is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import ball_cameras, draw_ball

from nerfkit.evaluate import psnr, ssim

PLACE = Path(__file__).parents[1] / "tools" / "nerfbaselines" / "nerfkit_method.py"
SMALL = {"train.steps": "150", "train.samples_per_step": 4096, "sampler.resolution": 32, "data.background": "white"}


@pytest.fixture(scope="module")
def method() -> Any:
    spec = importlib.util.spec_from_file_location("nerfkit_method", PLACE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def given(n: int, shift: float = 0.0) -> SimpleNamespace:
    """Our cameras as nerfbaselines has them."""
    cameras = ball_cameras(n, shift)
    lenses = [cameras.fl_x, cameras.fl_y, cameras.cx, cameras.cy]
    return SimpleNamespace(
        poses=cameras.c2w.numpy(),
        intrinsics=np.stack([column.numpy() for column in lenses], 1),
        camera_models=np.zeros(n, np.int32),
        distortion_parameters=np.zeros((n, 6), np.float32),
        image_sizes=np.stack([cameras.width.numpy(), cameras.height.numpy()], 1),
    )


def one(cameras: SimpleNamespace, number: int) -> SimpleNamespace:
    return SimpleNamespace(**{name: values[number] for name, values in vars(cameras).items()})


def test_it_trains_renders_and_comes_back(method: Any, tmp_path: Path) -> None:
    images = [draw_ball(ball_cameras(8), number) for number in range(8)]
    dataset = {"cameras": given(8), "images": images, "image_paths": [f"a/{i}.png" for i in range(8)], "masks": None}
    trained = method.NerfkitMethod(train_dataset=dataset, config_overrides=SMALL)
    steps = trained.get_info()["num_iterations"]
    figures = [trained.train_iteration(step) for step in range(steps)]
    # One step reports the few rays of that step: twenty tell more.
    assert steps == 150 and np.mean([each["psnr"] for each in figures[-20:]]) > figures[0]["psnr"] + 2
    camera, background = one(given(4, 0.3), 0), 255 * (1 - draw_ball(ball_cameras(4, 0.3), 0)[..., 3:] / 255.0)
    truth = draw_ball(ball_cameras(4, 0.3), 0)[..., :3] + background
    picture = trained.render(camera)
    assert {name: values.shape for name, values in picture.items()} == {
        "color": (32, 32, 3),
        "depth": (32, 32),
        "accumulation": (32, 32),
    }
    assert psnr(picture["color"], truth / 255) > 14
    trained.save(str(tmp_path / "checkpoint"))
    again = method.NerfkitMethod(checkpoint=str(tmp_path / "checkpoint"))
    assert np.array_equal(again.render(camera)["color"], picture["color"])
    assert again.get_info()["loaded_step"] == 150
    again.save(str(tmp_path / "copy"))
    assert np.array_equal(
        method.NerfkitMethod(checkpoint=str(tmp_path / "copy")).render(camera)["color"], picture["color"]
    )


def test_lenses_keep_their_order(method: Any) -> None:
    cameras = given(2)
    cameras.camera_models[:] = 3
    cameras.distortion_parameters = np.tile(np.arange(8, dtype=np.float32), (2, 1))
    found = method.cameras_of(cameras)
    assert found.lens == "opencv" and found.distortion.tolist() == [list(range(8))] * 2
    cameras.camera_models[0] = 2
    with pytest.raises(ValueError, match="several kinds"):
        method.cameras_of(cameras)


def test_metrics_are_those_of_the_judge() -> None:
    judge = pytest.importorskip("nerfbaselines.metrics", reason="nerfbaselines is not installed")
    generator = np.random.default_rng(0)
    for size in ((64, 48, 3), (11, 30, 3)):
        a = generator.random(size).astype(np.float32)
        b = np.clip(a + 0.1 * generator.standard_normal(size), 0, 1).astype(np.float32)
        assert psnr(a, b) == pytest.approx(float(judge.psnr(a, b)), abs=1e-3)
        assert ssim(a, b) == pytest.approx(float(judge.ssim(a, b)), abs=1e-4)
