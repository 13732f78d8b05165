"""Proposals, in the manner of mip-NeRF 360: a small network says roughly how dense it is, and samples gather there.

Long steps through all that may be occupied are asked of the network; of the weights that they would have as a picture,
new intervals are drawn, all of the same weight, for the field. The network learns from the field's own weights
(`histogram.interlevel`). No cell is remembered, and there is no threshold: surfaces get more samples than any step
through cells would give them, and empty rays a few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nerfkit.config import SamplerConfig
from nerfkit.kernels.cells import Cells
from nerfkit.kernels.launch import parallel
from nerfkit.kernels.march import Stepping, sample_positions
from nerfkit.kernels.propose import Believed, propose
from nerfkit.ranks import Ranks
from nerfkit.sampling.alike import place_alike
from nerfkit.sampling.guide import Guide
from nerfkit.sampling.histogram import interlevel, opacities, resample, weights_of
from nerfkit.sampling.stepping import stepping_of
from nerfkit.types import Field, Met, Rays, Samples

_COARSER = 4.0
"""Shortest step of the network's, in those of the field's through cells."""
_CONE = 1.0 / 12.0
"""Growth of the network's steps with distance."""
_LONGEST = 0.125
"""Longest of them, in sides of the unit cube."""
_MOST = 256
"""Of these steps on a ray."""
_FEWEST = 4
"""Intervals of a ray that the network calls empty."""
_FLOOR = 0.01
"""Weight of all intervals together that nothing was proposed for, lest they are never seen again."""
_ANNEAL = 1000
"""Steps over which a proposal comes to be believed."""
_EXCESS_WEIGHT = 0.1
_LESSON = 256
"""Rays of a lesson."""
_WATCHED = 8
"""Steps of which one gives a lesson."""


