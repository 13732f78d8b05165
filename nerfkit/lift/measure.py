"""LiftBench's rows: each object, by each method."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nerfkit.cameras import Cameras
from nerfkit.config import Config
from nerfkit.evaluate import peak_memory_bytes
from nerfkit.kernels.meshes import Solid
from nerfkit.lattice import ExportError
from nerfkit.lift.bench import Object, Pose, near_surface, psnr, read_rgba, rows_of, scored
from nerfkit.lift.framing import Cut, Framing, Similarity, framed, window
from nerfkit.lift.guide import Term
from nerfkit.lift.lift import begin, lift, warm_model
from nerfkit.lift.looks import straight
from nerfkit.lift.photo import LiftError, Rgba, over_white
from nerfkit.lift.prior import Lifted, LiftNet
from nerfkit.lift.scene import cameras_at, pose_of, seen_from, turntable
from nerfkit.lift.settings import Sizes
from nerfkit.lift.trivial import TRIVIAL
from nerfkit.lift.understand import guessed, understood
from nerfkit.mesh import MeshOptions, extract_mesh
from nerfkit.provenance import commit, cpu_name, now, versions
from nerfkit.render import Model, render_image
from nerfkit.train.loop import model_of

Row = dict[str, Any]
_COLUMNS = (
    "psnr",
    "psnr_union",
    "iou",
    "ssim",
    "perceptual",
    "features",
    "f0.1",
    "chamfer",
    "mesh_loss",
    "photo_psnr",
    "photo_iou",
    "seconds",
)
Distance = Callable[[Rgba, Rgba], dict[str, float]]
Look = Callable[[Float[Tensor, "3 4"], float, int], Rgba]
"""What a camera sees through an angle, degrees, at a size in pixels."""
Place = Callable[[Float[Tensor, "3 4"]], Float[Tensor, "3 4"]]
"""Where a true camera is in the world of what was lifted."""
_POINTS = 10_000


@dataclass(frozen=True)
class Way:
    """How objects are lifted."""

    net: LiftNet
    weights: str
    """Digest of them: rows of others are not taken for theirs."""
    config: Config
    seed: int
    only_prior: bool
    unknown: bool
    """Whether the camera is not told."""
    framed: bool
    """Whether the object is cut out as `nerfkit lift` does, rather than told where in its frame it lies."""
    meshes: bool


@dataclass(frozen=True)
class Rows:
    """What was measured, in a file: a JSON line an object and method."""

    path: Path
    bench: str
    """Which objects: the folder's name."""
    rows: list[Row]

    @classmethod
    def open(cls, path: Path, folder: Path) -> Rows:
        """What stands there. Raises LiftError where that is no such file."""
        try:
            text = path.read_text() if path.exists() else ""
            return cls(path, folder.resolve().name, [json.loads(line) for line in text.splitlines() if line.strip()])
        except (OSError, ValueError) as error:
            raise LiftError(f"{path}: holds no rows that can be read ({error})") from None

    def missing(self, what: Row) -> bool:
        """Whether no row says all of this."""
        what = {"bench": self.bench, **what}
        return not any(what.items() <= row.items() for row in self.rows)

    def keep(self, rows: Iterator[Row], tell: Callable[[str], None]) -> None:
        """Write rows down as they come."""
        machine = {"cpu": cpu_name(), "versions": versions(), "commit": commit()}
        for row in rows:
            row = {"bench": self.bench, "time": now(), **row, **machine}
            self.rows.append(row)
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            tell(f"{row['method']}, {row['object']}: {row['psnr']:.2f} dB, outline {row['iou']:.3f}")

    def table(self) -> Iterator[str]:
        """Means over the objects of each method and its weights, a line each."""
        mine = [row for row in self.rows if row["bench"] == self.bench]
        columns = [name for name in _COLUMNS if any(name in row for row in mine)]
        yield f"{'':28} {'n':>4} " + " ".join(f"{name:>10}" for name in columns)
        for method, weights in dict.fromkeys((row["method"], row.get("weights")) for row in mine):
            those = [row for row in mine if (row["method"], row.get("weights")) == (method, weights)]
            each = ([row[name] for row in those if row.get(name) is not None] for name in columns)
            cells = (f"{np.mean(values):10.3f}" if values else f"{'':10}" for values in each)
            named = method if weights is None else f"{method}, {weights[:6]}"
            yield f"{named:28} {len(those):4} " + " ".join(cells)


