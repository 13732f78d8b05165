"""Thin things of the courtyard that hang or stand in rows: rails, lines with flags and washing, signs, a stall."""

from __future__ import annotations

import numpy as np
import scene_shapes as shapes
import scene_street as street
import scene_yard_paints as paints
from scene_houses import House
from scene_parts import Part
from scene_shapes import Surface, bar, block, compose, panel, shift, turn

FLAGS = ("c8372d", "e6b73a", "2f6f9f", "eee6d4", "4c8a4a")


def rails(corner: tuple[float, float, float], width: float, height: float) -> list[Surface]:
    """Wrought iron along x: bars with spear heads, two rails, and a row of rings between two more."""
    x0, y, z = corner
    out = []
    for low, thick in ((0.08, 0.02), (height - 0.32, 0.014), (height - 0.16, 0.018)):
        out += block((x0, y - thick, z + low - thick), (x0 + width, y + thick, z + low + thick))
    count = max(2, round(width / 0.14))
    spear = shapes.lathe(np.array([(0.0, 0), (0.012, 0.02), (0.026, 0.05), (0.0, 0.15)]), 8, step=1)
    for k in range(count):
        x = x0 + (k + 0.5) * width / count
        out.append(bar((x, y, z), (x, y, z + height - 0.1), 0.009))
        out.append(spear.placed(shift(x, y, z + height - 0.12)))
        if k + 1 < count:
            middle = shift(x + width / count / 2, y, z + height - 0.24)
            out.append(shapes.hoop(0.05, 0.007, 16).placed(compose(middle, turn("x", 90))))
    return out


# ---- lines


def flag(at: np.ndarray, along: np.ndarray, lean: float) -> Surface:
    """A small pennant hanging from ``at``, blown ``lean`` aside."""
    s = np.linspace(0, 1, 5)[:, None, None]
    t = np.linspace(-1, 1, 3)[None, :, None]
    aside = np.array([-along[1], along[0], 0.0])
    drop = -0.32 * s * np.array([0, 0, 1.0]) + lean * s**2 * aside
    return Surface(at + drop + 0.13 * t * (1 - 0.97 * s) * along)


def bunting(name: str, rng: np.random.Generator, start: tuple, end: tuple, sag: float) -> list[Part]:
    """A cord with pennants of five colours."""
    path = shapes.hanging(start, end, sag, 80)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))])
    along = path[-1] - path[0]
    along = along * [1, 1, 0] / np.linalg.norm(along[:2])
    pennants = [[] for _ in FLAGS]
    for k, at in enumerate(np.arange(0.4, length[-1] - 0.4, 0.42)):
        place = np.array([np.interp(at, length, path[:, axis]) for axis in range(3)])
        pennants[k % len(FLAGS)].append(flag(place, along, rng.uniform(-0.08, 0.14)))
    parts = [Part(name, [shapes.tube(path, 0.006, 5)], paints.plain("d8d0bd"))]
    for k, code in enumerate(FLAGS):
        parts.append(Part(f"{name}-{k}", pennants[k], paints.plain(code, vary=0.05), share=True, glow=0.8))
    return parts


def cloth(width: float, height: float, shirt: bool, blow: float) -> Surface:
    """A piece of washing hanging from z = 0, its middle at x = 0; a shirt has arms."""
    x, z = np.meshgrid(np.linspace(-width / 2, width / 2, 21), np.linspace(-height, 0, 17))
    y = blow * (z / height) ** 2 + 0.03 * np.sin(9 * x + 3 * z) * (0.3 - z / height)
    out = Surface(np.stack([x, y, z], axis=-1))
    if shirt:
        side = np.abs(x[:-1, :-1] + width / 40) / width
        out.holes = ((side > 0.28) & (z[:-1, :-1] < -0.42 * height)) | ((side < 0.1) & (z[:-1, :-1] > -0.08 * height))
    return out