class ProposalSampler:
    """A `LearningSampler` without cells of its own: see the head of this file; arguments as of `OccupancyGrid`.

    State to save: the network and its moments, what is allowed.
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
        stepping = stepping_of(config, n_levels, near_plane, far_plane)
        n_words = n_levels * config.resolution**3 // 32
        everything = torch.full((n_words,), -1, dtype=torch.int32, device=device)
        bits = everything if allowed is None else Cells.of(allowed.to(device), stepping).bits
        self._allow(bits, stepping)
        self.guide = Guide(n_levels, config.resolution, device)
        self._step = 0

    def sample(self, rays: Rays, jitter: Float[Tensor, " n_rays"]) -> Samples:
        """Intervals of rays (model coordinates) that are proposed; ``jitter`` in [0, 1) shifts their borders."""
        believed = self._believed()
        if self.device.type == "cpu":
            numbers = [self.guide.table, *self.guide.matrices]
            return propose(self._long, rays, jitter, self.guide.grid, numbers, believed)
        return self.in_stages(rays, jitter, believed)

    def in_stages(self, rays: Rays, jitter: Float[Tensor, " n_rays"], believed: Believed) -> Samples:
        """The same, one stage after the other over all steps."""
        with torch.no_grad():
            coarse = self._long.sample(rays, jitter)
            weights = weights_of(torch.exp(self.guide.ask(sample_positions(rays, coarse))), coarse)
            dense = opacities(weights, coarse).clamp(0.0, 1.0) ** believed.exponent
            counts = torch.ceil(believed.most * dense).clamp(min=believed.fewest).int()
            n_steps = coarse.packed_info[:, 1].clamp(min=1)
            floor = (believed.floor / n_steps)[coarse.ray_indices.long()]
            return resample(coarse, weights**believed.exponent + floor, counts, jitter)

    def sample_alike(
        self, rays: Rays, shape: tuple[int, int, int], jitter: Float[Tensor, " n_rays"]
    ) -> tuple[Samples, Bool[Tensor, " n_samples"]]:
        """``n_proposed`` intervals on each ray of patches (`place_alike`), and which of them may hold anything."""
        believed = self._believed()

        def weigh(middles: Tensor, lengths: Tensor) -> Tensor:
            places, long = middles.reshape(-1, 3), lengths.expand(len(middles), -1)
            there = self._long.hold(places, long.reshape(-1)).view_as(long)
            thickness = torch.exp(self.guide.ask(places.clamp(0.0, 1.0))).view_as(long) * long * there
            weights = torch.exp(thickness - thickness.cumsum(1)) * -torch.expm1(-thickness)
            floor = believed.floor / there.sum(1, keepdim=True).clamp(min=1)
            return (weights**believed.exponent + floor) * there

        with torch.no_grad():
            samples = place_alike(rays, shape, jitter, believed.most, self._long.stepping, weigh)
            middles, owners = (samples.t_starts + samples.t_ends)[:, None] / 2, samples.ray_indices.long()
            places = rays.rays_o[owners] + middles * rays.rays_d[owners]
            return samples, self._allowed.hold(places, samples.t_ends - samples.t_starts)

    def steps(self, rays: Rays, jitter: Float[Tensor, " n_rays"]) -> Samples:
        """The same: a kernel of whole rays takes them as they are listed."""
        return self.sample(rays, jitter)

    def _believed(self) -> Believed:
        progress = min(self._step / _ANNEAL, 1.0)
        return Believed(10.0 * progress / (9.0 * progress + 1.0), _FLOOR, _FEWEST, self.config.n_proposed)

    def cells(self) -> Cells:
        """All that may be occupied."""
        return self._allowed

    def watches(self) -> bool:
        """Whether the coming step gives a lesson; in the warm-up more of them do."""
        every = _WATCHED // 4 if self._step < self.config.warmup_steps else _WATCHED
        return (self._step + 1) % every == 0

    def update(self, step: int, field: Field, mets: Sequence[Met] = ()) -> None:
        """Learn from what rays met."""
        self._step = step
        if not mets:
            return
        n_rays = -(-_LESSON // len(mets))
        self.guide.learn(parallel(lambda met: self._lesson(met, n_rays), mets, self.device))

    def share(self, ranks: Ranks) -> None:
        """Nothing: `update` is told what the rays of all ranks met."""

    @property
    def occupancy(self) -> float:
        """Share of all cells that may be occupied, in [0, 1]."""
        return float(self._allowed.occupied.float().mean())

    def _lesson(self, met: Met, n_rays: int) -> list[Tensor | None]:
        """Gradients of the network's matrices, by what the first of some rays met."""
        rays = met.rays[slice(0, n_rays)]
        fine, sigmas = _of_first(met, len(rays))
        coarse = self._long.sample(rays, torch.full((len(rays),), 0.5, device=self.device))
        with torch.enable_grad():
            answer = self.guide.answer(self.guide.features(sample_positions(rays, coarse)))
            proposed = weights_of(torch.exp(answer), coarse)
            weights = weights_of(sigmas, fine)
            excess = (opacities(proposed, coarse) - opacities(weights, fine)).clamp(min=0.0)
            loss = interlevel(proposed, coarse, weights, fine) + _EXCESS_WEIGHT * (excess**2).mean()
        return list(torch.autograd.grad(loss, [*self.guide.matrices, self.guide.table], allow_unused=True)[:-1])

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        state = {f"guide.{name}": tensor for name, tensor in self.guide.numbers().items()}
        numbers = torch.tensor([self._step, self.guide.n_lessons], dtype=torch.int64)
        return state | {"allowed": self._allowed.bits, "step": numbers[0], "n_lessons": numbers[1]}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state_dict`."""
        for name, tensor in self.guide.numbers().items():
            tensor.copy_(state[f"guide.{name}"])
        self._step, self.guide.n_lessons = int(state["step"]), int(state["n_lessons"])
        bits = self._allowed.bits.clone().copy_(state["allowed"])
        self._allow(bits, self._allowed.stepping)

    def _allow(self, bits: Int[Tensor, " words"], stepping: Stepping) -> None:
        self._allowed = Cells.of_bits(bits, stepping)
        lengths = {"min_step": _COARSER * stepping.min_step, "max_step": _COARSER * stepping.min_step}
        if stepping.n_levels > 1:
            lengths |= {"max_step": _LONGEST, "cone_angle": _CONE}
        self._long = replace(self._allowed, stepping=replace(stepping, max_samples=_MOST, **lengths))


def _of_first(met: Met, n_rays: int) -> tuple[Samples, Float[Tensor, " n"]]:
    """The samples of the first rays, and their densities."""
    packed_info = met.samples.packed_info[:n_rays]
    n = int(packed_info[-1].sum())
    owners, starts, ends = (x[:n] for x in (met.samples.ray_indices, met.samples.t_starts, met.samples.t_ends))
    return Samples(packed_info, owners, starts, ends, n), met.sigmas[:n]
