"""Every Warp kernel that CUDA runs compiles for it: no GPU is needed for that, as Warp carries NVIDIA's compiler."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import pytest
import warp as wp
from warp._src import context

import nerfkit.kernels
from nerfkit.kernels import corners, reached

ARCHITECTURES = (75, 90, 120)
WORDS = (wp.float32, wp.float16, wp.bfloat16)


def modules() -> dict[str, wp.Module]:
    """By a name: those of the kernels that stand in a file, and those of the kernels that are made when asked for."""
    found: dict[str, wp.Module] = {}
    for file in pkgutil.iter_modules(nerfkit.kernels.__path__):
        for kernel in vars(importlib.import_module(f"nerfkit.kernels.{file.name}")).values():
            if isinstance(kernel, wp.Kernel):
                found[kernel.module.name] = kernel.module
    for word, n in zip(WORDS, (1, 2, 4), strict=True):
        found[f"gather {n} {word.__name__}"] = corners.kernel_of(corners.GATHER, n, word).module
        found[f"gather rounded {n} {word.__name__}"] = corners.kernel_of(corners.GATHER, n, word, wp.float16).module
        found[f"scatter {n} {word.__name__}"] = corners.kernel_of(corners.SCATTER, n, word).module
    for word in WORDS:
        makers = (reached.join_of, reached.counting_of, reached.listing_of, reached.adding_of, reached.returning_of)
        each = [of(word) for of in makers]
        found |= {f"{kernel.key} {word.__name__}": kernel.module for kernel in each}
    found["scatter 8"] = corners.kernel_of(corners.SCATTER, 8, wp.bfloat16).module
    return found


MODULES = modules()


def compiled(module: wp.Module, architecture: int, folder: Path) -> list[str]:
    """Names of the files that hold its kernels for GPUs of a compute capability."""
    wp.compile_aot_module(module, arch=architecture, module_dir=folder, use_ptx=True)
    return [path.name for path in folder.glob("*.ptx")]


pytestmark = pytest.mark.skipif(
    not context.runtime.nvrtc_supported_archs, reason="this build of Warp carries no compiler for CUDA"
)


@pytest.mark.parametrize("name", MODULES)
def test_a_kernel_compiles_for_cuda(name: str, tmp_path: Path) -> None:
    for architecture in ARCHITECTURES:
        assert compiled(MODULES[name], architecture, tmp_path / str(architecture))


def test_memory_is_asked_for_whole_entries(tmp_path: Path) -> None:
    compiled(MODULES["gather rounded 4 bfloat16"], 80, tmp_path / "gather")
    compiled(MODULES["scatter 4 bfloat16"], 80, tmp_path / "old")
    compiled(MODULES["scatter 4 bfloat16"], 90, tmp_path / "new")
    gather, old, new = (next((tmp_path / name).glob("*.ptx")).read_text() for name in ("gather", "old", "new"))
    assert gather.count("ld.global.v4.u16") == 8 and gather.count("st.global.v4.u16") == 1
    assert new.count("add.v4.f32") == 8 and "add.v4.f32" not in old
    assert old.count("atom.global.add.f32") + old.count("red.global.add.f32") == 32


def test_what_is_no_cuda_does_not_compile(tmp_path: Path) -> None:
    @wp.func_native("no_such_function();")
    def broken() -> None: ...

    @wp.kernel(module="unique")
    def kernel() -> None:
        broken()

    with pytest.raises(Exception, match="failed"):
        compiled(kernel.module, ARCHITECTURES[0], tmp_path)
