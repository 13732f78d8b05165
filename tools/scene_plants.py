"""What grows in the courtyard: a tree, an ivy, pots and boxes of flowers. Metres, z up."""

from __future__ import annotations

import numpy as np
import scene_paints
import scene_shapes as shapes
import scene_yard_paints as paints
from scene_parts import Part
from scene_shapes import Surface, shift

GREENS = (("3f6b25", "6f9a3a"), ("55812c", "8fb04a"), ("2f5a26", "5d8a38"), ("7a9a35", "b9c25c"))


def leaflet(at: np.ndarray, ahead: np.ndarray, face: np.ndarray, length: float, width: float) -> Surface:
    """One small leaf of eight faces from ``at`` along ``ahead``, its upper side towards ``face``; (3,) each."""
    ahead = ahead / np.linalg.norm(ahead)
    across = np.cross(face, ahead)
    across = across / max(np.linalg.norm(across), 1e-6) * width / 2
    up = np.cross(ahead, across)
    s = np.array([0.0, 0.45, 1.0])[:, None, None]
    breadth = np.array([0.15, 1.0, 0.08])[:, None, None]
    t = np.array([-1.0, 0.0, 1.0])[None, :, None]
    droop = -0.18 * length * s**2 * np.array([0, 0, 1.0])
    return Surface(at + s * length * ahead + breadth * (t * across + 0.4 * np.abs(t) * up) + droop)


def scatter(rng: np.random.Generator, spots: np.ndarray, out: np.ndarray, length: float) -> list[Surface]:
    """A leaf at each of ``spots`` (n, 3), pointing roughly along ``out`` (n, 3)."""
    ahead = out + rng.normal(0, 0.55, out.shape) + np.array([0, 0, -0.25])
    face = rng.normal(0, 0.45, out.shape) + np.array([0, 0, 1.0]) + 0.3 * out
    size = length * rng.uniform(0.7, 1.25, len(spots))
    return [leaflet(*row, long, 0.62 * long) for *row, long in zip(spots, ahead, face, size, strict=True)]


def leaves(name: str, rng: np.random.Generator, surfaces: list[Surface], greens: tuple = GREENS) -> list[Part]:
    """Leaves dealt out to parts of different green."""
    kind = rng.integers(0, len(greens), len(surfaces))
    parts = []
    for k, green in enumerate(greens):
        chosen = [surface for surface, own in zip(surfaces, kind, strict=True) if own == k]
        parts.append(Part(f"{name}{k}", chosen, paints.foliage(*green), (32, 16), share=True, glow=0.7))
    return parts


def grow(rng: np.random.Generator, start: np.ndarray, ahead: np.ndarray, length: float, radius: float) -> tuple:
    """A branch and all that springs from it: its tubes, and the (place, direction) of its twigs."""
    bend = rng.normal(0, 0.22, 3) + np.array([0, 0, 0.12])
    s = np.linspace(0, 1, 8)[:, None]
    path = start + s * length * ahead + s**2 * length * 0.5 * bend
    tubes = [shapes.tube(path, np.linspace(radius, 0.62 * radius, 8), 12 if radius > 0.06 else 6)]
    tip = path[-1] - path[-2]
    tip = tip / np.linalg.norm(tip)
    if radius < 0.017:
        return tubes, [(path[k], tip) for k in (2, 4, 6, 7)]
    twigs = []
    for k in range(3 if radius > 0.03 else 4):
        aside = np.cross(tip, rng.normal(0, 1, 3))
        aside /= np.linalg.norm(aside)
        way = tip * 0.85 + aside * rng.uniform(0.5, 0.95) + np.array([0, 0, 0.12])
        where = path[-1] if k < 2 else path[rng.integers(4, 7)]
        more = grow(rng, where, way / np.linalg.norm(way), length * rng.uniform(0.66, 0.82), radius * 0.62)
        tubes, twigs = tubes + more[0], twigs + more[1]
    return tubes, twigs


def make_tree(rng: np.random.Generator, place: np.ndarray, per_twig: int = 7) -> list[Part]:
    """A lime tree about seven metres tall, standing in a ring of stone with earth in it."""
    tubes, twigs = grow(rng, place, np.array([0.06, 0.03, 1.0]), 2.2, 0.21)
    spots = np.repeat(np.array([spot for spot, _ in twigs]), per_twig, axis=0)
    out = np.repeat(np.array([way for _, way in twigs]), per_twig, axis=0)
    spots = spots + rng.normal(0, 0.13, spots.shape)
    surfaces = scatter(rng, spots, out, 0.15)
    fallen = place + np.stack([*(rng.normal(0, 2.0, (2, 160))), np.full(160, 0.02)], axis=1)
    flat = np.stack([*rng.normal(0, 1, (2, 160)), np.zeros(160)], axis=1)
    lying = [leaflet(at, way, np.array([0, 0, 1.0]), 0.12, 0.08) for at, way in zip(fallen, flat, strict=True)]
    kerb = shapes.ring(1.05, 1.3, 0.36, 0.02, 48).placed(shift(*place))
    earth = shapes.lathe(np.array([(1.06, 0.1), (0.5, 0.16), (0, 0.17)]), 32).placed(shift(*place))
    return [
        Part("trunk", tubes[:1], paints.bark, (256, 128)),
        Part("branches", tubes[1:], paints.bark, (64, 64), share=True),
        *leaves("tree", rng, surfaces),
        Part("fallen", lying, paints.foliage("a8842f", "d0a94a"), (16, 16), share=True),
        Part("kerb", [kerb], paints.ashlar("b9ab92", 0.6, 0.5), (128, 512)),
        Part("earth", [earth], scene_paints.soil, (64, 256)),
    ]


