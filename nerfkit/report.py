"""The page of a run: ``report.html``, which opens from any disk, in light and in dark, without a network or a script.

It shows what the run folder holds: figures from ``metrics.json``, curves from ``log.jsonl``, settings and provenance.
Pictures and cameras come from the scene and are handed in; the pictures are kept in ``renders/report/``, so that the
page can be written again without the scene.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from nerfkit.charts import Curve, Rig, duration, line_chart, offset_map, rig_views, si, smooth
from nerfkit.config import Config, flat, to_dict
from nerfkit.looks import HEAT
from nerfkit.page import page, section, table
from nerfkit.pictures import PICTURES, ViewFn, kept_pictures, pick_views
from nerfkit.run import Run


def write_report(run: Run, view_fn: ViewFn | None = None, rig: Rig | None = None) -> Path:
    """Write ``report.html`` into a run folder; what the run does not have yet is left out.

    Args:
        run: at any moment of its training.
        view_fn: gives a held-out view; it is asked for the worst, the median and the best. None shows the pictures of
            the last time, where they are of the same views.
        rig: the scene's cameras; None leaves their picture out.

    Returns the page's path. Raises RunError where one of the run's files is broken.
    """
    metrics = run.read_json("metrics.json") if (run.path / "metrics.json").exists() else {}
    records = run.read_log()
    picked = pick_views(metrics.get("per_image", []))
    kept = kept_pictures(run, {label: record["name"] for label, record in picked.items()}, view_fn)
    sections = [
        _header(run, metrics, records),
        _tiles(metrics, records),
        section("From one picture", _lifted(run)),
        section("Held-out views", _views(picked, kept)),
        section("Detail and alignment", _detail(picked, kept, metrics) + _offsets(records)),
        section("Where the sampler looks", _looks(picked, kept, metrics.get("cells"))),
        section("Course of the training", _curves(records)),
        section("Cameras", (_cameras(rig) if rig is not None else "") + _refinement(records) + _exposure(records)),
        section("Settings that differ from the defaults", _settings(run.config)),
        section("Provenance", _provenance(run, metrics)),
    ]
    return run.write_text("report.html", page(_name(run), sections))


def write_cameras(rig: Rig, title: str, path: Path) -> None:
    """Write a page with the cameras of a scene and the box of its model, from above and from the side.

    Raises OSError where the file cannot be written.
    """
    path.write_text(page(title, [f"<header>\n<h1>{escape(title)}</h1>\n</header>", _cameras(rig)]), encoding="utf-8")


def _name(run: Run) -> str:
    return f"{run.provenance['scene']['name']} · {run.path.resolve().name}"


def _header(run: Run, metrics: dict[str, Any], records: list[dict[str, Any]]) -> str:
    origin = run.provenance
    facts = [metrics.get("device") or origin["device"], origin["created"][:10]]
    steps = metrics.get("n_steps") or (records[-1].get("step") if records else 0)
    facts.append(f"{steps} steps" if steps else "not trained yet")
    if metrics:
        facts.append(f"{metrics['n_images']} {metrics['split']} views over {metrics['background']}")
        facts.append(f"protocol {metrics['protocol']}")
    return f"<header>\n<h1>{escape(_name(run))}</h1>\n<p>{escape('  ·  '.join(facts))}</p>\n</header>"


def _tiles(metrics: dict[str, Any], records: list[dict[str, Any]]) -> str:
    last = records[-1] if records else {}

    def figure(key: str, form: str) -> str:
        return "–" if metrics.get(key) is None else format(metrics[key], form)

    seconds, rate = (metrics.get(a, last.get(b)) for a, b in (("train_seconds", "seconds"), ("rays_per_second",) * 2))
    scores = [
        ("PSNR", figure("psnr", ".2f"), "dB"),
        ("SSIM", figure("ssim", ".4f"), ""),
        ("LPIPS", figure("lpips", ".4f"), ""),
    ]
    tiles = [
        *(scores if metrics.get("psnr") is not None else []),  # what nobody scored has no gaps for them
        ("training", duration(seconds), ""),
        ("rays a second", si(rate), ""),
        ("samples a ray", si(metrics.get("samples_per_ray", last.get("samples_per_ray"))), ""),
        ("model", si(metrics.get("model_bytes")), "B"),
        ("peak memory", si(metrics.get("peak_memory_bytes")), "B"),
    ]
    cells = []
    for i, (label, value, unit) in enumerate(tiles):
        number, _, prefix = value.partition(" ")
        tail = f"<small>{prefix}{unit}</small>" if prefix + unit and value != "–" else ""
        cells.append(
            f'<div class="tile{" first" if i == 0 else ""}"><b>{number}{tail}</b><span>{escape(label)}</span></div>'
        )
    reason = metrics.get("lpips_reason")
    note = f'<p class="note">No LPIPS: {escape(reason)}.</p>' if reason else ""
    return f'<div class="tiles">{"".join(cells)}</div>\n{note}'


def _lifted(run: Run) -> str:
    """What `nerfkit lift` made, and which of it the picture showed."""
    if not (run.path / "lift.json").exists():
        return ""
    found = run.read_json("lift.json")
    camera = f"elevation {found['elevation']:.0f}°, through {found['fov']:.0f}°"
    said = {
        "preview.png": ("The picture, and views from all around", f"{found['psnr']:.1f} dB  ·  {camera}"),
        "renders/seen.png": ("What was guessed", "laid over with a colour"),
    }
    cards = [
        f'<figure class="card"><figcaption><b>{title}</b><span>{escape(facts)}</span></figcaption>'
        f'<img src="{file}" alt="{title}"/></figure>'
        for file, (title, facts) in said.items()
        if (run.path / file).exists()
    ]
    return f'<div class="views">{"".join(cards)}</div>'


def _views(picked: dict[str, dict[str, Any]], kept: dict[str, Any]) -> str:
    """Render, truth and error of the picked views."""
    if not kept:
        return ""
    figures = [
        _figure(label, f"{record['name']}  ·  {record['psnr']:.2f} dB  ·  SSIM {record['ssim']:.4f}", _COMPARED)
        for label, record in picked.items()
    ]
    scale = (
        f'<p class="note">Error: mean absolute difference over the channels, 0 {_scale(cv2.COLORMAP_INFERNO)} '
        f"{kept['top']:.2g} and above, of a range of 1; one scale for all views.</p>"
    )
    return f'<div class="views">{"".join(figures)}</div>\n{scale}'


_WHERE = {
    "grid": "Rays step in occupied cells alone: those in which the field was found dense.",
    "learned": "Rays step in occupied cells alone: those that a network proposed and the field confirmed.",
    "proposal": "A network gathers samples where it expects the field to be dense, in cells that photographs allow.",
}
"""What each kind of sampler has cells for."""


def _looks(picked: dict[str, dict[str, Any]], kept: dict[str, Any], cells: dict[str, Any] | None) -> str:
    """Render, occupied cells and samples of each ray of the picked views."""
    if "most" not in kept or cells is None:
        return ""
    figures = [
        _figure(label, f"{record['name']}  ·  {si(record['samples_per_ray'])} samples a ray in the mean", _LOOKED)
        for label, record in picked.items()
    ]
    side, levels = cells["resolution"], "level" if cells["n_levels"] == 1 else "levels"
    notes = [
        f"{_WHERE[cells['kind']]} Rays end where nothing more can be seen. Cells are drawn opaque, chequered, in the "
        "colours of their places, the paler the farther.",
        f"Samples that a ray reached: black 0, from 1 {_scale(HEAT)} to {kept['most']} and above; "
        "one scale for all views.",
        f"Cells ({cells['kind']}): {side} × {side} × {side} in {cells['n_levels']} {levels}, "
        f"{100 * cells['occupied']:.2g} % occupied, {si(cells['bytes'])}B of bits.",
    ]
    told = "".join(f'<p class="note">{note}</p>' for note in notes)
    return f'<div class="views">{"".join(figures)}</div>\n{told}'


def _detail(picked: dict[str, dict[str, Any]], kept: dict[str, Any], metrics: dict[str, Any]) -> str:
    """Plain and aligned scores side by side, and close-ups of the picked views."""
    aligned = metrics.get("aligned")
    if aligned is None:
        return ""
    rows = [("", "plain", "aligned")]
    for label, key, form in (("PSNR", "psnr", "{:.2f} dB"), ("SSIM", "ssim", "{:.4f}"), _HIGH_PASS):
        rows.append((label, form.format(metrics[key]), form.format(aligned[key])))
    text = "".join(f"<tr><th>{a}</th><td>{b}</td><td>{c}</td></tr>" for a, b, c in rows)
    note = (
        f"Aligned: the photograph is laid onto the render first, by the flow between them; that moves it by "
        f"{aligned['offset']:.2f} pixels, root mean square. What a flow can bend is forgiven, so neither score stands "
        "alone. High-pass: of fine detail alone, what a blur of one pixel takes away."
    )
    figures = [
        _figure(label, f"{record['name']}  ·  high-pass {record['high_pass']:.2f} dB", _CLOSE)
        for label, record in picked.items()
        if kept.get("close") and "high_pass" in record
    ]
    told = f'<p class="note">{note} Close-ups: where the photograph has the most detail, pixel for pixel.</p>'
    scores = f'<div class="card"><table class="wide">{text}</table></div>'
    return f'<div class="exact">{scores}{"".join(figures)}</div>\n{told}'


def _offsets(records: list[dict[str, Any]]) -> str:
    """Where patches of photographs were laid, if that was left to the training."""
    found = next((record["alignment"] for record in reversed(records) if "alignment" in record), None)
    drawing = "" if found is None else offset_map(found["counts"])
    if not drawing:
        return ""
    note = (
        "Shares of the training's patches that fitted their photographs best so many pixels to the right and down of "
        "where the cameras have them; the middle is where they belong."
    )
    caption = "<b>Offsets of patches</b><span>pixels</span>"
    figure = f'<figure class="card"><figcaption>{caption}</figcaption>{drawing}</figure>'
    return f'<div class="grid3">{figure}</div>\n<p class="note">{note}</p>'


_HIGH_PASS = ("high-pass PSNR", "high_pass", "{:.2f} dB")
_COMPARED = {"render.jpg": "render", "truth.jpg": "truth", "error.jpg": "error"}
_LOOKED = {"render.jpg": "render", "cells.jpg": "occupied cells", "samples.jpg": "samples of each ray"}
_CLOSE = {"render-close.png": "render", "truth-close.png": "truth"}
"""Pictures of a view, side by side, and what is said under them."""


def _figure(label: str, facts: str, files: dict[str, str]) -> str:
    images = "".join(
        f'<div><img src="{PICTURES}/{label.lower()}-{file}" alt="{label} view, {said}"/><span>{said}</span></div>'
        for file, said in files.items()
    )
    return (
        f'<figure class="card"><figcaption><b>{label} view</b><span>{escape(facts)}</span></figcaption>'
        f'<div class="trio">{images}</div></figure>'
    )


def _scale(colormap: int) -> str:
    """A bar of the colours of one of OpenCV's scales."""
    stops = cv2.applyColorMap(np.linspace(0, 255, 9).astype(np.uint8)[:, None], colormap)[:, 0, ::-1]
    colours = ",".join(f"rgb({r},{g},{b})" for r, g, b in stops.tolist())
    return f'<span class="scale" style="background:linear-gradient(90deg,{colours})"></span>'


