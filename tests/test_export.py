"""Exports: surfaces of fields of which the shape is known, points on them, and cameras that can be read back."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nerfkit import cli
from nerfkit.aside import PlaceError
from nerfkit.cameras import DISTORTION, Cameras
from nerfkit.config import Config, DataConfig, SamplerConfig
from nerfkit.export import choose_kind, write_cameras, write_mesh, write_points
from nerfkit.lattice import FLOOR, ExportError, Lattice, evaluate_lattice, find_threshold, nodes_to_evaluate
from nerfkit.mesh import Mesh, MeshOptions, extract_mesh, fill_pockets, is_closed, keep_parts, march_cubes, surface_of
from nerfkit.points import Points, gather_points, thin
from nerfkit.poses import look_at, rotation_of
from nerfkit.render import Model
from nerfkit.sampling.occupancy import OccupancyGrid
from nerfkit.scene import Frame, Scene, load_scene
from nerfkit.types import Field

CPU = torch.device("cpu")
BOX = (-1.7, -2.2, -1.9, 2.3, 1.8, 2.1)
FRAME = Frame((0.3, -0.2, 0.1), 0.25, BOX, 0.05, 40.0)
"""A cube of 4 scene units that is not at the origin."""
MIDDLE, RADIUS = torch.tensor([0.55, 0.5, 0.45]), 0.3
RESOLUTION = 64
CELL = 1 / RESOLUTION
SHARPNESS = 800.0

Shape = Callable[[Tensor], Tensor]


def ball(positions: Tensor) -> Tensor:
    """Signed distance to a ball, negative inside; model coordinates, as all of these."""
    return (positions - MIDDLE).norm(dim=-1) - RADIUS


def torus(positions: Tensor) -> Tensor:
    x, y, z = (positions - MIDDLE).unbind(-1)
    return torch.hypot(torch.hypot(x, y) - 0.25, z) - 0.1


def shell(positions: Tensor) -> Tensor:
    """A ball with a large bubble in it."""
    return ball(positions).abs() - 0.06


def two_balls(positions: Tensor) -> Tensor:
    small = (positions - torch.tensor([0.12, 0.12, 0.88])).norm(dim=-1) - 0.07
    return torch.minimum(ball(positions), small)


class Solid:
    """A field whose density falls exponentially with the distance to a shape.

    A ray that comes in along a normal has the optical depth 1 at the shape's own surface. Colours show the direction
    from which it is looked at.
    """

    def __init__(self, shape: Shape, thickness: float = 1.0):
        self.shape, self.thickness, self.asked = shape, thickness, 0

    def density(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        self.asked += len(positions)
        return self.thickness * SHARPNESS * (-SHARPNESS * self.shape(positions)).clamp(max=6).exp(), positions

    def color(self, features: Tensor, rays_d: Tensor, ray_indices: Tensor) -> Tensor:
        return (rays_d[ray_indices.long()] + 1) / 2


class Fog(Solid):
    """Half as dense on a shape's surface as deep in it, where a ray has seen nine tenths of all within 0.3."""

    def __init__(self, shape: Shape, density: float = 8.0):
        super().__init__(shape, density)

    def density(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        return self.thickness * torch.sigmoid(-self.shape(positions) / 0.03), positions


def model_of(field: Field, frame: Frame = FRAME, grid: OccupancyGrid | None = None) -> Model:
    """A model of a field that is no hash field: what it is made of is not checked."""
    grid = grid or OccupancyGrid(SamplerConfig(resolution=32, n_steps=256), frame.n_levels, CPU)
    made = object.__new__(Model)
    for name, value in (("field", field), ("sampler", grid), ("frame", frame), ("config", Config()), ("device", CPU)):
        object.__setattr__(made, name, value)
    return made


@pytest.fixture(scope="module")
def cameras() -> Cameras:
    """Eight of them on two rings about the cube's middle."""
    turn = torch.arange(8) / 8 * math.tau
    height = torch.where(torch.arange(8) % 2 == 0, 0.7, -0.4)
    around = torch.stack(
        [torch.cos(turn) * torch.cos(height), torch.sin(turn) * torch.cos(height), torch.sin(height)], 1
    )
    center = torch.tensor(FRAME.center)
    c2w = look_at(center + 7 * around, center.expand(8, 3), torch.tensor([0.0, 0.0, 1.0]))
    return Cameras.pinhole(c2w, 110.0, 96, 96)


def distance_to(shape: Shape, vertices: np.ndarray) -> Tensor:
    """Of points in scene coordinates to a shape's surface, model units."""
    return shape(FRAME.to_model(torch.from_numpy(vertices).float())).abs()


def options(**changes: object) -> MeshOptions:
    return MeshOptions(**{"resolution": RESOLUTION, **changes})


@pytest.fixture(scope="module")
def ball_mesh(cameras: Cameras) -> Mesh:
    pytest.importorskip("skimage")
    pytest.importorskip("trimesh")
    return extract_mesh(model_of(Solid(ball)), cameras, options())


class TestMesh:
    def test_its_vertices_lie_on_the_ball_in_the_scene(self, ball_mesh: Mesh) -> None:
        assert len(ball_mesh.vertices) > 3000
        assert float(distance_to(ball, ball_mesh.vertices).max()) < CELL / 2
        middle = FRAME.to_scene(MIDDLE).numpy()
        assert np.allclose(ball_mesh.vertices.mean(0), middle, atol=0.02)
        assert np.allclose(np.ptp(ball_mesh.vertices, axis=0), 2 * RADIUS / FRAME.scale, atol=CELL / FRAME.scale)

    def test_its_normals_point_outward_and_its_triangles_too(self, ball_mesh: Mesh) -> None:
        outward = ball_mesh.vertices - FRAME.to_scene(MIDDLE).numpy()
        outward /= np.linalg.norm(outward, axis=1, keepdims=True)
        assert (ball_mesh.normals * outward).sum(1).min() > 0.99
        a, b, c = (ball_mesh.vertices[ball_mesh.faces[:, corner]] for corner in range(3))
        assert ((np.cross(b - a, c - a) * outward[ball_mesh.faces[:, 0]]).sum(1) > 0).all()

    def test_its_colours_are_those_seen_against_the_normals(self, ball_mesh: Mesh) -> None:
        expected = (1 - ball_mesh.normals) / 2 * 255
        assert np.abs(ball_mesh.colors - expected).max() <= 1

    def test_its_threshold_is_where_the_field_agrees(self, ball_mesh: Mesh, cameras: Cameras) -> None:
        found, model = ball_mesh.agreement, model_of(Solid(ball))
        assert found.iou > 0.98 and found.depth_error < 0.3 * CELL / FRAME.scale
        lattice = evaluate_lattice(model, RESOLUTION)
        for factor in (0.01, 30):
            assert find_threshold(lattice, model, cameras, factor * found.threshold).score < found.score - 0.05

    def test_thicker_fog_has_a_surface_of_higher_density(self, ball_mesh: Mesh, cameras: Cameras) -> None:
        # Where the density is, tells where the surface is; its unit does not.
        mesh = extract_mesh(model_of(Solid(lambda x: 2 * ball(x), 2.0)), cameras, options())
        assert mesh.agreement.threshold > 1.3 * ball_mesh.agreement.threshold
        assert float(distance_to(ball, mesh.vertices).max()) < CELL / 2

    def test_a_torus_keeps_its_hole(self, cameras: Cameras) -> None:
        trimesh = pytest.importorskip("trimesh")
        pytest.importorskip("skimage")
        mesh = extract_mesh(model_of(Solid(torus)), cameras, options(watertight=True))
        assert float(distance_to(torus, mesh.vertices).max()) < CELL / 2
        assert trimesh.Trimesh(mesh.vertices, mesh.faces).euler_number == 0

    def test_only_what_the_grid_marks_is_evaluated(self, ball_mesh: Mesh, cameras: Cameras) -> None:
        steps = (torch.arange(32) + 0.5) / 32
        cells = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), -1)
        allowed = (ball(cells).abs() < 0.05)[None]  # as in a training, the inside counts as empty
        grid = OccupancyGrid(SamplerConfig(resolution=32, n_steps=256), 1, CPU, allowed)
        field, whole = Solid(ball), Solid(ball)
        lattice = evaluate_lattice(model_of(field, grid=grid), RESOLUTION)
        evaluate_lattice(model_of(whole), RESOLUTION)
        assert field.asked < 0.4 * whole.asked == 0.4 * (RESOLUTION + 1) ** 3
        assert bool((lattice.values == FLOOR).any())
        mesh = extract_mesh(model_of(field, grid=grid), cameras, options())
        assert np.abs(len(mesh.vertices) - len(ball_mesh.vertices)) < 0.01 * len(mesh.vertices)
        assert float(distance_to(ball, mesh.vertices).max()) < CELL / 2

    def test_what_is_enclosed_has_no_surface(self, cameras: Cameras) -> None:
        pytest.importorskip("skimage")
        pytest.importorskip("trimesh")
        mesh = extract_mesh(model_of(Solid(shell)), cameras, options(parts=0.0))
        away = (FRAME.to_model(torch.from_numpy(mesh.vertices)) - MIDDLE).norm(dim=1)
        assert float(away.min()) > RADIUS

    @pytest.mark.parametrize(("share", "n_parts"), [(0.5, 1), (0.0, 2)])
    def test_small_parts_are_dropped(self, cameras: Cameras, share: float, n_parts: int) -> None:
        trimesh = pytest.importorskip("trimesh")
        pytest.importorskip("skimage")
        mesh = extract_mesh(model_of(Solid(two_balls)), cameras, options(parts=share))
        assert trimesh.Trimesh(mesh.vertices, mesh.faces).body_count == n_parts
        assert float(distance_to(two_balls, mesh.vertices).max()) < CELL / 2
        assert bool((distance_to(ball, mesh.vertices) > 0.1).any()) == (n_parts == 2)

    def test_it_is_closed_where_the_box_cuts_it_if_asked(self, cameras: Cameras) -> None:
        trimesh = pytest.importorskip("trimesh")
        pytest.importorskip("skimage")
        frame = Frame(FRAME.center, FRAME.scale, (*BOX[:3], FRAME.center[0], *BOX[4:]), 0.05, 40.0)
        model, found = model_of(Solid(ball), frame), {}
        for watertight in (False, True):
            mesh = extract_mesh(model, cameras, options(watertight=watertight))
            found[watertight] = trimesh.Trimesh(mesh.vertices, mesh.faces)
            assert mesh.vertices[:, 0].max() < FRAME.center[0] + CELL / FRAME.scale
        assert (found[False].is_watertight, found[True].is_watertight) == (False, True)
        radius = RADIUS + float(ball(FRAME.to_model(torch.from_numpy(np.array(found[False].vertices)))).mean())
        depth = radius - 0.05  # of the cap of the ball below x = 0.5
        cap = math.pi * depth**2 * (radius - depth / 3) / FRAME.scale**3
        assert found[True].volume == pytest.approx(cap, rel=0.03)

    def test_ragged_fog_is_closed_at_a_threshold_that_is_hardly_another(self) -> None:
        pytest.importorskip("skimage")
        ragged = torch.randn(48, 48, 48, generator=torch.Generator().manual_seed(26)) / 4
        lattice = Lattice((64 * ragged).round() / 64 + 0.0091, (0.0, 0.0, 0.0), CELL)
        assert not is_closed(march_cubes(lattice, 1.0, watertight=True)[1])
        for share in (0.0, 0.002):
            assert is_closed(surface_of(lattice, 1.0, options(watertight=True, parts=share))[1])

    def test_the_surface_of_fog_covers_what_is_opaque(self, cameras: Cameras) -> None:
        model = model_of(Fog(ball))
        found = find_threshold(evaluate_lattice(model, RESOLUTION), model, cameras)
        assert found.iou > 0.55  # where only depths within a fiftieth of the box count, it is 0.45

    def test_a_box_that_is_full_has_no_surface(self, cameras: Cameras) -> None:
        model = model_of(Fog(lambda positions: ball(positions) - 0.6, 20.0))
        lattice = evaluate_lattice(model, RESOLUTION)
        assert not lattice.has_surface(5.0) and lattice.has_surface(float(lattice.values.max().exp()) * 0.999)
        assert lattice.has_surface(find_threshold(lattice, model, cameras).threshold)
        fuller = model_of(Fog(lambda positions: ball(positions) - 0.9, 20.0))
        with pytest.raises(ExportError, match="no density that the field reaches agrees"):
            find_threshold(evaluate_lattice(fuller, RESOLUTION), fuller, cameras)

    def test_an_outer_box_is_taken_along_if_asked(self, cameras: Cameras) -> None:
        pytest.importorskip("skimage")
        pytest.importorskip("trimesh")
        frame = Frame(FRAME.center, FRAME.scale, BOX, 0.05, 40.0, n_levels=2)
        lattices = [evaluate_lattice(model_of(Solid(ball), frame), 32, levels) for levels in (1, 2)]
        assert [lattice.side for lattice in lattices] == pytest.approx([0.5, 1.0])

    @pytest.mark.parametrize("thickness", [0.0, 1e-4])
    def test_a_field_without_a_surface_is_told(self, cameras: Cameras, thickness: float) -> None:
        model = model_of(Solid(ball, thickness * 0.01))
        with pytest.raises(ExportError, match="no surface found: none of 32768 rays"):
            find_threshold(evaluate_lattice(model, 16), model, cameras)

    def test_an_empty_grid_is_told(self) -> None:
        nothing = torch.zeros(1, 32, 32, 32, dtype=torch.bool)
        grid = OccupancyGrid(SamplerConfig(resolution=32), 1, CPU, nothing)
        with pytest.raises(ExportError, match="the occupancy grid is empty"):
            evaluate_lattice(model_of(Solid(ball), grid=grid), 16)

    def test_a_threshold_that_is_never_reached_is_told(self, cameras: Cameras) -> None:
        pytest.importorskip("skimage")
        pytest.importorskip("trimesh")
        with pytest.raises(ExportError, match="no surface found"):
            extract_mesh(model_of(Solid(ball)), cameras, options(threshold=1e9))


