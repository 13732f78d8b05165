"""Paints of the courtyard: plaster, setts, stone, tiles, cloth, leaves and what lies far off. Lengths in metres.

A painter takes and gives what those of ``scene_paints`` do. Patterns are no finer than the nearest camera can see.
"""

from __future__ import annotations

import numpy as np
from scene_paints import Paint, clouds, colour, edge, glyphs, lottery, mix, ticks, value_noise, within


def plain(code: str, rough: float = 1.0, metal: float = 0.0, vary: float = 0.25, scale: float = 6.0):
    """Painter of one colour, clouded by ``vary``, with ``scale`` clouds a metre."""
    tone = colour(code)

    def paint(points: np.ndarray, uv: np.ndarray) -> Paint:
        cloud = clouds(points * scale, 3, 3)
        return Paint(mix(tone, 0.55 * tone, vary * 2 * cloud), rough, metal)

    return paint


def rows_of_stones(x: np.ndarray, y: np.ndarray, long: float, wide: float, seed: int = 0) -> tuple:
    """Stones of ``long`` by ``wide`` in shifted rows along x: a number for each stone, and depth from its joint."""
    row = np.floor(y / wide)
    along = x / long + lottery(row, seed=seed)
    column = np.floor(along)
    to_side = (0.5 - np.abs(along - column - 0.5)) * long
    to_row = (0.5 - np.abs(y / wide - row - 0.5)) * wide
    return lottery(row, column, seed=seed + 1), np.minimum(to_side, to_row)


# ---- what one walks on

GRANITE = (colour("b0a18c"), colour("837666"), colour("b38a6c"))
JOINT = colour("57503f")


def rings_of_stones(x: np.ndarray, y: np.ndarray, long: float, wide: float, seed: int) -> tuple:
    """As ``rows_of_stones``, laid in rings about the origin."""
    radius, angle = np.hypot(x, y), np.arctan2(y, x) / (2 * np.pi) + 0.5
    row = np.floor(radius / wide)
    count = np.maximum(np.round(2 * np.pi * (row + 0.5) * wide / long), 3)
    along = angle * count + lottery(row, seed=seed)
    column = np.floor(along)
    to_side = (0.5 - np.abs(along - column - 0.5)) * 2 * np.pi * radius / count
    to_row = (0.5 - np.abs(radius / wide - row - 0.5)) * wide
    return lottery(row, column % count, seed=seed + 1), np.minimum(to_side, to_row)


def cobbles(points: np.ndarray, uv: np.ndarray) -> Paint:
    """The yard's floor: rings of setts about the fountain, two paths of slabs, diagonal setts elsewhere, some moss."""
    x, y, _ = np.moveaxis(points, -1, 0)
    radius = np.hypot(x, y)
    turned = ((x + y) / np.sqrt(2), (y - x) / np.sqrt(2))
    tone, inset = rows_of_stones(*turned, 0.21, 0.15, 3)
    for where, stones in (
        (np.abs(x) < 1.3, rows_of_stones(y, x + 1.3, 0.9, 0.65, 5)),
        (np.abs(y) < 0.975, rows_of_stones(x, y + 0.975, 0.9, 0.65, 7)),
        (radius < 6.6, rings_of_stones(x, y, 0.55, 0.48, 9)),
        (radius < 6.24, rings_of_stones(x, y, 0.2, 0.16, 11)),
    ):
        tone, inset = np.where(where, stones[0], tone), np.where(where, stones[1], inset)
    slab = ((np.abs(x) < 1.3) | (np.abs(y) < 0.975) | (radius < 6.6)) & (radius >= 6.24)
    stone = mix(mix(GRANITE[0], GRANITE[1], tone), GRANITE[2], within(tone * 7 % 1, 0.78, 1.0))
    stone = np.where(slab[..., None], mix(colour("c8b99c"), colour("a89a84"), tone), stone)
    worn = clouds(points * 0.45, 12, 3)
    grain = value_noise(points * 28, 13)
    stone = stone * (0.82 + 0.3 * worn + 0.16 * (grain - 0.5))[..., None]
    moss = edge(0.5, 0.68, clouds(points * 0.6 + 9, 14, 3)) * (~slab)
    joint = mix(JOINT, colour("5f6b31"), moss)
    body = edge(0.004, 0.022, inset)
    height = 0.012 * np.sqrt(np.clip(inset / 0.05, 0, 1)) + 0.0015 * grain
    return Paint(mix(joint, stone, body), 1.0, 0.0, height)


def slabs(points: np.ndarray, uv: np.ndarray) -> Paint:
    """Pavement of pale stone."""
    tone, inset = rows_of_stones(points[..., 0], points[..., 1], 0.8, 0.5, 21)
    stone = mix(colour("bdb09a"), colour("978c7c"), 0.6 * tone + 0.5 * clouds(points * 3, 22, 3))
    return Paint(mix(colour("6b6356"), stone, edge(0.003, 0.012, inset)), 1.0)


