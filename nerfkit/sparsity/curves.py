"""What pruning did, said as it was measured: where it helped, where it began to cost, and why.

The claim (He et al. 2023, "Pruning before training may improve generalization, provably"): up to a fraction of pruned
weights what is learnt gets better, as less noise is remembered; beyond a larger one it collapses although the training
error still falls. `judge` says of a curve which half of that holds, and never more than the numbers do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import fmean, stdev

from nerfkit.aside import file_aside
from nerfkit.charts import STYLES, Curve, line_chart
from nerfkit.page import page, section

HARMLESS, COLLAPSED = -0.1, -3.0
"""Decibels against the dense field down to which a pruning costs nothing, and from which on all is lost."""
_STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Half width of a 95 % interval in standard errors, by the number of seeds (Student's t)."""
_DRAWN = 3
"""Fractions that make a curve; methods with fewer stand in the table alone."""
_DENSE = {
    "noiseless": "There is no noise to be remembered",
    "unknown": "How much of the error is noise is not known",
}
_WHY = {"underfit": "by learning too little, not by remembering noise", "noiseless": "by learning too little"}


@dataclass(frozen=True)
class Point:
    """One training."""

    fraction: float
    """Of the weights that were pruned; 0 is dense."""
    seed: int
    psnr: float
    """Of held-out views without noise, dB."""
    train_error: float
    """Mean square error of training views, noise and all."""
    slope: float
    """Change of the logarithm of the loss over the last fifth of the training."""


@dataclass(frozen=True)
class Verdict:
    """What a curve shows."""

    gains: dict[float, tuple[float, float]]
    """Of each fraction: mean gain in dB over dense fields of the same seeds, and half its 95 % interval (infinite for
    one seed)."""
    regimes: dict[float, str]
    """Of each fraction, 0 too: `regime`."""
    harmless: float
    """Largest fraction whose mean costs no more than a tenth of a decibel; 0 where all cost more."""
    collapse: float | None
    """Smallest fraction that costs three decibels, if one does."""
    best: float
    """Fraction with the largest gain."""
    helps: bool
    """Whether that gain is more than nothing, by its interval."""
    memorised: bool
    """Whether beyond the collapse the training error still fell, to that of the noise alone: the claim's other half."""


def regime(train_error: float, floor: float) -> str:
    """What a field has learnt, by its error on noisy pictures and the mean square ``floor`` of their noise: 0 where
    there is none, NaN where nobody knows.

    >>> regime(0.5, 1.0), regime(1.1, 1.0), regime(2.0, 1.0), regime(2.0, 0.0), regime(2.0, float("nan"))
    ('memorising', 'fitting', 'underfit', 'noiseless', 'unknown')
    """
    if not floor > 0:
        return "unknown" if math.isnan(floor) else "noiseless"
    return "memorising" if train_error < 0.8 * floor else "fitting" if train_error <= 1.25 * floor else "underfit"


def judge(points: Sequence[Point], floor: float) -> Verdict:
    """The verdict on one method. Raises ValueError where no pruned field has a dense one of its seed."""
    dense = {point.seed: point for point in points if point.fraction == 0}
    fractions = sorted({point.fraction for point in points if point.fraction > 0 and point.seed in dense})
    if not fractions:
        raise ValueError("no pruned training has a dense one of the same seed to be compared with")
    gains, regimes = {}, {0.0: regime(fmean(point.train_error for point in dense.values()), floor)}
    memorised = False
    for fraction in fractions:
        own = [point for point in points if point.fraction == fraction and point.seed in dense]
        each = [point.psnr - dense[point.seed].psnr for point in own]
        error = fmean(point.train_error for point in own)
        gains[fraction] = (fmean(each), _half_width(each))
        regimes[fraction] = regime(error, floor)
        fell = fmean(point.slope for point in own) < 0
        memorised |= gains[fraction][0] <= COLLAPSED and fell and error <= 1.25 * floor
    best = max(fractions, key=lambda fraction: gains[fraction][0])
    return Verdict(
        gains,
        regimes,
        max((fraction for fraction in fractions if gains[fraction][0] >= HARMLESS), default=0.0),
        next((fraction for fraction in fractions if gains[fraction][0] <= COLLAPSED), None),
        best,
        gains[best][0] - gains[best][1] > 0,
        memorised,
    )


