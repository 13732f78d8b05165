"""What training loses to photographs that are off, and what wins it back: known errors are put into a scene.

    python tools/bench/misalignment.py RESULTS.jsonl SCENE... [--errors none shift] [--methods plain align]
                                       [--pixels 1] [--seconds 300 | --steps 4000] [--downscale 1] [--seeds 0]
                                       [--configs configs/default.toml configs/highres.toml]
    python tools/bench/misalignment.py RESULTS.jsonl --table

Errors are put into the training views alone, held-out views stay as they are:

- ``shift``: each photograph is moved by ``--pixels`` in a random direction of its own;
- ``pose``: each camera is turned about itself so that its picture moves by as much, and rolled by half of that at the
  picture's rim;
- ``mover``: in a third of the photographs a chequered ball is somewhere else.

The methods and presets of one call are trained in turns, seconds of one after seconds of the other, so that a slow
hour of the machine is slow for all of them. One JSON line a training is appended to RESULTS.jsonl and printed; what
stands there already is not run again. ``--table`` prints all of them, means over seeds.
"""

from __future__ import annotations

import argparse
import dataclasses
import heapq
import math
from collections.abc import Iterator, Sequence
from itertools import groupby, product
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from record import Rows, record

from nerfkit.assess import backdrop, truth
from nerfkit.config import Config, check
from nerfkit.evaluate import score_images
from nerfkit.poses import moved
from nerfkit.presets import from_dict, load_preset
from nerfkit.render import Model, render_image
from nerfkit.scene import load_scene
from nerfkit.scene.scene import Scene
from nerfkit.train.loop import fit, model_of
from nerfkit.train.progress import Report
from nerfkit.train.realign import bent

Tree = dict[str, dict[str, Any]]
METHODS: dict[str, Tree] = {
    "plain": {},
    # Rays from everywhere alike, none for where photographs show detail.
    "even": {"train": {"detail_share": 0.0}},
    # The convolutional head, on top of the networks and in place of a part of them: of fewer weights than plain.
    "conv": {"field": {"head": "deferred", "head_features": 13}},
    "narrow": {"field": {"width": 32}},
    "narrow+conv": {"field": {"width": 32, "head": "deferred", "head_width": 8}},
    # Convolutions at each sample, which only proposals place alike, and proposals without.
    "proposal": {"sampler": {"kind": "proposal"}},
    "sample": {"sampler": {"kind": "proposal"}, "field": {"head": "sample"}, "train": {"patch_share": 1.0}},
    "hf": {"train": {"high_frequency": 0.1}},
    "align": {"train": {"align": 2}},
    "align+hf": {"train": {"align": 2, "high_frequency": 0.1}},
    "conv+align": {"field": {"head": "deferred", "head_features": 13}, "train": {"align": 2}},
    "conv+align+hf": {
        "field": {"head": "deferred", "head_features": 13},
        "train": {"align": 2, "high_frequency": 0.1},
    },
    "poses": {"train": {"poses": True}},
    "realign": {"train": {"realign": 2}},
    "poses+realign": {"train": {"poses": True, "realign": 2}},
    "align+realign": {"train": {"align": 2, "realign": 2}},
}
ERRORS = ("none", "shift", "pose", "mover")
_BY_PIXELS = ("shift", "pose")
"""Errors that are the larger the more ``--pixels``."""


