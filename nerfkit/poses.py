"""Poses: axis conventions, checks, similarities, and the few constructions that camera paths need.

``c2w`` is camera-to-world, (..., 3, 4), its columns the camera's axes and position. OpenCV axes (+x right, +y down,
+z forward) everywhere inside; OpenGL axes (+y up, looking along -z) only in files.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

RIGID_TOLERANCE = 1e-2
"""Largest entry of R^T R - 1 that still passes for a rotation: files print poses with as few as three digits."""


class SceneError(ValueError):
    """An input that cannot be used: one sentence that names the file and the key, and what would do."""


def opengl_to_opencv(c2w: Float[Tensor, "*n 3 4"]) -> Float[Tensor, "*n 3 4"]:
    """The same cameras with their axes named as OpenCV does: y and z turn round, positions stay."""
    return c2w * c2w.new_tensor([1.0, -1.0, -1.0, 1.0])


def opencv_to_opengl(c2w: Float[Tensor, "*n 3 4"]) -> Float[Tensor, "*n 3 4"]:
    """The inverse of `opengl_to_opencv`."""
    return c2w * c2w.new_tensor([1.0, -1.0, -1.0, 1.0])


def rigid_pose(rows: Any, where: str) -> Float[Tensor, "3 4"]:
    """A pose as a file states it (3 or 4 rows of 4 numbers), made exactly rigid; float64, axes untouched.

    A uniform scale of the axes is dropped (it does not change what a camera sees) and rounding is removed by taking
    the nearest rotation. Raises SceneError, beginning with ``where``, for another shape, numbers that are not finite,
    a mirrored frame, or axes that are not orthogonal and equally long to 1 %.
    """
    try:
        matrix = torch.tensor(rows, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise SceneError(f"{where}: expected 4 rows of 4 numbers") from None
    if matrix.shape not in ((3, 4), (4, 4)):
        raise SceneError(f"{where}: expected 4 rows of 4 numbers, found shape {tuple(matrix.shape)}")
    if not matrix.isfinite().all():
        raise SceneError(f"{where}: not all of its numbers are finite")
    axes = matrix[:3, :3]
    scale = torch.linalg.matrix_norm(axes) / 3**0.5
    affine = matrix.shape[0] == 3 or torch.allclose(matrix[3], matrix.new_tensor([0.0, 0.0, 0.0, 1.0]), atol=1e-6)
    gram = axes.T @ axes / scale**2
    if not affine or scale < 1e-9 or (gram - torch.eye(3, dtype=gram.dtype)).abs().max() > RIGID_TOLERANCE:
        raise SceneError(f"{where}: not a rigid transform (a rotation, a position and the row 0 0 0 1)")
    if torch.linalg.det(axes) < 0:
        raise SceneError(f"{where}: not a rigid transform but a mirrored one (its determinant is negative)")
    u, _, vh = torch.linalg.svd(axes)
    return torch.cat([u @ vh, matrix[:3, 3:]], dim=1)


def transform_points(similarity: Float[Tensor, "4 4"], points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
    """Points under a similarity (scale times rotation, then translation)."""
    return points @ similarity[:3, :3].T + similarity[:3, 3]


def transform_poses(similarity: Float[Tensor, "4 4"], c2w: Float[Tensor, "*n 3 4"]) -> Float[Tensor, "*n 3 4"]:
    """Poses under a similarity: positions move and scale, axes turn and stay unit vectors."""
    scale = torch.linalg.det(similarity[:3, :3]) ** (1 / 3)
    axes = similarity[:3, :3] / scale @ c2w[..., :3]
    return torch.cat([axes, transform_points(similarity, c2w[..., 3])[..., None]], dim=-1)


def _unit(vectors: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
    return torch.nn.functional.normalize(vectors, dim=-1)


def look_at(
    position: Float[Tensor, "*#n 3"], target: Float[Tensor, "*#n 3"], up: Float[Tensor, "*#n 3"]
) -> Float[Tensor, "*n 3 4"]:
    """Poses (OpenCV axes) at ``position`` that look at ``target`` with ``up`` upward in the picture.

    Where the view runs along ``up``, the picture is turned some other way rather than undefined.
    """
    position, target, up = torch.broadcast_tensors(position, target, up)
    forward = _unit(target - position)
    right = torch.linalg.cross(forward, up, dim=-1)
    least = torch.nn.functional.one_hot(forward.abs().argmin(-1), 3).to(forward)
    lost = torch.linalg.vector_norm(right, dim=-1, keepdim=True) < 1e-6
    right = _unit(torch.where(lost, torch.linalg.cross(forward, least, dim=-1), right))
    down = torch.linalg.cross(forward, right, dim=-1)
    return torch.stack([right, down, forward, position], dim=-1)


def nearest_to_axes(c2w: Float[Tensor, "n 3 4"], n_iterations: int = 20) -> Float[Tensor, " 3"]:
    """The point with the least sum of distances to the optical axes: what the cameras look at.

    Distances, not their squares, so that some stray views do not pull it away (reweighted least squares). With axes
    that are all but parallel the point is arbitrary along them: see `axis_spread`.
    """
    c2w = c2w.double()
    position, axis = c2w[..., 3], c2w[..., 2]
    across = torch.eye(3, dtype=c2w.dtype, device=c2w.device) - axis[:, :, None] * axis[:, None, :]
    weight = torch.ones(len(c2w), dtype=c2w.dtype, device=c2w.device)
    point = position.mean(0)
    for _ in range(n_iterations):
        normal = (weight[:, None, None] * across).sum(0)
        right = (weight[:, None] * (across @ position[..., None])[..., 0]).sum(0)
        # A ridge that prefers the cameras' middle decides where parallel axes leave the point open.
        ridge = 1e-6 * weight.sum() * torch.eye(3, dtype=c2w.dtype, device=c2w.device)
        point = torch.linalg.solve(normal + ridge, right + ridge @ position.mean(0))
        distance = torch.linalg.vector_norm((across @ (point - position)[..., None])[..., 0], dim=-1)
        weight = 1 / distance.clamp_min(1e-3 * distance.max().item() + 1e-12)
    return point.float()


def axis_spread(c2w: Float[Tensor, "n 3 4"]) -> float:
    """How far the optical axes diverge: root mean square sine of their angle to the main direction, 0 to 0.82."""
    axis = c2w[..., 2].double()
    return float((1 - torch.linalg.eigvalsh(axis.T @ axis / len(axis))[-1]).clamp_min(0).sqrt())


def mean_up(c2w: Float[Tensor, "n 3 4"]) -> Float[Tensor, " 3"]:
    """The unit vertical of a capture.

    People hold a camera level but tilt it: the vertical is the direction most orthogonal to all the cameras' right
    axes. Where these are almost one direction it is open, and the mean of the cameras' own up axes is taken.
    """
    right, up = c2w[..., 0].double(), -c2w[..., 1].double().mean(0)
    values, vectors = torch.linalg.eigh(right.T @ right / len(right))
    level = vectors[:, 0] * torch.sign(vectors[:, 0] @ up)
    # At least 10 degrees of turning, less roll than turning, and no contradiction of the cameras' own up.
    decided = values[1] > 0.03 and values[0] < values[1] / 3 and level @ _unit(up) > 0.5
    if not decided and torch.linalg.vector_norm(up) < 1e-6:
        up = vectors[:, 0]
    return _unit(level if decided else up).float()


def quaternion(rotation: Float[Tensor, "n 3 3"]) -> Float[Tensor, "n 4"]:
    """Unit quaternions (w, x, y, z) of rotations.

    The largest eigenvector of a symmetric 4x4 matrix (Bar-Itzhack 2000): exact at every angle, and without branches.
    """
    r = rotation
    xx, yy, zz = r[:, 0, 0], r[:, 1, 1], r[:, 2, 2]
    x, y, z = r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1]
    xy, xz, yz = r[:, 0, 1] + r[:, 1, 0], r[:, 0, 2] + r[:, 2, 0], r[:, 1, 2] + r[:, 2, 1]
    rows = [xx + yy + zz, x, y, z, x, xx - yy - zz, xy, xz, y, xy, yy - xx - zz, yz, z, xz, yz, zz - xx - yy]
    return torch.linalg.eigh(torch.stack(rows, dim=-1).unflatten(-1, (4, 4)))[1][..., -1]


def rotation_of(quaternions: Float[Tensor, "n 4"]) -> Float[Tensor, "n 3 3"]:
    """Rotations of unit quaternions (w, x, y, z)."""
    w, x, y, z = quaternions.unbind(-1)
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)]
    rows += [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)]
    rows += [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def rotation_by(vectors: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3 3"]:
    """Rotations by rotation vectors: an axis times an angle in radians."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    return torch.linalg.matrix_exp(cross)


