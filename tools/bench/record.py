"""One JSON line a measurement, with all that is needed to compare it: machine, versions, commit."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from nerfkit.kernels.launch import prepare_cpu
from nerfkit.provenance import commit, cpu_name, now, versions


def record(name: str, **figures: Any) -> dict[str, Any]:
    """Print a measurement as one JSON line, and return it."""
    machine = {"cpu": cpu_name(), "cores": prepare_cpu(), "versions": versions(), "commit": commit()}
    line = {"bench": name, "time": now(), **figures, **machine}
    print(json.dumps(line), flush=True)
    return line


def seconds(fn: Callable[[], Any], n_runs: int = 15, device: str = "cpu") -> dict[str, float]:
    """Median, least and largest wall time of a call, seconds, after two calls that do not count."""
    times = []
    for i in range(n_runs + 2):
        start = time.perf_counter()
        fn()
        if device != "cpu":
            torch.cuda.synchronize()
        if i >= 2:
            times.append(time.perf_counter() - start)
    return {"median": statistics.median(times), "min": min(times), "max": max(times)}
