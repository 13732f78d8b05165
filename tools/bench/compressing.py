"""How much of a picture a byte buys: files of `nerfkit compress` beside what everybody could do at once.

    python tools/bench/compressing.py RESULTS.jsonl SCENE... [--downscale 1] [--steps 8000] [--share 0.1]
                                      [--bytes 100e3 200e3 400e3 1e6] [--rivals small entropy binary] [--rates ...]
                                      [--seeds 0] [--every 1] [--preset fixture|default]
    python tools/bench/compressing.py RESULTS.jsonl --table

A dense run of ``--steps`` steps is compressed to each of the sizes, learning on for a share of them. Rivals
(`rivals.py`) are trained for as many steps in all, at each of their rates. Scores are of every ``--every``-th held-out
view. One JSON line a file is appended to RESULTS.jsonl; what stands there already is not run again. ``--table`` prints
them, and by how much fewer bytes ours take at equal PSNR (Bjontegaard's rate difference). `nerfkit compare --rows`
draws them beside runs.
"""

from __future__ import annotations

import argparse
import math
import shutil
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from fixtures import PRESETS
from record import Rows, record
from rivals import RIVALS, policies_of
from scipy.interpolate import PchipInterpolator

from nerfkit.assess import backdrop, truth
from nerfkit.config import Config
from nerfkit.packed import open_packed, write_packed
from nerfkit.presets import from_dict
from nerfkit.render import Model, load_model, render_image
from nerfkit.run import Run
from nerfkit.scene import load_scene
from nerfkit.scene.scene import Scene
from nerfkit.sparsity.compress import begin
from nerfkit.sparsity.ratios import PruneError
from nerfkit.train.loop import fit, model_of

OURS, DENSE = "compress", "dense"


def psnr(model: Model, scene: Scene, every: int) -> float:
    """Mean over held-out views, 8-bit pictures."""
    background, each = backdrop(scene), []
    for view in scene.splits["test"][::every]:
        seen = (render_image(model, scene.cameras, view, background).rgb.clamp(0, 1) * 255).round() / 255
        each.append(-10 * math.log10(float((seen - truth(scene, view, background)).square().mean())))
    return fmean(each)


def trained(scene: Scene, config: Config, folder: Path) -> Run:
    """A run of so many steps; one that is there already stays."""
    if (folder / "config.json").exists() and (run := Run.open(folder)).has_checkpoint:
        if run.load_checkpoint().step >= config.train.steps:
            return run
        shutil.rmtree(folder)
    splits = {name: [scene.image_names[view] for view in views] for name, views in scene.splits.items()}
    frame = scene.frame.to_dict()
    run = Run.create(folder, config, scene.root, scene.name, frame, scene.fingerprint, splits, ["bench"])
    for _ in fit(scene, config, run):
        pass
    return run


def compressed(run: Run, scene: Scene, n_bytes: int, share: float, every: int) -> dict[str, Any]:
    """Figures of our file."""
    started = time.perf_counter()
    compression = begin(run, scene, n_bytes, share)
    for _ in compression.learn():
        pass
    data = compression.file()
    seconds = time.perf_counter() - started
    path = run.path.with_name(f"{run.path.name}-{n_bytes}.nerf")
    write_packed(path, data)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    started = time.perf_counter()
    packed = open_packed(path)
    packed.load_checkpoint()
    decode = time.perf_counter() - started
    torch.set_num_threads(threads)
    found = {"bytes": len(data), "psnr": psnr(load_model(packed), scene, every), "seconds": seconds}
    return {**found, "decode_seconds": decode, "sections": packed.section_bytes()}


def rival(name: str, scene: Scene, config: Config, rate: float, every: int) -> dict[str, Any]:
    """Figures of a rival at one of its rates."""
    way = RIVALS[name].make(rate)
    config = RIVALS[name].config(config, rate)
    model = model_of(scene, config)
    for _ in fit(scene, config, model=model, policies=policies_of(way)):
        pass
    return {"bytes": way.size(model), "psnr": psnr(model, scene, every)}


