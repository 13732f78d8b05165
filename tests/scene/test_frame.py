"""The frame: conversions invert, boxes suit every kind of capture; hulls hold their object."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CENTER, RADIUS, ball_cameras

from nerfkit.cameras import Cameras
from nerfkit.config import DataConfig
from nerfkit.poses import SceneError, look_at
from nerfkit.scene import Frame, load_scene
from nerfkit.scene.box import choose_frame, hull_box
from nerfkit.scene.carve import _maxima, carve, silhouette, visual_hull
from nerfkit.scene.listing import Hints

FRAME = Frame((1.0, 2.0, 3.0), 0.25, (-1.0, 0.0, 1.0, 3.0, 4.0, 5.0), 0.1, 9.0, 3)
DATA = Path(__file__).parents[2].parent / "shared" / "data"


def test_frame_conversions_invert():
    points = torch.randn(50, 3)
    assert torch.allclose(FRAME.to_scene(FRAME.to_model(points)), points, atol=1e-5)
    assert FRAME.to_model(torch.tensor(FRAME.aabb).view(2, 3)).tolist() == [[0.0] * 3, [1.0] * 3]
    assert FRAME.model_aabb == pytest.approx((0, 0, 0, 1, 1, 1))
    rays = ball_cameras(1).rays(torch.zeros(1, dtype=torch.long), torch.tensor([[3.0, 4.0]]))
    there, moved = rays.rays_o + 2 * rays.rays_d, FRAME.model_rays(rays)
    assert torch.allclose(FRAME.to_model(there), moved.rays_o + 2 * FRAME.scale * moved.rays_d, atol=1e-6)


def test_frame_goes_through_json():
    assert Frame.from_dict(json.loads(json.dumps(FRAME.to_dict()))) == FRAME
    with pytest.raises(SceneError, match="frame: expected the keys"):
        Frame.from_dict({"center": [0, 0, 0]})


def capture(kind: str) -> Cameras:
    up = torch.tensor([0.0, 0.0, 1.0])
    if kind == "inward":
        return ball_cameras(20)
    if kind == "one":
        return ball_cameras(1)
    if kind == "forward":
        place = torch.cartesian_prod(torch.linspace(-5, 5, 5), torch.zeros(1), torch.linspace(-1.5, 1.5, 4))
        return Cameras.pinhole(look_at(place, place + torch.tensor([0.0, 1.0, 0.0]), up), 400.0, 504, 378)
    turn = torch.arange(12) / 12 * math.tau
    place = torch.stack([turn.cos(), turn.sin(), torch.zeros(12)], -1) * (0.0 if kind == "still" else 0.5)
    ahead = torch.stack([turn.cos(), turn.sin(), torch.zeros(12)], -1)
    return Cameras.pinhole(look_at(place, place + ahead, up), 40.0, 64, 48)


@pytest.mark.parametrize("kind", ["inward", "one", "forward", "outward", "still"])
@pytest.mark.parametrize("aabb_scale", [0.0, 1.0, 3.0])
def test_every_capture_gets_a_finite_box_before_its_cameras(kind, aabb_scale):
    cameras = capture(kind)
    frame, _ = choose_frame(cameras, None, Hints(), aabb_scale, False)
    assert all(map(math.isfinite, (*frame.center, *frame.aabb, frame.scale))) and frame.scale > 0
    assert 0 < frame.near_plane < frame.far_plane < math.inf
    assert frame.n_levels == {0.0: 4 if kind == "inward" else 3, 1.0: 1, 3.0: 3}[aabb_scale]
    seen = cameras.project(0, torch.tensor([frame.center]))[1]
    assert kind in ("outward", "still") or seen > 0


def test_a_forward_facing_box_reaches_far():
    frame, _ = choose_frame(capture("forward"), None, Hints(), 0.0, False)
    corner = torch.tensor(frame.aabb).view(2, 3)
    assert corner[0, 1] < 17 and corner[1, 1] > 80  # fern: cameras within 10x3, depths 17 to 80


@pytest.mark.parametrize(
    ("kind", "depths"),
    [("forward", (2.0, 4.0)), ("forward", (17.0, 80.0)), ("outward", (0.5, 2.0)), ("outward", (1.0, 4.0))],
)
def test_known_depths_place_the_box(kind, depths):
    cameras = capture(kind)
    frame, notes = choose_frame(cameras, None, Hints(depths=depths), 0.0, False)
    which = torch.arange(len(cameras)).repeat_interleave(4)
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]).repeat(len(cameras), 1)
    rays = cameras.rays(which, corners * torch.stack([cameras.width, cameras.height], -1)[which])
    ends = [frame.to_model(rays.rays_o + (depth / rays.cos)[:, None] * rays.rays_d) for depth in depths]
    inside = torch.cat(ends)
    assert inside.min() > -1e-4 and inside.max() < 1 + 1e-4 and notes == []
    assert inside.min() < 0.01 or inside.max() > 0.99  # and it is no larger than it must be
    assert 0 < frame.near_plane <= 0.5 * depths[0] and frame.far_plane > depths[1]


@pytest.mark.parametrize("kind", ["forward", "outward"])
def test_depths_beyond_all_measure_do_not_blow_up_the_box(kind):
    frame, notes = choose_frame(capture(kind), None, Hints(depths=(5.0, 1000.0)), 0.0, False)
    assert frame.n_levels == 5 and ["depths up to 1e+03, beyond the box" in note for note in notes] == [True]


def test_depths_leave_a_box_that_is_known_alone():
    cameras = capture("inward")
    plain, _ = choose_frame(cameras, None, Hints(), 0.0, False)
    known, notes = choose_frame(cameras, None, Hints(depths=(1.0, 5.0)), 0.0, False)
    assert known == plain and notes == []
    near, notes = choose_frame(cameras, None, Hints(depths=(0.1, 500.0)), 0.0, False)
    assert near == dataclasses.replace(plain, near_plane=0.05) and "depths up to 500, beyond the box" in notes[0]
    box = (0.0, 0.0, 0.0, 2.0, 2.0, 2.0)
    assert choose_frame(cameras, None, Hints(aabb=box, depths=(1.0, 2.0)), 0.0, False)[0].aabb == box
    assert choose_frame(capture("forward"), None, Hints(depths=(17.0, 80.0)), 2.0, False)[0].n_levels == 2


def test_maxima_of_squares():
    image = torch.randint(0, 255, (9, 14), dtype=torch.uint8, generator=torch.manual_seed(0))
    table = _maxima(image, 4)
    for level in range(4):
        for y, x in ((0, 0), (3, 5), (8, 13), (1, 9)):
            assert table[level, y, x] == image[y : y + 2**level, x : x + 2**level].max()


def ball_alpha(cameras: Cameras, thin: bool = False) -> list[torch.Tensor]:
    """Silhouettes of the ball, or of a thin upright rod, drawn from points on it."""
    point = torch.randn(20000, 3, generator=torch.manual_seed(0))
    point = torch.nn.functional.normalize(point, dim=-1) * RADIUS + torch.tensor(CENTER)
    if thin:
        point[:, :2] = torch.tensor(CENTER[:2])
    alphas = []
    for camera in range(len(cameras)):
        x, y = cameras.project(camera, point)[0].long().unbind(-1)
        alpha = torch.zeros(int(cameras.height[0]), int(cameras.width[0]), dtype=torch.uint8)
        alpha[y, x] = 255
        alphas.append(alpha)
    return alphas


@pytest.mark.parametrize("lens", ["pinhole", "opencv", "opencv_fisheye"])
@pytest.mark.parametrize("thin", [False, True])
def test_a_hull_holds_its_object_however_thin(lens, thin):
    cameras = ball_cameras(12).scaled(4)
    bend = torch.tensor([0.02, -0.01, 0.001, 0.0, 0.0, 0.0, 0.0, 0.0]).expand(12, 8).contiguous()
    if lens != "pinhole":
        cameras = dataclasses.replace(cameras, lens=lens, distortion=bend)
    alphas = ball_alpha(cameras, thin)
    lower, side = torch.tensor(CENTER) - 1.5, 3.0
    grid = carve(cameras, alphas, lower, side, 32)
    height = torch.linspace(-0.95, 0.95, 400)[:, None] * RADIUS * torch.tensor([[0.0, 0.0, 1.0]])
    cells = ((torch.tensor(CENTER) + height - lower) / side * 32).long()
    if thin:
        assert grid[cells[:, 0], cells[:, 1], cells[:, 2]].all()
    assert 0 < grid.float().mean() < 0.2


@pytest.mark.parametrize("n_views", [8, 24])
def test_of_many_views_one_alone_does_not_carve(n_views):
    cameras = ball_cameras(n_views).scaled(4)
    alphas = ball_alpha(cameras)
    lower, side = torch.tensor(CENTER) - 1.5, 3.0
    whole = carve(cameras, alphas, lower, side, 32)
    alphas[3] = torch.zeros_like(alphas[3])
    part = carve(cameras, alphas, lower, side, 32)
    assert not (part & ~whole).any()
    middle = ((torch.tensor(CENTER) - lower) / side * 32).long()
    assert part[tuple(middle)] == (n_views == 24)
    alphas[7] = torch.zeros_like(alphas[7])
    assert not carve(cameras, alphas, lower, side, 32)[tuple(middle)], "two may"


@pytest.mark.parametrize("n", [32, 96])
def test_hull_of_a_scene(toy_scene, toy_capture, n):
    scene = load_scene(toy_scene, DataConfig())
    grid = visual_hull(scene, n)
    centers = torch.stack(torch.meshgrid(*[(torch.arange(n) + 0.5) / n] * 3, indexing="ij"), -1)
    ball = torch.linalg.vector_norm(scene.frame.to_scene(centers) - torch.tensor(CENTER), dim=-1) < RADIUS
    assert grid[ball].all() and grid.float().mean() < 0.9
    assert visual_hull(load_scene(toy_capture, DataConfig()), 16).all()


def test_alpha_that_outlines_nothing_is_no_object():
    cameras = ball_cameras(8)
    empty = [torch.zeros(32, 32, dtype=torch.uint8)] * 8
    assert hull_box(cameras, empty) is None
    assert hull_box(cameras, [image + 255 for image in empty]) is None
    frame, notes = choose_frame(cameras, empty, Hints(), 0.0, False)
    assert "outline no object" in notes[0] and frame.n_levels == 4


@pytest.mark.skipif(not (DATA / "lego").is_dir(), reason="../shared/data/lego is not here")
def test_lego():
    scene = load_scene(DATA / "lego", DataConfig(downscale=8))
    assert {name: len(rows) for name, rows in scene.splits.items()} == {"train": 100, "val": 5, "test": 25}
    box = torch.tensor(scene.frame.aabb).view(2, 3)
    known = torch.tensor([[-0.64, -1.16, -0.56], [0.64, 1.16, 1.03]])
    assert (box[0] < known[0]).all() and (box[1] > known[1]).all() and (box - known).abs().max() < 0.35


@pytest.mark.skipif(not (DATA / "fox").is_dir(), reason="../shared/data/fox is not here")
def test_fox():
    scene = load_scene(DATA / "fox", DataConfig(downscale=8))
    assert len(scene.images) == 50 and scene.split_rule == "every 8th" and len(scene.splits["test"]) == 7
    assert len(scene.warnings) == 1 and "17 of 67" in scene.warnings[0]
    assert scene.frame.n_levels == 3 and torch.tensor(scene.frame.center).abs().max() < 0.5
    assert scene.cameras.lens == "opencv" and scene.cameras.fl_x[0] == pytest.approx(1375.52 / 8, abs=1e-3)


def test_silhouettes_keep_the_thinnest_part():
    image = np.zeros((700, 1500, 4), np.uint8)
    image[333, 1499, 3], image[5, 7, 3] = 200, 3
    found = silhouette(image)
    assert found.shape == (234, 500) and found.max() == 255, "what lies past the edge counts as opaque"
    assert found[111, 499] == 200 and found[1, 2] == 3 and int((found[:233] > 0).sum()) == 2
    assert (silhouette(image[..., :3].copy()) == 255).all() and silhouette(image[..., :3]).shape == (234, 500)
    assert np.array_equal(silhouette(image[:300, :600]), image[:300, :600, 3])
