"""LiftBench's figures, against slow twins, on an object that is made here."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from test_lift import QUICK

from nerfkit.cli import main
from nerfkit.kernels.meshes import Solid
from nerfkit.lift.bench import Object, near_surface, objects_in, read_rgba, scored
from nerfkit.lift.framing import Framing, window
from nerfkit.lift.measure import Way, c2w_of, photo_of
from nerfkit.lift.photo import LiftError, over_white
from nerfkit.lift.scene import picture_of, pose_of
from nerfkit.lift.settings import CONFIG
from nerfkit.lift.trivial import TRIVIAL, billboard, copied, true_depth, white
from nerfkit.lift.understand import WEIGHTS, load_prior, understood

SIZE = 32


def box_view(
    pose: dict[str, float], half: tuple[float, float, float] = (0.5, 0.3, 0.4)
) -> tuple[np.ndarray, np.ndarray]:
    """RGBA and depth of a box whose sides have colours, each ray cut with its six planes."""
    c2w = pose_of(pose["azimuth"], pose["elevation"], pose["radius"])
    at = ((np.arange(SIZE) + 0.5) / SIZE * 2 - 1) * math.tan(math.radians(pose["fov"]) / 2)
    local = np.stack([*np.meshgrid(at, at), np.ones((SIZE, SIZE))], -1)
    rays = local @ c2w[:, :3].T
    with np.errstate(divide="ignore"):
        first, second = ((side * np.array(half) - c2w[:, 3]) / rays for side in (-1, 1))
    near, far = np.minimum(first, second), np.maximum(first, second)
    t, axis = near.max(-1), near.argmax(-1)
    hit = t < far.min(-1)
    colors = np.array([[220, 60, 60], [60, 200, 60], [60, 60, 220]], np.uint8)[axis]
    rgba = np.dstack([colors, np.full((SIZE, SIZE), 255, np.uint8)]) * hit[..., None].astype(np.uint8)
    return rgba, np.where(hit, t, 0.0)


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    """A folder of one box."""
    folder = tmp_path / "objects" / "box"
    (folder / "views").mkdir(parents=True)

    def pose(azimuth: float, elevation: float = 20.0) -> dict[str, float]:
        return {"azimuth": azimuth, "elevation": elevation, "fov": 40.0, "radius": 2.924}

    views = [pose(90.0), pose(180.0), pose(0.0), pose(0.0, 50.0)]
    rgba, depth = box_view(pose(0.0))
    cv2.imwrite(str(folder / "input.png"), cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA))
    z = np.where(depth > 0, 1 + 65534 * (depth - 1.924) / 2.0, 0)
    cv2.imwrite(str(folder / "input_depth.png"), np.round(z).astype(np.uint16))
    for i, one in enumerate(views):
        cv2.imwrite(str(folder / "views" / f"{i:03d}.png"), cv2.cvtColor(box_view(one)[0], cv2.COLOR_RGBA2BGRA))
    about = {"near": 1.924, "far": 3.924, "input": pose(0.0), "views": views}
    (folder / "cameras.json").write_text(json.dumps(about))
    points = np.random.default_rng(0).uniform(-1, 1, (500, 3))
    points[np.arange(500), np.arange(500) % 3] = np.sign(points[np.arange(500), np.arange(500) % 3])
    np.save(folder / "surface.npy", (points * [0.5, 0.3, 0.4]).astype(np.float32))
    return tmp_path / "objects"


def test_the_truth_scores_without_end_and_nothing_scores_nothing(objects):
    one = objects_in(objects)[0]
    truth = one.truth(0)
    perfect, nothing = scored(truth, truth), scored(white(one, 0), truth)
    assert perfect["psnr"] == pytest.approx(100)
    assert perfect["iou"] == perfect["ssim"] == 1.0
    assert nothing["iou"] == 0.0
    slow = np.mean([(over_white(truth)[y, x, c] - 1) ** 2 for y in range(SIZE) for x in range(SIZE) for c in range(3)])
    assert nothing["psnr"] == pytest.approx(-10 * math.log10(slow))


def test_the_union_leaves_out_what_neither_shows(objects):
    one = objects_in(objects)[0]
    a, b = one.truth(0), one.truth(1)
    either = (a[..., 3] > 127) | (b[..., 3] > 127)
    whole, union = scored(a, b)["psnr"], scored(a, b)["psnr_union"]
    assert 10 ** (-union / 10) * either.mean() == pytest.approx(10 ** (-whole / 10))


def test_views_of_the_commonest_height_count(objects):
    assert objects_in(objects)[0].ring == [0, 1, 2]


def test_trivial_answers_are_right_where_they_must_be(objects):
    one = objects_in(objects)[0]
    assert scored(copied(one, 2), one.truth(2))["iou"] == 1.0
    for answer in (billboard, true_depth):
        assert scored(answer(one, 2), one.truth(2))["iou"] > 0.9
    side = {name: scored(answer(one, 0), one.truth(0))["iou"] for name, answer in TRIVIAL.items()}
    assert side["true depth, mirrored"] > side["billboard"]


def test_points_on_points_are_near(objects):
    points = objects_in(objects)[0].surface()
    same, large = near_surface(points, points), near_surface(3 * points, points)
    assert same["chamfer"] == pytest.approx(0, abs=1e-6)
    assert same["f0.05"] == large["f0.05"] == pytest.approx(1.0)
    moved = near_surface(points[:50] + [0.07, 0, 0], points[:50], (0.01, 1.0))
    slow = [min(np.linalg.norm(p + [0.07, 0, 0] - q) for q in points[:50]) for p in points[:50]]
    back = [min(np.linalg.norm(p + [0.07, 0, 0] - q) for p in points[:50]) for q in points[:50]]
    assert moved["chamfer"] == pytest.approx((np.mean(slow) + np.mean(back)) / 2, rel=1e-4)
    assert near_surface(np.empty((0, 3)), points)["f0.1"] == 0.0


def test_rows_are_kept_and_not_made_again(objects, tmp_path, capsys):
    (tmp_path / "quick.toml").write_text(QUICK.replace("steps = 150", "steps = 100"))
    words = ["lift-bench", str(objects), "--rows", str(tmp_path / "rows.jsonl"), "--meshes"]
    words += ["--config", str(tmp_path / "quick.toml")]
    assert main(words) == 0
    first = (tmp_path / "rows.jsonl").read_text()
    rows = [json.loads(line) for line in first.splitlines()]
    assert [row["method"] for row in rows][: len(TRIVIAL)] == list(TRIVIAL)
    mine = rows[-1]
    assert mine["faces"] > 100 and mine["watertight"]
    assert {"psnr", "iou", "photo_psnr", "beyond_psnr", "f0.1", "seconds", "mesh_loss"} <= mine.keys()
    assert "copy" in capsys.readouterr().out
    assert main(words) == 0
    assert (tmp_path / "rows.jsonl").read_text() == first


def window_share(one: Object) -> float:
    """Of the picture's side, that of the window in which its object is cut out."""
    return window(one.picture()[..., 3] > 127)[2] / SIZE


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("unknown", [False, True])
def test_what_is_lifted_is_looked_at_from_where_it_was_taken(objects, unknown, cut):
    one, net = objects_in(objects)[0], load_prior()
    photo, place = photo_of(one, Way(net, "", CONFIG, 0, True, unknown, cut, False))
    true = c2w_of(one.input)
    at = place(true)[:, 3]
    azimuth, elevation = math.atan2(at[0], at[2]), math.degrees(math.asin(float(at[1] / at.norm())))
    assert azimuth == pytest.approx(0.0, abs=1e-4)
    assert elevation == pytest.approx(one.input.elevation, abs=3.0 if cut else 1e-3)  # a wrong guess tilts the world
    if not unknown:
        assert elevation == pytest.approx(photo.elevation, abs=1e-3)
    # What is as large fills as much of the true camera's frame as it does of mine.
    seen = math.tan(math.radians(20)) * (window_share(one) if cut else 1.0)
    assert float(at.norm()) * seen == pytest.approx(photo.radius * math.tan(math.radians(photo.fov) / 2), rel=0.02)
    forward, towards = place(true)[:, 2], -at / at.norm()
    assert float(torch.rad2deg(torch.acos((forward * towards).sum().clamp(max=1)))) < 3.0
    others = [c2w_of(replace(one.input, azimuth=azimuth, elevation=30.0)) for azimuth in (0.0, 100.0, 200.0)]
    apart = torch.stack([(place(c2w)[:, 3] - at).norm() / (c2w - true)[:, 3].norm() for c2w in others])
    assert torch.allclose(apart, apart[0].expand(3), rtol=1e-3)  # the world is scaled, not bent
    middle = place(torch.cat([torch.eye(3), torch.zeros(3, 1)], 1))[:, 3]
    assert float(middle.norm()) < (0.1 if cut else 1e-6)


