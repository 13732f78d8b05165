"""What stands in the bundled still life, and where: grids from ``scene_shapes``, painted by ``scene_paints``.

Scene units, z up, the origin in the middle of it all; everything lies within 1.25 units of it.
"""

from __future__ import annotations

import numpy as np
import scene_paints as paints
import scene_shapes as shapes
from scene_parts import Part
from scene_shapes import compose, shift, turn

FLOOR = -0.62  # height of the plinth's top
SPHERE = np.array([-0.18, 0.12, 0.35])  # centre of the armillary sphere
POT = np.array([0.55, 0.40])  # where the plant stands


def make_plinth() -> list[Part]:
    """The round base, 0.98 in radius, its top at FLOOR."""
    corners = [(0, -0.14), (0.92, -0.14), (0.965, -0.12), (0.965, -0.10), (0.92, -0.09), (0.92, -0.068)]
    corners += [(0.975, -0.055), (0.98, -0.03), (0.975, -0.012), (0.95, 0.0), (0, 0)]
    body = shapes.lathe(shapes.rounded(np.array(corners), 0.012), 256)
    return [Part("plinth", [body], paints.plinth(0.98, 0.0), (1024, 1536), coat=0.35).placed(shift(0, 0, FLOOR))]


def make_stand() -> list[Part]:
    """Turned foot, brass collars and the four arms that carry the horizon."""
    low = SPHERE[2] - FLOOR  # height of the sphere's centre over the plinth
    corners = [(0, 0), (0.27, 0), (0.275, 0.02), (0.26, 0.04), (0.225, 0.045), (0.235, 0.065), (0.215, 0.085)]
    corners += [(0.12, 0.10), (0.075, 0.13), (0.055, 0.17), (0.085, 0.20), (0.085, 0.22), (0.05, 0.25)]
    corners += [(0.04, 0.31), (0.055, 0.36), (0, 0.37)]
    foot = shapes.lathe(shapes.rounded(np.array(corners), 0.012), 96, step=0.012)
    collars = [shapes.ring(0.03, 0.092, 0.014).placed(shift(0, 0, 0.21))]
    collars.append(shapes.ring(0.05, 0.245, 0.010).placed(shift(0, 0, 0.048)))
    cup = [(0, 0.355), (0.05, 0.355), (0.062, 0.375), (0.05, 0.395), (0.03, 0.40), (0.024, 0.43), (0, 0.44)]
    collars.append(shapes.lathe(shapes.rounded(np.array(cup), 0.008), 48))
    knots = np.array([(0.045, 0.38), (0.14, 0.345), (0.30, 0.42), (0.46, 0.63), (0.55, 0.85), (0.575, low - 0.016)])
    curve = shapes.spline(knots, 40)
    arm = shapes.tube(np.stack([curve[:, 0], 0 * curve[:, 0], curve[:, 1]], axis=1), np.linspace(0.019, 0.012, 40))
    knobs = [shapes.ball(0.022, 16, 24).placed(shift(0.575, 0, low - 0.03))]
    arms = [piece.placed(turn("z", 45 + 90 * k)) for k in range(4) for piece in (arm, *knobs)]
    to_place = shift(SPHERE[0], SPHERE[1], FLOOR)
    wood = Part("foot", [foot], paints.wooden(paints.WALNUT, 2, 7, 0.3), (256, 512), coat=0.6)
    metal = Part("arms", [*collars, *arms], paints.bronze, (128, 128), share=True)
    return [wood.placed(to_place), metal.placed(to_place)]


