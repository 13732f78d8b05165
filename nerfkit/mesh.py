"""Meshes: the surface at which a field's density passes a threshold, coloured as the field is seen from outside.

density on a lattice -> threshold -> closed pockets filled -> marching cubes -> large parts -> normals, colours.

What is enclosed on all sides no camera has seen, and the field is arbitrary there: it counts as solid, or each object
would carry the surfaces of its own inside with it. Needs the extra ``mesh``.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from nerfkit.cameras import Cameras
from nerfkit.kernels.launch import parallel
from nerfkit.lattice import (
    CLAMP,
    Agreement,
    ExportError,
    Lattice,
    TrackFn,
    evaluate_lattice,
    find_threshold,
    normals_of,
    untracked,
)
from nerfkit.render import Model
from nerfkit.types import Field

KEEP_OFF = 0.02
"""Log densities nearer to the threshold than this are moved that far from it, so that no vertex falls on a node and no
triangle shrinks to nothing: at most a hundredth of a cell."""
LEAD, STEPS = 1.0, 8
"""A vertex is looked at from this many cells outside, in so many steps of half a cell."""
NUDGES = (1.0, 1.01, 0.99, 1.02, 0.98)
"""Of the threshold, until a surface is closed: where fog is ragged, two cells may each put a lid on the face between
them, once in millions."""
_CHUNK, _BATCH = 4096, 1 << 17


@dataclass(frozen=True)
class MeshOptions:
    """How a mesh is made."""

    resolution: int = 256
    """Cells along the longest side of the box."""
    levels: int = 1
    """Nested boxes of the occupancy grid that it covers; 1 is what the cameras look at."""
    threshold: float | None = None
    """Density per model unit at the surface; None finds it."""
    parts: float = 0.002
    """Connected parts are kept from this share of the largest one's area."""
    watertight: bool = False
    """Close the surface where the box cuts it, and make sure that nothing is open."""


@dataclass(frozen=True)
class Mesh:
    """Triangles in scene coordinates; their corners go round counter-clockwise as seen from outside."""

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    normals: Float[np.ndarray, "v 3"]
    """Unit, outward."""
    colors: UInt8[np.ndarray, "v 3"]
    agreement: Agreement


def check_installed() -> None:
    """Raises ExportError where the extra ``mesh`` is not installed."""
    for name in ("skimage", "trimesh"):
        try:
            import_module(name)
        except ImportError as error:
            sentence = f"meshes need the package {name}, which cannot be imported ({error})"
            raise ExportError(f"{sentence}; install it with: pip install 'nerfkit[mesh]'") from None


def fill_pockets(volume: Float[np.ndarray, "x y z"], value: float) -> None:
    """Set negative regions that do not reach the volume's border to ``value``, in place (six-connected)."""
    from scipy.ndimage import label

    regions, n_regions = label(volume < 0)
    outside = np.zeros(n_regions + 1, dtype=bool)
    for axis in range(3):
        outside[np.unique(regions.take([0, -1], axis))] = True
    outside[0] = True  # label 0 is what is not negative
    if not outside.all():
        volume[~outside[regions]] = value


def march_cubes(
    lattice: Lattice, threshold: float, watertight: bool = False
) -> tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "f 3"]]:
    """Vertices (model coordinates) and triangles of the surface at a density, by Lewiner's marching cubes.

    ``watertight`` closes it at the lattice's border. Raises ExportError where there is no surface.
    """
    from skimage.measure import marching_cubes

    volume = lattice.about(threshold).values.cpu().numpy()
    near = np.abs(volume) < KEEP_OFF
    volume[near] = np.where(volume[near] < 0, -KEEP_OFF, KEEP_OFF)
    if watertight:
        volume = np.pad(volume, 1, constant_values=-CLAMP)
    fill_pockets(volume, CLAMP)
    if not volume.min() < 0 < volume.max():
        raise ExportError(f"no surface found: the density nowhere passes {threshold:g}; try another --threshold")
    nodes, faces, _, _ = marching_cubes(volume, 0.0, gradient_direction="ascent")
    # A lid would lie half a cell outside; in the very border its corners would fall onto one another.
    last = np.asarray(lattice.values.shape) - 1
    nodes = (nodes.astype(np.float64) - watertight).clip(-KEEP_OFF, last + KEEP_OFF)
    return np.asarray(lattice.low) + nodes * lattice.cell, faces.astype(np.int64)


