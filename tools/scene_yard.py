"""What stands in the courtyard, and where. Metres, z up, the fountain at the origin.

The yard is 36 by 26 metres: houses on its north (+y) and east (+x), an open loggia on its west, and on its south, where
the sun comes from, a railing and the view over the town to the hills.
"""

from __future__ import annotations

import numpy as np
import scene_beyond as beyond
import scene_houses as houses
import scene_plants as plants
import scene_rigging as rigging
import scene_shapes as shapes
import scene_street as street
import scene_yard_paints as paints
from scene_houses import House, Opening
from scene_parts import Part
from scene_shapes import bar, block, compose, panel, shift, turn

EAST, NORTH = 18.0, 13.0  # half the yard: its walls stand at +-EAST and at +-NORTH

SHOP = {"kind": "shop", "shutters": False}
BARRED = {"shutters": False, "bars": True}
FRONTS = (  # the house, and the pose of its front
    (
        House(
            "ochre",
            12,
            9.6,
            "d9a653",
            "d8cbb0",
            "3f6f5c",
            4,
            ((4.3, 1.6), (7.0, 1.3)),
            (
                Opening(1.0, 1.1, 1.2, 1.5, **BARRED),
                Opening(4.0, 0.0, 1.4, 2.7, "door"),
                Opening(7.0, 1.1, 1.2, 1.5, **BARRED),
                Opening(9.7, 1.1, 1.2, 1.5, **BARRED),
            ),
            101,
        ),
        shift(-EAST, NORTH, 0),
    ),
    (
        House(
            "rose",
            12,
            12.0,
            "c9795f",
            "e4d7bd",
            "35547a",
            5,
            ((4.2, 1.8), (6.9, 1.6), (9.5, 1.2)),
            (
                Opening(0.9, 0.6, 2.6, 2.1, **SHOP),
                Opening(5.2, 0.0, 1.6, 2.9, "door"),
                Opening(8.5, 0.6, 2.6, 2.1, **SHOP),
            ),
            102,
            3.0,
        ),
        shift(-6, NORTH, 0),
    ),
    (
        House(
            "blue",
            12,
            8.4,
            "9fb3b8",
            "e6dcc8",
            "8a3d2e",
            4,
            ((4.3, 1.5),),
            (
                Opening(1.2, 1.0, 1.2, 1.6, **BARRED),
                Opening(4.2, 0.6, 2.6, 2.1, **SHOP),
                Opening(9.0, 0.0, 1.4, 2.7, "door"),
            ),
            103,
            2.4,
        ),
        shift(6, NORTH, 0),
    ),
    (
        House(
            "cream",
            13,
            10.8,
            "e3cfa0",
            "cdbb9b",
            "5b6b3a",
            5,
            ((4.3, 1.7), (7.1, 1.5)),
            (
                Opening(1.2, 1.0, 1.2, 1.6, **BARRED),
                Opening(3.8, 1.0, 1.2, 1.6, **BARRED),
                Opening(6.6, 0.0, 1.4, 2.7, "door"),
                Opening(9.4, 0.6, 2.6, 2.1, **SHOP),
            ),
            104,
        ),
        compose(shift(EAST, NORTH, 0), turn("z", -90)),
    ),
    (
        House(
            "pink",
            13,
            7.6,
            "dca394",
            "e8dfcf",
            "4a6d86",
            4,
            ((4.2, 1.6),),
            (
                Opening(1.4, 0.6, 2.8, 2.1, **SHOP),
                Opening(5.4, 0.0, 1.4, 2.7, "door"),
                Opening(8.4, 0.6, 2.8, 2.1, **SHOP),
            ),
            105,
            2.2,
        ),
        compose(shift(EAST, 0, 0), turn("z", -90)),
    ),
)


# ---- the yard itself


def make_floor() -> list[Part]:
    """Setts in patches of four metres, each with a texture of its own, and a raised pavement along the houses."""
    patches = [panel((x, y, 0), (4, 0, 0), (0, 4, 0)) for x in range(-20, 20, 4) for y in range(-16, 16, 4)]
    floor = Part("floor", patches, paints.cobbles, (640, 640))
    north = block((-EAST, NORTH - 1.5, -0.1), (EAST, NORTH, 0.12))
    east = block((EAST - 1.5, -NORTH, -0.1), (EAST, NORTH - 1.5, 0.12))
    tops = [north.pop(), east.pop()]  # the last face of a block looks up
    kerbs = Part("kerbs", north + east, paints.plain("a89b86"), share=True)
    return [floor, Part("pavement", tops, paints.slabs, (1024, 1024)), kerbs]


