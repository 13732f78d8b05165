"""How much of each layer stays: shares that depend on a layer's shape alone, and whole numbers that add up exactly.

Which weights of a layer are pruned matters less than how many (Frankle et al. 2021; Liu et al. 2022, "The Unreasonable
Effectiveness of Random Pruning"): a small layer that all passes through, such as the one from 64 neurons to 3 colours,
must keep more of its weights than a large one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

Shape = tuple[int, ...]

LEAST_LAST = 0.2
"""Share that `uniform_plus` leaves of the last layer, at least."""


class PruneError(ValueError):
    """A pruning that cannot be: one sentence."""


def n_kept(n: int, fraction: float) -> int:
    """How many of ``n`` stay when a ``fraction`` in [0, 1) of them goes, to the nearest. Raises PruneError.

    >>> n_kept(10, 0.3), n_kept(5312, 0.8)
    (7, 1062)
    """
    if not 0.0 <= fraction < 1.0:
        raise PruneError(f"a fraction of {fraction:g} cannot be pruned: expected 0 or more, below 1")
    return n - round(n * fraction)


def uniform(shapes: Sequence[Shape], density: float) -> list[float]:
    """The same share of every layer."""
    return [density] * len(shapes)


def uniform_plus(shapes: Sequence[Shape], density: float) -> list[float]:
    """The first layer whole, a fifth of the last one at least, and the same share of all others, together ``density``.

    Raises PruneError where the first layer alone is more than may stay.
    """
    first, *others, last = sizes = [*map(math.prod, shapes)] if len(shapes) > 1 else [0, *map(math.prod, shapes)]
    left = density * sum(sizes) - first
    share = left / (sum(others) + last)
    least = max(share, LEAST_LAST)
    if others and least > share:
        share = (left - least * last) / sum(others)
    if share < 0.0:
        raise PruneError(
            f"uniform+ leaves the first layer whole, {first} of {sum(sizes)} weights: {density * sum(sizes):.0f} are "
            "too few for that; prune a smaller fraction or take another ratio"
        )
    return [1.0, *[share] * len(others), least if others else share][-len(shapes) :]


def _by_shape(raw: Callable[[Shape], float], shapes: Sequence[Shape], density: float, last_whole: bool) -> list[float]:
    """Shares ``min(e * raw, 1)``, with the number e for which they are ``density`` of all weights together."""
    sizes = [math.prod(shape) for shape in shapes]
    whole = {len(shapes) - 1} if last_whole else set()
    if last_whole and density * sum(sizes) < sizes[-1]:
        raise PruneError(
            f"erk+ leaves the last layer whole, {sizes[-1]} of {sum(sizes)} weights: {density * sum(sizes):.0f} are "
            "too few for that; prune a smaller fraction or take another ratio"
        )
    while len(whole) < len(shapes):
        left = density * sum(sizes) - sum(sizes[i] for i in whole)
        open_ = [i for i in range(len(shapes)) if i not in whole]
        epsilon = left / sum(raw(shapes[i]) * sizes[i] for i in open_)
        # Who would have more than all has all; what it cannot take goes to the others, who then have more, not less.
        over = {i for i in open_ if epsilon * raw(shapes[i]) > 1.0}
        if not over:
            return [1.0 if i in whole else epsilon * raw(shapes[i]) for i in range(len(shapes))]
        whole |= over
    return [1.0] * len(shapes)


def _er(shape: Shape) -> float:
    """Erdos-Renyi: (n_in + n_out) / (n_in * n_out), whatever the size of a kernel (Mocanu et al. 2018)."""
    return sum(shape[:2]) / math.prod(shape[:2])


def _erk(shape: Shape) -> float:
    """Erdos-Renyi-kernel: the sum of all dimensions over their product (Evci et al. 2020)."""
    return sum(shape) / math.prod(shape)


RATIOS: dict[str, Callable[[Sequence[Shape], float], list[float]]] = {
    "uniform": uniform,
    "uniform+": uniform_plus,
    "er": partial(_by_shape, _er, last_whole=False),
    "erk": partial(_by_shape, _erk, last_whole=False),
    "erk+": partial(_by_shape, _erk, last_whole=True),
}
"""Shares of layers, by their shapes (outputs, inputs, kernel) and the share of all weights together that stays."""


def whole_counts(sizes: Sequence[int], shares: Sequence[float], total: int) -> list[int]:
    """Whole numbers nearest to ``shares`` of ``sizes`` that add up to ``total`` exactly, by the largest remainders.

    Each is less than 1 off its share where the shares are ``total`` together. Ties go to the earlier layer.

    >>> whole_counts([2048, 1024, 2048, 192], [0.1, 0.2, 0.1, 1.0], 806)
    [205, 205, 204, 192]
    """
    wanted = [min(max(share, 0.0), 1.0) * size for share, size in zip(shares, sizes, strict=True)]
    counts = [min(math.floor(one + 1e-9), size) for one, size in zip(wanted, sizes, strict=True)]
    order = sorted(range(len(sizes)), key=lambda i: (counts[i] - wanted[i], i))
    missing = total - sum(counts)
    while missing:
        sign = 1 if missing > 0 else -1
        able = [i for i in order if (counts[i] < sizes[i] if sign > 0 else counts[i] > 0)]
        if not able:
            raise PruneError(f"{total} cannot be kept of {sum(sizes)}")
        for i in able[: abs(missing)] if sign > 0 else able[::-1][: abs(missing)]:
            counts[i] += sign
        missing = total - sum(counts)
    return counts