def make_ivy(name: str, rng: np.random.Generator, width: float, height: float) -> list[Part]:
    """A creeper on a wall (y = 0, facing -y), climbing from (0, 0) and spreading over ``width`` by ``height``."""
    stems, spots = [], []
    for _ in range(26):
        count = int(rng.uniform(16, 40))
        step = np.stack([rng.normal(0, 0.6, count), 0 * np.arange(count), rng.uniform(0.3, 1.0, count)], axis=1)
        path = np.cumsum(0.16 * step, axis=0) * np.array([1.3, 1, 1])
        path = path + np.array([rng.uniform(0.1, 0.9) * width, -0.02, 0])
        path = path[(path[:, 0] > 0) & (path[:, 0] < width) & (path[:, 2] < height)]
        if len(path) > 4:
            stems.append(shapes.tube(path, np.linspace(0.016, 0.004, len(path)), 6))
            spots.append(np.repeat(path, 6, axis=0))
    spots = np.concatenate(spots)
    spots = spots + rng.normal(0, 0.12, spots.shape) * np.array([1, 0, 1]) - np.array([0, 0.05, 0])
    out = np.tile([0, -0.7, -0.6], (len(spots), 1))
    surfaces = scatter(rng, spots - rng.uniform(0, 0.1, (len(spots), 1)) * np.array([0, 1, 0]), out, 0.13)
    autumn = (*GREENS[:3], ("8a3b22", "b5562a"))
    return [Part(name + "-stems", stems, paints.bark, share=True), *leaves(name, rng, surfaces, autumn)]


def tuft(rng: np.random.Generator, centre: np.ndarray, spread: tuple, count: int, length: float = 0.1) -> list[Surface]:
    """A cushion of leaves about ``centre``, ``spread`` (3,) metres wide to each side."""
    way = rng.normal(0, 1, (count, 3))
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    way[:, 2] = np.abs(way[:, 2])
    spots = centre + way * np.array(spread) * rng.uniform(0.3, 1, (count, 1))
    return scatter(rng, spots, way + np.array([0, 0, 0.3]), length)


def blossoms(rng: np.random.Generator, centre: np.ndarray, spread: tuple, count: int) -> list[Surface]:
    """Small round flowers over the cushion that ``tuft`` makes."""
    way = rng.normal(0, 1, (count, 3))
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    way[:, 2] = np.abs(way[:, 2])
    return [shapes.ball(rng.uniform(0.025, 0.045), 6, 8).placed(shift(*(centre + w * np.array(spread)))) for w in way]


def make_flower_boxes(name: str, rng: np.random.Generator, places: list[tuple], code: str) -> list[Part]:
    """Wooden boxes of geraniums under windows: ``places`` are (x, z) of their middles, on the wall y = 0."""
    wood, green, flowers = [], [], []
    for x, z in places:
        wood += shapes.block((x - 0.5, -0.36, z), (x + 0.5, -0.16, z + 0.2))
        middle, spread = np.array([x, -0.27, z + 0.2]), (0.5, 0.16, 0.22)
        green += tuft(rng, middle, spread, 90)
        flowers += blossoms(rng, middle, (0.5, 0.18, 0.26), 26)
    return [
        Part(name + "-wood", wood, paints.plain("6b4a30", 0.8), share=True),
        *leaves(name, rng, green),
        Part(name + "-flowers", flowers, paints.plain(code, 0.6, vary=0.2), share=True),
    ]


def make_pot(name: str, rng: np.random.Generator, size: float, code: str | None, clay: str = "b5653c") -> list[Part]:
    """A clay pot at the origin, ``size`` metres tall, with a bush; in flower of the colour ``code``, if any."""
    profile = [
        (0, 0),
        (0.3, 0),
        (0.33, 0.05),
        (0.44, 0.78),
        (0.5, 0.8),
        (0.5, 0.97),
        (0.44, 1.0),
        (0.42, 0.86),
        (0, 0.9),
    ]
    body = shapes.lathe(shapes.rounded(size * np.array(profile), 0.01), 40, step=0.1)
    middle, wide = np.array([0, 0, 1.05 * size]), 0.75 * size
    parts = [Part(name, [body], paints.plain(clay, 0.8, vary=0.35, scale=9), (128, 128))]
    parts += leaves(name + "-leaf", rng, tuft(rng, middle, (wide, wide, 1.2 * size), int(700 * size), 0.13))
    if code:
        flowers = blossoms(rng, middle, (wide, wide, 1.25 * size), int(90 * size))
        parts.append(Part(name + "-flowers", flowers, paints.plain(code, 0.6, vary=0.2), share=True))
    return parts
