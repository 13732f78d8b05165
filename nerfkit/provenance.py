"""Where a number comes from: versions, commit, device and settings, as plain data.

Every run keeps this once, and every ``metrics.json`` again, so that no figure travels without it.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import math
import platform
import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nerfkit.config import Config, to_dict
from nerfkit.torchrun import place


def versions() -> dict[str, str | None]:
    """Versions of what computes; None for a package that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version(), "torch": torch.__version__}
    for key, package in (("nerfkit", "nerfkit"), ("warp", "warp-lang"), ("numpy", "numpy")):
        try:
            found[key] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[key] = None
    return found


@functools.cache
def commit() -> str | None:
    """Git commit of the source that runs, with ``+changes`` where files differ from it; None outside a checkout."""
    source = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(source), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        top, head = git("rev-parse", "--show-toplevel", "HEAD").split("\n")
        # An environment inside somebody's own checkout would otherwise lend us that project's commit.
        if Path(top).resolve() != source:
            return None
        return head + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def cpu_name() -> str:
    """Name of the processor as the system tells it."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def device_name(config: Config) -> str:
    """What a run of these settings computes on: the GPU's name and number where one is used, else the processor's."""
    if config.engine != "cpu" and torch.cuda.is_available():
        n_gpus = place().size
        return f"{n_gpus} x {torch.cuda.get_device_name()}" if n_gpus > 1 else torch.cuda.get_device_name()
    return cpu_name()


def config_hash(config: Config) -> str:
    """Sixteen hexadecimal digits that are equal exactly where all settings are."""
    return digest(json.dumps(to_dict(config), sort_keys=True).encode())[:16]


def plain(value: Any) -> Any:
    """Turn a record into what JSON holds: arrays become lists, paths text, infinities and NaN null.

    Raises TypeError for anything else.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(f"{type(value).__name__} has no place in a JSON record: {value!r}")


def digest(data: bytes) -> str:
    """BLAKE2b checksum, 32 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def now() -> str:
    """The time, UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def provenance(config: Config, command: list[str]) -> dict[str, Any]:
    """What a training by ``command`` with these settings runs on, as of now."""
    return {
        "command": command,
        "created": now(),
        "seed": config.train.seed,
        "config_hash": config_hash(config),
        "engine": config.engine,
        "device": device_name(config),
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "versions": versions(),
        "commit": commit(),
    }
