"""What `cuda.py` measures, part by part."""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fused
import torch
from cuda_peer import Peer
from record import record, seconds
from torch import Tensor

from nerfkit.assess import backdrop, evaluate_run
from nerfkit.config import Config
from nerfkit.defaults import CUDA
from nerfkit.doctor import examine
from nerfkit.fields.tcnn import TcnnError, grid_config, load
from nerfkit.kernels import self_check
from nerfkit.kernels.hashgrid import HashGrid, grid_layout
from nerfkit.render import load_model, render_image
from nerfkit.run import Run
from nerfkit.scene import load_scene
from nerfkit.scene.scene import Scene
from nerfkit.train.later import Later
from nerfkit.train.loop import fit, model_of
from nerfkit.train.optim import rate_at
from nerfkit.train.training import Training

GRIDS = ((16, 2, 19), (8, 4, 19))
"""Levels, features, and the logarithm of the table's size."""
HOLD = 33.0
"""Decibels, the time to which is told."""


@dataclasses.dataclass
class Bench:
    """What the parts share."""

    scene: Scene
    config: Config
    device: torch.device
    arguments: argparse.Namespace

    def tell(self, part: str, **figures: Any) -> None:
        """One line."""
        gpu = torch.cuda.get_device_name() if self.device.type == "cuda" else None
        record("cuda", part=part, device=self.device.type, gpu=gpu, **figures)

    def wait(self) -> None:
        """Until the device has done what it was sent."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def checks(bench: Bench) -> None:
    """Every kernel beside its plain twin, and what the doctor finds."""
    errors = self_check(bench.device)
    worst = max(errors, key=errors.__getitem__)
    bench.tell("checks", n=len(errors), worst=worst, error=errors[worst])
    for finding in examine():
        told = dataclasses.asdict(finding)
        bench.tell("doctor", engine=told.pop("name"), **told)


def _encoders(config: tuple[int, int, int], device: torch.device) -> dict[str, tuple[Callable[..., Tensor], Tensor]]:
    """Functions of positions, and what each learns, by name."""
    n_levels, n_features, log2_size = config
    layout = grid_layout(n_levels, n_features, log2_size, 16, 2048)
    grid = HashGrid(layout, device)
    table = (torch.rand(layout.n_entries, n_features, device=device) * 2e-4 - 1e-4).requires_grad_()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    rounded = table.detach().half()

    def encode(x: Tensor) -> Tensor:
        # What the optimiser does elsewhere is counted here, as the other does it in each call.
        rounded.copy_(table.detach())
        if table.grad is not None:
            table.grad.zero_()
        return grid.encode(x, table, dtype, rounded)

    found = {"nerfkit": (encode, table)}
    try:
        field = replace(CUDA.field, log2_table_size=log2_size)
        peer = load().Encoding(3, grid_config(layout, field))
        found["tinycudann"] = (peer, peer.params)
    except TcnnError:
        pass
    return found


def grid(bench: Bench) -> None:
    """The hash grid forward, and with its gradient, on random places and on places in the order of rays."""
    n = 1 << bench.arguments.log2_points
    scattered = torch.rand(n, 3, device=bench.device)
    along = torch.linspace(0.1, 0.9, 64, device=bench.device)[None, :, None]
    origins, ends = torch.rand(2, n // 64, 1, 3, device=bench.device)
    rays = (origins + along * (ends - origins)).reshape(-1, 3)
    for sizes in GRIDS:
        for name, (encode, learnt) in _encoders(sizes, bench.device).items():
            for order, positions in (("random", scattered), ("rays", rays)):
                seed = torch.randn_like(encode(positions))

                def both(encode: Any = encode, positions: Tensor = positions, seed: Tensor = seed) -> None:
                    encode(positions).backward(seed)

                with torch.no_grad():
                    forward = _seconds(lambda e=encode, x=positions: e(x), bench.device)
                learnt.grad = None
                timing = _seconds(both, bench.device)
                shape = {"levels": sizes[0], "features": sizes[1], "log2_size": sizes[2]}
                bench.tell("grid", engine=name, **shape, order=order, n=n, forward=forward, both=timing)


def _seconds(call: Callable[[], Any], device: torch.device) -> dict[str, float]:
    """Of one call; on a GPU of many in a row, so that starting them weighs little."""
    n = fused.N_CALLS if device.type == "cuda" else 1

    def calls() -> None:
        for _ in range(n):
            call()

    return {key: value / n for key, value in seconds(calls, device=device.type).items()}


def networks(bench: Bench) -> None:
    """Both networks in one kernel, by torch's products, and by tinycudann: `fused.py`."""
    if bench.device.type != "cuda":
        raise RuntimeError("networks in one kernel are CUDA's alone")
    best = fused.limits(bench.device)
    field = model_of(bench.scene, bench.config).field
    for name, network in (("density", field.density_network), ("color", field.color_network)):
        fused.measure(name, network, 1 << bench.arguments.log2_points, best, bench.device)


