"""Verdicts on curves whose answer is known, and nothing said that the numbers do not say."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from nerfkit.sparsity.curves import Point, judge, sentence, write_curves

FLOOR = 1e-3


def curve(gains: dict[float, float], errors: dict[float, float], slope: float = -0.1, n_seeds: int = 3) -> list[Point]:
    """Points of several seeds, each a little off, of gains over a dense field of 20 dB."""
    points = []
    for seed in range(n_seeds):
        base = 20.0 + 0.5 * seed
        points.append(Point(0.0, seed, base, errors[0.0], slope))
        for fraction, gain in gains.items():
            points.append(Point(fraction, seed, base + gain + 0.02 * (seed - 1), errors[fraction], slope))
    return points


MEMORISED = {0.0: 0.3e-3, 0.5: 0.5e-3, 0.8: 0.9e-3, 0.95: 0.9e-3}
FORGOTTEN = {0.0: 0.3e-3, 0.5: 0.9e-3, 0.8: 1.0e-3, 0.95: 20e-3}
GAINS = {0.5: 0.6, 0.8: 1.2, 0.95: -4.0}


def test_help_and_a_collapse_by_underfitting() -> None:
    verdict = judge(curve(GAINS, FORGOTTEN), FLOOR)
    assert (verdict.best, verdict.harmless, verdict.collapse) == (0.8, 0.8, 0.95)
    assert verdict.helps and not verdict.memorised
    assert list(verdict.regimes.values()) == ["memorising", "fitting", "fitting", "underfit"]
    mean, half = verdict.gains[0.8]
    assert mean == pytest.approx(1.2) and half == pytest.approx(4.303 * 0.02 / math.sqrt(3))
    text = sentence(verdict)
    assert "Pruning helps: +1.20 ± 0.05 dB at 80 %" in text and "by learning too little" in text


def test_the_claims_other_half_is_found_where_it_is_true() -> None:
    verdict = judge(curve(GAINS, MEMORISED), FLOOR)
    assert verdict.memorised and "as was claimed" in sentence(verdict)
    rising = judge(curve(GAINS, MEMORISED, slope=0.1), FLOOR)
    assert not rising.memorised and "as was claimed" not in sentence(rising)


def test_what_is_within_the_noise_is_not_called_help() -> None:
    points = curve({0.5: 0.01}, {0.0: 1e-3, 0.5: 1e-3})
    verdict = judge(points, FLOOR)
    assert not verdict.helps and verdict.collapse is None
    assert "is not shown" in sentence(verdict) and "No collapse was found" in sentence(verdict)
    one = judge(curve({0.5: 2.0}, {0.0: 1e-3, 0.5: 1e-3}, n_seeds=1), FLOOR)
    assert not one.helps and "of one seed" in sentence(one)


@pytest.mark.parametrize(("floor", "text"), [(0.0, "no noise to be remembered"), (math.nan, "noise is not known")])
def test_where_there_is_no_noise_or_nobody_knows_it_nothing_is_said_of_it(floor: float, text: str) -> None:
    verdict = judge(curve(GAINS, FORGOTTEN), floor)
    said = sentence(verdict)
    assert text in said and "underfit" not in said and "memorising" not in said and not verdict.memorised
    assert ("too little" in said) == (floor == 0.0)


def test_seeds_are_paired() -> None:
    points = [
        *curve({0.5: 0.5}, {0.0: 1e-3, 0.5: 1e-3}),
        Point(0.5, 9, 90.0, 1e-3, 0.0),
        Point(0.9, 9, 90.0, 1e-3, 0.0),
    ]
    assert judge(points, FLOOR).gains[0.5][0] == pytest.approx(0.5)
    assert 0.9 not in judge(points, FLOOR).gains
    with pytest.raises(ValueError, match="same seed"):
        judge([Point(0.5, 0, 20.0, 1e-3, 0.0)], FLOOR)


def test_a_page_shows_all_of_it(tmp_path: Path) -> None:
    points = curve(GAINS, FORGOTTEN)
    write_curves(tmp_path / "p.html", "Pruning <fog>", {"fog": (FLOOR, {"erk": points, "uniform": points})})
    page = (tmp_path / "p.html").read_text()
    assert page.count("<svg") == 2 and page.count("<circle") == 16 and "&lt;fog&gt;" in page
    few = [point for point in points if point.fraction in (0.0, 0.5)]
    write_curves(tmp_path / "q.html", "Few", {"fog": (FLOOR, {"erk": points, "narrow": few})})
    assert (tmp_path / "q.html").read_text().count("<circle") == 8, "one fraction is no curve"
    assert page.count("underfit") >= 2 and "95 %" in page and "Pruning helps" in page


def test_thirteen_methods_in_one_chart_look_different(tmp_path: Path) -> None:
    points = curve(GAINS, FORGOTTEN)
    write_curves(tmp_path / "p.html", "Many", {"fog": (FLOOR, {f"method {i}": points for i in range(13)})})
    drawn = re.findall(r'<path class="(line [^"]*)"', (tmp_path / "p.html").read_text())
    looks = [style for style in drawn if "faint" not in style]
    assert len(looks) == 2 * 13 and len(set(looks)) == 13