def _curves(records: list[dict[str, Any]]) -> str:
    def column(key: str) -> list[Any]:
        return [record.get(key) for record in records]

    seconds = column("seconds")

    def chart(title: str, key: str, form: str, log: bool = False, low: float | None = None) -> str:
        values = column(key)
        curves = [Curve(seconds, values, "faint"), Curve(seconds, smooth(values), "a")]
        digits = 4 if key == "psnr" else 3
        last = next((value for value in reversed(curves[1].y) if value is not None), None)
        held_out = column("test_psnr") if key == "psnr" else []
        tail = ""
        if any(value is not None for value in held_out):
            curves.append(Curve(seconds, held_out, "b", dots=True))
            tail = '<i class="key a"></i>training<i class="key b"></i>held out'
        drawing = line_chart(f"{title} against time", curves, log, low)
        if not drawing:
            return ""
        caption = f"<b>{title}</b><span>{form.format(si(last, digits))}{tail}</span>"
        return f'<figure class="card"><figcaption>{caption}</figcaption>{drawing}</figure>'

    charts = [
        chart("PSNR", "psnr", "{} dB"),
        chart("Loss", "loss", "{}", log=True),
        chart("Learning rate", "learning_rate", "{}", log=True),
        chart("Rays a second", "rays_per_second", "{}", low=0.0),
        chart("Samples a ray", "samples_per_ray", "{}", low=0.0),
        chart("Occupied share of the box", "occupancy", "{}", low=0.0),
    ]
    drawn = "".join(charts)
    note = '<p class="note">Against seconds of training. Pale: as reported; strong: moving average.</p>'
    return f'<div class="grid3">{drawn}</div>\n{note}' if drawn else ""


