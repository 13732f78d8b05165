"""Pictures for the prior of `nerfkit lift` to learn from: of furniture and of what is drawn by chance.

    PYTHONPATH=tools python -m lift_prior.make_views OUT --furniture FOLDER [--drawn 1500] [--views 20] [--size 128]

FOLDER holds the libraries (.sh3f) of Debian's package sweethome3d-furniture, /usr/share/sweethome3d/furniture once it
is installed. In OUT a set is a folder (train, drawn, validation) of arrays: rgba.npy (objects, views, size, size, 4)
uint8 with straight alpha, depth.npy float16 (z; 0 where nothing is), normal.npy int8 (world, 127 times), cameras.npy
(azimuth, elevation, field of view, radius; radians), and names.json. Objects that are there are not made again.
"""

from __future__ import annotations

import argparse
import json
import math
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from lift_prior import furniture, procedural
from lift_prior.mesh import Mesh
from lift_prior.views import Light, Stage
from numpy.lib.format import open_memmap
from rich.progress import track

from nerfkit.lift.scene import pose_of


def cameras(chance: np.random.Generator, n: int) -> np.ndarray:
    """(n, 4) of azimuth, elevation, field of view, radius: all around, a third of them in front, few from far above."""
    azimuth = chance.uniform(-np.pi, np.pi, n)
    azimuth[: n // 3] = chance.normal(0, np.radians(30), n // 3)
    elevation = np.radians(np.where(chance.random(n) < 0.5, chance.normal(20, 8, n), chance.uniform(-12, 60, n)))
    fov = np.radians(np.where(chance.random(n) < 0.4, 40.0, chance.uniform(22, 62, n)))
    radius = chance.uniform(0.93, 1.15, n) / np.sin(fov / 2)
    return np.stack([azimuth, elevation, fov, radius], 1)


def light(chance: np.random.Generator) -> Light:
    """From above and in front, more or less hard."""
    return Light(tuple(chance.normal([0, 1, 0.8], [0.8, 0.4, 0.6])), chance.uniform(0.6, 1.0), chance.uniform(0, 0.3))


def make(out: Path, names: list[str], mesh_fn: Callable[[int], Mesh], n_views: int, size: int) -> None:
    """A set of objects, each under a light of its own."""
    out.mkdir(parents=True, exist_ok=True)
    shapes = {"rgba": (4,), "depth": (), "normal": (3,)}
    types = {"rgba": np.uint8, "depth": np.float16, "normal": np.int8}
    there = json.loads((out / "names.json").read_text()) if (out / "names.json").exists() else []
    if there and there != names[: len(there)]:
        raise SystemExit(f"{out}: holds other objects; remove it")
    mode = "r+" if there else "w+"
    files = {
        name: open_memmap(out / f"{name}.npy", mode, types[name], (len(names), n_views, size, size, *shape))
        for name, shape in shapes.items()
    }
    poses = open_memmap(out / "cameras.npy", mode, np.float32, (len(names), n_views, 4))
    for i in track(range(len(there), len(names)), description=out.name):
        chance = np.random.default_rng(zlib.crc32(names[i].encode()))
        stage, lit, poses[i] = Stage(mesh_fn(i)), light(chance), cameras(chance, n_views)
        for v, (azimuth, elevation, fov, radius) in enumerate(poses[i].tolist()):
            rgba, depth, normal = stage.look(
                pose_of(math.degrees(azimuth), math.degrees(elevation), radius), fov, size, lit
            )
            files["rgba"][i, v] = np.round(255 * rgba)
            files["depth"][i, v], files["normal"][i, v] = depth, np.round(127 * normal)
        there.append(names[i])
        if len(there) % 20 == 0 or len(there) == len(names):
            (out / "names.json").write_text(json.dumps(there))


def main() -> None:
    """Make what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--furniture", type=Path, default=Path("/usr/share/sweethome3d/furniture"))
    parser.add_argument("--drawn", type=int, default=1500)
    parser.add_argument("--views", type=int, default=20)
    parser.add_argument("--size", type=int, default=128)
    args = parser.parse_args()
    parts = furniture.split(furniture.catalogue(args.furniture))
    for part in ("validation", "train"):
        entries = parts[part]
        make(
            args.out / part,
            [one.name for one in entries],
            lambda i, entries=entries: furniture.load(args.furniture, entries[i]),
            args.views,
            args.size,
        )
    names = [f"drawn-{i}" for i in range(args.drawn)]
    make(args.out / "drawn", names, procedural.draw, args.views, args.size)


if __name__ == "__main__":
    main()
