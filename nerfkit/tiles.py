"""Several models as one: each shows what is inside its own box, and what lies behind where rays leave all boxes there.

A ray crosses disjoint boxes one after the other. What it meets in them is laid over each other front to back:

    rgb += T * rgb_tile        T *= 1 - opacity_tile        (and T * opacity_tile * distance_tile alike)

The boxes together are a box again, and what is outside of it comes first or last. It comes first exactly where the
place and the camera are both beyond the same face: a ray from there has not entered yet. (A ray enters a box when it
has entered between the last of the three pairs of faces, and never comes back out on the side from which it came.) So a
camera that stands inside sees no more before the boxes, and each place is counted once.

What comes last shows the model of the box that the ray leaves last, so that a surface on the outer face of a box is
one model's on both of its sides; what comes first shows the model nearest to the camera. Near the border of two tiles
both do, in shares that change steadily across it: no seam runs through what is far, and a film does not jump.

Two models of one wall never have quite the same colour. So that no line shows where one ends, what is inside the boxes
is the mean of several divisions, in which the faces between the boxes lie a coarsest cell farther to one side or the
other: a step of colour becomes several small ones. Each division shows each place once, so their mean does.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerfkit.kernels.cells import Cells
from nerfkit.render import EARLY_STOP, Model, load_model
from nerfkit.run import Run, RunError
from nerfkit.scene.scene import Box, Frame
from nerfkit.scene.tiling import Tiling, gaps, spans
from nerfkit.types import Rays, Rendered

LISTING = "tiles.json"
"""File of a run that says where its tiles are; its tiles are runs themselves, in folders 1, 2, ... of ``tiles``."""
BAND = 0.1
"""How far from a border tiles share what is outside, in units of the innermost cube's side."""

SHIFTS = (-1, 0, 1)
"""Coarsest cells by which the faces between boxes are moved in each of the divisions that are averaged."""


@dataclass
class _Sum:
    """What rays have met so far."""

    rgb: Float[Tensor, "n 3"]
    trans: Float[Tensor, " n"]
    t_sum: Float[Tensor, " n"]
    counts: Int[Tensor, " n"]
    """Samples that they reached, in all models and divisions."""

    @classmethod
    def empty(cls, n: int, device: torch.device, trans: float = 1.0) -> _Sum:
        t_sum = torch.zeros(n, device=device)
        rgb, counts = torch.zeros(n, 3, device=device), torch.zeros(n, dtype=torch.int32, device=device)
        return cls(rgb, torch.full_like(t_sum, trans), t_sum, counts)

    def mix(self, rows: Int[Tensor, " k"], share: Float[Tensor, " k"] | float, seen: _Sum) -> None:
        """Add a share of what some rays meet, to a sum that begins at nothing (`trans` too)."""
        self.rgb[rows] += torch.as_tensor(share, device=self.rgb.device).view(-1, 1) * seen.rgb
        self.trans[rows] += share * seen.trans
        self.t_sum[rows] += share * seen.t_sum
        self.counts[rows] += seen.counts

    def add(self, rows: Int[Tensor, " k"], seen: _Sum) -> None:
        """Lay what some rays meet next behind what they have met."""
        trans = self.trans[rows]
        self.rgb[rows] += trans[:, None] * seen.rgb
        self.t_sum[rows] += trans * seen.t_sum
        self.trans[rows] = trans * seen.trans
        self.counts[rows] += seen.counts


