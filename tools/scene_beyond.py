"""What is seen beyond the courtyard, from 25 to 400 metres off: hills, a town, two towers, cypresses. Metres, z up."""

from __future__ import annotations

import numpy as np
import scene_paints
import scene_shapes as shapes
import scene_yard_paints as paints
from scene_parts import Part
from scene_shapes import Surface, compose, panel, shift, turn

WALLS = ("d8b98a", "e3d3b4", "c99a78", "d9c7a8", "b9a58c", "dcb0a0")


def land(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Height of the ground: level about the yard, falling to the south, then rising to hills all round."""
    radius = np.hypot(x, y)
    place = np.stack([x, y, 0 * x], axis=-1)
    rise = scene_paints.edge(90, 330, radius) * (14 + 62 * scene_paints.clouds(place * 0.009 + 4.0, 91, 4))
    fall = scene_paints.edge(20, 75, radius) * 9.0
    return rise - fall - 0.12 * scene_paints.edge(0, 26, radius)


def make_land() -> list[Part]:
    """The ground from the yard's rim to the last ridge, which hides the horizon."""
    radius = np.concatenate([np.linspace(15, 60, 24), np.geomspace(62, 420, 90)])[:, None]
    angle = np.linspace(0, 2 * np.pi, 361)[None]
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    ground = Surface(np.stack([x, y, land(x, y)], axis=-1)[:, ::-1], wrap_columns=True)
    return [Part("land", [ground], paints.hillside, (1024, 3072))]


def town_house(width: float, depth: float, height: float, rise: float) -> tuple[list[Surface], ...]:
    """Walls, roof and gables of a plain house about the origin."""
    w, d = width / 2, depth / 2
    corners = [(-w, -d), (w, -d), (w, d), (-w, d)]
    walls = []
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        walls.append(panel((x0, y0, -9), (x1 - x0, y1 - y0, 0), (0, 0, height + 9)))
    slope = [panel((-w - 0.3, -d - 0.4, height), (width + 0.6, 0, 0), (0, d + 0.4, rise))]
    slope.append(slope[0].placed(turn("z", 180)))
    gable = np.array([[(w, -d, height), (w, d, height)], [(w, -0.01, height + rise), (w, 0.01, height + rise)]])
    gables = [Surface(gable), Surface(gable).placed(turn("z", 180))]
    return walls, slope, gables


def make_town(rng: np.random.Generator) -> list[Part]:
    """Rows of houses on the slopes, thick to the south and about the yard's own houses, in six looks."""
    parts = []
    for look, code in enumerate(WALLS):
        size = (rng.uniform(8, 12), rng.uniform(6, 8), rng.uniform(6, 9), rng.uniform(1.8, 2.6))
        pieces = town_house(*size)
        town = [[] for _ in pieces]
        for _ in range(16):
            bearing, away = rng.uniform(0, 360), 48 + 90 * rng.uniform() ** 1.2
            x, y = away * np.sin(np.radians(bearing)), away * np.cos(np.radians(bearing))
            if abs(x) < 5 and y < 0:
                continue  # the view through the gate stays open
            pose = compose(
                shift(x, y, float(land(np.array(x), np.array(y)))), turn("z", 90 - bearing + rng.normal(0, 25))
            )
            for own, group in zip(pieces, town, strict=True):
                group += [surface.placed(pose) for surface in own]
        looks = (paints.town_wall(code), far_tiles(look), paints.plain(code, vary=0.2))
        for k, (group, paint) in enumerate(zip(town, looks, strict=True)):
            parts.append(Part(f"town{look}-{k}", group, paint, (128, 160), share=True))
    return parts


def far_tiles(seed: int):
    """Painter of tiles too far off to be counted."""

    def paint(points: np.ndarray, uv: np.ndarray) -> scene_paints.Paint:
        tone = 0.6 * scene_paints.clouds(points * 1.3, seed, 3) + 0.3 * scene_paints.ticks(points[..., 0], 0.5, 0.2)
        clay = scene_paints.mix(scene_paints.colour("c47a52"), scene_paints.colour("87482f"), tone)
        return scene_paints.Paint(clay, 1.0)

    return paint


def make_church(x: float, y: float, foot: float) -> list[Part]:
    """A square bell tower with a clock and a tall spire, 44 metres."""
    shaft = shapes.block((-3.2, -3.2, foot), (3.2, 3.2, 26))
    bands = [face for z in (8, 16, 25.4) for face in shapes.block((-3.5, -3.5, z), (3.5, 3.5, z + 0.6))]
    holes = [panel((-1.2, -3.22, 19), (2.4, 0, 0), (0, 0, 4.6)).placed(turn("z", 90 * k)) for k in range(4)]
    dials = [panel((-1.5, -3.3, 12), (3.0, 0, 0), (0, 0, 3.0)).placed(turn("z", 90 * k)) for k in range(4)]
    spire = shapes.lathe(np.array([(3.6, 26.0), (2.2, 30), (1.2, 36), (0.1, 43)]), 64, sides=8, step=2)
    tip = [shapes.ball(0.35, 8, 12).placed(shift(0, 0, 43.2)), shapes.bar((0, 0, 43), (0, 0, 45.5), 0.08)]
    nave = [surface.placed(shift(0, 12, 0)) for surface in shapes.block((-5, -9, foot), (5, 9, 10))]
    half = np.array([[(-5.5, 2, 10), (-5.5, 22, 10)], [(0.0, 2, 15), (0.0, 22, 15)]])
    lid = [Surface(half), Surface(half * [-1, 1, 1])]
    parts = [
        Part("church", [*shaft, *nave], paints.ashlar("d3bf98", 1.6, 0.8), (256, 128)),
        Part("church-bands", bands, paints.plain("e6d9bc"), share=True),
        Part("church-holes", holes, paints.plain("3a3430"), share=True),
        Part("church-dials", dials, paints.clock_face, (128, 128)),
        Part("spire", [spire], paints.plain("5c7f78", 0.6, vary=0.4, scale=2), (128, 128)),
        Part("church-lid", lid, far_tiles(9), (64, 128)),
        Part("church-tip", tip, scene_paints.brass, share=True),
    ]
    return [part.placed(shift(x, y, 0)) for part in parts]


def make_dome(x: float, y: float) -> list[Part]:
    """A round tower with a copper dome and a lantern, seen over the roofs."""
    drum = shapes.lathe(np.array([(4.6, -8), (4.6, 19), (5.1, 19.3), (5.1, 20), (4.4, 20)]), 64, step=2)
    angle = np.linspace(0, np.pi / 2, 14)[:-1]
    dome = shapes.lathe(np.stack([4.5 * np.cos(angle), 20 + 5.6 * np.sin(angle)], axis=1), 64, step=2)
    light = shapes.lathe(np.array([(0.8, 25), (0.8, 27.4), (1.0, 27.5), (0.1, 29.5)]), 24, step=2)
    slots = [panel((-0.6, -4.66, 12), (1.2, 0, 0), (0, 0, 4.5)).placed(turn("z", 30 * k)) for k in range(12)]
    parts = [
        Part("drum", [drum], paints.plain("e2c9a2", vary=0.35, scale=1), (128, 256)),
        Part("dome", [dome], paints.stripes("6fa394", "56897c", 24), (8, 512)),
        Part("dome-light", [light], paints.plain("efe4cc")),
        Part("dome-slots", slots, paints.plain("42434a"), share=True),
    ]
    return [part.placed(shift(x, y, 0)) for part in parts]


def make_cypresses(rng: np.random.Generator, places: list[tuple[float, float]]) -> list[Part]:
    """Slender dark trees, each a lathed flame with a rough skin."""
    trees = []
    for x, y in places:
        tall, wide = rng.uniform(8, 13), rng.uniform(0.9, 1.3)
        z = np.linspace(0, 1, 40)
        body = shapes.lathe(np.stack([wide * np.sin(np.pi * z**0.7) ** 0.8 + 0.02, tall * z], axis=1), 40, step=1)
        rough = scene_paints.clouds(body.points * 2.2 + x, 95, 3)[..., None] - 0.5
        rough[:, -1] = rough[:, 0]
        body.points = body.points * (1 + 0.5 * rough * [1, 1, 0])
        trees.append(body.placed(shift(x, y, float(land(np.array(x), np.array(y))) - 0.3)))
    return [Part("cypresses", trees, needles, (256, 128), share=True)]


def needles(points: np.ndarray, uv: np.ndarray) -> scene_paints.Paint:
    """Dark green with light catching on the sprays."""
    spray = scene_paints.clouds(points * [4, 4, 1.8], 96, 3)
    return scene_paints.Paint(
        scene_paints.mix(scene_paints.colour("1f3a22"), scene_paints.colour("5b7a3c"), spray), 1.0
    )
