"""Meshes of the bundled scenes, made with numpy: every surface is a bent grid of points.

A grid is (rows, columns, 3). The texture coordinate of a vertex is its place in the grid, (column, row) from 0 to 1, so
a painter that is given the grid, enlarged, paints exactly where the point lies (see ``scene_paints``). Lengths are in
scene units: the whole still life is about 2.4 wide, the courtyard is in metres. z points up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

# A lathe must not touch its axis: a ring of no size has no direction along it, hence no normal.
AXIS_GAP = 1e-4


@dataclass
class Surface:
    """A bent grid of points.

    ``points`` (rows, columns, 3) in local units, in which it is painted; ``wrap_rows`` and ``wrap_columns`` say that
    the last row (column) repeats the first; ``pose`` (3, 4) takes local points to the scene; ``holes`` (rows - 1,
    columns - 1) is true for cells that are cut out.
    """

    points: np.ndarray
    wrap_rows: bool = False
    wrap_columns: bool = False
    pose: np.ndarray | None = None
    holes: np.ndarray | None = None

    def placed(self, pose: np.ndarray) -> Surface:
        """The same surface moved by ``pose`` (3, 4), after any move it already has."""
        moved = pose if self.pose is None else compose(pose, self.pose)
        return replace(self, pose=moved)

    def enlarged(self, height: int, width: int) -> np.ndarray:
        """Local points of a (height, width) texture, (height, width, 3), texel centres."""
        rows, columns, _ = self.points.shape
        row = (np.arange(height) + 0.5) / height * (rows - 1)
        column = (np.arange(width) + 0.5) / width * (columns - 1)
        map_x, map_y = np.meshgrid(column.astype(np.float32), row.astype(np.float32))
        return cv2.remap(self.points.astype(np.float32), map_x, map_y, cv2.INTER_LINEAR).astype(np.float64)


# ---- poses


def turn(axis: str, degrees: float) -> np.ndarray:
    """Pose (3, 4) that turns about the axis ``x``, ``y`` or ``z``."""
    angle = np.radians(degrees)
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    pose = np.eye(4)[:3]
    pose[i, i] = pose[j, j] = np.cos(angle)
    pose[i, j], pose[j, i] = -np.sin(angle), np.sin(angle)
    return pose


def shift(x: float, y: float, z: float) -> np.ndarray:
    """Pose (3, 4) that moves by (x, y, z) units."""
    return np.concatenate([np.eye(3), np.array([[x], [y], [z]], dtype=float)], axis=1)


def compose(*poses: np.ndarray) -> np.ndarray:
    """One pose (3, 4) for several, the last applied first."""
    total = np.eye(4)
    for pose in poses:
        total = total @ np.vstack([pose, [0, 0, 0, 1]])
    return total[:3]


# ---- curves


def densify(path: np.ndarray, step: float) -> np.ndarray:
    """``path`` (n, d) with points added so that no piece is longer than ``step`` units."""
    pieces = []
    for start, end in zip(path[:-1], path[1:], strict=True):
        count = max(1, int(np.ceil(np.linalg.norm(end - start) / step)))
        pieces.append(start + (end - start) * (np.arange(count) / count)[:, None])
    return np.concatenate([*pieces, path[-1:]])


def rounded(corners: np.ndarray, radius: float, closed: bool = False, steps: int = 4) -> np.ndarray:
    """Polyline ``corners`` (n, 2) with its corners cut to arcs of about ``radius`` units; ``closed`` repeats the start.

    Nothing real has a knife edge, and the small arc is what catches the light.
    """
    corners = np.asarray(corners, dtype=float)
    count = len(corners)
    out = [] if closed else [corners[:1]]
    for index in range(0 if closed else 1, count if closed else count - 1):
        before, here, after = corners[index - 1], corners[index], corners[(index + 1) % count]
        to_before, to_after = before - here, after - here
        reach = min(radius, 0.45 * np.linalg.norm(to_before), 0.45 * np.linalg.norm(to_after))
        first = here + to_before / np.linalg.norm(to_before) * reach
        last = here + to_after / np.linalg.norm(to_after) * reach
        s = np.linspace(0, 1, steps + 1)[:, None]
        out.append((1 - s) ** 2 * first + 2 * s * (1 - s) * here + s**2 * last)
    out.append(out[0][:1] if closed else corners[-1:])
    return np.concatenate(out)


def spline(knots: np.ndarray, count: int) -> np.ndarray:
    """Smooth curve (count, d) through ``knots`` (n, d): Catmull-Rom, ends doubled."""
    knots = np.asarray(knots, dtype=float)
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    s = np.linspace(0, len(knots) - 1 - 1e-9, count)
    index, t = s.astype(int), (s % 1)[:, None]
    a, b, c, d = (padded[index + k] for k in range(4))
    return 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)


# ---- surfaces


def lathe(profile: np.ndarray, columns: int = 96, closed: bool = False, step: float = 0.03, sides: int = 0) -> Surface:
    """Turn ``profile`` (n, 2) of (radius, z), walked with the outside on its right, about the z axis.

    ``closed`` says that the profile ends where it began (a ring). ``sides`` > 0 flattens the round to a polygon with
    softened edges (a pencil). Bottom to top on the outside is the usual walk.
    """
    profile = densify(np.asarray(profile, dtype=float), step)
    radius, z = np.maximum(profile[:, :1], AXIS_GAP), profile[:, 1:]
    angle = np.linspace(0, 2 * np.pi, columns + 1)[None]
    if sides:
        half = np.pi / sides
        flat = np.cos(half) / np.cos((angle + half) % (2 * half) - half)
        radius = radius * np.minimum(flat, 0.97)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    points = np.stack([x, y, np.broadcast_to(z, x.shape)], axis=-1)
    return Surface(points, wrap_rows=closed, wrap_columns=True)


def ring(inner: float, outer: float, height: float, bevel: float = 0.004, columns: int = 128) -> Surface:
    """A flat hoop about z: radii ``inner`` < ``outer`` and full ``height``, edges softened by ``bevel`` units."""
    h = height / 2
    box = rounded(np.array([[inner, -h], [outer, -h], [outer, h], [inner, h]]), bevel, closed=True, steps=3)
    return lathe(box, columns, closed=True, step=0.006)


def ball(radius: float, rows: int = 48, columns: int = 96) -> Surface:
    """A sphere of ``radius`` units about the origin, poles on z."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, rows + 1)
    return lathe(radius * np.stack([np.cos(angle), np.sin(angle)], axis=1), columns)


