"""What fewer neurons save, or weights held at zero: the networks alone, and whole frames, of two runs of one scene.

    python tools/bench/neurons.py RUN OTHER_RUN [--scene FOLDER] [--samples 4096] [--rounds 41] [--frames 9]

The networks are those of the kernel that pictures come from on a CPU, on one core, sixteen samples at a time as there;
and beside that the same products by torch. Both runs are timed in turns, so that a slow moment of the machine is slow
for both; medians. One JSON line.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from record import record

from nerfkit.assess import backdrop, scene_of
from nerfkit.kernels.corners import BLOCK
from nerfkit.kernels.dense import dense_text
from nerfkit.kernels.launch import Native, prepare_cpu
from nerfkit.packed import open_run
from nerfkit.render import Model, load_model, render_image


def in_turns(fns: list[Callable[[], object]], n_rounds: int) -> list[float]:
    """Median seconds of each call, after one that does not count."""
    times: list[list[float]] = [[] for _ in fns]
    for round_ in range(n_rounds + 1):
        for fn, own in zip(fns, times, strict=True):
            start = time.perf_counter()
            fn()
            if round_:
                own.append(time.perf_counter() - start)
    return [statistics.median(own) for own in times]


def by_torch(model: Model, n: int) -> Callable[[], object]:
    """One pass of n samples through both networks, in the number format of this machine."""
    field = model.field
    generator = torch.Generator().manual_seed(0)
    n_in, seen_in = field.density_network.sizes[0], field.color_network.sizes[0]
    x = torch.rand(n, n_in, generator=generator).to(field.dtype)
    seen = torch.rand(n, seen_in, generator=generator).to(field.dtype)

    def run() -> object:
        with torch.no_grad():
            return field.density_network(x), field.color_network(seen)

    return run


def by_kernel(model: Model, n: int) -> Callable[[], object]:
    """The same by the layers of the kernel for whole rays, a hundred times over."""
    target = model.field.target()
    layers, stride, n_packed = target.networks.layers
    each = range(len(layers))
    body = "".join(f"layer_{i}::prepare(weights, packed, packed + {n_packed});\n" for i in each)
    forward = "".join(f"layer_{i}::forward(rows, {BLOCK}, packed, nullptr);\n" for i in each)
    body += f"for (int turn = 0; turn < n; turn += {BLOCK}) {{\n{forward}}}"
    tensors = {"weights": "const float", "packed": "word", "rows": "word"}
    kernel = Native(dense_text(layers, stride, target.word), body, tensors, {"n": "int"})
    dtype = getattr(torch, target.word)
    rows = torch.rand(BLOCK, stride, generator=torch.Generator().manual_seed(0)).to(dtype)
    packed = torch.empty(2 * n_packed, dtype=dtype)
    return lambda: kernel([target.weights.detach(), packed, rows], [100 * n])


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs=2, type=Path)
    parser.add_argument("--scene", type=Path)
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--frames", type=int, default=9)
    a = parser.parse_args()
    prepare_cpu()  # one thread for torch: a pass through the networks is one core's
    runs = [open_run(path) for path in a.runs]
    models = [load_model(run) for run in runs]
    scene = scene_of(runs[0], a.scene)
    view, background = scene.splits["test"][0], backdrop(scene)

    def frame(model: Model) -> Callable[[], object]:
        return lambda: render_image(model, scene.cameras, view, background)

    times = in_turns([by_kernel(model, a.samples) for model in models], a.rounds)
    torch_times = in_turns([by_torch(model, a.samples) for model in models], a.rounds)
    frame_times = in_turns([frame(model) for model in models], a.frames)
    record(
        "neurons",
        runs=[run.path.name for run in runs],
        widths=[run.config.field.width for run in runs],
        weights=[sum(int((w != 0).sum()) for w in model.field.network_parameters()) for model in models],
        network_seconds=[seconds / 100 for seconds in times],
        network_ratio=times[1] / times[0],
        network_ratio_torch=torch_times[1] / torch_times[0],
        frame_seconds=frame_times,
        frame_ratio=frame_times[1] / frame_times[0],
    )


if __name__ == "__main__":
    main()
