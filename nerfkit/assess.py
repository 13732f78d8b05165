"""Judge a run: render its held-out views, score them, write ``metrics.json`` and ``report.html``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from nerfkit.charts import Rig
from nerfkit.evaluate import Cost, Setting, metrics_record, score_images
from nerfkit.fields.bias import active_shares
from nerfkit.fields.hash import HashField
from nerfkit.looks import look
from nerfkit.packed import PackedRun, open_run
from nerfkit.pictures import View
from nerfkit.render import Model, Renderer, background_color, render_image
from nerfkit.report import write_report
from nerfkit.run import Checkpoint, Run, RunError
from nerfkit.sampling.stepping import places_in
from nerfkit.scene import Scene, SceneError, load_scene
from nerfkit.tiles import Tiles, load, parts_of

ViewsFn = Callable[[list[int]], Iterable[int]]
"""Passes the indices of views through, one when the one before is done: the place for a progress bar."""


def scene_of(run: Run, path: Path | None = None, as_found: bool = False) -> Scene:
    """The scene that a run was trained on, in the size that it saw, with the poses that the training refined.

    Args:
        run: the run; it knows where its scene lay.
        path: where the scene is now; None looks where it was.
        as_found: leave the poses as the scene's files have them.

    Raises RunError where the scene is not found, or is no longer the one that the run has seen; SceneError where it
    cannot be read.
    """
    root = path or run.find_scene()
    scene = load_scene(root, run.config.data)
    if scene.fingerprint != run.provenance["scene"]["fingerprint"]:
        raise RunError(f"{run.path}: {root} is not its scene, or was changed since (its fingerprint is another)")
    return scene if as_found else refined(run, scene)


def refined(run: Run, scene: Scene) -> Scene:
    """A run's scene, its training views at the poses of the newest checkpoint, if the training refines them.

    A run that began with another's model has the poses that this one was left with.
    """
    if run.config.train.moves_cameras and run.has_checkpoint:
        return scene.with_poses(run.load_checkpoint().optimizer["poses.c2w"])
    if "poses" in run.provenance:
        return scene.with_poses(torch.tensor(run.provenance["poses"]))
    return scene


def backdrop(scene: Scene) -> str:
    """What pictures of a scene are blended over: white for a scene with alpha that does not say otherwise."""
    if scene.has_sky:
        return "sky"
    return scene.background if scene.background in ("white", "black") else "white"


def truth(scene: Scene, view: int, background: str) -> Float[Tensor, "h w 3"]:
    """A photograph as RGB in [0, 1], blended over the named colour where it is transparent."""
    picture = torch.from_numpy(np.ascontiguousarray(scene.images[view])).float() / 255
    if picture.shape[-1] == 3:
        return picture
    alpha = picture[..., 3:]
    return picture[..., :3] * alpha + background_color(background).cpu() * (1 - alpha)


def cost_of(run: Run, checkpoint: Checkpoint) -> Cost:
    """What a training took, as its checkpoint tells."""
    done = checkpoint.state["train"]
    return Cost(
        train_seconds=float(done["seconds"]),
        n_steps=int(done["n_steps"]),
        rays_per_second=done["n_rays"] / max(done["seconds"], 1e-9),
        train_samples_per_ray=done["n_samples"] / max(done["n_rays"], 1),
        peak_memory_bytes=int(done["peak_memory_bytes"]),
        model_bytes=checkpoint.model_bytes,
        device=run.provenance["device"],
    )


def whole_cost(run: Run) -> Cost:
    """What a training took, that of all its tiles together if it has some. Raises RunError where one has no checkpoint.

    Rates are means over the seconds and the rays of all; the memory is that of the largest.
    """
    costs = [cost_of(part, part.load_checkpoint()) for part in parts_of(run)]
    if len(costs) == 1:
        return costs[0]
    seconds = sum(cost.train_seconds for cost in costs)
    n_rays = sum(cost.rays_per_second * cost.train_seconds for cost in costs)
    n_samples = sum(cost.train_samples_per_ray * cost.rays_per_second * cost.train_seconds for cost in costs)
    return Cost(
        train_seconds=seconds,
        n_steps=sum(cost.n_steps for cost in costs),
        rays_per_second=n_rays / max(seconds, 1e-9),
        train_samples_per_ray=n_samples / max(n_rays, 1.0),
        peak_memory_bytes=max(cost.peak_memory_bytes for cost in costs),
        model_bytes=sum(cost.model_bytes for cost in costs),
        device=costs[0].device,
    )


def rig_of(scene: Scene) -> Rig:
    """The cameras of a scene and the box of its model, for the report's drawing."""
    cameras = scene.cameras
    split = {view: name for name in ("test", "val", "train") for view in scene.splits[name]}
    shown = sorted(split)
    width = float(cameras.width[0])
    return Rig(
        c2w=cameras.c2w[shown].cpu().numpy(),
        aabb=np.asarray(scene.frame.aabb, dtype=np.float32),
        splits=[split[view] for view in shown],
        fov_x=math.degrees(2 * math.atan(width / 2 / float(cameras.fl_x[0]))),
        aspect=width / float(cameras.height[0]),
    )


