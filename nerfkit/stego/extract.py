"""Read the message of pictures of a scene: one, several, or a film, of any size, whatever was cut off.

Several pictures of one scene say the same: what they say of each bit is added up before a word is looked for, and
counts as one reading. Chances of single pictures are never multiplied. Pictures are looked at closely only where a
first look does not tell the message; what chance might have found at either is added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from nerfkit.render import Model
from nerfkit.stego.keys import Key
from nerfkit.stego.mark import Mark
from nerfkit.stego.message import FORMATS, Letter, Reading, summed
from nerfkit.stego.reading import N_LOOKS, close_look, first_look, sighted
from nerfkit.stego.recipients import Addresses, Named

RATE = 1e-6
"""Chance of a false answer up to which a message counts as found."""
VERIFY_RATE = 1e-8
"""The same where a known message is asked for. At each look this chance is exact, not a bound, and so is met: of ten
million wrong keys a tenth of one is believed."""


@dataclass(frozen=True)
class Found:
    """What pictures say."""

    reading: Reading | None
    """None where no message was found, or one that chance might as well have found."""
    n_shown: int
    """Pictures that show the scene."""
    agreeing: list[int | None]
    """Bits of each picture that agree with the message that was found (or asked for); None: not of this scene."""
    verified: tuple[int, float] | None
    """Bits of all pictures together that agree with the message asked for, and the chance of as many."""
    recipients: list[Named]
    """Those whose copies the pictures are of; several where copies were mixed."""


def hear(model: Model, mark: Mark, picture: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, " n"] | None:
    """What each carrier hears of a picture, at a close look; None where it does not show the scene."""
    background = mark.terms.background
    sight = sighted(model, mark.landmarks, picture, background)
    return None if sight is None else close_look(model, mark.carriers, picture, sight.camera_of(picture), background)


def look_for(
    model: Model,
    mark: Mark,
    key: Key,
    pictures: Callable[[], Iterable[UInt8[np.ndarray, "h w 3"]]],
    rate: float = RATE,
    expected: bytes | None = None,
    names: Sequence[str] = (),
) -> Found:
    """The message of pictures, as `extract` finds it, at the first look that tells it.

    Args:
        pictures: the same each time: those of a film do not stay in memory.
    """
    carriers, background = mark.carriers, mark.terms.background
    first = [first_look(model, carriers, mark.landmarks, picture, background) for picture in pictures()]
    heard = [None if one is None else one[0] for one in first]
    found = extract(mark, key, heard, rate, expected, names, N_LOOKS)
    told = found.reading is not None if expected is None else found.verified is not None and found.verified[1] <= rate
    if told or not found.n_shown:
        return found
    heard = [
        None if one is None else close_look(model, carriers, picture, one[1], background)
        for one, picture in zip(first, pictures(), strict=True)
    ]
    return extract(mark, key, heard, rate, expected, names, N_LOOKS)


def fused(mark: Mark, letter: Letter | Addresses, heard: list[Float[Tensor, " n"]]) -> Float[np.ndarray, " n_bits"]:
    """What pictures together say of each bit, in standard deviations of what they would say by chance of one."""
    n_bits = letter.format.code.n
    bits, coins = mark.carriers.bits_and_coins(letter.secret, n_bits)
    return np.sum([summed(answers * coins, bits, n_bits) for answers in heard], axis=0)


def extract(
    mark: Mark,
    key: Key,
    heard: list[Float[Tensor, " n"] | None],
    rate: float = RATE,
    expected: bytes | None = None,
    names: Sequence[str] = (),
    looks: int = 1,
) -> Found:
    """The message of pictures of which `hear` told what they say.

    Args:
        rate: chance of a false answer, at most.
        expected: a message that is asked for: whether it is there can be told more surely than which is.
        names: all recipients of copies. That one who is innocent is named has this rate of its own.
        looks: of how many looks at the pictures this is one: what chance might find at any of them is added up.
    """
    letter = Letter(key.of_scene(mark.terms.scene), FORMATS[mark.terms.n_bits])
    shown = [one for one in heard if one is not None]
    if not shown:
        return Found(None, 0, [None] * len(heard), None, [])
    values = fused(mark, letter, shown)
    reading = letter.read(values)
    if reading is not None:
        reading = replace(reading, p_value=min(1.0, looks * reading.p_value))
        reading = reading if reading.p_value <= rate else None
    message = expected if expected is not None else reading.message if reading else None
    each = [
        None if one is None or message is None else letter.verify(fused(mark, letter, [one]), message)[0]
        for one in heard
    ]
    verified = None
    if expected is not None:
        agreeing, p = letter.verify(values, expected)
        verified = agreeing, min(1.0, looks * p)
    addresses = Addresses(letter.secret, letter.format).named(values, list(names), rate / looks)
    recipients = [replace(one, p_value=looks * one.p_value) for one in addresses]
    return Found(reading, len(shown), each, verified, recipients)
