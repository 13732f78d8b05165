"""Laws of `nerfkit.cameras`: a pixel's ray projects to the pixel, OpenCV agrees, directions are unit."""

import dataclasses
import math

import cv2
import numpy as np
import pytest
import torch

from nerfkit.cameras import DISTORTION, LENSES, Cameras, Intrinsics, intrinsics_from_json, intrinsics_to_json
from nerfkit.poses import SceneError, look_at

BENDS = {
    "pinhole": [0.0] * 8,
    "opencv": [-0.12, 0.05, 0.001, -0.0008, 0.002, 0.01, 0.0, 0.0],
    "opencv_fisheye": [0.05, -0.01, 0.0, 0.0, 0.003, -0.0005, 0.0, 0.0],
}
PHONE = [0.0578421, -0.0805099, -0.000980296, 0.00015575, 0.0, 0.0, 0.0, 0.0]
ALL_EIGHT = [-0.1, 0.03, 0.004, -0.003, 0.01, 0.02, -0.01, 0.005]
WIDE = [-0.02, 0.006, 0.0, 0.0, -0.001, 0.0001, 0.0, 0.0]
KINDS = [*BENDS.items(), ("opencv", PHONE), ("opencv", ALL_EIGHT), ("opencv_fisheye", WIDE)]


def cameras(lens: str, bend: list[float] | None = None, n: int = 5) -> Cameras:
    position = 3 * torch.nn.functional.normalize(torch.randn(n, 3, generator=torch.manual_seed(1)), dim=-1)
    made = Cameras.pinhole(look_at(position, torch.zeros(n, 3), torch.tensor([0.0, 0.0, 1.0])), 90.0, 160, 120)
    ones = torch.ones(n)
    bend = torch.tensor(bend or BENDS[lens]).expand(n, 8).contiguous()
    return dataclasses.replace(made, fl_y=92 * ones, cx=77 * ones, cy=63.5 * ones, distortion=bend, lens=lens)


def some(made: Cameras, n: int = 500) -> tuple[torch.Tensor, torch.Tensor]:
    size = torch.stack([made.width, made.height], -1)
    which = torch.randint(0, len(made), (n,), generator=torch.manual_seed(2))
    return which, torch.rand(n, 2, generator=torch.manual_seed(3)) * size[which]


def test_every_lens_is_tested():
    assert set(BENDS) == set(LENSES)


@pytest.mark.parametrize(("lens", "bend"), KINDS)
@pytest.mark.parametrize("centres", [False, True])
def test_a_pixels_ray_projects_to_the_pixel(lens, bend, centres):
    made = cameras(lens, bend)
    which, pixels = some(made)
    pixels = pixels.floor() + 0.5 if centres else pixels
    rays = made.rays(which, pixels)
    t = torch.linspace(0.5, 20, len(which))
    again, depth = made.project(which, rays.rays_o + t[:, None] * rays.rays_d)
    assert (again - pixels).abs().max() < 1e-3
    assert torch.allclose(depth, t * rays.cos, rtol=1e-4, atol=1e-4)
    assert torch.allclose(torch.linalg.vector_norm(rays.rays_d, dim=-1), torch.ones(len(which)), atol=1e-5)


@pytest.mark.parametrize("lens", ["opencv", "opencv_fisheye"])
def test_centres_are_looked_up_as_they_are_solved(lens):
    made = cameras(lens)
    which, pixels = some(made)
    pixels = pixels.floor() + 0.5
    assert made.table is not None
    assert torch.allclose(made._directions(which, pixels), made._solve(which, pixels), atol=1e-6)
    outside = torch.tensor([[-0.5, 0.5], [160.5, 0.5]])
    assert made.rays(torch.zeros(2, dtype=torch.long), outside).rays_d.isfinite().all()


@pytest.mark.parametrize(("lens", "bend"), KINDS)
def test_projection_is_opencvs(lens, bend):
    made = cameras(lens, bend)
    points = torch.randn(200, 3, generator=torch.manual_seed(4)) * 0.4
    K = np.array([[90.0, 0, 77.0], [0, 92.0, 63.5], [0, 0, 1]])
    for camera in range(len(made)):
        pose = made.c2w[camera].double().numpy()
        rotation, _ = cv2.Rodrigues(pose[:, :3].T)
        shift = -pose[:, :3].T @ pose[:, 3]
        world = points.double().numpy()[:, None]
        k = np.array(bend)
        if lens == "opencv_fisheye":
            theirs, _ = cv2.fisheye.projectPoints(world, rotation, shift, K, k[[0, 1, 4, 5]])
        else:
            theirs, _ = cv2.projectPoints(world, rotation, shift, K, k)
        ours, _ = made.project(camera, points)
        assert np.abs(ours.numpy() - theirs[:, 0]).max() < 1e-3
        assert torch.allclose(ours, made.project(torch.full((200,), camera), points)[0], atol=1e-4)