def make_railing() -> list[Part]:
    """A low wall, pillars with balls on them, and wrought iron between; the gate stands open."""
    stone, iron, balls = [], [], []
    xs = [-EAST, -13.5, -9, -4.5, -1.6, 1.6, 4.5, 9, 13.5, EAST]
    for x in xs:
        stone += block((x - 0.22, -NORTH - 0.22, 0), (x + 0.22, -NORTH + 0.22, 2.1))
        stone += block((x - 0.3, -NORTH - 0.3, 2.1), (x + 0.3, -NORTH + 0.3, 2.22))
        balls.append(shapes.ball(0.2, 16, 24).placed(shift(x, -NORTH, 2.4)))
    for left, right in zip(xs[:-1], xs[1:], strict=True):
        if right - left < 4 and left < 0 < right:
            continue
        stone += block((left + 0.22, -NORTH - 0.16, 0), (right - 0.22, -NORTH + 0.16, 0.55))
        iron += rigging.rails((left + 0.22, -NORTH, 0.55), right - left - 0.44, 1.4)
    for x, way in ((-1.38, 1), (1.38, -1)):  # the two wings of the gate, opened outwards
        wing = rigging.rails((0, 0, 0.08), 1.3, 1.9)
        iron += [piece.placed(compose(shift(x, -NORTH, 0), turn("z", -90 - 15 * way))) for piece in wing]
    return [
        Part("yard-wall", stone, paints.ashlar("c8b690", 0.8, 0.42), (128, 128)),
        Part("railing", iron, street.CAST_IRON, share=True),
        Part("balls", balls, paints.plain("c4b59a", vary=0.4), (64, 64), share=True),
    ]


def make_loggia() -> list[Part]:
    """Columns, a beam and a roof of tiles along the west side, with a wall behind and one at each end."""
    column = [(0.3, 0.15), (0.3, 0.3), (0.25, 0.36), (0.22, 0.45), (0.2, 3.0), (0.26, 3.1), (0.3, 3.22), (0.3, 3.35)]
    shaft = street.lathed(column, 32, 0.02, 0.2)
    ys = np.arange(-9, 10, 3.0)
    columns = [shaft.placed(shift(-EAST, y, 0)) for y in ys]
    beam = block((-EAST - 0.25, -9.4, 3.35), (-EAST + 0.25, 9.4, 3.75))
    rafters = [bar((-EAST + 0.7, y, 3.72), (-EAST - 4, y, 5.5), 0.07) for y in np.arange(-9, 9.1, 0.9)]
    slope = np.hypot(4.9, 1.85)
    pitch = turn("x", np.degrees(np.arctan2(1.85, 4.9)))
    skin = houses.tiled(18.8, slope).placed(compose(shift(-EAST + 0.8, -9.4, 3.78), turn("z", 90), pitch))
    rear = [panel((-EAST - 4, -NORTH, 0), (0, 2 * NORTH, 0), (0, 0, 5.6))]
    ends, coping = [], []
    for low, high in ((-NORTH, -9.4), (9.4, NORTH)):
        ends.append(panel((-EAST, low, 0), (0, high - low, 0), (0, 0, 4.6)))
        coping += block((-EAST - 4.1, low - 0.05, 4.6), (-EAST + 0.1, high + 0.05, 4.75))
    ends.append(panel((-EAST, -9.4, 0), (-4, 0, 0), (0, 0, 4.6)))
    ends.append(panel((-EAST - 4, 9.4, 0), (4, 0, 0), (0, 0, 4.6)))
    step = block((-EAST - 4, -9.4, 0), (-EAST + 0.35, 9.4, 0.15))
    return [
        Part("columns", columns, paints.plain("d9cbb0", vary=0.35, scale=5), (256, 256), share=True),
        Part("beam", [*beam, *rafters], paints.plain("7a5535", 0.8, vary=0.5, scale=5), (32, 512), share=True),
        Part("loggia-roof", [skin], paints.pantiles(0.24, 0.36, 7), (512, 1024)),
        Part("loggia-rear", rear, paints.plaster("ecc596", 106, 5.6), (512, 2048)),
        Part("loggia-ends", ends, paints.plaster("d6b98c", 107, 4.6), (512, 512)),
        Part("loggia-coping", coping, paints.plain("c9bba0", vary=0.3), share=True),
        Part("loggia-step", step, paints.ashlar("b8a98d", 0.9, 0.3), (512, 512)),
    ]


# ---- what people have put there


