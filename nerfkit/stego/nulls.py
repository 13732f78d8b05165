"""How often a message is found where there is none: pictures without one, and keys that are not the owner's.

What the carriers hear of a picture does not depend on the key, so a picture is heard once and read with very many keys.
Of a wrong key, bits agree with any message as fair coins do; that is put to the test:

    read      whole readings by keys drawn at random: none should count as found
    verified  the bits of these keys that agree with one message: counts of Binomial(n, 1/2), whose randomised p-values
              P(X > x) + u P(X = x), u uniform, are uniform (Kolmogorov and Smirnov's test)
    messages  what `verify` says of other messages of the right key
    halves    many more keys of which only what comes behind the carriers, the order of the bits and their coins, is
              drawn anew, and the carriers' coins are taken from those that were read: how often `verify` says yes
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from nerfkit.assess import truth
from nerfkit.stego.attacks import Picture
from nerfkit.stego.cost import as_bytes
from nerfkit.stego.extract import VERIFY_RATE, fused
from nerfkit.stego.keys import Key
from nerfkit.stego.mark import Mark
from nerfkit.stego.message import FORMATS, Letter, chance_of_agreement
from nerfkit.stego.plan import Plan
from nerfkit.stego.protocol import Bench, Missing, Row, attack_one, counted, key, strength
from nerfkit.stego.reading import N_LOOKS
from nerfkit.stego.views import views_between

_KEYS = 4096
"""Half keys that are tried together."""


def null_rows(bench: Bench, plan: Plan, missing: Missing) -> Iterator[Row]:
    """Wrong keys on marked and on unmarked renders; the right ones on renders and photographs without a message."""
    for shown in ("marked", "unmarked"):
        what = {"keys": "wrong", "pictures": shown, "size": plan.size, "views": plan.views}
        what |= {"strength": strength(bench.mark), "read": plan.wrong_keys, "halves": plan.halves}
        if missing(what):
            if shown == "marked":
                with bench.marked(key(0), bench.message(0)):
                    pictures = bench.renders()
            else:
                pictures = bench.renders()
            heard = [one for one in bench.heard(pictures) if one is not None]
            yield {**what, **wrong_keys(bench.mark, heard, plan.wrong_keys, plan.halves)}
    what = {"keys": "right", "pictures": "marked", "size": plan.size, "views": plan.views}
    what |= {"strength": strength(bench.mark), "messages": plan.wrong_keys}
    if missing(what):
        with bench.marked(key(0), bench.message(0)):
            heard = [one for one in bench.heard(bench.renders()) if one is not None]
        yield {**what, **other_messages(bench.mark, heard, bench.letter(key(0)), plan.wrong_keys)}
    views = -(-plan.pictures // len(plan.attacks))
    kinds: dict[str, list[Picture]] = {}
    for by in plan.attacks:
        for shown in ("renders", "photographs"):
            what = {
                "keys": "right",
                "pictures": shown,
                "size": plan.size,
                "views": views,
                "attack": by,
                "tried": plan.keys,
            }
            if not missing(what):
                continue
            if shown not in kinds:
                kinds[shown] = _photographs(bench, views) if shown == "photographs" else _unseen(bench, views, plan)
            letters, found, accepted = [bench.letter(key(k)) for k in range(plan.keys)], 0, 0
            for i, picture in enumerate(kinds[shown]):  # one after another: what was heard of thousands fills gigabytes
                (heard,) = bench.heard([attack_one(picture, by, i)])
                if heard is not None:
                    found += 1
                    accepted += any(bench.reads([heard], letter) is not None for letter in letters)
            n = len(kinds[shown])
            yield {**what, "found": [found, n], "readings": len(letters) * found, "accepted": [accepted, n]}


def wrong_keys(mark: Mark, heard: Sequence[Float[Tensor, " n"]], n_read: int, n_halves: int, seed: int = 0) -> Row:
    """What keys drawn at random make of what was heard of pictures, each key of one picture.

    Returns ``accepted`` of whole readings, ``agreeing`` (the mean share of bits) with ``ks``, the p-value of the test
    that p-values are uniform, and ``verified``, how many half keys would have said that one message is there.
    """
    form = FORMATS[mark.terms.n_bits]
    chance, message = np.random.default_rng(seed), bytes(form.n_bits // 8)
    values, agreeing, accepted = np.empty((n_read, form.code.n)), np.empty(n_read, np.int64), 0
    for i in range(n_read if heard else 0):
        letter = Letter(Key(chance.bytes(32)).of_scene(mark.terms.scene), form)
        values[i] = fused(mark, letter, [heard[i % len(heard)]])
        agreeing[i] = letter.verify(values[i], message)[0]
        accepted += counted(letter.read(values[i]), N_LOOKS) is not None
    if not heard:
        return {"found": 0}
    halves = agreeing_halves(values, mark, message, n_halves, chance)
    least = least_agreeing(form.code.n)
    return {
        "found": len(heard),
        "accepted": [int(accepted), n_read],
        "agreeing": float(agreeing.mean()) / form.code.n,
        "ks": uniformity(agreeing, form.code.n, chance),
        "verified": [int((halves >= least).sum()), n_halves],
        "halves_agreeing": float(halves.mean()) / form.code.n if n_halves else None,
        "expected": n_halves * chance_of_agreement(form.code.n, least),
    }


def other_messages(mark: Mark, heard: Sequence[Float[Tensor, " n"]], letter: Letter, n: int, seed: int = 0) -> Row:
    """What `verify` says of n numbered messages that are not in marked pictures, the first of which is likest to what
    a message of zeros would be: alike as messages are, their words should agree with what is read as coins do."""
    values, size = [fused(mark, letter, [one]) for one in heard], letter.format.n_bits // 8
    tried = range(n if heard else 0)
    agreeing = np.array(
        [letter.verify(values[i % len(values)], i.to_bytes(size, "big"))[0] for i in tried], dtype=np.int64
    )
    if not heard:
        return {"found": 0}
    n_bits = letter.format.code.n
    least = least_agreeing(n_bits)
    return {
        "found": len(heard),
        "agreeing": float(agreeing.mean()) / n_bits,
        "ks": uniformity(agreeing, n_bits, np.random.default_rng(seed)),
        "verified": [int((agreeing >= least).sum()), n],
        "expected": n * chance_of_agreement(n_bits, least),
    }


def agreeing_halves(
    values: Float[np.ndarray, "n_read n_bits"], mark: Mark, message: bytes, n: int, chance: np.random.Generator
) -> Int[np.ndarray, " n"]:
    """Bits that agree with a message where what was read by some keys is put in the order and turned by others."""
    form, out = FORMATS[mark.terms.n_bits], np.empty(n, np.int64)
    up = values > 0
    for i in range(0, n, _KEYS):
        letters = (Letter(Key(chance.bytes(32)).of_scene(mark.terms.scene), form) for _ in range(min(_KEYS, n - i)))
        words = np.stack([letter.write(message) for letter in letters]) > 0
        taken = chance.integers(len(values), size=len(words))
        out[i : i + len(words)] = (words == up[taken]).sum(1)
    return out


def uniformity(agreeing: Int[np.ndarray, " n"], n_bits: int, chance: np.random.Generator) -> float:
    """p-value of Kolmogorov and Smirnov's test that randomised p-values of counts of fair coins are uniform."""
    tail = np.array([chance_of_agreement(n_bits, k) for k in range(n_bits + 2)])
    return float(stats.kstest(chance.uniform(tail[agreeing + 1], tail[agreeing]), "uniform").pvalue)


def least_agreeing(n_bits: int) -> int:
    """Bits that must agree with a message before `verify` says that it is there."""
    return next(k for k in range(n_bits + 1) if chance_of_agreement(n_bits, k) <= VERIFY_RATE / N_LOOKS)


def _unseen(bench: Bench, n: int, plan: Plan) -> list[Picture]:
    """Renders without a message, from other cameras than marked ones."""
    return bench.renders(cameras=views_between(bench.scene, n, plan.size, 2))


def _photographs(bench: Bench, n: int) -> list[Picture]:
    """Those of the scene, held-out ones first."""
    splits = bench.scene.splits
    views = [*splits["test"], *splits["val"], *splits["train"]][:n]
    return [as_bytes(truth(bench.scene, view, bench.mark.terms.background)) for view in views]
