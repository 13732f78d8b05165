"""What takes part in the steps of a lifting beside the scene's pixels: losses on rays of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from nerfkit.cameras import Cameras
from nerfkit.kernels.march import sample_positions
from nerfkit.lift.framing import Framing
from nerfkit.lift.guidance import Alike, Diffusion, Turn, distilled, step_at
from nerfkit.lift.losses import orientation, pearson, ranking, scale_shift, smoothness, undecided
from nerfkit.lift.scene import cameras_at, whole
from nerfkit.render import Model, Staged, render_in_stages
from nerfkit.train.training import Training
from nerfkit.types import Rays

_HEIGHTS = (-10.0, 60.0)
"""Degrees between which views are drawn."""
_STEP = 2.0 / 256
"""Over which densities are compared for normals, in units of half the cube."""


@runtime_checkable
class Term(Protocol):
    """A loss."""

    def loss(self, model: Model, progress: float, chance: torch.Generator) -> Float[Tensor, ""]:
        """Differentiable in the model; ``progress`` in [0, 1]."""
        ...


class Guide:
    """A policy of the training (`nerfkit.train.training.Policy`): adds the gradients of its terms to those of
    pixels."""

    def __init__(self, terms: Sequence[Term], seed: int = 0):
        self.terms = terms
        self.chance = torch.Generator().manual_seed(seed)

    def before_step(self, training: Training) -> None:
        """Add the gradients."""
        model = training.model
        progress = training.clock.progress(model.config)
        for term in self.terms:
            term.loss(model, progress, self.chance).backward()

    def after_step(self, training: Training) -> None:
        """Nothing is left to do."""

    def state_dict(self) -> dict[str, Tensor]:
        """Where its random numbers stand."""
        return {"chance": self.chance.get_state()}

    def load_state_dict(self, state: dict[str, Tensor], training: Training) -> None:
        """The inverse of `state_dict`."""
        self.chance.set_state(state["chance"])


def _look(model: Model, rays: Rays, chance: torch.Generator, background: float = 1.0) -> Staged:
    """What rays in scene coordinates see, with gradients and all samples."""
    inside = model.frame.model_rays(rays).to(model.device)
    behind = torch.full((len(rays), 3), background, device=model.device)
    jitter = torch.rand(len(rays), generator=chance).to(model.device)
    return render_in_stages(model.field, model.sampler, inside, behind, jitter)


@dataclass(frozen=True)
class Depth:
    """The order, or the shape, of depths that were told of the photo's pixels."""

    camera: Cameras
    pixels: Float[Tensor, "n 2"]
    """(x, y) where the object is."""
    told: Float[Tensor, " n"]
    """z of each, up to scale and shift."""
    weight: float
    kind: str = "ranking"
    """Or one of `KINDS`."""
    n_rays: int = 512

    @classmethod
    def of(cls, photo: Framing, told: Float[Tensor, "h w"], weight: float, kind: str = "ranking") -> Depth:
        """Of a picture, and of a map of depths of the whole of it."""
        side = photo.rgba.shape[0]
        front = cameras_at([(0.0, photo.elevation)], photo.fov, photo.radius, side)
        fine = interpolate(told[None, None].float(), size=(side, side), mode="bilinear")[0, 0]
        rows, columns = torch.nonzero(torch.from_numpy(photo.rgba[..., 3]) > 127, as_tuple=True)
        pixels = torch.stack([columns, rows], 1) + 0.5
        return cls(front, pixels, fine[rows, columns], weight, kind)

    def loss(self, model: Model, progress: float, chance: torch.Generator) -> Float[Tensor, ""]:
        """Of some pixels."""
        which = torch.randint(len(self.pixels), (self.n_rays,), generator=chance)
        rays = self.camera.rays(torch.zeros(self.n_rays, dtype=torch.long), self.pixels[which])
        staged = _look(model, rays, chance)
        cos = rays.cos.to(model.device)
        depth = staged.t_sum / staged.opacity.clamp(min=1e-2) * cos / model.frame.scale
        told = self.told[which].to(model.device)
        if self.kind == "ranking":
            pairs = torch.randint(self.n_rays, (4 * self.n_rays, 2), generator=chance).to(model.device)
            return self.weight * ranking(depth, told, pairs)
        return self.weight * KINDS[self.kind](depth, told)