def sentence(verdict: Verdict) -> str:
    """What a verdict says, for people."""
    gain, half = verdict.gains[verdict.best]
    told = f"{gain:+.2f} ± {half:.2f} dB" if math.isfinite(half) else f"{gain:+.2f} dB of one seed"
    first = f"{_DENSE.get(verdict.regimes[0.0], f'Dense fields are {verdict.regimes[0.0]}')}. "
    if verdict.helps:
        first += f"Pruning helps: {told} at {_percent(verdict.best)}"
    else:
        first += f"That pruning helps is not shown: at best {told}, at {_percent(verdict.best)}"
    first += f"; up to {_percent(verdict.harmless)} it costs nothing. " if verdict.harmless else "; each costs. "
    if verdict.collapse is None:
        return first + "No collapse was found."
    if verdict.memorised:
        return first + f"At {_percent(verdict.collapse)} it collapses while the noise is still learnt, as was claimed."
    regime_there = verdict.regimes[verdict.collapse]
    why = _WHY.get(regime_there, "for reasons unknown" if regime_there == "unknown" else f"its fields {regime_there}")
    return first + f"At {_percent(verdict.collapse)} it collapses, {why}."


def write_curves(path: Path, title: str, parts: Mapping[str, tuple[float, Mapping[str, Sequence[Point]]]]) -> None:
    """Write a page with a part for each scene: its noise floor and the points of each method, dense ones among them."""
    sections = [f"<header>\n<h1>{escape(title)}</h1>\n</header>"]
    for name, (floor, methods) in parts.items():
        verdicts = {method: judge(points, floor) for method, points in methods.items()}
        long = [method for method, verdict in verdicts.items() if len(verdict.gains) >= _DRAWN]
        styles = {method: STYLES[i % len(STYLES)] for i, method in enumerate(long)}
        sections.append(section(escape(name), _charts(methods, styles, floor) + _table(verdicts, styles)))
    with file_aside(path) as aside:
        aside.write_text(page(title, sections), encoding="utf-8")


def _charts(methods: Mapping[str, Sequence[Point]], styles: Mapping[str, str], floor: float) -> str:
    if not styles:
        return ""
    quality, error = [], []
    for method in styles:
        points = methods[method]
        at = sorted({point.fraction for point in points})
        groups = [[point for point in points if point.fraction == fraction] for fraction in at]
        percent = [100 * fraction for fraction in at]
        quality.append(Curve(percent, [fmean(p.psnr for p in own) for own in groups], styles[method], True))
        error.append(Curve(percent, [fmean(p.train_error for p in own) for own in groups], styles[method], True))
    if floor > 0:
        error.append(Curve([0, max(max(curve.x) for curve in error)], [floor, floor], "faint"))
    keys = " ".join(
        f'<span style="white-space:nowrap"><span class="key {style}"></span>{escape(method)}</span>'
        for method, style in styles.items()
    )
    charts = [
        ("Held-out PSNR, dB", line_chart("held-out PSNR by pruned weights", quality, x_unit="%")),
        ("Error on training views (faint: their noise)", line_chart("training error", error, log=True, x_unit="%")),
    ]
    figures = "".join(
        f'<figure class="card"><figcaption><b>{name}</b><span>by pruned weights</span></figcaption>{chart}</figure>'
        for name, chart in charts
    )
    return f'<p>{keys}</p>\n<div class="grid2" style="margin-top:12px">{figures}</div>\n'


def _table(verdicts: Mapping[str, Verdict], styles: Mapping[str, str]) -> str:
    fractions = sorted({fraction for verdict in verdicts.values() for fraction in verdict.gains})
    head = "".join(f"<th>{_percent(fraction)}</th>" for fraction in fractions)
    rows, said = [], []
    for method, verdict in sorted(verdicts.items(), key=lambda one: -max(gain for gain, _ in one[1].gains.values())):
        cells = []
        for fraction in fractions:
            if fraction in verdict.gains:
                best = ' class="best"' if fraction == verdict.best and verdict.helps else ""
                cells.append(f"<td{best}>{verdict.gains[fraction][0]:+.2f}<br/><s>{verdict.regimes[fraction]}</s></td>")
            else:
                cells.append("<td>–</td>")
        rows.append(f"<tr><th>{escape(method)}</th>{''.join(cells)}</tr>")
        key = f'<span class="key {styles[method]}"></span>' if method in styles else ""
        said.append(f'<p class="note">{key}<b>{escape(method)}</b>: {escape(sentence(verdict))}</p>')
    table = f'<table class="wide"><tr><th>gain over dense, dB</th>{head}</tr>{"".join(rows)}</table>'
    return f'<div class="card" style="margin-top:14px">{table}</div>\n{"".join(said)}'


def _half_width(values: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean."""
    if len(values) < 2:
        return math.inf
    return _STUDENT.get(len(values), 1.96) * stdev(values) / math.sqrt(len(values))


def _percent(fraction: float) -> str:
    return f"{100 * fraction:g} %"