def face_vectors(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> Float[np.ndarray, "f 3"]:
    """Normals of the triangles, as long as twice their areas."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    return np.cross(b - a, c - a)


def keep_parts(
    vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], share: float
) -> tuple[Float[np.ndarray, "w 3"], Int[np.ndarray, "g 3"]]:
    """Without the connected parts whose area is less than ``share`` (0 to 1) of the largest one's."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(vertices)
    ends = np.concatenate([faces[:, :2], faces[:, 1:]])
    links = coo_array((np.ones(len(ends), dtype=np.int8), (ends[:, 0], ends[:, 1])), shape=(n, n))
    _, part = connected_components(links, directed=False)
    areas = np.bincount(part[faces[:, 0]], np.linalg.norm(face_vectors(vertices, faces), axis=1))
    kept = (areas >= share * areas.max()) & (areas > 0)
    faces = faces[kept[part[faces[:, 0]]]]
    used = np.unique(faces)
    number = np.zeros(n, dtype=np.int64)
    number[used] = np.arange(len(used))
    return vertices[used], number[faces]


def surface_of(
    lattice: Lattice, threshold: float, options: MeshOptions
) -> tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "f 3"]]:
    """The large parts of the surface at a density, or at one that is hardly another where only that is watertight.

    Raises ExportError where there is none.
    """
    for nudge in NUDGES if options.watertight else NUDGES[:1]:
        vertices, faces = keep_parts(*march_cubes(lattice, nudge * threshold, options.watertight), options.parts)
        if is_closed(faces) or not options.watertight:
            return vertices, faces
    raise ExportError("the surface could not be made watertight; try another --resolution")


def _vertex_normals(field: Field, corners: Tensor, faces: np.ndarray, step: float) -> Float[Tensor, "v 3"]:
    """The density's, but the triangles' own where those point the other way: the field's finest detail is noise."""
    vertices = corners.double().cpu().numpy()
    own = np.zeros_like(vertices)
    each = face_vectors(vertices, faces)
    for axis in range(3):
        for corner in range(3):
            own[:, axis] += np.bincount(faces[:, corner], each[:, axis], len(vertices))
    own /= np.maximum(np.linalg.norm(own, axis=1, keepdims=True), 1e-30)
    flat = torch.from_numpy(own).to(corners)
    found = normals_of(field, corners, step)
    return torch.where((found * flat).sum(1, keepdim=True) > 0, found, flat)


def seen_along(
    field: Field, points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], cell: float
) -> Float[Tensor, "n 3"]:
    """RGB in [0, 1] of what a short ray meets that comes in against the normal.

    It starts `LEAD` cells outside and takes `STEPS` steps of half a cell; the last sample is opaque. The colour at the
    surface alone would be that of the first haze: light comes from where the weights are.
    """

    def part(begin: int) -> Tensor:
        with torch.no_grad():
            outward = normals[begin : begin + _CHUNK]
            n, step = len(outward), cell / 2
            ahead = LEAD * cell - step * (torch.arange(STEPS, device=outward.device) + 0.5)
            places = points[begin : begin + _CHUNK, None] + ahead[:, None] * outward[:, None]
            sigmas, features = field.density(places.view(-1, 3).clamp(0, 1))
            owner = torch.arange(n, dtype=torch.int32, device=outward.device).repeat_interleave(STEPS)
            rgbs = field.color(features, -outward, owner).float().view(n, STEPS, -1)
            alphas = 1 - torch.exp(-sigmas.float().view(n, STEPS) * step)
            alphas[:, -1] = 1
            before = torch.cumprod(torch.cat([torch.ones_like(alphas[:, :1]), 1 - alphas[:, :-1]], 1), 1)
            return ((before * alphas)[..., None] * rgbs[..., :3]).sum(1)

    parts = parallel(part, range(0, len(points), _CHUNK), points.device)
    return torch.cat(parts) if parts else points.new_zeros(0, 3)


def extract_mesh(model: Model, cameras: Cameras, options: MeshOptions, track_fn: TrackFn = untracked) -> Mesh:
    """The surface of a model.

    Args:
        model: field, occupancy grid and frame.
        cameras: those trained on, scene coordinates; they decide the threshold (`find_threshold`).
        options: how.
        track_fn: may show how far it is.

    Raises ExportError where there is no surface, or a package is missing.
    """
    check_installed()
    lattice = evaluate_lattice(model, options.resolution, options.levels, track_fn)
    agreement = find_threshold(lattice, model, cameras, options.threshold)
    vertices, faces = surface_of(lattice, agreement.threshold, options)
    corners = torch.from_numpy(vertices).float().to(model.device)
    normals, colors = np.empty_like(vertices, dtype=np.float32), np.empty(vertices.shape, dtype=np.uint8)
    all_normals = _vertex_normals(model.field, corners, faces, lattice.cell)
    for begin in track_fn(range(0, len(corners), _BATCH), "colour"):
        part = slice(begin, begin + _BATCH)
        outward = all_normals[part]
        rgb = seen_along(model.field, corners[part], outward, lattice.cell)
        normals[part] = outward.cpu().numpy()
        colors[part] = (rgb.clamp(0, 1) * 255).round().byte().cpu().numpy()
    placed = model.frame.to_scene(torch.from_numpy(vertices)).numpy()
    return Mesh(placed, faces, normals, colors, agreement)


def is_closed(faces: Int[np.ndarray, "f 3"]) -> bool:
    """Whether every edge belongs to two triangles, once in each direction."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    there = np.unique(edges[:, 0] << 32 | edges[:, 1])
    back = np.unique(edges[:, 1] << 32 | edges[:, 0])
    return len(there) == len(edges) and np.array_equal(there, back)