def tube(path: np.ndarray, radius: np.ndarray | float, columns: int = 10) -> Surface:
    """A round wire along ``path`` (n, 3); ``radius`` in units, one or (n,). Ends are closed by tapering to nothing."""
    path = np.asarray(path, dtype=float)
    radius = np.broadcast_to(np.asarray(radius, dtype=float), len(path)).copy()
    path = np.concatenate([path[:1], path, path[-1:]])
    radius = np.concatenate([[AXIS_GAP], radius, [AXIS_GAP]])
    ahead = np.gradient(path, axis=0)
    ahead[0], ahead[-1] = ahead[1], ahead[-2]  # the doubled ends have no direction of their own
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    side = np.zeros_like(path)
    guess = np.eye(3)[np.argmin(np.abs(ahead[1]))]
    for index, direction in enumerate(ahead):
        guess = guess - direction * (guess @ direction)  # carried along the path: the wire does not twist
        guess = guess / np.linalg.norm(guess)
        side[index] = guess
    up = np.cross(ahead, side)
    angle = np.linspace(0, 2 * np.pi, columns + 1)[None, :, None]
    points = path[:, None] + radius[:, None, None] * (np.cos(angle) * side[:, None] + np.sin(angle) * up[:, None])
    return Surface(points, wrap_columns=True)


def rod(start: Sequence[float], end: Sequence[float], radius: float, columns: int = 12) -> Surface:
    """A straight round bar from ``start`` to ``end`` (3,)."""
    s = np.linspace(0, 1, 12)[:, None]
    return tube((1 - s) * np.asarray(start, dtype=float) + s * np.asarray(end, dtype=float), radius, columns)


def box(size_x: float, size_y: float, size_z: float, cells: int = 6) -> list[Surface]:
    """Six flat faces of a block centred on the origin, sizes in units."""
    half = np.array([size_x, size_y, size_z]) / 2
    a, b = np.meshgrid(np.linspace(-1, 1, cells + 1), np.linspace(-1, 1, cells + 1))
    faces = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            face = np.empty((*a.shape, 3))
            face[..., axis] = sign
            face[..., (axis + 1) % 3], face[..., (axis + 2) % 3] = (a, b) if sign > 0 else (b, a)
            faces.append(Surface(face * half))
    return faces


def panel(corner: Sequence[float], across: Sequence[float], up: Sequence[float], cells: tuple = (1, 1)) -> Surface:
    """A flat piece from ``corner`` along ``across`` and ``up`` (3,), facing their cross product; cells (up, across)."""
    v, u = np.meshgrid(np.linspace(0, 1, cells[0] + 1), np.linspace(0, 1, cells[1] + 1), indexing="ij")
    return Surface(np.asarray(corner) + u[..., None] * np.asarray(across) + v[..., None] * np.asarray(up))


def block(low: Sequence[float], high: Sequence[float]) -> list[Surface]:
    """Six plain faces of a block between two opposite corners (3,)."""
    low, high = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    return [face.placed(shift(*(low + high) / 2)) for face in box(*(high - low), cells=1)]


def bar(start: Sequence[float], end: Sequence[float], radius: float) -> Surface:
    """A straight thin bar of few faces: for railings and spokes, of which there are thousands."""
    return tube(np.array([start, end], dtype=float), radius, 6)


def hoop(radius: float, thick: float, columns: int = 48) -> Surface:
    """A round wire bent to a circle about z; ``thick`` is the wire's own radius."""
    angle = np.linspace(0, 2 * np.pi, 9)
    return lathe(
        np.stack([radius + thick * np.cos(angle), thick * np.sin(angle)], axis=1), columns, closed=True, step=1
    )


