"""Copies for recipients: whose copy a picture is of, also where several mixed theirs.

A recipient's copy carries no message but a word of fair coins, drawn by the key from his name. What pictures say was
made without an innocent's word, whatever the others did to theirs, so its sum with his word is a sum of fair coins: the
chance of `message.chance_of_sum` is his whoever is guilty. A word of the code would not do: of a random one any
nine bits are fair coins (its dual code has no word of fewer than ten ones, by the BCH bound), but 22 that are not are
easily found.

What several copies were mixed to is a sum of several words, each noise for the others. So each recipient is tried by
what is left of the values when the words of other suspects are taken out of them by least squares. Who these are is
found without looking at his word, so that what is left knows no more of it than the values did.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from nerfkit.stego.keys import Secret, StegoError
from nerfkit.stego.message import Format, chance_of_sum

_SUSPECT = 0.5
"""Chance of any innocent looking as guilty, up to which a word is taken out before others are tried: a wrong one costs
little."""


@dataclass(frozen=True)
class Named:
    """A recipient whose copy was used."""

    name: str
    p_value: float
    """Chance that any innocent one of all who were tried looks as guilty: at most this. It is over the words of those
    whose copy was not used, for whatever picture was made of the others."""


@dataclass(frozen=True)
class Addresses:
    """Words of the recipients of one key in one scene."""

    secret: Secret
    format: Format

    def write(self, name: str) -> Float[np.ndarray, " n"]:
        """The signs, +1 or -1, that a recipient's copy carries."""
        return 2.0 * self.secret.bits(f"recipient {name}", self.format.code.n) - 1.0

    def tells(self, values: Float[np.ndarray, " n"], name: str, rate: float) -> bool:
        """Whether values (sign: the bit; size: how sure) say that it is this one's copy."""
        return chance_of_sum(np.abs(values), float(self.write(name) @ values)) <= rate

    def named(self, values: Float[np.ndarray, " n"], names: list[str], rate: float) -> list[Named]:
        """Those of all recipients whose copies the values were made of, the surest first.

        Args:
            names: of all who were given a copy, each once.
            rate: chance that an innocent one is among those named, at most.
        """
        if not names:
            return []
        words = np.stack([self.write(name) for name in names])
        found = []
        for one in _suspects(values, words, None)[0]:
            left = _suspects(values, words, one)[1]
            p = len(names) * chance_of_sum(np.abs(left), float(words[one] @ left))
            if p <= rate:
                found.append(Named(names[one], p))
        return sorted(found, key=lambda one: one.p_value)


def recipient_of(text: str) -> str:
    """A name as it is kept: equal ones are one recipient. Raises StegoError where it is none.

    >>> recipient_of(" Ada  Lovelace ")
    'Ada Lovelace'
    """
    name = " ".join(unicodedata.normalize("NFC", text).split())
    if not name or len(name) > 200 or not name.isprintable():
        raise StegoError(f"--to {text[:40]!r}: expected a name of 1 to 200 characters that can be printed")
    return name


def _suspects(
    values: Float[np.ndarray, " n"], words: Float[np.ndarray, "m n"], spared: int | None
) -> tuple[list[int], Float[np.ndarray, " n"]]:
    """Words that the values seem made of, one after the other, and what is left without them.

    Args:
        spared: a word that is not looked at.
    """
    chosen: list[int] = []
    passed = [] if spared is None else [spared]
    left = values
    while len(chosen) + len(passed) < len(words) and np.abs(left).max() > 1e-9 * np.abs(values).max():
        sums = words @ left
        sums[chosen + passed] = -np.inf
        best = int(sums.argmax())
        if len(words) * chance_of_sum(np.abs(left), float(sums[best])) > _SUSPECT:
            break
        chosen.append(best)
        basis = words[chosen].T
        left = values - basis @ np.linalg.lstsq(basis, values, rcond=None)[0]
    return chosen, left