def make_sphere() -> list[Part]:
    """The armillary sphere: horizon, meridian, and the tilted cage with its earth."""
    scale = paints.engraved(5, 3, 0.492, 0.030)
    level = shapes.ring(0.535, 0.665, 0.026, 0.006, 256)
    upright = shapes.ring(0.462, 0.522, 0.022, 0.004, 256).placed(turn("x", 90))
    parts = [
        Part("horizon", [level], paints.horizon(0.535, 0.665), (1024, 2048), 0.3),
        Part("meridian", [upright], scale, (768, 2048)),
    ]
    tilt = turn("y", 38)
    bands = [shapes.ring(0.425, 0.437, 0.034)]
    bands += [shapes.ring(0.410, 0.422, 0.026).placed(compose(turn("z", a), turn("x", 90))) for a in (0, 90)]
    for latitude in (-66.5, -23.5, 23.5, 66.5):
        z, r = 0.432 * np.sin(np.radians(latitude)), 0.432 * np.cos(np.radians(latitude))
        bands.append(shapes.ring(r - 0.006, r + 0.006, 0.018, 0.003).placed(shift(0, 0, z)))
    rods = [shapes.rod((0, 0, -0.60), (0, 0, 0.60), 0.009)]
    rods += [shapes.ball(0.026, 16, 24).placed(shift(0, 0, z)) for z in (-0.565, 0.565)]
    rods += [shapes.rod((0, 0, 0.6), (0, 0, 0.66), 0.005)]
    moon_arm = shapes.spline(np.array([(0, 0, 0.15), (0.09, 0, 0.19), (0.20, 0, 0.12), (0.235, 0, 0.02)]), 24)
    cage = Part("cage", [*bands, *rods, shapes.tube(moon_arm, 0.005)], paints.brass, (128, 128), share=True)
    ecliptic = Part("ecliptic", [shapes.ring(0.438, 0.449, 0.078, 0.003, 256)], paints.zodiac, (512, 2048), 0.4)
    earth = Part("earth", [shapes.ball(0.135)], paints.globe, (512, 1024), coat=1.0)
    moon = Part("moon", [shapes.ball(0.032, 24, 32).placed(shift(0.235, 0, 0.0))], paints.steel)
    parts += [cage.placed(tilt), ecliptic.placed(compose(tilt, turn("z", 40), turn("x", 23.4)))]
    parts += [earth.placed(tilt), moon.placed(tilt)]
    return [part.placed(compose(shift(*SPHERE), turn("z", -25))) for part in parts]


def make_plant(rng: np.random.Generator) -> list[Part]:
    """A glazed pot at the right back and its arching leaves, which lean away from the sphere."""
    place = np.array([*POT, FLOOR])
    height = 0.36
    outside = [(0, 0), (0.125, 0), (0.135, 0.02), (0.14, 0.055), (0.19, 0.19), (0.215, 0.30), (0.225, 0.32)]
    inside = [(0.23, 0.355), (0.215, 0.36), (0.205, 0.33), (0.20, 0.29)]
    pot = shapes.lathe(shapes.rounded(np.array(outside + inside), 0.01), 128, step=0.015)
    earth = shapes.lathe(np.array([(0.21, 0.315), (0.12, 0.325), (0, 0.335)]), 48)
    leaves = []
    for index in range(34):
        azimuth = np.radians(137.5 * index + rng.uniform(-14, 14))
        inner = index / 34  # later leaves are younger: nearer the middle, steeper, shorter droop
        length = rng.uniform(0.52, 0.74) * (1.0 - 0.25 * inner)
        rise = np.radians(58 + 28 * inner + rng.uniform(-6, 6))
        bend = np.radians(150 - 95 * inner + rng.uniform(-12, 12))
        s = np.linspace(0, 1, 28)
        slope = rise - bend * s**1.5
        step = length / 27
        out = np.concatenate([[0], np.cumsum(np.cos(slope[:-1]) * step)]) + 0.03 + 0.05 * (1 - inner)
        up = np.concatenate([[0], np.cumsum(np.sin(slope[:-1]) * step)]) + 0.31
        sway = 0.10 * rng.uniform(-1, 1) * s**2
        x = out * np.cos(azimuth) - sway * np.sin(azimuth)
        y = out * np.sin(azimuth) + sway * np.cos(azimuth)
        path = np.stack([x, y, np.maximum(up, 0.02)], axis=1) + place
        away = path - SPHERE
        reach = np.linalg.norm(away, axis=1, keepdims=True)
        path = SPHERE + away * np.maximum(1.0, 0.73 / reach)  # no leaf grows through the rings
        leaves.append(shapes.leaf(path, rng.uniform(0.030, 0.042)))
    foliage = Part("leaves", leaves, paints.blade, (512, 64), share=True, glow=0.7)
    vessel = Part("pot", [pot], paints.glazed_pot(height), (512, 1024), coat=0.8).placed(shift(*place))
    return [vessel, Part("soil", [earth], paints.soil, (64, 256)).placed(shift(*place)), foliage]


