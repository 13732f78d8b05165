"""What says where to look: trains scenes with each sampler for the same time and scores held-out views.

    python tools/bench/sampling.py RESULTS.jsonl SCENE... [--samplers grid learned proposal] [--seconds 300]
                                   [--downscale 1] [--seeds 0] [--config FILE]
    python tools/bench/sampling.py RESULTS.jsonl --table

One JSON line a training is appended to RESULTS.jsonl and printed; what stands there already is not run again. Rows
measured so far are in ``tools/bench/results/sampling.jsonl``.
``--table`` prints all of them, means over seeds. With ``--runs`` the run folders stay there, and are not trained again.

Surface recall is the share of held-out rays with a surface that skipping does not lose. Each is rendered a second time,
through all that may be occupied: lost is a surface where that moves the median distance by more than 1 % and two steps,
and the photograph agrees better with what is seen then. (What a field holds where no ray has looked for long is chance,
and photographs mostly contradict it.) ``surface_unmoved`` is the share without that second condition.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import tempfile
import time
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from jaxtyping import Float
from record import Rows, record
from torch import Tensor

from nerfkit.assess import backdrop, evaluate_run, truth
from nerfkit.config import Config
from nerfkit.kernels.cells import Cells
from nerfkit.presets import from_dict, load_preset
from nerfkit.render import Model, Staged, background_color, load_model, render_in_stages
from nerfkit.run import Run
from nerfkit.sampling.seen import seen_cells
from nerfkit.scene import load_scene
from nerfkit.scene.scene import Scene
from nerfkit.train.loop import fit
from nerfkit.types import Rays, Sampler

SAMPLERS: dict[str, dict[str, Any]] = {
    "grid": {"kind": "grid"},
    "learned": {"kind": "learned"},
    "proposal": {"kind": "proposal"},
    # Of much the same memory as what they are compared with: a grid takes eight bytes a cell, the other five bits.
    "grid-32": {"kind": "grid", "resolution": 32},
    "grid-64": {"kind": "grid", "resolution": 64},
    "learned-256": {"kind": "learned", "resolution": 256},
    # Ablations.
    "learned-no-imbalance": {"kind": "learned", "imbalance_weight": 0.0},
    "learned-no-density": {"kind": "learned", "density_weight": 0.0},
    "learned-no-branches": {"kind": "learned", "render_weight": 0.0},
    "proposal-12": {"kind": "proposal", "n_proposed": 12},
    "proposal-16": {"kind": "proposal", "n_proposed": 16},
    "proposal-32": {"kind": "proposal", "n_proposed": 32},
}
_RAYS, _CHUNK = 2**16, 1024
_BUDGET = 300.0
"""Seconds of training: the table names others."""


@dataclasses.dataclass(frozen=True)
class Seen:
    """What rays see."""

    rgb: Float[Tensor, "n 3"]
    median: Float[Tensor, " n"]
    """Distance (model units) before which half of what a ray meets lies; infinity where it meets little."""


def look(model: Model, sampler: Sampler, rays: Rays, background: Tensor) -> Seen:
    """What rays (model coordinates) see where a sampler looks."""
    rgb, median = [], []
    for begin in range(0, len(rays), _CHUNK):
        part = slice(begin, begin + _CHUNK)
        some = rays[part]
        with torch.no_grad():
            seen = render_in_stages(
                model.field, sampler, some, background[part], torch.full((len(some),), 0.5, device=model.device)
            )
        rgb.append(seen.rgb)
        median.append(medians(seen))
    return Seen(torch.cat(rgb), torch.cat(median))


def medians(seen: Staged) -> Float[Tensor, " n"]:
    """Where rays have met half of their weight; infinity where that is little."""
    n, info = seen.reached.n_owned, seen.reached.packed_info.long()
    owner, t = seen.reached.ray_indices[:n].long(), (seen.reached.t_starts + seen.reached.t_ends)[:n] / 2
    sums = seen.weights[:n].double().cumsum(0)
    before = torch.nn.functional.pad(sums, (1, 0))[info[:, 0].clamp(max=n)]
    short = (sums - before[owner] < 0.5 * seen.opacity[owner]).long()
    first = info[:, 0] + torch.zeros_like(info[:, 0]).index_add_(0, owner, short)
    where = t[first.clamp(max=n - 1)] if n else torch.zeros_like(seen.opacity)
    return torch.where(seen.opacity > 0.5, where, math.inf)


def recall(model: Model, scene: Scene) -> dict[str, float]:
    """Shares of held-out rays whose surface is not lost, and is not moved; see the head of this file."""
    generator = torch.Generator().manual_seed(0)
    behind = backdrop(scene)
    rays, truths = [], []
    views = scene.splits["test"]
    for view in views:
        pixels = scene.cameras.pixel_grid(view).reshape(-1, 2)
        picked = torch.randint(len(pixels), (_RAYS // len(views) + 1,), generator=generator)
        truths.append(truth(scene, view, behind).reshape(-1, 3)[picked])
        rays.append(scene.cameras.rays(torch.full_like(picked, view), pixels[picked]))
    whole = Rays(*(torch.cat([getattr(one, field.name) for one in rays]) for field in dataclasses.fields(Rays)))
    inside = model.frame.model_rays(whole).to(model.device)
    with torch.no_grad():
        sky = model.field.behind(inside.rays_d)
    color = sky if behind == "sky" else background_color(behind).to(model.device).expand(len(inside), 3)
    stepping = model.sampler.cells().stepping
    everything = Cells.of(seen_cells(scene, stepping.resolution), stepping)
    with torch.no_grad():
        found, wanted = (look(model, where, inside, color) for where in (model.sampler, everything))
    steps = (wanted.median * stepping.cone_angle).clamp(stepping.min_step, stepping.max_step)
    moved = (found.median - wanted.median).abs() > 0.01 * wanted.median + 2 * steps
    true = torch.cat(truths).to(model.device)
    worse = ((found.rgb - true) ** 2).mean(1) > ((wanted.rgb - true) ** 2).mean(1)
    there = wanted.median.isfinite()
    lost = {"surface_recall": moved & worse, "surface_unmoved": moved}
    return {name: 1.0 - float(which[there].float().mean()) for name, which in lost.items()}


def train(scene_path: Path, config: Config, folder: Path) -> dict[str, Any]:
    """Train once, or take the run that is there; the numbers of one row."""
    scene = load_scene(scene_path, config.data)
    splits = {name: [scene.image_names[i] for i in views] for name, views in scene.splits.items()}
    if folder.exists():
        run = Run.open(folder)
    else:
        frame = scene.frame.to_dict()
        run = Run.create(folder, config, scene.root, scene.name, frame, scene.fingerprint, splits, ["bench"])
    for _ in fit(scene, config, run, resume=run.has_checkpoint):
        pass
    started = time.perf_counter()
    metrics = evaluate_run(run, scene, "test", lambda views: views)
    evaluation = time.perf_counter() - started
    model = load_model(run)
    state = model.sampler.state_dict()
    guide = getattr(model.sampler, "guide", None)
    return {
        "psnr": metrics["psnr"],
        "ssim": metrics["ssim"],
        "samples_per_ray": metrics["samples_per_ray"],
        "train_samples_per_ray": metrics["train_samples_per_ray"],
        **recall(model, scene),
        "parameters": guide.n_parameters if guide else 0,
        "bytes": sum(tensor.numel() * tensor.element_size() for tensor in state.values()),
        "n_steps": metrics["n_steps"],
        "seconds": metrics["train_seconds"],
        "evaluation_seconds": evaluation,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Means over seeds, in Markdown; the spread of PSNR where there are several."""
    lines = ["| scene | sampler | PSNR | SSIM | samples a ray | recall | parameters | memory | steps | pictures |"]
    lines += ["|---|---|---|---|---|---|---|---|---|---|"]

    def key(row: dict[str, Any]) -> tuple[str, float, str, int]:
        scene = f"{row['scene']}/{row['downscale']}"
        return scene, row["budget"], row["config"], list(SAMPLERS).index(row["sampler"])

    for _, group in groupby(sorted(rows, key=key), key):
        each = list(group)
        mean = {name: fmean(row[name] for row in each) for name, value in each[0].items() if isinstance(value, float)}
        spread = (max(row["psnr"] for row in each) - min(row["psnr"] for row in each)) / 2
        psnr = f"{mean['psnr']:.2f}" + (f" ± {spread:.2f}" if len(each) > 1 else "")
        scene, budget, config, _ = key(each[0])
        what = f"{each[0]['sampler']}, {Path(config).stem}" if config else each[0]["sampler"]
        what += f", {budget:.0f} s" if budget != _BUDGET else ""
        cells = [scene, what, psnr, f"{mean['ssim']:.3f}", f"{mean['samples_per_ray']:.1f}"]
        cells += [f"{100 * mean['surface_recall']:.2f} %", f"{each[0]['parameters'] / 1e6:.2f} M"]
        cells += [f"{fmean(row['bytes'] for row in each) / 1e6:.1f} MB"]
        cells += [f"{fmean(row['n_steps'] for row in each):.0f}", f"{mean['evaluation_seconds']:.0f} s"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Train what is missing, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("scenes", type=Path, nargs="*")
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=["grid", "learned", "proposal"])
    parser.add_argument("--seconds", type=float, default=_BUDGET)
    parser.add_argument("--downscale", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--config", type=Path)
    parser.add_argument("--runs", type=Path, help="keep the run folders here")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_intermixed_args()
    rows = Rows(options.results)
    base = load_preset(options.config) if options.config else Config()
    for scene in options.scenes:
        for seed in options.seeds:
            for name in options.samplers:
                what = {"scene": scene.resolve().name, "downscale": options.downscale, "sampler": name, "seed": seed}
                what |= {"budget": options.seconds, "config": str(options.config or "")}
                if rows.has(what):
                    continue
                config = dataclasses.replace(
                    base,
                    data=dataclasses.replace(base.data, downscale=options.downscale),
                    sampler=from_dict(type(base.sampler), dataclasses.asdict(base.sampler) | SAMPLERS[name]),
                    train=dataclasses.replace(base.train, time_budget=options.seconds, steps=0, seed=seed),
                )
                with tempfile.TemporaryDirectory() as scratch:
                    preset = f"-{options.config.stem}" if options.config else ""
                    folder = f"{what['scene']}-{options.downscale}{preset}-{name}-{seed}-{options.seconds:.0f}s"
                    found = train(scene, config, (options.runs or Path(scratch)) / folder)
                rows.add(record("sampling", **what, **found))
    if options.table:
        print(table(rows.each))


if __name__ == "__main__":
    main()
