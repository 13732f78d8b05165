"""What pruning does to what a field remembers, and to what it knows: curves over fractions, methods and widths.

    python tools/bench/pruning.py RESULTS.jsonl SCENES... [--fixtures solid fog] [--views 4 24] [--noise 0 0.1]
                                  [--methods erk uniform ...] [--fractions 0.5 0.8 ...] [--widths 64] [--seeds 0 1 2]
                                  [--steps 800] [--downscale 1] [--preset fixture|default]
    python tools/bench/pruning.py RESULTS.jsonl --table [--at 0.8] [--page pruning.html]

A fixture is a scene of `fixtures.py`; SCENES are folders of others. Networks are pruned, the table is not. Methods are
the ratios with random masks (uniform, uniform+, er, erk, erk+), criteria with the ratios that they find (snip, grasp,
synflow) or with their ratios alone (snip-shuffled, ...), magnitude at the end of half a training and then learning on
(magnitude), little by little (gradual) or exchanged (exchange), neurons (neurons), the searches of `searches.py`, a
dense field of fewer neurons with as many weights (narrow), and the coarsest levels of the table in place of weights
(coarse). All of them take the same number of steps in all. One JSON line a training is appended to RESULTS.jsonl, and
what stands there already is not run again. ``--at 0.8`` prints all methods at one fraction, the best first.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from fixtures import FIXTURES, FLOOR, PRESETS, write
from record import Rows, record
from searches import SEARCHES, Coarse

from nerfkit.assess import backdrop, truth
from nerfkit.config import Config
from nerfkit.presets import from_dict
from nerfkit.render import render_image
from nerfkit.scene import load_scene
from nerfkit.scene.scene import Scene
from nerfkit.sparsity.curves import Point, judge, sentence, write_curves
from nerfkit.sparsity.pruning import policies_of, sparsity_of
from nerfkit.sparsity.ratios import PruneError
from nerfkit.train.loop import fit, model_of

RATIOS = ("uniform", "uniform+", "er", "erk", "erk+")
CRITERIA = ("snip", "grasp", "synflow")
LATE = {"score": "magnitude", "ratio": "erk"}
METHODS: dict[str, dict[str, Any]] = {
    **{ratio: {"ratio": ratio} for ratio in RATIOS},
    **{score: {"score": score, "ratio": "score"} for score in CRITERIA},
    **{f"{score}-shuffled": {"score": score, "ratio": "score", "shuffle": True} for score in CRITERIA},
    "magnitude": {**LATE, "begin": 0.5},
    "magnitude-global": {"score": "magnitude", "ratio": "score", "begin": 0.5},
    "gradual": {**LATE, "schedule": "gradual", "begin": 0.1, "end": 0.7, "every": 50},
    "exchange": {"schedule": "exchange", "every": 50},
    "neurons": {"space": "neurons", "ratio": "uniform"},
    "narrow": {},
}
NAMES = (*METHODS, *SEARCHES, "coarse")


def n_weights(config: Config) -> int:
    """Of both networks."""
    field = config.field
    n_in = (field.n_levels * field.n_features, field.geo_features + field.sh_degree**2)
    hidden = (field.density_layers, field.color_layers)
    outputs = (field.geo_features, 3)
    return sum(
        w * (i + o) + (n - 1) * w * w for i, n, o in zip(n_in, hidden, outputs, strict=True) for w in [field.width]
    )


def config_of(preset: str, method: str, fraction: float, width: int, seed: int, steps: int) -> Config:
    """The settings of one training."""
    tree = {name: dict(values) for name, values in PRESETS[preset].items()}
    tree["train"] = {**tree.get("train", {}), "steps": steps, "report_every": steps // 20, "seed": seed}
    tree["field"] = {**tree.get("field", {}), "width": width}
    tree["engine"] = "cpu"
    if method == "narrow":
        whole = n_weights(from_dict(Config, tree))
        tree["field"]["width"] = max(
            range(1, width + 1),
            key=lambda w: (
                -abs(
                    n_weights(from_dict(Config, {**tree, "field": {**tree["field"], "width": w}}))
                    - (1 - fraction) * whole
                )
            ),
        )
    elif fraction and method in METHODS:
        tree["prune"] = {"fraction": fraction, **METHODS[method]}
    return from_dict(Config, tree)


def psnr(error: float) -> float:
    """Of a mean square error, dB."""
    return -10 * math.log10(max(error, 1e-12))


def train(scene: Scene, config: Config, method: str, fraction: float, n_views: int) -> dict[str, Any]:
    """Held-out and training error of one training, the slope of the latter's logarithm over its last fifth (None of a
    search, whose end is none of a training)."""
    started, slope = time.perf_counter(), None
    if method in SEARCHES:
        model = SEARCHES[method](scene, config, fraction)
    else:
        model = model_of(scene, config)
        coarse = method == "coarse" and fraction > 0
        policies = [Coarse(config, fraction, model.field)] if coarse else policies_of(config, model.field)
        reports = list(fit(scene, config, model=model, policies=policies))
        late = [report.loss for report in reports[-4:]]
        slope = math.log(late[-1] / late[0])
    seconds, background = time.perf_counter() - started, backdrop(scene)

    def error(views: list[int]) -> float:
        """Mean square error of whole pictures."""
        errors = []
        for view in views:
            seen = render_image(model, scene.cameras, view, background).rgb
            errors.append(float((seen - truth(scene, view, background)).square().mean()))
        return fmean(errors)

    kept = sparsity_of(model.field)
    return {
        "psnr": psnr(error(scene.splits["test"][:: max(len(scene.splits["test"]) // n_views, 1)])),
        "train_error": error(scene.splits["train"][:: max(len(scene.splits["train"]) // n_views, 1)]),
        "slope": slope,
        "kept": sum(n for n, _ in kept.values()),
        "weights": sum(n for _, n in kept.values()),
        "seconds": seconds,
    }


def parts_of(rows: list[dict[str, Any]]) -> dict[str, tuple[float, dict[str, list[Point]]]]:
    """Points of each scene and width, method by method; dense fields are part of each."""
    parts: dict[str, tuple[float, dict[str, list[Point]]]] = {}
    done = [row for row in rows if "psnr" in row]
    for row in sorted(done, key=lambda r: (r["scene"], r["views"], r["noise"], r["width"], r["steps"], r["fraction"])):
        about = f", {row['views']} views, noise {row['noise']:g}" if row["views"] else f"/{row['downscale']}"
        name = f"{row['scene']}{about}, {row['width']} neurons, {row['steps']} steps"
        _, methods = parts.setdefault(name, (row["floor"] if row["views"] else math.nan, {}))
        slope = math.nan if row["slope"] is None else row["slope"]
        point = Point(row["fraction"], row["seed"], row["psnr"], row["train_error"], slope)
        methods.setdefault(row["method"], []).append(point)
    for _, methods in parts.values():
        dense = methods.pop("dense", [])
        for points in methods.values():
            points += dense
    return {name: (floor, methods) for name, (floor, methods) in parts.items() if methods}


def show(rows: list[dict[str, Any]]) -> None:
    """What each method did on each scene, a sentence and a row each."""
    for name, (floor, methods) in parts_of(rows).items():
        print(f"\n{name}")
        for method, points in sorted(methods.items()):
            verdict = judge(points, floor)
            cells = [f"{p:g}: {gain:+.2f} {verdict.regimes[p][:4]}" for p, (gain, _) in verdict.gains.items()]
            print(f"  {method:18} {'  '.join(cells)}\n{'':21}{sentence(verdict)}")


def rank(rows: list[dict[str, Any]], fraction: float) -> None:
    """All methods at one fraction, a table a scene, the best first."""
    for name, (floor, methods) in parts_of(rows).items():
        print(f"\n{name}, {fraction:.0%} pruned\n  {'method':20} {'gain over dense, dB':>24} {'seeds':>6}  field is")
        found = {method: judge(points, floor) for method, points in methods.items()}
        found = {method: verdict for method, verdict in found.items() if fraction in verdict.gains}
        for method, verdict in sorted(found.items(), key=lambda one: -one[1].gains[fraction][0]):
            gain, half = verdict.gains[fraction]
            n = sum(point.fraction == fraction for point in methods[method])
            print(f"  {method:20} {gain:+.2f} +- {half:<13.2f} {n:>6}  {verdict.regimes[fraction]}")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("scenes", nargs="*", type=Path)
    parser.add_argument("--fixtures", nargs="*", default=[], choices=FIXTURES)
    parser.add_argument("--made", type=Path, default=Path("runs/fixtures"))
    parser.add_argument("--views", nargs="+", type=int, default=[4])
    parser.add_argument("--noise", nargs="+", type=float, default=[0.1])
    parser.add_argument("--methods", nargs="+", default=["erk"], choices=NAMES)
    parser.add_argument("--fractions", nargs="+", type=float, default=[0.8])
    parser.add_argument("--widths", nargs="+", type=int, default=[64])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--downscale", type=int, default=1)
    parser.add_argument("--preset", default="fixture", choices=PRESETS)
    parser.add_argument("--scored", type=int, default=8, help="views of each split that are scored, about")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--at", type=float)
    parser.add_argument("--page", type=Path)
    a = parser.parse_args()
    rows = Rows(a.results)
    if a.table or a.page:
        if a.at is None:
            show(rows.each)
        else:
            rank(rows.each, a.at)
        if a.page:
            write_curves(a.page, "What pruning does", parts_of(rows.each))
        return
    made = [(name, n, noise) for name, n, noise in product(a.fixtures, a.views, a.noise)]
    wanted: list[tuple[str, Path, int, float]] = [(n, write(a.made, n, v, s), v, s) for n, v, s in made]
    wanted += [(path.resolve().name, path, 0, 0.0) for path in a.scenes]
    for (name, folder, views, noise), width, seed in product(wanted, a.widths, a.seeds):
        for method, fraction in [("dense", 0.0), *product(a.methods, a.fractions)]:
            config = config_of(a.preset, method, fraction, width, seed, a.steps)
            what = {"scene": name, "views": views, "noise": noise, "width": width, "seed": seed, "method": method}
            what |= {"fraction": fraction, "steps": a.steps, "downscale": a.downscale}
            if rows.has(what):
                continue
            scene = load_scene(folder, replace(config.data, downscale=a.downscale))
            floor = json.loads((folder / FLOOR).read_text())["floor"] if (folder / FLOOR).exists() else 0.0
            try:
                found = train(scene, config, method, fraction, a.scored)
            except PruneError as error:
                found = {"refused": str(error)}
            rows.add(record("pruning", **what, floor=floor, **found))


if __name__ == "__main__":
    main()
