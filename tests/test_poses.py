"""Laws of `nerfkit.poses`: conversions invert, checks refuse, constructions look where they should."""

import math

import pytest
import torch

from nerfkit.poses import (
    SceneError,
    axis_spread,
    interpolate_poses,
    look_at,
    mean_up,
    moved,
    moves_between,
    nearest_to_axes,
    opencv_to_opengl,
    opengl_to_opencv,
    quaternion,
    rigid_pose,
    rotation_by,
    rotation_of,
    rotation_vector,
    transform_points,
    transform_poses,
    without_drift,
)

UP = torch.tensor([0.0, 0.0, 1.0])


def ring(n: int = 12, tilt: float = 0.5) -> torch.Tensor:
    turn = torch.arange(n) / n * math.tau
    position = 4 * torch.stack([torch.cos(turn), torch.sin(turn), torch.full_like(turn, tilt)], -1)
    return look_at(position, torch.zeros(n, 3), UP)


def test_axis_conversions_invert_and_turn_the_view_round():
    c2w = ring()
    assert torch.equal(opencv_to_opengl(opengl_to_opencv(c2w)), c2w)
    assert torch.equal(opencv_to_opengl(c2w)[..., 2], -c2w[..., 2])
    assert torch.equal(opencv_to_opengl(c2w)[..., 3], c2w[..., 3])


@pytest.mark.parametrize("scale", [1.0, 0.33, 7.0])
def test_rigid_pose_drops_scale_and_rounding(scale):
    pose = ring()[3].double()
    rows = torch.cat([pose[:, :3] * scale, pose[:, 3:]], 1)
    rounded = (rows * 2000).round() / 2000
    found = rigid_pose(rounded.tolist(), "x")
    assert torch.allclose(found[:, :3].T @ found[:, :3], torch.eye(3).double(), atol=1e-12)
    assert torch.allclose(found[:, :3], pose[:, :3], atol=2e-3)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([[1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], "not a rigid"),
        ([[1, 0.1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], "not a rigid"),
        ([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]], "mirrored"),
        ([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]], "not a rigid"),
        ([[0.0] * 4] * 4, "not a rigid"),
        ([[1, 0, 0, math.nan], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], "finite"),
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], "shape"),
        ([[1, 0], [0]], "4 rows"),
        ("pose", "4 rows"),
        (None, "4 rows"),
    ],
)
def test_rigid_pose_refuses(rows, said):
    with pytest.raises(SceneError, match=f"^file: key: .*{said}"):
        rigid_pose(rows, "file: key")


def test_similarity_moves_points_and_poses_together():
    turn = rotation_of(torch.nn.functional.normalize(torch.tensor([[1.0, 2.0, -0.5, 0.3]]), dim=-1))[0]
    similarity = torch.eye(4)
    similarity[:3, :3], similarity[:3, 3] = 2.5 * turn, torch.tensor([1.0, -2.0, 3.0])
    c2w = ring()
    moved = transform_poses(similarity, c2w)
    assert torch.allclose(moved[:, :, :3].transpose(1, 2) @ moved[:, :, :3], torch.eye(3).expand(12, 3, 3), atol=1e-5)
    ahead = c2w[:, :, 3] + 2 * c2w[:, :, 2]
    assert torch.allclose(transform_points(similarity, ahead), moved[:, :, 3] + 5 * moved[:, :, 2], atol=1e-4)


def test_look_at_looks_there_with_up_upward():
    c2w = ring()
    towards = torch.nn.functional.normalize(-c2w[:, :, 3], dim=-1)
    assert torch.allclose(c2w[:, :, 2], towards, atol=1e-6)
    assert (c2w[:, 2, 1] < 0).all() and c2w[:, 2, 0].abs().max() < 1e-6
    assert torch.allclose(torch.linalg.det(c2w[:, :, :3]), torch.ones(12), atol=1e-5)


def test_look_at_along_up_is_still_a_rotation():
    c2w = look_at(torch.zeros(3), UP, UP)
    assert torch.allclose(c2w[:, :3].T @ c2w[:, :3], torch.eye(3), atol=1e-6)


def test_nearest_to_axes_survives_stray_views():
    c2w = ring(40)
    c2w[:4, :, 2] = torch.tensor([0.0, 0.0, 1.0])
    assert torch.linalg.vector_norm(nearest_to_axes(c2w)) < 0.05


def test_nearest_to_axes_of_parallel_axes_is_finite():
    c2w = torch.eye(3, 4).repeat(5, 1, 1)
    c2w[:, 0, 3] = torch.arange(5.0)
    assert nearest_to_axes(c2w).isfinite().all() and axis_spread(c2w) < 1e-6