def rotation_vector(rotation: Float[Tensor, "*n 3 3"]) -> Float[Tensor, "*n 3"]:
    """The inverse of `rotation_by`, for angles below a right one."""
    odd = (rotation - rotation.transpose(-1, -2)) / 2
    vector = torch.stack([odd[..., 2, 1], odd[..., 0, 2], odd[..., 1, 0]], dim=-1)
    sine = torch.linalg.vector_norm(vector, dim=-1, keepdim=True).clamp(1e-12, 1.0)
    return vector * torch.arcsin(sine) / sine


def moved(c2w: Float[Tensor, "n 3 4"], moves: Float[Tensor, "n 6"]) -> Float[Tensor, "n 3 4"]:
    """Cameras turned about their own position by a rotation vector (scene axes, radians), then shifted."""
    exact = c2w.double()
    turned = rotation_by(moves[:, :3].double()) @ exact[:, :, :3]
    return torch.cat([turned, exact[:, :, 3:] + moves[:, 3:, None]], dim=-1).to(c2w)


def moves_between(start: Float[Tensor, "n 3 4"], end: Float[Tensor, "n 3 4"]) -> Float[Tensor, "n 6"]:
    """What `moved` takes to get from one set of poses to another, float64; turns are below a right angle."""
    start, end = start.double(), end.double()
    turn = rotation_vector(end[:, :, :3] @ start[:, :, :3].transpose(1, 2))
    return torch.cat([turn, end[:, :, 3] - start[:, :, 3]], dim=-1)


