"""The occupancy grid: nested boxes of cells that remember how dense the field was, and a marcher that skips the rest.

The training's own samples keep the occupied cells up to date for nothing; only empty cells, which no sample visits,
are probed, so that what was dropped too early can come back. (Instant-ngp refreshes half of all cells by extra
evaluations; on a CPU that costs as much as the training.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nerfkit.config import SamplerConfig
from nerfkit.kernels.cells import Cells
from nerfkit.kernels.launch import parallel, sent
from nerfkit.kernels.march import sample_positions
from nerfkit.kernels.occupancy import UNKNOWN, fold, observe
from nerfkit.ranks import Ranks
from nerfkit.sampling.stepping import places_in, stepping_of, while_young
from nerfkit.types import Field, Met, Rays, Samples

NEVER = -1.0
"""Value of a cell outside the region that may be occupied."""
_CHUNK = 8192
"""Positions that one task probes."""


class OccupancyGrid:
    """A `LearningSampler`: a bit for each cell of each level, from a decaying maximum of the densities seen there.

    ``allowed`` (levels, r, r, r) marks the cells that may ever be occupied; ``near_plane`` and ``far_plane`` are in
    model units. State to save: ``values``.
    """

    def __init__(
        self,
        config: SamplerConfig,
        n_levels: int,
        device: torch.device,
        allowed: Bool[Tensor, "levels r r r"] | None = None,
        near_plane: float = 0.0,
        far_plane: float = 1.0e9,
    ):
        n_cells = config.resolution**3
        self.config = config
        self.stepping = stepping_of(config, n_levels, near_plane, far_plane)
        self.values = torch.full((n_levels, n_cells), UNKNOWN, device=device)
        if allowed is not None:
            self.values[~allowed.view(n_levels, n_cells).to(device)] = NEVER
        self._window = torch.full_like(self.values, -1.0)
        self._allowed = _may_be_occupied(self.values)
        self._generator = torch.Generator().manual_seed(0)
        self.threshold = torch.zeros((), device=device)
        self._step = 0
        self._bake()

    def sample(self, rays: Rays, jitter: Float[Tensor, " n_rays"]) -> Samples:
        """Steps of rays (model coordinates) in occupied cells; ``jitter`` in [0, 1) shifts each ray's first step.

        While a training warms up its steps are longer: a young field is fog, which more rays describe better.
        """
        return self.cells().sample(rays, jitter)

    def cells(self) -> Cells:
        """What `sample` and `update` know, for a kernel that steps and notes what it meets on its way."""
        if not torch.is_grad_enabled():
            return self._baked
        stepping = while_young(self.stepping, self._step, self.config.warmup_steps)
        noted = self._window.view(-1) if self._window.device.type == "cpu" else self._baked.window
        return replace(self._baked, stepping=stepping, window=noted)

    def steps(self, rays: Rays, jitter: Float[Tensor, " n_rays"]) -> Cells:
        """The cells as they are now: a kernel of whole rays marches itself."""
        return self.cells()

    def watches(self) -> bool:
        """Whether the coming training step should be told of: on a CPU its kernel notes what it meets by itself."""
        return self.values.device.type != "cpu" and (self._step + 1) % self.config.observe_every == 0

    def update(self, step: int, field: Field, mets: Sequence[Met] = ()) -> None:
        """Take in what rays met; every ``update_every`` steps, probe, decay and refresh the bits.

        A sample behind an opaque surface counts as empty, so that the inside of things costs nothing.
        """
        self._step = step
        for met in mets:
            positions = sample_positions(met.rays, met.samples)
            observe(positions, met.samples, met.sigmas, self.config.resolution, self._window)
        if step % self.config.update_every == 0:
            self._probe(field, self._cells_to_probe())
            mean = fold(self.values, self._window, self.config.ema_decay, self.config.stale_decay)
            self.threshold = mean.clamp(max=self.config.occupancy_threshold / self.stepping.min_step)
            self._bake()

    def share(self, ranks: Ranks) -> None:
        """Take in what the rays of other ranks met: on a CPU a kernel notes only what its own rays do."""
        ranks.maximum(self._window)

    @property
    def occupancy(self) -> float:
        """Share of all cells that count as occupied, in [0, 1]."""
        return float((self.values > self.threshold).float().mean())

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        state = {"values": self.values, "window": self._window, "generator": self._generator.get_state()}
        numbers = {"threshold": float(self.threshold), "step": float(self._step)}
        return state | {name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state_dict`."""
        self.values.copy_(state["values"])
        self._allowed = _may_be_occupied(self.values)
        self._window.copy_(state["window"])
        self._generator.set_state(state["generator"])
        self.threshold.fill_(float(state["threshold"]))
        self._step = int(state["step"])
        self._bake()

    def _bake(self) -> None:
        self._baked = Cells.bake(self.values, self.threshold, self.stepping)

    def _cells_to_probe(self) -> Int[Tensor, " n"]:
        """All cells in turn until the warm-up ends, so that each is known by then; afterwards random ones."""
        n_turns = max(self.config.warmup_steps // self.config.update_every, 1)
        if self._step <= self.config.warmup_steps:
            return self._allowed[self._step // self.config.update_every % n_turns :: n_turns].long()
        n_probes = max(self.config.n_probes, len(self._allowed) // 64)
        picked = torch.randint(len(self._allowed), (n_probes,), generator=self._generator)
        return self._allowed[sent(picked, self.values.device)].long()

    def _probe(self, field: Field, cells: Int[Tensor, " n"]) -> None:
        """Evaluate the field at random places of cells, so that an empty one can become occupied again."""
        n = len(cells)
        within = sent(torch.rand(n, 3, generator=self._generator), self.values.device)
        positions = places_in(cells, within, self.stepping)
        chunk = _CHUNK if positions.device.type == "cpu" else max(n, 1)

        def density(begin: int) -> Tensor:
            with torch.no_grad():
                return field.density(positions[begin : begin + chunk])[0]

        sigmas = torch.cat(parallel(density, range(0, n, chunk), positions.device))
        self._window.view(-1).scatter_reduce_(0, cells, sigmas, "amax")


def _may_be_occupied(values: Float[Tensor, "levels cells"]) -> Int[Tensor, " n_allowed"]:
    """Indices of the cells that are worth a probe."""
    return (values.view(-1) > NEVER).nonzero()[:, 0].int()