# ---- houses


def plaster(code: str, seed: int, height: float, bricks: float = 0.62):
    """Painter of a limewashed wall of ``height`` metres: mottled, damp at its foot, bricks where it has come off."""
    tone = colour(code)

    def paint(points: np.ndarray, uv: np.ndarray) -> Paint:
        x, _, z = np.moveaxis(points, -1, 0)
        large = clouds(points * 0.55 + seed, seed, 4)
        fine = clouds(points * np.array([7, 7, 4.0]), seed + 5, 2)
        wall = mix(tone * 1.08, tone * 0.72, 1.1 * large + 0.45 * (fine - 0.5) - 0.1)
        streak = clouds(points * np.array([2.6, 1.0, 0.16]), seed + 9, 3)
        wall = mix(wall, 0.6 * tone + 0.02, 0.75 * edge(0.55, 0.75, streak) * edge(0.35, 1.0, z / height))
        tone_of, inset = rows_of_stones(x, z, 0.27, 0.085, seed)
        brick = mix(colour("a85a3f"), colour("7c4334"), tone_of)
        brick = mix(colour("b5a48c"), brick, edge(0.004, 0.014, inset))
        off = large + 0.12 * (fine - 0.5) + 0.10 * np.exp(-z / 0.7)
        bare = edge(bricks, bricks + 0.012, off)
        wall = mix(wall, 0.5 * tone, 0.55 * edge(1.2, 0.1, z + 0.9 * (fine - 0.5)))
        relief = 0.004 * fine - 0.018 * bare + 0.007 * bare * edge(0.0, 0.014, inset)
        return Paint(mix(wall, brick, bare), 1.0, 0.0, relief)

    return paint


def ashlar(code: str, long: float = 0.9, tall: float = 0.45, seed: int = 31):
    """Painter of dressed stone in courses; the walls run along x or y, so both count."""
    tone = colour(code)

    def paint(points: np.ndarray, uv: np.ndarray) -> Paint:
        x, y, z = np.moveaxis(points, -1, 0)
        number, inset = rows_of_stones(x + y, z + 20, long, tall, seed)
        rock = clouds(points * np.array([5, 5, 8.0]), seed + 2, 3)
        stone = mix(tone * 1.05, tone * 0.62, 0.5 * number + 0.7 * (rock - 0.3))
        # Never quite level: Mitsuba's bump map turns level faces towards +y black.
        relief = 0.006 * edge(0, 0.014, inset) + 0.004 * rock
        return Paint(mix(0.5 * tone, stone, edge(0.002, 0.012, inset)), 1.0, 0.0, relief)

    return paint


def pantiles(period: float, row: float, seed: int):
    """Painter of roof tiles, one tone for each tile; (x, y) of the grid's own plane count the tiles."""

    def paint(points: np.ndarray, uv: np.ndarray) -> Paint:
        x, y, _ = np.moveaxis(points, -1, 0)
        tone = lottery(np.floor(x / period + 0.5), np.floor(y / row), seed=seed)
        clay = mix(mix(colour("bd7350"), colour("945640"), tone), colour("d09a72"), within(tone * 5 % 1, 0.75, 1.0))
        lichen = edge(0.55, 0.7, clouds(points * 1.6, seed, 3))
        return Paint(mix(clay, colour("94906f"), 0.5 * lichen), 1.0)

    return paint


def glass(points: np.ndarray, uv: np.ndarray) -> Paint:
    """A window pane: a dark room, pale curtains at both sides, and what it mirrors."""
    u, v = uv[..., 0], uv[..., 1]
    folds = 0.5 + 0.5 * np.sin(u * 70)
    curtain = edge(0.26 + 0.10 * v, 0.24 + 0.10 * v, np.minimum(u, 1 - u)) * edge(0.02, 0.04, v)
    room = mix(colour("1c2a36"), colour("3a4650"), v)
    return Paint(mix(room, mix(colour("d8cfba"), colour("a2957c"), folds), 0.8 * curtain), 0.06, 0.25)


def boards(code: str, wide: float = 0.14, rough: float = 0.5):
    """Painter of upright painted boards."""
    tone = colour(code)

    def paint(points: np.ndarray, uv: np.ndarray) -> Paint:
        x, y, _ = np.moveaxis(points, -1, 0)
        number = np.floor((x + y) / wide)
        grain = clouds(points * np.array([30, 30, 2.0]), 41, 2)
        shade = 0.35 * lottery(number, seed=42) + 0.5 * (grain - 0.3)
        groove = ticks(x + y, wide, 0.012)
        return Paint(mix(mix(tone, 0.5 * tone, shade), 0.25 * tone, groove), rough)

    return paint