def _steps(training: Training, n: int, wait: Callable[[], None]) -> tuple[list[float], list[float]]:
    """So many steps of a training: seconds for which the host was busy, and in all, of each ten."""
    config, later, busy, whole = training.model.config, Later(), [], []
    clock = training.clock
    for _ in range(n // 10):
        wait()
        waited, start = 0.0, time.perf_counter()
        for _ in range(10):
            learned = training.learn(training.n_rays)
            training.optimizer.step(rate_at(clock.step, 0.2, config.train))
            clock.step += 1
            training.model.sampler.update(clock.step, training.model.field, learned.mets)
            asked = time.perf_counter()
            for told in later.add(learned.loss, learned.squared_error, learned.n_rays, learned.n_samples):
                clock.count(told)
            waited += time.perf_counter() - asked
        busy.append(time.perf_counter() - start - waited)
        wait()
        whole.append(time.perf_counter() - start)
    for told in later.rest():
        clock.count(told)
    return busy, whole


def step(bench: Bench) -> None:
    """Milliseconds of a training step once the scene has cleared, ours and that of tinycudann with nerfacc."""
    training = Training.new(bench.scene, model_of(bench.scene, bench.config))
    training.warm_up()
    busy, whole = _steps(training, bench.arguments.steps, bench.wait)
    last = len(whole) // 3
    before = training.clock.n_samples
    n_samples = before / max(training.clock.step, 1)
    milliseconds = 100 * statistics.median(whole[-last:])
    figures = {"ms": milliseconds, "ms_least": 100 * min(whole[-last:]), "ms_most": 100 * max(whole[-last:])}
    host = 100 * statistics.median(busy[-last:])
    bench.tell("step", engine="nerfkit", **figures, host_ms=host, samples=n_samples, rays=training.n_rays)
    peer, times, samples = Peer(training), [], []
    for _ in range(bench.arguments.steps // 10):
        bench.wait()
        start = time.perf_counter()
        samples += [peer.step() for _ in range(10)]
        bench.wait()
        times.append(100 * (time.perf_counter() - start))
    late = times[-len(times) // 3 :]
    figures = {"ms": statistics.median(late), "ms_least": min(late), "ms_most": max(late), "rays": peer.n_rays}
    ratio = milliseconds / statistics.median(late)
    mean = statistics.fmean(samples[-10 * len(late) :])
    bench.tell("step", engine="tinycudann+nerfacc", **figures, samples=mean, ours_over_theirs=ratio)


def train(bench: Bench) -> None:
    """Held-out PSNR after each budget, when that of the rays of steps came to `HOLD`, and memory; the last run is kept
    for the frames."""
    for budget in bench.arguments.budgets:
        if bench.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        config = replace(bench.config, train=replace(bench.config.train, time_budget=budget, steps=0))
        scene, folder = bench.scene, bench.arguments.out / f"{bench.scene.name}-{budget:g}s"
        splits = {name: [scene.image_names[i] for i in views] for name, views in scene.splits.items()}
        run = Run.create(folder, config, scene.root, scene.name, scene.frame.to_dict(), scene.fingerprint, splits, [])
        reports = list(fit(scene, config, run))
        reached = next((report.seconds for report in reports if report.psnr >= HOLD), None)
        peak = torch.cuda.max_memory_allocated() if bench.device.type == "cuda" else None
        metrics = evaluate_run(run, scene, "test", lambda views: views)
        last = reports[-1]
        figures = {"psnr": metrics["psnr"], "ssim": metrics["ssim"], "steps": last.step, "peak_bytes": peak}
        rates = {"samples_per_second": last.samples_per_second, "samples_per_ray": last.samples_per_ray}
        bench.tell(
            "train", budget=budget, run=str(folder), **figures, **rates, seconds_to_hold_of_rays=reached, hold=HOLD
        )


def render(bench: Bench) -> None:
    """Frames a second of held-out views, and how like the CPU's pictures of the same checkpoint they are."""
    folder = bench.arguments.out / f"{bench.scene.name}-{bench.arguments.budgets[-1]:g}s"
    run, scene, background = Run.open(folder), bench.scene, backdrop(bench.scene)
    model = load_model(run)
    views = scene.splits["test"][:: max(1, len(scene.splits["test"]) // 8)][:8]
    times = [
        seconds(lambda v=v: render_image(model, scene.cameras, v, background), 5, bench.device.type) for v in views
    ]
    frames = 1 / statistics.median(timing["median"] for timing in times)
    height, width = scene.images[views[0]].shape[:2]
    on_cpu = load_model(replace_engine(run))
    likeness = []
    for view in views[:3]:
        one, other = (render_image(m, scene.cameras, view, background).rgb for m in (model, on_cpu))
        likeness.append(-10 * float((one - other).square().mean().log10()))
    shape = {"width": width, "height": height, "frames_per_second": frames}
    bench.tell("render", **shape, cpu_likeness_db=min(likeness))


def replace_engine(run: Run) -> Run:
    """The same run, to be loaded on the CPU."""
    return Run(run.path, replace(run.config, engine="cpu"))


def profile(bench: Bench) -> None:
    """Where a step's time goes, by torch's profiler: the kernels that take most of it, over twenty steps."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as watch

    training = Training.new(bench.scene, model_of(bench.scene, bench.config))
    training.warm_up()
    _steps(training, bench.arguments.steps, bench.wait)
    on_cuda = bench.device.type == "cuda"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
    with watch(activities=kinds) as seen:
        _steps(training, 20, bench.wait)
    attribute = "self_device_time_total" if on_cuda else "self_cpu_time_total"
    rows = sorted(seen.key_averages(), key=lambda row: -getattr(row, attribute))[:25]
    table = [{"name": row.key[:80], "calls": row.count / 20, "ms": getattr(row, attribute) / 20e3} for row in rows]
    bench.tell("profile", kernels=table, samples=training.clock.n_samples / training.clock.step)


PARTS: dict[str, Callable[[Bench], None]] = {
    "checks": checks,
    "grid": grid,
    "networks": networks,
    "step": step,
    "train": train,
    "render": render,
    "profile": profile,
}


def main() -> None:
    """Run the parts that the command line asks for."""
    parser = argparse.ArgumentParser(
        "cuda.py", description="All that is claimed of CUDA, in one call of a few minutes."
    )
    parser.add_argument("scene", type=Path)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--budgets", nargs="+", type=float, default=[60.0, 120.0])
    parser.add_argument("--log2-points", type=int, default=18)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--downscale", type=int, default=1)
    parser.add_argument("--samples-per-step", type=int, default=CUDA.train.samples_per_step)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path, default=Path("runs/cuda"))
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("cuda.py: torch finds no GPU here; --device cpu runs it through the CPU's form")
    train_config = replace(CUDA.train, samples_per_step=arguments.samples_per_step)
    data = replace(CUDA.data, background="white", downscale=arguments.downscale)
    config = replace(CUDA, engine=arguments.device, train=train_config, data=data)
    scene = load_scene(arguments.scene, config.data)
    bench = Bench(scene, config, torch.device(arguments.device), arguments)
    for name in arguments.parts:
        try:
            PARTS[name](bench)
        except Exception as error:  # a lent GPU has few minutes: what the next part measures should not be lost
            bench.tell(name, failed=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