def without_drift(
    c2w: Float[Tensor, "n 3 4"],
    start: Float[Tensor, "n 3 4"],
    points: Float[Tensor, "m 3"],
    view: Int[Tensor, " m"],
    weights: Float[Tensor, " m"],
) -> Float[Tensor, "n 3 4"]:
    """Poses without the similarity that they have in common, seen from ``start``.

    With moves (w, v) from ``start`` and r the offset of a camera's point X from its position, the similarity's turn a,
    shift b and scale s minimise the sum of weights * |v + w x r - (a x X + b + s X)|^2 / |r|^2, across r alone: how far
    points move in the pictures. So a turn that a shift makes up for, which pictures hardly show, does not count. To
    first order in the moves, X from the middle of the positions.

    Args:
        c2w: the poses, each not far from its start.
        start: what they are to stay with, on the whole.
        points: what is seen.
        view: by which of the cameras.
        weights: how much each of these counts.
    """
    turn, shift = moves_between(start, c2w).split(3, dim=1)
    position, points = start[:, :, 3].double(), points.double()
    offset, middle = points - position[view], position.mean(0)
    distance = torch.linalg.vector_norm(offset, dim=-1, keepdim=True).clamp_min(1e-12)
    ray, scale = offset / distance, weights.double().sqrt()[:, None] / distance

    def across(vectors: Tensor) -> Tensor:
        return scale * (vectors - (vectors * ray).sum(-1, keepdim=True) * ray)

    axes = torch.eye(3, dtype=points.dtype)[:, None].expand(3, *points.shape)
    from_middle = points - middle
    columns = [*(torch.linalg.cross(axis, from_middle) for axis in axes), *axes, from_middle]
    matrix = torch.stack([across(column).flatten() for column in columns], dim=-1)
    motion = across(shift[view] + torch.linalg.cross(turn[view], offset)).flatten()
    ridge = 1e-9 * (1e-12 + (matrix * matrix).sum(0)).diag()
    a, b, s = torch.linalg.solve(matrix.T @ matrix + ridge, matrix.T @ motion).split((3, 3, 1))
    a, from_middle = a.expand_as(position), position - middle
    return moved(c2w, -torch.cat([a, b + torch.linalg.cross(a, from_middle) + s * from_middle], dim=1))


def interpolate_poses(
    c2w: Float[Tensor, "k 3 4"], key_times: Float[Tensor, " k"], times: Float[Tensor, " n"]
) -> Float[Tensor, "n 3 4"]:
    """Poses between keys: positions on a cubic through them, rotations by the shortest way (slerp).

    ``key_times`` ascend strictly; ``times`` outside them are clamped. At a key's time the key itself comes back.
    """
    if len(c2w) == 1:
        return c2w.expand(len(times), 3, 4)
    keys, key_times, times = c2w.double(), key_times.double(), times.double()
    left = (torch.searchsorted(key_times, times, right=True) - 1).clamp(0, len(keys) - 2)
    span = key_times[left + 1] - key_times[left]
    u = ((times - key_times[left]) / span).clamp(0, 1)[:, None]

    position = keys[..., 3]
    ends = torch.arange(len(keys))
    before, after = (ends - 1).clamp_min(0), (ends + 1).clamp_max(len(keys) - 1)
    slope = (position[after] - position[before]) / (key_times[after] - key_times[before])[:, None]
    rise = position[left + 1] - position[left]
    first, last = slope[left] * span[:, None], slope[left + 1] * span[:, None]
    cubic = position[left] + u * (first + u * (3 * rise - 2 * first - last + u * (first + last - 2 * rise)))

    q = quaternion(keys[..., :3])
    start, end = q[left], q[left + 1]
    end = end * torch.where((start * end).sum(-1, keepdim=True) < 0, -1.0, 1.0)
    angle = torch.arccos((start * end).sum(-1, keepdim=True).clamp(-1, 1)).clamp_min(1e-9)
    turned = torch.sin((1 - u) * angle) * start + torch.sin(u * angle) * end
    rotation = rotation_of(torch.nn.functional.normalize(turned, dim=-1))
    return torch.cat([rotation, cubic[..., None]], dim=-1).to(c2w)