@pytest.mark.parametrize(("lens", "bend"), KINDS)
def test_rays_are_those_that_opencv_finds(lens, bend):
    made = cameras(lens, bend, n=1)
    _, pixels = some(made)
    rays = made.rays(torch.zeros(len(pixels), dtype=torch.long), pixels)
    local = (rays.rays_d.double() @ made.c2w[0, :, :3].double()).numpy()
    assert np.abs(local[:, 2] - rays.cos.numpy()).max() < 1e-6
    K = np.array([[90.0, 0, 77.0], [0, 92.0, 63.5], [0, 0, 1]])
    k, nowhere = np.array(bend), np.zeros(3)
    if lens == "opencv_fisheye":
        again, _ = cv2.fisheye.projectPoints(local[:, None], nowhere, nowhere, K, k[[0, 1, 4, 5]])
    else:
        again, _ = cv2.projectPoints(local[:, None], nowhere, nowhere, K, k)
    assert np.abs(again[:, 0] - pixels.numpy()).max() < 1e-3


@pytest.mark.parametrize(("lens", "bend"), KINDS)
def test_every_pixel_of_a_large_picture_goes_to_and_fro_as_opencvs(lens, bend):
    made = dataclasses.replace(cameras(lens, bend, n=1).scaled(10), c2w=torch.eye(3, 4)[None])
    # Farther from its corners than that the phone's lens would fold the picture.
    made = dataclasses.replace(made, cx=torch.tensor([790.0]), cy=torch.tensor([605.0]))
    # Every seventh centre of 1600 x 1200, and the edges, where the bend is strongest.
    x, y = torch.arange(0.5, 1600, 7), torch.arange(0.5, 1200, 7)
    x, y = torch.cat([torch.tensor([0.0]), x, torch.tensor([1600.0])]), torch.cat([y, torch.tensor([0.0, 1200.0])])
    pixels = torch.cartesian_prod(x, y)
    which = torch.zeros(len(pixels), dtype=torch.long)
    rays = made.rays(which, pixels)
    again, _ = made.project(0, 7 * rays.rays_d)
    assert (again - pixels).abs().max() < 1e-3

    K = np.array([[900.0, 0, 790.0], [0, 920.0, 605.0], [0, 0, 1]])
    local, wanted, nowhere = rays.rays_d.double().numpy()[:, None], pixels.double().numpy()[:, None], np.zeros(3)
    k, until = np.array(bend), (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 200, 1e-12)
    if lens == "opencv_fisheye":
        theirs, _ = cv2.fisheye.projectPoints(local, nowhere, nowhere, K, k[[0, 1, 4, 5]])
        found = cv2.fisheye.undistortPoints(wanted, K, k[[0, 1, 4, 5]], criteria=until)
    else:
        theirs, _ = cv2.projectPoints(local, nowhere, nowhere, K, k)
        found = cv2.undistortPoints(wanted, K, k, criteria=until)
    assert np.abs(theirs - wanted).max() < 1e-3
    ahead = torch.nn.functional.pad(torch.from_numpy(found[:, 0]), (0, 1), value=1.0).float()
    assert (made.project(0, ahead)[0] - pixels).abs().max() < 1e-3


def test_a_fisheye_goes_to_and_fro_beyond_a_right_angle():
    made = dataclasses.replace(
        cameras("opencv_fisheye", WIDE, n=1), fl_x=torch.tensor([45.0]), fl_y=torch.tensor([45.0])
    )
    which, pixels = some(dataclasses.replace(made, c2w=made.c2w.expand(1, 3, 4)))
    rays = made.rays(which, pixels)
    again, _ = made.project(which, rays.rays_o + 3 * rays.rays_d)
    assert rays.cos.min() < -0.2 and (again - pixels).abs().max() < 1e-3


def test_what_a_lens_cannot_see_is_nan():
    made = cameras("opencv", [-0.3, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], n=1)
    made = dataclasses.replace(made, c2w=torch.eye(3, 4)[None])
    points = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [1.2, 0.0, 1.0], [0.9, 0.0, 1.0]])
    seen = made.project(0, points)[0].isfinite().all(-1)
    assert seen.tolist() == [True, False, False, True]  # the polynomial turns back at 1.054


