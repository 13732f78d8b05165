"""Iron, wood and stone things of a street, each at the origin, standing on z = 0 and facing -y. Metres."""

from __future__ import annotations

import numpy as np
import scene_paints
import scene_shapes as shapes
import scene_yard_paints as paints
from scene_parts import Part
from scene_shapes import Surface, bar, block, compose, panel, shift, turn

CAST_IRON = paints.plain("2a3331", 0.45, vary=0.25)
WOOD = paints.plain("9a6a3d", 0.6, vary=0.5, scale=4)


def lathed(profile: list[tuple[float, float]], columns: int = 24, soft: float = 0.01, step: float = 0.1) -> Surface:
    """A turned piece with softened edges."""
    return shapes.lathe(shapes.rounded(np.array(profile), soft), columns, step=step)


def make_fountain() -> list[Part]:
    """An eight-sided basin, two bowls on a column, and thin arcs of water."""
    rim = [(2.75, 0), (2.75, 0.18), (2.6, 0.2), (2.55, 0.26), (2.5, 0.6), (2.62, 0.66), (2.62, 0.8), (2.25, 0.8)]
    rim += [(2.25, 0.7), (2.2, 0.3), (0.4, 0.3)]
    basin = shapes.lathe(shapes.rounded(np.array(rim), 0.02), 256, step=0.08, sides=8)
    stem = [(0.5, 0.3), (0.5, 0.6), (0.3, 0.75), (0.2, 1.1), (0.3, 1.5), (0.9, 1.75), (1.1, 1.95), (1.05, 1.97)]
    stem += [(0.85, 1.86), (0.22, 1.78), (0.14, 2.0), (0.12, 2.4), (0.2, 2.6), (0.5, 2.78), (0.58, 2.9), (0.53, 2.9)]
    stem += [(0.4, 2.84), (0.12, 2.8), (0.09, 3.0), (0.05, 3.1), (0, 3.1)]
    column = lathed(stem, 64, 0.02, 0.05)
    ball = shapes.ball(0.17, 24, 36).placed(shift(0, 0, 3.22))
    angle = np.linspace(0, 2 * np.pi, 97)
    radius = np.linspace(0.3, 2.35, 12)[:, None]
    water = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.full((12, 97), 0.62)], axis=-1)
    top = np.stack([radius * 0.42 * np.cos(angle), radius * 0.42 * np.sin(angle), np.full((12, 97), 1.93)], axis=-1)
    arcs = []
    for at in np.arange(8) * 45 + 22.5:
        out = np.linspace(0.98, 1.9, 16)
        drop = 1.98 + 0.35 * (out - 0.98) - 2.0 * (out - 0.98) ** 2
        path = np.stack([out, 0 * out, drop], axis=1)
        arcs.append(shapes.tube(path, np.linspace(0.014, 0.024, 16), 8).placed(turn("z", at)))
    return [
        Part("basin", [basin], paints.ashlar("c9b894", 0.7, 0.9, 35), (256, 2048)),
        Part("fountain", [column], paints.plain("c4b59a", vary=0.4, scale=7), (512, 512)),
        Part("ball", [ball], scene_paints.brass, (64, 64)),
        Part("water", [Surface(water), Surface(top)], ripples, (256, 256), coat=1.0),
        Part("arcs", arcs, paints.plain("dbe8ea", 0.15, vary=0.1), share=True),
    ]


def ripples(points: np.ndarray, uv: np.ndarray) -> scene_paints.Paint:
    """Green-blue water with small rings on it."""
    x, y, _ = np.moveaxis(points, -1, 0)
    radius = np.hypot(x, y)
    wave = np.sin(26 * radius + 3 * scene_paints.clouds(points * 3, 5, 2)) * np.exp(-np.abs(radius - 1.8))
    tone = scene_paints.mix(scene_paints.colour("1f4a4c"), scene_paints.colour("2f6d68"), 0.5 + 0.3 * wave)
    return scene_paints.Paint(tone, 0.05, 0.1, 0.003 * wave)