def make_book(name: str, cloth: str, size: tuple, seed: int, pose: np.ndarray) -> list[Part]:
    """A book lying flat: ``size`` is (width, length, thickness); its back is at x = 0, its middle at y = z = 0."""
    width, length, thickness = size
    half = thickness / 2
    s = np.linspace(-np.pi / 2, np.pi / 2, 13)[1:-1]
    back = np.stack([-0.035 * np.cos(s), half * np.sin(s)], axis=1)
    section = np.concatenate([[[width, half]], [[0.01, half]], back[::-1], [[0.01, -half]], [[width, -half]]])
    # Walked from the upper board round the back to the lower one, the inside lies to the left.
    section = shapes.densify(section, 0.03)
    cover = shapes.extruded(section, length, 0.016)
    faces = shapes.box(width - 0.03, length - 0.03, thickness - 0.03)
    block = [face.placed(shift(width / 2 - 0.004, 0, 0)) for face in faces]
    cloth_paint = paints.cloth_cover(cloth, length, thickness, seed)
    parts = [Part(name, cover, cloth_paint, (1024, 512)), Part(name + "-pages", block, paints.pages, (256, 64))]
    return [part.placed(pose) for part in parts]


def make_desk_things() -> list[Part]:
    """Two books, a pencil, a pair of dividers, a spinning top and three marbles."""
    lower = compose(shift(0.06, -0.56, FLOOR + 0.066), turn("z", 12))
    upper = compose(shift(0.085, -0.55, FLOOR + 0.132 + 0.047), turn("z", -9))
    parts = make_book("atlas", "7d1f2a", (0.42, 0.56, 0.130), 41, lower)
    parts += make_book("diary", "1f4a4a", (0.36, 0.48, 0.092), 42, upper)
    stub = [(0, 0), (0.020, 0), (0.022, 0.01), (0.022, 0.36), (0.006, 0.452), (0, 0.46)]
    wand = shapes.lathe(shapes.rounded(np.array(stub), 0.003), 72, step=0.01, sides=6)
    lying = compose(shift(0.37, -0.74, FLOOR + 0.246), turn("z", 112), turn("y", 90), turn("z", 30))
    parts.append(Part("pencil", [wand], paints.pencil(0.46), (1024, 256), coat=0.8).placed(lying))
    body = [(0, 0), (0.006, 0.004), (0.012, 0.02), (0.03, 0.032), (0.10, 0.072), (0.13, 0.092), (0.13, 0.103)]
    body += [(0.115, 0.118), (0.05, 0.135), (0.018, 0.142), (0.013, 0.16), (0.012, 0.22), (0.017, 0.23), (0, 0.238)]
    top = shapes.lathe(shapes.rounded(np.array(body), 0.006), 96, step=0.01)
    leaning = compose(shift(-0.50, -0.53, FLOOR + 0.004), turn("z", 200), turn("y", 35.5))
    parts.append(Part("top", [top], paints.toy_top, (512, 1024), coat=1.0).placed(leaning))
    marbles = [(-0.17, -0.66, 0.062, "d9cdb4", "1d6fb0"), (-0.72, -0.22, 0.05, "f0c23c", "c2451e")]
    marbles.append((0.66, -0.36, 0.055, "d8dcc4", "2d8a4e"))
    for index, (x, y, radius, first, second) in enumerate(marbles):
        ball = shapes.ball(radius).placed(compose(shift(x, y, FLOOR + radius), turn("x", 40 * index + 20)))
        parts.append(Part(f"marble{index}", [ball], paints.marble(first, second, 60 + index), (256, 512), coat=1.0))
    return parts + make_dividers()


def make_dividers() -> list[Part]:
    """Brass dividers with steel points, standing on the plinth and leaning on the rim of the pot."""
    outward = np.array([np.cos(np.radians(-62)), np.sin(np.radians(-62)), 0.0])
    beside = np.array([-outward[1], outward[0], 0.0])
    pot = np.array([*POT, FLOOR])
    rim = pot + 0.246 * outward + [0, 0, 0.352]
    middle = pot + 0.37 * outward
    hinge = middle + 1.3 * (rim - middle)
    legs, points = [], []
    for side in (-0.13, 0.13):
        path = hinge + (middle + side * beside - hinge) * np.linspace(0, 1, 24)[:, None]
        legs.append(shapes.tube(path[:17], np.linspace(0.013, 0.009, 17)))
        points.append(shapes.tube(path[16:], np.linspace(0.007, 0.0012, 8)))
    stem = hinge + 0.16 * (hinge - middle)
    head = [shapes.ball(0.026, 20, 32).placed(shift(*hinge)), shapes.rod(hinge, stem, 0.008)]
    return [
        Part("dividers", [*legs, *head], paints.brass, (64, 64), share=True),
        Part("points", points, paints.steel, share=True),
    ]


def still_life(seed: int) -> list[Part]:
    """Everything on the plinth and the plinth itself; ``seed`` decides how the plant has grown."""
    rng = np.random.default_rng(seed)
    return [*make_plinth(), *make_stand(), *make_sphere(), *make_plant(rng), *make_desk_things()]