def test_objects_may_be_cut_out(objects, tmp_path, capsys):
    words = ["lift-bench", str(objects), "--rows", str(tmp_path / "rows.jsonl"), "--only-prior"]
    assert main([*words, "--framed"]) == 0
    row = json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[-1])
    assert row["method"] == "prior, framed"
    assert row["iou"] > 0.4
    assert main([*words, "--framed", "--meshes"]) == 2
    assert "--meshes" in capsys.readouterr().err


def test_rows_of_other_weights_are_not_taken_for_theirs(objects, tmp_path, weights):
    prior = tmp_path / "prior.safetensors"
    words = ["lift-bench", str(objects), "--rows", str(tmp_path / "rows.jsonl"), "--only-prior", "--prior", str(prior)]
    for source in (WEIGHTS, WEIGHTS, weights):
        shutil.copy(source, prior)
        assert main(words) == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len([row for row in rows if "weights" in row]) == 2


@pytest.mark.parametrize("half", [(0.25, 0.3, 0.8), (0.8, 0.3, 0.25)])
def test_the_shipped_prior_knows_more_of_other_sides_than_the_picture_shows(half):
    """A long box from its end, and from its side, which look quite unlike: outlines from there and from beyond."""

    def seen(azimuth: float) -> np.ndarray:
        return box_view({"azimuth": azimuth, "elevation": 20.0, "fov": 40.0, "radius": 2.924}, half)[0]

    net, front = load_prior(), seen(0.0)
    volume = understood(net, Framing(front, 20.0, 40.0, 2.924)).volume
    views = [30.0, 60.0, 120.0, 150.0, 180.0, 240.0, 300.0]
    mine = [scored(picture_of(volume, azimuth, 20.0, SIZE), seen(azimuth))["iou"] for azimuth in views]
    copies = [scored(front, seen(azimuth))["iou"] for azimuth in views]
    assert np.mean(mine) > np.mean(copies) + 0.05