def washing(name: str, rng: np.random.Generator, start: tuple, end: tuple) -> list[Part]:
    """A line with sheets, towels and shirts on it."""
    path = shapes.hanging(start, end, 0.28, 60)
    way = np.asarray(end, dtype=float) - np.asarray(start, dtype=float)
    bearing, length = np.degrees(np.arctan2(way[1], way[0])), np.linalg.norm(way)
    parts = [Part(name, [shapes.tube(path, 0.006, 5)], paints.plain("e2dccd"))]
    looks = (
        ("e9e4d8", "d9d6cc"),
        ("b8443a", "f0e6d2"),
        ("3d6ea0", "e9edf0"),
        ("e2c35a", "f3ead0"),
        ("6b8f71", "e8e6d6"),
    )
    at, k = 0.6, 0
    while at < length - 1.3:
        shirt = k % 3 == 1
        width = 0.85 if shirt else float(rng.choice([0.6, 1.3]))
        height = 0.7 if shirt else rng.uniform(0.7, 1.25)
        middle = (at + width / 2) / length
        place = np.array([np.interp(middle, np.linspace(0, 1, 60), path[:, axis]) for axis in range(3)])
        piece = cloth(width, height, shirt, rng.uniform(-0.12, 0.2)).placed(compose(shift(*place), turn("z", bearing)))
        paint = paints.stripes(*looks[k % 5], float(rng.integers(3, 9)), along=int(k % 2))
        parts.append(Part(f"{name}-{k}", [piece], paint, (128, 128), glow=0.5))
        at, k = at + width + rng.uniform(0.1, 0.3), k + 1
    return parts


def make_lines(rng: np.random.Generator, lamps: tuple) -> list[Part]:
    """Bunting over the yard, washing in its corner, and wires from house to house."""
    high = [(x, y, 4.05) for x, y in lamps]
    parts = bunting("bunting0", rng, (-6.0, 12.8, 6.3), high[1], 0.9)
    parts += bunting("bunting1", rng, (6.0, 12.8, 6.3), high[0], 0.9)
    parts += bunting("bunting2", rng, (17.8, 0.0, 5.8), high[2], 0.5)
    parts += bunting("bunting3", rng, high[3], (-17.7, 6.0, 3.7), 0.4)
    parts += washing("washing0", rng, (10.4, 12.7, 5.7), (17.7, 8.6, 5.7))
    parts += washing("washing1", rng, (-17.6, 9.0, 3.5), (-13.0, 12.7, 3.9))
    ends = (((-17.6, -11, 4.7), (17.8, -9.0, 6.6)), ((-6, 12.7, 8.9), (17.8, -1.0, 7.1)))
    wires = [shapes.tube(shapes.hanging(a, b, 0.7, 60), 0.012, 5) for a, b in ends]
    return [*parts, Part("wires", wires, paints.plain("2b2a2a"), share=True)]


# ---- signs and a stall


def make_signs(house: House) -> list[Part]:
    """A board and an awning over each shop, a hanging sign beside it, numbers by the doors; a balcony if it is tall."""
    parts, iron = [], []
    boards = (("20405a", "f0d48a"), ("7a2430", "f2e3bd"), ("2f4f3a", "efe2b8"), ("e9dfc6", "8a2f26"))
    cloths = (("b93a2e", "f3e9d4"), ("2f7a5f", "f3e9d4"), ("d99a2b", "f3e9d4"), ("2f5f95", "f3e9d4"))
    for k, o in enumerate(house.ground):
        name, look = f"{house.name}-sign{k}", (house.seed + k) % 4
        if o.kind == "shop":
            board = panel((o.x - 0.1, -0.12, 2.98), (o.width + 0.2, 0, 0), (0, 0, 0.5))
            back = block((o.x - 0.14, -0.115, 2.94), (o.x + o.width + 0.14, 0.0, 3.52))
            paint = paints.lettering(*boards[look], house.seed + k, 9)
            parts.append(Part(name, [board], paint, (160, 896), coat=0.3))
            parts.append(Part(name + "-back", back, paints.plain("4a3524", 0.6), share=True))
            tent = street.make_awning(name + "-awning", o.width + 0.5, cloths[(look + k) % 4])
            parts += [part.placed(shift(o.x - 0.25, -0.02, 2.92)) for part in tent]
            x = o.x + o.width + 0.75
            iron += [bar((x, 0, 3.3), (x, -0.95, 3.3), 0.014), bar((x, 0, 2.95), (x, -0.6, 3.29), 0.01)]
            iron.append(shapes.hoop(0.33, 0.018, 32).placed(compose(shift(x, -0.6, 2.92), turn("y", 90))))
            face = block((x - 0.015, -0.82, 2.7), (x + 0.015, -0.38, 3.14))
            disc = paints.lettering(*boards[(look + 1) % 4], house.seed + 7 * k, 3, 3)
            parts.append(Part(name + "-disc", face, disc, (128, 128), coat=0.5))
        elif o.kind == "door":
            plate = panel((o.x + o.width + 0.3, -0.03, 1.9), (0.32, 0, 0), (0, 0, 0.22))
            parts.append(Part(name + "-plate", [plate], paints.lettering("274b8f", "f5f1e4", k, 2), (64, 96), coat=1.0))
            steps = block((o.x - 0.25, -0.4, 0.0), (o.x + o.width + 0.25, 0.0, 0.22))
            parts.append(Part(name + "-step", steps, paints.plain("b0a48e"), share=True))
        else:
            poster = panel((o.x - 0.85, -0.02, 1.2), (0.55, 0, 0), (0, 0, 0.8))
            parts.append(Part(name, [poster], paints.lettering(*boards[(look + 2) % 4], k + 3, 6, 7), (192, 128)))
    if iron:
        parts.append(Part(house.name + "-brackets", iron, street.CAST_IRON, share=True))
    return parts + (make_balcony(house) if house.height > 11 else [])


