"""A message as the bits that a scene carries, and how sure one may be of one that is read.

A message and some zeros are scrambled by the key (where no zeros come back, it was none: encode, then encipher, Bellare
and Rogaway 2000) and become a word of a code (`code`), whose bits are put in a keyed order and turned by keyed coins.
What is read of a picture that was made without the key agrees with the turned bits of any word as fair coins do,
whatever the picture and however sure it seems of each bit. Hence the error rates below hold for every such picture: the
chance is that of the key. So it is, as nearly as words of the code are spread like coins, for a picture that carries
another message of the key: scrambled, two of them differ in half of all bits, however alike they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from nerfkit.stego.code import Code
from nerfkit.stego.keys import Secret, StegoError

_GRID = 1 << 15
"""Into how many parts a sum is divided to be counted out."""


@dataclass(frozen=True)
class Format:
    """How long messages are, and how they travel."""

    n_bits: int
    """Of the message, a whole number of bytes."""
    code: Code
    """Of at least 16 bits more."""


FORMATS = {48: Format(48, Code(127, 64)), 64: Format(64, Code(255, 131)), 96: Format(96, Code(255, 131))}
"""48 bits are read from a view; longer ones want a few."""


@dataclass(frozen=True)
class Reading:
    """What was read."""

    message: bytes
    corrected: int
    """Bits of the code that were wrong."""
    p_value: float
    """Chance that a key drawn at random finds any message as plainly: at most this."""


@dataclass(frozen=True)
class Letter:
    """Messages of one key in one scene."""

    secret: Secret
    format: Format

    def write(self, message: bytes) -> Float[np.ndarray, " n"]:
        """The signs, +1 or -1, that carry a message. Raises StegoError where it is of another length."""
        if 8 * len(message) != self.format.n_bits:
            raise StegoError(f"a message here has {self.format.n_bits} bits, this one {8 * len(message)}")
        plain = np.zeros(self.format.code.k, np.uint8)
        plain[: self.format.n_bits] = np.unpackbits(np.frombuffer(message, np.uint8))
        return self._signs(self.secret.scrambled(plain))

    def read(self, values: Float[np.ndarray, " n"]) -> Reading | None:
        """The message that values (sign: the bit; size: how sure) spell, if it is one."""
        straight = np.empty_like(values)
        straight[self._order] = values * self._turned
        plain = self.secret.scrambled(self.format.code.decode(straight), back=True)
        if plain[self.format.n_bits :].any():
            return None
        message = np.packbits(plain[: self.format.n_bits]).tobytes()
        agreeing = self.write(message) * values
        wrong = int((agreeing <= 0).sum())
        # Any of 2^n_bits messages might have been found: the chance of each is added up.
        p = min(1.0, 2.0**self.format.n_bits * chance_of_sum(np.abs(values), float(agreeing.sum())))
        return Reading(message, wrong, p)

    def tells(self, values: Float[np.ndarray, " n"], message: bytes, rate: float) -> bool:
        """Whether values spell this message, more plainly than chance would at this rate."""
        reading = self.read(values)
        return reading is not None and reading.message == message and reading.p_value <= rate

    def verify(self, values: Float[np.ndarray, " n"], message: bytes) -> tuple[int, float]:
        """How many of the bits agree with a known message, and the chance that as many do for a key drawn at random:
        P(Binomial(n, 1/2) >= agreeing), exactly where no message of the key is in the picture."""
        agreeing = int((self.write(message) * values > 0).sum())
        return agreeing, chance_of_agreement(len(values), agreeing)

    def _signs(self, payload: UInt8[np.ndarray, " k"]) -> Float[np.ndarray, " n"]:
        """The word of what the code carries, as the scene carries it."""
        return (2.0 * self.format.code.encode(payload) - 1.0)[self._order] * self._turned

    @cached_property
    def _order(self) -> np.ndarray:
        return self.secret.order("order of the bits", self.format.code.n)

    @cached_property
    def _turned(self) -> np.ndarray:
        return 2.0 * self.secret.bits("coins", self.format.code.n) - 1.0


def summed(answers: Float[Tensor, " n"], bits: Int[Tensor, " n"], n_bits: int) -> Float[np.ndarray, " n_bits"]:
    """What answers, each to one bit, say of the bits, in standard deviations of what they would say by chance."""
    signal, noise = torch.zeros(2, n_bits, dtype=torch.float64)
    signal.index_add_(0, bits.cpu(), answers.cpu().double())
    noise.index_add_(0, bits.cpu(), answers.cpu().double() ** 2)
    return (signal / noise.sqrt().clamp_min(1e-30)).numpy()


def chance_of_agreement(n: int, agreeing: int) -> float:
    """P(Binomial(n, 1/2) >= agreeing).

    >>> chance_of_agreement(127, 91) < 1e-6 < chance_of_agreement(127, 90)
    True
    """
    return sum(math.comb(n, i) for i in range(agreeing, n + 1)) / 2**n


def chance_of_sum(sizes: Float[np.ndarray, " n"], total: float) -> float:
    """P(sum of e_i sizes_i >= total) for fair coins e_i of +1 and -1, never less than that.

    Sizes are rounded to a grid, on which sums are counted out; what rounding may have added to a sum is let pass.
    """
    most = float(sizes.sum())
    if not 0.0 < total:
        return 1.0
    if total >= most * (1.0 - 1e-12):
        return 0.5 ** int((sizes > 1e-12 * most).sum())  # each of which must be up
    unit = most / _GRID
    steps = np.rint(sizes / unit).astype(np.int64)
    reached = total - float(np.abs(sizes - unit * steps).sum())
    chances, end = np.zeros(int(steps.sum()) + 1), 1
    chances[0] = 1.0
    for step in steps[steps > 0]:
        halved = chances[:end] / 2.0
        chances[:end] = halved
        chances[step : step + end] += halved
        end += int(step)
    # A sum is unit * (2 * steps of the coins that are up - all steps).
    least = math.ceil((reached / unit + len(chances) - 1) / 2.0 - 1e-6)
    return min(1.0, float(chances[least:].sum()))