def lettering(ground: str, ink: str, seed: int, count: int, lines: int = 1):
    """Painter of a board that seems to say something: a frame, and ``lines`` of ``count`` made-up letters."""

    def paint(points: np.ndarray, uv: np.ndarray) -> Paint:
        u, v = (uv[..., 0] - 0.07) / 0.86, (uv[..., 1] - 0.16) / 0.68
        line = np.floor(v * lines)
        inside = within(u, 0, 1) * within(v, 0, 1)
        text = glyphs(u * count + 40 * line, (v * lines - line - 0.14) / 0.72, seed) * inside
        near = np.minimum(np.minimum(uv[..., 0], 1 - uv[..., 0]) * 3, np.minimum(uv[..., 1], 1 - uv[..., 1]))
        marks = np.clip(text + within(near, 0.035, 0.06), 0, 1)
        return Paint(mix(colour(ground), colour(ink), marks), 0.3)

    return paint


# ---- cloth


def stripes(first: str, second: str, count: float, rough: float = 1.0, along: int = 0):
    """Painter of ``count`` pairs of stripes across the surface's own grid."""

    def paint(points: np.ndarray, uv: np.ndarray) -> Paint:
        wave = (uv[..., along] * count) % 1
        return Paint(mix(colour(first), colour(second), edge(0.49, 0.51, wave) - edge(0.985, 1.0, wave)), rough)

    return paint


# ---- what grows, and what is far


def foliage(code: str, tip: str):
    """Painter of a small leaf with a paler middle rib."""

    def paint(points: np.ndarray, uv: np.ndarray) -> Paint:
        rib = edge(0.10, 0.03, np.abs(uv[..., 0] - 0.5))
        green = mix(colour(code), colour(tip), 0.8 * uv[..., 1])
        return Paint(mix(green, 1.4 * green + 0.02, rib), 0.45)

    return paint


def bark(points: np.ndarray, uv: np.ndarray) -> Paint:
    """Ridged bark."""
    ridge = clouds(points * np.array([16, 16, 3.5]), 51, 3)
    moss = edge(0.5, 0.8, clouds(points * 2, 52, 3))
    return Paint(mix(mix(colour("8a735b"), colour("3f3226"), 1.4 * ridge - 0.2), colour("6f7446"), 0.5 * moss), 1.0)


def hillside(points: np.ndarray, uv: np.ndarray) -> Paint:
    """Fields, vineyards and woods, paler with distance as the air makes them."""
    x, y, _ = np.moveaxis(points, -1, 0)
    bent = points * 0.03 + 0.6 * clouds(points * 0.02, 61, 2)[..., None]
    field = lottery(np.floor(bent[..., 0]), np.floor(bent[..., 1]), seed=62)
    crop = mix(colour("7d9447"), colour("c2a95c"), field)
    rows = 0.5 + 0.5 * np.sin((x * np.cos(field * 6) + y * np.sin(field * 6)) * 2.2)
    crop = mix(crop, 0.72 * crop, rows * within(field, 0.3, 0.7))
    wood = edge(0.50, 0.55, clouds(points * 0.035 + 3, 63, 5))
    leafy = mix(colour("31492a"), colour("4f6a35"), clouds(points * 0.5, 64, 3))
    air = edge(40, 420, np.hypot(x, y))
    return Paint(mix(mix(crop, leafy, wood), colour("a9bccb"), 0.72 * air), 1.0)


def town_wall(code: str):
    """Painter of a house far off: rows of small dark windows with pale surrounds; z is up, the rest runs along."""

    def paint(points: np.ndarray, uv: np.ndarray) -> Paint:
        x, y, z = np.moveaxis(points, -1, 0)
        along = np.where(np.ptp(x) > np.ptp(y), x, y)
        far = np.abs((along / 2.2 + 0.5) % 1 - 0.5) * 2.2
        up = np.abs((z / 2.9 + 0.35) % 1 - 0.5) * 2.9
        surround = (far < 0.62) & (up < 0.9)
        pane = (far < 0.42) & (up < 0.7)
        wall = mix(colour(code), 0.75 * colour(code), clouds(points * 0.6, 71, 3))
        wall = mix(wall, colour("e3d8c4"), 0.7 * surround)
        return Paint(mix(wall, colour("39424a"), pane * 1.0), 1.0)

    return paint


def clock_face(points: np.ndarray, uv: np.ndarray) -> Paint:
    """A white dial, twelve marks and two hands; the surface is square and seen from its front."""
    x, y = 2 * uv[..., 0] - 1, 2 * uv[..., 1] - 1
    radius, angle = np.hypot(x, y), np.degrees(np.arctan2(x, y)) % 360
    marks = ticks(angle, 30, 6.0) * within(radius, 0.68, 0.86) + within(radius, 0.92, 1.5)
    for bearing, reach, half in ((305.0, 0.5, 0.05), (60.0, 0.75, 0.035)):
        a = np.radians(bearing)
        ahead, aside = x * np.sin(a) + y * np.cos(a), x * np.cos(a) - y * np.sin(a)
        marks = np.maximum(marks, within(ahead, -0.1, reach) * (np.abs(aside) < half))
    return Paint(mix(colour("efe9da"), colour("22303e"), np.clip(marks, 0, 1)), 0.6)
