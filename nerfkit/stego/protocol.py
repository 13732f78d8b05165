"""Whether messages come back: marked renders from cameras that nobody has seen, attacked as pictures are, and read.

Views lie between the training cameras and, about an object, 0.75 to 1.5 times as far from it; none was seen in training
or in marking. Each message of each key is looked at from places of its own, so that readings of one attack are all of
different views. Renders are pictures of 8 bits, attacked and read alone, and with three and seven others. The owner's
run stays as it is: copies are marked in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float
from scipy.stats import beta
from torch import Tensor

from nerfkit.cameras import Cameras
from nerfkit.render import Model
from nerfkit.run import Run
from nerfkit.scene.scene import Scene
from nerfkit.stego.attacks import Picture, attacked
from nerfkit.stego.cost import picture_of, psnr, worst_psnr
from nerfkit.stego.embed import moved
from nerfkit.stego.extract import RATE, VERIFY_RATE, fused, hear
from nerfkit.stego.keys import Key, StegoError
from nerfkit.stego.mark import Mark
from nerfkit.stego.message import FORMATS, Letter, Reading
from nerfkit.stego.plan import NONE, Plan
from nerfkit.stego.reading import N_LOOKS
from nerfkit.stego.views import views_between
from nerfkit.stego.weights import compared, told

Row = dict[str, Any]
Missing = Callable[[Row], bool]
"""Whether no row says all of this yet."""
_MOVES = ("crop", "rotate")
"""Attacks that move pixels: what was where tells nothing of the harm."""
GROUPS = (1, 4, 8)
"""Pictures that are read together."""


@dataclass(frozen=True)
class Bench:
    """An owner's run, its scene, and cameras from which it is looked at."""

    run: Run
    model: Model
    mark: Mark
    scene: Scene
    cameras: Cameras

    @classmethod
    def of(cls, run: Run, model: Model, mark: Mark, scene: Scene, plan: Plan) -> Bench:
        """With the cameras of a plan. Raises StegoError where it asks for nothing."""
        tried = plan.keys, plan.messages, plan.views, plan.pictures, plan.wrong_keys, plan.forged_from
        if min(tried) < 1 or plan.pairs < 4:
            raise StegoError("a bench needs one of everything that it tries at least, and four pairs")
        return cls(run, model, mark, scene, views_between(scene, plan.views, plan.size, 0))

    def elsewhere(self, *place: int) -> Bench:
        """The same, looked at from as many other cameras: the same ones for the same numbers."""
        width, height = int(self.cameras.width[0]), int(self.cameras.height[0])
        return replace(self, cameras=views_between(self.scene, len(self.cameras), (width, height), (0, *place)))

    def renders(self, model: Model | None = None, cameras: Cameras | None = None) -> list[Picture]:
        """What a model, this one by default, shows cameras, these by default."""
        cameras = self.cameras if cameras is None else cameras
        background = self.mark.terms.background
        return [picture_of(model or self.model, cameras, view, background) for view in range(len(cameras))]

    def heard(self, pictures: Sequence[Picture]) -> list[Float[Tensor, " n"] | None]:
        """What pictures say to the carriers."""
        return [hear(self.model, self.mark, picture) for picture in pictures]

    def letter(self, key: Key) -> Letter:
        """A key's messages in this scene."""
        return Letter(key.of_scene(self.mark.terms.scene), FORMATS[self.mark.terms.n_bits])

    def message(self, number: int) -> bytes:
        """One of those that are tried."""
        return np.random.default_rng(number).bytes(self.mark.terms.n_bits // 8)

    def at(self, psnr: float) -> Bench:
        """The same with a mark of the strength that puts renders about so far from unmarked ones, dB."""
        return replace(self, mark=self.mark.scaled(10.0 ** ((self.mark.terms.psnr - psnr) / 20.0)))

    @contextmanager
    def marked(self, key: Key, message: bytes) -> Iterator[None]:
        """The model with a message in it, for as long as the block lasts."""
        with moved(self.model, self.mark, self.letter(key), message):
            yield

    def reading(self, heard: Sequence[Float[Tensor, " n"] | None], letter: Letter, message: bytes) -> Row:
        """What pictures that say this tell of a message: those found in the scene, their raw bits, how often it
        is read, and how often it is verified."""
        found = [one for one in heard if one is not None]
        n_bits = letter.format.code.n
        agreeing = [letter.verify(fused(self.mark, letter, [one]), message)[0] for one in found]
        row: Row = {"found": [len(found), len(heard)], "raw": fmean(agreeing) / n_bits if found else None}
        for k in GROUPS:
            groups = [heard[i : i + k] for i in range(0, len(heard) - k + 1, k)]
            exact = [self.reads([one for one in group if one is not None], letter) == message for group in groups]
            row[f"exact_{k}"] = [sum(exact), len(exact)]
            present = [self.verifies([one for one in group if one is not None], letter, message) for group in groups]
            row[f"verified_{k}"] = [sum(present), len(present)]
        return row

    def reads(self, heard: Sequence[Float[Tensor, " n"]], letter: Letter) -> bytes | None:
        """The message of pictures, together, if one counts as found."""
        return counted(letter.read(fused(self.mark, letter, list(heard))), N_LOOKS) if heard else None

    def verifies(self, heard: Sequence[Float[Tensor, " n"]], letter: Letter, message: bytes) -> bool:
        """Whether pictures, together, count as carrying a message that is asked for."""
        if not heard:
            return False
        return N_LOOKS * letter.verify(fused(self.mark, letter, list(heard)), message)[1] <= VERIFY_RATE

    def inspects(self, suspect: Float[Tensor, "entries features"], letter: Letter) -> bytes | None:
        """The message of a table's numbers, if one counts as found. The model is to be unmarked meanwhile."""
        layout = self.model.field.grid.layout
        heard = compared(self.mark.carriers, layout, self.model.field.table, suspect)
        each = told(self.mark.carriers, letter, heard)
        return counted(letter.read(each["carriers"] + each["numbers"]))


def counted(reading: Reading | None, looks: int = 1) -> bytes | None:
    """The message of a reading, one of so many looks, if it counts as found."""
    return None if reading is None or looks * reading.p_value > RATE else reading.message


def key(number: int) -> Key:
    """One of the keys that are tried: of no use to anybody."""
    return Key(number.to_bytes(32, "big"))


def attack_rows(bench: Bench, plan: Plan, missing: Missing) -> Iterator[Row]:
    """Attacks on marked renders, for every strength, key and message."""
    for here in (bench, *(bench.at(decibel) for decibel in plan.psnr)):
        for k, m in np.ndindex(plan.keys, plan.messages):
            each = here.elsewhere(k, m)
            what = {"size": plan.size, "views": plan.views, "strength": strength(each.mark), "key": k, "message": m}
            left = [by for by in plan.attacks if missing({**what, "attack": by})]
            if not left:
                continue
            letter, message = each.letter(key(k)), each.message(m)
            plain = each.renders()
            with each.marked(key(k), message):
                marked = each.renders()
            pairs = list(zip(marked, plain, strict=True))
            cost = {"psnr": psnr(pairs), "worst_psnr": worst_psnr(pairs)}
            for by in left:
                first = (k * plan.messages + m) * len(marked)
                pictures = [attack_one(picture, by, first + i) for i, picture in enumerate(marked)]
                off = None if any(name in by for name in _MOVES) else attack_psnr(marked, pictures)
                read = each.reading(each.heard(pictures), letter, message)
                yield {**what, "attack": by, "attack_psnr": off, **cost, **read}


def strength(mark: Mark) -> float:
    """By which rows of marks of one scene are told apart."""
    return round(mark.terms.psnr, 2)


def attack_one(picture: Picture, by: str, seed: int) -> Picture:
    """A picture attacked, or as it is."""
    return picture if by == NONE else attacked(picture, by, seed)


def attack_psnr(pictures: Sequence[Picture], afterwards: Sequence[Picture]) -> float:
    """What attacks themselves do to pictures, dB, those that were made smaller being brought back."""
    pairs = []
    for before, after in zip(pictures, afterwards, strict=True):
        size = before.shape[1], before.shape[0]
        pairs.append((before, cv2.resize(after, size, interpolation=cv2.INTER_CUBIC)))
    return psnr(pairs)


def interval(good: int, n: int) -> tuple[float, float]:
    """Between which a rate lies of which this was seen, with 95 % (Clopper and Pearson 1934).

    >>> tuple(round(bound, 3) for bound in interval(0, 10)), round(interval(8, 8)[0], 3)
    ((0.0, 0.308), 0.631)
    """
    low = 0.0 if good == 0 else float(beta.ppf(0.025, good, n - good + 1))
    high = 1.0 if good == n else float(beta.ppf(0.975, good + 1, n - good))
    return low, high


def at_most(good: int, n: int) -> float:
    """A rate that is not exceeded, with 95 %: of the same kind, one-sided.

    >>> round(at_most(0, 10_000), 6)
    0.0003
    """
    return 1.0 if good == n else float(beta.ppf(0.95, good + 1, n - good))
