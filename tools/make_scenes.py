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
from pathlib import Path

import cv2
import drjit
import mitsuba as mi
import numpy as np
import oxipng
import pyoidn
import scene_paints as paints
import scene_shapes as shapes
from scene_shapes import Surface
from scene_things import Part, still_life

mi.set_variant("scalar_rgb")

FIELD_OF_VIEW = 0.6911112070083618  # radians, across; that of the NeRF synthetic scenes
DISTANCE = 3.85  # of every camera from the origin: the still life fills the picture and never leaves it
SPLITS = {"train": 64, "val": 4, "test": 12}
EXPOSURE = 0.82


# ---- mitsuba


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
    if part.glow:
        return look | {"type": "principledthin", "diff_trans": part.glow}
    look |= {"metallic": bitmap(np.broadcast_to(paint.metal, (height, width)), 1), "specular": 0.5}
    look |= {"clearcoat": part.coat, "clearcoat_gloss": 0.92}
    return {"type": "twosided", "bsdf": look}


def studio(height: int = 256) -> np.ndarray:
    """Surrounding light (height, 2 height, 3), linear: a pale room with a warm window, a cool one and a strip light."""
    elevation = np.radians(90 - (np.arange(height) + 0.5) / height * 180)[:, None]
    azimuth = np.radians((np.arange(2 * height) + 0.5) / (2 * height) * 360)[None]
    up = np.sin(elevation) + 0 * azimuth
    sky = paints.mix(np.array([0.36, 0.33, 0.30]), np.array([0.28, 0.33, 0.42]), paints.edge(-0.2, 0.9, up))
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
    # Mitsuba keeps its surroundings y up; ours are z up.
    upright = mi.ScalarTransform4f().rotate([1, 0, 0], 90)
    sky = {"type": "envmap", "bitmap": mi.Bitmap(studio().astype(np.float32)), "to_world": upright}
    scene = {"type": "scene", "sky": sky}
    with tempfile.TemporaryDirectory() as folder:
        for part in still_life(seed):
            groups = [part.surfaces] if part.share else [[surface] for surface in part.surfaces]
            for index, group in enumerate(groups):
                name = f"{part.name}-{index}"
                path = Path(folder) / f"{name}.ply"
                shapes.write_ply(path, group)
                scene[name] = {"type": "ply", "filename": str(path), "bsdf": material(part, group[0])}
        return mi.load_dict(scene)


# ---- cameras


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
    return list(zip(azimuth, elevation, strict=True))


def render_view(scene: mi.Scene, pose: np.ndarray, size: int, samples: int, seed: int) -> np.ndarray:
    """One picture (size, size, 4), 8-bit sRGB with straight alpha: traced, denoised, tone mapped.

    The denoiser is told each pixel's albedo and normal, so it smooths the light and leaves the paint alone.
    """
    to_world = mi.ScalarTransform4f(pose @ np.diag([-1.0, 1.0, -1.0, 1.0]))  # Mitsuba looks along +z, x to the left
    # A box: the denoiser expects the noise of one pixel to know nothing of the next one's.
    film = {"type": "hdrfilm", "width": size, "height": size, "pixel_format": "rgba", "rfilter": {"type": "box"}}
    sensor = {"type": "perspective", "fov": np.degrees(FIELD_OF_VIEW), "fov_axis": "x", "to_world": to_world}
    sensor |= {"near_clip": 0.1, "far_clip": 100.0, "film": film}

    def trace(integrator: dict, count: int) -> np.ndarray:
        camera = mi.load_dict(sensor | {"sampler": {"type": "multijitter", "sample_count": count}})
        picture = mi.render(scene, sensor=camera, integrator=mi.load_dict(integrator), seed=seed)
        return np.nan_to_num(np.array(picture, dtype=np.float32))

    traced = trace({"type": "path", "max_depth": 8, "hide_emitters": True}, samples)
    # The guides have no light in them, so far fewer samples make them clean.
    guides = trace({"type": "aov", "aovs": "albedo:albedo,normal:sh_normal"}, max(12, samples // 4))[..., -6:]
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
    matrices = [pose.round(9).tolist() for pose in poses]
    frames = [{"file_path": f"./{split}/r_{i}", "transform_matrix": matrix} for i, matrix in enumerate(matrices)]
    text = json.dumps({"camera_angle_x": FIELD_OF_VIEW, "frames": frames}, indent=1)
    (out / f"transforms_{split}.json").write_text(text + "\n")
    return poses


def main() -> None:
    """Read the command line, then render what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--size", type=int, default=400, help="pixels on a side")
    parser.add_argument("--samples", type=int, default=36, help="paths a pixel")
    parser.add_argument("--seed", type=int, default=1, help="of the plant and of the paths")
    parser.add_argument("--views", type=int, help="stop after this many new views")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    drjit.set_thread_count(arguments.threads)
    os.environ["OIDN_NUM_THREADS"] = str(arguments.threads)  # read when the first picture is denoised
    arguments.out.mkdir(parents=True, exist_ok=True)
    jobs = []
    for split, count in SPLITS.items():
        (arguments.out / split).mkdir(exist_ok=True)
        for index, pose in enumerate(write_transforms(arguments.out, split, count)):
            jobs.append((arguments.out / split / f"r_{index}.png", pose, arguments.seed + len(jobs)))
    missing = [job for job in jobs if not job[0].exists()]
    scene = build_scene(arguments.seed)
    for path, pose, seed in missing[: arguments.views]:
        start = time.perf_counter()
        save_png(path, render_view(scene, pose, arguments.size, arguments.samples, seed))
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB  {time.perf_counter() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
