"""A picture of a painted plane, taken by a camera a little beside the host's, is laid onto it."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from nerfkit.stego import registration
from nerfkit.stego.pinhole import Projective
from nerfkit.stego.registration import Host, likeness, lit, registered, relocated, residual

SIZE = 120, 90
NUMBERS = np.array([np.log(110.0), 0.0, 60.0, 45.0, 0.15, -0.1, 0.05, 0.1, -0.1, 4.0])
"""Of the host's camera, which looks at a wavy plane aslant."""


def paint(places: torch.Tensor) -> torch.Tensor:
    x, y = places[..., 0], places[..., 1]
    return 0.5 + 0.15 * (torch.sin(7 * x + 2 * y) + torch.sin(3 * x - 8 * y) + torch.sin(11 * x * y))


def seen_by(camera: Projective) -> tuple[torch.Tensor, torch.Tensor]:
    """Luminance, and places of the surface z = 0.3 sin 2x."""
    rays = camera.rays_of(SIZE)
    t = -rays.rays_o[:, 2] / rays.rays_d[:, 2]
    for _ in range(20):
        places = rays.rays_o + rays.rays_d * t[:, None]
        t = t + (0.3 * torch.sin(2 * places[:, 0]) - places[:, 2]) / rays.rays_d[:, 2]
    places = rays.rays_o + rays.rays_d * t[:, None]
    return paint(places).view(SIZE[::-1]), places.view(*SIZE[::-1], 3)


@pytest.fixture(scope="module")
def host() -> Host:
    luma, places = seen_by(Projective.of(NUMBERS))
    solid = torch.zeros(SIZE[::-1], dtype=torch.bool)
    solid[4:-4, 4:-4] = True
    return grey_host(luma, places, solid)


def grey_host(luma: torch.Tensor, places: torch.Tensor, solid: torch.Tensor) -> Host:
    rgb = grey(luma)
    return Host(rgb, luma, torch.ones_like(rgb, dtype=torch.bool), solid, places, torch.ones(SIZE[::-1]))


def grey(luma: torch.Tensor) -> torch.Tensor:
    return luma[..., None].expand(-1, -1, 3).contiguous()


def beside(seed: int) -> Projective:
    """A camera for which pixels lie about one aside."""
    return Projective.of(
        NUMBERS + np.random.default_rng(seed).normal(size=10) * np.array([0.01, 0, *[0.5] * 2, *[0.005] * 6])
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_camera_is_found_to_a_part_of_a_pixel(host: Host, seed: int) -> None:
    camera = beside(seed)
    picture = 0.7 * seen_by(camera)[0] + 0.1  # in other light
    places = host.points[host.solid].double().numpy()
    truth, before = camera.project(places)[0], Projective.of(NUMBERS).project(places)[0]
    found = registered(Projective.of(NUMBERS), picture, host)
    off = np.linalg.norm(found.project(places)[0] - truth, axis=1)
    assert np.median(np.linalg.norm(before - truth, axis=1)) > 0.4
    assert np.median(off) < 0.05
    assert likeness(picture, host, found) > 0.99


@pytest.mark.parametrize("seed", range(4))
def test_features_bring_back_a_camera_that_is_far_off(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By ten pixels and more, where steps from slopes of the picture find nothing."""
    monkeypatch.setattr(sys.modules[__name__], "SIZE", (240, 180))
    chance = np.random.default_rng(seed)
    numbers = NUMBERS + np.array([np.log(2.0), 0, 60, 45, *[0] * 6])
    eye = Projective.of(numbers)
    luma, places = rough(eye)
    seen = grey_host(luma, places, torch.ones(SIZE[::-1], dtype=torch.bool))
    truth = Projective.of(numbers + chance.normal(size=10) * np.array([0.01, 0, 1, 1, *[0.01] * 3, *[0.02] * 3]))
    picture = 0.8 * rough(truth)[0] + 0.1
    far = Projective.of(numbers + np.array([0.05, 0, 12.0, -9.0, *[0] * 6]))
    points = places[20:-20, 20:-20].reshape(-1, 3).double().numpy()
    off = [np.linalg.norm(one.project(points)[0] - truth.project(points)[0], axis=1).mean() for one in
           (far, registered(far, picture, seen), relocated(far, picture, seen, eye))]  # fmt: skip
    assert off[0] > 8 and off[1] > 2 and off[2] < 0.7
    assert relocated(far, torch.full_like(picture, 0.5), seen, eye) is None


def rough(camera: Projective) -> tuple[torch.Tensor, torch.Tensor]:
    """The same surface, painted with corners: squares of a size that have each a brightness of its own."""
    places = seen_by(camera)[1]
    square = (places[..., :2] / 0.12 + 200).long()
    return torch.rand(400, 400, generator=torch.Generator().manual_seed(3))[square[..., 0], square[..., 1]], places


@pytest.mark.parametrize("enough", [16_000, 1500])
def test_what_is_left_is_what_was_added(host: Host, enough: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A faint pattern shows in the residual, whatever the light and a blur did to the picture; nothing else does.

    So it is where a fit takes only some of the pixels.
    """
    monkeypatch.setattr(registration, "_ENOUGH", enough)
    camera = beside(5)
    seen, places = seen_by(camera)
    pattern = 0.01 * torch.sign(torch.sin(9 * places[..., 0]) * torch.sin(8 * places[..., 1]))
    expected = 0.01 * torch.sign(torch.sin(9 * host.points[..., 0]) * torch.sin(8 * host.points[..., 1]))
    there = []
    for added in (pattern, torch.zeros_like(pattern)):
        picture = 0.8 * (seen + added) + 0.05
        found = registered(Projective.of(NUMBERS), picture, host)
        left = residual(grey(picture), host, found).sum(2)[host.solid]
        there.append(float((left * expected[host.solid]).sum() / (left.norm() * expected[host.solid].norm())))
    assert there[0] > 0.7
    assert abs(there[1]) < 0.1


def test_a_channel_that_differs_for_itself_has_little_say(host: Host) -> None:
    """And what the others say of a pattern is not lost in its noise."""
    picture, places = grey(host.luma), host.points
    pattern = 0.005 * torch.sign(torch.sin(9 * places[..., 0]) * torch.sin(8 * places[..., 1]))
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    noise[..., :2] *= 0.01
    noise[..., 2] *= 0.1
    left = residual(picture + pattern[..., None] + noise, host, Projective.of(NUMBERS))[host.solid]
    red, _, blue = left.norm(dim=0)
    assert blue < 0.2 * red
    heard, wanted = left.sum(1), pattern[host.solid]
    assert float((heard * wanted).sum() / (heard.norm() * wanted.norm())) > 0.3


@pytest.mark.parametrize(("gain", "offset"), [(1.5, 0.0), (0.6, -0.15), (1.8, -0.4)])
def test_where_a_picture_ends_at_black_or_white_the_host_does_as_well(host: Host, gain: float, offset: float) -> None:
    camera, tint = Projective.of(NUMBERS), torch.tensor([1.0, 0.8, 0.5])
    colored = replace(host, rgb=host.rgb * tint)
    picture = (gain * colored.rgb + offset).clamp(0, 1)
    ends = lit(colored, picture, camera)
    assert torch.allclose(gain * ends.rgb + offset, picture, atol=0.01)
    assert (ends.live == ((picture > 0) & (picture < 1)))[host.solid].float().mean() > 0.99
    assert lit(colored, 0.5 * colored.rgb + 0.1, camera) is colored
