"""Networks in ONNX files, from tiny ones that are made here: mattes, depths and features through the same door."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ball_photo import ball

from nerfkit.lift.adapters import depth_of
from nerfkit.lift.distances import distance_of
from nerfkit.lift.framing import framed
from nerfkit.lift.matte import onnx_matte
from nerfkit.lift.onnx import PictureNet
from nerfkit.lift.photo import LiftError

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

SIDE = 48
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def net(path: Path, operator: str, side: int | str = SIDE) -> Path:
    """A file whose network is one operator: the largest of the channels, or their means over the picture."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    more = {"axes": [1], "keepdims": 1} if operator == "ReduceMax" else {}
    node = helper.make_node(operator, ["x"], ["y"], **more)
    entry = helper.make_tensor_value_info("x", kind, [1, 3, side, side])
    graph = helper.make_graph([node], "tiny", [entry], [helper.make_tensor_value_info("y", kind, None)])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path


@pytest.mark.parametrize("side", [SIDE, "any"])
def test_pictures_come_as_imagenet_s_networks_take_them(tmp_path, side):
    picture = np.broadcast_to(np.array([0.2, 0.6, 0.9]), (30, 40, 3))
    found = PictureNet("--x", net(tmp_path / "mean.onnx", "GlobalAveragePool", side), 64)
    assert found.side == (SIDE if side == SIDE else 64)
    assert np.allclose(found(picture), (np.array([0.2, 0.6, 0.9]) - MEAN) / DEVIATION, atol=1e-5)


def test_a_network_s_matte_is_stretched(tmp_path):
    rgb, inside = ball(96, (0, 0, 0))
    alpha = onnx_matte(rgb, net(tmp_path / "max.onnx", "ReduceMax"))
    assert alpha.shape == (96, 96)
    assert (alpha.min(), alpha.max()) == (0, 255)
    assert alpha[~inside].mean() < 8 < 60 < alpha[inside].mean()


def test_disparities_of_a_file_are_turned_round(tmp_path):
    rgb, inside = ball()
    photo = framed(rgb, 255 * inside.astype(np.uint8))
    found = depth_of(net(tmp_path / "max.onnx", "ReduceMax"))(photo).numpy()
    rgba = photo.scaled(SIDE).rgba / 255
    white = rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]
    assert np.allclose(found, -((white - MEAN) / DEVIATION).max(-1), atol=1e-4)


def test_features_are_compared_by_their_cosine(tmp_path):
    compare = distance_of(None, net(tmp_path / "mean.onnx", "GlobalAveragePool"))
    red, blue = (np.full((40, 40, 4), 255, np.uint8) for _ in range(2))
    red[..., :3], blue[..., :3] = (200, 20, 20), (20, 20, 200)
    a, b = ((np.array(c) / 255 - MEAN) / DEVIATION for c in ((200, 20, 20), (20, 20, 200)))
    cosine = float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert compare(red, blue)["features"] == pytest.approx(cosine, abs=1e-4)
    assert compare(red, red)["features"] == pytest.approx(1.0)


def test_networks_of_something_else_are_sentences(tmp_path):
    mean = net(tmp_path / "mean.onnx", "GlobalAveragePool")
    with pytest.raises(LiftError, match="expected a picture"):
        onnx_matte(ball()[0], mean)
    rgb, inside = ball()
    with pytest.raises(LiftError, match="expected a picture"):
        depth_of(mean)(framed(rgb, 255 * inside.astype(np.uint8)))
