"""Whether a picture can be seen to carry anything, by somebody who has no key and not the unmarked run.

A detector of the kind that steganalysis uses: counts of how neighbouring differences of pixels follow one another,
after Pevny et al. (2010), and Fisher's linear discriminant on them. It learns from marked and unmarked renders, and is
tried on others. The area under its ROC curve (AUC) is the chance that it gives a marked picture the higher score of
the two: 1/2 where it sees nothing. Whoever learns has copies of another key than the one that he is tried on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from nerfkit.cameras import Cameras
from nerfkit.stego.attacks import Picture
from nerfkit.stego.plan import Plan
from nerfkit.stego.protocol import Bench, Missing, Row, key, strength
from nerfkit.stego.views import views_between

_LARGEST = 3
"""Differences beyond it, of 255 steps, count as this large."""
_SHRUNK = 0.1
"""How far the scatter of features is drawn towards its mean: there are more of them than pictures."""

Features = Float[np.ndarray, "n d"]


def steganalysis_rows(bench: Bench, plan: Plan, missing: Missing, other: Bench | None = None) -> Iterator[Row]:
    """A detector that learns on one half of the views and is tried on the other, and the other way round; and one
    that learnt on the ``other`` scene. Each is tried on marks of every strength of the plan, and learns on the same."""
    scenes = [bench] + ([] if other is None else [other])
    plain: dict[str, Features] = {}  # whatever the strength
    for psnr in (None, *plan.psnr):
        here, *others = (one if psnr is None else one.at(psnr) for one in scenes)
        what = {"size": plan.size, "pictures": 2 * plan.pairs, "strength": strength(here.mark)}
        learnt = {"this scene": here, **{one.run.path.name: one for one in others}}
        left = {name: one for name, one in learnt.items() if missing({**what, "learnt": name})}
        if not left:
            continue
        for name, one in {"this scene": here, **left}.items():
            if name not in plain:
                plain[name] = features(one.renders(cameras=_cameras(one, plan)))
        ours = _marked(here, plan, 0)
        for name, one in left.items():
            theirs = _marked(one, plan, 1)
            if one is here:
                found = _by_halves(plain[name], ours, theirs)
            else:
                score = detector(plain[name], theirs)
                found = auc(score(ours), score(plain["this scene"]))
            yield {**what, "learnt": name, "auc": found, "auc_error": auc_error(found, plan.pairs)}


def _by_halves(plain: Features, ours: Features, theirs: Features) -> float:
    """AUC of a detector that learns on marks of one key in half of the views, tried on those of another in the rest."""
    first, second = slice(len(plain) // 2), slice(len(plain) // 2, None)
    found = []
    for learn, tried in ((first, second), (second, first)):
        score = detector(plain[learn], theirs[learn])
        found.append(auc(score(ours[tried]), score(plain[tried])))
    return float(np.mean(found))


def _marked(bench: Bench, plan: Plan, number: int) -> Features:
    """Of marked renders, by one of the keys."""
    with bench.marked(key(number), bench.message(number)):
        return features(bench.renders(cameras=_cameras(bench, plan)))


def _cameras(bench: Bench, plan: Plan) -> Cameras:
    return views_between(bench.scene, plan.pairs, plan.size, 3)


def features(pictures: Sequence[Picture]) -> Features:
    """Of each picture, how often differences between neighbours follow one another, three in a row: shares of all that
    were seen, along rows and along columns."""
    return np.stack([np.concatenate([_followed(luma, axis) for axis in (0, 1)]) for luma in map(_luma, pictures)])


def detector(plain: Features, marked: Features) -> Callable[[Features], Float[np.ndarray, " n"]]:
    """What gives features a score, the higher the more they are like those of marked pictures: Fisher's discriminant,
    w = S^-1 (mean of marked - mean of plain), S the scatter within both, shrunk towards a multiple of one."""
    both = np.concatenate([plain, marked])
    center, spread = both.mean(0), np.maximum(both.std(0), 1e-9)
    plain, marked = (plain - center) / spread, (marked - center) / spread
    within = np.concatenate([plain - plain.mean(0), marked - marked.mean(0)])
    scatter = within.T @ within / len(within)
    scatter += _SHRUNK * np.trace(scatter) / len(scatter) * np.eye(len(scatter))
    w = np.linalg.solve(scatter, marked.mean(0) - plain.mean(0))
    return lambda seen: (seen - center) / spread @ w


def auc(marked: Float[np.ndarray, " n"], plain: Float[np.ndarray, " m"]) -> float:
    """The chance that a score of a marked picture is the higher one, by Mann and Whitney's ranks.

    >>> auc(np.array([2.0, 3.0]), np.array([0.0, 2.5]))
    0.75
    """
    n, m = len(marked), len(plain)
    ranks = rankdata(np.concatenate([marked, plain]))[:n]
    return float((ranks.sum() - n * (n + 1) / 2) / (n * m))


def auc_error(found: float, n: int) -> float:
    """Standard error of an AUC of n marked and n plain pictures (Hanley and McNeil 1982, equation 1)."""
    one, two = found / (2.0 - found), 2.0 * found**2 / (1.0 + found)
    return math.sqrt((found * (1 - found) + (n - 1) * (one + two - 2 * found**2)) / n**2)


def _luma(picture: Picture) -> Float[np.ndarray, "h w"]:
    return (picture @ np.array([0.299, 0.587, 0.114])).round()


def _followed(luma: Float[np.ndarray, "h w"], axis: int) -> Float[np.ndarray, " d"]:
    """Shares of triples of neighbouring differences."""
    off = np.diff(luma, axis=axis).clip(-_LARGEST, _LARGEST).astype(np.int64) + _LARGEST
    off, n = np.moveaxis(off, axis, 0), 2 * _LARGEST + 1
    triples = (off[:-2] * n + off[1:-1]) * n + off[2:]
    counts = np.bincount(triples.ravel(), minlength=n**3).reshape(n, n, n)
    counts = counts + counts[::-1, ::-1, ::-1]  # what is brighter to one side is darker to the other
    return counts.ravel() / max(counts.sum(), 1)