def make_furniture(rng: np.random.Generator) -> list[Part]:
    """Lamps, benches, bicycles, tables, a stall, barrels and crates."""
    parts = [p.placed(shift(x, y, 0)) for i, (x, y) in enumerate(LAMPS) for p in street.make_lamp(f"lamp{i}")]
    for i, (x, y, at) in enumerate(((4.6, 3.9, 140), (-4.9, -3.6, -50), (-12.6, 4.4, 75), (3.5, -11.6, 180))):
        parts += [p.placed(compose(shift(x, y, 0), turn("z", at))) for p in street.make_bench(f"bench{i}")]
    rides = ((2.2, 11.3, 0, "2f7d86"), (-10.7, 11.55, 4, "b3402f"), (7.3, -5.2, 100, "d9a62e"))
    for i, (x, y, at, code) in enumerate(rides):
        high = 0.12 if y > NORTH - 1.5 else 0.0
        parts += [p.placed(compose(shift(x, y, high), turn("z", at))) for p in street.make_bicycle(f"ride{i}", code)]
    for i, (x, y, at) in enumerate(((12.0, 4.2, 20), (13.6, 7.0, 75), (9.6, 7.6, -30))):
        pose = compose(shift(x, y, 0), turn("z", at))
        parts += [p.placed(pose) for p in street.make_table(f"table{i}")]
        if i < 2:
            look = (("c8442f", "f1e6cf"), ("2d6f8e", "f1e6cf"))[i]
            parts += [p.placed(compose(pose, shift(-0.3, 0.9, 0))) for p in street.make_parasol(f"parasol{i}", *look)]
    for i, (x, y) in enumerate(((-16.9, -6.4), (-16.6, -7.2), (16.1, -11.2))):
        parts += [p.placed(shift(x, y, 0.12 if x > 16 else 0)) for p in street.make_barrel(f"barrel{i}")]
    parts += [p.placed(compose(shift(11.0, -8.0, 0), turn("z", -60))) for p in rigging.make_stall(rng)]
    return parts


LAMPS = ((-7.0, -5.6), (7.0, -5.6), (7.0, 5.6), (-7.0, 6.4))


def make_greenery(rng: np.random.Generator) -> list[Part]:
    """The tree, the creeper, boxes under windows, and pots of all sizes."""
    parts = plants.make_tree(rng, np.array([-10.5, -1.2, 0.0]))
    ivy = plants.make_ivy("ivy", rng, 5.0, 8.0)
    parts += [part.placed(shift(-EAST + 7.2, NORTH - 0.02, 0)) for part in ivy]
    codes = ("c4263a", "e0567f", "f0ead8", "d8472b", "a545a0")
    for (house, pose), code in zip(FRONTS, codes, strict=True):
        places = [(o.x + o.width / 2, o.z - 0.28) for o in house.openings() if o.kind == "window" and o.z > 4]
        chosen = [place for k, place in enumerate(places) if (k + house.seed) % 2 == 0]
        boxes = plants.make_flower_boxes(house.name + "-box", rng, chosen, code)
        parts += [part.placed(pose) for part in boxes]
    spots = [
        (-12.6, 12.3),
        (-8.5, 12.3),
        (-1.6, 12.2),
        (1.4, 12.2),
        (14.4, 12.3),
        (16.9, 7.7),
        (17.2, 4.6),
        (17.2, -4.2),
    ]
    spots += [
        (-17.1, -1.5),
        (-17.1, 1.5),
        (-17.1, 4.5),
        (-2.3, -12.2),
        (2.3, -12.2),
        (17.2, -6.9),
        (3.4, 1.5),
        (-3.3, 1.6),
    ]
    clays = ("b5653c", "3f6f7c", "c99a5b", "8b4a35")
    for k, (x, y) in enumerate(spots):
        code = (*codes, None)[k % 6]
        pot = plants.make_pot(f"pot{k}", rng, 0.4 + 0.25 * (k * 7 % 5) / 4, code, clays[k % 4])
        raised = y > NORTH - 1.5 or x > EAST - 1.5
        parts += [part.placed(shift(x, y, 0.12 if raised else 0.0)) for part in pot]
    return parts


def courtyard(seed: int) -> list[Part]:
    """Everything in the yard, about it and beyond it; ``seed`` decides how things have grown and been heaped."""
    rng = np.random.default_rng(seed)
    parts = [*make_floor(), *make_railing(), *make_loggia(), *street.make_fountain()]
    for house, pose in FRONTS:
        parts += [part.placed(pose) for part in [*houses.make_house(house), *rigging.make_signs(house)]]
    parts += [*make_furniture(rng), *make_greenery(rng), *rigging.make_lines(rng, LAMPS)]
    parts += [*beyond.make_land(), *beyond.make_town(rng), *beyond.make_dome(-46, 66)]
    parts += beyond.make_church(34, -96, -12)
    rows = [(x, -24 - 0.4 * abs(x) - 3 * (k % 2)) for k, x in enumerate((-21, -17, -12, -8, 9, 13, 19, 23))]
    return [*parts, *beyond.make_cypresses(rng, [*rows, (-30, 4), (-31, -8), (-29, 14), (31, 30)])]
