"""One JSON line a measurement, with all that is needed to compare it: machine, versions, commit."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
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


class Rows:
    """The measurements of a bench, one JSON line each in a file; a bench that was stopped goes on where it was."""

    def __init__(self, path: Path):
        self._path = path
        self.each = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def has(self, what: dict[str, Any]) -> bool:
        """Whether a row says all of this."""
        return any(what.items() <= row.items() for row in self.each)

    def add(self, row: dict[str, Any]) -> None:
        """Append a row to the file, too."""
        self.each.append(row)
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")


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
