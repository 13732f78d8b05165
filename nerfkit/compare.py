"""Runs side by side on one page: figures, curves, the views in which they differ most, and their settings."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from nerfkit.aside import file_aside
from nerfkit.charts import STYLES, Curve, duration, line_chart, si, smooth
from nerfkit.config import flat, to_dict
from nerfkit.evaluate import AnyPicture, to_bytes
from nerfkit.packed import PackedRun, open_run
from nerfkit.page import page, section
from nerfkit.run import Run, RunError

COLOURS = STYLES[:4]
"""Of the runs, of which there are as many at most: dashes would not tell single points apart."""
_WIDTH = 480
"""Pixels; wider pictures are reduced."""
_QUALITY = 90

ViewFn = Callable[[Run, str], AnyPicture]
"""A run and the name of a view -> its render."""
TruthFn = Callable[[str], AnyPicture]

_FIGURES = (
    ("PSNR", "psnr", lambda value: f"{value:.2f} dB", max),
    ("SSIM", "ssim", lambda value: f"{value:.4f}", max),
    ("GMSD", "gmsd", lambda value: f"{value:.4f}", min),
    ("high-pass PSNR", "high_pass", lambda value: f"{value:.2f} dB", max),
    ("aligned PSNR", "aligned.psnr", lambda value: f"{value:.2f} dB", max),
    ("aligned high-pass PSNR", "aligned.high_pass", lambda value: f"{value:.2f} dB", max),
    ("LPIPS", "lpips", lambda value: f"{value:.4f}", min),
    ("training", "train_seconds", duration, min),
    ("steps", "n_steps", str, None),
    ("rays a second", "rays_per_second", si, max),
    ("samples a ray", "samples_per_ray", si, min),
    ("model", "model_bytes", lambda value: f"{si(value)}B", min),
    ("peak memory", "peak_memory_bytes", lambda value: f"{si(value)}B", min),
    ("protocol", "protocol", str, None),
    ("device", "device", str, None),
)


def compare_runs(
    folders: Sequence[Path],
    out: Path,
    view_fn: ViewFn | None = None,
    truth_fn: TruthFn | None = None,
    rows: Path | None = None,
) -> None:
    """Write a page with two to four runs side by side, pictures included, as one file.

    Args:
        folders: of the runs, or files of them; what one of them does not have yet is left out.
        out: the page.
        view_fn, truth_fn: for the pictures of held-out views; None leaves them out.
        rows: of `tools/bench/compressing.py`; what they say of the scene is drawn behind the runs' bytes.

    Raises RunError where a folder is no run, there are too few or too many of them, or the rows cannot be read.
    """
    if not 2 <= len(folders) <= len(COLOURS):
        raise RunError(f"{len(folders)} runs: from 2 to {len(COLOURS)} can be compared")
    runs = [open_run(folder) for folder in folders]
    metrics = [run.read_json("metrics.json") if (run.path / "metrics.json").exists() else {} for run in runs]
    names = _names(runs)
    sections = [
        f"<header>\n<h1>{escape(' and '.join(names))}</h1>\n<p>{_key(names)}</p>\n</header>",
        section("Figures", _figures(names, metrics)),
        section("What a byte buys", _bytes(metrics, _rows_about(runs[0], rows) if rows else [])),
        section("Course of the training", _curves(runs)),
        section("Held-out views", _views(runs, names, metrics, view_fn, truth_fn)),
        section("Settings that differ", _settings(runs, names)),
    ]
    with file_aside(out) as aside:
        aside.write_text(page(" and ".join(names), sections), encoding="utf-8")


def telling_views(metrics: Sequence[dict[str, Any]], n_views: int = 3) -> list[str]:
    """Names of the views that all runs were scored on and in which their PSNR differs most, the most telling first."""
    tables = [{record["name"]: record["psnr"] for record in one.get("per_image", [])} for one in metrics]
    shared = set.intersection(*map(set, tables)) if tables else set()

    def spread(name: str) -> float:
        values = [table[name] for table in tables]
        return max(values) - min(values)

    return sorted(shared, key=lambda name: (-spread(name), name))[:n_views]


def _names(runs: Sequence[Run]) -> list[str]:
    """What tells the runs apart: the last part of their folders or files, or as many parts as it takes."""
    paths = [(run.file if isinstance(run, PackedRun) else run.path).resolve() for run in runs]
    for n_parts in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-n_parts:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _key(names: Sequence[str]) -> str:
    return "".join(f'<i class="key {style}"></i>{escape(name)}' for style, name in zip(COLOURS, names, strict=False))


def _figures(names: Sequence[str], metrics: Sequence[dict[str, Any]]) -> str:
    rows = ["<tr><th></th>" + "".join(f"<th>{escape(name)}</th>" for name in names) + "</tr>"]
    for label, key, form, best in _FIGURES:
        values = [_value(one, key) for one in metrics]
        known = [value for value in values if value is not None]
        if not known:
            continue
        top = best(known) if best is not None and len(set(known)) > 1 else None
        cells = (
            f"<td{' class=best' if value == top and value is not None else ''}>"
            f"{escape(form(value)) if value is not None else '–'}</td>"
            for value in values
        )
        rows.append(f"<tr><th>{label}</th>{''.join(cells)}</tr>")
    return f'<div class="card"><table class="wide">{"".join(rows)}</table></div>' if len(rows) > 1 else ""


def _value(metrics: dict[str, Any], key: str) -> Any:
    """One figure, None where it is not known; a point leads into a group of figures."""
    group, _, name = key.rpartition(".")
    return ((metrics.get(group) or {}) if group else metrics).get(name)


def _rows_about(run: Run, path: Path) -> list[tuple[str, int, float]]:
    """Method, bytes and PSNR of the rows about a run's scene at its size, of the longest trainings among them."""
    try:
        every = [json.loads(line) for line in path.read_text().splitlines()]
        about = (run.provenance["scene"]["name"], run.config.data.downscale)
        own = [row for row in every if (row["scene"], row["downscale"]) == about and "refused" not in row]
        steps = max((row["steps"] for row in own), default=0)
        return [(row["method"], int(row["bytes"]), float(row["psnr"])) for row in own if row["steps"] == steps]
    except OSError as error:
        raise RunError(f"{path}: {error.strerror or error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path}: holds no rows of tools/bench/compressing.py ({error})") from None


