"""What a training step draws where part of its rays come as patches, and what rendered patches lose."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nerfkit.config import Config, ConfigError, TrainConfig
from nerfkit.fields.conv import DeferredHead
from nerfkit.kernels.lesson import Verdict
from nerfkit.perceptual import FirstBlock, LpipsError
from nerfkit.train.align import Matches, matches
from nerfkit.train.later import known
from nerfkit.train.losses import Huber, high_frequency
from nerfkit.train.pixels import Patches, Pixels

Detail = Callable[[Tensor, Tensor], Tensor]
"""How much patches (n, s, s, 3) differ from true ones in fine detail."""


def detail_of(config: TrainConfig) -> Detail:
    """What sees fine detail. Raises ConfigError where its weights are asked for and missing."""
    if config.high_frequency_by == "filters" or config.high_frequency == 0.0:
        return high_frequency
    try:
        return FirstBlock()
    except LpipsError as error:
        raise ConfigError(f"train.high_frequency_by: {error}") from None


@dataclass(frozen=True)
class PatchLoss:
    """What patches lose: pixel by pixel, and in fine detail.

    The colour by which a whole patch is off pulls all of its rays one way, and a few patches would outshout the single
    rays of the step, of which each has seen something else. Of errors e with the mean m over a patch the loss is
    that of e - (1 - sqrt(share)) m: the square of m counts by the share, wholly where all rays come in patches.
    """

    pixels: Huber
    detail: Detail
    weight: float
    """Factor on the detail; 0 leaves it out."""
    share: float
    """Of the rays in patches, (0, 1]."""

    def __call__(self, shown: Float[Tensor, "n s s 3"], truth: Float[Tensor, "n s s 3"]) -> Float[Tensor, ""]:
        """The loss of patches, summed."""
        off = (shown - truth).mean((1, 2), keepdim=True)
        fair = shown - (1.0 - math.sqrt(self.share)) * off
        loss = self.pixels(fair.reshape(-1, 3), truth.reshape(-1, 3))
        return loss + self.weight * self.detail(shown, truth) if self.weight else loss


@dataclass(frozen=True)
class Draw:
    """The pixels of a training step: single ones, and behind them those of patches."""

    singles: Int[Tensor, " n"]
    patches: Patches | None = None

    @cached_property
    def picked(self) -> Int[Tensor, " n_rays"]:
        """Indices of all pixels."""
        return self.singles if self.patches is None else torch.cat([self.singles, self.patches.pixels()])

    def each(self, values: Float[Tensor, "n_draws c"]) -> Float[Tensor, "n_rays c"]:
        """One row for each single pixel and for each patch -> one for each pixel, alike within a patch."""
        if self.patches is None:
            return values
        n = len(self.singles)
        return torch.cat([values[:n], values[n:].repeat_interleave(self.patches.size**2, 0)])

    @property
    def n_draws(self) -> int:
        """Single pixels and patches."""
        return len(self.singles) + (0 if self.patches is None else len(self.patches))


BEGIN = 0.2
"""Share of the training from which on there are patches. A young field that is shown many rays of one place at once
puts fog before that camera, of which it is slow to get rid."""
_EVERY = 4
"""Steps of which one has patches, all that are due: what a judge takes does not grow with their number."""


def share_at(step: int, progress: float, config: Config) -> float:
    """Share of the rays of a step that come in patches."""
    share = config.train.patch_share
    every = _EVERY if share * _EVERY <= 1.0 else 1
    return every * share if config.has_patches and progress >= BEGIN and step % every == 0 else 0.0


def draw(pixels: Pixels, n_rays: int, share: float, config: TrainConfig, generator: torch.Generator) -> Draw:
    """About n pixels, of which such a share comes in patches."""
    if share == 0.0:
        return Draw(pixels.draw(n_rays, generator, config.detail_share))
    size = config.patch_size
    n_patches = max(1, round(share * n_rays / size**2))
    n_singles = max(n_rays - n_patches * size**2, 0)
    singles = pixels.draw(n_singles, generator, config.detail_share)
    return Draw(singles, pixels.patches(n_patches, size, generator, config.align))


@dataclass(frozen=True)
class Windows:
    """The surroundings of patches in their photographs, in which they are laid where they fit."""

    truth: Float[Tensor, "n w w 3"]
    inside: Bool[Tensor, "n m m"]
    """Offsets (y, x) that do not lead over the border of the photograph."""
    offset_weight: float

    def __getitem__(self, which: slice) -> Windows:
        return Windows(self.truth[which], self.inside[which], self.offset_weight)


@dataclass
class PatchJudge:
    """The loss of the rendered patches of one task, and afterwards where they were laid."""

    loss: PatchLoss
    truth: Float[Tensor, "n_rays 3"]
    size: int
    head: DeferredHead | None
    windows: Windows | None
    found: Matches | None = None

    def __call__(self, gathered: Float[Tensor, "n_rays c"]) -> Verdict:
        """The loss of what rays gathered, patch after patch, and its gradients."""
        gathered = gathered.detach().requires_grad_()
        patches = gathered.view(-1, self.size, self.size, gathered.shape[1])
        shown = patches[..., :3] if self.head is None else self.head(patches)
        truth = self.truth.view(shown.shape)
        if self.windows is not None:
            w = self.windows
            self.found = matches(shown, w.truth, w.inside, w.offset_weight)
            truth = self.found.truth
        loss = self.loss(shown, truth)
        more = [] if self.head is None else [*self.head.parameters()]
        g_gathered, *g_more = torch.autograd.grad(loss, [gathered, *more])
        return Verdict(known(loss.detach()), g_gathered, shown.detach().reshape(-1, 3), tuple(g_more))


def judges_of(
    drawn: Draw,
    windows: Windows | None,
    head: DeferredHead | None,
    truth: Float[Tensor, "n_rays 3"],
    loss: PatchLoss,
    n_tasks: int,
) -> list[PatchJudge]:
    """Judges of the patches of a step, one for each task as far as there are patches."""
    if drawn.patches is None:
        return []
    n, n_patches, size = len(drawn.singles), len(drawn.patches), drawn.patches.size
    n_judges = min(n_tasks, n_patches)
    bounds = [n_patches * i // n_judges for i in range(n_judges + 1)]
    judges = []
    for begin, end in zip(bounds, bounds[1:], strict=False):
        rays = slice(n + begin * size**2, n + end * size**2)
        around = None if windows is None else windows[begin:end]
        judges.append(PatchJudge(loss, truth[rays], size, head, around))
    return judges
