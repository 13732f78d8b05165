"""Paints of the bundled scenes: colour, roughness and metalness as functions of where a point lies.

A painter takes ``points`` (height, width, 3), the surface's local points in scene units, and ``uv`` (height, width, 2),
the place in the surface's own grid, and gives a ``Paint``. Wood, patina and earth are solid: they are cut, not wrapped.
Colours are linear RGB reflectances in [0, 1]; ``colour("...")`` takes the usual sRGB hex.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Paint:
    """``base`` (height, width, 3) linear reflectance; ``rough`` and ``metal`` in [0, 1], one or (height, width).

    A ``rough`` of exactly 1 is quite matt. ``relief`` (height, width), in units, is a height that only light sees.
    """

    base: np.ndarray
    rough: np.ndarray | float = 0.5
    metal: np.ndarray | float = 0.0
    relief: np.ndarray | None = None


def colour(code: str) -> np.ndarray:
    """Linear RGB (3,) of an sRGB hex code such as ``"c8a050"``."""
    value = np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def mix(a: np.ndarray, b: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """``a`` where ``amount`` (...) is 0, ``b`` where it is 1; colours (3,) or (..., 3)."""
    return a + (b - a) * np.clip(amount, 0, 1)[..., None]


def edge(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """Smooth rise from 0 at ``low`` to 1 at ``high``."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def within(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """1.0 where ``low`` <= x < ``high``, else 0.0."""
    return ((x >= low) & (x < high)).astype(float)


def ticks(x: np.ndarray, period: float, width: float) -> np.ndarray:
    """1.0 within ``width`` / 2 of the multiples of ``period``, else 0.0."""
    return (np.abs((x + period / 2) % period - period / 2) < width / 2).astype(float)


def polar(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance from the z axis, angle in degrees [0, 360), height."""
    x, y, z = np.moveaxis(points, -1, 0)
    return np.hypot(x, y), np.degrees(np.arctan2(y, x)) % 360, z


# ---- noise


