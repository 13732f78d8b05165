"""What is exported of a run, judged as another program would see it.

    python tools/bench/exports.py RUN [--views 25] [--resolution 256] [--out FOLDER]

Two JSON lines. The mesh is written as a watertight GLB, read back by trimesh, and its triangles are painted as the
held-out cameras see them: their silhouettes against the field's own (opacity above a half) and, where the photographs
have alpha, against those. The cameras are written as transforms.json and COLMAP text, read back as a scene, and a view
is rendered from each.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch
import trimesh
from record import record

from nerfkit.assess import backdrop, scene_of
from nerfkit.cameras import Cameras
from nerfkit.export import write_cameras, write_mesh
from nerfkit.kernels.launch import prepare_cpu
from nerfkit.mesh import MeshOptions, extract_mesh
from nerfkit.render import Model, load_model, render_image
from nerfkit.run import Run
from nerfkit.scene import Scene, load_scene

_FRACTION = 6
"""Bits below one pixel of the corners that are painted."""


def silhouette(mesh: trimesh.Trimesh, cameras: Cameras, view: int) -> np.ndarray:
    """Whether each pixel's place lies behind some triangle, (height, width)."""
    corners = torch.from_numpy(np.asarray(mesh.vertices)).float()
    xy, _ = cameras.project(view, corners)
    height, width = int(cameras.height[view]), int(cameras.width[view])
    picture = np.zeros((height, width), np.uint8)
    # The painter counts from the first pixel's centre; what the lens cannot see is NaN.
    seen = np.isfinite(xy.numpy()).all(1)[mesh.faces].all(1)
    places = (xy.nan_to_num().numpy() - 0.5).clip(-1e4, 1e4) * 2**_FRACTION
    for triangle in places.round().astype(np.int32)[mesh.faces[seen]]:
        cv2.fillConvexPoly(picture, triangle, 255, cv2.LINE_8, _FRACTION)
    return picture > 0


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two masks."""
    return float((one & other).sum() / max((one | other).sum(), 1))


def judge_mesh(model: Model, scene: Scene, views: list[int], resolution: int, out: Path) -> None:
    """Print what trimesh says of the mesh, and how its silhouettes compare."""
    made = extract_mesh(model, scene.cameras[scene.splits["train"]], MeshOptions(resolution, watertight=True))
    write_mesh(made, out / "mesh.glb")
    mesh = trimesh.load(out / "mesh.glb", force="mesh")
    by_field, by_alpha = [], []
    for view in views:
        painted = silhouette(mesh, scene.cameras, view)
        by_field.append(overlap(painted, render_image(model, scene.cameras, view).opacity.numpy() > 0.5))
        if scene.images[view].shape[2] == 4:
            by_alpha.append(overlap(painted, scene.images[view][..., 3] > 127))
    figures = {"vertices": len(mesh.vertices), "faces": len(mesh.faces), "watertight": bool(mesh.is_watertight)}
    figures |= {"consistent": bool(mesh.is_winding_consistent), "volume": float(mesh.volume), "views": len(views)}
    figures |= {"iou_field": {"mean": float(np.mean(by_field)), "min": min(by_field)}}
    if by_alpha:
        figures |= {"iou_photographs": {"mean": float(np.mean(by_alpha)), "min": min(by_alpha)}}
    record("mesh", scene=scene.name, resolution=resolution, bytes=(out / "mesh.glb").stat().st_size, **figures)


def judge_cameras(run: Run, model: Model, scene: Scene, view: int, out: Path) -> None:
    """Print the largest difference of a picture from a camera that was written and read back, either way."""
    write_cameras(scene, out / "cameras")
    wanted = render_image(model, scene.cameras, view, backdrop(scene)).rgb
    name, found = Path(scene.image_names[view]).name, {}
    for form in ("transforms.json", "COLMAP text"):
        folder = out / form.split()[0]
        if form == "transforms.json":
            again = load_scene(out / "cameras" / form, run.config.data)
        else:
            (folder / "sparse").mkdir(parents=True)
            for file in (out / "cameras").glob("*.txt"):
                (folder / "sparse" / file.name).write_bytes(file.read_bytes())
            (folder / "images").symlink_to(scene.root.resolve())
            again = load_scene(folder, run.config.data)
        number = [Path(other).name for other in again.image_names].index(name)
        picture = render_image(model, again.cameras, number, backdrop(scene)).rgb
        found[form] = float((picture - wanted).abs().max())
    record("cameras", scene=scene.name, view=scene.image_names[view], largest_difference=found)


def main() -> None:
    """Judge what is exported of one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--views", type=int, default=25)
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--out", type=Path, help="keep the files here")
    options = parser.parse_args()
    prepare_cpu()
    run = Run.open(options.run)
    scene, model = scene_of(run), load_model(run)
    views = scene.splits["test"] or scene.splits["train"]
    views = views[:: max(1, len(views) // options.views)][: options.views]
    with tempfile.TemporaryDirectory() as scratch:
        out = options.out or Path(scratch)
        out.mkdir(parents=True, exist_ok=True)
        judge_mesh(model, scene, views, options.resolution, out)
        judge_cameras(run, model, scene, views[0], out)


if __name__ == "__main__":
    main()
