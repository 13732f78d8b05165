"""What a diffusion prior pulls towards, with one whose best picture is known."""

from __future__ import annotations

import pytest
import torch

from nerfkit.lift.guidance import Alike, Turn, denoised, distilled, step_at

VIEW = Turn(90.0, 20.0, 0.0)


class Sure:
    """A prior that is sure of one picture: what is off from it is noise. Latents are the pictures."""

    def __init__(self, picture: torch.Tensor):
        self.picture, self.alphas = picture, torch.linspace(0.999, 0.001, 100)

    def encode(self, rgb: torch.Tensor) -> torch.Tensor:
        return rgb

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return latents

    def noise(self, latents: torch.Tensor, step: int, view: Turn) -> tuple[torch.Tensor, torch.Tensor]:
        a = self.alphas[step]
        found = (latents - a.sqrt() * self.picture) / (1 - a).sqrt()
        return found, found + 0.1


@pytest.fixture
def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(1, 3, 8, 8, generator=generator), torch.rand(1, 3, 8, 8, generator=generator)


def test_descent_ends_at_the_prior_s_picture(pictures):
    wanted, render = pictures
    chance, render = torch.Generator().manual_seed(0), render.clone().requires_grad_()
    for _ in range(200):
        (slope,) = torch.autograd.grad(distilled(Sure(wanted), render, VIEW, 50, chance, 1.0), render)
        render = (render - 0.5 * slope).detach().requires_grad_()
    assert float((render - wanted).detach().abs().max()) < 1e-3


def test_the_gradient_is_the_weighted_difference_of_noises(pictures):
    wanted, render = pictures
    prior, render = Sure(wanted), render.clone().requires_grad_()
    (slope,) = torch.autograd.grad(distilled(prior, render, VIEW, 30, torch.Generator().manual_seed(5), 1.0), render)
    noise = torch.randn(render.shape, generator=torch.Generator().manual_seed(5))
    a = prior.alphas[30]
    noised = a.sqrt() * render + (1 - a).sqrt() * noise
    assert torch.allclose(slope, (1 - a) * (prior.noise(noised, 30, VIEW)[0] - noise), atol=1e-5)


def test_scale_goes_from_plain_through_the_condition(pictures):
    wanted, render = pictures
    noise = torch.zeros_like(render)
    plain, with_it, beyond = (denoised(Sure(wanted), render, noise, 40, VIEW, s)[0] for s in (0.0, 1.0, 3.0))
    assert torch.allclose(beyond, plain + 3 * (with_it - plain), atol=1e-5)
    assert float((plain - with_it).mean()) == pytest.approx(0.1, abs=1e-5)


@pytest.mark.parametrize("step", [10, 50, 80])
def test_one_guided_step_is_more_like_the_reference(pictures, step):
    """NeuralLift-360's released code descends with the other sign."""
    wanted, render = pictures
    weights = torch.randn(12, 192, generator=torch.Generator().manual_seed(2))

    def features(rgb: torch.Tensor) -> torch.Tensor:
        return (rgb - 0.5).flatten(1) @ weights.T

    noise = torch.randn(render.shape, generator=torch.Generator().manual_seed(3))
    alike = Alike(features, features(render.flip(-1)), 0.2)
    _, without = denoised(Sure(wanted), render, noise, step, VIEW, 1.0)
    _, guided = denoised(Sure(wanted), render, noise, step, VIEW, 1.0, alike)
    assert float(alike.distance(guided)) < float(alike.distance(without))


def test_noise_falls_with_time():
    chance = torch.Generator().manual_seed(0)
    early, late = ([step_at(progress, 1000, chance) for _ in range(200)] for progress in (0.0, 0.5))
    assert min(early) >= 949
    assert 50 <= min(late) < 120
    assert 850 < max(late) < 1000
