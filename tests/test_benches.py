"""Every bench can be started: what stands beside it hides no package from it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

BENCHES = Path(__file__).parents[1] / "tools" / "bench"

IMPORTS = """
import importlib, sys
sys.path[0] = sys.argv[1]
for name in sys.argv[2:]:
    importlib.import_module(name)
"""


def test_benches_find_what_they_import_with_their_own_folder_first() -> None:
    names = ["torch", *sorted(path.stem for path in BENCHES.glob("*.py"))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(BENCHES.parents[1])}
    command = [sys.executable, "-c", IMPORTS, str(BENCHES), *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stderr