def test_a_lattice_is_read_between_its_nodes() -> None:
    class Slope:
        def density(self, positions: Tensor) -> tuple[Tensor, Tensor]:
            return (positions @ torch.tensor([1.0, 2.0, 3.0])).exp(), positions

        def color(self, features: Tensor, rays_d: Tensor, ray_indices: Tensor) -> Tensor:
            return features

    lattice = evaluate_lattice(model_of(Slope()), 8)
    places = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(lattice.at(places), places @ torch.tensor([1.0, 2.0, 3.0]), atol=1e-4)
    assert lattice.at(torch.tensor([[1.2, 0.5, 0.5]])).tolist() == pytest.approx([FLOOR])


def test_nodes_beside_an_occupied_cell_are_evaluated() -> None:
    allowed = torch.zeros(1, 32, 32, 32, dtype=torch.bool)
    allowed[0, 3, 10, 20] = True
    grid = OccupancyGrid(SamplerConfig(resolution=32), 1, CPU, allowed)
    fine = nodes_to_evaluate(grid.cells(), [(torch.arange(64) + 0.5) / 64] * 3, 1 / 64)
    assert [(int(row.min()), int(row.max())) for row in fine.nonzero().T] == [(4, 9), (18, 23), (38, 43)]
    coarse = nodes_to_evaluate(grid.cells(), [(torch.arange(8) + 0.5) / 8] * 3, 1 / 8)
    assert bool(coarse[0, 2, 5])