def hanging(start: Sequence[float], end: Sequence[float], sag: float, count: int = 24) -> np.ndarray:
    """Points (count, 3) of a cord from ``start`` to ``end`` that sags in its middle."""
    s = np.linspace(0, 1, count)[:, None]
    path = (1 - s) * np.asarray(start, dtype=float) + s * np.asarray(end, dtype=float)
    return path - np.array([0, 0, 4 * sag]) * s * (1 - s)


def extruded(section: np.ndarray, length: float, thickness: float) -> list[Surface]:
    """Bend a sheet along ``section`` (n, 2) in xz and draw it out along y: the sheet's skin, then its two ends.

    ``thickness`` is measured to the left of the walk; ``length`` is centred on y = 0. Units.
    """
    along = np.gradient(section, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    other = section + thickness * np.stack([-along[:, 1], along[:, 0]], axis=1)
    loop = densify(np.concatenate([section, other[::-1], section[:1]]), 0.03)
    y = np.linspace(-length / 2, length / 2, 12)[None]
    skin = np.stack(np.broadcast_arrays(loop[:, :1], y, loop[:, 1:]), axis=-1)
    surfaces = [Surface(skin, wrap_rows=True)]
    for end, pair in ((-length / 2, (section, other)), (length / 2, (other, section))):
        strip = np.stack(pair, axis=0)
        surfaces.append(Surface(np.stack([strip[..., 0], np.full(strip.shape[:2], end), strip[..., 1]], axis=-1)))
    return surfaces


def leaf(path: np.ndarray, width: float, fold: float = 0.35, columns: int = 6) -> Surface:
    """A grass-like blade along ``path`` (n, 3), ``width`` units at its widest, folded along the middle."""
    s = np.linspace(0, 1, len(path))
    breadth = width * np.minimum(1.0, 0.45 + 3 * s) * np.clip(1 - s**2.6, 0, 1) ** 0.8 + 2 * AXIS_GAP
    ahead = np.gradient(path, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    out = path[-1] - path[0]
    across = np.cross([0.0, 0.0, 1.0], [out[0], out[1], 0.0])
    across /= np.linalg.norm(across)
    up = np.cross(ahead, across)
    t = np.linspace(-1, 1, columns + 1)
    offset = t[None, :, None] * across + fold * (np.abs(t)[None, :, None] - 0.5) * up[:, None]
    return Surface(path[:, None] + 0.5 * breadth[:, None, None] * offset)


# ---- writing


def normals(surface: Surface) -> np.ndarray:
    """Unit normals (rows, columns, 3) in local axes, from differences across each point, the seams joined."""

    def difference(axis: int, wrap: bool) -> np.ndarray:
        p = np.moveaxis(surface.points, axis, 0)
        before = np.concatenate([p[-2:-1] if wrap else p[:1], p[:-1]])
        after = np.concatenate([p[1:], p[1:2] if wrap else p[-1:]])
        return np.moveaxis(after - before, 0, axis)

    normal = np.cross(difference(1, surface.wrap_columns), difference(0, surface.wrap_rows))
    return normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-20)


def reverse(surface: Surface, gap: float = 5e-4) -> Surface:
    """The back of a thin sheet: as ``surface``, facing the other way, ``gap`` units behind it."""
    points = surface.points - gap * normals(surface)
    holes = None if surface.holes is None else surface.holes[:, ::-1]
    return replace(surface, points=points[:, ::-1], holes=holes)


def write_ply(path: Path, surfaces: list[Surface]) -> None:
    """Write ``surfaces`` as one binary PLY: positions in the scene, normals, texture coordinates (u, v) in [0, 1]."""
    vertices, faces, start = [], [], 0
    for surface in surfaces:
        rows, columns, _ = surface.points.shape
        pose = np.eye(4)[:3] if surface.pose is None else surface.pose
        position = surface.points @ pose[:, :3].T + pose[:, 3]
        v, u = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
        direction = normals(surface) @ pose[:, :3].T
        vertices.append(np.concatenate([position, direction, u[..., None], v[..., None]], axis=-1).reshape(-1, 8))
        kept = np.ones((rows - 1, columns - 1), dtype=bool) if surface.holes is None else ~surface.holes
        corner = start + (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)[None])[kept]
        right, below, across = corner + 1, corner + columns, corner + columns + 1
        faces += [np.stack([corner, right, across], axis=1), np.stack([corner, across, below], axis=1)]
        start += rows * columns
    vertex = np.concatenate(vertices).astype("<f4")
    face = np.concatenate(faces)
    record = np.empty(len(face), dtype=[("count", "u1"), ("index", "<i4", 3)])
    record["count"], record["index"] = 3, face
    names = "".join(f"property float {name}\n" for name in ("x", "y", "z", "nx", "ny", "nz", "u", "v"))
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertex)}\n{names}"
    header += f"element face {len(face)}\nproperty list uchar int vertex_indices\nend_header\n"
    path.write_bytes(header.encode() + vertex.tobytes() + record.tobytes())
