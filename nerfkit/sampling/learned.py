"""Learned occupancy, in the manner of LeC2O-NeRF: a network classifies places, and is baked to the bits rays walk by.

The network learns from the training's own rays: from the densities they meet, and from what the picture would lose
(`branches`). No cell's density is remembered, as a grid does, but a bit that says whether it is occupied and three that
count how far that is trusted. The network and the rays propose changes, and samples of rays or probes of the field
confirm them. Fog that is found thin once is closed; where something solid was seen a cell is closed when nothing dense
was found eight times on end; where it was barely dense when most fog had gone, as things are at their edges, three. It
is opened where the network calls it occupied, at its turn or because a cell beside it is dense, and a probe agrees. So
a wrong answer costs some evaluations, but hardly ever a part of a surface.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import Parameter
from torch.nn import functional as F

from nerfkit.config import SamplerConfig
from nerfkit.kernels.cells import Cells, held, put
from nerfkit.kernels.launch import parallel
from nerfkit.kernels.march import sample_positions
from nerfkit.ranks import Ranks
from nerfkit.sampling.branches import density_loss, imbalance, two_branches
from nerfkit.sampling.guide import Guide
from nerfkit.sampling.stepping import neighbours, places_in, stepping_of, while_young
from nerfkit.sampling.trust import FULL, Trust
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
"""Places in a cell at which that is done; where rays had as many samples none is."""
_HIGHER = 1.5
"""The limit below which a cell counts as empty, in units of a grid's, whose maximum decays between two looks at it."""
_OPENED = 1.5
"""Density at which an empty cell is opened, in units of that limit: fog would come and go."""
_SOLID = 8.0
"""Density, in the same units, from which on a cell is trusted as far as can be."""
_CLEAR = 2048
"""Steps after which most fog has gone: a cell that is barely dense is more likely the edge of a thing."""
_A_LITTLE = 2
"""How far it is trusted from then on."""
_CHUNK = 8192
"""Positions that one task probes."""
_MATURE = 512
"""Steps after which refreshes become rarer: half as frequent with each doubling of the step."""


@dataclass(frozen=True)
class Seen:
    """Cells in which rays had samples since the last refresh."""

    cells: Int[Tensor, " n"]
    densest: Float[Tensor, " n"]
    """The largest density of those samples."""
    counts: Int[Tensor, " n"]
    """Their number."""

    @classmethod
    def nothing(cls, device: torch.device) -> Seen:
        """No cells."""
        cells = torch.empty(0, dtype=torch.int64, device=device)
        return cls(cells, torch.empty(0, device=device), cells)


