"""What the prior of `nerfkit lift` learns from, and that its training goes on where it stopped."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("trimesh", reason="trimesh is not installed")
sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from lift_prior import procedural  # noqa: E402
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
    cameras = torch.tensor([[0.7, 0.3, 0.7, 3.0]])
    rays = pixel_rays(orbiting(*cameras.T[[0, 1, 3]]), cameras[:, 2], pixel_places(32)[None])
    seen = volume.look(*rays, 200)
    view = torch.cat([seen.rgb, seen.opacity[..., None]], -1).transpose(1, 2).unflatten(2, (32, 32))
    right = float(unlike_views(eye, volume, cameras, view))
    wrong = float(unlike_views(eye, volume, cameras * torch.tensor([-1.0, 1, 1, 1]), view))
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
