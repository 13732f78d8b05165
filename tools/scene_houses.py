"""Houses about the courtyard: walls with openings, what fills them, and roofs.

A house is built with its front in the plane y = 0, facing -y, from x = 0 to its width; a pose moves it to its place.
Pieces are gathered by what they are made of, since each material is one mesh to the renderer.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import scene_shapes as shapes
import scene_yard_paints as paints
from scene_parts import Part
from scene_shapes import Surface, bar, block, panel

PITCH = 0.1  # of a wall's grid: openings lie on it
REVEAL = 0.2  # how deep windows sit in the wall
BACK = 8.0  # of a house, from front to back

Pieces = defaultdict[str, list[Surface]]


@dataclass(frozen=True)
class Opening:
    """A hole in a front: its lower left corner, its size, and whether it is a ``window``, a ``shop`` or a ``door``."""

    x: float
    z: float
    width: float
    height: float
    kind: str = "window"
    shutters: bool = True
    bars: bool = False


@dataclass(frozen=True)
class House:
    """One house: ``storeys`` are (sill, height) of its rows of windows, ``ground`` the openings of its ground floor."""

    name: str
    width: float
    height: float
    wall: str
    trim: str
    shutter: str
    bays: int
    storeys: tuple[tuple[float, float], ...]
    ground: tuple[Opening, ...]
    seed: int
    rise: float = 2.6

    def openings(self) -> list[Opening]:
        """All of them, the rows of windows evenly spread."""
        step = self.width / self.bays
        across = [round((i + 0.5) * step - 0.55, 1) for i in range(self.bays)]
        return [*self.ground, *(Opening(x, z, 1.1, tall) for z, tall in self.storeys for x in across)]


# ---- fronts


def front(width: float, height: float, openings: list[Opening]) -> Surface:
    """The wall itself, its openings cut out."""
    cells = (round(height / PITCH), round(width / PITCH))
    wall = panel((0, 0, 0), (width, 0, 0), (0, 0, height), cells)
    wall.holes = np.zeros(cells, dtype=bool)
    for o in openings:
        low, left = round(o.z / PITCH), round(o.x / PITCH)
        wall.holes[low : low + round(o.height / PITCH), left : left + round(o.width / PITCH)] = True
    return wall


def reveals(o: Opening) -> list[Surface]:
    """The four sides of an opening, from the wall's face to the frame."""
    w, h, d = (o.width, 0, 0), (0, 0, o.height), (0, REVEAL, 0)
    return [
        panel((o.x, 0, o.z), d, h),
        panel((o.x + o.width, REVEAL, o.z), (0, -REVEAL, 0), h),
        panel((o.x, 0, o.z), w, d),
        panel((o.x, REVEAL, o.z + o.height), w, (0, -REVEAL, 0)),
    ]


def sash(pieces: Pieces, o: Opening, columns: int, rows: int) -> None:
    """A window frame with its glazing bars, and the pane behind them."""
    left, right, low, high = o.x, o.x + o.width, o.z, o.z + o.height
    y, thick = REVEAL - 0.05, 0.06
    pieces["frame"] += block((left, y, low), (left + thick, y + 0.07, high))
    pieces["frame"] += block((right - thick, y, low), (right, y + 0.07, high))
    pieces["frame"] += block((left + thick, y, low), (right - thick, y + 0.07, low + thick))
    pieces["frame"] += block((left + thick, y, high - thick), (right - thick, y + 0.07, high))
    for i in range(1, columns):
        x = left + o.width * i / columns
        half = 0.035 if columns == 2 else 0.02
        pieces["frame"] += block((x - half, y + 0.005, low + thick), (x + half, y + 0.06, high - thick))
    for i in range(1, rows):
        z = low + o.height * i / rows
        pieces["frame"] += block((left + thick, y + 0.01, z - 0.018), (right - thick, y + 0.05, z + 0.018))
    pieces["glass"].append(panel((left, y + 0.045, low), (o.width, 0, 0), (0, 0, o.height)))


def surround(pieces: Pieces, o: Opening) -> None:
    """Stone about an opening: two jambs, a lintel with a keystone, and a sill that throws its own shadow."""
    left, right, low, high = o.x, o.x + o.width, o.z, o.z + o.height
    pieces["trim"] += block((left - 0.14, -0.04, low), (left, 0.02, high))
    pieces["trim"] += block((right, -0.04, low), (right + 0.14, 0.02, high))
    pieces["trim"] += block((left - 0.2, -0.06, high), (right + 0.2, 0.02, high + 0.2))
    middle = (left + right) / 2
    pieces["trim"] += block((middle - 0.1, -0.1, high - 0.03), (middle + 0.1, 0.0, high + 0.27))
    if o.kind == "window":
        pieces["trim"] += block((left - 0.2, -0.16, low - 0.1), (right + 0.2, 0.1, low))


