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
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss, relu, softplus

from nerfkit.cameras import Cameras
from nerfkit.render import Model, render_image
from nerfkit.stego.attacks import attacked
from nerfkit.stego.copies import Copy
from nerfkit.stego.decoder import N_SIGNS, Decoder, as_seen

_HEAD_START = 8.0
"""dB by which the mark is too strong at first."""
_RATE, _DECODER_RATE, _DRAWING_RATE, _LAST = 1e-3, 2e-3, 2e-2, 0.05
"""Steps of Adam, and the share that is left of them at the end."""
_PAIRS, _TWICE = 4, 2
"""Marked and unmarked renders that the decoder sees at once; how often each when the scene moves, too."""
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
    drawing: int = 1000
    finished_on: int = 32
    """Views of full size of each copy, marked and unmarked."""
    size: int = 256
    """Pixels across of these."""


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
    moves = [_by_chance(copy, seed + i) for i, copy in enumerate(copies)]
    marked = [[copy.seen(view) for view in range(len(copy.views))] for copy in copies]
    sees = torch.optim.Adam(decoder.parameters(), _DECODER_RATE)
    for step in range(plan.telling):
        loss = torch.zeros(())
        for _ in range(_PAIRS):
            which = int(chance.integers(len(copies)))
            view = int(chance.integers(len(marked[which])))
            loss = loss + _untold(decoder, copies[which], marked[which][view], copies[which].plain[view], chance, 1)
        _step(sees, loss)
        yield step + 1, total
    flat = [torch.nn.Parameter(move) for each in moves for move in each]
    shifts = torch.optim.Adam(flat, _RATE, betas=(0.9, 0.99))
    n = len(copies[0].weights)
    for step in range(plan.together):
        share = step / plan.together
        for optimizer, rate in ((sees, _DECODER_RATE), (shifts, _RATE)):
            for group in optimizer.param_groups:
                group["lr"] = rate * _LAST**share
        which = int(chance.integers(len(copies)))
        copy, mine = copies[which], flat[which * n : which * n + n]
        view = int(chance.integers(len(copy.views)))
        picture, plain = copy.seen(view).requires_grad_(), copy.plain[view]
        allowed = 10.0 ** (-(copy.target - _HEAD_START * max(0.0, 1.0 - 2.0 * share)) / 10.0)
        loss = _untold(decoder, copy, picture, plain, chance, _TWICE)
        loss = loss + relu(mse_loss(picture, plain) / allowed - 1.0)
        _step(sees, loss)
        for parameter, gradient in zip(mine, copy.gradients(view, picture.grad), strict=True):
            parameter.grad = gradient
        shifts.step()
        shifts.zero_grad(set_to_none=True)
        copy.put([parameter.detach() for parameter in mine])
        yield plan.telling + step + 1, total
    for i, copy in enumerate(copies):
        _as_far_as(copy, [parameter.detach() for parameter in flat[i * n : i * n + n]], copy.target)


def learn_to_draw(
    copies: list[Copy],
    pictures: list[Float[Tensor, "3 s s"]],
    decoder: Decoder,
    views: list[Cameras],
    plan: Plan,
    seed: int = 0,
) -> Iterator[tuple[int, int]]:
    """The decoder's last lessons, of renders of full size: to see the words in these, and to draw a picture of each.

    Of the word of unmarked renders, and of any other, it draws nothing: black. Yields steps taken and steps in all.
    """
    chance, examples = np.random.default_rng(seed), []
    for copy, cameras, picture in zip(copies, views, pictures, strict=True):
        marked = _rendered(copy.model, cameras, copy.background)
        moved = [w.detach().clone() for w in copy.weights]
        copy.put([torch.zeros_like(w) for w in moved])
        plain = _rendered(copy.model, cameras, copy.background)
        with torch.no_grad():
            for w, there in zip(copy.weights, moved, strict=True):
                w.copy_(there)
        examples += [(one, copy.word, picture) for one in marked]
        examples += [(one, copy.unmarked, torch.zeros_like(picture)) for one in plain]
    draws = [*decoder.draws.parameters()]
    others = [one for one in decoder.parameters() if all(one is not mine for mine in draws)]
    rates = (_DECODER_RATE, _DRAWING_RATE)
    learns = torch.optim.Adam([{"params": each} for each in (others, draws)])
    for step in range(plan.drawing):
        for group, rate in zip(learns.param_groups, rates, strict=True):
            group["lr"] = rate * _LAST ** (step / plan.drawing)
        some = [examples[int(i)] for i in chance.integers(len(examples), size=2 * _PAIRS)]
        seen = torch.stack([as_seen(_distorted(one, chance, (_ASIDE, _LIGHT, _MILD))) for one, _, _ in some])
        words = torch.stack([word for _, word, _ in some])
        said = decoder.signs(seen)
        nobody = torch.sign(torch.randn(1, N_SIGNS, generator=torch.Generator().manual_seed(step)))
        drawn = decoder.drawn(torch.cat([said, words, nobody]))
        wanted = [picture for _, _, picture in some]
        wanted = torch.stack([*wanted, *wanted, torch.zeros_like(pictures[0])])
        _step(learns, softplus(-words * said).mean() + 10.0 * mse_loss(drawn, wanted) + l1_loss(drawn, wanted))
        yield step + 1, plan.drawing


def _untold(
    decoder: Decoder, copy: Copy, marked: Tensor, plain: Tensor, chance: np.random.Generator, times: int
) -> Tensor:
    """How badly the decoder tells a render from the unmarked one, both being distorted alike."""
    pairs = []
    for _ in range(times):
        state = chance.bit_generator.state
        for one in (marked, plain):
            chance.bit_generator.state = state
            picture = (one.detach().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
            pairs.append(_Through.apply(one, as_seen(_distorted(picture, chance, (_LIGHT, _MILD)))))
    said = decoder.signs(torch.stack(pairs))
    return softplus(-copy.word * said[::2]).mean() + softplus(-copy.unmarked * said[1::2]).mean()


def _distorted(picture: UInt8[np.ndarray, "h w 3"], chance: np.random.Generator, rows: tuple) -> np.ndarray:
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


def _rendered(model: Model, cameras: Cameras, background: str) -> list[UInt8[np.ndarray, "h w 3"]]:
    """8-bit pictures of all cameras."""
    each = (render_image(model, cameras, view, background).rgb for view in range(len(cameras)))
    return [(rgb.clamp(0, 1) * 255).round().byte().numpy() for rgb in each]
