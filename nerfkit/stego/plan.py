"""How much a bench tries. No torch here: help answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

NONE = "none"
"""No attack."""


@dataclass(frozen=True)
class Plan:
    """What two processors bear; `configs/stego.toml` is what the goals ask for."""

    keys: Annotated[int, arg(metavar="N")] = 1
    """Keys to try, one after another."""
    messages: Annotated[int, arg(metavar="N")] = 1
    """Messages to try with each key."""
    views: Annotated[int, arg(metavar="N")] = 8
    """Cameras from which a copy with a message is looked at: others for every message of every key."""
    size: Annotated[int, arg(metavar="PIXELS")] = 400
    """Width of the pictures."""
    attacks: Annotated[tuple[str, ...], arg(metavar="ATTACK ...")] = (
        NONE,
        "jpeg:50",
        "crop:0.4",
        "noise:0.05+crop:0.7+jpeg:50",
    )
    """Attacks on pictures, as nerfkit attack takes them; none leaves them as they are."""
    psnr: Annotated[tuple[float, ...], arg(metavar="DB ...")] = ()
    """Further strengths at which the mark is tried: the PSNR of marked against unmarked renders."""
    models: Annotated[tuple[str, ...], arg(metavar="ATTACK ...")] = (
        "float16",
        "round:8",
        "round:4",
        "zero:0.5",
        "noise:1",
        "tune:100",
    )
    """Attacks on models: float16, round:8 (bits), zero:0.5 (share), noise:1 (dB lost), tune:100 (steps), and
    distil:2000, a new model that learns from renders for so many steps."""
    pictures: Annotated[int, arg(metavar="N")] = 32
    """Pictures without a message to read."""
    wrong_keys: Annotated[int, arg(metavar="N")] = 10_000
    """Wrong keys to read pictures with."""
    halves: Annotated[int, arg(metavar="N")] = 100_000
    """Half keys to verify bits with: only what comes behind the carriers is drawn anew."""
    forged_from: Annotated[int, arg(metavar="N")] = 25
    """Marked pictures that a forger has."""
    pairs: Annotated[int, arg(metavar="N")] = 32
    """Pairs of a marked and an unmarked render: a detector learns from some and is tried on the others."""
