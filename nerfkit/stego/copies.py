"""A copy of a scene that is to hide a picture: what of it moves, and from where it is looked at meanwhile.

Density stays as it is, exactly: only the colour network moves, away from its trained weights theta_0:

    theta = theta_0 + m * delta,    m ~ |theta_0|^-alpha,  of mean one

so that large weights, on which much depends, move least (the gradient mask of StegaNeRF, Li et al. 2023; with Adam,
which evens out any factor of the gradient, it is one of the step).
"""

from __future__ import annotations

from statistics import fmean

import torch
from jaxtyping import Float
from torch import Tensor

from nerfkit.cameras import Cameras
from nerfkit.render import Model, background_color, render_rays
from nerfkit.stego.carriers import ROOM, in_parts
from nerfkit.stego.decoder import SIDE
from nerfkit.types import Rays

ALPHA = 0.5
"""How much less large weights move; 0: all alike."""
_LEAST = 1e-3
"""Of the weights' mean size: smaller ones count as large as this."""


class Copy:
    """A model whose colour network is moved, in place.

    Args:
        views: square pictures of `SIDE` pixels, from which it is looked at.
        background: of these, see `render.render_image`.
        word: its signs, 1 or -1; ``unmarked`` are those of renders of the scene as it was.
        target: PSNR of marked against unmarked renders that is wanted, dB.
    """

    def __init__(
        self,
        model: Model,
        views: Cameras,
        background: str,
        word: Float[Tensor, " 32"],
        unmarked: Float[Tensor, " 32"],
        target: float,
        alpha: float = ALPHA,
    ):
        self.model, self.views, self.background, self.target = model, views, background, target
        self.word, self.unmarked = word, unmarked
        self.weights = list(model.field.color_network.weights)
        self.original = [w.detach().clone() for w in self.weights]
        floor = _LEAST * fmean(float(w.abs().mean()) for w in self.original)
        sizes = [w.abs().clamp_min(floor) ** -alpha for w in self.original]
        mean = sum(float(size.sum()) for size in sizes) / sum(size.numel() for size in sizes)
        self.mask = [size / mean for size in sizes]
        each = [self._look(view) for view in range(len(views))]
        self.plain: list[Float[Tensor, "3 s s"]] = [picture for picture, _ in each]
        """The views before anything was hidden."""
        self._counts = [counts for _, counts in each]  # density stays, and with it these

    def put(self, moves: list[Tensor]) -> None:
        """Move the weights so far from the original ones, before the mask."""
        with torch.no_grad():
            for w, original, mask, move in zip(self.weights, self.original, self.mask, moves, strict=True):
                w.copy_(original + mask * move)

    def seen(self, view: int) -> Float[Tensor, "3 s s"]:
        """A render, without gradient."""
        return self._look(view)[0]

    def gradients(self, view: int, upstream: Float[Tensor, "3 s s"]) -> list[Tensor]:
        """The moves' gradients of <upstream, render>."""
        rays, behind, half = self._rays(view)
        upstream = upstream.permute(1, 2, 0).reshape(-1, 3).to(self.model.device)
        field, sampler = self.model.field, self.model.sampler
        field.zero_grad(set_to_none=True)
        for part in in_parts(self._counts[view]):
            seen = render_rays(field, sampler, rays[part], behind[part], half[part], capacity=ROOM)
            (seen.rgb * upstream[part]).sum().backward()
        found = [w.grad * mask for w, mask in zip(self.weights, self.mask, strict=True)]
        field.zero_grad(set_to_none=True)
        return found

    def _look(self, view: int) -> tuple[Float[Tensor, "3 s s"], Tensor]:
        """A render, and the samples of its rays."""
        rays, behind, half = self._rays(view)
        with torch.no_grad():
            seen = render_rays(self.model.field, self.model.sampler, rays, behind, half)
        return seen.rgb.view(SIDE, SIDE, 3).permute(2, 0, 1).cpu(), seen.counts

    def _rays(self, view: int) -> tuple[Rays, Float[Tensor, "n 3"], Float[Tensor, " n"]]:
        """Those of a view in model coordinates, what is behind them, and where in its cell each begins."""
        pixels, device = self.views.pixel_grid(view).reshape(-1, 2), self.model.device
        rays = self.views.rays(torch.full((len(pixels),), view), pixels)
        rays = self.model.frame.model_rays(rays).to(device)
        with torch.no_grad():
            sky = self.background == "sky"
            behind = self.model.field.behind(rays.rays_d) if sky else background_color(self.background).to(device)
        return rays, behind.expand(len(rays), 3), torch.full((len(rays),), 0.5, device=device)