def with_ball(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A photograph with a chequered ball of an eighth of its height somewhere in its middle."""
    height, width = image.shape[:2]
    radius = height / 16
    cy, cx = (rng.uniform(0.3, 0.7) * n for n in (height, width))
    y, x = np.mgrid[:height, :width]
    there = (y - cy) ** 2 + (x - cx) ** 2 < radius**2
    chequer = ((y - cy) // (radius / 3) + (x - cx) // (radius / 3)) % 2
    out = np.array(image)
    out[there] = 255
    out[there, 0] = (200 * chequer[there] + 30).astype(np.uint8)
    out[there, 1:3] = 60
    return out


def disturbed(scene: Scene, error: str, pixels: float, seed: int) -> Scene:
    """A scene with an error in its training views; which, depends on the seed alone."""
    rng, views = np.random.default_rng(seed), scene.splits["train"]
    images = list(scene.images)
    if error == "shift":
        for view in views:
            angle = rng.uniform(0, 2 * math.pi)
            way = -pixels * np.array([math.cos(angle), math.sin(angle)], np.float32)
            images[view] = bent(images[view], np.broadcast_to(way, (*images[view].shape[:2], 2)))
        return dataclasses.replace(scene, images=images)
    if error == "mover":
        for view in views:
            if rng.random() < 1 / 3:
                images[view] = with_ball(images[view], rng)
        return dataclasses.replace(scene, images=images)
    if error == "pose":
        cameras = scene.cameras[torch.tensor(views)]
        angle = torch.from_numpy(rng.uniform(0, 2 * math.pi, len(views))).float()
        roll = torch.from_numpy(rng.choice([-1.0, 1.0], len(views))).float()
        rim = torch.minimum(cameras.width, cameras.height) / 2
        within = torch.stack(
            [pixels * angle.sin() / cameras.fl_y, pixels * angle.cos() / cameras.fl_x, 0.5 * pixels * roll / rim], 1
        )
        turns = torch.einsum("nij,nj->ni", cameras.c2w[:, :, :3], within)
        return scene.with_poses(moved(cameras.c2w, torch.cat([turns, torch.zeros_like(turns)], 1)))
    return scene


def train(scene: Scene, configs: Sequence[Config]) -> Iterator[dict[str, Any]]:
    """Train in turns, whichever is furthest behind; the scores of held-out views of one after the other."""
    models = [model_of(scene, config) for config in configs]
    fits = [fit(scene, config, model=model) for config, model in zip(configs, models, strict=True)]
    last: list[Report | None] = [None] * len(configs)
    behind = [(0.0, i) for i in range(len(configs))]
    while behind:
        _, i = heapq.heappop(behind)
        last[i] = next(fits[i])
        if last[i].progress < 1.0:
            heapq.heappush(behind, (last[i].progress, i))
        else:
            next(fits[i], None)
    for model, report in zip(models, last, strict=True):
        yield {**scores(scene, model), "n_steps": report.step, "seconds": report.seconds}


def scores(scene: Scene, model: Model) -> dict[str, Any]:
    """What held-out views say of a model, plain and aligned."""
    background = backdrop(scene)

    def pairs() -> Iterator[tuple[str, Any, Any]]:
        for view in scene.splits["test"]:
            yield (
                scene.image_names[view],
                render_image(model, scene.cameras, view, background).rgb,
                truth(scene, view, background),
            )

    masks = None if scene.masks is None else {scene.image_names[i]: scene.masks[i] for i in scene.splits["test"]}
    found = score_images(pairs(), masks=masks)
    n_weights = sum(p.numel() for p in [*model.field.network_parameters(), *model.field.head_parameters()])
    return {
        **{key: found[key] for key in ("psnr", "ssim", "gmsd", "high_pass")},
        **{f"aligned_{key}": value for key, value in (found["aligned"] or {}).items()},
        "network_parameters": n_weights,
    }


def config_of(preset: Path | None, *trees: Tree) -> Config:
    """A preset, or the defaults, with the settings of several trees laid over it."""
    merged = dataclasses.asdict(load_preset(preset) if preset else Config())
    for tree in trees:
        merged |= {name: merged[name] | part for name, part in tree.items()}
    return check(from_dict(Config, merged))


def table(rows: list[dict[str, Any]]) -> str:
    """Means over seeds, in Markdown; what is won over plain seed by seed, and half the spread of that."""
    heads = [
        "scene",
        "training",
        "error",
        "method",
        "PSNR",
        "aligned PSNR",
        "against plain",
        "high-pass",
        "aligned high-pass",
        "GMSD",
        "offset",
    ]
    heads += ["weights", "steps", "time"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]

    def key(row: dict[str, Any]) -> tuple[str, str, int, float, int, float, int]:
        scene, pixels = f"{row['scene']}/{row['downscale']}", row["pixels"] if row["error"] in _BY_PIXELS else 0.0
        what = ERRORS.index(row["error"]), pixels, list(METHODS).index(row["method"])
        return scene, row["config"], row["steps"], row["budget"], *what

    plain = {(key(row)[:-1], row["seed"]): row["aligned_psnr"] for row in rows if row["method"] == "plain"}
    for (scene, config, steps, budget, error, pixels, method), group in groupby(sorted(rows, key=key), key):
        each = list(group)
        mean = {name: fmean(row[name] for row in each) for name, value in each[0].items() if isinstance(value, float)}
        won = [row["aligned_psnr"] - plain.get((key(row)[:-1], row["seed"]), math.nan) for row in each]
        spread = f" ± {(max(won) - min(won)) / 2:.2f}" if len(won) > 1 else ""
        against = "" if list(METHODS)[method] == "plain" else f"{fmean(won):+.2f}{spread}"
        training = (f"{steps} steps" if steps else f"{budget:.0f} s") + (f", {Path(config).stem}" if config else "")
        wrong = ERRORS[error] + (f" {pixels:g} px" if pixels else "")
        cells = [scene, training, wrong, list(METHODS)[method], f"{mean['psnr']:.2f}"]
        cells += [f"{mean['aligned_psnr']:.2f}", against]
        cells += [f"{mean[name]:.2f}" for name in ("high_pass", "aligned_high_pass")]
        cells += [f"{mean['gmsd']:.4f}", f"{mean['aligned_offset']:.2f} px", f"{each[0]['network_parameters']}"]
        cells += [f"{fmean(row['n_steps'] for row in each):.0f}", f"{mean['seconds']:.0f} s"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Train what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("scenes", type=Path, nargs="*")
    parser.add_argument("--errors", nargs="+", choices=ERRORS, default=["shift"])
    usual = ["plain", "conv", "conv+align", "conv+align+hf"]
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=usual)
    parser.add_argument("--pixels", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--steps", type=int, default=0)
    parser.add_argument("--downscale", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--configs", type=Path, nargs="+", default=[None])
    parser.add_argument("--table", action="store_true")
    options = parser.parse_intermixed_args()
    rows = Rows(options.results)
    for path, seed, error in product(options.scenes, options.seeds, options.errors):
        kind = {"scene": path.resolve().name, "downscale": options.downscale, "error": error, "seed": seed}
        kind |= {"pixels": options.pixels, "steps": options.steps, "budget": 0 if options.steps else options.seconds}
        fixed = {"time_budget": options.seconds, "steps": options.steps, "seed": seed}
        whats, configs = [], []
        for preset, method in product(options.configs, options.methods):
            what = {**kind, "config": str(preset or ""), "method": method}
            if not rows.has(what):
                whats.append(what)
                over = {"train": fixed, "data": {"downscale": options.downscale}}
                configs.append(config_of(preset, METHODS[method], over))
        if not configs:
            continue
        scene = disturbed(load_scene(path, configs[0].data), error, options.pixels, seed)
        for what, found in zip(whats, train(scene, configs), strict=True):
            rows.add(record("misalignment", **what, **found))
    if options.table:
        print(table(rows.each))


if __name__ == "__main__":
    main()