def trivial_rows(objects: Sequence[Object], more: Distance | None, missing: Callable[[Row], bool]) -> Iterator[Row]:
    """Those that need no method."""
    for name, answer in TRIVIAL.items():
        for one in objects:
            row: Row = {"method": name, "object": one.name}
            if missing(row):
                try:
                    yield row | rows_of(one, answer, one.ring, more)
                except LiftError:
                    continue  # an object whose depth nobody knows


def answered_rows(
    objects: Sequence[Object], name: str, folder: Path, more: Distance | None, missing: Callable[[Row], bool]
) -> Iterator[Row]:
    """Those of another's pictures."""

    def answer(one: Object, view: int) -> Rgba:
        return read_rgba(folder / one.name / f"{view:03d}.png")

    for one in objects:
        row: Row = {"method": name, "object": one.name}
        if missing(row):
            yield row | rows_of(one, answer, one.ring, more)


def lifted_rows(
    objects: Sequence[Object], name: str, way: Way, more: Distance | None, missing: Callable[[Row], bool]
) -> Iterator[Row]:
    """Ours."""
    for one in objects:
        row: Row = {"method": name, "object": one.name, "seed": way.seed, "weights": way.weights}
        if missing(row):
            yield row | _lifted(one, way, more)


def learnt(
    photo: Framing, made: Lifted, sizes: Sizes, config: Config, terms: Sequence[Term] = (), warm: bool = True
) -> Model:
    """The field of a picture, whose run is not kept. ``warm``: its grid begins with what the prior made of it."""
    with tempfile.TemporaryDirectory() as aside:
        run, scene = begin(photo, made, [], sizes, config, Path(aside) / "run", ["nerfkit", "lift-bench"])
        model = warm_model(scene, config, made.volume) if warm else model_of(scene, config)
        for _ in lift(run, scene, model, terms):
            pass
    return model


def _lifted(one: Object, way: Way, more: Distance | None) -> Row:
    started = time.perf_counter()
    photo, place = photo_of(one, way)
    made = understood(way.net, photo)
    preview = time.perf_counter() - started
    if way.only_prior:
        found = _scores(one, photo, partial(seen_from, made.volume), place, more)
        return {**found, "preview_seconds": preview, **_guess(one, photo, way)}
    model = learnt(photo, made, Sizes(), replace(way.config, train=replace(way.config.train, seed=way.seed)))
    seconds = time.perf_counter() - started
    found = _scores(one, photo, partial(model_picture, model), place, more)
    found |= {
        "preview_seconds": preview,
        "seconds": seconds,
        "peak_memory_bytes": peak_memory_bytes(),
        **_guess(one, photo, way),
    }
    return found if way.framed else found | _of_mesh(one, model, way.meshes)


def photo_of(one: Object, way: Way) -> tuple[Framing, Place]:
    """What is lifted, and where true cameras are in the world in which it is."""
    rgba, true = one.picture(), one.input
    if way.framed:
        cut = Cut.of(c2w_of(true), math.radians(true.fov), window(rgba[..., 3] > 127), rgba.shape[0])
        photo = framed(rgba[..., :3], rgba[..., 3], math.degrees(cut.elevation), math.degrees(cut.fov))
        world = cut.world.cameras
    else:
        photo = Framing(rgba, true.elevation, true.fov, true.radius)
        world = Similarity(torch.eye(3), torch.zeros(3), 1.0).cameras
    told = _width(photo)
    if way.unknown:
        photo = guessed(way.net, photo, None, None)
    # Whoever takes the angle for a wider one takes the object to be nearer and of another size, which no picture tells.
    # That the world stands upright is what elevation means: who guesses it wrong has tilted the world.
    sized = Similarity(torch.eye(3), torch.zeros(3), _width(photo) / told)
    return photo, lambda c2w: sized.cameras(world(c2w))


