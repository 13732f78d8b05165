"""Objects that nobody modelled: furniture, vessels, creatures and heaps of solids, with paint, drawn by chance."""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np
import trimesh
from lift_prior.mesh import Mesh, joined, of_one_paint
from scipy.ndimage import gaussian_filter, zoom

Chance = np.random.Generator
_TEXTURE = 64


def draw(seed: int) -> Mesh:
    """An object in the unit sphere, upright (+y up), looking along +z."""
    chance = np.random.default_rng(seed)
    kinds: list[Callable[[Chance], list[Mesh]]] = [_furniture, _vessel, _creature, _heap, _heap]
    mesh = joined(kinds[int(chance.integers(len(kinds)))](chance))
    if chance.random() < 0.15:  # leaning, as things in photographs do
        turn = trimesh.transformations.rotation_matrix(chance.normal(0, 0.2), [1, 0, 0])[:3, :3]
        mesh = mesh.moved(mesh.vertices @ turn.T)
    return mesh.moved(mesh.vertices * chance.uniform(0.8, 1.25, 3)).normalised()


# ---- paint


def _color(chance: Chance) -> np.ndarray:
    """(3,) in [0, 1]: greys and woods more often than what glares."""
    if chance.random() < 0.25:
        return np.full(3, chance.uniform(0.05, 0.95))
    if chance.random() < 0.3:
        return np.array(
            colorsys.hsv_to_rgb(chance.uniform(0.05, 0.12), chance.uniform(0.2, 0.7), chance.uniform(0.25, 0.9))
        )
    return np.array(colorsys.hsv_to_rgb(chance.random(), chance.uniform(0.1, 1.0), chance.uniform(0.2, 1.0)))