def make_lamp(name: str) -> list[Part]:
    """A cast-iron lamp post with a cross bar and a four-sided lantern, 4.2 metres tall."""
    post = [(0.24, 0), (0.24, 0.1), (0.18, 0.14), (0.16, 0.5), (0.19, 0.56), (0.11, 0.62), (0.08, 0.9), (0.06, 1.1)]
    post += [(0.085, 1.14), (0.06, 1.18), (0.045, 3.0), (0.08, 3.06), (0.05, 3.1), (0.04, 3.3), (0.12, 3.36), (0, 3.38)]
    iron = [lathed(post, 20)]
    iron += [bar((-0.32, 0, 2.86), (0.32, 0, 2.86), 0.018)]
    iron += [shapes.ball(0.035, 8, 12).placed(shift(x, 0, 2.86)) for x in (-0.34, 0.34)]
    panes = []
    for k in range(4):
        around = turn("z", 90 * k)
        iron.append(bar((0.13, 0.13, 3.38), (0.22, 0.22, 3.86), 0.014).placed(around))
        iron.append(bar((-0.22, 0.22, 3.86), (0.22, 0.22, 3.86), 0.018).placed(around))
        iron.append(bar((-0.13, 0.13, 3.38), (0.13, 0.13, 3.38), 0.014).placed(around))
        grid = np.array([[(-0.12, -0.12, 3.4), (0.12, -0.12, 3.4)], [(-0.21, -0.21, 3.85), (0.21, -0.21, 3.85)]])
        panes.append(Surface(grid).placed(around))
    hat = [(0.34, 3.86), (0.33, 3.9), (0.14, 4.06), (0.12, 4.16), (0.05, 4.2), (0.05, 4.26), (0, 4.3)]
    iron.append(lathed(hat, 20))
    iron += [bar((0, 0, 3.38), (0, 0, 3.6), 0.05)]
    curl = np.linspace(0, 1.6 * np.pi, 20)
    for side in (-1, 1):
        x = side * (0.06 + 0.11 * (1 - np.cos(curl)) * np.exp(-0.15 * curl))
        iron.append(shapes.tube(np.stack([x, 0 * x, 2.6 + 0.13 * np.sin(curl)], axis=1), 0.011, 6))
    return [
        Part(name, iron, CAST_IRON, (32, 32), coat=0.3, share=True),
        Part(name + "-panes", panes, paints.plain("f4ead0", 0.3, vary=0.1), glow=1.0, share=True),
    ]


def make_bench(name: str) -> list[Part]:
    """Slats on two cast-iron ends, 1.7 metres long."""
    iron, slats = [], []
    for x in (-0.75, 0.0, 0.75):
        back = shapes.spline(np.array([(0.28, 0.0), (0.2, 0.25), (0.16, 0.44), (0.26, 0.68), (0.33, 0.92)]), 20)
        foot = shapes.spline(np.array([(-0.3, 0.0), (-0.26, 0.2), (-0.24, 0.44), (0.0, 0.41), (0.17, 0.43)]), 20)
        for curve in (back, foot):
            iron.append(shapes.tube(np.stack([0 * curve[:, 0] + x, curve[:, 0], curve[:, 1]], axis=1), 0.022, 8))
        if x:
            arm = shapes.spline(np.array([(-0.25, 0.44), (-0.3, 0.6), (-0.18, 0.68), (0.05, 0.66), (0.24, 0.64)]), 20)
            iron.append(shapes.tube(np.stack([0 * arm[:, 0] + x, arm[:, 0], arm[:, 1]], axis=1), 0.018, 8))
    for y in np.linspace(-0.24, 0.12, 5):
        slats += block((-0.85, y - 0.032, 0.45), (0.85, y + 0.032, 0.475))
    for k in range(4):
        y, z = 0.2 + 0.027 * k, 0.56 + 0.095 * k
        slats += block((-0.85, y, z - 0.03), (0.85, y + 0.022, z + 0.03))
    paint = paints.plain("2f6b57", 0.5, vary=0.35)
    return [Part(name, iron, CAST_IRON, share=True), Part(name + "-slats", slats, paint, (32, 128), share=True)]


