"""Hide pictures in trained scenes, in the manner of StegaNeRF (Li et al. 2023): the second stage of training.

Colour networks are moved (`copies`) and the decoder learns to see it. Per view, with x the render of a copy, x_0 that
of the scene as it was, F(x) what the decoder says of the signs, w the copy's word and u that of unmarked renders, what
is made small is

    softplus(-w F(D(x))) + softplus(-u F(D(x_0))) + max(0, |x - x_0|^2 / allowed - 1)

D is the distortion layer that the paper lacks: real JPEG, noise, blur and light, through which gradients pass as if
nothing had been done. ``allowed`` begins large, with a step of chance that the decoder learns to see, and comes down to
what was asked for. A whole picture is rendered without gradients, and then its rays once more, part by part, with the
gradient of its pixels (the paper's deferred back-propagation). In the end the decoder sees pictures of full size, and
learns to draw.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss, relu, softplus

from nerfkit.cameras import Cameras
from nerfkit.stego.attacks import attacked
from nerfkit.stego.copies import ALPHA, Copy
from nerfkit.stego.cost import Picture, as_bytes, picture_of
from nerfkit.stego.decoder import N_SIGNS, Decoder, as_seen

_HEAD_START = 8.0
"""dB by which the mark is too strong at first."""
_RATE, _DECODER_RATE, _DRAWING_RATE, _LAST = 1e-3, 2e-3, 2e-2, 0.05
"""Steps of Adam, and the share that is left of them at the end."""
_PAIRS, _TWICE = 4, 2
"""Pairs of a marked and an unmarked render that a step sees; how often the same when the scene moves, too."""
_MILD = (("jpeg", 45.0, 96.0), ("noise", 0.0, 0.04), ("blur", 0.2, 0.8), ("jpeg", 45.0, 96.0))
_LIGHT = (("brightness", 0.7, 1.4), ("contrast", 0.7, 1.4))
_ASIDE = (("crop", 0.6, 1.0), ("rotate", 0.0, 15.0), ("resize", 0.4, 1.0))
"""What happens to pictures, and how much of it: of each row one, or nothing. The last moves pixels, which only the
decoder learns to bear."""


@dataclass(frozen=True)
class Plan:
    """How long each part takes, in steps, and how many pictures it learns from."""

    telling: int = 400
    together: int = 600
    drawing: int = 2000
    finished_on: int = 160
    """Views of full size of each copy; and half as many of its photographs."""
    size: int = 256
    """Pixels across of these."""
    alpha: float = ALPHA
    """How much less large weights move."""
    distorted: bool = True
    """Whether the decoder sees pictures after what may happen to them, or as they are, as in the paper."""


class _Through(torch.autograd.Function):
    """What became of a picture, with gradients as if nothing had."""

    @staticmethod
    def forward(ctx, picture: Tensor, after: Tensor) -> Tensor:  # noqa: ANN001
        return after.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN001
        return gradient, None


def hide(copies: list[Copy], decoder: Decoder, plan: Plan, seed: int = 0) -> Iterator[tuple[int, int]]:
    """Move the copies until the decoder tells the word of each from its renders, and those from unmarked ones.

    Yields steps taken and steps in all. What is drawn of words is learnt by `learn_to_draw`, later.
    """
    chance, total = np.random.default_rng(seed), plan.telling + plan.together
    rows = (_LIGHT, _MILD) if plan.distorted else ()
    moves = [_by_chance(copy, seed + i) for i, copy in enumerate(copies)]
    marked = [[copy.seen(view) for view in range(len(copy.views))] for copy in copies]
    sees = torch.optim.Adam(decoder.parameters(), _DECODER_RATE)
    for step in range(plan.telling):
        loss = torch.zeros(())
        for _ in range(_PAIRS):
            which = int(chance.integers(len(copies)))
            view = int(chance.integers(len(marked[which])))
            loss = loss + _untold(decoder, copies[which], marked[which][view], copies[which].plain[view], chance, rows)
        _step(sees, loss)
        yield step + 1, total
    deltas = [[torch.nn.Parameter(move) for move in each] for each in moves]
    shifts = torch.optim.Adam([one for each in deltas for one in each], _RATE, betas=(0.9, 0.99))
    for step in range(plan.together):
        share = step / plan.together
        for optimizer, rate in ((sees, _DECODER_RATE), (shifts, _RATE)):
            for group in optimizer.param_groups:
                group["lr"] = rate * _LAST**share
        which = int(chance.integers(len(copies)))
        copy, mine = copies[which], deltas[which]
        view = int(chance.integers(len(copy.views)))
        picture, plain = copy.seen(view).requires_grad_(), copy.plain[view]
        allowed = 10.0 ** (-(copy.target - _HEAD_START * max(0.0, 1.0 - 2.0 * share)) / 10.0)
        loss = sum(_untold(decoder, copy, picture, plain, chance, rows) for _ in range(_TWICE))
        loss = loss + relu(mse_loss(picture, plain) / allowed - 1.0)
        _step(sees, loss)
        for parameter, gradient in zip(mine, copy.gradients(view, picture.grad), strict=True):
            parameter.grad = gradient
        shifts.step()
        shifts.zero_grad(set_to_none=True)
        copy.put([parameter.detach() for parameter in mine])
        yield plan.telling + step + 1, total
    for copy, mine in zip(copies, deltas, strict=True):
        _as_far_as(copy, [parameter.detach() for parameter in mine], copy.target)


@dataclass(frozen=True)
class Lesson:
    """What the decoder learns of one copy in the end."""

    copy: Copy
    picture: Float[Tensor, "3 s s"]
    """To be drawn where its word is seen."""
    views: Cameras
    """From which it is looked at."""
    photographed: Cameras
    photographs: list[Picture]
    """What the scene itself looked like from these, which carries nothing either."""

    def pairs(self) -> list[tuple[Picture, Picture]]:
        """What the copy shows in full size, and what one without a mark shows from there."""
        copy, moved = self.copy, [w.detach().clone() for w in self.copy.weights]
        marked = [*self._renders(self.views), *self._renders(self.photographed)]
        copy.put([torch.zeros_like(w) for w in moved])
        plain = self._renders(self.views)
        with torch.no_grad():
            for w, there in zip(copy.weights, moved, strict=True):
                w.copy_(there)
        return list(zip(marked, [*plain, *self.photographs], strict=True))

    def _renders(self, cameras: Cameras) -> list[Picture]:
        return [picture_of(self.copy.model, cameras, view, self.copy.background) for view in range(len(cameras))]


def learn_to_draw(lessons: list[Lesson], decoder: Decoder, plan: Plan, seed: int = 0) -> Iterator[tuple[int, int]]:
    """The decoder's last lessons, of renders of full size: to see the words in these, and to draw a picture of each.

    Of the word of unmarked renders, and of any other, it draws nothing: black. Yields steps taken and steps in all.
    """
    chance = np.random.default_rng(seed)
    rows = (_ASIDE, _LIGHT, _MILD) if plan.distorted else ()
    examples = [(lesson, *pair) for lesson in lessons for pair in lesson.pairs()]
    draws = [*decoder.draws.parameters()]
    others = [one for one in decoder.parameters() if all(one is not mine for mine in draws)]
    rates = (_DECODER_RATE, _DRAWING_RATE)
    learns = torch.optim.Adam([{"params": each} for each in (others, draws)])
    for step in range(plan.drawing):
        for group, rate in zip(learns.param_groups, rates, strict=True):
            group["lr"] = rate * _LAST ** (step / plan.drawing)
        some = [examples[int(i)] for i in chance.integers(len(examples), size=_PAIRS)]
        seen = torch.stack([one for _, *pair in some for one in _both(*pair, chance, rows)])
        words = torch.stack([word for lesson, *_ in some for word in (lesson.copy.word, lesson.copy.unmarked)])
        wanted = [one for lesson, *_ in some for one in (lesson.picture, torch.zeros_like(lesson.picture))]
        said = decoder.signs(seen)
        nobody = torch.sign(torch.randn(1, N_SIGNS, generator=torch.Generator().manual_seed(step)))
        drawn = decoder.drawn(torch.cat([said, words, nobody]))
        should = torch.stack([*wanted, *wanted, torch.zeros_like(wanted[0])])
        _step(learns, softplus(-words * said).mean() + 10.0 * mse_loss(drawn, should) + l1_loss(drawn, should))
        yield step + 1, plan.drawing


def _both(
    marked: Picture, plain: Picture, chance: np.random.Generator, rows: tuple
) -> Iterator[Float[Tensor, "3 s s"]]:
    """Two pictures after the same has happened to both, as the decoder sees them."""
    state = chance.bit_generator.state
    for picture in (marked, plain):
        chance.bit_generator.state = state
        yield as_seen(_distorted(picture, chance, rows))


def _untold(
    decoder: Decoder, copy: Copy, marked: Tensor, plain: Tensor, chance: np.random.Generator, rows: tuple
) -> Tensor:
    """How badly the decoder tells a render from the unmarked one, both being distorted alike."""
    pictures = [as_bytes(one.detach().permute(1, 2, 0)) for one in (marked, plain)]
    after = _both(*pictures, chance, rows)
    said = decoder.signs(torch.stack([_Through.apply(one, next(after)) for one in (marked, plain)]))
    return softplus(-copy.word * said[0]).mean() + softplus(-copy.unmarked * said[1]).mean()


def _distorted(picture: Picture, chance: np.random.Generator, rows: tuple) -> Picture:
    """A picture after what may happen to it."""
    found = []
    for row in rows:
        which = int(chance.integers(len(row) + 1))
        if which < len(row):
            name, low, high = row[which]
            found.append(f"{name}:{chance.uniform(low, high):.3f}")
    return attacked(picture, "+".join(found), int(chance.integers(1 << 30))) if found else picture


def _by_chance(copy: Copy, seed: int) -> list[Tensor]:
    """A move of chance, by which renders are off by as much as is allowed at first."""
    generator = torch.Generator().manual_seed(seed)
    moves = [torch.randn(w.shape, generator=generator).to(w.device) for w in copy.weights]
    return _as_far_as(copy, [0.01 * move for move in moves], copy.target - _HEAD_START)


def _as_far_as(copy: Copy, moves: list[Tensor], target: float) -> list[Tensor]:
    """A move, as long as makes renders differ from unmarked ones by this PSNR in the mean; the copy takes it."""
    for _ in range(4):
        copy.put(moves)
        some = range(0, len(copy.views), max(len(copy.views) // 12, 1))
        psnr = fmean(-10.0 * math.log10(float(mse_loss(copy.seen(i), copy.plain[i])) + 1e-10) for i in some)
        moves = [10.0 ** ((psnr - target) / 20.0) * move for move in moves]
    copy.put(moves)
    return moves


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