def test_fisheye_sees_beside_the_camera():
    made = dataclasses.replace(cameras("opencv_fisheye", n=1), c2w=torch.eye(3, 4)[None])
    pixels, depth = made.project(0, torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]]))
    assert pixels.isfinite().all() and torch.allclose(depth, torch.tensor([0.0, 2.0]))
    assert torch.allclose(pixels[1], torch.tensor([77.0, 63.5]))


def test_scaling_moves_projections_with_the_picture():
    made = cameras("opencv")
    which, pixels = some(made)
    rays, small = made.rays(which, pixels), made.scaled(1 / 4)
    again, _ = small.project(which, rays.rays_o + rays.rays_d)
    assert torch.allclose(again * 4, pixels, atol=2e-3)
    assert small.width.tolist() == [40] * 5 and small.height.tolist() == [30] * 5
    assert Cameras.pinhole(made.c2w, 90.0, 161, 123).scaled(1 / 3).width[0] == 53


def test_pictures_get_the_size_that_is_asked_for():
    made = cameras("pinhole")
    for width in (400, 1080, 1296, 1920, 3024, 5712):
        wide = Cameras.pinhole(made.c2w, 90.0, width, 7)
        assert all(int(wide.scaled(n / width).width[0]) == n for n in range(1, width, 7))
    tiny = made.scaled(1e-5)
    assert int(tiny.width[0]) == int(tiny.height[0]) == 1


def test_subsets_and_grids():
    made = cameras("pinhole")
    assert torch.equal(made[[3, 1]].c2w, made.c2w[[3, 1]]) and len(made[1:3]) == 2
    grid = made.pixel_grid(0)
    assert grid.shape == (120, 160, 2) and grid[0, 1].tolist() == [1.5, 0.5]


def test_gradients_reach_the_poses():
    made = cameras("pinhole")
    c2w = made.c2w.clone().requires_grad_()
    which, pixels = some(made, 10)
    dataclasses.replace(made, c2w=c2w).rays(which, pixels).rays_d.sum().backward()
    assert c2w.grad is not None and c2w.grad.abs().sum() > 0


def test_lens_goes_through_json():
    for lens in BENDS:
        made = cameras(lens)
        stated = intrinsics_from_json({}, intrinsics_to_json(made, 2), "x").fitted(160, 120, "x")
        again = Cameras.from_intrinsics(made.c2w[2:3], [stated])
        assert again.lens == lens
        for name in ("fl_x", "fl_y", "cx", "cy", "width", "height", "distortion"):
            assert torch.equal(getattr(again, name), getattr(made[2:3], name))


def test_lens_from_an_angle():
    lens = intrinsics_from_json({}, {"camera_angle_x": 0.6911112070083618}, "x").fitted(800, 800, "x")
    assert lens.fl_x == pytest.approx(1111.111, abs=1e-3) and lens.fl_y == lens.fl_x and lens.cx == 400


def test_lens_of_another_size_is_scaled_if_the_shape_is_the_same():
    lens = intrinsics_from_json({"fl_x": 100.0, "cx": 51.0, "w": 100, "h": 60}, {}, "x")
    fitted = lens.fitted(50, 30, "x")
    assert (fitted.fl_x, fitted.cx, fitted.cy, fitted.width) == (50.0, 25.5, 15.0, 50)
    with pytest.raises(SceneError, match="60x100, its intrinsics are for 100x60, as if turned"):
        lens.fitted(60, 100, "x")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({}, "no focal length"),
        ({"fl_x": math.nan}, "fl_x is nan"),
        ({"fl_x": "long"}, "fl_x is 'long'"),
        ({"fl_x": -3.0}, "fl_x is -3.0"),
        ({"fl_x": 5.0, "camera_model": "EQUIRECTANGULAR"}, "camera_model is 'EQUIRECTANGULAR'"),
        ({"fl_x": 5.0, "k1": None, "k2": "a"}, "k2 is 'a'"),
    ],
)
def test_bad_lenses_are_named(entry, said):
    with pytest.raises(SceneError, match=f"^here: .*{said}"):
        intrinsics_from_json(entry, {}, "here")


def test_mixed_lenses_are_refused():
    both = [Intrinsics(lens, fl_x=5.0).fitted(4, 4, "x") for lens in ("pinhole", "opencv_fisheye")]
    with pytest.raises(SceneError, match="camera_model"):
        Cameras.from_intrinsics(torch.eye(3, 4).expand(2, 3, 4), both)


def test_the_order_of_coefficients_is_opencvs():
    assert DISTORTION == ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
