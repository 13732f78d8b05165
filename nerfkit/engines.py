"""Which engine serves what on this machine: the choice and its reasons. What is missing, `doctor` tells."""

from __future__ import annotations

import shutil
import time
from functools import lru_cache
from typing import Literal

import torch

from nerfkit.config import FieldConfig
from nerfkit.fields import tcnn
from nerfkit.fields.hash import HashField
from nerfkit.torchrun import place

Engine = Literal["auto", "cpu", "cuda", "tinycudann", "nerfacc", "tinycudann+nerfacc"]
"""``cuda`` is ours alone; tiny-cuda-nn may compute encoding and networks in its place, nerfacc march and composite."""

_TRIED = 1 << 17
"""Positions by which networks are timed."""
_WORTH = 0.7
"""Share of our time below which tiny-cuda-nn is taken by itself: our own step, of which only a part is measured, never
waits for the device, and one through its modules does."""


class EngineError(RuntimeError):
    """An engine that was asked for and cannot work here: one sentence with the reason and what to do."""


def choose_device(engine: Engine) -> torch.device:
    """The device that serves an engine; ``auto`` takes CUDA where it works.

    Of several processes on a machine each computes on the GPU of its own number, which is "cuda" to it from then on.
    Raises EngineError if one is asked for that needs CUDA, and that is not there or has fewer GPUs than there are
    processes.
    """
    if engine != "cpu" and torch.cuda.is_available():
        here = place()
        if here.size > 1:
            if here.local_size > torch.cuda.device_count():
                found = f"{here.local_size} processes and {torch.cuda.device_count()} GPUs on this machine"
                raise EngineError(f"engine {engine}: {found}; start as many as there are GPUs, or use --engine cpu")
            torch.cuda.set_device(here.local_rank)
        return torch.device("cuda")
    if engine not in ("cpu", "auto"):
        raise EngineError(f"engine {engine}: {why_no_cuda()}; use --engine cpu, or see nerfkit doctor")
    return torch.device("cpu")


def resolve(engine: Engine, config: FieldConfig) -> Engine:
    """The engine itself for ``auto``: CUDA where it works, with tiny-cuda-nn where that is measured to be faster.

    nerfacc is taken only where it is asked for: its kernels may first have to be built, for minutes. Raises EngineError
    as `choose_device` does.
    """
    if choose_device(engine).type == "cpu":
        return "cpu"
    if engine != "auto":
        return engine
    return "cuda" if place().size > 1 else _fastest(config)  # several would each measure for themselves


def serve(field: HashField, engine: Engine) -> None:
    """Let a field's encoding and networks be computed by an engine that `resolve` named.

    Raises EngineError where it cannot.
    """
    if "tinycudann" not in engine:
        return
    try:
        sizes = field.density_network.sizes, field.color_network.sizes
        field.tcnn = tcnn.Tcnn(field.grid.layout, field.config, *sizes, tcnn.load())
    except tcnn.TcnnError as error:
        raise EngineError(f"engine {engine}: {error}; use --engine cuda, or see nerfkit doctor") from None


def explain(engine: Engine, config: FieldConfig | None = None) -> str:
    """One line for people: which engine was chosen and why. Raises EngineError as `choose_device` does."""
    together = f", in {place().size} processes" if place().size > 1 else ""
    if choose_device(engine).type == "cuda":
        taken = engine if config is None else resolve(engine, config)
        peers = {"tinycudann": "networks by tinycudann", "nerfacc": "marching and compositing by nerfacc"}
        by = "".join(f", {words}" for name, words in peers.items() if name in taken)
        return f"engine: CUDA on {torch.cuda.get_device_name()}{by}{together}"
    why = "as asked" if engine == "cpu" else why_no_cuda()
    return f"engine: CPU with {_threads()}{together} ({why})"


def why_no_cuda() -> str:
    """Why torch has no CUDA here, in half a sentence."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if shutil.which("nvidia-smi") is None:
        return "no NVIDIA driver is installed"
    return f"torch {torch.__version__}, built for CUDA {torch.version.cuda}, finds no GPU"


def _threads() -> str:
    number = torch.get_num_threads()
    return f"{number} thread{'s' if number > 1 else ''}"


@lru_cache
def _fastest(config: FieldConfig) -> Engine:
    """By the time that densities and their gradients take."""
    ours = _seconds(config, "cuda")
    try:
        theirs = _seconds(config, "tinycudann")
    except (EngineError, RuntimeError):  # out of memory, say: our own engine may still work
        return "cuda"
    return "tinycudann" if theirs < _WORTH * ours else "cuda"


def _seconds(config: FieldConfig, engine: Engine) -> float:
    """The median of a few, after some that prepare."""
    device = torch.device("cuda")
    field = HashField(config, device)
    serve(field, engine)
    positions, times = torch.rand(_TRIED, 3, device=device), []
    for _ in range(8):
        torch.cuda.synchronize()
        start = time.perf_counter()
        field.density(positions)[0].sum().backward()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times[3:])[2]
