"""Small drawings as inline SVG: curves, and the cameras around their box. Colours come from the page's style sheet.

Classes used: ``grid``, ``tick`` and ``label`` (text), those of `STYLES` (the series), ``faint`` (the raw values under a
smoothed one), ``box`` (the model's box).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from jaxtyping import Float

Number = float | int

MAX_POINTS = 300
"""Points drawn of one curve; more cannot be seen at this size."""
STYLES = tuple(colour + dashes for dashes in ("", " dashed", " dotted", " mixed") for colour in "abcd")
"""Of curves that stand in one chart: no two of the first sixteen look alike."""
_LETTER, _LINE = 5.8, 11.0
"""How wide a letter of a name is at most, on average, and how far apart names stand."""
_WIDTH, _HEIGHT, _MARGIN = 460, 380, 30
"""Of a view of the cameras."""


@dataclass(frozen=True)
class Curve:
    """One line of a chart. Points without a value (None, NaN) are left out."""

    x: Sequence[Number | None]
    y: Sequence[Number | None]
    style: str = "a"
    """Classes of the line: one of `STYLES`, or faint."""
    dots: bool = False
    """Mark each point."""
    name: str = ""
    """Written beside its last point."""


@dataclass(frozen=True)
class Rig:
    """The cameras of a scene and the box of its model, in scene coordinates."""

    c2w: Float[np.ndarray, "n 3 4"]
    """Camera-to-world, OpenCV axes."""
    aabb: Float[np.ndarray, " 6"]
    splits: Sequence[str]
    """The split of each camera; ``train`` is drawn in one colour, the rest in another."""
    fov_x: float = 50.0
    """Horizontal field of view, degrees."""
    aspect: float = 1.5
    """Width of a picture over its height."""


def si(value: Number | None, digits: int = 3) -> str:
    """A number for people: three digits and k, M or G.

    >>> si(1234567), si(0.5), si(42), si(None)
    ('1.23 M', '0.5', '42', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size * 0.9995:
            return f"{value / size:.{digits}g}{unit}"
    return f"{value:.{digits}g}"


def duration(seconds: Number | None) -> str:
    """A time for people.

    >>> duration(7.26), duration(75), duration(3700), duration(None)
    ('7.3 s', '1:15 min', '1:01 h', '–')
    """
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"


def nice_ticks(low: Number, high: Number, count: int = 4) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) within [low, high], about ``count`` of them.

    >>> nice_ticks(0, 93, 4)
    [0.0, 20.0, 40.0, 60.0, 80.0]
    """
    if not high > low:
        return [float(low)]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((m * power for m in (1, 2, 5, 10)), key=lambda s: abs(math.log(s / rough)))
    return [round(i * step, 12) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def nice_top(value: Number) -> float:
    """The first of 1, 1.5, 2, 3, 5 and 7.5 times a power of ten that is not less than a positive value; 0 for 0.

    >>> nice_top(11.2), nice_top(0.5), nice_top(80)
    (15.0, 0.5, 100.0)
    """
    if value <= 0:
        return 0.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(m * power for m in (1, 1.5, 2, 3, 5, 7.5, 10) if m * power >= value * (1 - 1e-9))


def _time_ticks(seconds: Number) -> tuple[list[float], float, str]:
    """Ticks in [0, seconds], and the unit (its length and name) they are labelled in."""
    size, unit = next(((s, u) for s, u in ((3600.0, "h"), (60.0, "min")) if seconds >= 2 * s), (1.0, "s"))
    return [tick * size for tick in nice_ticks(0, seconds / size, 5)], size, unit


def _clean(curve: Curve, log: bool, x_log: bool = False) -> list[tuple[float, float]]:
    """Points that can be drawn, thinned; with ``log``, y as its decimal logarithm, and x with ``x_log``."""
    pairs = ((x, y) for x, y in zip(curve.x, curve.y, strict=True) if x is not None and y is not None)
    points = [(_scaled(x, x_log), _scaled(y, log)) for x, y in pairs]
    points = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    stride = -(-len(points) // MAX_POINTS) or 1
    return points[::-1][::stride][::-1]  # the last point always stays


def _scaled(value: Number, log: bool) -> float:
    if not log:
        return float(value)
    return math.log10(value) if value > 0 else math.nan


def smooth(values: Sequence[Number | None], share: float = 0.05) -> list[Number | None]:
    """Centred moving average over a window of this share of the values; missing ones stay missing.

    At the start, where curves are steep, the window shrinks so as to stay centred; at the end it is cut.
    """
    known = [value if value is not None and math.isfinite(value) else None for value in values]
    radius = int(share * len(known) / 2)
    out: list[Number | None] = []
    for i, value in enumerate(known):
        reach = min(radius, i)
        near = [other for other in known[i - reach : i + reach + 1] if other is not None]
        out.append(None if value is None else sum(near) / len(near))
    return out


def line_chart(
    label: str,
    curves: Sequence[Curve],
    log: bool = False,
    low: float | None = None,
    x_unit: str | None = None,
    x_log: bool = False,
    x_low: float = 0.0,
) -> str:
    """Curves as an SVG element; an empty string where there is nothing to draw.

    Args:
        label: what it shows, for readers who do not see it.
        curves: drawn in order, the last on top.
        log: a logarithmic y axis.
        low: the axis reaches down to this value at least.
        x_unit: of the horizontal axis; None is seconds, shown as people write times.
        x_log: a logarithmic horizontal axis instead, about the points.
        x_low: where the horizontal axis begins, but a logarithmic one.
    """
    drawn = [(curve, points) for curve in curves if (points := _clean(curve, log, x_log))]
    if not drawn:
        return ""
    room = _LETTER * max(len(curve.name) for curve, _ in drawn)
    left, right, top, bottom = 44, 10 + room, 8, 24
    width, height = 360 + room, 190
    ys = [y for _, points in drawn for _, y in points] + ([low] if low is not None else [])
    y_low, y_high = min(ys), max(ys)
    pad = 0.06 * (y_high - y_low) or 0.05 * abs(y_high) or 1.0
    y_low, y_high = (y_low if y_low == low else y_low - pad), y_high + pad
    xs = [x for _, points in drawn for x, _ in points]
    x_low, x_high = (min(xs) - 0.1, max(xs) + 0.1) if x_log else (x_low, max(xs) or 1.0)

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            left + (width - left - right) * (x - x_low) / (x_high - x_low),
            top + (height - top - bottom) * (y_high - y) / (y_high - y_low),
        )

    parts = [f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">']
    for value, text in _y_ticks(y_low, y_high, log):
        y = at(x_low, value)[1]
        parts.append(f'<path class="grid" d="M{left} {y:.1f}H{width - right}"/>')
        parts.append(f'<text class="tick" x="{left - 6}" y="{y + 3.5:.1f}" text-anchor="end">{text}</text>')
    for tick, text in _x_ticks(x_low, x_high, x_unit, x_log):
        x = at(tick, y_low)[0]
        anchor = "end" if x > width - right - 16 else "middle"
        parts.append(f'<text class="tick" x="{x:.1f}" y="{height - 7}" text-anchor="{anchor}">{text}</text>')
    for curve, points in drawn:
        places = [at(x, y) for x, y in points]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path class="line {escape(curve.style)}" d="M{path}"/>')
        if curve.dots:
            parts += [f'<circle class="dot {escape(curve.style)}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places]
    ends = [(curve.name, *at(*points[-1])) for curve, points in drawn if curve.name]
    lowest = float(height - bottom)
    for (name, x, _), y in zip(ends, apart([y for *_, y in ends], _LINE, lowest), strict=True):
        parts.append(f'<text class="tick" x="{x + 7:.1f}" y="{y + 3.5:.1f}">{escape(name)}</text>')
    return "".join([*parts, "</svg>"])


def apart(heights: Sequence[float], gap: float, lowest: float) -> list[float]:
    """Heights of names, which grow downwards, moved as little as keeps them apart and none below the lowest.

    >>> apart([10.0, 12.0, 50.0], 11.0, 60.0), apart([55.0, 58.0], 11.0, 60.0)
    ([10.0, 21.0, 50.0], [49.0, 60.0])
    """
    order = sorted(range(len(heights)), key=heights.__getitem__)
    out = list(heights)
    for before, i in zip(order, order[1:], strict=False):
        out[i] = max(out[i], out[before] + gap)
    below = lowest
    for i in reversed(order):
        out[i] = below = min(out[i], below)
        below -= gap
    return out


def _x_ticks(low: float, high: float, unit: str | None, log: bool) -> list[tuple[float, str]]:
    if log:
        return [(tick, text + (unit or "")) for tick, text in _y_ticks(low, high, True)]
    ticks, size, unit = _time_ticks(high) if unit is None else (nice_ticks(low, high, 5), 1.0, unit)
    return [(tick, f"{tick / size:g}" + (f" {unit}" if tick == ticks[-1] else "")) for tick in ticks]


def _y_ticks(low: float, high: float, log: bool) -> list[tuple[float, str]]:
    if not log:
        return [(tick, si(tick)) for tick in nice_ticks(low, high)]
    digits = (1, 2, 5) if high - low < 1.5 else (1, 3) if high - low < 3 else (1,)
    values = [digit * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for digit in digits]
    ticks = [
        (math.log10(value), f"{value:.0e}".replace("e-0", "e-") if value < 1e-3 else si(value)) for value in values
    ]
    return [(place, text) for place, text in ticks if low <= place <= high]


def offset_map(counts: Sequence[Sequence[int]]) -> str:
    """Shares of counts at offsets (y, x) about the middle, as squares, the darker the more; empty without any."""
    total, n = sum(map(sum, counts)), len(counts)
    if not total:
        return ""
    side, reach = 44, n // 2
    most = max(map(max, counts))
    cells = []
    for y, row in enumerate(counts):
        for x, count in enumerate(row):
            place = f'x="{x * side + 1}" y="{y * side + 1}" width="{side - 2}" height="{side - 2}" rx="4"'
            shade = math.sqrt(count / most)
            share = f"{100 * count / total:.2g} %"
            cells.append(
                f'<rect class="offset" {place} fill-opacity="{shade:.3f}"><title>{x - reach}, {y - reach}: {share}'
                f'</title></rect><text class="tick" text-anchor="middle" x="{(x + 0.5) * side}" '
                f'y="{(y + 0.5) * side + 4}">{share}</text>'
            )
    size = n * side
    return (
        f'<svg viewBox="0 0 {size} {size}" style="max-width:{size}px" role="img" '
        f'aria-label="Offsets of patches">{"".join(cells)}</svg>'
    )


def rig_views(rig: Rig) -> tuple[str, str]:
    """The cameras and the box from above and from the side, as two SVG elements at one scale.

    "Up" is the axis of the scene nearest to the cameras' mean up direction.
    """
    upward = -rig.c2w[:, :, 1].mean(0) if len(rig.c2w) else np.array([0.0, 0.0, 1.0])
    axis = int(np.abs(upward).argmax())
    up = np.eye(3)[axis] * (1.0 if upward[axis] >= 0 else -1.0)
    across = np.eye(3)[[1, 0, 0][axis]]
    away = np.cross(up, across)
    corners = rig.aabb.reshape(2, 3).astype(float)
    size = _frustum_size(rig)
    frusta = _frusta(rig, size)
    low, high = frusta.reshape(-1, 3).min(0, initial=np.inf), frusta.reshape(-1, 3).max(0, initial=-np.inf)
    if not len(frusta):
        low, high = corners
    # A box that dwarfs the cameras runs out of the picture, rather than shrink them to a dot.
    reach = 1.5 * (high - low).max()
    low, high = (
        np.minimum(low, np.maximum(corners[0], low - reach)),
        np.maximum(high, np.minimum(corners[1], high + reach)),
    )
    spans = [np.abs((high - low) @ direction) for direction in (across, away, up)]
    scale = min((_WIDTH - 2 * _MARGIN) / spans[0], (_HEIGHT - 2 * _MARGIN) / max(spans[1:]))
    middle = (low + high) / 2
    above = _plan(rig, frusta, np.stack([across, away]), middle, scale)
    side = _plan(rig, frusta, np.stack([across, up]), middle, scale)
    return above, side


def _frustum_size(rig: Rig) -> float:
    """Length of a drawn frustum: readable beside its neighbours, and small against the whole."""
    places = np.concatenate([rig.c2w[:, :, 3], rig.aabb.reshape(2, 3)])
    spread = float(np.linalg.norm(np.ptp(places[: len(rig.c2w)], 0))) if len(rig.c2w) > 1 else 0.0
    crowd = min(1.0, math.sqrt(40 / max(len(rig.c2w), 1)))
    return 0.07 * crowd * (spread or float(np.linalg.norm(np.ptp(places, 0))) or 1.0)


def _frusta(rig: Rig, size: float) -> Float[np.ndarray, "n 5 3"]:
    """Apex and the four corners, in order around the picture, of each camera."""
    half = math.tan(math.radians(rig.fov_x) / 2)
    x, y = size * half, size * half / rig.aspect
    local = np.array([[0, 0, 0], [-x, -y, size], [x, -y, size], [x, y, size], [-x, y, size]], float)
    return np.einsum("nij,kj->nki", rig.c2w[:, :, :3].astype(float), local) + rig.c2w[:, None, :, 3]


def _axis_name(direction: Float[np.ndarray, " 3"]) -> str:
    axis = int(np.abs(direction).argmax())
    return ("−" if direction[axis] < 0 else "") + "xyz"[axis]


def _plan(
    rig: Rig,
    frusta: Float[np.ndarray, "n 5 3"],
    plane: Float[np.ndarray, "2 3"],
    middle: Float[np.ndarray, " 3"],
    scale: float,
) -> str:
    """One orthographic view around ``middle``; the rows of ``plane`` point right and up on the page."""
    width, height = _WIDTH, _HEIGHT
    centre = plane @ middle

    def at(points: Float[np.ndarray, "*any 3"]) -> Float[np.ndarray, "*any 2"]:
        return (points @ plane.T - centre) * [scale, -scale] + [width / 2, height / 2]

    right, up = _axis_name(plane[0]), _axis_name(plane[1])
    label = f"Cameras and box, {right} to the right and {up} up"
    parts = [f'<svg class="plan" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">']
    for row in range(2):
        reach = (width, height)[row] / 2 / scale
        sign = plane[row].sum()
        for tick in nice_ticks(centre[row] - reach, centre[row] + reach, 6):
            offset = (tick - centre[row]) * scale
            if abs(offset) > (width, height)[row] / 2 - 14:
                continue
            x, y = width / 2 + offset, height / 2 - offset
            parts.append(f'<path class="grid" d="{f"M{x:.1f} 0V{height}" if row == 0 else f"M0 {y:.1f}H{width}"}"/>')
            place = f'x="{x + 3:.1f}" y="{height - 5}"' if row == 0 else f'x="4" y="{y - 3:.1f}"'
            parts.append(f'<text class="tick" {place}>{f"{tick * sign + 0.0:g}".replace("-", "−")}</text>')
    low, high = np.sort(at(rig.aabb.reshape(2, 3).astype(float)), axis=0)
    parts.append(
        f'<rect class="box" x="{low[0]:.1f}" y="{low[1]:.1f}" width="{high[0] - low[0]:.1f}" '
        f'height="{high[1] - low[1]:.1f}"/>'
    )
    order = sorted(range(len(frusta)), key=lambda i: rig.splits[i] != "train")  # the few held-out ones on top
    for index in order:
        p = [f"{x:.1f} {y:.1f}" for x, y in at(frusta[index])]
        path = f"M{p[1]}L{p[2]}L{p[3]}L{p[4]}Z" + "".join(f"M{p[0]}L{corner}" for corner in p[1:])
        parts.append(f'<path class="camera {"a" if rig.splits[index] == "train" else "b"}" d="{path}"/>')
    parts.append(f'<text class="label" x="{width - 8}" y="{height - 20}" text-anchor="end">{right} →</text>')
    parts.append(f'<text class="label" x="26" y="16">{up} ↑</text>')
    return "".join([*parts, "</svg>"])
