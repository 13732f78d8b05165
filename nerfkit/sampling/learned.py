"""Learned occupancy, in the manner of LeC2O-NeRF: a network classifies places, and is baked to the bits rays walk by.

The network learns from the training's own rays: from the densities they meet, and from what the picture would lose
(`branches`). No cell's density is remembered, as a grid does, but two bits: whether it is occupied, and whether it is
suspected of being empty. The network and the rays propose changes, and the field confirms them by probes. A cell is
closed where nothing dense was found twice, with no dense sample in between; it is opened where the network calls it
occupied, at its turn or because a cell beside it is dense, and a probe agrees. So a wrong answer costs some
evaluations, but hardly ever a part of a surface.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import Parameter
from torch.nn import functional as F

from nerfkit.config import SamplerConfig
from nerfkit.kernels.cells import Cells, held, put
from nerfkit.kernels.launch import parallel
from nerfkit.kernels.march import sample_positions
from nerfkit.sampling.branches import density_loss, imbalance, two_branches
from nerfkit.sampling.guide import Guide
from nerfkit.sampling.stepping import neighbours, places_in, stepping_of, while_young
from nerfkit.types import Field, Met, Rays, Samples

_LESSON = 16384
"""Cells that rays met of which one lesson tells."""
_STRANGE = 4096
"""Cells anywhere which the same lesson takes for empty, a little, as most of space is; as many are probed."""
_STRANGE_WEIGHT = 0.2
_EMPTINESS = 2.0
"""Weight of what is called occupied and is not, relative to what is called empty and is not."""
_RENDERED = 4096
"""Samples of a lesson in rendering, more or less, which only one of `_RENDER_EVERY` lessons has."""
_RENDER_EVERY = 4
_HAZE_LR = 0.1
_ASKED = 2**16
"""Cells that the network is asked of at a refresh, of the occupied and of the others each; all take their turns."""
_LIKELY = -1.0
"""Logit above which the network is believed about an empty cell beside a dense one."""
_DOUBT = 0.25
"""Share of the other such cells that are probed all the same: where all has changed, the network knows nothing."""
_CONFIRMED = 24576
"""Cells whose change is confirmed at a refresh, at most."""
_PROBES = 2
"""Places in a cell at which that is done."""
_OPENED = 2.0
"""Density at which an empty cell is opened, in units of the one below which it is closed."""
_CHUNK = 8192
"""Positions that one task probes."""
_MATURE = 1024
"""Steps after which refreshes become rarer: half as frequent with each doubling of the step."""


class LearnedOccupancy:
    """A `LearningSampler`: bits that a network proposes, see the head of this file; arguments as of `OccupancyGrid`.

    State to save: the network and its moments, the empty branch, the bits.
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
        self.config, self.device = config, device
        self.stepping = stepping_of(config, n_levels, near_plane, far_plane)
        n_cells = n_levels * config.resolution**3
        everything = torch.full((n_cells // 32,), -1, dtype=torch.int32, device=device)
        self._allowed = everything if allowed is None else Cells.of(allowed.to(device), self.stepping).bits
        self._suspects = torch.zeros_like(self._allowed)
        self._cells = Cells.of_bits(self._allowed.clone(), self.stepping)
        self.guide = Guide(n_levels, config.resolution, device, bias=2.0)
        self._haze = Parameter(torch.zeros(4, self.guide.n_features + 1, device=device))
        self._generator = torch.Generator().manual_seed(0)
        self._seen = torch.empty(0, dtype=torch.int64, device=device), torch.empty(0, device=device)
        self._step = 0
        self._share = 0.5
        self._mean_sigma = 1.0e-3 / self.stepping.min_step

    def sample(self, rays: Rays, jitter: Float[Tensor, " n_rays"]) -> Samples:
        """Steps of rays (model coordinates) in occupied cells; ``jitter`` in [0, 1) shifts each ray's first step."""
        return self.cells().sample(rays, jitter)

    def steps(self, rays: Rays, jitter: Float[Tensor, " n_rays"]) -> Cells:
        """The cells as they are now: a kernel of whole rays marches itself."""
        return self.cells()

    def cells(self) -> Cells:
        """The baked cells; steps of a training that warms up are longer."""
        if not torch.is_grad_enabled():
            return self._cells
        stepping = while_young(self.stepping, self._step, self.config.warmup_steps)
        return replace(self._cells, stepping=stepping)

    def watches(self) -> bool:
        """Whether the coming step is watched: some four of those between two refreshes are, the last one among them."""
        period = self._period()
        return -(self._step + 1) % period % max(period // 4, 1) == 0

    def update(self, step: int, field: Field, mets: Sequence[Met] = ()) -> None:
        """Note what rays met; every so often, learn from all of that and refresh the bits."""
        self._step = step
        if mets:
            self._seen = self._seen_with(mets)
        cells, densest = self._seen
        if step % self._period() or not mets or not len(cells):
            return
        self._seen = cells[:0], densest[:0]
        first = self.guide.n_lessons == 0
        self._mean_sigma = _running(self._mean_sigma, float(densest.mean()), first)
        self._learn(cells, densest, mets[-1], field)
        if step >= self.config.warmup_steps // 4:
            self._revise(cells, densest, field)

    def _period(self) -> int:
        """Steps between two refreshes: the field changes ever more slowly."""
        every = self.config.update_every
        if self._step < self.config.warmup_steps:
            return max(every // 4, 1)
        return every * 2 ** max(0, (self._step // _MATURE).bit_length() - 1)

    @property
    def occupancy(self) -> float:
        """Share of all cells that count as occupied, in [0, 1]."""
        return float(self._cells.occupied.float().mean())

    @property
    def limit(self) -> float:
        """Density below which a cell counts as empty, as of an `OccupancyGrid`."""
        return min(self._mean_sigma, self.config.occupancy_threshold / self.stepping.min_step)

    def _learn(self, cells: Int[Tensor, " n"], densest: Float[Tensor, " n"], met: Met, field: Field) -> None:
        """One lesson."""
        picked = torch.randperm(len(cells), generator=self._generator)[:_LESSON].to(self.device)
        solidity = 1.0 - torch.exp(-densest[picked] / self.limit)
        self._share = _running(self._share, float(solidity.mean()), self.guide.n_lessons == 0)
        gradients = [self._classify(cells[picked], solidity)]
        if self.config.render_weight > 0.0 and self.guide.n_lessons % _RENDER_EVERY == 0:
            gradients.append(self._render(met, field))
        self.guide.learn(gradients)

    def _seen_with(self, mets: Sequence[Met]) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
        """The cells in which rays had samples since the last refresh, and the largest density there."""

        def index(met: Met) -> Tensor:
            n, lengths = met.samples.n_owned, met.samples.t_ends - met.samples.t_starts
            return self._cells.index(sample_positions(met.rays, met.samples)[:n], lengths[:n])

        before, densest = self._seen
        sigmas = torch.cat([densest, *(met.sigmas[: met.samples.n_owned] for met in mets)])
        cells, inverse = torch.cat([before, *parallel(index, mets, self.device)]).unique(return_inverse=True)
        return cells, sigmas.new_zeros(len(cells)).scatter_reduce_(0, inverse, sigmas, "amax")

    def _classify(self, cells: Int[Tensor, " n"], solidity: Float[Tensor, " n"]) -> list[Tensor | None]:
        """The lesson of the densities that rays met in cells."""
        config, n_cells = self.config, 32 * len(self._allowed)
        strange = torch.randint(n_cells, (_STRANGE,), generator=self._generator).to(self.device)
        every = torch.cat([cells, strange])
        within = torch.rand(len(every), 3, generator=self._generator).to(self.device)
        logits = self.guide.answer(self.guide.features(places_in(every, within, self.stepping)))
        met, others = logits.split([len(cells), len(strange)])
        p = torch.sigmoid(met)
        classes = imbalance(p, min(max(self._share, 0.005), 0.995))
        density = density_loss(met, solidity, _EMPTINESS)
        loss = config.imbalance_weight * classes + config.density_weight * density
        loss = loss + _STRANGE_WEIGHT * F.softplus(others).mean()
        return list(torch.autograd.grad(loss, [*self.guide.matrices, self.guide.table], allow_unused=True)[:-1])

    def _render(self, met: Met, field: Field) -> list[Tensor | None]:
        """The lesson of what a picture of two branches loses."""
        n_rays = max(round(_RENDERED * len(met.rays) / max(met.samples.n_owned, 1)), 1)
        some = slice(0, min(n_rays, len(met.rays)))
        rays, background, truth = met.rays[some], met.background[some], met.truth[some]
        with torch.no_grad():
            samples = self._cells.sample(rays, torch.rand(len(rays), generator=self._generator).to(self.device))
            positions = sample_positions(rays, samples)
            sigmas, features = field.density(positions)
            rgbs = field.color(features, rays.rays_d, samples.ray_indices)
        found = self.guide.features(positions)
        p, haze = torch.sigmoid(self.guide.answer(found)), F.pad(found, (0, 1), value=1.0) @ self._haze.T
        rendering, thin = two_branches(p, sigmas, rgbs, haze, samples, background, truth)
        loss = self.config.render_weight * rendering + self.config.density_weight * thin
        parameters = [self._haze, *self.guide.matrices, self.guide.table]
        by_haze, *gradients = torch.autograd.grad(loss, parameters, allow_unused=True)[:-1]
        with torch.no_grad():
            self._haze -= _HAZE_LR * by_haze
        return gradients

    def _revise(self, cells: Int[Tensor, " n"], densest: Float[Tensor, " n"], field: Field) -> None:
        """Take on the changes that the field confirms, of those that the network and the rays propose."""
        young = self._step <= self.config.warmup_steps
        is_dense = densest > self.limit
        self._suspects = put(self._suspects, cells[is_dense], False)
        proposed = [self._beside(cells[is_dense]), self._anywhere()]
        proposed += [self._shuffled(cells[~is_dense]), self._shuffled(self._differing())]
        candidates = torch.cat(proposed)[: None if young else _CONFIRMED].unique()
        found = self._densest(candidates, 1 if young else _PROBES, field)
        open_now = held(self._cells.bits, candidates)
        wanted = found > torch.where(open_now, 1.0, _OPENED) * self.limit
        if not young:
            suspected = open_now & ~wanted & ~held(self._suspects, candidates)
            self._suspects = put(self._suspects, candidates, suspected)
            wanted |= suspected
        self._cells = Cells.of_bits(put(self._cells.bits, candidates, wanted), self.stepping)

    def _beside(self, dense: Int[Tensor, " n"]) -> Int[Tensor, " m"]:
        """Empty cells beside dense ones: those where the network thinks that a surface may go on, and some others."""
        draw = torch.rand(len(dense), 4, generator=self._generator).to(self.device)
        cells = neighbours(dense, draw[:, :3], self.stepping).unique()
        cells = cells[held(self._allowed & ~self._cells.bits, cells)]
        likely = self.guide.ask(places_in(cells, 0.5, self.stepping)) > _LIKELY
        return cells[likely | (draw[: len(cells), 3] < _DOUBT)]

    def _anywhere(self) -> Int[Tensor, " n"]:
        """Some empty cells, whatever is thought of them."""
        cells = torch.randint(32 * len(self._allowed), (_STRANGE,), generator=self._generator).to(self.device)
        return cells[held(self._allowed & ~self._cells.bits, cells)]

    def _differing(self) -> Int[Tensor, " n"]:
        """Cells whose turn it is and of which the network does not say what their bits say."""
        turn = self._turn()
        return turn[(self.guide.ask(places_in(turn, 0.5, self.stepping)) > 0.0) != held(self._cells.bits, turn)]

    def _shuffled(self, cells: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        return cells[torch.randperm(len(cells), generator=self._generator).to(self.device)]

    def _turn(self) -> Int[Tensor, " n"]:
        """Cells whose turn it is: of those that may be occupied, and more often of those that are."""
        turn, young = self._step // self._period(), self._step <= self.config.warmup_steps
        found = []
        for bits, most in ((self._cells.bits, _ASKED), (self._allowed & ~self._cells.bits, _ASKED)):
            n_turns = max(1, -(-32 * len(bits) // most))
            if young:  # each once by the end of the warm-up
                n_turns = min(n_turns, max(1, self.config.warmup_steps * 3 // 4 // self._period()))
            found.append(_cells_of(bits, turn % n_turns, n_turns))
        return torch.cat(found)

    def _densest(self, cells: Int[Tensor, " n"], n_probes: int, field: Field) -> Float[Tensor, " n"]:
        """The largest density of the field at random places of cells."""
        within = torch.rand(n_probes * len(cells), 3, generator=self._generator).to(self.device)
        positions = places_in(cells.repeat(n_probes), within, self.stepping)

        def density(begin: int) -> Tensor:
            with torch.no_grad():
                return field.density(positions[begin : begin + _CHUNK])[0]

        parts = parallel(density, range(0, len(positions), _CHUNK), self.device)
        return torch.cat([*parts, positions.new_empty(0)]).view(n_probes, -1).amax(0)

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        numbers = {"n_lessons": self.guide.n_lessons, "step": self._step, "share": self._share}
        numbers |= {"mean_sigma": self._mean_sigma}
        state = {name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()}
        state |= {f"guide.{name}": tensor for name, tensor in self.guide.numbers().items()}
        state |= {"bits": self._cells.bits, "suspects": self._suspects, "allowed": self._allowed}
        state |= {"seen": self._seen[0], "densest": self._seen[1], "haze": self._haze.data}
        return state | {"generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state_dict`."""
        for name, tensor in self.guide.numbers().items():
            tensor.copy_(state[f"guide.{name}"])
        self._allowed.copy_(state["allowed"])
        self._suspects.copy_(state["suspects"])
        self._seen = state["seen"].to(self.device), state["densest"].to(self.device)
        self._haze.data.copy_(state["haze"])
        self._generator.set_state(state["generator"])
        self.guide.n_lessons, self._step = int(state["n_lessons"]), int(state["step"])
        self._share, self._mean_sigma = float(state["share"]), float(state["mean_sigma"])
        self._cells = Cells.of_bits(self._cells.bits.clone().copy_(state["bits"]), self.stepping)


def _running(mean: float, now: float, first: bool) -> float:
    return now if first else 0.9 * mean + 0.1 * now


def _cells_of(bits: Int[Tensor, " words"], first: int, every: int) -> Int[Tensor, " n"]:
    """Indices of the cells whose bits are set, in every so manieth word."""
    shifts = torch.arange(32, dtype=torch.int32, device=bits.device)
    word, shift = ((bits[first::every, None] >> shifts) & 1).nonzero().unbind(1)
    return (word * every + first) * 32 + shift
