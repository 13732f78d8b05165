"""Make the bundled scene ``armillary``: a desk still life, modelled, painted and path traced here from nothing.

    python tools/make_scenes.py --out scenes/armillary --size 400

It writes the Blender-synthetic layout (``transforms_{train,val,test}.json``; RGBA PNGs with straight alpha; OpenGL
camera axes, z up), which every radiance field tool reads. Views already on disk are skipped, so it can be stopped.
It needs ``mitsuba``, ``pyoidn`` (with ``cffi``), ``pyoxipng``, ``opencv-python`` and ``numpy``, all from PyPI.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OIDN_NUM_THREADS", "1")  # read once, when the library loads

import cv2
import mitsuba as mi
import numpy as np
import oxipng
import pyoidn
import scene_paints as paints
import scene_shapes as shapes
from scene_shapes import Surface, compose, shift, turn

mi.set_variant("scalar_rgb")

FLOOR = -0.70  # height of the plinth's top
SPHERE = np.array([-0.20, 0.13, 0.27])  # centre of the armillary sphere
FIELD_OF_VIEW = 0.6911112070083618  # radians, across; with DISTANCE, the framing of the NeRF synthetic scenes
DISTANCE = 4.031128874
SPLITS = {"train": 68, "val": 4, "test": 16}


@dataclass
class Part:
    """Surfaces that share one painter; ``texture`` is (height, width) in texels, one texture for each surface.

    ``share`` paints only the first surface and lets the others wear its texture. ``coat`` in [0, 1] is lacquer on top.
    """

    name: str
    surfaces: list[Surface]
    paint: object
    texture: tuple[int, int] = (16, 16)
    coat: float = 0.0
    share: bool = False
    extra: dict = field(default_factory=dict)

    def placed(self, pose: np.ndarray) -> "Part":
        """The same part moved by ``pose`` (3, 4)."""
        self.surfaces = [surface.placed(pose) for surface in self.surfaces]
        return self


# ---------------------------------------------------------------------------------------------------------- still life


def make_plinth() -> list[Part]:
    """The round base, 1.05 in radius, its top at FLOOR."""
    corners = [(0, -0.15), (0.98, -0.15), (1.03, -0.13), (1.03, -0.105), (0.985, -0.095), (0.985, -0.07)]
    corners += [(1.045, -0.055), (1.05, -0.03), (1.045, -0.012), (1.02, 0.0), (0, 0)]
    body = shapes.lathe(shapes.rounded(np.array(corners), 0.012), 256)
    return [Part("plinth", [body], paints.plinth(1.05, 0.0), (1024, 2048), coat=0.6).placed(shift(0, 0, FLOOR))]


def make_stand() -> list[Part]:
    """Turned foot, brass collars and the four arms that carry the horizon."""
    low = SPHERE[2] - FLOOR  # height of the sphere's centre over the plinth
    corners = [(0, 0), (0.27, 0), (0.275, 0.02), (0.26, 0.04), (0.225, 0.045), (0.235, 0.065), (0.215, 0.085)]
    corners += [(0.12, 0.10), (0.075, 0.13), (0.055, 0.17), (0.085, 0.20), (0.085, 0.22), (0.05, 0.25)]
    corners += [(0.04, 0.31), (0.055, 0.36), (0, 0.37)]
    foot = shapes.lathe(shapes.rounded(np.array(corners), 0.012), 96, step=0.012)
    collars = [shapes.ring(0.03, 0.092, 0.014).placed(shift(0, 0, 0.21)), shapes.ring(0.05, 0.245, 0.010).placed(shift(0, 0, 0.048))]
    cup = [(0, 0.355), (0.05, 0.355), (0.062, 0.375), (0.05, 0.395), (0.03, 0.40), (0.024, 0.43), (0, 0.44)]
    collars.append(shapes.lathe(shapes.rounded(np.array(cup), 0.008), 48))
    knots = np.array([(0.045, 0.38), (0.14, 0.345), (0.30, 0.42), (0.46, 0.63), (0.55, 0.85), (0.575, low - 0.016)])
    curve = shapes.spline(knots, 40)
    arm = shapes.tube(np.stack([curve[:, 0], 0 * curve[:, 0], curve[:, 1]], axis=1), np.linspace(0.019, 0.012, 40))
    knobs = [shapes.ball(0.022, 16, 24).placed(shift(0.575, 0, low - 0.03))]
    arms = [piece.placed(turn("z", 45 + 90 * k)) for k in range(4) for piece in (arm, *knobs)]
    to_place = shift(SPHERE[0], SPHERE[1], FLOOR)
    wood = Part("foot", [foot], paints.wooden(paints.WALNUT, 2, 7, 0.3), (256, 512), coat=0.6)
    metal = Part("arms", [*collars, *arms], paints.brass, (128, 128), share=True)
    return [wood.placed(to_place), metal.placed(to_place)]


def make_sphere() -> list[Part]:
    """The armillary sphere: horizon, meridian, and the tilted cage with its earth."""
    scale = paints.engraved(5, 3, 0.492, 0.030)
    parts = [
        Part("horizon", [shapes.ring(0.535, 0.665, 0.026, 0.006, 256)], paints.horizon(0.535, 0.665), (1024, 2048), 0.3),
        Part("meridian", [shapes.ring(0.462, 0.522, 0.022, 0.004, 256).placed(turn("x", 90))], scale, (768, 2048)),
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
    place = np.array([0.60, 0.42, FLOOR])
    height = 0.36
    outside = [(0, 0), (0.125, 0), (0.135, 0.02), (0.14, 0.055), (0.19, 0.19), (0.215, 0.30), (0.225, 0.32), (0.23, 0.355)]
    inside = [(0.215, 0.36), (0.205, 0.33), (0.20, 0.29)]
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
    foliage = Part("leaves", leaves, paints.blade, (512, 64), share=True, extra={"diff_trans": 0.7})
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
    block = [f.placed(shift(width / 2 - 0.004, 0, 0)) for f in shapes.box(width - 0.03, length - 0.03, thickness - 0.03)]
    cloth_paint = paints.cloth_cover(cloth, length, thickness, seed)
    parts = [Part(name, cover, cloth_paint, (1024, 512)), Part(name + "-pages", block, paints.pages, (256, 64))]
    return [part.placed(pose) for part in parts]


def make_desk_things() -> list[Part]:
    """Two books, a pencil, a pair of dividers, a spinning top and three marbles."""
    lower = compose(shift(0.10, -0.68, FLOOR + 0.066), turn("z", 12))
    upper = compose(shift(0.13, -0.665, FLOOR + 0.132 + 0.047), turn("z", -9))
    parts = make_book("atlas", "7d1f2a", (0.42, 0.56, 0.130), 41, compose(lower, turn("z", 0)))
    parts += make_book("diary", "1f4a4a", (0.36, 0.48, 0.092), 42, upper)
    stub = [(0, 0), (0.020, 0), (0.022, 0.01), (0.022, 0.36), (0.006, 0.452), (0, 0.46)]
    wand = shapes.lathe(shapes.rounded(np.array(stub), 0.003), 72, step=0.01, sides=6)
    lying = compose(shift(0.42, -0.86, FLOOR + 0.246), turn("z", 112), turn("y", 90), turn("z", 30))
    parts.append(Part("pencil", [wand], paints.pencil(0.46), (1024, 256), coat=0.8).placed(lying))
    body = [(0, 0), (0.006, 0.004), (0.012, 0.02), (0.03, 0.032), (0.10, 0.072), (0.13, 0.092), (0.13, 0.103)]
    body += [(0.115, 0.118), (0.05, 0.135), (0.018, 0.142), (0.013, 0.16), (0.012, 0.22), (0.017, 0.23), (0, 0.238)]
    top = shapes.lathe(shapes.rounded(np.array(body), 0.006), 96, step=0.01)
    leaning = compose(shift(-0.52, -0.58, FLOOR + 0.004), turn("z", 200), turn("y", 44))
    parts.append(Part("top", [top], paints.toy_top, (512, 1024), coat=1.0).placed(leaning))
    for index, (x, y, radius, first, second) in enumerate(
        [(-0.20, -0.72, 0.062, "f2ead8", "1d6fb0"), (-0.70, -0.32, 0.05, "f0c23c", "c2451e"), (0.80, -0.12, 0.055, "e9f0e2", "2d8a4e")]
    ):
        ball = shapes.ball(radius).placed(compose(shift(x, y, FLOOR + radius), turn("x", 40 * index + 20)))
        parts.append(Part(f"marble{index}", [ball], paints.marble(first, second, 60 + index), (256, 512), coat=1.0))
    return parts + make_dividers()


def make_dividers() -> list[Part]:
    """Brass dividers with steel points, their feet on the plinth and their hinge against the books."""
    hinge = np.array([0.605, -0.52, FLOOR + 0.44])
    legs, points = [], []
    for foot in (np.array([0.84, -0.46, FLOOR]), np.array([0.72, -0.68, FLOOR])):
        s = np.linspace(0, 1, 24)[:, None]
        path = hinge + (foot - hinge) * s
        legs.append(shapes.tube(path[:17], np.linspace(0.013, 0.009, 17)))
        points.append(shapes.tube(path[16:], np.linspace(0.007, 0.0012, 8)))
    head = [shapes.ball(0.026, 20, 32).placed(shift(*hinge)), shapes.rod(tuple(hinge), tuple(hinge + [0, 0, 0.07]), 0.008)]
    return [
        Part("dividers", [*legs, *head], paints.brass, (64, 64), share=True),
        Part("points", points, paints.steel, share=True),
    ]


# --------------------------------------------------------------------------------------------------------------- mitsuba


def bitmap(values: np.ndarray, channels: int) -> dict:
    """Mitsuba texture of linear ``values`` (height, width[, 3])."""
    data = np.ascontiguousarray(values.reshape(*values.shape[:2], channels), dtype=np.float32)
    return {"type": "bitmap", "bitmap": mi.Bitmap(data), "raw": True}


def material(part: Part, surface: Surface) -> dict:
    """Mitsuba material of ``surface``, its textures painted."""
    height, width = part.texture
    v, u = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    paint = part.paint(surface.enlarged(height, width), np.stack([u, v], axis=-1))
    rough = np.broadcast_to(paint.rough, (height, width))
    look = {"type": "principled", "base_color": bitmap(paint.base, 3), "roughness": bitmap(rough, 1)}
    if "diff_trans" in part.extra:  # light shines through a leaf
        return look | {"type": "principledthin"} | part.extra
    look |= {"metallic": bitmap(np.broadcast_to(paint.metal, (height, width)), 1), "specular": 0.5}
    look |= {"clearcoat": part.coat, "clearcoat_gloss": 0.92}
    return {"type": "twosided", "bsdf": look}


def studio(height: int = 256) -> np.ndarray:
    """Surrounding light (height, 2 height, 3), linear: a pale room with a warm window, a cool one and a strip light."""
    elevation = np.radians(90 - (np.arange(height) + 0.5) / height * 180)[:, None]
    azimuth = np.radians((np.arange(2 * height) + 0.5) / (2 * height) * 360)[None]
    up = np.sin(elevation) + 0 * azimuth
    sky = paints.mix(np.array([0.46, 0.42, 0.38]), np.array([0.36, 0.42, 0.52]), paints.edge(-0.2, 0.9, up))
    light = paints.mix(np.array([0.16, 0.12, 0.09]), sky, paints.edge(-0.35, 0.05, up))
    lamps = [  # azimuth, elevation, half width, half height in degrees; colour
        (-60, 48, 24, 20, (17.0, 14.2, 11.0)),
        (115, 34, 34, 22, (3.0, 3.8, 5.0)),
        (200, 40, 7, 30, (6.5, 6.0, 5.6)),
        (20, 20, 10, 14, (2.6, 2.4, 2.2)),
    ]
    for at, high, wide, tall, radiance in lamps:
        across = np.degrees((azimuth - np.radians(at) + np.pi) % (2 * np.pi) - np.pi)
        across = across * np.cos(np.radians(high))  # as wide up there as at the horizon
        rise = np.degrees(elevation) - high
        window = paints.edge(wide + 2.5, wide - 2.5, np.abs(across)) * paints.edge(tall + 2.5, tall - 2.5, np.abs(rise))
        bars = 1 - 0.75 * np.maximum(paints.ticks(across, wide, 2.2), paints.ticks(rise, tall, 2.2))
        light = light + (window * bars)[..., None] * np.array(radiance)
    return light


def build_scene(seed: int) -> mi.Scene:
    """The whole still life, lit."""
    rng = np.random.default_rng(seed)
    parts = [*make_plinth(), *make_stand(), *make_sphere(), *make_plant(rng), *make_desk_things()]
    # Mitsuba keeps its surroundings y up; ours are z up.
    upright = mi.ScalarTransform4f().rotate([1, 0, 0], 90)
    sky = {"type": "envmap", "bitmap": mi.Bitmap(studio().astype(np.float32)), "to_world": upright}
    scene = {"type": "scene", "sky": sky}
    with tempfile.TemporaryDirectory() as folder:
        for part in parts:
            groups = [part.surfaces] if part.share else [[surface] for surface in part.surfaces]
            for index, group in enumerate(groups):
                name = f"{part.name}-{index}"
                path = Path(folder) / f"{name}.ply"
                shapes.write_ply(path, group)
                scene[name] = {"type": "ply", "filename": str(path), "bsdf": material(part, group[0])}
        return mi.load_dict(scene)


# --------------------------------------------------------------------------------------------------------------- cameras


def look_at(azimuth: float, elevation: float) -> np.ndarray:
    """Camera to world (4, 4), OpenGL axes, on the sphere of radius DISTANCE, facing the origin. Degrees."""
    a, e = np.radians([azimuth, elevation])
    back = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    right = np.array([-np.sin(a), np.cos(a), 0.0])
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(back, right), back, DISTANCE * back], axis=1)
    return pose


def directions(split: str, count: int) -> list[tuple[float, float]]:
    """(azimuth, elevation) of each view in degrees.

    Training and validation views lie on a golden spiral, even over the upper half sphere; test views go round once,
    rising and sinking, so that they make a film and fall between the training views.
    """
    if split == "test":
        turn_by = np.arange(count) / count
        return [(360 * t + 7.0, 30 + 22 * np.sin(2 * np.pi * (2 * t + 0.15))) for t in turn_by]
    offset = 0.5 if split == "train" else 0.35
    height = (np.arange(count) + offset) / count
    order = np.random.default_rng(1).permutation(count)
    elevation = np.degrees(np.arcsin(0.03 + 0.965 * height))[order]
    azimuth = (137.50776 * np.arange(count))[order] % 360 + (0 if split == "train" else 60)
    return list(zip(azimuth, elevation))


def render_view(scene: mi.Scene, pose: np.ndarray, size: int, samples: int, seed: int) -> np.ndarray:
    """One picture (size, size, 4), 8-bit sRGB with straight alpha: traced, denoised, tone mapped.

    The denoiser is told each pixel's albedo and normal, so it smooths the light and leaves the paint alone.
    """
    to_world = mi.ScalarTransform4f(pose @ np.diag([-1.0, 1.0, -1.0, 1.0]))  # Mitsuba looks along +z, x to the left
    film = {"type": "hdrfilm", "width": size, "height": size, "pixel_format": "rgba", "rfilter": {"type": "gaussian"}}
    sensor = {"type": "perspective", "fov": np.degrees(FIELD_OF_VIEW), "fov_axis": "x", "to_world": to_world}
    sensor |= {"near_clip": 0.1, "far_clip": 100.0, "film": film}

    def trace(integrator: dict, count: int) -> np.ndarray:
        camera = mi.load_dict(sensor | {"sampler": {"type": "multijitter", "sample_count": count}})
        picture = mi.render(scene, sensor=camera, integrator=mi.load_dict(integrator), seed=seed)
        return np.nan_to_num(np.array(picture, dtype=np.float32))

    traced = trace({"type": "path", "max_depth": 8, "hide_emitters": True}, samples)
    # The guides have no light in them, so far fewer samples make them clean.
    guides = trace({"type": "aov", "aovs": "albedo:albedo,normal:sh_normal"}, max(8, samples // 4))[..., -6:]
    light, alpha = np.minimum(traced[..., :3], 40.0), traced[..., 3]
    albedo, normal = np.clip(guides[..., :3], 0, 1), np.clip(guides[..., 3:], -1, 1)
    clean = pyoidn.denoise(light, albedo, normal, hdr=True, clean_aux=True)
    return finish(clean, np.clip(alpha, 0, 1))


def finish(light: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """8-bit RGBA (h, w, 4) of linear ``light`` (h, w, 3) premultiplied by ``alpha`` (h, w).

    Linear up to 0.6, then a shoulder that never clips, so highlights keep their colour. Where alpha is 0 colour is 0,
    which both compresses and tells no lies.
    """
    colour = np.maximum(light, 0) / np.maximum(alpha, 1e-3)[..., None] * EXPOSURE
    knee = 0.6
    colour = np.where(colour < knee, colour, knee + (1 - knee) * (1 - np.exp(-(colour - knee) / (1 - knee))))
    srgb = np.where(colour <= 0.0031308, 12.92 * colour, 1.055 * np.maximum(colour, 1e-9) ** (1 / 2.4) - 0.055)
    opaque = np.round(alpha * 255)
    rgb = np.round(np.clip(srgb, 0, 1) * 255) * (opaque > 0)[..., None]
    return np.concatenate([rgb, opaque[..., None]], axis=-1).astype(np.uint8)


EXPOSURE = 0.9


def save_png(path: Path, image: np.ndarray) -> None:
    """Write RGBA ``image`` (h, w, 4) as small as PNG goes; the file appears whole or not at all."""
    ok, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA))
    if not ok:
        raise RuntimeError(f"{path}: OpenCV could not encode the picture")
    aside = path.with_suffix(".part")
    aside.write_bytes(oxipng.optimize_from_memory(data.tobytes(), level=4))
    aside.replace(path)


def write_transforms(out: Path, split: str, count: int) -> list[np.ndarray]:
    """Write ``transforms_<split>.json`` and return its poses (4, 4)."""
    poses = [look_at(*direction) for direction in directions(split, count)]
    frames = [{"file_path": f"./{split}/r_{i}", "transform_matrix": pose.round(9).tolist()} for i, pose in enumerate(poses)]
    text = json.dumps({"camera_angle_x": FIELD_OF_VIEW, "frames": frames}, indent=1)
    (out / f"transforms_{split}.json").write_text(text + "\n")
    return poses


def main() -> None:
    """Read the command line, then render what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--size", type=int, default=400, help="pixels on a side")
    parser.add_argument("--samples", type=int, default=64, help="paths a pixel")
    parser.add_argument("--seed", type=int, default=1, help="of the plant and of the paths")
    parser.add_argument("--views", type=int, help="stop after this many new views")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    jobs = []
    for split, count in SPLITS.items():
        (arguments.out / split).mkdir(exist_ok=True)
        for index, pose in enumerate(write_transforms(arguments.out, split, count)):
            path = arguments.out / split / f"r_{index}.png"
            if not path.exists():
                jobs.append((path, pose, len(jobs)))
    scene = build_scene(arguments.seed)
    for path, pose, number in jobs[: arguments.views]:
        start = time.perf_counter()
        save_png(path, render_view(scene, pose, arguments.size, arguments.samples, arguments.seed + number))
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB  {time.perf_counter() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
