"""Where there is most to learn: blocks of photographs that a pruned field forgets, and those that nobody forgets.

What a network forgets first when it is pruned is what it finds hard (Hooker et al. 2019, "What Do Compressed Deep
Neural Networks Forget?"): the field is compared with itself, so that no noise of the photographs is taken for detail.
And what was learned and never forgotten can be left out for a while (Kong et al. 2023, "Peeling the Onion", of
training examples; here of rays).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerfkit.config import TrainConfig
from nerfkit.render import render_rays
from nerfkit.sparsity.criteria import smallest_pruned
from nerfkit.sparsity.spaces import parts_of
from nerfkit.train.detail import Detail
from nerfkit.train.training import Training

BEGIN, EVERY = 0.15, 0.075
"""Shares of the training before the first look and between two."""
LOOKED_AT = 0.05
"""Blocks that a look is at, a pixel each, as a share of the rays that were learned from since the last one."""
WITHOUT = 0.5
"""Share of the weights that the copy has lost."""
_POWER = 0.5
"""Of a block's hardness, in its weight."""
_WIDEST = 4.0
"""How far hardness may move a weight, either way."""
_NEW = 0.5
"""Share of the newest look in what is known of a block."""
_ROTATED = 0.25
"""Share of what is left out that comes back at a look."""
_CHUNK = 8192


class Mining:
    """A `Policy` that looks now and then at blocks of all photographs, and has rays drawn by what it finds."""

    def __init__(self, config: TrainConfig):
        self.by, self.dropped, self.seed = config.mining, config.dropped, config.seed
        self.n_looks = 0
        self.n_rays = 0
        """Learned from before the last look."""
        self._photographed: Detail | None = None
        """The blocks, with the weights that they have by the photographs alone."""

    def _begin(self, training: Training) -> bool:
        """Learn which blocks there are; False where photographs are alike all over."""
        detail = training.pixels.detail
        if self._photographed is None and detail is not None:
            self._photographed, n = detail, len(detail)
            self.hardness = torch.full((n,), -1.0)
            """Mean square of what the field and its copy, or the photograph, differ by; negative before a look."""
            self.forgotten = torch.zeros(n, dtype=torch.int16)
            """Looks at which a block was worse than the middle one, having been better."""
            self.left_out = torch.zeros(n, dtype=torch.bool)
        return detail is not None

    def before_step(self, training: Training) -> None:
        """Nothing: only what is drawn next changes."""

    def after_step(self, training: Training) -> None:
        """Look, if it is time to."""
        progress = training.clock.progress(training.model.config)
        if BEGIN + self.n_looks * EVERY <= progress < 1.0 and self._begin(training):
            self.look(training)

    def look(self, training: Training) -> None:
        """Learn how hard some blocks are, and prefer those from now on."""
        generator = torch.Generator().manual_seed(self.seed + 7919 * self.n_looks)
        n = max(round(LOOKED_AT * (training.clock.n_rays - self.n_rays)), 1)
        blocks = torch.randperm(len(self.hardness), generator=generator)[:n]
        within = torch.rand(len(blocks), 2, generator=generator, dtype=torch.float64)
        found = self._differences(training, self._photographed.pixels_of(blocks, within))
        known = self.hardness[blocks]
        now = torch.where(known < 0.0, found, (1.0 - _NEW) * known + _NEW * found)
        middle = now.median()
        self.forgotten[blocks] += ((known >= 0.0) & (known <= middle) & (now > middle)).to(torch.int16)
        self.hardness[blocks] = now
        self.n_looks, self.n_rays = self.n_looks + 1, training.clock.n_rays
        self._rotate(generator)
        self._prefer(training)

    def _differences(self, training: Training, picked: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Mean square over channels of what pixels show now, beside what they should or what a pruned copy shows."""
        shown, background = _shown(training, picked)
        if self.by == "pruned":
            field = training.model.field
            parts = parts_of(field, "weights")
            whole = {part.name: torch.ones(part.shape, dtype=torch.bool) for part in parts}
            masks = smallest_pruned(field, parts, whole, WITHOUT)
            kept = {name: field.get_parameter(name).detach().clone() for name in masks}
            with torch.no_grad():
                for name, mask in masks.items():
                    field.get_parameter(name).mul_(mask.to(field.table.device))
                other, _ = _shown(training, picked)
                for name, w in kept.items():
                    field.get_parameter(name).copy_(w)
        else:
            other = training.pixels.colors(picked, background)
            if training.exposure is not None:
                other = other / training.exposure.gains(training.clock.step)[training.pixels.views(picked)]
        return (shown - other).square().mean(1).cpu()

    def _rotate(self, generator: torch.Generator) -> None:
        """Let some blocks come back, and leave out those that were forgotten least instead, any of them if alike."""
        n = round(self.dropped * len(self.hardness))
        if n == 0:
            return
        out = self.left_out.nonzero()[:, 0]
        back = out[torch.randperm(len(out), generator=generator)[: math.ceil(_ROTATED * n)]]
        eligible = ~self.left_out
        self.left_out[back] = False
        order = self.forgotten + torch.rand(len(self.hardness), generator=generator)
        order = torch.where(self.hardness > self.hardness.median(), order + 1.0, order)
        order = order.masked_fill(~eligible, math.inf)
        self.left_out[order.argsort()[: n - int(self.left_out.sum())]] = True

    def _prefer(self, training: Training) -> None:
        factor = torch.ones_like(self.hardness)
        if self.by != "none":
            known = self.hardness >= 0.0
            size = self.hardness.clamp(min=0.0).sqrt()
            mean = size[known].mean().clamp(min=1e-12)
            factor = torch.where(known, (size / mean) ** _POWER, factor).clamp(1.0 / _WIDEST, _WIDEST)
        training.pixels.prefer(self._photographed.weights * factor, self.left_out)

    def state_dict(self) -> dict[str, Tensor]:
        """What is known of all blocks; nothing before the first look."""
        if self._photographed is None:
            return {}
        known = {"hardness": self.hardness, "forgotten": self.forgotten, "left_out": self.left_out}
        return {**known, "looks": torch.tensor([self.n_looks, self.n_rays])}

    def load_state_dict(self, state: dict[str, Tensor], training: Training) -> None:
        """The inverse of `state_dict`."""
        if state and self._begin(training):
            self.hardness, self.forgotten, self.left_out = (
                state[name].clone() for name in ("hardness", "forgotten", "left_out")
            )
            self.n_looks, self.n_rays = state["looks"].tolist()
            self._prefer(training)


def _shown(training: Training, picked: Int[Tensor, " n"]) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """What pixels show now, and what is behind them there: the sky, or grey."""
    model, pixels = training.model, training.pixels
    seen, behind = [], []
    with torch.no_grad():
        for some in picked.split(_CHUNK):
            rays = pixels.rays(some, model.frame)
            sky = pixels.scene.has_sky
            background = model.field.behind(rays.rays_d) if sky else torch.full_like(rays.rays_d, 0.5)
            jitter = torch.full((len(some),), 0.5, device=model.device)
            seen.append(render_rays(model.field, model.sampler, rays, background, jitter).rgb)
            behind.append(background)
    return torch.cat(seen), torch.cat(behind)