def make_bicycle(name: str, code: str) -> list[Part]:
    """A town bicycle with a basket, along x, leaning a little to +y."""
    tyre, shine, frame, dark = [], [], [], []
    hubs = np.array([(-0.52, 0, 0.34), (0.54, 0, 0.34)])
    for hub in hubs:
        upright = compose(shift(*hub), turn("x", 90))
        tyre.append(shapes.hoop(0.325, 0.018, 56).placed(upright))
        shine.append(shapes.hoop(0.302, 0.009, 56).placed(upright))
        for k in range(20):
            a, b = np.radians(18 * k), np.radians(18 * k + (28 if k % 2 else -28))
            start = hub + [0.025 * np.cos(b), 0.02 * (-1) ** k, 0.025 * np.sin(b)]
            shine.append(bar(start, hub + [0.302 * np.cos(a), 0, 0.302 * np.sin(a)], 0.0022))
        shine.append(bar(hub - [0, 0.05, 0], hub + [0, 0.05, 0], 0.02))
        turned = np.linspace(np.radians(10), np.radians(190), 24)
        guard = hub + 0.365 * np.stack([np.cos(turned), 0 * turned, np.sin(turned)], axis=1)
        frame.append(shapes.tube(guard, 0.016, 6))
    crank, seat, head = np.array((-0.06, 0, 0.29)), np.array((-0.2, 0, 0.86)), np.array((0.36, 0, 0.84))
    for start, end in ((crank, seat), (crank, head - [0, 0, 0.1]), (seat * [1, 1, 0.8], head), (head, hubs[1])):
        frame.append(bar(start, end, 0.018))
    for y in (-0.05, 0.05):
        frame.append(bar(crank + [0, y, 0], hubs[0] + [0, y, 0], 0.011))
        frame.append(bar(seat * [1, 1, 0.85], hubs[0] + [0, y, 0], 0.009))
    stem = np.array((0.33, 0, 1.02))
    shine += [bar(head, stem, 0.014), bar(seat, seat + [-0.02, 0, 0.1], 0.013)]
    grips = shapes.spline(np.array([(0.16, -0.3, 1.04), (0.3, -0.22, 1.06), (0.36, 0, 1.03), (0.3, 0.22, 1.06)]), 24)
    shine.append(shapes.tube(np.concatenate([grips, [[0.16, 0.3, 1.04]]]), 0.012, 8))
    dark += [bar((0.2, s * 0.275, 1.045), (0.1, s * 0.325, 1.035), 0.018) for s in (-1, 1)]
    saddle = lathed([(0, 0), (0.1, 0), (0.12, 0.03), (0.09, 0.07), (0, 0.08)], 20)
    dark.append(Surface(saddle.points * [1.35, 0.8, 1.0] + (seat + [-0.02, 0, 0.1])))
    shine.append(shapes.hoop(0.09, 0.006).placed(compose(shift(*crank), turn("x", 90))))
    dark += [bar(crank + [0.1, -0.13, 0.1], crank + [0.1, -0.07, 0.1], 0.02)]
    dark += [bar(crank + [-0.1, 0.07, -0.1], crank + [-0.1, 0.13, -0.1], 0.02)]
    wicker = [block((0.42, -0.17, z), (0.72, 0.17, z + 0.02)) for z in (0.82, 0.9, 0.98, 1.06)]
    rods = [bar((x, y, 0.82), (x, y, 1.08), 0.006) for x in np.linspace(0.43, 0.71, 6) for y in (-0.17, 0.17)]
    rods += [bar((x, y, 0.82), (x, y, 1.08), 0.006) for y in np.linspace(-0.14, 0.14, 6) for x in (0.42, 0.72)]
    sides = [s for ring in wicker for s in ring[:4]]  # without lids: one looks into the basket
    parts = [
        Part(name + "-tyres", tyre, paints.plain("26211f", 0.8), share=True),
        Part(name + "-steel", shine, paints.plain("cfd2d4", 0.22, 1.0, 0.05), share=True),
        Part(name + "-frame", frame, paints.plain(code, 0.3, vary=0.08), coat=1.0, share=True),
        Part(name + "-dark", dark, paints.plain("5a3521", 0.55), share=True),
        Part(name + "-basket", sides + rods, paints.plain("b98a4e", 0.8, vary=0.4, scale=20), share=True),
    ]
    return [part.placed(turn("x", -7)) for part in parts]


