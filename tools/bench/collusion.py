"""Who is named when several recipients mix their copies: on what pictures say of each bit.

    python tools/bench/collusion.py [--trials 1000] [--recipients 100] [--copies 2 3 5 8] [--signals 2 4 8] [--bits 48]
                                    [--words 200000]

A trial draws a key, takes the words of some of its recipients, mixes them as the table's rows say and adds the noise of
a reading: ``signal`` is what one copy says of a bit, in standard deviations of that noise. Printed is how often one of
those who mixed was named, at a rate of 1e-6, and how many innocents ever were. A second table counts how often innocent
words reach a chance of a, for values full of others' words: at most a, if that chance is one.
"""

from __future__ import annotations

import argparse

import numpy as np

from nerfkit.stego.keys import Key
from nerfkit.stego.message import FORMATS, chance_of_sum
from nerfkit.stego.recipients import Addresses

RATE = 1e-6
_CARRIERS = 64
"""Of a bit, where each is taken from a copy of its own."""


def mixed(words: np.ndarray, how: str, chance: np.random.Generator) -> np.ndarray:
    """What carriers hold of each bit, on average; of the least or greatest value whatever the coins agree on."""
    if how == "mean":
        return words.mean(0)
    if how == "median":
        return np.median(words, 0)
    if how == "least or greatest":
        return np.where(np.abs(words.sum(0)) == len(words), words[0], 0.0)
    picked = chance.integers(0, len(words), (_CARRIERS, words.shape[1]))
    return np.take_along_axis(words, picked, 0).mean(0)


HOW = ("mean", "median", "random pick", "least or greatest")


def trials(n_copies: int, how: str, signal: float, options: argparse.Namespace) -> tuple[int, int]:
    """How often someone guilty was named, and how many innocents were."""
    names = [f"recipient {number}" for number in range(options.recipients)]
    chance, n_found, n_innocent = np.random.default_rng(n_copies), 0, 0
    for _ in range(options.trials):
        own = Addresses(Key(chance.bytes(32)).of_scene("scene"), FORMATS[options.bits])
        words = np.stack([own.write(name) for name in names[:n_copies]])
        values = signal * mixed(words, how, chance) + chance.normal(size=words.shape[1])
        found = {one.name for one in own.named(values, names, RATE)}
        n_found += bool(found & set(names[:n_copies]))
        n_innocent += len(found - set(names[:n_copies]))
    return n_found, n_innocent


def reached(n_copies: int, how: str, levels: list[float], n_values: int, n_words: int) -> np.ndarray:
    """How many of n_values * n_words innocent words reach each chance."""
    chance, counts = np.random.default_rng(n_copies), np.zeros(len(levels), int)
    for _ in range(n_values):
        words = chance.choice([-1.0, 1.0], (n_copies, 127))
        values = 4.0 * mixed(words, how, chance) + chance.normal(size=127)
        sums = np.abs(values) @ chance.choice(np.array([-1.0, 1.0], np.float32), (127, n_words))
        for number, level in enumerate(levels):
            low, high = 0.0, float(np.abs(values).sum())
            for _ in range(40):
                middle = (low + high) / 2
                low, high = (middle, high) if chance_of_sum(np.abs(values), middle) > level else (low, middle)
            counts[number] += int((sums >= high).sum())
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--recipients", type=int, default=100)
    parser.add_argument("--copies", type=int, nargs="+", default=[2, 3, 5, 8])
    parser.add_argument("--signals", type=float, nargs="+", default=[2.0, 4.0, 8.0])
    parser.add_argument("--words", type=int, default=200_000, help="for the second table, for each of 50 values")
    parser.add_argument("--bits", type=int, default=48, choices=FORMATS)
    options = parser.parse_args()
    print("| copies | mixed by | " + " | ".join(f"signal {signal:g}" for signal in options.signals) + " | innocents |")
    print("|---|---|" + "---|" * (len(options.signals) + 1))
    for n_copies in options.copies:
        for how in HOW:
            rows = [trials(n_copies, how, signal, options) for signal in options.signals]
            shares = " | ".join(f"{100 * found / options.trials:.1f} %" for found, _ in rows)
            print(f"| {n_copies} | {how} | {shares} | {sum(row[1] for row in rows)} |", flush=True)
    if not options.words:
        return
    levels = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6]
    print("\n| copies | mixed by | " + " | ".join(f"a = {level:g}" for level in levels) + " |")
    print("|---|---|" + "---|" * len(levels))
    for how in HOW:
        shares = reached(3, how, levels, 50, options.words) / (50 * options.words)
        print(f"| 3 | {how} | " + " | ".join(f"{share:.1e}" for share in shares) + " |", flush=True)


if __name__ == "__main__":
    main()
