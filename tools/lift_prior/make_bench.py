"""Objects with known 3D that the prior of `nerfkit lift` never saw, for `nerfkit lift-bench`.

    PYTHONPATH=tools python -m lift_prior.make_bench OUT --furniture FOLDER [--part test] [--hard] [--size 128]

FOLDER holds the libraries (.sh3f) of Debian's package sweethome3d-furniture. OUT gets a folder an object: input.png,
what is lifted (straight alpha); views/000.png and on, what it looks like from elsewhere; input_depth.png (16 bits, see
cameras.json), for rows that are told the truth; surface.npy, 10,000 points (n, 3) of its surface; cameras.json. The
object lies in the unit ball, +y is up, angles are in degrees. The picture is taken from azimuth 0, elevation 20,
through 40 degrees, the views from 15 azimuths at the same height and from 4 at each of -10 and 50. With --hard the
picture's elevation is drawn from 0 to 45 and its angle from 25 to 60; the views stay. What is chosen or tuned is looked
at on the part validation.
"""

from __future__ import annotations

import argparse
import json
import zlib
from pathlib import Path

import cv2
import numpy as np
import trimesh
from lift_prior import furniture
from lift_prior.mesh import Mesh
from lift_prior.views import Light, Stage
from rich.progress import track

from nerfkit.lift.scene import pose_of

_LIGHT = Light((-0.4, 1.0, 0.8), 0.8, 0.15)
_FINE = 4
_POINTS = 10_000


def poses(chance: np.random.Generator | None) -> list[dict[str, float]]:
    """The picture's, then the views', in degrees."""

    def pose(azimuth: float, elevation: float, fov: float = 40.0) -> dict[str, float]:
        return {"azimuth": azimuth, "elevation": elevation, "fov": fov, "radius": 1 / np.sin(np.radians(fov) / 2)}

    first = pose(0, 20) if chance is None else pose(0, chance.uniform(0, 45), chance.uniform(25, 60))
    ring = [pose(a, 20) for a in np.linspace(0, 360, 16, endpoint=False)[1:]]
    return [first, *ring, *[pose(a, e) for e in (-10, 50) for a in (0, 90, 180, 270)]]


def write(folder: Path, mesh: Mesh, title: str, size: int, chance: np.random.Generator | None) -> None:
    """All that is known of one object."""
    (folder / "views").mkdir(parents=True, exist_ok=True)
    stage, every = Stage(mesh), poses(chance)
    for i, pose in enumerate(every):
        c2w = pose_of(pose["azimuth"], pose["elevation"], pose["radius"])
        rgba, depth, _ = stage.look(c2w, np.radians(pose["fov"]), size, _LIGHT, _FINE)
        rgba = np.round(255 * rgba).astype(np.uint8)[..., [2, 1, 0, 3]]
        if i == 0:
            cv2.imwrite(str(folder / "input.png"), rgba)
            near, far = pose["radius"] - 1, pose["radius"] + 1
            z = np.where(depth > 0, 1 + 65534 * (depth - near) / (far - near), 0)
            cv2.imwrite(str(folder / "input_depth.png"), np.round(z).astype(np.uint16))
        else:
            cv2.imwrite(str(folder / "views" / f"{i - 1:03d}.png"), rgba)
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    points, _ = trimesh.sample.sample_surface(solid, _POINTS, seed=0)
    np.save(folder / "surface.npy", points.astype(np.float32))
    about = {"title": title, "depth": "z = near + (v - 1) / 65534 * (far - near); 0 where nothing is"}
    about |= {"near": every[0]["radius"] - 1, "far": every[0]["radius"] + 1, "input": every[0], "views": every[1:]}
    (folder / "cameras.json").write_text(json.dumps(about, indent=1))


def main() -> None:
    """Make what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--furniture", type=Path, default=Path("/usr/share/sweethome3d/furniture"))
    parser.add_argument("--part", choices=("test", "validation"), default="test")
    parser.add_argument("--hard", action="store_true")
    parser.add_argument("--size", type=int, default=128)
    args = parser.parse_args()
    for entry in track(furniture.split(furniture.catalogue(args.furniture))[args.part]):
        chance = np.random.default_rng(zlib.crc32(entry.name.encode())) if args.hard else None
        write(args.out / entry.name, furniture.load(args.furniture, entry), entry.title, args.size, chance)


if __name__ == "__main__":
    main()