def rate_difference(ours: list[tuple[float, float]], theirs: list[tuple[float, float]]) -> float:
    """By which share of their bytes ours differ at equal PSNR: the mean over the PSNR that both curves have, of log
    bytes (Bjontegaard 2001), which between points rise without overshooting (Fritsch and Carlson 1980) where his
    cubics might. Points are (bytes, PSNR); those that another one of the same curve beats in both do not count. NaN
    where nothing is shared.

    >>> curve = [(100.0, 20.0), (200.0, 22.0), (400.0, 25.0), (800.0, 27.0), (900.0, 26.0)]
    >>> round(rate_difference([(b / 2, p) for b, p in curve], curve), 6)
    -0.5
    """
    curves = []
    for points in (ours, theirs):
        best: list[tuple[float, float]] = []
        for point in sorted(points):
            best += [point] if not best or point[1] > best[-1][1] else []
        curves.append(np.array(best).T)
    low, high = max(float(p[0]) for _, p in curves), min(float(p[-1]) for _, p in curves)
    if high <= low or min(p.size for _, p in curves) < 2:
        return math.nan
    mine, other = (PchipInterpolator(p, np.log(b)).integrate(low, high) / (high - low) for b, p in curves)
    return math.expm1(mine - other)


def show(rows: list[dict[str, Any]]) -> None:
    """One table a scene."""
    for scene in sorted({(r["scene"], r["downscale"], r["steps"]) for r in rows}):
        own = [r for r in rows if (r["scene"], r["downscale"], r["steps"]) == scene]
        print(f"\n{scene[0]}/{scene[1]}, {scene[2]} steps")
        curves: dict[str, list[tuple[float, float]]] = {}
        for row in sorted(own, key=lambda r: (r["method"], r["bytes"])):
            extra = f"  decoded in {row['decode_seconds']:.2f} s" if "decode_seconds" in row else ""
            print(f"  {row['method']:26} seed {row['seed']}  {row['bytes']:>9} bytes  {row['psnr']:.2f} dB{extra}")
            curves.setdefault(row["method"], []).append((row["bytes"], row["psnr"]))
        for name in RIVALS:
            if OURS in curves and name in curves:
                off = rate_difference(curves[OURS], curves[name])
                print(f"  bytes at equal PSNR, against {name}: {100 * off:+.1f} %")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("scenes", nargs="*", type=Path)
    parser.add_argument("--downscale", type=int, default=1)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--bytes", nargs="*", type=float, default=[100e3, 200e3, 400e3, 1e6])
    parser.add_argument("--rivals", nargs="*", default=[*RIVALS], choices=RIVALS)
    parser.add_argument("--rates", nargs="*", type=float, help="of the rivals, in place of their own")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--preset", default="default", choices=PRESETS)
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument("--table", action="store_true")
    a = parser.parse_args()
    rows = Rows(a.results)
    if a.table:
        show([row for row in rows.each if "psnr" in row])
        return
    for path, seed in [(path, seed) for path in a.scenes for seed in a.seeds]:
        base = from_dict(Config, {**PRESETS[a.preset], "engine": "cpu"})
        data, train = replace(base.data, downscale=a.downscale), replace(base.train, steps=a.steps, seed=seed)
        scene, base = load_scene(path, data), replace(base, data=data, train=train)
        place = a.out / f"{path.resolve().name}-{a.downscale}-{a.steps}-{seed}"
        what = {"scene": path.resolve().name, "downscale": a.downscale, "steps": a.steps, "seed": seed}
        what |= {"share": a.share, "every": a.every}
        if not rows.has({**what, "method": DENSE}):
            run = trained(scene, base, place)
            found = {"bytes": run.load_checkpoint().model_bytes, "psnr": psnr(load_model(run), scene, a.every)}
            rows.add(record("compressing", **what, method=DENSE, budget=0, **found))
        for n_bytes in map(int, a.bytes):
            if not rows.has({**what, "method": OURS, "budget": n_bytes}):
                try:
                    found = compressed(trained(scene, base, place), scene, n_bytes, a.share, a.every)
                except PruneError as error:
                    found = {"refused": str(error)}
                rows.add(record("compressing", **what, method=OURS, budget=n_bytes, **found))
        steps = base.train.steps + round(a.share * base.train.steps)
        longer = replace(base, train=replace(base.train, steps=steps))
        for method, rate in [(name, rate) for name in a.rivals for rate in a.rates or RIVALS[name].rates]:
            if not rows.has({**what, "method": method, "budget": rate}):
                found = rival(method, scene, longer, rate, a.every)
                rows.add(record("compressing", **what, method=method, budget=rate, **found))


if __name__ == "__main__":
    main()