def shutter(pieces: Pieces, x: float, z: float, width: float, height: float) -> None:
    """One louvred shutter, folded back flat against the wall."""
    rim, y = 0.06, -0.09
    for low, high in ((0, rim), (height / 2 - rim / 2, height / 2 + rim / 2), (height - rim, height)):
        pieces["shutter"] += block((x, y, z + low), (x + width, y + 0.04, z + high))
    for left in (x, x + width - rim):
        pieces["shutter"] += block((left, y, z), (left + rim, y + 0.04, z + height))
    count = int(height / 0.075)
    for i in range(1, count):
        at = z + height * i / count
        slat = panel((x + rim, y + 0.005, at - 0.03), (width - 2 * rim, 0, 0), (0, 0.03, 0.05))
        pieces["shutter"].append(slat)
    for at in (z + 0.2, z + height - 0.2):  # hinges
        pieces["iron"] += block((x + 0.01, y - 0.01, at - 0.02), (x + width * 0.7, y, at + 0.02))


def fill(pieces: Pieces, o: Opening) -> None:
    """Whatever belongs in and about an opening."""
    pieces["reveal"] += reveals(o)
    surround(pieces, o)
    if o.kind == "door":
        pieces["door"].append(panel((o.x, REVEAL - 0.02, o.z), (o.width, 0, 0), (0, 0, o.height - 0.5)))
        high = o.z + o.height
        light = Opening(o.x, high - 0.5, o.width, 0.5)
        sash(pieces, light, 4, 1)
        for i in range(4):
            low = o.z + 0.2 + 0.5 * i
            for left in (o.x + 0.12, o.x + o.width / 2 + 0.06):
                pieces["door"] += block((left, REVEAL - 0.06, low), (left + o.width / 2 - 0.2, REVEAL, low + 0.38))
        knob = shapes.ball(0.04, 8, 12).placed(shapes.shift(o.x + o.width / 2 + 0.1, REVEAL - 0.09, o.z + 1.02))
        pieces["brass"].append(knob)
        return
    sash(pieces, o, 5 if o.kind == "shop" else 2, 2 if o.kind == "shop" else 4)
    if o.kind == "window" and o.shutters:
        shutter(pieces, o.x - 0.16 - o.width / 2, o.z, o.width / 2, o.height)
        shutter(pieces, o.x + o.width + 0.16, o.z, o.width / 2, o.height)
    if o.bars:
        for x in np.arange(o.x + 0.1, o.x + o.width, 0.14):
            pieces["iron"].append(bar((x, -0.02, o.z), (x, -0.02, o.z + o.height), 0.011))
        for z in (o.z + 0.25, o.z + o.height - 0.25):
            pieces["iron"] += block((o.x - 0.08, -0.035, z - 0.015), (o.x + o.width + 0.08, -0.01, z + 0.015))


def mouldings(pieces: Pieces, house: House) -> None:
    """Plinth, string course, quoins, and the cornice with its teeth."""
    w, h = house.width, house.height
    edges = sorted((o.x, o.x + o.width) for o in house.ground if o.z < 0.5)
    starts = [0.0, *(right + 0.14 for _, right in edges)]
    for left, right in zip(starts, [*(left - 0.14 for left, _ in edges), w], strict=True):
        if right > left:
            pieces["trim"] += block((left, -0.07, 0), (right, 0.0, 0.45))
    pieces["trim"] += block((0, -0.08, 3.5), (w, 0.0, 3.66))
    for low, high, out in ((0.0, 0.12, 0.12), (0.24, 0.34, 0.30), (0.34, 0.46, 0.40)):
        pieces["trim"] += block((-0.02, -out, h - 0.5 + low), (w + 0.02, 0.05, h - 0.5 + high))
    for x in np.arange(0.15, w - 0.1, 0.32):
        pieces["trim"] += block((x, -0.24, h - 0.38), (x + 0.14, 0.0, h - 0.26))
    for i in range(int((h - 1.2) / 0.36)):
        wide = 0.5 if i % 2 else 0.32
        for left in (0.0, w - wide):
            pieces["trim"] += block((left, -0.045, 0.5 + 0.36 * i), (left + wide, 0.0, 0.83 + 0.36 * i))


# ---- roofs


def tiled(width: float, slope: float, period: float = 0.24, row: float = 0.36) -> Surface:
    """A roof's skin in the plane z = 0, from y = 0 up to ``slope``: round tiles, each row over the one below it."""
    x = np.linspace(0, width, int(width / period * 5) + 1)
    count = int(slope / row)
    y = np.sort(np.concatenate([np.arange(count) * row, np.arange(1, count + 1) * row - 1e-3]))
    lift = np.tile([0.05, 0.0], count)
    px, py = np.meshgrid(x, y)
    wave = 0.055 * np.abs(np.cos(np.pi * px / period)) ** 0.7
    return Surface(np.stack([px, py, wave + lift[:, None]], axis=-1))


