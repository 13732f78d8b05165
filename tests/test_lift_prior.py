"""What the prior of `nerfkit lift` learns from, and that its training goes on where it stopped."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("trimesh", reason="trimesh is not installed")
sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from lift_prior import procedural  # noqa: E402
from lift_prior.frames import Picture, framed, unmoved  # noqa: E402
from lift_prior.furniture import N_TEST, N_VALIDATION, Entry, split  # noqa: E402
from lift_prior.lite0 import Lite0  # noqa: E402
from lift_prior.make_views import make  # noqa: E402
from lift_prior.mesh import Mesh  # noqa: E402
from lift_prior.train import Training, Views, chosen, example, loss_of, unlike_views  # noqa: E402
from lift_prior.views import Light, Stage  # noqa: E402

from nerfkit.lift.scene import pose_of  # noqa: E402
from nerfkit.lift.volume import Volume, orbiting, pixel_places, pixel_rays  # noqa: E402


def entry(name: str, library: str, family: str, depth: float = 50.0) -> Entry:
    return Entry(name, name, library, family, "", "", name, (50.0, 50.0, depth), np.eye(3))


def wall() -> Mesh:
    """A square of side 1 that looks along +z, its texture red above and blue below, white to the left below."""
    vertices = np.array([[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0]])
    faces, corners = np.array([[0, 1, 2], [0, 2, 3]]), np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    texture = np.array([[[255, 0, 0], [255, 0, 0]], [[255, 255, 255], [0, 0, 255]]], np.uint8)
    return Mesh(vertices, faces, corners[faces], np.zeros(2, int), [texture])


def test_no_family_is_tested_on_that_was_learnt_from():
    free = [entry(f"f{i}-{j}", "BlendSwap-CC-0", f"f{i}") for i in range(70) for j in range(1 + i % 3)]
    parts = split([*free, *[entry(f"s{i}", "Scopia", f"f{i}") for i in range(9)], entry("rug", "Scopia", "rug", 1.0)])
    families = {name: {one.family for one in those if one.library == "BlendSwap-CC-0"} for name, those in parts.items()}
    assert len(parts["test"]) == N_TEST
    assert len(parts["validation"]) == N_VALIDATION
    assert not families["test"] & families["train"]
    assert not families["test"] & families["validation"]
    assert "rug" not in {one.name for one in parts["train"]}
    assert split(free[::-1])["test"] != [] and {e.family for e in split(free[::-1])["test"]} == families["test"]


def test_a_wall_is_seen_as_it_is_painted():
    light = Light((0.0, 0.0, 1.0), ambient=1.0, sky=0.0)
    rgba, depth, normal = Stage(wall()).look(pose_of(0.0, 0.0, 2.0), 0.6, 33, light)
    half = 0.5 / (2.0 * np.tan(0.3))
    inside = np.abs((np.arange(33) + 0.5) / 33 * 2 - 1) < half - 0.05
    assert np.allclose(rgba[np.ix_(inside, inside)][..., 3], 1.0)
    assert rgba[0, 0, 3] == 0.0
    assert np.allclose(depth[16, 16], 2.0, atol=1e-5)
    assert np.allclose(normal[16, 16], [0, 0, 1])
    for place, color in (((12, 20), (1, 0, 0)), ((20, 20), (0, 0, 1)), ((20, 12), (1, 1, 1))):
        assert np.allclose(rgba[place][:3], color)
    behind, _, turned = Stage(wall()).look(pose_of(180.0, 0.0, 2.0), 0.6, 33, light)
    assert np.allclose(behind[20, 20][:3], (1, 1, 1))
    assert np.allclose(turned[16, 16], [0, 0, -1], atol=1e-6)


def test_light_falls_on_what_faces_it():
    shades = []
    for towards in ((0.0, 0.0, 1.0), (0.0, 0.0, -1.0)):
        shades.append(Stage(wall()).look(pose_of(0.0, 0.0, 2.0), 0.6, 9, Light(towards, 0.4, 0.0))[0][4, 4])
    assert shades[0][:3].max() > 2 * shades[1][:3].max() > 0


@pytest.mark.parametrize("seed", range(12))
def test_drawn_objects_are_solids_in_the_ball(seed):
    mesh = procedural.draw(seed)
    assert np.linalg.norm(mesh.vertices[np.unique(mesh.faces)], axis=1).max() == pytest.approx(1.0)
    assert len(mesh.faces) == len(mesh.uvs) == len(mesh.texture)
    assert mesh.texture.max() < len(mesh.textures)
    assert np.isfinite(mesh.vertices).all() and np.isfinite(mesh.uvs).all()
    again = procedural.draw(seed)
    assert np.array_equal(mesh.vertices, again.vertices)


def test_views_are_not_made_again_and_training_goes_on(tmp_path):
    folder = tmp_path / "set"
    make(folder, ["a", "b"], procedural.draw, 6, 128)
    before = (folder / "rgba.npy").stat().st_mtime_ns
    make(folder, ["a", "b"], lambda i: pytest.fail("made again"), 6, 128)
    assert (folder / "rgba.npy").stat().st_mtime_ns == before
    with pytest.raises(SystemExit, match="other objects"):
        make(folder, ["c", "b"], procedural.draw, 6, 128)

    views, device = Views.open(folder), torch.device("cpu")
    batch = [example(views, np.random.default_rng(i)) for i in range(2)]
    torch.manual_seed(0)
    training = Training(tmp_path / "out", device)
    (tmp_path / "out").mkdir()
    losses = []
    for _ in range(4):
        torch.manual_seed(1)  # the same grounds each time, so that the loss is one of the weights alone
        loss, _ = loss_of(training.net, batch, 16, device)
        losses.append(float(loss.detach()))
        training.learn(loss, 0.03)
    assert losses[-1] < losses[0]
    training.save()
    again = Training(tmp_path / "out", device)
    assert again.step == 4
    for one, other in zip(training.net.parameters(), again.net.parameters(), strict=True):
        assert torch.equal(one, other)
        for name in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.equal(training.optimizer.state[one][name], again.optimizer.state[other][name])
    training.ship({"score": "none"})
    from nerfkit.lift.understand import load_prior

    shipped = load_prior(tmp_path / "out" / "prior.safetensors")
    for name, value in shipped.state_dict().items():
        assert torch.equal(value, training.average[name].half().float())


def seen_wall(at: tuple[float, float, float], size: int = 192) -> Picture:
    """A wall of side 0.6 about a place, seen from 15 degrees above."""
    mesh, pose, fov = wall(), pose_of(0.0, 15.0, 3.0), math.radians(40)
    mesh = replace(mesh, vertices=0.6 * mesh.vertices + np.array(at))
    rgba, depth, normal = Stage(mesh).look(pose, fov, size, Light((0.0, 0.0, 1.0), 1.0, 0.0))
    c2w = torch.from_numpy(pose).float()
    return Picture(torch.from_numpy(rgba), torch.from_numpy(depth), torch.from_numpy(normal) @ c2w[:, :3], c2w, fov)


def corners_of(alpha: torch.Tensor) -> torch.Tensor:
    """Least and greatest row and column, shares of a side."""
    inside = torch.nonzero(alpha > 0.5).float() + 0.5
    return torch.stack([inside.min(0).values, inside.max(0).values]) / len(alpha)


@pytest.mark.parametrize("at", [(0.0, 0.0, 0.0), (0.35, -0.2, 0.15)])
def test_the_world_of_a_picture_that_is_cut_out_is_where_its_camera_sees_it(at):
    picture = seen_wall(at)
    cut, world = framed(picture)
    eye = cut.c2w[:, 3]
    assert torch.allclose(cut.c2w, orbiting(torch.tensor(0.0), cut.camera[0], cut.camera[2]), atol=1e-6)
    assert float(eye.norm()) == pytest.approx(1 / math.sin(cut.fov / 2), rel=1e-5)  # the unit ball fills the frame
    assert torch.allclose(world.points(picture.c2w[:, 3]), eye, atol=1e-4)
    assert torch.allclose(world.cameras(picture.c2w)[:, 3], eye, atol=1e-4)
    low, high = corners_of(cut.rgba[..., 3])
    assert torch.allclose(low + high, torch.ones(2), atol=0.03)
    # Points of the wall lie at the depth that the picture says, and where it shows them but for what turning bends.
    true = 0.6 * torch.from_numpy(wall().vertices).float() + torch.tensor(at)
    local = (world.points(true) - eye) @ cut.c2w[:, :3]
    places = local[:, :2] / local[:, 2:] / math.tan(cut.fov / 2) / 2 + 0.5
    assert torch.allclose(places.min(0).values, low.flip(0), atol=0.02 if at == (0.0, 0.0, 0.0) else 0.05)
    assert torch.allclose(places.max(0).values, high.flip(0), atol=0.02 if at == (0.0, 0.0, 0.0) else 0.05)
    there = cut.depth[cut.rgba[..., 3] > 0.99]
    assert float(there.min()) == pytest.approx(float(local[:, 2].min()), rel=0.02)
    assert float(there.max()) == pytest.approx(float(local[:, 2].max()), rel=0.02)
    front = world.directions(torch.tensor([0.0, 0.0, 1.0])) @ cut.c2w[:, :3]
    assert torch.allclose(cut.normals[96, 96], front, atol=1e-4)


def test_lengths_and_angles_stay_but_for_the_scale():
    _, world = framed(seen_wall((0.35, -0.2, 0.15)))
    a, b = torch.randn(2, 7, 3)
    assert torch.allclose((world.points(a) - world.points(b)).norm(dim=1), world.scale * (a - b).norm(dim=1), rtol=1e-5)
    assert torch.allclose(world.turn @ world.turn.T, torch.eye(3), atol=1e-6)
    assert torch.allclose(world.turn[1], torch.tensor([0.0, 1.0, 0.0]))  # what is upright stays so
    plain = unmoved()
    assert torch.equal(plain.points(a), a)


def test_what_looks_alike_is_less_unlike():
    """A network that has learnt nothing sees that, too; what it says has a gradient, and none of its weights."""
    torch.manual_seed(0)
    eye = Lite0().eval().requires_grad_(False)
    a = torch.rand(1, 3, 32, 32)
    assert eye.looks(a)[0].shape[-2:] == (32, 32)
    near, far = (a + 0.02 * torch.randn_like(a)).detach().requires_grad_(), torch.rand(1, 3, 32, 32)
    found = eye.unlike(a, near)
    assert float(eye.unlike(a, a)) == 0.0
    assert 0 < float(found.detach()) < float(eye.unlike(a, far))
    found.backward()
    assert float(near.grad.abs().sum()) > 0


def test_a_whole_view_is_looked_at_from_where_it_was_taken():
    torch.manual_seed(0)
    eye = Lite0().eval().requires_grad_(False)
    sigmas, rgbs = torch.zeros(1, 16, 16, 16), torch.rand(1, 3, 16, 16, 16)
    sigmas[:, 4:8, 6:12, 2:9] = 50.0
    volume = Volume(sigmas, rgbs)
    azimuth, elevation, fov, distance = torch.tensor([[0.7], [0.3], [0.7], [3.0]])
    c2w = orbiting(azimuth, elevation, distance)
    seen = volume.look(*pixel_rays(c2w, fov, pixel_places(32)[None]), 200)
    view = torch.cat([seen.rgb, seen.opacity[..., None]], -1).transpose(1, 2).unflatten(2, (32, 32))
    right = float(unlike_views(eye, volume, c2w, fov, view))
    wrong = float(unlike_views(eye, volume, orbiting(-azimuth, elevation, distance), fov, view))
    assert right < 0.5 * wrong


def test_views_are_learnt_from_evenly_around_a_picture_from_in_front():
    """Of 20 views, a third from in front, as make_views.py makes them."""
    chance = np.random.default_rng(0)
    firsts, others = [], []
    for _ in range(400):
        azimuth = np.concatenate([chance.normal(0, 0.5, 6), chance.uniform(-np.pi, np.pi, 14)])
        first, *rest = chosen(azimuth, chance)
        assert len({first, *rest}) == 5
        firsts.append(abs(azimuth[first]) < np.pi / 4)
        others.append((azimuth[rest] - azimuth[first]) % (2 * np.pi) // (np.pi / 2))
    assert 0.6 < np.mean(firsts) < 0.85
    share = np.bincount(np.concatenate(others).astype(int), minlength=4) / (400 * 4)
    assert share.min() > 0.23
    few = chosen(np.zeros(6), chance)
    assert len(set(few.tolist())) == 5


def test_what_rays_should_see_is_what_a_view_shows(tmp_path):
    """A wall from the front: rays of an example that meet it are told its colours and where it lies."""
    folder = tmp_path / "set"
    make(folder, ["wall"], lambda i: wall(), 6, 64)
    one = example(Views.open(folder), np.random.default_rng(1))
    places = one.rays_o + one.distance[:, None] * one.rays_d
    known = one.distance > 0
    assert int(known.sum()) > 50
    c2w = torch.from_numpy(pose_of(0.0, math.degrees(float(one.camera[0])), float(one.camera[2])))
    normal = torch.linalg.svd(places[known].double() - places[known].double().mean(0)).Vh[2]
    assert float((places[known] @ normal.float()).abs().max()) < 0.01
    facing = one.normals.reshape(3, -1)[:, one.depth.flatten() > 0].mean(1)
    world = c2w[:, :3].float() @ facing
    assert float((world / world.norm() @ normal.float()).abs()) > 0.98