@dataclass(frozen=True)
class Regular:
    """What any object's views are like: opacity decided, surfaces that face the camera, depths smooth but at edges."""

    opacity: float = 0.0
    orientation: float = 0.0
    smoothness: float = 0.0
    size: int = 24
    """Pixels a side of the views that it takes."""

    def loss(self, model: Model, progress: float, chance: torch.Generator) -> Float[Tensor, ""]:
        """Of a view from anywhere."""
        cameras, _ = anywhere(self.size, chance)
        rays = cameras.rays(torch.zeros(self.size**2, dtype=torch.long), cameras.pixel_grid(0).reshape(-1, 2))
        staged = _look(model, rays, chance)
        total = torch.zeros((), device=model.device)
        if self.opacity:
            total = total + self.opacity * undecided(staged.opacity)
        if self.smoothness:
            depth = (staged.t_sum / model.frame.scale).view(self.size, self.size)
            total = total + self.smoothness * smoothness(depth, staged.rgb[:, :3].view(self.size, self.size, 3))
        if self.orientation:
            owned = staged.reached.n_owned
            inside = model.frame.model_rays(rays).to(model.device)
            places = sample_positions(inside, staged.reached)[:owned]
            towards = inside.rays_d[staged.reached.ray_indices.long()[:owned]]
            normals = _normals(model, places)
            total = total + self.orientation * orientation(staged.weights[:owned], normals, towards, len(rays))
        return total


def _normals(model: Model, places: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """Which way density falls, by central differences (NeuralLift-360's), unit."""
    step = _STEP * model.frame.scale
    steps = step * torch.eye(3, device=places.device)
    around = torch.cat([places[:, None] + steps, places[:, None] - steps], 1).clamp(0, 1)
    sigmas = model.field.density(around.flatten(0, 1))[0].view(len(places), 2, 3)
    fall = (sigmas[:, 1] - sigmas[:, 0]) / (2 * step)
    return fall / fall.norm(dim=-1, keepdim=True).clamp(min=1e-6)


def anywhere(size: int, chance: torch.Generator) -> tuple[Cameras, tuple[float, float]]:
    """A camera that looks at the object, and its azimuth and elevation, degrees."""
    turn, height = torch.rand(2, generator=chance).tolist()
    angles = 360 * turn, _HEIGHTS[0] + (_HEIGHTS[1] - _HEIGHTS[0]) * height
    return whole([angles], size), angles


@dataclass(frozen=True)
class Guided:
    """A diffusion prior's pull on a view from anywhere."""

    prior: Diffusion
    photo: Framing
    weight: float
    scale: float = 7.5
    """How much more than it would by itself it heeds its condition."""
    alike: Alike | None = None
    size: int = 64
    every: int = 4
    """Steps of which one is guided, on average."""

    def loss(self, model: Model, progress: float, chance: torch.Generator) -> Float[Tensor, ""]:
        """Of one view, or nothing."""
        if float(torch.rand((), generator=chance)) * self.every >= 1.0:
            return torch.zeros((), requires_grad=True)
        cameras, (azimuth, elevation) = anywhere(self.size, chance)
        rays = cameras.rays(torch.zeros(self.size**2, dtype=torch.long), cameras.pixel_grid(0).reshape(-1, 2))
        rgb = _look(model, rays, chance).rgb[:, :3].view(1, self.size, self.size, 3).permute(0, 3, 1, 2)
        step = step_at(progress, len(self.prior.alphas), chance)
        view = Turn(azimuth, elevation, elevation - self.photo.elevation)
        pull = distilled(self.prior, rgb, view, step, chance, self.scale, self.alike)
        return self.weight * self.every * pull


KINDS = {"pearson": pearson, "scale-shift": scale_shift}
