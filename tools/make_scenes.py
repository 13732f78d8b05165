"""Make a bundled scene, modelled, painted and path traced here from nothing: a desk still life or a town courtyard.

    python tools/make_scenes.py armillary --out scenes/armillary
    python tools/make_scenes.py courtyard --out scenes/courtyard

``armillary`` has the Blender-synthetic layout (``transforms_{train,val,test}.json``; RGBA PNGs with straight alpha),
``courtyard`` that of nerfstudio (one ``transforms.json`` that names its splits; opaque JPEGs). Both have OpenGL camera
axes, z up. Views already on disk are skipped, so it can be stopped.
It needs ``mitsuba``, ``pyoidn`` (with ``cffi``), ``pyoxipng``, ``opencv-python`` and ``numpy``, all from PyPI.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import drjit
import mitsuba as mi
import numpy as np
import oxipng
import scene_light as light
import scene_orbit as orbit
import scene_walk as walk
from scene_render import Camera, Stage, build_stage, render_view
from scene_things import still_life
from scene_yard import courtyard

STILL = Camera(field_of_view=0.6911112070083618, exposure=0.82)  # as wide as the NeRF synthetic scenes
STREET = Camera(field_of_view=np.radians(72), exposure=0.9, depth=4, far=1000.0, backdrop=True)
JPEG_QUALITY = 87  # 136 pictures in less than 9 MB


@dataclass(frozen=True)
class Job:
    """A picture to be made, its pose (4, 4) and the seed of its paths."""

    path: Path
    pose: np.ndarray
    seed: int


# ---- files


def encoded(path: Path, image: np.ndarray, settings: list[int]) -> bytes:
    """``image`` (h, w, c), BGR or BGRA, in the format of the path's suffix."""
    ok, data = cv2.imencode(path.suffix, image, settings)
    if not ok:
        raise RuntimeError(f"{path}: OpenCV could not encode the picture")
    return data.tobytes()


def write_aside(path: Path, data: bytes) -> None:
    """Write a file so that it appears whole or not at all."""
    aside = path.with_suffix(".part")
    aside.write_bytes(data)
    aside.replace(path)


def save_png(path: Path, image: np.ndarray) -> None:
    """Write RGBA ``image`` (h, w, 4) as small as PNG goes; the file appears whole or not at all."""
    data = encoded(path, cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA), [])
    write_aside(path, oxipng.optimize_from_memory(data, level=4))


def save_jpeg(path: Path, image: np.ndarray) -> None:
    """Write the colours of RGBA ``image`` (h, w, 4); the file appears whole or not at all."""
    settings = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1, cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    write_aside(path, encoded(path, cv2.cvtColor(image, cv2.COLOR_RGBA2BGR), settings))


def write_splits(out: Path, split: str, count: int) -> list[np.ndarray]:
    """Write ``transforms_<split>.json`` and return its poses (4, 4)."""
    poses = [orbit.look_at(*direction) for direction in orbit.directions(split, count)]
    matrices = [pose.round(9).tolist() for pose in poses]
    frames = [{"file_path": f"./{split}/r_{i}", "transform_matrix": matrix} for i, matrix in enumerate(matrices)]
    text = json.dumps({"camera_angle_x": STILL.field_of_view, "frames": frames}, indent=1)
    (out / f"transforms_{split}.json").write_text(text + "\n")
    return poses


def write_transforms(out: Path, shots: list[walk.Shot], size: tuple[int, int]) -> None:
    """Write ``transforms.json`` with the lens, all poses, and the names of the training and of the test views."""
    focal = size[0] / 2 / np.tan(STREET.field_of_view / 2)
    lens = {"camera_model": "OPENCV", "w": size[0], "h": size[1], "cx": size[0] / 2, "cy": size[1] / 2}
    lens |= {"fl_x": focal, "fl_y": focal, "k1": 0.0, "k2": 0.0, "p1": 0.0, "p2": 0.0}
    frames = [{"file_path": f"images/{s.name}.jpg", "transform_matrix": s.pose.tolist()} for s in shots]
    lists = {
        f"{split}_filenames": [frame["file_path"] for frame, s in zip(frames, shots, strict=True) if s.test == test]
        for split, test in (("train", False), ("test", True))
    }
    (out / "transforms.json").write_text(json.dumps(lens | lists | {"frames": frames}, indent=1) + "\n")


# ---- scenes


def prepare_armillary(arguments: argparse.Namespace) -> tuple[Stage, list[Job]]:
    """The still life, its transforms written."""
    jobs = []
    for split, count in orbit.SPLITS.items():
        (arguments.out / split).mkdir(exist_ok=True)
        for index, pose in enumerate(write_splits(arguments.out, split, count)):
            jobs.append(Job(arguments.out / split / f"r_{index}.png", pose, arguments.seed + len(jobs)))
    return build_stage(still_life(arguments.seed), light.studio()), jobs


def prepare_courtyard(arguments: argparse.Namespace) -> tuple[Stage, list[Job]]:
    """The courtyard, its cameras clear of everything, its transforms written."""
    stage = build_stage(courtyard(arguments.seed), light.sky(), quick=True)

    def distance(place: np.ndarray, way: np.ndarray) -> float:
        return stage.lit.ray_intersect_preliminary(mi.Ray3f(place, way)).t

    shots = walk.shots(distance)
    (arguments.out / "images").mkdir(exist_ok=True)
    write_transforms(arguments.out, shots, arguments.size)
    jobs = [Job(arguments.out / f"images/{s.name}.jpg", s.pose, arguments.seed + k) for k, s in enumerate(shots)]
    return stage, jobs


@dataclass(frozen=True)
class Recipe:
    """How a scene is made; ``size`` (pixels across) and ``samples`` (paths a pixel) unless told otherwise.

    ``shape`` is height over width.
    """

    prepare: Callable[[argparse.Namespace], tuple[Stage, list[Job]]]
    camera: Camera
    save: Callable[[Path, np.ndarray], None]
    size: int
    samples: int
    shape: tuple[int, int] = (1, 1)


RECIPES = {
    "armillary": Recipe(prepare_armillary, STILL, save_png, 400, 36),
    "courtyard": Recipe(prepare_courtyard, STREET, save_jpeg, 640, 4, (9, 16)),
}


def main() -> None:
    """Read the command line, then render what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scene", choices=sorted(RECIPES))
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--size", type=int, help="pixels across")
    parser.add_argument("--samples", type=int, help="paths a pixel")
    parser.add_argument("--seed", type=int, default=1, help="of what grows and of the paths")
    parser.add_argument("--views", type=int, help="stop after this many new views")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    recipe = RECIPES[arguments.scene]
    width = arguments.size or recipe.size
    arguments.size = (width, width * recipe.shape[0] // recipe.shape[1])
    samples = arguments.samples or recipe.samples
    drjit.set_thread_count(arguments.threads)
    os.environ["OIDN_NUM_THREADS"] = str(arguments.threads)  # read when the first picture is denoised
    arguments.out.mkdir(parents=True, exist_ok=True)
    stage, jobs = recipe.prepare(arguments)
    for job in [job for job in jobs if not job.path.exists()][: arguments.views]:
        start = time.perf_counter()
        recipe.save(job.path, render_view(stage, job.pose, arguments.size, samples, job.seed, recipe.camera))
        print(f"{job.path}  {job.path.stat().st_size / 1000:.0f} kB  {time.perf_counter() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
