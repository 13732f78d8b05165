"""Which engine serves what on this machine: the choice, the reasons, and ``nerfkit doctor``."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from nerfkit.torchrun import place

TOLERANCE = 1e-2
"""Largest relative error at which a kernel still agrees with its reference: that of half precision, with room."""

TCNN_SOURCE = "git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch"


class EngineError(RuntimeError):
    """An engine that was asked for and cannot work here: one sentence with the reason and what to do."""


@dataclass(frozen=True)
class Finding:
    """What `examine` found out about one engine."""

    name: str
    present: bool
    """Whether it works here."""
    detail: str
    """What was found, or why it does not work."""
    install: str | None = None
    """The line that would make it work, where one would."""


def choose_device(engine: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device that serves an engine; ``auto`` takes CUDA where it works.

    Of several processes on a machine each computes on the GPU of its own number, which is "cuda" to it from then on.
    Raises EngineError if ``cuda`` is asked for and is not there, or has fewer GPUs than there are processes.
    """
    if engine != "cpu" and torch.cuda.is_available():
        here = place()
        if here.size > 1:
            if here.local_size > torch.cuda.device_count():
                found = f"{here.local_size} processes and {torch.cuda.device_count()} GPUs on this machine"
                raise EngineError(f"engine {engine}: {found}; start as many as there are GPUs, or use --engine cpu")
            torch.cuda.set_device(here.local_rank)
        return torch.device("cuda")
    if engine == "cuda":
        raise EngineError(f"engine cuda: {_why_no_cuda()}; use --engine cpu, or see nerfkit doctor")
    return torch.device("cpu")


def explain(engine: Literal["auto", "cpu", "cuda"]) -> str:
    """One line for people: which engine was chosen and why. Raises EngineError as `choose_device` does."""
    together = f", in {place().size} processes" if place().size > 1 else ""
    if choose_device(engine).type == "cuda":
        return f"engine: CUDA on {torch.cuda.get_device_name()}{together}"
    why = "as asked" if engine == "cpu" else _why_no_cuda()
    return f"engine: CPU with {_threads()}{together} ({why})"


def examine() -> list[Finding]:
    """Try every engine: what is there, what is not and why. Takes seconds: kernels are compiled and compared."""
    return [check() for check in CHECKS]


def _threads() -> str:
    number = torch.get_num_threads()
    return f"{number} thread{'s' if number > 1 else ''}"


def _why_no_cuda() -> str:
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if shutil.which("nvidia-smi") is None:
        return "no NVIDIA driver is installed"
    return f"torch {torch.__version__}, built for CUDA {torch.version.cuda}, finds no GPU"


def _compare(device: str) -> tuple[bool, str]:
    """Kernels against their plain twins on one device: whether all agree, and the worst in words."""
    from nerfkit.kernels import self_check  # imports Warp, which the other checks do without

    errors = self_check(torch.device(device))
    worst = max(errors, key=errors.__getitem__)
    text = f"{len(errors)} comparisons with the reference, largest relative error {errors[worst]:.1e} ({worst})"
    return all(error < TOLERANCE for error in errors.values()), text


def _warp(device: str, name: str) -> Finding:
    try:
        agrees, text = _compare(device)
    except ImportError as error:
        return Finding(name, False, str(error), "pip install warp-lang" if error.name == "warp" else None)
    except Exception as error:  # whatever a compiler or a driver may say: the doctor reports, it does not fall ill
        return Finding(name, False, f"its kernels do not run: {_first_line(error)}")
    version = importlib.metadata.version("warp-lang")
    return Finding(name, agrees, f"warp {version}; {text}" + ("" if agrees else ": this is wrong, please report it"))


def _warp_cpu() -> Finding:
    return _warp("cpu", "Warp kernels on the CPU")


def _cuda() -> Finding:
    name = "CUDA in torch"
    if torch.cuda.is_available():
        capability = ".".join(map(str, torch.cuda.get_device_capability()))
        return Finding(
            name, True, f"{torch.cuda.get_device_name()}, capability {capability}, CUDA {torch.version.cuda}"
        )
    without = torch.version.cuda is None
    install = "pip install --force-reinstall torch  (from an index whose build is for CUDA)" if without else None
    return Finding(name, False, _why_no_cuda(), install)


def _warp_cuda() -> Finding:
    name = "Warp kernels on CUDA"
    if not torch.cuda.is_available():
        return Finding(name, False, "needs CUDA in torch")
    return _warp("cuda", name)


def _tinycudann() -> Finding:
    name = "tinycudann"
    line = "conda install -c conda-forge tiny-cuda-nn"
    if torch.cuda.is_available():
        architecture = "".join(map(str, torch.cuda.get_device_capability()))
        line += f"  or  TCNN_CUDA_ARCHITECTURES={architecture} pip install --no-build-isolation '{TCNN_SOURCE}'"
    if importlib.util.find_spec("tinycudann") is None:
        why = "not installed" if torch.cuda.is_available() else "not installed; it needs an NVIDIA GPU"
        return Finding(name, False, why, line)
    try:
        import tinycudann  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:  # OSError is what it raises without a GPU
        return Finding(name, False, f"installed, but not usable: {_first_line(error)}", line)
    return Finding(name, True, "installed and loaded")


def _nerfacc() -> Finding:
    name = "nerfacc"
    if importlib.util.find_spec("nerfacc") is None:
        return Finding(name, False, "not installed", "pip install nerfacc")
    version = importlib.metadata.version("nerfacc")
    if not torch.cuda.is_available():
        return Finding(name, False, f"{version} is installed; its kernels need an NVIDIA GPU")
    # Loading its kernels may build them, for minutes: the doctor only says whether that could work.
    if shutil.which("nvcc") is None:
        why = f"{version} is installed; its kernels are built at first use, by nvcc, which is missing"
        return Finding(name, False, why, "conda install -c nvidia cuda-nvcc")
    return Finding(name, True, f"{version}; its kernels are built at first use, which takes minutes")


def _bf16() -> Finding:
    """Whether half precision pays on this CPU: asked of the clock, for flags of the processor tell only half of it."""
    name = "bf16 matmuls in hardware"
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.ones(size, dtype=dtype) for size in ((4096, 64), (64, 64)))
        times = []
        for _ in range(30):
            start = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - start)
        seconds[dtype] = sorted(times)[5]
    gain = seconds[torch.float32] / seconds[torch.bfloat16]
    return Finding(name, gain > 1.2, f"a product of 4096x64 and 64x64 is {gain:.1f} times as fast in bf16 as in fp32")


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


CHECKS: tuple[Callable[[], Finding], ...] = (_warp_cpu, _bf16, _cuda, _warp_cuda, _tinycudann, _nerfacc)
