"""What a bench has found, as one page: a table of each part, and robustness drawn against what is lost for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from statistics import fmean

from nerfkit.charts import STYLES, Curve, line_chart, si
from nerfkit.page import page, section
from nerfkit.run import Run
from nerfkit.stego.bench import PAGE, rows_of
from nerfkit.stego.forgery import SAME
from nerfkit.stego.protocol import Row, at_most, interval

_EXACT = ("exact_1", "exact_4", "exact_8")
_VERIFIED = ("verified_1", "verified_4", "verified_8")
_READ = ("found", "raw bits of these", "exact from 1", "from 4", "from 8")


def write_page(run: Run) -> None:
    """Write the page of all rows that a run has of its mark."""
    rows = rows_of(run)
    by_part = {part: [row for row in rows if row["part"] == part] for part in dict.fromkeys(r["part"] for r in rows)}
    title = f"{run.provenance['scene']['name']} · {run.path.resolve().name} · the mark"
    sections = [
        f"<header>\n<h1>{escape(title)}</h1>\n<p>Each share stands with the interval of 95 % that it proves (Clopper "
        "and Pearson), of views like these; “raw” are the bits of the word before any is mended.</p>\n</header>"
    ]
    sections += [section(name, draw(by_part[part])) for part, (name, draw) in SECTIONS.items() if part in by_part]
    run.write_text(PAGE, page(title, sections))


def rate(count: Sequence[int]) -> str:
    """A share, and between which bounds it lies.

    >>> rate([8, 8]), rate([0, 0])
    ('8 of 8 (63.1–100 %)', '–')
    """
    good, n = count
    if n == 0:
        return "–"
    low, high = interval(good, n)
    return f"{good} of {n} ({100 * low:.3g}–{100 * high:.3g} %)"


def none_of(count: Sequence[int]) -> str:
    """A count of what should not be, and the rate that it does not exceed."""
    good, n = count
    return f"{good} of {si(n)} (< {at_most(good, n):.1e})" if n else "–"


def added(rows: Iterable[Row]) -> Row:
    """Rows of several keys and messages as one: counts added up, figures averaged, raw bits by pictures found."""
    rows = list(rows)
    out = dict(rows[0])
    for name in ("found", *_EXACT, *_VERIFIED):
        out[name] = [sum(row[name][i] for row in rows) for i in (0, 1)]
    out["psnr"], out["worst_psnr"] = fmean(row["psnr"] for row in rows), min(row["worst_psnr"] for row in rows)
    seen = [(row["raw"], row["found"][0]) for row in rows if row["raw"] is not None]
    out["raw"] = sum(raw * n for raw, n in seen) / sum(n for _, n in seen) if seen else None
    return out


def _attacks(rows: list[Row]) -> str:
    body, curves = [], []
    attacks = list(dict.fromkeys(row["attack"] for row in rows))
    marks = sorted({row["strength"] for row in rows})
    for by in attacks:
        each = {}
        for mark in marks:
            own = [row for row in rows if (row["attack"], row["strength"]) == (by, mark)]
            if own:
                each[mark] = one = added(own)
                fidelity = f"{one['psnr']:.1f}, worst {one['worst_psnr']:.1f}"
                body.append([by, _number(one["attack_psnr"]), fidelity, *_read(one)])
        points = [(one["psnr"], 100 * one["raw"]) for one in each.values() if one["raw"] is not None]
        style = STYLES[attacks.index(by) % len(STYLES)]
        if len(points) > 1:
            curves.append(Curve([x for x, _ in points], [y for _, y in points], style, True, by))
    header = ("attack", "dB that it costs", "marked, dB from unmarked", *_READ)
    if len(marks) == 1:  # no curve
        return _table(header, body)
    chart = line_chart("Raw bits against fidelity", curves, x_unit="dB", x_low=_below(curves))
    return _table(header, body) + _figure("Raw bits, %, by PSNR of marked against unmarked renders", chart)


def _models(rows: list[Row]) -> str:
    body, curves = [], []
    for row in rows:
        name = row.get("attack") or row["suspect"]
        inspected = {True: "exact", False: "no", None: "another shape"}[row["inspected"]]
        body.append([name, _number(row["photo_loss"], 2), _number(row["attack_psnr"]), *_read(row), inspected])
    points = [row for row in rows if row["photo_loss"] is not None and row["raw"] is not None]
    kinds = list(dict.fromkeys((row.get("attack") or row["suspect"]).partition(":")[0] for row in points))
    for kind, style in zip(kinds, STYLES * len(kinds), strict=False):
        own = [row for row in points if (row.get("attack") or row["suspect"]).partition(":")[0] == kind]
        own = sorted(own, key=lambda row: row["photo_loss"])
        curves.append(Curve([row["photo_loss"] for row in own], [100 * row["raw"] for row in own], style, True, kind))
    header = ("done to the model", "dB lost against photographs", "dB from before", *_READ, "by inspect")
    chart = line_chart("Raw bits against PSNR lost", curves, x_unit="dB", x_low=_below(curves))
    return _table(header, body) + _figure("Raw bits, %, by PSNR lost against photographs", chart)


def _nulls(rows: list[Row]) -> str:
    wrong, right = [], []
    for row in rows:
        if row["keys"] == "right" and "messages" in row:
            verified = f"{row['verified'][0]} of {si(row['verified'][1])}, expected {row['expected']:.2g}"
            shares = [f"{100 * row['agreeing']:.2f} %", f"{row['ks']:.2f}"]
            wrong.append(["other messages of the key", str(row["found"]), "–", *shares, verified])
        elif row["keys"] == "right":
            accepted = [none_of(row["accepted"]), f"{row['readings']}"]
            right.append([row["pictures"], row["attack"], rate(row["found"]), *accepted])
        elif row["found"]:
            verified = f"{row['verified'][0]} of {si(row['verified'][1])}, expected {row['expected']:.2g}"
            shares = [f"{100 * row['agreeing']:.2f} %", f"{row['ks']:.2f}"]
            wrong.append([row["pictures"], str(row["found"]), none_of(row["accepted"]), *shares, verified])
    note = (
        '<p class="note">Wrong keys are drawn at random: whole readings, in which none may be found; the bits that '
        "agree with one message, whose p-values are uniform if the test says more than 0.01; and half keys, of which "
        "verify says yes as often as it states; as of other messages of the key itself.</p>"
    )
    keys = _table(("wrong keys on", "pictures", "found in readings", "agree", "uniform", "verified"), wrong)
    pictures = _table(("without a message", "attack", "of this scene", "pictures accepted", "readings"), right)
    return keys + note + pictures


def _forgery(rows: list[Row]) -> str:
    names = {"difference": "difference to unmarked twins", "denoiser": "what a denoiser takes away"}
    body = [
        [names[row["by"]], ("" if row["onto"] == SAME else "mean onto ") + row["onto"], str(row["pictures"])]
        + [_number(row["forged_psnr"]), *_read(row)[:2], _counts(row, _EXACT), _counts(row, _VERIFIED)]
        for row in rows
    ]
    header = ("taken from marked pictures", "pasted on", "from", "dB from before", *_READ[:2])
    return _table((*header, "read from 1, 4, 8", "verified from 1, 4, 8"), body)


def _overwrite(rows: list[Row]) -> str:
    body = [[str(row["key"]), _number(row["psnr"]), *_read(row), "exact" if row["inspected"] else "no"] for row in rows]
    return _table(("first owner's key", "dB from unmarked", *_READ, "by inspect"), body)


def _steganalysis(rows: list[Row]) -> str:
    body = [
        [row["learnt"], str(row["pictures"]), f"{row['strength']:.1f}", f"{row['auc']:.2f} ± {row['auc_error']:.2f}"]
        for row in rows
    ]
    return _table(("learnt on", "pictures", "dB of the mark", "AUC"), body)


def _read(row: Row) -> list[str]:
    raw = "–" if row["raw"] is None else f"{100 * row['raw']:.1f} %"
    return [f"{row['found'][0]} of {row['found'][1]}", raw, *(rate(row[name]) for name in _EXACT)]


def _counts(row: Row, names: Sequence[str]) -> str:
    return ", ".join(f"{row[name][0]} of {row[name][1]}" for name in names)


def _number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"  # never a negative zero


def _below(curves: Sequence[Curve]) -> float:
    """Where a horizontal axis begins."""
    return min((x for curve in curves for x in curve.x), default=0.0) - 0.5


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    if not body:
        return ""
    lines = ["".join(f"<th>{escape(cell)}</th>" for cell in header)]
    lines += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in body]
    rows = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="card"><table class="wide">{rows}</table></div>'


def _figure(title: str, chart: str) -> str:
    if not chart:
        return ""
    caption = f"<figcaption><b>{title}</b></figcaption>"
    return f'<figure class="card" style="max-width:640px;margin-top:14px">{caption}{chart}</figure>'


SECTIONS = {
    "attacks": ("Attacks on pictures", _attacks),
    "nulls": ("Where there is no message", _nulls),
    "forgery": ("Forged pictures", _forgery),
    "overwrite": ("Marked once more by somebody else", _overwrite),
    "models": ("Attacks on the model", _models),
    "suspects": ("Suspects", _models),
    "steganalysis": ("Can it be seen that there is one", _steganalysis),
}
"""Each part's heading, and what draws it."""