def lottery(*cells: np.ndarray, seed: int = 0) -> np.ndarray:
    """A number in [0, 1) for each cell of whole coordinates, the same every time."""
    state = np.full(np.broadcast(*cells).shape, 0x9E3779B97F4A7C15 ^ seed, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for cell in cells:
            state = (state ^ np.asarray(cell).astype(np.int64).astype(np.uint64)) * np.uint64(0xBF58476D1CE4E5B9)
            state ^= state >> np.uint64(29)
            state = state * np.uint64(0x94D049BB133111EB)
            state ^= state >> np.uint64(32)
    return (state >> np.uint64(40)).astype(float) / 2**24


def value_noise(points: np.ndarray, seed: int = 0) -> np.ndarray:
    """Smooth noise in [0, 1] over points (..., 3), one feature a unit."""
    cell = np.floor(points).astype(np.int64)
    t = points - cell
    t = t * t * (3 - 2 * t)
    total = np.zeros(points.shape[:-1])
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod([t[..., k] if corner[k] else 1 - t[..., k] for k in range(3)], axis=0)
        total += weight * lottery(*(cell[..., k] + corner[k] for k in range(3)), seed=seed)
    return total


def clouds(points: np.ndarray, seed: int = 0, octaves: int = 4) -> np.ndarray:
    """Sum of noises, each twice as fine and half as strong; about [0, 1], mean 0.5."""
    weights = 0.5 ** np.arange(octaves)
    layers = [w * value_noise(points * 2**k + 17.3 * k, seed + k) for k, w in enumerate(weights)]
    return np.sum(layers, axis=0) / weights.sum()


def glyphs(x: np.ndarray, y: np.ndarray, seed: int = 0, gap: float = 0.3) -> np.ndarray:
    """Ink (0 or 1) of made-up letters: cell floor(x) holds one, y runs 0..1 from its foot to its head.

    Each letter is a draw of strokes, so a line of them has the look of writing and says nothing. ``gap`` is the part of
    a cell left blank.
    """
    cell, cx = np.floor(x), (x % 1) / (1 - gap)
    inside = (cx < 1) & (y > 0) & (y < 1)
    wide, tall = 0.24, 0.16
    strokes = [
        (cx < wide, 0.8),
        (cx > 1 - wide, 0.45),
        (y > 1 - tall, 0.55),
        (np.abs(y - 0.5) < tall / 2, 0.55),
        (y < tall, 0.45),
        (np.abs(cx - y) < wide / 1.5, 0.25),
        (np.abs(cx - 0.5) < wide / 2, 0.15),
    ]
    ink = np.zeros(np.broadcast(x, y).shape, dtype=bool)
    for index, (where, odds) in enumerate(strokes):
        ink |= where & (lottery(cell, np.full_like(cell, index), seed=seed) < odds)
    blank = lottery(cell, np.full_like(cell, 99), seed=seed) < 0.14
    return (ink & inside & ~blank).astype(float)


# ---- wood, metal

WALNUT = (colour("6b3f22"), colour("2e190d"))
MAPLE = (colour("e2bd84"), colour("b98449"))
CHERRY = (colour("a4552b"), colour("6a2f16"))


def timber(points: np.ndarray, tones: tuple, axis: int = 2, seed: int = 0, pitch: float = 0.055) -> np.ndarray:
    """Colour (..., 3) of solid wood: year rings ``pitch`` units apart about a far pith, pores drawn along ``axis``."""
    order = [(axis + 1) % 3, (axis + 2) % 3, axis]
    p = points[..., order] + np.array([0.61, 0.27, 0.0]) * (1 + seed % 3)
    drift = clouds(p * np.array([2.2, 2.2, 0.7]), seed, 3)
    rings = np.hypot(p[..., 0], p[..., 1]) / pitch + 3.2 * drift
    phase = rings % 1
    late = edge(0.35, 0.92, phase) * (1 - edge(0.92, 1.0, phase))
    # No finer than two pixels of the final pictures: what cannot be seen would only shimmer from view to view.
    pores = clouds(p * np.array([32.0, 32.0, 2.5]), seed + 5, 2)
    shade = 0.72 * late + 0.5 * (pores - 0.5) + 0.5 * (drift - 0.5)
    return mix(tones[0], tones[1], shade + 0.12)


def wooden(tones: tuple, axis: int = 2, seed: int = 0, rough: float = 0.38):
    """Painter of plain oiled wood."""
    return lambda points, uv: Paint(timber(points, tones, axis, seed), rough)


BRASS, BRASS_DARK = colour("f0c66a"), colour("a9772e")
ENGRAVED = colour("2a1a0c")


def brass(points: np.ndarray, uv: np.ndarray) -> Paint:
    """Polished brass with a little patina."""
    worn = edge(0.4, 0.75, clouds(points * 6, 31, 2))
    return Paint(mix(BRASS, BRASS_DARK, 0.3 * worn), 0.2 + 0.1 * worn, 1.0)


def bronze(points: np.ndarray, uv: np.ndarray) -> Paint:
    """Darker and duller than the brass it carries."""
    worn = edge(0.4, 0.75, clouds(points * 6, 33, 2))
    return Paint(mix(colour("a9743a"), colour("6b4522"), worn), 0.32, 1.0)


def engraved(period: float, long_every: int, middle: float, half: float):
    """Painter of a brass hoop with a degree scale cut every ``period`` degrees into both its flat sides.

    ``middle`` and ``half`` are the hoop's middle radius and half its width, in units.
    """

    def paint(points: np.ndarray, uv: np.ndarray) -> Paint:
        radius, angle, _ = polar(points)
        plain = brass(points, uv)
        across = (radius - middle) / half
        width = 0.011 / middle * 57.3
        cut = ticks(angle, period, width) * within(across, 0.2, 0.95)
        cut = np.maximum(cut, ticks(angle, period * long_every, 1.4 * width) * within(across, -0.4, 0.95))
        cut = np.maximum(cut, within(across, 0.1, 0.2))
        return Paint(mix(plain.base, ENGRAVED, cut), np.maximum(plain.rough, 0.6 * cut), 1 - cut)

    return paint


def horizon(inner: float, outer: float):
    """Painter of the horizon: a walnut hoop whose top carries a paper scale with checks, letters and points."""

    def paint(points: np.ndarray, uv: np.ndarray) -> Paint:
        radius, angle, z = polar(points)
        wood = timber(points, CHERRY, 0, 3)
        s = (radius - inner) / (outer - inner)
        face = within(s, 0.06, 0.9) * (z > 0)
        paper = mix(colour("dcc79a"), colour("c0a064"), edge(0.4, 0.7, clouds(points * 7, 8)))
        check = within(s, 0.08, 0.24) * within(angle % 10, 0, 5)
        letters = glyphs(angle / 5, (s - 0.34) / 0.33, 5)
        letters *= within(angle % 45, 5, 40)
        scale = ticks(angle, 3, 1.0) * within(s, 0.74, 0.88)
        lines = within(s, 0.27, 0.3) + within(s, 0.7, 0.73)
        ink = np.clip(check + scale + lines, 0, 1)
        page = mix(mix(paper, colour("26313f"), ink), colour("a3231c"), letters)
        return Paint(mix(wood, page, face), 0.34)

    return paint


def zodiac(points: np.ndarray, uv: np.ndarray) -> Paint:
    """The ecliptic: blue enamel with gilt signs, twelve fields, gilt rims."""
    _, angle, z = polar(points)
    s = (z / z.max() + 1) / 2
    gilt = glyphs(angle / 7.5, (s - 0.27) / 0.46, 12, 0.34) * within(angle % 30, 3.75, 26.25)
    gilt = np.maximum(gilt, ticks(angle, 30, 2.2))
    gilt = np.maximum(gilt, 1 - within(s, 0.12, 0.88))
    enamel = mix(colour("123a8c"), colour("0b2360"), edge(0.4, 0.7, clouds(points * 8, 4)))
    return Paint(mix(enamel, BRASS, gilt), 0.18 + 0.06 * gilt, gilt)


def globe(points: np.ndarray, uv: np.ndarray) -> Paint:
    """A small lacquered earth of no known geography, with a gilt graticule."""
    unit = points / np.linalg.norm(points, axis=-1, keepdims=True)
    height = clouds(unit * 1.9 + 4.2, 77, 5) + 0.03 * np.abs(unit[..., 2])
    land = edge(0.515, 0.53, height)
    ground = mix(colour("8fae4f"), colour("c99b4a"), edge(0.54, 0.64, height))
    ground = mix(ground, colour("f4f1e6"), edge(0.8, 0.9, np.abs(unit[..., 2])))
    sea = mix(colour("0f4f86"), colour("2f8fb8"), edge(0.44, 0.515, height))
    latitude = np.degrees(np.arcsin(unit[..., 2]))
    lines = np.maximum(ticks(latitude, 30, 3.5), ticks(polar(points)[1], 30, 3.5) * (np.abs(latitude) < 75))
    return Paint(mix(mix(sea, ground, land), colour("e9c873"), 0.75 * lines * (1 - land)), 0.2)


# ---- plinth


def plinth(radius: float, top: float):
    """Painter of the turned base: walnut, with an inlaid star, a ring of checks and a brass line on its top."""

    def paint(points: np.ndarray, uv: np.ndarray) -> Paint:
        distance, angle, z = polar(points)
        r = distance / radius
        dark, light = timber(points, WALNUT, 0, 1), timber(points, MAPLE, 1, 2)
        red = timber(points, CHERRY, 1, 4)
        rows = np.floor((r - 0.80) / 0.05)
        check = within(r, 0.80, 0.90) * ((np.floor(angle / 3.6) + rows) % 2)
        base = mix(mix(dark, light, within(r, 0.80, 0.90)), WALNUT[1], 0.9 * check)
        floor = r < 0.775
        base = mix(base, red, floor * 1.0)
        # A point of the star: its edge runs straight from the tip to the notch beside it, one half of it in shade.
        for points_in_star, tip, notch, turned in ((16, 0.55, 0.24, 11.25), (8, 0.73, 0.2, 0.0)):
            sector = 360 / points_in_star
            offset = (angle + turned + sector / 2) % sector - sector / 2
            x, y = r * np.cos(np.radians(offset)), r * np.abs(np.sin(np.radians(offset)))
            nx, ny = notch * np.cos(np.radians(sector / 2)), notch * np.sin(np.radians(sector / 2))
            inside = (y * (tip - nx) < ny * (tip - x)) & (r < tip)
            base = mix(base, np.where((offset > 0)[..., None], light, dark), inside * 1.0)
        gilt = (within(r, 0.775, 0.80) + within(r, 0.90, 0.915)) * (z > top - 0.02)
        return Paint(mix(base, BRASS, gilt), np.where(gilt > 0, 0.25, 0.36), gilt)

    return paint


# ---- plant


def glazed_pot(height: float):
    """Painter of the pot: teal glaze, a cream band with a zigzag and dots, a bare terracotta foot."""

    def paint(points: np.ndarray, uv: np.ndarray) -> Paint:
        _, angle, z = polar(points)
        s = z / height + 0.012 * np.sin(np.radians(angle * 3))
        glaze = mix(colour("1f8a86"), colour("0d5560"), edge(0.3, 0.7, clouds(points * np.array([6, 6, 3.0]), 9)))
        wave = np.abs((angle / 20) % 1 - 0.5) * 2
        band = within(s, 0.42, 0.80)
        zigzag = np.abs(s - 0.5 - 0.2 * wave) < 0.035
        dots = np.hypot(((angle / 20 + 0.5) % 1 - 0.5) * 1.1, (s - 0.75) * 4.5) < 0.14
        dots |= np.hypot(((angle / 20) % 1 - 0.5) * 1.1, (s - 0.475) * 4.5) < 0.14
        cream = mix(colour("f3e6cb"), colour("e0c99d"), clouds(points * 12, 10) - 0.2)
        base = mix(glaze, mix(cream, colour("b8402a"), (zigzag | dots) * 1.0), band)
        foot = edge(0.19, 0.17, s)
        clay = mix(colour("b9683f"), colour("8a4526"), clouds(points * 25, 11))
        return Paint(mix(base, clay, foot), 0.16 + 0.6 * foot)

    return paint


def blade(points: np.ndarray, uv: np.ndarray) -> Paint:
    """A striped leaf: cream margins, green middle with fine veins, paler at the tip."""
    along, across = uv[..., 1], np.abs(uv[..., 0] - 0.5) * 2
    veins = 0.5 + 0.5 * np.sin(across * 26)
    green = mix(colour("2f7a2c"), colour("5aa83c"), 0.6 * veins + 0.5 * (clouds(points * 14, 14) - 0.5))
    green = mix(green, colour("9cc653"), edge(0.55, 1.0, along))
    return Paint(mix(green, colour("ece9b4"), edge(0.62, 0.7, across)), 0.32)


def soil(points: np.ndarray, uv: np.ndarray) -> Paint:
    """Dark crumbly earth."""
    return Paint(mix(colour("1c120b"), colour("5a3d28"), edge(0.3, 0.8, clouds(points * 45, 15, 3))), 0.95)


# ---- books and toys


def cloth_cover(cloth: str, length: float, thickness: float, seed: int):
    """Painter of a bound cover: woven cloth, gilt bands and writing on the back, a gilt frame on the boards."""

    def paint(points: np.ndarray, uv: np.ndarray) -> Paint:
        x, y, z = np.moveaxis(points, -1, 0)
        weave = 0.5 + 0.25 * (np.sin(x * 200) + np.sin(y * 200)) + 0.6 * (clouds(points * 30, seed) - 0.5)
        base = mix(colour(cloth), 0.55 * colour(cloth), 0.6 * weave)
        back = x < 0.006
        bands = ticks(np.abs(y) - 0.5 * length + 0.07, 10, 0.016) + ticks(np.abs(y) - 0.16 * length, 10, 0.010)
        title = glyphs(y / 0.036, z / (0.62 * thickness) + 0.5, seed) * (np.abs(y) < 0.14 * length)
        deep = np.maximum(np.abs(y) / (length / 2), np.abs(x / 0.21 - 1) * 1.05)
        frame = within(deep, 0.80, 0.835) + within(deep, 0.86, 0.875)
        flower = np.hypot(x - 0.21, y)
        petals = flower < 0.055 + 0.045 * np.cos(6 * np.arctan2(y, x - 0.21))
        gilt = np.clip(np.where(back, bands + title, frame + petals), 0, 1)
        return Paint(mix(base, BRASS, gilt), 0.75 - 0.45 * gilt, 0.9 * gilt)

    return paint


def pages(points: np.ndarray, uv: np.ndarray) -> Paint:
    """The cut edge of a book block: thin sheets."""
    sheet = lottery(np.floor(points[..., 2] / 0.012), seed=3)
    return Paint(mix(colour("f2e7cc"), colour("a98f62"), 0.75 * sheet), 0.8)


def pencil(length: float):
    """Painter of a lacquered pencil pointing along +z: lead, cut wood, stripes of two colours, a stamp, a red cap."""

    def paint(points: np.ndarray, uv: np.ndarray) -> Paint:
        _, angle, z = polar(points)
        face = np.floor(angle / 60)
        base = mix(colour("d8a013"), colour("1c1c1e"), (face % 2) * 1.0)
        stamp = glyphs(z / 0.03, (angle % 60) / 40 - 0.25, 21) * (face == 2) * within(z, 0.12, 0.5 * length)
        base = mix(base, colour("fff3c4"), stamp)
        base = mix(base, colour("a8201a"), within(z, 0.035, 0.075))
        scallop = z - 0.012 * np.abs(np.sin(np.radians(angle * 3)))
        base = mix(base, colour("e0b27a"), (scallop > length - 0.105) * 1.0)
        base = mix(base, colour("202022"), (z > length - 0.032) * 1.0)
        return Paint(base, np.where(z > length - 0.1, 0.6, 0.2))

    return paint


def toy_top(points: np.ndarray, uv: np.ndarray) -> Paint:
    """A lacquered spinning top: red with cream and blue rings, a bare maple stem."""
    radius, angle, z = polar(points)
    base = np.broadcast_to(colour("b3161b"), points.shape).copy()
    above = z > 0.115
    ringed = within(radius, 0.075, 0.1) * above
    base = mix(base, colour("f4e4bd"), within(radius, 0.062, 0.112) * above)
    base = mix(base, colour("15487f"), ringed * within(angle % 30, 0, 15))
    base = mix(base, colour("e9b530"), within(z, 0.088, 0.106) * (radius > 0.1))
    stem = (radius < 0.022) & (z > 0.13)
    return Paint(mix(base, timber(points, MAPLE, 2, 6, 0.02), stem * 1.0), 0.14)


def marble(first: str, second: str, seed: int):
    """Painter of a glossy ball with ribbons of two colours that wind from pole to pole."""

    def paint(points: np.ndarray, uv: np.ndarray) -> Paint:
        radius = np.linalg.norm(points, axis=-1, keepdims=True)
        _, angle, z = polar(points / radius)
        wave = np.sin(np.radians(3 * angle) + 2.4 * z + 2.2 * clouds(points / radius * 1.5, seed, 2))
        return Paint(mix(colour(first), colour(second), edge(-0.12, 0.12, wave)), 0.12)

    return paint


def steel(points: np.ndarray, uv: np.ndarray) -> Paint:
    """Bright steel."""
    return Paint(np.broadcast_to(colour("d5d8dc"), points.shape), 0.15, 1.0)
