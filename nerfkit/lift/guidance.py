"""How a network that has seen many pictures pulls renders towards what it knows.

A diffusion prior is asked what it would make of a noised render; the way from the render to that is the gradient, and
nothing is differentiated through the prior (score distillation, Poole et al. 2023). With z the render as the prior has
it, z_t = sqrt(a_t) z + sqrt(1 - a_t) e its noised version, e_c and e_u what the prior takes for the noise with and
without its condition,

    e^  = e_u + s (e_c - e_u)
    z_0 = (z_t - sqrt(1 - a_t) e^) / sqrt(a_t)
    g   = (1 - a_t) (e^ - e)                                 (NeuralLift-360 has s = 101 in this form)

Feature-similarity guidance (NeuralLift-360's, with CLIP) adds to e^ what moves z_0 towards the reference: with l the
squared angle between the features of the decoded z_0 and of the reference, e^ + sqrt(1 - a_t) c dl/dz_0, as classifiers
guide (Dhariwal and Nichol 2021). Its released code adds the opposite sign to g; a test here holds that one step lowers
l.

The noise falls with time: t is drawn from [m, 0.95], and m falls from 0.95 to 0.05 over the first third.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from nerfkit.lift.losses import spherical

Features = Callable[[Float[Tensor, "b 3 h w"]], Float[Tensor, "b d"]]
"""Of pictures, RGB in [0, 1]; differentiable."""
_FIRST, _LAST, _FALLS = 0.95, 0.05, 1 / 3


@dataclass(frozen=True)
class Turn:
    """Whence a render was taken; degrees."""

    azimuth: float
    """To the right of the photo, as one looks at the object."""
    elevation: float
    """Above the horizon."""
    above: float
    """How much higher than the photo's."""


@runtime_checkable
class Diffusion(Protocol):
    """A prior over pictures, as latents that it knows how to denoise."""

    alphas: Float[Tensor, " n"]
    """a_t of its n steps, falling from almost 1 to almost 0."""

    def encode(self, rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h2 w2"]:
        """Latents of pictures in [0, 1]; differentiable."""
        ...

    def decode(self, latents: Float[Tensor, "b c h2 w2"]) -> Float[Tensor, "b 3 h w"]:
        """The inverse; differentiable."""
        ...

    def noise(
        self, latents: Float[Tensor, "b c h2 w2"], step: int, view: Turn
    ) -> tuple[Float[Tensor, "b c h2 w2"], Float[Tensor, "b c h2 w2"]]:
        """What it takes for noise: with its condition (the photo, words) and the view, and without."""
        ...


def step_at(progress: float, n_steps: int, chance: torch.Generator) -> int:
    """A noise level for a moment of the training, ``progress`` in [0, 1]."""
    low = max(_LAST, _FIRST - (_FIRST - _LAST) * progress / _FALLS)
    share = low + (_FIRST - low) * float(torch.rand((), generator=chance))
    return min(int(share * n_steps), n_steps - 1)


@dataclass(frozen=True)
class Alike:
    """Features that renders should share with the reference."""

    features: Features
    reference: Float[Tensor, "1 d"]
    weight: float

    def distance(self, rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, ""]:
        """Mean squared angle."""
        return spherical(self.features(rgb), self.reference).mean()


def denoised(
    prior: Diffusion, latents: Tensor, noise: Tensor, step: int, view: Turn, scale: float, alike: Alike | None = None
) -> tuple[Tensor, Tensor]:
    """e^, guided, and the z_0 that it means, for one draw of the noise."""
    a = prior.alphas[step].to(latents)
    noised = a.sqrt() * latents + (1 - a).sqrt() * noise
    with torch.no_grad():
        conditional, plain = prior.noise(noised, step, view)
        found = plain + scale * (conditional - plain)
        clean = (noised - (1 - a).sqrt() * found) / a.sqrt()
    if alike is not None and alike.weight:
        with torch.enable_grad():
            moved = clean.detach().requires_grad_()
            (slope,) = torch.autograd.grad(alike.distance(prior.decode(moved)), moved)
        found = found + (1 - a).sqrt() * alike.weight * slope
        clean = (noised - (1 - a).sqrt() * found) / a.sqrt()
    return found, clean


def distilled(
    prior: Diffusion,
    rgb: Float[Tensor, "b 3 h w"],
    view: Turn,
    step: int,
    chance: torch.Generator,
    scale: float,
    alike: Alike | None = None,
) -> Float[Tensor, ""]:
    """A number whose gradient by the render is g, taken through the encoder alone."""
    latents = prior.encode(rgb)
    noise = torch.randn(latents.shape, generator=chance).to(latents)
    found, _ = denoised(prior, latents.detach(), noise, step, view, scale, alike)
    pull = (1 - prior.alphas[step].to(latents)) * (found - noise)
    return (latents * pull.detach()).sum() / len(latents)
