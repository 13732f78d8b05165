"""``nerfkit doctor``: every engine tried, what is missing and why, and the line that would bring it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from nerfkit.engines import why_no_cuda

TOLERANCE = 1e-2
"""Largest relative error at which a kernel still agrees with its reference: that of half precision, with room."""

TCNN_SOURCE = "git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch"


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


def examine() -> list[Finding]:
    """Try every engine: what is there, what is not and why. Takes seconds: kernels are compiled and compared."""
    return [check() for check in CHECKS]


def _compare(device: str) -> tuple[bool, str]:
    """Kernels against their plain twins on one device: whether all agree, and the worst in words."""
    from nerfkit.kernels import self_check  # imports Warp, which the other checks do without

    errors = self_check(torch.device(device))
    worst = max(errors, key=errors.__getitem__)
    text = f"{len(errors)} comparisons with the reference, largest relative error {errors[worst]:.1e} ({worst})"
    return all(error < TOLERANCE for error in errors.values()), text


def _warp(device: str, name: str) -> Finding:
    try:
        import warp

        agrees, text = _compare(device)
    except ImportError as error:
        return Finding(name, False, str(error), "pip install warp-lang" if error.name == "warp" else None)
    except Exception as error:  # whatever a compiler or a driver may say: the doctor reports, it does not fall ill
        return Finding(name, False, f"its kernels do not run: {_first_line(error)}")
    text = f"warp {warp.__version__}; {text}"
    return Finding(name, agrees, text if agrees else f"{text}: this is wrong, please report it")


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
    return Finding(name, False, why_no_cuda(), install)


def _warp_cuda() -> Finding:
    name = "Warp kernels on CUDA"
    if not torch.cuda.is_available():
        return Finding(name, False, "needs CUDA in torch")
    return _warp("cuda", name)


def _triton() -> Finding:
    name = "Triton networks on CUDA"
    if not torch.cuda.is_available():
        return Finding(name, False, "needs CUDA in torch")
    try:
        from nerfkit.kernels import fused
    except ImportError as error:
        return Finding(name, False, f"{error}; networks are torch's products", "pip install triton")
    agrees, text = fused.trial(torch.device("cuda", torch.cuda.current_device()))
    return Finding(name, agrees, text if agrees else f"{text}; networks are torch's products")


_TCNN_SAYS = (
    (r"Unknown compute capability", "it looks for a GPU when it loads, and torch sees none here"),
    (r"compatible tinycudann extension|no kernel image", "it was built for another kind of GPU than this one"),
    (r"undefined symbol|lib(cudart|c10|torch)", "it was built for another version of torch or of CUDA"),
    (r"libcuda\.so", "the driver's library libcuda.so is not where programs look for it (LD_LIBRARY_PATH)"),
)
"""What its errors mean, by what they say."""


def _tinycudann() -> Finding:
    name, line = "tinycudann", _tcnn_line()
    if importlib.util.find_spec("tinycudann") is None:
        if not torch.cuda.is_available():
            return Finding(name, False, "not installed; it needs an NVIDIA GPU", line)
        obstacles = _obstacles()
        build = f"; a build of it would fail: {', '.join(obstacles)}" if obstacles else "; a build of it could work"
        return Finding(name, False, f"not installed{build}", line)
    try:
        import tinycudann  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:  # OSError is what it raises without a GPU
        said = _first_line(error)
        meaning = next((f": {text}" for pattern, text in _TCNN_SAYS if re.search(pattern, said)), "")
        return Finding(name, False, f"installed, but not usable ({said}){meaning}", line)
    return Finding(name, True, "installed and loaded")


def _tcnn_line() -> str:
    """What to type: a package that is built already, or a build for this GPU, which must see the torch that is here."""
    line = "conda install -c conda-forge tiny-cuda-nn"
    if torch.cuda.is_available():
        architecture = "".join(map(str, torch.cuda.get_device_capability()))
        line += f"  or  TCNN_CUDA_ARCHITECTURES={architecture} pip install --no-build-isolation '{TCNN_SOURCE}'"
    return line


def _obstacles() -> list[str]:
    """What a build of CUDA code would stumble over here, each in a few words."""
    found, release = [], _nvcc_release()
    if release is None:
        found.append("there is no nvcc")
    elif torch.version.cuda is not None and release.split(".")[0] != torch.version.cuda.split(".")[0]:
        found.append(f"nvcc is of CUDA {release} and torch of {torch.version.cuda}")
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        found.append("there is no C++ compiler")
    return found


def _nvcc_release() -> str | None:
    """Of which CUDA the nvcc on the path is, such as 12.8; None without one."""
    if shutil.which("nvcc") is None:
        return None
    said = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"release (\d+\.\d+)", said)
    return found[1] if found else "an unknown version"


def _nerfacc() -> Finding:
    name = "nerfacc"
    if importlib.util.find_spec("nerfacc") is None:
        return Finding(name, False, "not installed", "pip install nerfacc")
    version = importlib.metadata.version("nerfacc")
    if not torch.cuda.is_available():
        return Finding(name, False, f"{version} is installed; its kernels need an NVIDIA GPU")
    if importlib.util.find_spec("nerfacc.csrc") is not None:
        return Finding(name, True, f"{version}, with kernels that were built with it")
    # Loading its kernels may build them, for minutes: the doctor only says whether that could work.
    obstacles = _obstacles() + ([] if shutil.which("ninja") else ["there is no ninja"])
    if obstacles:
        why = f"{version} is installed; its kernels are built at first use, and {', '.join(obstacles)}"
        return Finding(name, False, why, "conda install -c nvidia cuda-nvcc ninja")
    lock = Path(_build_folder()) / "lock"
    if lock.exists():
        why = f"{version} is installed; a build of its kernels was broken off, and the next would wait for it for ever"
        return Finding(name, False, why, f"rm -r {lock.parent}")
    return Finding(name, True, f"{version}; its kernels are built at first use, which takes minutes")


def _build_folder() -> str:
    """Where torch builds nerfacc's kernels; a folder that is not there is none."""
    from torch.utils.cpp_extension import get_default_build_root

    built = Path(get_default_build_root())
    found = sorted(built.glob("**/nerfacc_cuda"))
    return str(found[-1] if found else built / "nerfacc_cuda")


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


CHECKS: tuple[Callable[[], Finding], ...] = (_warp_cpu, _bf16, _cuda, _warp_cuda, _triton, _tinycudann, _nerfacc)
