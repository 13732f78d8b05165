"""Volumes, against an integral by hand, and cameras about them."""

from __future__ import annotations

import math

import pytest
import torch

from nerfkit.cameras import Cameras
from nerfkit.lift.prior import cells, projected
from nerfkit.lift.volume import Volume, distance_for, orbiting, pixel_places, pixel_rays


@pytest.fixture
def volume() -> Volume:
    generator = torch.Generator().manual_seed(0)
    return Volume(4 * torch.rand(1, 16, 16, 16, generator=generator), torch.rand(1, 3, 16, 16, 16, generator=generator))


def test_values_at_the_middles_of_cells(volume):
    sigmas, rgbs = volume.at(cells(16, torch.device("cpu"))[None])
    assert torch.allclose(sigmas[0], volume.sigmas[0].flatten(), atol=1e-5)
    assert torch.allclose(rgbs[0].T, volume.rgbs[0].flatten(1), atol=1e-5)


def test_indices_are_z_y_x():
    sigmas = torch.zeros(1, 4, 4, 4)
    sigmas[0, 3, 0, 1] = 1.0
    found, _ = Volume(sigmas, torch.zeros(1, 3, 4, 4, 4)).at(torch.tensor([[[-0.25, -0.75, 0.75]]]))
    assert float(found) == pytest.approx(1.0)


def test_a_ray_sees_what_an_integral_by_hand_says(volume):
    o, d = torch.tensor([[[0.1, -0.2, 3.0]]]), torch.tensor([[[0.0, 0.0, -1.0]]])
    half = math.sqrt(1 - 0.05)
    n = 32
    length, trans, rgb, depth = 2 * half / n, 1.0, torch.zeros(3), 0.0
    for i in range(n):
        t = 3.0 - half + (i + 0.5) * length
        sigma, color = volume.at(o + t * d)
        alpha = 1 - math.exp(-float(sigma) * length)
        rgb, depth, trans = rgb + trans * alpha * color[0, 0], depth + trans * alpha * t, trans * (1 - alpha)
    seen = volume.look(o, d, n)
    assert torch.allclose(seen.rgb[0, 0], rgb, atol=1e-4)
    assert float(seen.opacity) == pytest.approx(1 - trans, abs=1e-4)
    assert float(seen.depth) == pytest.approx(depth, abs=1e-3)


def test_a_mirrored_volume_shows_the_mirrored_picture(volume):
    places = pixel_places(8)
    c2w = orbiting(torch.zeros(1), torch.tensor([0.3]), torch.tensor([3.0]))
    seen, mirrored = (
        one.look(*pixel_rays(c2w, torch.tensor([0.7]), places[None])).rgb.view(8, 8, 3)
        for one in (volume, volume.mirrored())
    )
    assert torch.allclose(mirrored, seen.flip(1), atol=1e-5)
    assert not torch.allclose(mirrored, seen, atol=1e-2)


def test_opinions_agree_on_the_mean_of_log_odds(volume):
    assert torch.allclose(volume.agreed(volume).sigmas, volume.sigmas, rtol=1e-3, atol=1e-4)
    other = Volume(volume.sigmas.flip(1), 1 - volume.rgbs)
    both = volume.agreed(other)
    opacity = [1 - torch.exp(-one.sigmas * 2 / 16) for one in (volume, other, both)]
    logit = [torch.logit(one.double()) for one in opacity]
    assert torch.allclose(logit[2], (logit[0] + logit[1]) / 2, atol=1e-2)
    assert torch.allclose(both.rgbs, torch.full_like(both.rgbs, 0.5))


def test_rays_that_miss_the_ball_see_nothing(volume):
    seen = volume.look(torch.tensor([[[0.0, 1.5, 3.0]]]), torch.tensor([[[0.0, 0.0, -1.0]]]))
    assert float(seen.opacity) == 0.0


def test_cameras_look_at_the_middle_upright():
    c2w = orbiting(torch.tensor([0.7, 3.0]), torch.tensor([0.3, -0.2]), torch.tensor([2.0, 3.0]))
    rotation = c2w[..., :3]
    assert torch.allclose(rotation @ rotation.transpose(1, 2), torch.eye(3).expand(2, 3, 3), atol=1e-6)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(2), atol=1e-6)
    assert torch.allclose(c2w[..., 3], -torch.tensor([[2.0], [3.0]]) * c2w[..., 2], atol=1e-6)
    assert bool((c2w[:, 1, 1] < 0).all())  # down in the picture is down
    assert torch.allclose(orbiting(*(torch.tensor(x) for x in (0.0, 0.0, 2.0)))[:, 3], torch.tensor([0.0, 0.0, 2.0]))


def test_rays_are_those_of_the_house():
    size, fov = 6, 0.7
    c2w = orbiting(torch.tensor(0.4), torch.tensor(0.2), torch.tensor(2.5))
    rays_o, rays_d = pixel_rays(c2w[None], torch.tensor([fov]), pixel_places(size)[None])
    cameras = Cameras.pinhole(c2w[None], size / 2 / math.tan(fov / 2), size, size)
    rays = cameras.rays(torch.zeros(size * size, dtype=torch.long), cameras.pixel_grid(0).reshape(-1, 2))
    assert torch.allclose(rays_d[0], rays.rays_d, atol=1e-6)
    assert torch.allclose(rays_o[0], rays.rays_o, atol=1e-6)


def test_what_is_projected_lies_on_its_ray():
    camera = torch.tensor([[0.3, 0.8, 2.7]])
    points = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    uv, z = projected(points, camera)
    c2w = orbiting(torch.zeros(1), camera[:, 0], camera[:, 2])
    rays_o, rays_d = pixel_rays(c2w, camera[:, 1], uv[:, :, 0] / 2 + 0.5)
    along = ((points - rays_o[0]) * rays_d[0]).sum(-1, keepdim=True)
    assert torch.allclose(rays_o[0] + along * rays_d[0], points, atol=1e-5)
    assert torch.allclose(z[0], ((points - rays_o[0]) @ c2w[0, :, 2]), atol=1e-5)


def test_the_ball_just_fills_the_picture():
    fov = 0.7
    edge = torch.tensor([[[0.0, 0.5]]])
    rays_o, rays_d = pixel_rays(
        orbiting(torch.zeros(1), torch.zeros(1), torch.tensor([distance_for(fov)])), torch.tensor([fov]), edge
    )
    nearest = rays_o - (rays_o * rays_d).sum(-1, keepdim=True) * rays_d
    assert float(nearest.norm()) == pytest.approx(1.0, abs=1e-5)