def _cameras(rig: Rig) -> str:
    n_train = sum(split == "train" for split in rig.splits)
    key = f'<i class="key a"></i>{n_train} train<i class="key b"></i>{len(rig.splits) - n_train} held out'
    titles = zip(("From above", "From the side"), rig_views(rig), strict=True)
    figures = "".join(
        f'<figure class="card"><figcaption><b>{title}</b><span>{key}</span></figcaption>{drawing}</figure>'
        for title, drawing in titles
    )
    note = '<p class="note">Scene coordinates. Dashed: the box of the model.</p>'
    return f'<div class="grid2">{figures}</div>\n{note}'


def _refinement(records: list[dict[str, Any]]) -> str:
    """How far the poses of training views were moved, if they were refined."""
    found = next((record["poses"] for record in reversed(records) if "poses" in record), None)
    if found is None:
        return ""
    ways = [f"{found['degrees'][kind]:.2g}° and {found['shift'][kind]:.2g} scene units" for kind in ("median", "most")]
    text = f"{found['n_moved']} of {found['n_views']} poses of training views were refined in {found['round']} rounds"
    return f'<p class="note">{text}: views are off their file by {ways[0]} in the median, {ways[1]} at most.</p>'


def _exposure(records: list[dict[str, Any]]) -> str:
    """How differently the photographs were exposed, if that was found."""
    found = next((record["exposure"] for record in reversed(records) if "exposure" in record), None)
    if found is None:
        return ""
    span = f"{found['least']:.2f} to {found['most']:.2f} times the mean"
    return f'<p class="note">The training photographs are exposed at {span}; pictures are rendered at the mean.</p>'


