"""PSNR against seconds: trains a scene for each budget and scores its held-out views.

    python tools/bench/training.py SCENE --budgets 60 300 1800 [--downscale 2] [--config FILE] [--seeds 0 1 2]

One JSON line a training, with the curve of the training rays; nothing is written but the run folders under --out.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

from record import record

from nerfkit.assess import evaluate_run
from nerfkit.config import Config
from nerfkit.presets import load_preset
from nerfkit.run import Run
from nerfkit.scene import load_scene
from nerfkit.train.loop import fit


def train(scene_path: Path, config: Config, folder: Path) -> dict[str, object]:
    """Train once; returns the metrics and the curve."""
    started = time.perf_counter()
    scene = load_scene(scene_path, config.data)
    loaded = time.perf_counter() - started
    splits = {name: [scene.image_names[i] for i in views] for name, views in scene.splits.items()}
    frame = scene.frame.to_dict()
    run = Run.create(folder, config, scene.root, scene.name, frame, scene.fingerprint, splits, ["bench"])
    reports = list(fit(scene, config, run))
    prepared = time.perf_counter() - started - loaded - reports[-1].seconds
    metrics = evaluate_run(run, scene, "test", lambda views: views)
    curve = [(round(r.seconds, 2), round(r.psnr, 3)) for r in reports[:: max(1, len(reports) // 40)]]
    return {"load_seconds": loaded, "prepare_seconds": prepared, "curve": curve, "metrics": metrics}


def main() -> None:
    """Train for each budget and seed; print one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scene", type=Path)
    parser.add_argument("--budgets", type=float, nargs="+", default=[60.0, 300.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--downscale", type=int, default=1)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--out", type=Path, help="keep the runs here")
    options = parser.parse_args()
    base = load_preset(options.config) if options.config else Config()
    with tempfile.TemporaryDirectory() as scratch:
        out = options.out or Path(scratch)
        for budget in options.budgets:
            for seed in options.seeds:
                config = dataclasses.replace(
                    base,
                    data=dataclasses.replace(base.data, downscale=options.downscale),
                    train=dataclasses.replace(base.train, time_budget=budget, steps=0, seed=seed),
                )
                name = f"{options.scene.name}-{budget:.0f}s-seed{seed}"
                result = train(options.scene, config, out / name)
                record("training", scene=options.scene.name, budget=budget, seed=seed, **result)


if __name__ == "__main__":
    main()