def _texture(chance: Chance, base: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8: plain, striped, checked, grained or spotted."""
    kind, other = chance.random(), _color(chance)
    if kind < 0.5:
        return (255 * base).astype(np.uint8).reshape(1, 1, 3)
    v, u = np.meshgrid(np.linspace(0, 1, _TEXTURE), np.linspace(0, 1, _TEXTURE), indexing="ij")
    n = int(chance.integers(1, 7))
    if kind < 0.6:
        share = (np.sin(2 * np.pi * n * (u if chance.random() < 0.5 else v)) > chance.uniform(-0.7, 0.7)).astype(float)
    elif kind < 0.68:
        share = ((np.floor(2 * n * u) + np.floor(2 * n * v)) % 2).astype(float)
    elif kind < 0.85:
        grain = gaussian_filter(
            chance.normal(size=(_TEXTURE, _TEXTURE)), (chance.uniform(0.5, 2), chance.uniform(2, 12))
        )
        share = np.clip(0.5 + 0.25 * grain / grain.std(), 0, 1)
        other = np.clip(base * chance.uniform(0.6, 1.2), 0, 1)
    else:
        spots = zoom(chance.normal(size=(n + 3, n + 3)), _TEXTURE / (n + 3), order=3)
        share = (spots[:_TEXTURE, :_TEXTURE] > chance.uniform(0, 1)).astype(float)
    mixed = base + share[..., None] * (other - base)
    return (255 * np.clip(mixed, 0, 1)).astype(np.uint8)


def _paint(chance: Chance, solid: trimesh.Trimesh, color: np.ndarray | None = None) -> Mesh:
    """A solid with paint, laid on from the front, or around."""
    texture = _texture(chance, _color(chance) if color is None else color)
    p = np.asarray(solid.vertices)
    span = np.maximum(np.ptp(p, axis=0), 1e-6)
    q = (p - p.min(0)) / span
    round_ = (np.arctan2(p[:, 0] - p[:, 0].mean(), p[:, 2] - p[:, 2].mean()) / (2 * np.pi)) % 1.0
    across = q[:, 0] if chance.random() < 0.6 else round_
    return of_one_paint(solid, texture, 0.002 + 0.996 * np.stack([across, q[:, 1]], 1))


# ---- solids


def _box(size: tuple[float, float, float], middle: tuple[float, float, float]) -> trimesh.Trimesh:
    box = trimesh.creation.box(extents=np.maximum(size, 0.01))
    return box.apply_translation(middle)


def _post(radius: float, low: np.ndarray, high: np.ndarray, sections: int) -> trimesh.Trimesh:
    return trimesh.creation.cylinder(radius=radius, segment=[low, high], sections=sections)


def _ball(chance: Chance, radii: np.ndarray, middle: np.ndarray) -> trimesh.Trimesh:
    ball = trimesh.creation.icosphere(subdivisions=3)
    power = chance.uniform(0.7, 1.3)
    ball.vertices = np.sign(ball.vertices) * np.abs(ball.vertices) ** power * radii + middle
    return ball


def _turned(chance: Chance, n: int = 6) -> trimesh.Trimesh:
    """A solid of revolution about y, of height 1."""
    heights = np.sort(np.r_[0, chance.uniform(0, 1, n), 1])
    radii = np.clip(chance.uniform(0.1, 0.5) + np.cumsum(chance.normal(0, 0.12, n + 2)), 0.04, 0.6)
    fine = np.linspace(0, 1, 24)
    radii = np.interp(fine, heights, radii)
    if chance.random() < 0.7:
        radii = gaussian_filter(radii, chance.uniform(0.5, 3), mode="nearest")
    profile = np.c_[np.r_[0, radii, 0], np.r_[0, fine, 1]]
    solid = trimesh.creation.revolve(profile, sections=int(chance.choice([6, 8, 24, 24, 24])))
    solid.vertices = solid.vertices[:, [0, 2, 1]]
    solid.invert()
    return solid


# ---- objects


def _legs(chance: Chance, w: float, d: float, top: float) -> list[trimesh.Trimesh]:
    thick, spread = chance.uniform(0.02, 0.08), chance.uniform(0.8, 1.15)
    if chance.random() < 0.2:
        foot = _turned(chance)
        foot.apply_scale([chance.uniform(0.1, 0.4), top, chance.uniform(0.1, 0.4)])
        return [foot]
    if chance.random() < 0.2:
        return [_box((thick, top, d), (x, top / 2, 0)) for x in (-w / 2 + thick, w / 2 - thick)]
    sections = int(chance.choice([4, 12]))
    inner, outer = np.array([w / 2 - thick, d / 2 - thick]), np.array([w / 2 - thick, d / 2 - thick]) * spread
    return [
        _post(
            thick, np.array([sx * outer[0], 0, sz * outer[1]]), np.array([sx * inner[0], top, sz * inner[1]]), sections
        )
        for sx in (-1, 1)
        for sz in (-1, 1)
    ]


def _furniture(chance: Chance) -> list[Mesh]:
    """Tables, seats, shelves, beds and boxes with doors."""
    w, d = chance.uniform(0.5, 1.6), chance.uniform(0.4, 1.0)
    wood, cloth = _color(chance), _color(chance)
    kind = chance.random()
    if kind < 0.55:
        top, thick = chance.uniform(0.2, 0.9), chance.uniform(0.03, 0.25)
        parts = [_paint(chance, leg, wood) for leg in _legs(chance, w, d, top)]
        round_ = chance.random() < 0.2
        plate = trimesh.creation.cylinder(radius=0.5, height=1.0, sections=32) if round_ else None
        if plate is not None:
            plate.vertices = plate.vertices[:, [0, 2, 1]] * [w, thick, d] + [0, top + thick / 2, 0]
            plate.invert()
        parts.append(_paint(chance, plate or _box((w, thick, d), (0, top + thick / 2, 0)), cloth))
        if chance.random() < 0.6:  # a back
            high, deep = chance.uniform(0.2, 0.9), chance.uniform(0.03, 0.15)
            if chance.random() < 0.3:
                n = int(chance.integers(2, 7))
                for x in np.linspace(-w / 2 + deep / 2, w / 2 - deep / 2, n):
                    parts.append(_paint(chance, _box((deep, high, deep), (x, top + high / 2, -d / 2 + deep / 2)), wood))
                parts.append(_paint(chance, _box((w, deep, deep), (0, top + high, -d / 2 + deep / 2)), wood))
            else:
                parts.append(
                    _paint(chance, _box((w, high, deep), (0, top + thick + high / 2, -d / 2 + deep / 2)), cloth)
                )
            if chance.random() < 0.5:  # arms
                high, wide = chance.uniform(0.1, 0.35), chance.uniform(0.04, 0.2)
                for x in (-w / 2 - wide / 2, w / 2 + wide / 2):
                    parts.append(
                        _paint(chance, _box((wide, top * 0.5 + high, d), (x, top * 0.75 + high / 2, 0)), cloth)
                    )
        return parts
    h, thick = chance.uniform(0.4, 2.0), chance.uniform(0.02, 0.06)
    rows, columns = int(chance.integers(1, 5)), int(chance.integers(1, 4))
    if kind < 0.75:  # shelves, open
        parts = [_box((w, thick, d), (0, y, 0)) for y in np.linspace(0, h, rows + 1)]
        parts += [_box((thick, h, d), (x, h / 2, 0)) for x in np.linspace(-w / 2, w / 2, columns + 1)]
        if chance.random() < 0.6:
            parts.append(_box((w, h, thick), (0, h / 2, -d / 2)))
        return [_paint(chance, part, wood) for part in parts]
    parts = [_paint(chance, _box((w, h, d), (0, h / 2, 0)), wood)]
    if chance.random() < 0.5:
        parts += [_paint(chance, _box((w * 1.06, thick * 2, d * 1.06), (0, h, 0)), cloth)]
    for i in range(rows):
        for j in range(columns):
            size = (w / columns * 0.9, h / rows * 0.9, 0.03)
            at = ((j + 0.5) * w / columns - w / 2, (i + 0.5) * h / rows, d / 2)
            parts.append(_paint(chance, _box(size, at), cloth))
            parts.append(
                _paint(chance, _box((0.06, 0.03, 0.06), (at[0], at[1] + size[1] * 0.3, d / 2 + 0.03)), wood * 0.5)
            )
    return parts


def _vessel(chance: Chance) -> list[Mesh]:
    """Vases, cups, lamps, bottles: turned, some with handles, some with what grows in them."""
    body = _turned(chance)
    body.apply_scale([chance.uniform(0.6, 1.6), chance.uniform(0.5, 1.8), chance.uniform(0.6, 1.6)])
    parts, color = [_paint(chance, body)], _color(chance)
    high, wide = float(body.bounds[1, 1]), float(body.bounds[1, 0])
    if chance.random() < 0.4:
        ring = trimesh.creation.torus(high * chance.uniform(0.15, 0.35), high * chance.uniform(0.03, 0.07), 24, 12)
        ring.apply_translation([wide, high * chance.uniform(0.4, 0.7), 0])
        turn = trimesh.transformations.rotation_matrix(chance.uniform(0, 2 * np.pi), [0, 1, 0])
        parts.append(_paint(chance, ring.apply_transform(turn), color))
    if chance.random() < 0.35:
        for _ in range(int(chance.integers(5, 25))):
            lean = chance.normal(0, 0.35, 3) * [1, 0, 1] + [0, chance.uniform(0.3, 1.2), 0]
            stem = np.array([0, high, 0])
            parts.append(_paint(chance, _post(0.015, stem, stem + lean, 5), color * 0.6))
            parts.append(_paint(chance, _ball(chance, chance.uniform(0.04, 0.18, 3), stem + lean), color))
    elif chance.random() < 0.3:
        hat = _turned(chance, 2)
        hat.apply_scale(chance.uniform(0.4, 1.2, 3))
        parts.append(_paint(chance, hat.apply_translation([0, high * chance.uniform(0.8, 1.1), 0])))
    return parts


def _creature(chance: Chance) -> list[Mesh]:
    """A body, a head, limbs: what toys and animals look like, from whichever side."""
    color, second = _color(chance), _color(chance)
    long, high, wide = chance.uniform(0.3, 0.8), chance.uniform(0.2, 0.5), chance.uniform(0.2, 0.4)
    standing = chance.random() < 0.5
    size = np.array([wide, long, high]) if standing else np.array([wide, high, long])
    leg = chance.uniform(0.1, 0.7)
    middle = np.array([0, leg + size[1] * 0.8, 0])
    parts = [_paint(chance, _ball(chance, size, middle), color)]
    head = chance.uniform(0.15, 0.4, 3)
    top = middle + np.array([0, size[1] + head[1] * 0.6, 0 if standing else size[2] * 0.9])
    parts.append(_paint(chance, _ball(chance, head, top), color))
    parts.append(_paint(chance, _post(min(wide, head[0]) * 0.6, middle + [0, 0, size[2] * 0.4], top, 12), color))
    for side in (-1, 1):
        eye = top + head * [side * 0.45, 0.25, 0.85]
        parts.append(_paint(chance, _ball(chance, np.full(3, head[0] * 0.15), eye), second * 0.3))
        if chance.random() < 0.7:
            ear = top + head * [side * 0.7, 0.9, 0]
            parts.append(_paint(chance, _ball(chance, head * chance.uniform(0.2, 0.7, 3), ear), color))
    nose = top + head * [0, -0.2, 0.9]
    parts.append(_paint(chance, _ball(chance, head * chance.uniform(0.2, 0.5, 3), nose), second))
    feet = [(-0.6, 0.0), (0.6, 0.0)] if standing else [(-0.6, -0.7), (0.6, -0.7), (-0.6, 0.7), (0.6, 0.7)]
    for x, z in feet:
        hip = middle + size * [x, -0.3, z]
        foot = np.array([hip[0], 0.05, hip[2] + chance.normal(0, 0.05)])
        parts.append(_paint(chance, _post(wide * 0.28, foot, hip, 10), color))
        parts.append(_paint(chance, _ball(chance, np.full(3, wide * 0.33), foot), second))
    if standing:
        for side in (-1, 1):
            shoulder = middle + size * [side * 0.8, 0.5, 0]
            hand = shoulder + [side * chance.uniform(0, 0.4), chance.uniform(-0.6, 0.4), chance.uniform(-0.1, 0.4)]
            parts.append(_paint(chance, _post(wide * 0.25, shoulder, hand, 10), color))
    if chance.random() < 0.6:
        tail = middle + size * [0, 0.2, -0.9]
        parts.append(_paint(chance, _post(0.05, tail, tail + chance.normal([0, 0.2, -0.3], 0.1), 8), second))
    return parts


def _heap(chance: Chance) -> list[Mesh]:
    """Solids side by side and upon each other, most of them mirrored."""
    parts, colors = [], [_color(chance) for _ in range(3)]
    for _ in range(int(chance.integers(1, 8))):
        kind, size = int(chance.integers(5)), chance.uniform(0.1, 0.7, 3)
        at = chance.normal(0, 0.35, 3)
        if kind == 0:
            solid = _box(tuple(size * 1.5), (0, 0, 0))
        elif kind == 1:
            solid = _ball(chance, size, np.zeros(3))
        elif kind == 2:
            solid = trimesh.creation.cone(size[0], size[1] * 1.5, sections=24)
            solid.vertices = solid.vertices[:, [0, 2, 1]]
            solid.invert()
        elif kind == 3:
            solid = trimesh.creation.torus(size[0], size[1] * 0.3 + 0.03, 32, 16)
        else:
            solid = _turned(chance)
            solid.apply_scale(size * 1.6)
        if chance.random() < 0.4:
            axis = [[1, 0, 0], [0, 1, 0], [0, 0, 1]][int(chance.integers(3))]
            angle = chance.choice([np.pi / 2, chance.uniform(0, np.pi)])
            solid.apply_transform(trimesh.transformations.rotation_matrix(angle, axis))
        color = colors[int(chance.integers(3))]
        if chance.random() < 0.6:
            other = solid.copy().apply_translation(at)
            other.vertices *= [-1, 1, 1]
            other.invert()
            parts.append(_paint(chance, other, color))
        parts.append(_paint(chance, solid.apply_translation(at), color))
    return parts