@dataclass(frozen=True)
class Tiles:
    """Models of one scene's tiles. A `render.Renderer`."""

    models: tuple[Model, ...]
    """Of the tiles, each with the cells of all that it has learnt."""
    tiling: Tiling
    device: torch.device
    shifts: tuple[int, ...] = SHIFTS
    _cells: dict[tuple[Any, ...], Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Cells that were clipped already."""

    @property
    def frame(self) -> Frame:
        """Of the first of the models; all have one scale."""
        return self.models[0].frame

    @property
    def apron(self) -> int:
        """See `render.Renderer`: tiles see each ray alone."""
        return 0

    def render(self, rays: Rays, behind: Float[Tensor, "n 3"] | None, width: int = 1) -> Rendered:
        """What rays (scene coordinates) see, lengths in scene units, before a colour each or, for None, the sky.

        Without gradient.
        """
        rays = rays.to(self.device)
        with torch.no_grad():
            _, shares = self._places_left(rays)
            sides = self._sides(rays.rays_o)
            met = _Sum.empty(len(rays), self.device)
            if sides.any():
                nearest = self._shares(rays.rays_o)
                met.add(torch.arange(len(rays), device=self.device), self._outside(rays, nearest, sides, first=True))
            open_rays = (met.trans > EARLY_STOP).nonzero()[:, 0]
            met.add(open_rays, self._inside(rays[open_rays]))
            open_rays = (met.trans > EARLY_STOP).nonzero()[:, 0]
            last = self._outside(rays[open_rays], shares[open_rays], sides[open_rays], first=False)
            met.add(open_rays, last)
            opacity = 1.0 - met.trans
            sky = self._sky(rays, shares) if behind is None else behind.to(self.device)
            distance = met.t_sum / opacity.clamp(min=1e-6)
            rgb = met.rgb + met.trans[:, None] * sky
        return Rendered(rgb, opacity, distance, distance * rays.cos, met.counts, rgb[:, 3:])

    def finish(self, seen: Rendered) -> Rendered:
        """A whole picture from what its rays gathered: tiles have no head."""
        return seen

    def within(self, box: Box) -> Tiles:
        """The same without what lies outside of a box."""
        return replace(self, models=tuple(model.within(box) for model in self.models))

    def owners(self, rays: Rays, distance: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Which of the models shows what rays (scene coordinates) meet at a distance, or most of it."""
        inside = gaps(rays.rays_o + distance[:, None] * rays.rays_d, self.tiling.boxes)
        leave, last = self._places_left(rays)
        outside = torch.where((distance < leave)[:, None], self._shares(rays.rays_o), last).argmax(1)
        return torch.where(inside.amin(1) == 0.0, inside.argmin(1), outside)

    def _inside(self, rays: Rays) -> _Sum:
        """What rays meet in the boxes, the mean of all divisions."""
        mean, every = _Sum.empty(len(rays), self.device, 0.0), torch.arange(len(rays), device=self.device)
        for shift in self.shifts:
            mean.mix(every, 1.0 / len(self.shifts), self._through(rays, self._boxes(shift)))
        return mean

    def _through(self, rays: Rays, boxes: tuple[Box, ...]) -> _Sum:
        """What rays meet in boxes, in the order in which each enters them, until nothing more can be seen."""
        met = _Sum.empty(len(rays), self.device)
        enter, leave = (torch.stack(column, 1) for column in zip(*(spans(rays, box) for box in boxes), strict=True))
        enter = torch.where(enter < leave, enter, torch.inf)
        # Of two boxes that a ray enters at once it only touches the one that it leaves at once.
        order = leave.argsort(1)
        order = order.gather(1, enter.gather(1, order).argsort(dim=1, stable=True))
        for rank in range(int(enter.isfinite().sum(1).max()) if len(rays) else 0):
            turn = order[:, rank]
            open_rays = (met.trans > EARLY_STOP) & enter.gather(1, turn[:, None])[:, 0].isfinite()
            for number in turn[open_rays].unique().tolist():
                rows = (open_rays & (turn == number)).nonzero()[:, 0]
                met.add(rows, _meet(_with(self.models[number], self._clipped(number, boxes[number])), rays[rows]))
        return met

    def _boxes(self, shift: int) -> tuple[Box, ...]:
        """The boxes with the faces between them moved by so many coarsest cells."""
        cell = 1.0 / self.frame.scale / self.models[0].sampler.cells().stepping.resolution
        whole = torch.tensor(self.tiling.box, dtype=torch.float64)
        faces = torch.tensor(self.tiling.boxes, dtype=torch.float64)
        between = (faces - whole).abs() > 0.5 * cell
        return tuple(tuple(box) for box in (faces + shift * cell * between).tolist())

    def _outside(self, rays: Rays, shares: Tensor, sides: Tensor, first: bool) -> _Sum:
        """What rays meet outside of all boxes, before them or behind them, mixed of the models that share it."""
        mixed = _Sum.empty(len(rays), self.device, 0.0)
        for side in sides.unique(dim=0):
            beside = (sides == side).all(1)
            for number in range(len(self.models)):
                rows = (beside & (shares[:, number] > 0.0)).nonzero()[:, 0]
                if not len(rows):
                    continue
                before, after = self._parts(number, tuple(side.tolist()))
                seen = _meet(_with(self.models[number], before if first else after), rays[rows])
                mixed.mix(rows, shares[rows, number], seen)
        return mixed

    def _sky(self, rays: Rays, shares: Float[Tensor, "n n_tiles"]) -> Float[Tensor, "n 3"]:
        colors = [model.field.behind(rays.rays_d) for model in self.models]
        return (torch.stack(colors, 1) * shares[..., None]).sum(1)

    def _places_left(self, rays: Rays) -> tuple[Float[Tensor, " n"], Float[Tensor, "n n_tiles"]]:
        """Where rays leave the box of all tiles (0 where they miss it), and the shares of what comes after."""
        enter, leave = spans(rays, self.tiling.box)
        leave = torch.where(enter < leave, leave, 0.0)
        return leave, self._shares(rays.rays_o + leave[:, None] * rays.rays_d)

    def _shares(self, places: Float[Tensor, "n 3"]) -> Float[Tensor, "n n_tiles"]:
        """What part of the outside each model shows, for places where rays begin or leave the boxes; they sum to 1."""
        away = gaps(places, self.tiling.boxes)
        band = BAND * 0.5 ** (self.frame.n_levels - 1) / self.frame.scale
        shares = (1.0 - (away - away.amin(1, keepdim=True)) / band).clamp(min=0.0)
        return shares / shares.sum(1, keepdim=True)

    def _sides(self, rays_o: Float[Tensor, "n 3"]) -> Int[Tensor, "n 3"]:
        """For each axis whether rays begin below the box of all tiles (-1), between its faces (0) or above (1)."""
        low, high = (rays_o.new_tensor(corner) for corner in (self.tiling.box[:3], self.tiling.box[3:]))
        return (rays_o > high).long() - (rays_o < low).long()

    def _clipped(self, number: int, box: Box) -> Cells:
        """Of a model the cells inside a box."""
        if (number, box) not in self._cells:  # threads that come at once make the same
            self._cells[number, box] = self.models[number].within(box).sampler
        return self._cells[number, box]

    def _parts(self, number: int, side: tuple[int, ...]) -> tuple[Cells, Cells]:
        """Of a model the cells before and behind all boxes, as seen from a side (`_sides`)."""
        if (number, side) not in self._cells:
            model = self.models[number]
            rest = _less(model.sampler.cells(), model.within(self.tiling.box).sampler)
            # Not beyond any of the faces that the camera is beyond: what is left is not before the boxes.
            faces = [-torch.inf if s >= 0 else low for s, low in zip(side, self.tiling.box[:3], strict=True)]
            faces += [torch.inf if s <= 0 else high for s, high in zip(side, self.tiling.box[3:], strict=True)]
            after = _with(model, rest).within(tuple(faces)).sampler
            self._cells[number, side] = _less(rest, after), after
        return self._cells[number, side]


def _with(model: Model, cells: Cells) -> Model:
    return replace(model, sampler=cells)


def _less(cells: Cells, others: Cells) -> Cells:
    """Cells without others."""
    rest = cells.occupied & ~others.occupied
    return Cells.of(rest, cells.stepping)


def _meet(model: Model, rays: Rays) -> _Sum:
    seen = model.render(rays, torch.zeros(len(rays), 3, device=model.device))
    return _Sum(seen.rgb, 1.0 - seen.opacity, seen.opacity * seen.distance, seen.counts)


def folder_of(run: Run, number: int) -> Path:
    """Where the run of a tile (counted from 0) lies in that of the whole."""
    return run.path / "tiles" / str(number + 1)


def tiling_of(run: Run) -> Tiling:
    """Where the tiles of a run are. Raises RunError where it does not say."""
    return Tiling.from_dict(run.read_json(LISTING))


def parts_of(run: Run) -> list[Run]:
    """The runs that hold the checkpoints of a run: those of its tiles, or itself where it has none.

    Raises RunError where not every tile has a checkpoint.
    """
    if not run.config.train.tiles:
        return [run]
    n_tiles = len(tiling_of(run))
    folders = [folder_of(run, number) for number in range(n_tiles)]
    begun = [Run.open(folder) for folder in folders if (folder / "config.json").exists()]
    trained = [part for part in begun if part.has_checkpoint]
    if len(trained) < n_tiles:
        raise RunError(f"{run.path}: {len(trained)} of its {n_tiles} tiles are trained; nerfkit train --resume goes on")
    return trained


def load(run: Run) -> Model | Tiles:
    """The model of a run, whole or in tiles, of the newest whole checkpoints. Raises RunError if there is none.

    Of tiles only what pictures need stays in memory.
    """
    if not run.config.train.tiles:
        return load_model(run)
    with torch.no_grad():
        models = []
        for part in parts_of(run):
            model = load_model(part)
            models.append(_with(model, model.sampler.cells()))
    return Tiles(tuple(models), tiling_of(run), models[0].device)