def evaluate_run(run: Run, scene: Scene, split: str = "test", views_fn: ViewsFn = iter) -> dict[str, Any]:
    """Score a run on the views of a split, write what was found, and return it.

    The test split goes into ``metrics.json`` and the report; another one into ``metrics-<split>.json`` alone.

    Args:
        run: a run with a checkpoint.
        scene: its scene (`scene_of`).
        split: ``test``, ``val`` or ``train``.
        views_fn: may show how far it is.

    Raises RunError where the split is empty or there is no whole checkpoint.
    """
    views = scene.splits.get(split, [])
    if not views:
        filled = ", ".join(name for name, rows in scene.splits.items() if rows)
        raise RunError(f"{run.path}: its scene has no {split} views (it has {filled}), so there is nothing to score")
    background, model = backdrop(scene), load(run)

    counts: dict[str, float] = {}

    def pairs() -> Iterator[tuple[str, Tensor, Tensor]]:
        for view in views_fn(views):
            seen, name = render_image(model, scene.cameras, view, background), scene.image_names[view]
            counts[name] = seen.n_samples / seen.counts.numel()
            yield name, seen.rgb, truth(scene, view, background)

    masks = {} if scene.masks is None else {scene.image_names[view]: scene.masks[view] for view in views}
    scores = _with_samples(score_images(pairs(), masks=masks), counts) | {"cells": cells_of(model)}
    if run.config.field.bias_init and isinstance(model, Model):
        scores["active_neurons"] = active_neurons(model)
    masked = any(not mask.all() for mask in masks.values())
    setting = Setting(background=background, split=split, split_rule=scene.split_rule, masked=masked)
    record = metrics_record(scores, setting, whole_cost(run), run.config)
    if split != "test":
        run.write_json(f"metrics-{split}.json", record)
        return record
    run.write_json("metrics.json", record)
    view_of = {scene.image_names[view]: view for view in views}

    def shown(name: str) -> View:
        view = view_of[name]
        seen = render_image(model, scene.cameras, view, background)
        cells = look(model, scene.cameras[[view]], "occupancy").picture / 255.0
        return View(seen.rgb, truth(scene, view, background), cells, seen.counts)

    write_report(run, shown, rig_of(scene))
    return record


def cells_of(model: Model | Tiles) -> dict[str, Any]:
    """What the sampler of a model knows: its kind, cells along a side, levels, share occupied, bytes of the bits.

    Of tiles the mean share, and the bytes of all.
    """
    models = model.models if isinstance(model, Tiles) else (model,)
    with torch.no_grad():
        each = [one.sampler.cells() for one in models]
    return {
        "kind": models[0].config.sampler.kind,
        "resolution": each[0].stepping.resolution,
        "n_levels": each[0].stepping.n_levels,
        "occupied": fmean(float(cells.occupied.float().mean()) for cells in each),
        "bytes": sum(cells.bits.numel() * cells.bits.element_size() for cells in each),
    }


def active_neurons(model: Model, n_places: int = 1 << 14) -> dict[str, dict[str, list[float]]]:
    """Shares of the hidden neurons that are active, before the training and now, of each network and layer: what
    `field.bias_init` sets. In the mean over places in occupied cells, seen from anywhere."""
    cells, generator = model.sampler.cells(), torch.Generator().manual_seed(0)
    occupied = cells.occupied.reshape(-1).nonzero()[:, 0].cpu()
    if len(occupied) == 0:
        return {}
    picked = occupied[torch.randint(len(occupied), (n_places,), generator=generator)]
    within = torch.rand(n_places, 3, generator=generator)
    positions = places_in(picked, within, cells.stepping).to(model.device)
    rays_d = normalize(torch.randn(n_places, 3, generator=generator), dim=1).to(model.device)
    untrained = HashField(model.config.field, model.device, model.config.train.seed, model.frame.n_levels)
    each = {"start": untrained, "end": model.field}
    return {when: active_shares(field, positions, rays_d) for when, field in each.items()}


def _with_samples(scores: dict[str, Any], counts: dict[str, float]) -> dict[str, Any]:
    """Scores with the samples that a ray reached, in the mean of each view and of all of them."""
    per_image = [{**record, "samples_per_ray": counts[record["name"]]} for record in scores["per_image"]]
    mean = fmean(record["samples_per_ray"] for record in per_image)
    return {**scores, "samples_per_ray": mean, "per_image": per_image}


def pictures_of(
    folders: Sequence[Path],
) -> tuple[Callable[[Run, str], Tensor] | None, Callable[[str], Tensor] | None, str]:
    """Functions that give the render of a run's view, and the view's truth, for runs of one scene.

    Returns None for both, and the reason, where the runs are not of one scene, or it is not there.
    """
    runs = [open_run(folder) for folder in folders]
    if len({run.provenance["scene"]["fingerprint"] for run in runs}) > 1:
        return None, None, "the runs are not of one scene"
    try:
        # A file does not know where its scene is: the runs beside it do.
        known = next((run.find_scene() for run in runs if not isinstance(run, PackedRun)), None)
        packed = {run.path: known if isinstance(run, PackedRun) else None for run in runs}
        seen = {run.path: (scene_of(run, packed[run.path]), load(run)) for run in runs}
    except (RunError, SceneError) as error:
        return None, None, str(error)
    first = seen[runs[0].path][0]
    background = backdrop(first)

    def view(run: Run, name: str) -> Tensor:
        scene, model = seen[run.path]
        return _picture(model, scene, scene.image_names.index(name), background)

    return view, lambda name: truth(first, first.image_names.index(name), background), ""


def _picture(model: Renderer, scene: Scene, view: int, background: str) -> Float[Tensor, "h w 3"]:
    return render_image(model, scene.cameras, view, background).rgb.cpu()