def _settings(config: Config) -> str:
    ours, defaults = flat(to_dict(config)), flat(to_dict(Config()))
    rows = [
        (f"<code>{escape(key)}</code>", f"{escape(str(value))}  <s>instead of {escape(str(defaults[key]))}</s>")
        for key, value in ours.items()
        if value != defaults[key]
    ]
    return table(rows) if rows else '<div class="card"><p>None.</p></div>'


def _provenance(run: Run, metrics: dict[str, Any]) -> str:
    origin = run.provenance
    versions = "  ·  ".join(f"{name} {version}" for name, version in origin["versions"].items() if version)
    resumed = "  ·  ".join(f"at step {session['step']}, {session['time']}" for session in origin.get("resumed", []))
    rows = [
        ("command", f"<code>{escape(' '.join(origin['command']))}</code>" if origin["command"] else ""),
        ("scene", escape(" at ".join(origin["scene"][key] for key in ("name", "relative") if key in origin["scene"]))),
        ("fingerprint", f"<code>{escape(origin['scene']['fingerprint'])}</code>"),
        ("started", escape(origin["created"])),
        ("resumed", escape(resumed)),
        ("device", escape("  ·  ".join(dict.fromkeys((origin["device"], origin["cpu"]))))),
        ("threads", str(origin["threads"])),
        ("versions", escape(versions)),
        ("commit", f"<code>{escape(origin['commit'])}</code>" if origin["commit"] else ""),
        ("settings", f"<code>{escape(origin['config_hash'])}</code>, seed {origin['seed']}"),
        ("split", escape(str(metrics.get("split_rule") or ""))),
    ]
    return table([row for row in rows if row[1]])