def make_barrel(name: str) -> list[Part]:
    """A wooden barrel with four hoops."""
    z = np.linspace(0, 0.9, 10)
    body = np.stack([0.27 + 0.07 * np.sin(np.pi * z / 0.9), z], axis=1)
    wood = shapes.lathe(np.concatenate([body, [(0.25, 0.9), (0.25, 0.86), (0, 0.86)]]), 40)
    bands = [shapes.ring(0.3, 0.285 + 0.07 * np.sin(np.pi * at / 0.9), 0.045) for at in (0.08, 0.25, 0.65, 0.82)]
    bands = [band.placed(shift(0, 0, at)) for band, at in zip(bands, (0.08, 0.25, 0.65, 0.82), strict=True)]

    def staves(points: np.ndarray, uv: np.ndarray) -> scene_paints.Paint:
        plank = scene_paints.lottery(np.floor(uv[..., 0] * 22), seed=5)
        tone = scene_paints.mix(scene_paints.colour("a8703c"), scene_paints.colour("6f4423"), plank)
        return scene_paints.Paint(tone * (1 - 0.7 * scene_paints.ticks(uv[..., 0], 1 / 22, 0.004))[..., None], 0.6)

    return [Part(name, [wood], staves, (32, 512)), Part(name + "-hoops", bands, paints.plain("4a4644", 0.5, 0.5))]