def make_balcony(house: House) -> list[Part]:
    """A stone slab on brackets before the middle windows, with a railing."""
    left, right = house.width / 2 - 2.4, house.width / 2 + 2.4
    stone = block((left, -1.1, 3.72), (right, 0, 3.9))
    for x in (left + 0.2, (left + right) / 2, right - 0.2):
        stone += block((x - 0.12, -0.8, 3.5), (x + 0.12, 0, 3.72)) + block((x - 0.12, -0.4, 3.2), (x + 0.12, 0, 3.5))
    iron = rails((left, -1.05, 3.9), right - left, 1.05)
    for x in (left + 0.03, right - 0.03):
        side = rails((0, 0, 0), 1.05, 1.05)
        iron += [piece.placed(compose(shift(x, -1.05, 3.9), turn("z", 90))) for piece in side]
    return [
        Part("balcony", stone, paints.plain(house.trim, vary=0.3), share=True),
        Part("balcony-rails", iron, street.CAST_IRON, share=True),
    ]


def make_stall(rng: np.random.Generator) -> list[Part]:
    """A market stall: a striped roof on four posts, a table, and crates of fruit on and before it."""
    posts = [bar((x, y, 0), (x, y, tall), 0.03) for x in (-1.3, 1.3) for y, tall in ((-0.6, 2.1), (0.6, 2.6))]
    planks = block((-1.35, -0.62, 0.72), (1.35, 0.62, 0.78)) + block((-1.35, -0.6, 0.1), (1.35, 0.6, 0.14))
    planks += block((-1.35, -0.63, 0.5), (1.35, -0.6, 0.72))
    tent = [
        part.placed(shift(-1.55, 0.75, 2.7)) for part in street.make_awning("stall", 3.1, ("3f8a52", "f3ead2"), 1.7)
    ]
    parts = [*tent, Part("stall-wood", planks + posts, street.WOOD, (64, 256), share=True)]
    codes = ("d9731f", "b02a2a", "8aa63a", "e0b92f", "5b2f57", "d9731f", "b02a2a", "7fa03a")
    places = [(x, -0.3, 0.79, 0) for x in (-1.0, -0.34, 0.33, 1.0)] + [(-0.7, 0.28, 0.79, 3), (0.4, 0.3, 0.79, -4)]
    places += [(-0.6, -1.05, 0.0, 8), (0.75, -1.1, 0.0, -12)]
    for k, ((x, y, z, at), code) in enumerate(zip(places, codes, strict=True)):
        tilt = compose(shift(x, y, z), turn("z", at))
        parts += [part.placed(tilt) for part in street.make_crate(f"crate{k}", code, rng)]
    slate = panel((-0.35, 0, 0), (0.7, 0, 0), (0, 0, 0.95)).placed(compose(shift(1.75, -0.9, 0.02), turn("x", -14)))
    back = panel((0.35, 0.01, 0), (-0.7, 0, 0), (0, 0, 0.95)).placed(compose(shift(1.75, -0.9, 0.02), turn("x", -14)))
    parts.append(Part("slate", [slate], paints.lettering("22262a", "e9e7df", 77, 6, 5), (192, 144)))
    return [*parts, Part("slate-back", [back], street.WOOD)]