def test_others_pictures_stand_beside(objects, tmp_path, capsys):
    theirs = tmp_path / "theirs" / "box"
    theirs.mkdir(parents=True)
    one = objects_in(objects)[0]
    for view in one.ring:
        rgba = one.truth(view)
        cv2.imwrite(str(theirs / f"{view:03d}.png"), cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA))
    words = ["lift-bench", str(objects), "--rows", str(tmp_path / "rows.jsonl"), "--answers", f"theirs={theirs.parent}"]
    assert main(words) == 0
    last = json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[-1])
    assert (last["method"], last["iou"]) == ("theirs", 1.0)


def test_folders_that_hold_no_objects_are_sentences(tmp_path):
    with pytest.raises(LiftError, match="holds no objects"):
        objects_in(tmp_path)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "cameras.json").write_text("{}")
    with pytest.raises(LiftError, match="no object to be lifted"):
        Object.open(tmp_path / "x")
    with pytest.raises(LiftError, match="no picture"):
        read_rgba(tmp_path / "x" / "input.png")


def test_rays_meet_the_nearest_triangle():
    generator = torch.Generator().manual_seed(0)
    vertices = torch.rand(30, 3, generator=generator) * 2 - 1
    faces = torch.arange(30).view(10, 3)
    rays_o = torch.tensor([[0.0, 0.0, 4.0]]).expand(200, 3)
    rays_d = torch.nn.functional.normalize(
        torch.rand(200, 3, generator=generator) - torch.tensor([0.5, 0.5, 4.0]), dim=1
    )
    found, weights, t = Solid(vertices, faces).first_hits(rays_o, rays_d)
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    for ray in range(200):
        d, o = rays_d[ray].expand(10, 3), rays_o[ray]
        p = torch.linalg.cross(d, c - a)
        det = ((b - a) * p).sum(1)
        s = o - a
        u = (s * p).sum(1) / det
        q = torch.linalg.cross(s, b - a)
        v, far = (d * q).sum(1) / det, ((c - a) * q).sum(1) / det
        inside = (u > 0) & (v > 0) & (u + v < 1) & (far > 0)
        if not bool(inside.any()):
            assert int(found[ray]) == -1
            continue
        first = int(torch.where(inside, far, torch.inf).argmin())
        assert int(found[ray]) == first
        assert float(t[ray]) == pytest.approx(float(far[first]), abs=1e-4)
        place = (weights[ray][:, None] * vertices[faces[first]]).sum(0)
        assert torch.allclose(place, o + t[ray] * rays_d[ray], atol=1e-4)
