"""From parts and a light to pictures: Mitsuba traces the paths, Open Image Denoise smooths the light."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import mitsuba as mi
import numpy as np
import pyoidn
import scene_shapes as shapes
from scene_paints import Paint
from scene_parts import Part
from scene_shapes import Surface

mi.set_variant("scalar_rgb")


@dataclass(frozen=True)
class Camera:
    """What all views of a scene have in common."""

    field_of_view: float
    """Radians, across."""
    exposure: float
    depth: int = 8
    """Bounces a path may have."""
    far: float = 100.0
    """Nothing is seen beyond, in units."""
    backdrop: bool = False
    """Whether the surroundings are seen, not only their light."""


@dataclass(frozen=True)
class Stage:
    """A scene as Mitsuba has it; ``paint``, if any, is the same without light, each surface shining with its colour."""

    lit: mi.Scene
    paint: mi.Scene | None


# ---- mitsuba


def bitmap(values: np.ndarray, channels: int) -> dict:
    """Mitsuba texture of linear ``values`` (height, width[, 3])."""
    data = np.ascontiguousarray(values.reshape(*values.shape[:2], channels), dtype=np.float32)
    return {"type": "bitmap", "bitmap": mi.Bitmap(data), "raw": True}


def painted(part: Part, surface: Surface) -> Paint:
    """The textures of ``surface``."""
    height, width = part.texture
    v, u = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    return part.paint(surface.enlarged(height, width), np.stack([u, v], axis=-1))


def material(part: Part, paint: Paint, base: mi.Texture) -> dict:
    """Mitsuba material of a surface in ``paint``, whose colour is ``base``."""
    rough = np.broadcast_to(paint.rough, part.texture)
    look = {"type": "principled", "base_color": base, "roughness": bitmap(rough, 1)}
    if part.glow:
        return look | {"type": "principledthin", "diff_trans": part.glow}
    look |= {"metallic": bitmap(np.broadcast_to(paint.metal, part.texture), 1), "specular": 0.5}
    look |= {"clearcoat": part.coat, "clearcoat_gloss": 0.92}
    if np.isscalar(paint.rough) and paint.rough == 1:
        look = {"type": "diffuse", "reflectance": base}
    if paint.relief is not None:
        look = {"type": "bumpmap", "heights": bitmap(paint.relief, 1), "bsdf": look}
    return {"type": "twosided", "bsdf": look}


def build_stage(parts: list[Part], surroundings: np.ndarray, quick: bool = False) -> Stage:
    """All ``parts``, lit by ``surroundings`` (height, 2 height, 3), linear; its columns go by compass from +y to +x.

    ``quick`` builds the stage's ``paint``, too. Mitsuba's own way to an albedo takes time in proportion to the number
    of meshes: too much for a scene of a thousand.
    """
    # Mitsuba keeps its surroundings y up; ours are z up.
    upright = mi.ScalarTransform4f().rotate([1, 0, 0], 90)
    sky = {"type": "envmap", "bitmap": mi.Bitmap(surroundings.astype(np.float32)), "to_world": upright}
    lit, shining = {"type": "scene", "sky": sky}, {"type": "scene"}
    with tempfile.TemporaryDirectory() as folder:
        for part in parts:
            groups = [part.surfaces] if part.share else [[surface] for surface in part.surfaces]
            for index, group in enumerate(groups):
                name = f"{part.name}-{index}"
                path = Path(folder) / f"{name}.ply"
                shapes.write_ply(path, group)
                paint = painted(part, group[0])
                base = mi.load_dict(bitmap(paint.base, 3))
                lit[name] = {"type": "ply", "filename": str(path), "bsdf": material(part, paint, base)}
                if quick:
                    if part.glow:  # a sheet is seen from behind as well, where nothing shines
                        path = path.with_suffix(".both.ply")
                        shapes.write_ply(path, group + [shapes.reverse(surface) for surface in group])
                    glow = {"type": "area", "radiance": base}
                    shining[name] = {"type": "ply", "filename": str(path), "emitter": glow}
        return Stage(mi.load_dict(lit), mi.load_dict(shining) if quick else None)


def render_view(
    stage: Stage, pose: np.ndarray, size: tuple[int, int], samples: int, seed: int, camera: Camera
) -> np.ndarray:
    """One picture (height, width, 4), 8-bit sRGB with straight alpha: traced, denoised, tone mapped.

    ``pose`` (4, 4) is camera to world with OpenGL axes; ``size`` is (width, height). The denoiser is told each pixel's
    albedo and, where that costs little, its normal, so it smooths the light and leaves the paint alone.
    """
    to_world = mi.ScalarTransform4f(pose @ np.diag([-1.0, 1.0, -1.0, 1.0]))  # Mitsuba looks along +z, x to the left
    # A box: the denoiser expects the noise of one pixel to know nothing of the next one's.
    film = {"type": "hdrfilm", "width": size[0], "height": size[1], "pixel_format": "rgba", "rfilter": {"type": "box"}}
    sensor = {"type": "perspective", "fov": np.degrees(camera.field_of_view), "fov_axis": "x", "to_world": to_world}
    sensor |= {"near_clip": 0.1, "far_clip": camera.far, "film": film}

    def trace(scene: mi.Scene, integrator: dict, count: int) -> np.ndarray:
        eye = mi.load_dict(sensor | {"sampler": {"type": "multijitter", "sample_count": count}})
        picture = mi.render(scene, sensor=eye, integrator=mi.load_dict(integrator), seed=seed)
        return np.nan_to_num(np.array(picture, dtype=np.float32))

    path = {"type": "path", "max_depth": camera.depth, "hide_emitters": not camera.backdrop}
    traced = trace(stage.lit, path, samples)
    light, alpha = np.minimum(traced[..., :3], 40.0), traced[..., 3]
    if stage.paint is None:
        # The guides have no light in them, so far fewer samples make them clean.
        aovs = {"type": "aov", "aovs": "albedo:albedo,normal:sh_normal"}
        guides = trace(stage.lit, aovs, max(12, samples // 4))[..., -6:]
        albedo, normal = np.clip(guides[..., :3], 0, 1), np.clip(guides[..., 3:], -1, 1)
    else:
        shine = trace(stage.paint, {"type": "path", "max_depth": 1}, 16)[..., :3]
        albedo, normal = np.clip(shine, 0, 1), None
    clean = pyoidn.denoise(light, albedo, normal, hdr=True, clean_aux=True)
    return finish(clean, np.clip(alpha, 0, 1), camera.exposure)


def finish(light: np.ndarray, alpha: np.ndarray, exposure: float) -> np.ndarray:
    """8-bit RGBA (h, w, 4) of linear ``light`` (h, w, 3) premultiplied by ``alpha`` (h, w).

    Linear up to 0.6, then a shoulder that never clips, so highlights keep their colour. Where alpha is 0 colour is 0,
    which both compresses and tells no lies.
    """
    colour = np.maximum(light, 0) / np.maximum(alpha, 1e-3)[..., None] * exposure
    knee = 0.6
    colour = np.where(colour < knee, colour, knee + (1 - knee) * (1 - np.exp(-(colour - knee) / (1 - knee))))
    srgb = np.where(colour <= 0.0031308, 12.92 * colour, 1.055 * np.maximum(colour, 1e-9) ** (1 / 2.4) - 0.055)
    opaque = np.round(alpha * 255)
    rgb = np.round(np.clip(srgb, 0, 1) * 255) * (opaque > 0)[..., None]
    return np.concatenate([rgb, opaque[..., None]], axis=-1).astype(np.uint8)
