"""Where each photograph was really taken from: poses of the training views, refined while the field is learnt.

In a few rounds, from coarse to fine, each photograph is laid on what the field shows from its camera (direct image
alignment after Lucas and Kanade 1981, with the field in the place of a depth map). With the field as it is, colours
c(m) of some pixels, rendered after a move m of the camera, and true colours c*, one Gauss-Newton step solves

    (J^T W J + damping) m = J^T W (c* - c(0)),    J = dc/dm,

W being Huber's weights. J is taken from renders on both sides of the camera, some pixels' worth of motion away in the
first round, a fraction in the last: a field that is still coarse answers to large motions alone. So neither the kernels
need a derivative by the ray nor the step a depth, and every lens is served.

A move counts if it makes other pixels of the photograph agree better, more clearly than by chance; else the camera
stays. What all cameras do in common is taken out after each round, for it would carry the field away from cameras that
are not refined: those of held-out views.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import huber_loss

from nerfkit.cameras import Cameras
from nerfkit.kernels.launch import parallel
from nerfkit.poses import moved, moves_between, rotation_by, without_drift
from nerfkit.render import Model, render_rays
from nerfkit.train.pixels import Pixels
from nerfkit.types import Rays, Rendered

ROUNDS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7)
"""Shares of the training after which a round takes place: when there is something to see, and while it can be used."""
MOST_OFF = 0.03
"""Of a picture's longer side: how far poses may be off in it and yet be found, and the most that one round moves it."""
_REACH = (3.0, 0.5)
"""Pixels by which a camera's motion is tried, in the first and in the last round."""
_N_PIXELS = (64, 512)
"""Of one view, to find a move, at least and at most; twice as many judge it."""
_SHARE = 0.3
"""Rays that a round may render, in units of those that were trained on before: a ray takes a third of the time."""
_RENDERS = 1 + 12 + 2 * 2
"""Of each pixel: before a move, on both sides in six directions, and by the judges, before and after."""
_N_SEEN = 16384
"""Of all views, to tell what all views do in common."""
_DELTA = 0.1
"""Error of a colour beyond which it counts as an outlier, as in training."""
_DAMPING = 1e-3
"""Of the mean of the normal equations' diagonal."""
_SURE = 2.0
"""Standard errors by which the judging pixels must gain."""
_LEAST_SOLID = 16
"""Pixels that must show something at a distance: without, a camera has nothing to hold on to."""


@dataclass(frozen=True)
class _Look:
    """Some pixels of a photograph: rays in model coordinates, true colours, and what is behind."""

    rays: Rays
    truth: Float[Tensor, "n 3"]
    background: Float[Tensor, "n 3"]