class LearnedOccupancy:
    """A `LearningSampler`: bits that a network proposes, see the head of this file; arguments as of `OccupancyGrid`.

    State to save: the network and its moments, the empty branch, the bits and their trust.
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
        self._trust = Trust(n_cells, device)
        self._cells = Cells.of_bits(self._allowed.clone(), self.stepping)
        self.guide = Guide(n_levels, config.resolution, device, bias=2.0)
        self._haze = Parameter(torch.zeros(4, self.guide.n_features + 1, device=device))
        self._generator = torch.Generator().manual_seed(0)
        self._seen = Seen.nothing(device)
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
        seen = self._seen
        if step % self._period() or not mets or not len(seen.cells):
            return
        self._seen = Seen.nothing(self.device)
        first = self.guide.n_lessons == 0
        self._mean_sigma = _running(self._mean_sigma, float(seen.densest.mean()), first)
        self._learn(seen, mets[-1], field)
        if step >= self.config.warmup_steps // 4:
            self._revise(seen, field)

    def _period(self) -> int:
        """Steps between two refreshes: the field changes ever more slowly."""
        every = self.config.update_every
        if self._step < self.config.warmup_steps:
            return max(every // 2, 1)
        return every * 2 ** max(0, (self._step // _MATURE).bit_length() - 1)

    def share(self, ranks: Ranks) -> None:
        """Nothing: `update` is told what the rays of all ranks met."""

    @property
    def occupancy(self) -> float:
        """Share of all cells that count as occupied, in [0, 1]."""
        return float(self._cells.occupied.float().mean())

    @property
    def limit(self) -> float:
        """Density below which a cell counts as empty."""
        return _HIGHER * min(self._mean_sigma, self.config.occupancy_threshold / self.stepping.min_step)

    def _learn(self, seen: Seen, met: Met, field: Field) -> None:
        """One lesson."""
        picked = torch.randperm(len(seen.cells), generator=self._generator)[:_LESSON].to(self.device)
        solidity = 1.0 - torch.exp(-seen.densest[picked] / self.limit)
        self._share = _running(self._share, float(solidity.mean()), self.guide.n_lessons == 0)
        gradients = [self._classify(seen.cells[picked], solidity)]
        if self.config.render_weight > 0.0 and self.guide.n_lessons % _RENDER_EVERY == 0:
            gradients.append(self._render(met, field))
        self.guide.learn(gradients)

    def _seen_with(self, mets: Sequence[Met]) -> Seen:
        """What was seen since the last refresh, with what rays met now."""

        def index(met: Met) -> Tensor:
            lengths = met.samples.t_ends - met.samples.t_starts
            return self._cells.index(sample_positions(met.rays, met.samples)[owned(met)], lengths[owned(met)])

        def owned(met: Met) -> Tensor:
            """Rows that rays own: the others, on CUDA all up to the room that there was, have no length."""
            return met.samples.t_ends > met.samples.t_starts

        before = self._seen
        sigmas = torch.cat([before.densest, *(met.sigmas[owned(met)] for met in mets)])
        every = torch.cat([before.cells, *parallel(index, mets, self.device)])
        times = torch.cat([before.counts, before.counts.new_ones(len(every) - len(before.cells))])
        cells, inverse = every.unique(return_inverse=True)
        densest = sigmas.new_zeros(len(cells)).scatter_reduce_(0, inverse, sigmas, "amax")
        return Seen(cells, densest, times.new_zeros(len(cells)).index_add_(0, inverse, times))

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
        n_rays = max(round(_RENDERED * len(met.rays) / max(int(met.samples.packed_info[:, 1].sum()), 1)), 1)
        some = slice(0, min(n_rays, len(met.rays)))
        rays, background, truth = met.rays[some], met.background[some], met.truth[some]
        with torch.no_grad():
            samples = self._cells.sample(rays, torch.rand(len(rays), generator=self._generator).to(self.device))
            positions = sample_positions(rays, samples)
            sigmas, features = field.density(positions)
            rgbs = field.color(features, rays.rays_d, samples.ray_indices)[:, :3]
        found = self.guide.features(positions)
        p, haze = torch.sigmoid(self.guide.answer(found)), F.pad(found, (0, 1), value=1.0) @ self._haze.T
        rendering, thin = two_branches(p, sigmas, rgbs, haze, samples, background, truth)
        loss = self.config.render_weight * rendering + self.config.density_weight * thin
        parameters = [self._haze, *self.guide.matrices, self.guide.table]
        by_haze, *gradients = torch.autograd.grad(loss, parameters, allow_unused=True)[:-1]
        with torch.no_grad():
            self._haze -= _HAZE_LR * by_haze
        return gradients

    def _revise(self, seen: Seen, field: Field) -> None:
        """Take on the changes that samples or probes confirm, of those that the network and the rays propose."""
        young = self._step <= self.config.warmup_steps
        cells, is_dense = seen.cells, seen.densest > self.limit
        self._trust_in(cells, seen.densest)
        is_sure = ~is_dense & (seen.counts >= _PROBES)
        proposed = [self._beside(cells[is_dense]), self._anywhere()]
        proposed += [self._shuffled(cells[~is_dense & ~is_sure]), self._shuffled(self._differing())]
        candidates = torch.cat(proposed)[: None if young else _CONFIRMED].unique()
        found = self._densest(candidates, 1 if young else _PROBES, field)
        self._trust_in(candidates, found)
        candidates, which = torch.cat([candidates, cells[is_sure]]).unique(return_inverse=True)
        each = torch.cat([found, seen.densest[is_sure]])
        found = each.new_zeros(len(candidates)).scatter_reduce_(0, which, each, "amax")
        open_now = held(self._cells.bits, candidates)
        wanted = found > torch.where(open_now, 1.0, _OPENED) * self.limit
        if not young:
            doubted = open_now & ~wanted
            wanted[doubted] = ~self._trust.spend(candidates[doubted])
        self._cells = Cells.of_bits(put(self._cells.bits, candidates, wanted), self.stepping)

    def _trust_in(self, cells: Int[Tensor, " n"], densest: Float[Tensor, " n"]) -> None:
        """Trust cells by the density that was found in them."""
        if self._step >= _CLEAR:
            self._trust.raise_to(_A_LITTLE, cells[densest > self.limit])
        self._trust.raise_to(FULL, cells[densest > _SOLID * self.limit])

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
        state |= {f"seen.{name}": tensor for name, tensor in vars(self._seen).items()}
        state |= {"bits": self._cells.bits, "trust": self._trust.planes, "allowed": self._allowed}
        state["haze"] = self._haze.data
        return state | {"generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state_dict`."""
        for name, tensor in self.guide.numbers().items():
            tensor.copy_(state[f"guide.{name}"])
        self._allowed.copy_(state["allowed"])
        self._trust.planes.copy_(state["trust"])
        self._seen = Seen(*(state[f"seen.{name}"].to(self.device) for name in vars(self._seen)))
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