def make_crate(name: str, code: str, rng: np.random.Generator) -> list[Part]:
    """An open crate of slats, heaped with fruit of the colour ``code``."""
    wood = []
    for z in (0.02, 0.11, 0.2):
        wood += block((-0.3, -0.2, z), (0.3, -0.185, z + 0.07)) + block((-0.3, 0.185, z), (0.3, 0.2, z + 0.07))
        wood += block((-0.3, -0.185, z), (-0.285, 0.185, z + 0.07)) + block((0.285, -0.185, z), (0.3, 0.185, z + 0.07))
    wood += block((-0.28, -0.18, 0.0), (0.28, 0.18, 0.03))
    for x in (-0.27, 0.27):
        wood += [face for y in (-0.17, 0.17) for face in block((x - 0.02, y - 0.02, 0), (x + 0.02, y + 0.02, 0.28))]
    fruit = []
    for k in range(46):
        x, y = -0.24 + 0.08 * (k % 7), -0.14 + 0.072 * (k // 7 % 5)
        z = 0.24 + 0.05 * np.cos(x * 5) * np.cos(y * 7) + (0.04 if k >= 35 else 0) + rng.uniform(0, 0.012)
        at = shift(x + rng.uniform(-0.012, 0.012), y + rng.uniform(-0.012, 0.012), z)
        fruit.append(shapes.ball(0.043, 8, 12).placed(at))
    return [
        Part(name, wood, paints.plain("c79e63", 0.8, vary=0.4, scale=12), (32, 64), share=True),
        Part(name + "-fruit", fruit, paints.plain(code, 0.35, vary=0.2, scale=30), (32, 32), share=True),
    ]


def make_table(name: str) -> list[Part]:
    """A round café table and two bentwood chairs beside it."""
    iron = [lathed([(0.28, 0), (0.27, 0.02), (0.05, 0.06), (0.03, 0.12), (0.03, 0.68), (0.1, 0.71), (0, 0.71)])]
    top = [lathed([(0, 0.71), (0.36, 0.71), (0.37, 0.73), (0.36, 0.745), (0, 0.745)], 48)]
    cup = [lathed([(0.03, 0.745), (0.045, 0.82), (0.04, 0.82), (0.025, 0.75)], 16).placed(shift(0.12, -0.1, 0))]
    cup += [lathed([(0.02, 0.745), (0.08, 0.76), (0.0, 0.752)], 20).placed(shift(0.12, -0.1, 0))]
    chairs, seats = [], []
    for at in (-35, 150):
        pose = compose(turn("z", at), shift(0.72, 0, 0))
        for x, y in ((-0.17, -0.17), (-0.17, 0.17), (0.17, -0.17), (0.17, 0.17)):
            chairs.append(bar((x * 1.15, y * 1.15, 0), (x, y, 0.45), 0.013).placed(pose))
        chairs.append(shapes.hoop(0.15, 0.008).placed(compose(pose, shift(0, 0, 0.2))))
        for half in (0.19, 0.12):
            knots = [(0.17, -half, 0.45), (0.22, -half, 0.72), (0.25, 0, 0.68 + half), (0.22, half, 0.72)]
            curve = shapes.spline(np.array([*knots, (0.17, half, 0.45)]), 28)
            chairs.append(shapes.tube(curve, 0.011, 6).placed(pose))
        seats.append(lathed([(0, 0.445), (0.2, 0.445), (0.205, 0.46), (0.19, 0.47), (0, 0.465)], 32).placed(pose))
    return [
        Part(name, iron, CAST_IRON, share=True),
        Part(name + "-top", [*top, *cup], paints.plain("ece7dc", 0.2, vary=0.1), share=True),
        Part(name + "-chairs", chairs, paints.plain("31261f", 0.4), share=True),
        Part(name + "-seats", seats, paints.plain("b98a52", 0.6), share=True),
    ]


def make_parasol(name: str, first: str, second: str) -> list[Part]:
    """A striped parasol of eight ribs, 2.6 metres tall."""
    angle = np.linspace(0, 2 * np.pi, 65)
    s = np.linspace(0.01, 1, 12)[:, None]
    ribs = 0.93 + 0.07 * np.abs(np.cos(4 * angle))  # cloth runs straight from rib to rib
    x, y = 1.45 * s * ribs * np.cos(angle), 1.45 * s * ribs * np.sin(angle)
    cloth = Surface(np.stack([x, y, 2.62 - 0.5 * s**1.4 + 0 * x], axis=-1), wrap_columns=True)
    edge = np.stack([x[-1], y[-1], 2.12 + 0 * x[-1]], axis=-1)
    flap = Surface(np.stack([edge, edge - [0, 0, 0.16]]), wrap_columns=True)
    poles = [bar((0, 0, 0), (0, 0, 2.72), 0.022), lathed([(0.25, 0), (0.25, 0.06), (0.06, 0.1), (0, 0.1)])]
    for k in range(8):
        a = np.radians(45 * k)
        tip = np.array([1.44 * np.cos(a), 1.44 * np.sin(a), 2.1])
        poles += [bar((0, 0, 2.58), tip, 0.008), bar((0, 0, 1.95), 0.55 * tip + [0, 0, 1.25], 0.007)]
    return [
        Part(name, [cloth, flap], paints.stripes(first, second, 8), (8, 1024), glow=0.5),
        Part(name + "-pole", poles, WOOD, share=True),
    ]


def make_awning(name: str, width: float, look: tuple[str, str], out: float = 1.5) -> list[Part]:
    """A striped awning with a scalloped edge, from the wall (y = 0) at z = 0 outwards; x from 0 to ``width``."""
    slope = panel((0, -out, -0.6), (width, 0, 0), (0, out, 0.6), (2, 8))
    x = np.linspace(0, width, int(width * 40))
    drop = 0.14 + 0.09 * np.abs(np.sin(np.pi * x / 0.4))
    hem = Surface(np.stack([np.stack([x, 0 * x - out, -0.6 - t * drop], axis=-1) for t in (1, 0.5, 0)]))
    rods = [bar((0, -out, -0.6), (width, -out, -0.6), 0.015)]
    rods += [bar((at, 0, -0.75), (at, -out, -0.6), 0.012) for at in (0.02, width - 0.02)]
    cloth = paints.stripes(*look, np.round(width / 0.5))
    return [
        Part(name, [slope, hem], cloth, (8, 1024), glow=0.5),
        Part(name + "-rods", rods, CAST_IRON, share=True),
    ]