def test_only_pockets_are_filled() -> None:
    pytest.importorskip("scipy")
    volume = np.ones((7, 7, 7), dtype=np.float32)
    volume[0] = volume[3, 3, 3] = -1
    expected = volume.copy()
    expected[3, 3, 3] = 5
    fill_pockets(volume, 5.0)
    assert np.array_equal(volume, expected)


def test_parts_are_measured_by_area() -> None:
    pytest.importorskip("scipy")
    flat = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], dtype=np.float64)
    vertices = np.concatenate([flat[:3] * 9, flat * 0.5 + 20])
    kept, faces = keep_parts(vertices, np.array([[0, 1, 2], [3, 4, 5], [4, 6, 5]]), 0.5)
    assert np.array_equal(kept, vertices[:3]) and faces.tolist() == [[0, 1, 2]]


def only_mesh(path: Path) -> object:
    """The mesh of a file with its normals, which trimesh drops when it is told to make one mesh of a file."""
    import trimesh

    found = trimesh.load(path, process=False)
    return found if isinstance(found, trimesh.Trimesh) else next(iter(found.geometry.values()))


@pytest.mark.parametrize("suffix", [".glb", ".ply", ".obj"])
def test_a_mesh_file_holds_the_mesh(ball_mesh: Mesh, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / f"ball{suffix}"
    write_mesh(ball_mesh, path)
    found = only_mesh(path)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert np.allclose(found.vertices, ball_mesh.vertices, atol=1e-5)
    assert np.array_equal(found.faces, ball_mesh.faces)
    assert np.allclose(found.vertex_normals, ball_mesh.normals, atol=1e-3)
    assert np.abs(found.visual.vertex_colors[:, :3].astype(int) - ball_mesh.colors).max() <= 1
    assert found.is_watertight


def test_a_file_that_fails_leaves_the_old_one(ball_mesh: Mesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trimesh = pytest.importorskip("trimesh")
    path = tmp_path / "ball.ply"
    path.write_text("old")

    def fail(self: object, name: str, **_: object) -> None:
        Path(name).write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(trimesh.Trimesh, "export", fail)
    with pytest.raises(KeyboardInterrupt):
        write_mesh(ball_mesh, path)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.fixture(scope="module")
def points(cameras: Cameras) -> Points:
    return gather_points(model_of(Solid(ball)), cameras, 1500)


class TestPoints:
    def test_they_lie_on_the_surface_with_normals_outward(self, points: Points) -> None:
        assert 1000 < len(points.positions) <= 1500
        assert float(distance_to(ball, points.positions).max()) < 1 / 32
        assert float(distance_to(ball, points.positions).median()) < 1 / 128
        outward = F.normalize(torch.from_numpy(points.positions) - FRAME.to_scene(MIDDLE), dim=1).numpy()
        assert (points.normals * outward).sum(1).min() > 0.98

    def test_their_colours_are_those_of_the_rays(self, points: Points, cameras: Cameras) -> None:
        d = torch.from_numpy(points.positions)[:, None] - cameras.c2w[:, :, 3]
        of_each = (F.normalize(d, dim=-1) + 1) / 2 * 255
        off = (of_each - torch.from_numpy(points.colors)[:, None]).abs().amax(-1).amin(1)
        assert float(off.max()) < 3

    def test_edges_leave_none_in_the_void(self, cameras: Cameras) -> None:
        found = gather_points(model_of(Solid(two_balls)), cameras, 4000)
        assert float(distance_to(two_balls, found.positions).max()) < 1 / 32

    def test_a_field_without_a_surface_is_told(self, cameras: Cameras) -> None:
        with pytest.raises(ExportError, match="no pixel of 8 training views is opaque"):
            gather_points(model_of(Solid(ball, 1e-6)), cameras, 100)

    def test_a_file_holds_them(self, points: Points, tmp_path: Path) -> None:
        trimesh = pytest.importorskip("trimesh")
        write_points(points, tmp_path / "a.ply")
        found = trimesh.load(tmp_path / "a.ply")
        assert np.allclose(found.vertices, points.positions, atol=1e-6)
        assert np.array_equal(found.visual.vertex_colors[:, :3], points.colors)
        head = (tmp_path / "a.ply").read_bytes().split(b"end_header\n")[0].decode()
        assert f"element vertex {len(points.positions)}" in head and "property float nz" in head


def test_thinning_spares_what_is_rare() -> None:
    generator = np.random.default_rng(1)
    dense, rare = generator.random((20000, 3)) * 0.1, generator.random((200, 3)) + 5
    kept = thin(np.concatenate([dense, rare]).astype(np.float32), 400)
    assert 380 <= len(kept) <= 400 and len(np.unique(kept)) == len(kept)
    assert (kept >= 20000).mean() > 0.4  # of all points, one in a hundred
    assert np.array_equal(thin(dense, 30000), np.arange(20000))


# ---- cameras


def same_views(found: Scene, expected: Scene) -> None:
    """Every camera and split of one scene is in the other, in whatever order."""
    at = {(found.root / name).resolve(): row for row, name in enumerate(found.image_names)}
    order = [at[(expected.root / name).resolve()] for name in expected.image_names]
    cameras = found.cameras[order]
    assert cameras.lens == expected.cameras.lens
    for name in ("c2w", "fl_x", "fl_y", "cx", "cy", "width", "height", "distortion"):
        assert torch.allclose(getattr(cameras, name), getattr(expected.cameras, name), rtol=1e-6, atol=1e-6), name
    for split, rows in expected.splits.items():
        assert sorted(found.splits[split]) == sorted(order[row] for row in rows), split


@pytest.mark.parametrize("name", ["out.json", "folder"])
@pytest.mark.parametrize("kind", ["toy_scene", "toy_capture"])
def test_cameras_are_read_back(kind: str, name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(kind)
    scene = load_scene(root, DataConfig())
    assert scene.splits["test"]
    files = write_cameras(scene, tmp_path / "else" / name)
    assert all(file.is_file() for file in files)
    assert {entry.name[0] for entry in (tmp_path / "else").iterdir()} == {name[0]}
    same_views(load_scene(tmp_path / "else" / name, DataConfig(hold_out_every=3)), scene)


LENSES = {
    "OPENCV": {"k1": 0.1, "k2": -0.02, "p1": 0.003, "p2": -0.001},
    "FULL_OPENCV": dict(zip(DISTORTION, (0.1, -0.02, 0.003, -0.001, 0.01, 0.02, 0.005, 0.001), strict=True)),
    "OPENCV_FISHEYE": {"k1": 0.05, "k2": -0.01, "k3": 0.002, "k4": -0.001},
}


@pytest.mark.parametrize("model", LENSES)
def test_bent_lenses_masks_and_the_box_go_along(toy_capture: Path, tmp_path: Path, model: str) -> None:
    import cv2

    file = toy_capture / "transforms.json"
    data = json.loads(file.read_text())
    mask = np.full((32, 32), 255, np.uint8)
    mask[:5] = 0
    cv2.imwrite(str(toy_capture / "mask.png"), mask)
    data["frames"][2]["mask_path"] = "mask.png"
    camera = {"camera_model": model, **LENSES[model], "cx": 15.5, "cy": 17.25}
    file.write_text(json.dumps({**data, **camera, "aabb_scale": 2}))
    scene = load_scene(toy_capture, DataConfig())
    write_cameras(scene, tmp_path / "cams")
    found = load_scene(tmp_path / "cams", DataConfig())
    same_views(found, scene)
    assert [bool(mask.all()) for mask in found.masks] == [bool(mask.all()) for mask in scene.masks]
    assert found.frame == scene.frame
    number, *words = (tmp_path / "cams" / "cameras.txt").read_text().splitlines()[1].split()
    assert (number, words[:3]) == ("1", [model, "32", "32"])
    values = [float(word) for word in words[3:]]
    expected = [float(scene.cameras.fl_x[0]), float(scene.cameras.fl_y[0]), 15.5, 17.25, *LENSES[model].values()]
    assert values == pytest.approx(expected, rel=1e-6)


def test_colmap_has_the_same_poses(toy_capture: Path, tmp_path: Path) -> None:
    scene = load_scene(toy_capture, DataConfig())
    write_cameras(scene, tmp_path / "cams")
    lines = (tmp_path / "cams" / "images.txt").read_text().split("\n")[1:]
    assert len(lines) == 2 * 12 + 1 and set(lines[1::2]) == {""}
    for view, line in enumerate(lines[:-1:2]):
        number, *pose, camera, name = line.split()
        assert (number, camera, name) == (str(view + 1), "1", scene.image_names[view])
        q, t = torch.tensor([float(word) for word in pose]).split([4, 3])
        turn = rotation_of(q[None])[0]
        assert torch.allclose(turn.T, scene.cameras.c2w[view, :, :3], atol=1e-6)
        assert torch.allclose(-turn.T @ t, scene.cameras.c2w[view, :, 3], atol=1e-5)
    points = (tmp_path / "cams" / "points3D.txt").read_text().splitlines()
    assert all(line.startswith("#") for line in points)


def test_the_scenes_own_files_are_left_alone(toy_capture: Path, tmp_path: Path) -> None:
    scene = load_scene(toy_capture, DataConfig())
    before = (toy_capture / "transforms.json").read_bytes()
    with pytest.raises(ExportError, match="is the file that the scene is read from"):
        write_cameras(scene, toy_capture / "transforms.json")
    with pytest.raises(PlaceError, match="holds images, which is no export of cameras"):
        write_cameras(scene, toy_capture)
    assert (toy_capture / "transforms.json").read_bytes() == before
    write_cameras(scene, tmp_path / "twice")
    assert len(write_cameras(scene, tmp_path / "twice")) == len(list((tmp_path / "twice").iterdir())) == 4


# ---- the command


@pytest.mark.parametrize(
    ("name", "kind", "found"),
    [
        ("a.glb", None, "mesh"),
        ("a.PLY", None, "mesh"),
        ("a.ply", "points", "points"),
        ("a.json", None, "cameras"),
        ("a", None, "cameras"),
    ],
)
def test_the_suffix_says_what_it_is(name: str, kind: str | None, found: str) -> None:
    assert choose_kind(Path(name), kind) == found


@pytest.mark.parametrize(
    ("name", "kind", "sentence"),
    [
        ("a.stl", None, "a.stl: nothing is written there; there are mesh as .glb, .ply, .obj"),
        ("a.glb", "points", "a.glb: points cannot be"),
    ],
)
def test_a_suffix_that_does_not_fit_is_told(name: str, kind: str | None, sentence: str) -> None:
    with pytest.raises(ExportError, match=sentence):
        choose_kind(Path(name), kind)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that knows the toy ball; to be read, not written."""
    from conftest import write_ball

    root = tmp_path_factory.mktemp("trained")
    words = "--steps 200 --seed 1 --no-eval --engine cpu --train.samples-per-step 16384 --field.n-levels 4 "
    words += "--field.log2-table-size 12 --sampler.resolution 32 --field.finest-resolution 64 --downscale 2"
    assert cli.main(["train", str(write_ball(root)), "--out", str(root / "run"), *words.split()]) == 0
    return root / "run"


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, list[str], str]:
    """Exit code, lines of standard output and the text on standard error of an export."""
    capsys.readouterr()
    code = cli.main(["export", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err


def test_a_run_becomes_files(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trimesh = pytest.importorskip("trimesh")
    pytest.importorskip("skimage")
    from conftest import CENTER, RADIUS

    code, out, err = call(
        capsys, trained, "--resolution", 48, "--watertight", "--parts", 1, "--out", tmp_path / "a.glb"
    )
    assert (code, out) == (0, [str(tmp_path / "a.glb")]), err
    assert "silhouettes agree" in err
    mesh = only_mesh(tmp_path / "a.glb")
    assert mesh.is_watertight
    assert np.allclose(mesh.bounds.mean(0), CENTER, atol=0.15)
    assert np.ptp(mesh.bounds, axis=0) == pytest.approx(2 * RADIUS, rel=0.2)
    code, out, err = call(capsys, trained, "--kind", "points", "--points", 300)
    assert (code, out) == (0, [str(trained / "exports" / "points.ply")]), err
    assert 200 < len(trimesh.load(out[0]).vertices) <= 300
    code, out, err = call(capsys, trained, "--out", tmp_path / "b.json")
    assert (code, out) == (0, [str(tmp_path / "b.json")]), err
    # Whole pictures, though half the size was trained on.
    same_views(load_scene(tmp_path / "b.json", DataConfig()), load_scene(trained.parent / "ball", DataConfig()))


def test_what_cannot_be_is_one_sentence(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(code: int, text: str, *words: object) -> None:
        found, out, err = call(capsys, *words)
        assert (found, out, len(err.splitlines())) == (code, [], 1), err
        assert text in err

    told(1, "there is no such run folder", tmp_path / "nowhere")
    told(1, "nothing is written there", trained, "--out", tmp_path / "x.stl")
    told(1, "points cannot be written there", trained, "--kind", "points", "--out", tmp_path / "x.obj")
    told(2, "--resolution 0: expected a positive number", trained, "--resolution", 0)
    told(2, "--parts 2.0: expected a share", trained, "--parts", 2)
    monkeypatch.setattr("nerfkit.tiles.load", lambda run: model_of(Solid(ball, 1e-6)))
    if "trimesh" in sys.modules:
        told(1, "no surface found", trained, "--out", tmp_path / "x.glb")
    told(1, "no surface found", trained, "--kind", "points", "--out", tmp_path / "x.ply")
    monkeypatch.setitem(sys.modules, "skimage", None)
    told(1, "pip install 'nerfkit[mesh]'", trained, "--out", tmp_path / "x.glb")
    assert list(tmp_path.iterdir()) == []