class Poses:
    """Refined poses of the training views: ``c2w`` (n_views, 3, 4) in scene coordinates."""

    def __init__(self, cameras: Cameras):
        self._start, self.c2w = cameras.c2w, cameras.c2w
        self._pixel = (1.0 / torch.minimum(cameras.fl_x, cameras.fl_y)).tolist()
        self._most = (MOST_OFF * torch.maximum(cameras.width, cameras.height)).tolist()
        self._has_moved = torch.zeros(len(cameras), dtype=torch.bool)
        self._focal = torch.stack([cameras.fl_x, cameras.fl_y], 1)
        self._n_rounds = 0

    def state_dict(self) -> dict[str, Tensor]:
        """All that changes, to be saved with a checkpoint."""
        rounds = torch.tensor(self._n_rounds)
        return {"poses.c2w": self.c2w, "poses.has_moved": self._has_moved, "poses.n_rounds": rounds}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go back to a saved state."""
        self.c2w, self._has_moved, rounds = state.values()
        self._n_rounds = int(rounds)

    def update(
        self, progress: float, n_rays: int, model: Model, pixels: Pixels, gains: Float[Tensor, "n_views 3"] | None
    ) -> dict[str, Any] | None:
        """Refine all poses if a round is due, and let ``pixels`` look from there.

        Args:
            progress: share of the training that is done.
            n_rays: trained on so far. The round is left out where they are too few to spend more on poses.
            model: what photographs are compared with.
            pixels: the photographs.
            gains: by which their colours are divided, if they were exposed differently.

        Returns what came of the round, for the log; None if there was none.
        """
        if self._n_rounds == len(ROUNDS) or progress < ROUNDS[self._n_rounds]:
            return None
        n = min(int(_SHARE * n_rays / _RENDERS / len(self.c2w)), _N_PIXELS[1])
        share = self._n_rounds / (len(ROUNDS) - 1)
        reach = _REACH[0] ** (1.0 - share) * _REACH[1] ** share
        self._n_rounds += 1
        if n < _N_PIXELS[0]:
            return None

        def find(view: int) -> Tensor:
            return self._find(view, n, reach, model, pixels, None if gains is None else gains[view])

        moves = torch.stack(parallel(find, range(len(self.c2w)), model.device))
        helped = (moves != 0).any(1)
        if helped.any():
            moves = moves / moves.new_tensor([1.0] * 3 + [model.frame.scale] * 3)
            self.c2w = without_drift(moved(self.c2w, moves), self._start, *self._seen(model, pixels))
            self._has_moved = self._has_moved | helped
            pixels.look_from(self.c2w)
        return self._record(int(helped.sum()))

    def turn(self, offsets: Float[Tensor, "n_views 2"], model: Model, pixels: Pixels) -> None:
        """Turn each camera about itself until what it shows at a pixel is where the photograph has it: that far off.

        Offsets are (x, y) in pixels, a few at most: the turn w in the camera's own axes that moves the middle of its
        picture by them solves w x (0, 0, 1) = -(x / fl_x, y / fl_y, 0).
        """
        zero = torch.zeros(len(offsets))
        within = torch.stack([offsets[:, 1] / self._focal[:, 1], -offsets[:, 0] / self._focal[:, 0], zero], 1)
        turns = torch.einsum("nij,nj->ni", self.c2w[:, :, :3], within)
        moves = torch.cat([turns, torch.zeros_like(turns)], 1)
        self.c2w = without_drift(moved(self.c2w, moves), self._start, *self._seen(model, pixels))
        self._has_moved = self._has_moved | (offsets != 0).any(1)
        pixels.look_from(self.c2w)

    def _seen(
        self, model: Model, pixels: Pixels
    ) -> tuple[Float[Tensor, "m 3"], Int[Tensor, " m"], Float[Tensor, " m"]]:
        """Some points that views see, in scene coordinates, by which view, and how solid they are."""
        picked = pixels.draw(_N_SEEN, torch.Generator().manual_seed(0))
        nothing = torch.zeros(_N_SEEN, 3, device=model.device)
        rays = pixels.rays(picked, model.frame)
        seen = _render(model, _Look(rays, nothing, nothing), torch.zeros(1, 6))
        points = model.frame.to_scene(rays.rays_o + seen.distance[:, None] * rays.rays_d)
        return points.cpu(), pixels.views(picked).cpu(), seen.opacity.cpu()

    def _record(self, n_helped: int) -> dict[str, Any]:
        turn, shift = moves_between(self._start, self.c2w).split(3, dim=1)
        degrees, shift = torch.linalg.vector_norm(turn, dim=1).rad2deg(), torch.linalg.vector_norm(shift, dim=1)
        return {
            "round": self._n_rounds,
            "n_views": len(self.c2w),
            "n_helped": n_helped,
            "n_moved": int(self._has_moved.sum()),
            "degrees": {"median": float(degrees.median()), "most": float(degrees.max())},
            "shift": {"median": float(shift.median()), "most": float(shift.max())},
        }

    def _find(
        self, view: int, n: int, reach: float, model: Model, pixels: Pixels, gain: Float[Tensor, " 3"] | None
    ) -> Float[Tensor, " 6"]:
        """The move (turn in radians, shift in model units) that lays a view on the field; zero where none helps."""
        # Of its own, so that neither the threads' order nor the number of rounds changes what a training step draws.
        seed = (model.config.train.seed * (len(ROUNDS) + 1) + self._n_rounds) * len(self.c2w) + view
        generator = torch.Generator().manual_seed(seed)

        def look(n: int) -> _Look:
            picked = pixels.of_view(view, n, generator)
            rays, background = pixels.rays(picked, model.frame), pixels.background(len(picked), generator)
            if pixels.scene.background == "sky":
                background = model.field.behind(rays.rays_d).detach()
            truth = pixels.colors(picked, background)
            return _Look(rays, truth if gain is None else truth / gain, background)

        first, second = look(n), look(2 * n)
        if not len(first.rays):  # a mask hides all of the photograph
            return torch.zeros(6)
        move = _step(model, first, self._pixel[view], reach, self._most[view])
        return move if _helps(model, second, move) else torch.zeros(6)


def _step(model: Model, look: _Look, pixel: float, reach: float, most: float) -> Float[Tensor, " 6"]:
    """The Gauss-Newton step of one view, whose pixels are ``pixel`` radians wide; zero where nothing is seen.

    Renders ``reach`` pixels to both sides tell where to; ``most`` pixels are the longest way.
    """
    still = _render(model, look, torch.zeros(1, 6))
    solid = still.opacity > 0.5
    if int(solid.sum()) < _LEAST_SOLID:
        return torch.zeros(6)
    # In these units each number of a move makes the picture move by about a pixel.
    unit = pixel * torch.tensor([1.0] * 3 + [float(still.distance[solid].median())] * 3)
    sides = torch.diag(reach * unit)
    ahead, behind = _render(model, look, torch.cat([sides, -sides])).rgb.view(2, 6, -1)
    jacobian = ((ahead - behind) / (2.0 * reach)).double()
    residual = (look.truth - still.rgb).flatten().double()
    weighted = jacobian * (_DELTA / residual.abs().clamp_min(_DELTA))
    normal = (weighted @ jacobian.T).cpu()
    damping = _DAMPING * (normal.trace() / 6 + 1e-9) * torch.eye(6, dtype=normal.dtype)
    step = torch.linalg.solve(normal + damping, (weighted @ residual).cpu()).float()
    return step * unit * min(1.0, most / max(float(torch.linalg.vector_norm(step)), 1e-9))


def _helps(model: Model, look: _Look, move: Float[Tensor, " 6"]) -> bool:
    """Whether a move makes pixels agree better than without it, by more than chance would."""
    rgb = _render(model, look, torch.stack([torch.zeros(6), move])).rgb.unflatten(0, (2, -1))
    before, after = huber_loss(rgb, look.truth.expand_as(rgb), reduction="none", delta=_DELTA).double().mean(-1)
    gain = before - after
    return bool(gain.mean() > _SURE * gain.std() / math.sqrt(len(gain)))


def _render(model: Model, look: _Look, moves: Float[Tensor, "k 6"]) -> Rendered:
    """What the pixels show after each of some moves of their camera: those of the first move, of the second..."""
    rays, n, moves = look.rays, len(moves), moves.to(model.device)
    turned = torch.einsum("kij,nj->kni", rotation_by(moves[:, :3]), rays.rays_d)
    origins = rays.rays_o + moves[:, None, 3:]
    many = Rays(origins.flatten(0, 1), turned.flatten(0, 1), rays.cos.repeat(n))
    with torch.no_grad():
        jitter = torch.full_like(many.cos, 0.5)
        return render_rays(model.field, model.sampler, many, look.background.repeat(n, 1), jitter)
