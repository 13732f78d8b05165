"""Kernels agree with their twins on processors other than this one, whose instructions the compiler is told to use."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest
import torch

from nerfkit.doctor import TOLERANCE

SCRIPT = """
import json, sys
import warp as wp

wp.config.cpu_compiler_flags = sys.argv[1]
import torch
from nerfkit.kernels import self_check

print(json.dumps(self_check(torch.device("cpu"))))
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names of x86 processors")
@pytest.mark.parametrize("flags", ["", "-target-cpu haswell"], ids=["any", "haswell"])
def test_an_older_processor_computes_the_same(flags: str) -> None:
    if flags and torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("this processor has no AVX2")
    done = subprocess.run([sys.executable, "-c", SCRIPT, flags], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    errors = json.loads(done.stdout)
    assert len(errors) > 30
    assert {name: error for name, error in errors.items() if not error < TOLERANCE} == {}