def _width(photo: Framing) -> float:
    """Half of what the camera sees across at the middle of the object, in units of the object's radius."""
    return photo.radius * math.tan(math.radians(photo.fov) / 2)


def _guess(one: Object, photo: Framing, way: Way) -> Row:
    """How far off the camera is taken to be, degrees; of a picture that is cut out the true one is another."""
    if way.framed:
        return {}
    return {"elevation_error": abs(photo.elevation - one.input.elevation), "fov_error": abs(photo.fov - one.input.fov)}


def c2w_of(pose: Pose) -> Float[Tensor, "3 4"]:
    """Camera-to-world of a pose."""
    return torch.from_numpy(pose_of(pose.azimuth, pose.elevation, pose.radius))


def model_picture(model: Model, c2w: Float[Tensor, "3 4"], fov: float, size: int) -> Rgba:
    """What a field looks like to a camera that sees so many degrees, straight alpha."""
    focal = size / 2 / math.tan(math.radians(fov) / 2)
    return straight(render_image(model, Cameras.pinhole(c2w[None], focal, size, size), 0))


def _scores(one: Object, photo: Framing, look: Look, place: Place, more: Distance | None) -> Row:
    """Views of the ring and beyond, and the picture itself, from where it was taken to be taken."""

    def answer(one: Object, view: int) -> Rgba:
        return look(place(c2w_of(one.views[view])), one.views[view].fov, one.truth(view).shape[0])

    others = [view for view in range(len(one.views)) if view not in one.ring]
    found: Row = rows_of(one, answer, one.ring, more)
    if others:
        found |= {f"beyond_{key}": value for key, value in rows_of(one, answer, others).items()}
    mine = look(c2w_of(Pose(0.0, photo.elevation, photo.fov, photo.radius)), photo.fov, photo.rgba.shape[0])
    return found | {f"photo_{key}": value for key, value in scored(mine, photo.rgba).items()}


def _of_mesh(one: Object, model: Model, renders: bool) -> Row:
    """How near the surface lies to the true one; whether it is closed, and looks like the field."""
    surface = one.surface()
    if surface is None and not renders:
        return {}
    import trimesh

    cameras = turntable(12, 128, 20.0)
    try:
        mesh = extract_mesh(model, cameras, MeshOptions(resolution=128, watertight=True))
    except ExportError:  # fog that nothing stands out from: no mesh, which is an answer, too
        return {"watertight": False, **({} if surface is None else near_surface(np.empty((0, 3)), surface))}
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_colors=mesh.colors, process=False)
    found: Row = {"watertight": bool(solid.is_watertight), "faces": len(mesh.faces)}
    if surface is not None:
        points, _ = trimesh.sample.sample_surface(solid, _POINTS, seed=0)
        found |= near_surface(np.asarray(points), surface)
    if renders:
        found["mesh_loss"] = float(np.mean([_mesh_loss(one, solid, model, view) for view in one.ring[::5]]))
    return found


def _mesh_loss(one: Object, solid: Any, model: Model, view: int) -> float:
    """How much less like the truth a render of the mesh is than one of the field, dB."""
    pose, truth = one.views[view], over_white(one.truth(view))
    size = truth.shape[0]
    field = over_white(model_picture(model, c2w_of(pose), pose.fov, size))
    camera = cameras_at([(pose.azimuth, pose.elevation)], pose.fov, pose.radius, size)
    fine = camera.scaled(2)
    rays = fine.rays(torch.zeros(4 * size * size, dtype=torch.long), fine.pixel_grid(0).reshape(-1, 2))
    corners, faces = torch.from_numpy(np.asarray(solid.vertices)).float(), torch.from_numpy(np.asarray(solid.faces))
    face, weights, _ = Solid(corners, faces).first_hits(rays.rays_o, rays.rays_d)
    colors = torch.from_numpy(np.asarray(solid.visual.vertex_colors)[:, :3]).float() / 255
    seen = (colors[faces[face.long().clamp(min=0)]] * weights[..., None]).sum(1)
    picture = torch.where(face[:, None] >= 0, seen, 1.0).view(size, 2, size, 2, 3).mean((1, 3)).numpy()
    return psnr(field, truth) - psnr(picture, truth)