def _bytes(metrics: Sequence[dict[str, Any]], rows: Sequence[tuple[str, int, float]]) -> str:
    """PSNR against bytes: a point for each run, and behind them a curve for each method of the rows."""
    points = [(one.get("model_bytes"), one.get("psnr")) for one in metrics]
    if not rows and len({n for n, _ in points}) == 1:
        return ""
    curves = []
    for method in dict.fromkeys(name for name, _, _ in rows):
        own = sorted((n, psnr) for name, n, psnr in rows if name == method)
        curves.append(Curve([n for n, _ in own], [psnr for _, psnr in own], "faint", True, method))
    curves += [Curve([n], [psnr], style, True) for style, (n, psnr) in zip(COLOURS, points, strict=False)]
    chart = line_chart("PSNR against bytes", curves, x_unit="B", x_log=True)
    behind = f"<span>behind the runs: {len(rows)} rows of a bench</span>" if rows else ""
    caption = f"<figcaption><b>Held-out PSNR, dB, by bytes of the model</b>{behind}</figcaption>"
    return f'<figure class="card" style="max-width:640px">{caption}{chart}</figure>' if chart else ""


def _curves(runs: Sequence[Run]) -> str:
    logs = [run.read_log() for run in runs]
    drawn = []
    for title, key, log, low in (
        ("PSNR of the training rays", "psnr", False, None),
        ("Loss", "loss", True, None),
        ("Samples a ray", "samples_per_ray", False, 0.0),
        ("Rays a second", "rays_per_second", False, 0.0),
    ):
        curves = [
            Curve([record.get("seconds") for record in records], smooth([record.get(key) for record in records]), style)
            for style, records in zip(COLOURS, logs, strict=False)
        ]
        if chart := line_chart(f"{title} against time", curves, log, low):
            drawn.append(f'<figure class="card"><figcaption><b>{title}</b></figcaption>{chart}</figure>')
    return f'<div class="grid2">{"".join(drawn)}</div>' if drawn else ""


def _views(
    runs: Sequence[Run],
    names: Sequence[str],
    metrics: Sequence[dict[str, Any]],
    view_fn: ViewFn | None,
    truth_fn: TruthFn | None,
) -> str:
    """The views in which the runs differ most, as each of them renders these, and the truth."""
    if view_fn is None or truth_fn is None:
        return ""
    figures = []
    for view in telling_views(metrics):
        images = [(name, view_fn(run, view)) for name, run in zip(names, runs, strict=True)]
        scores = [next(r["psnr"] for r in one["per_image"] if r["name"] == view) for one in metrics]
        labels = [f"{name}  ·  {score:.2f} dB" for name, score in zip(names, scores, strict=True)] + ["truth"]
        pictures = [picture for _, picture in images] + [truth_fn(view)]
        cells = "".join(
            f'<div><img src="{_embedded(picture)}" alt="{escape(label)}"/><span>{escape(label)}</span></div>'
            for label, picture in zip(labels, pictures, strict=True)
        )
        columns = f"grid-template-columns:repeat({len(labels)},1fr)"
        figures.append(
            f'<figure class="card"><figcaption><b>{escape(view)}</b></figcaption>'
            f'<div class="trio" style="{columns}">{cells}</div></figure>'
        )
    note = '<p class="note">The views in which the PSNR of the runs differs most.</p>'
    return f'<div class="views">{"".join(figures)}</div>\n{note}' if figures else ""


def _embedded(picture: AnyPicture) -> str:
    """A picture as text that an HTML page shows."""
    image = to_bytes(picture)
    if image.shape[1] > _WIDTH:
        size = (_WIDTH, max(1, round(image.shape[0] * _WIDTH / image.shape[1])))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"


def _settings(runs: Sequence[Run], names: Sequence[str]) -> str:
    trees = [flat(to_dict(run.config)) for run in runs]
    rows = ["<tr><th></th>" + "".join(f"<th>{escape(name)}</th>" for name in names) + "</tr>"]
    for key in trees[0]:
        values = [tree.get(key) for tree in trees]
        if any(value != values[0] for value in values):
            cells = "".join(f"<td>{escape(str(value))}</td>" for value in values)
            rows.append(f"<tr><th><code>{escape(key)}</code></th>{cells}</tr>")
    if len(rows) == 1:
        return '<div class="card"><p>None.</p></div>'
    return f'<div class="card"><table class="wide">{"".join(rows)}</table></div>'