@pytest.mark.parametrize("views", [slice(None), slice(0, 3)])
def test_mean_up_of_cameras_that_look_down_is_vertical(views):
    assert mean_up(ring(12, tilt=0.8)[views]) @ UP > 0.999


def test_mean_up_of_one_camera_is_its_own():
    assert torch.allclose(mean_up(ring()[:1]), -ring()[0, :, 1], atol=1e-6)


def test_quaternions_invert_at_every_angle():
    q = torch.nn.functional.normalize(torch.randn(200, 4, dtype=torch.float64), dim=-1)
    q[:3] = torch.eye(4).double()[1:]  # half turns
    again = quaternion(rotation_of(q))
    assert torch.allclose((q * again).sum(-1).abs(), torch.ones(200).double(), atol=1e-9)


def test_interpolation_meets_its_keys_and_stays_rigid():
    c2w, times = ring(6), torch.arange(6.0)
    assert torch.allclose(interpolate_poses(c2w, times, times), c2w, atol=1e-5)
    between = interpolate_poses(c2w, times, torch.linspace(-1, 6, 50))
    axes = between[:, :, :3]
    assert torch.allclose(axes.transpose(1, 2) @ axes, torch.eye(3).expand(50, 3, 3), atol=1e-5)
    assert torch.allclose(interpolate_poses(c2w[:1], times[:1], times), c2w[:1].expand(6, 3, 4))


def test_rotation_vectors_are_an_axis_times_an_angle():
    turn = rotation_by(torch.tensor([0.0, 0.0, math.pi / 2]))
    assert torch.allclose(turn @ torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]), atol=1e-6)
    vectors = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vectors = vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True) * torch.linspace(0, 1.5, 50)[:, None]
    assert torch.allclose(rotation_vector(rotation_by(vectors)), vectors, atol=1e-9)


def small_moves(n: int, seed: int = 0) -> torch.Tensor:
    return 0.01 * torch.randn(n, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_moves_lead_from_one_pose_to_another():
    c2w, moves = ring().double(), small_moves(12)
    there = moved(c2w, moves)
    assert torch.allclose(there[:, :, 3], c2w[:, :, 3] + moves[:, 3:])
    assert torch.allclose(moves_between(c2w, there), moves, atol=1e-9)


def sights(n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Points about the middle of the ring, the camera that sees each, and how much it counts."""
    generator = torch.Generator().manual_seed(3)
    points = torch.randn(40 * n, 3, generator=generator, dtype=torch.float64)
    return points, torch.arange(n).repeat(40), torch.rand(40 * n, generator=generator)


@pytest.mark.parametrize(
    ("turn", "shift", "scale"),
    [([1, -2, 3], [0, 0, 0], 0), ([0, 0, 0], [-2, 1, 4], 0), ([0, 0, 0], [0, 0, 0], 5), ([1, -2, 3], [-2, 1, 4], 5)],
    ids=["turn", "shift", "scale", "all"],
)
def test_what_all_cameras_do_is_drift(turn: list[int], shift: list[int], scale: int):
    c2w = ring().double()
    position = c2w[:, :, 3] - c2w[:, :, 3].mean(0)
    turns = 1e-3 * torch.tensor(turn).double().expand(12, 3)
    shifts = 1e-3 * (torch.tensor(shift) + scale * position) + torch.linalg.cross(turns, position)
    drifted = moved(c2w, torch.cat([turns, shifts], dim=1))
    assert not torch.allclose(drifted, c2w, atol=1e-4)
    assert torch.allclose(without_drift(drifted, c2w, *sights(12)), c2w, atol=1e-7)


def test_nothing_in_common_remains():
    c2w = ring().double()
    there = without_drift(moved(c2w, small_moves(12)), c2w, *sights(12))
    assert float((there - moved(c2w, small_moves(12))).abs().max()) > 1e-3
    # What remains is of second order in the moves.
    assert torch.allclose(without_drift(there, c2w, *sights(12)), there, atol=3e-4)


def test_what_no_picture_shows_is_no_drift():
    c2w = ring().double()
    # Each camera goes round the only point that is seen, and turns so as to see it in the same place.
    turn = torch.tensor([0.0, 0.0, 1e-3], dtype=torch.float64) * torch.linspace(0.0, 1.0, 12)[:, None]
    there = moved(c2w, torch.cat([turn, torch.linalg.cross(turn, c2w[:, :, 3])], dim=1))
    points = torch.zeros(12, 3, dtype=torch.float64), torch.arange(12), torch.ones(12)
    assert torch.allclose(without_drift(there, c2w, *points), there, atol=1e-5)