def roof(house: House) -> list[Part]:
    """Two slopes of tiles, ridge, gutter with its pipe, side walls up to the gables, and a chimney."""
    w, h, over = house.width, house.height, 0.45
    run = BACK / 2 + over
    low = h - 0.05
    slope, angle = np.hypot(run, house.rise), np.degrees(np.arctan2(house.rise, run))
    skin = tiled(w + 0.3, slope)
    one = skin.placed(shapes.compose(shapes.shift(-0.15, -over, low), shapes.turn("x", angle)))
    far = shapes.compose(shapes.shift(w + 0.15, BACK + over, low), shapes.turn("z", 180), shapes.turn("x", angle))
    parts = [Part(house.name + "-tiles", [one, skin.placed(far)], paints.pantiles(0.24, 0.36, house.seed), (512, 1024))]
    y = np.linspace(0, BACK, 17)
    top = low + house.rise * (1 - np.abs(y - BACK / 2) / run)
    side = np.stack([0 * y, y, top], axis=-1) * np.linspace(0, 1, 9)[:, None, None] ** np.array([0, 0, 1.0])
    side[..., 1] = y
    walls = [Surface(side + np.array([x, 0, 0])) for x in (0.0, w)]
    walls.append(panel((w, BACK, 0), (-w, 0, 0), (0, 0, low)))
    parts.append(Part(house.name + "-sides", walls, paints.plaster(house.wall, house.seed + 50, h), (256, 256)))
    x, base = 0.27 * w, low + house.rise * 0.55
    stack = block((x, 1.6, base - 0.6), (x + 0.7, 2.2, base + 1.5)) + block(
        (x - 0.06, 1.54, base + 1.5), (x + 0.76, 2.26, base + 1.62)
    )
    pots = [
        shapes.lathe(np.array([(0.12, 0), (0.09, 0.4), (0.13, 0.45), (0.07, 0.45)]), 20).placed(
            shapes.shift(x + at, 1.9, base + 1.62)
        )
        for at in (0.18, 0.52)
    ]
    parts.append(Part(house.name + "-chimney", stack, paints.ashlar("a8684c", 0.26, 0.085), (256, 128)))
    parts.append(Part(house.name + "-pots", pots, paints.plain("b5673f"), share=True))
    ridge = bar((-0.15, BACK / 2, low + house.rise + 0.04), (w + 0.15, BACK / 2, low + house.rise + 0.04), 0.13)
    parts.append(Part(house.name + "-ridge", [ridge], paints.plain("9c5238")))
    pipes = [bar((-0.1, -over, low), (w + 0.1, -over, low), 0.07)]
    pipes.append(shapes.tube(np.array([(w - 0.6, -over, low), (w - 0.6, -0.12, h - 0.7), (w - 0.6, -0.12, 0.1)]), 0.05))
    mast = [bar((x + 0.35, 3.6, base), (x + 0.35, 3.6, base + 3.0), 0.02)]
    mast += [bar((x - 0.2, 3.6, base + z), (x + 0.9, 3.6, base + z), 0.01) for z in (2.3, 2.5, 2.7, 2.9)]
    parts.append(Part(house.name + "-pipes", [*pipes, *mast], paints.plain("6f7a78", 0.45, 0.6), share=True))
    return parts


def make_house(house: House) -> list[Part]:
    """The whole house, in its own axes."""
    pieces: Pieces = defaultdict(list)
    openings = house.openings()
    for o in openings:
        fill(pieces, o)
    mouldings(pieces, house)
    wall = front(house.width, house.height, openings)
    size = (int(110 * house.height), int(110 * house.width))
    looks = {
        "reveal": (paints.plain(house.wall, vary=0.2), (32, 32), 0.0),
        "trim": (paints.plain(house.trim, vary=0.3, scale=9), (64, 64), 0.0),
        "frame": (paints.plain("ece6d6", 0.5, vary=0.1), (16, 16), 0.0),
        "shutter": (paints.plain(house.shutter, 0.55, vary=0.2), (32, 32), 0.0),
        "glass": (paints.glass, (128, 128), 0.6),
        "iron": (paints.plain("23272b", 0.5, vary=0.2), (16, 16), 0.0),
        "door": (paints.boards(house.shutter), (256, 128), 0.3),
        "brass": (paints.plain("e0b04e", 0.25, 1.0), (8, 8), 0.0),
    }
    parts = [Part(house.name + "-wall", [wall], paints.plaster(house.wall, house.seed, house.height), size)]
    for kind, surfaces in pieces.items():
        paint, texture, coat = looks[kind]
        parts.append(Part(f"{house.name}-{kind}", surfaces, paint, texture, coat, share=True))
    return parts + roof(house)
