"""Rays sent where there is most to learn, beside rays from everywhere and rays to where photographs have detail.

    python tools/bench/mining.py RESULTS.jsonl SCENES... [--downscale 1] [--steps 2000] [--seeds 0 1 2] [--every 1]
                                 [--methods detail even pruned error ...] [--preset fixture|default]
    python tools/bench/mining.py RESULTS.jsonl --table

All methods of a scene and seed train for as many steps with as many samples; ``dropped`` and ``shorter`` for four
fifths of them, the one without a fifth of the photographs at a time. ``psnr`` is the mean over every ``--every``-th
held-out view, ``hard`` the PSNR of the worst twentieth of all their pixels, ``look_share`` what looking for hard rays
took of the time. One JSON line a training is appended to RESULTS.jsonl, and what stands there already is not run again.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from fixtures import PRESETS
from record import Rows, record

from nerfkit.assess import backdrop, truth
from nerfkit.config import Config, TrainConfig
from nerfkit.presets import from_dict
from nerfkit.render import Model, render_image
from nerfkit.scene import load_scene
from nerfkit.scene.scene import Scene
from nerfkit.sparsity.mining import Mining
from nerfkit.sparsity.pruning import policies_of
from nerfkit.train.loop import fit, model_of

SHORTER = 0.8
METHODS: dict[str, Callable[[TrainConfig], TrainConfig]] = {
    "detail": lambda train: train,
    "even": lambda train: replace(train, detail_share=0.0),
    "pruned": lambda train: replace(train, mining="pruned"),
    "error": lambda train: replace(train, mining="error"),
    "shorter": lambda train: replace(train, steps=round(SHORTER * train.steps)),
    "dropped": lambda train: replace(train, steps=round(SHORTER * train.steps), dropped=1.0 - SHORTER),
}


def scores(model: Model, scene: Scene, every: int) -> dict[str, float]:
    """PSNR of whole views, and of the worst pixels of all."""
    background, errors = backdrop(scene), []
    for view in scene.splits["test"][::every]:
        seen = render_image(model, scene.cameras, view, background).rgb
        errors.append((seen - truth(scene, view, background)).square().mean(-1).flatten())
    worst = torch.cat(errors).sort(descending=True).values
    worst = worst[: len(worst) // 20]
    return {
        "psnr": fmean(-10 * math.log10(float(error.mean())) for error in errors),
        "hard": -10 * math.log10(float(worst.mean())),
    }


def train(scene: Scene, config: Config, every: int) -> dict[str, float]:
    """The figures of one training."""
    model, looking = model_of(scene, config), [0.0]
    policies = policies_of(config, model.field)
    for policy in policies:
        if isinstance(policy, Mining):
            look = policy.look

            def timed(training: Any, look: Callable[[Any], None] = look) -> None:
                started = time.perf_counter()
                look(training)
                looking[0] += time.perf_counter() - started

            policy.look = timed
    (*_, last) = fit(scene, config, model=model, policies=policies)
    return {**scores(model, scene, every), "seconds": last.seconds, "look_share": looking[0] / last.seconds}


def show(rows: list[dict[str, Any]]) -> None:
    """One table a scene: differences to ``detail`` and to ``even``, paired by seed."""
    for scene in sorted({(r["scene"], r["downscale"], r["steps"]) for r in rows}):
        own = [r for r in rows if (r["scene"], r["downscale"], r["steps"]) == scene]
        by = {(r["method"], r["seed"]): r for r in own}
        print(f"\n{scene[0]}/{scene[1]}, {scene[2]} steps")
        for method in METHODS:
            mine = [r for r in own if r["method"] == method]
            if not mine:
                continue
            cells = [f"{key} {fmean(r[key] for r in mine):.2f}" for key in ("psnr", "hard")]
            for rival in ("even", "detail"):
                pairs = [(r, by[rival, r["seed"]]) for r in mine if (rival, r["seed"]) in by and method != rival]
                for key in ("psnr", "hard"):
                    off = [a[key] - b[key] for a, b in pairs]
                    spread = f" +- {stdev(off):.2f}" if len(off) > 1 else ""
                    cells += [f"{key} - {rival} {fmean(off):+.2f}{spread}"] if off else []
            looked = fmean(r["look_share"] for r in mine)
            print(f"  {method:8} {len(mine)} seeds  {'  '.join(cells)}  looking {100 * looked:.1f} %")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("scenes", nargs="*", type=Path)
    parser.add_argument("--downscale", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--methods", nargs="+", default=["detail", "even", "pruned", "error"], choices=METHODS)
    parser.add_argument("--preset", default="default", choices=PRESETS)
    parser.add_argument("--table", action="store_true")
    a = parser.parse_args()
    rows = Rows(a.results)
    if a.table:
        show(rows.each)
        return
    for path, seed in [(path, seed) for path in a.scenes for seed in a.seeds]:
        base = from_dict(Config, {**PRESETS[a.preset], "engine": "cpu"})
        data = replace(base.data, downscale=a.downscale)
        scene = load_scene(path, data)
        for method in a.methods:
            settings = replace(base.train, steps=a.steps, seed=seed, report_every=a.steps)
            what = {"scene": path.resolve().name, "downscale": a.downscale, "steps": a.steps, "seed": seed}
            what |= {"every": a.every, "method": method}
            if not rows.has(what):
                config = replace(base, data=data, train=METHODS[method](settings))
                rows.add(record("mining", **what, **train(scene, config, a.every)))


if __name__ == "__main__":
    main()
