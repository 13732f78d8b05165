"""The benchmark of CUDA runs through the CPU's form, so that it is ready where a GPU is lent for a few minutes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "tools" / "bench" / "cuda.py"
SMALL = "--device cpu --log2-points 9 --steps 20 --samples-per-step 4096 --budgets 1".split()


def run(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(BENCH.parents[2])}
    command = [sys.executable, str(BENCH), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


def test_every_part_tells_its_figures(toy_scene: Path, tmp_path: Path) -> None:
    done = run(str(toy_scene), *SMALL, "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    failed = {row["part"]: row["failed"] for row in rows if "failed" in row}
    # Networks in one kernel are CUDA's, and so is tinycudann, whose step stands beside ours.
    assert set(failed) == {"networks", "step"} and "tinycudann" in failed["step"], failed
    told = {part: [row for row in rows if row["part"] == part] for part in {row["part"] for row in rows}}
    assert told["checks"][0]["error"] < 1e-2 and len(told["grid"]) == 4 and len(told["doctor"]) > 4
    assert told["step"][0]["ms"] > 0 and told["train"][0]["psnr"] > 5 and told["profile"][0]["kernels"]
    assert told["render"][0]["frames_per_second"] > 0 and told["render"][0]["cpu_likeness_db"] > 100


def test_without_a_gpu_one_sentence_says_so(toy_scene: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = run(str(toy_scene))
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "finds no GPU" in done.stderr
