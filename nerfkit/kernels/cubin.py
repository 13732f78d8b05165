"""A Triton kernel as a program for one GPU: compiled by what Triton's wheel carries, started through the driver.

Triton's own start of a kernel has a piece in C that it builds on the user's machine, with gcc and Python's headers, for
which few installations are ready. The driver alone takes what Triton compiled just as well.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, CompiledKernel

_MAX_DYNAMIC_SHARED = 8
"""CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES"""

Types = Mapping[str, str | tuple[str, ...]]
"""Of a kernel's arguments in their order, as Triton writes them: ``*bf16`` points to bfloat16, ``i32`` is a number."""


def compile_for(
    capability: int, kernel: Any, types: Types, constants: Mapping[str, Any], n_warps: int
) -> CompiledKernel:
    """A kernel of Triton for GPUs of a compute capability (90 for 9.0), of which none need be here.

    Single pointers have to be multiples of 16; those in tuples may be any. Raises what Triton raises.
    """
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(types.values()) if str(kind).startswith("*")}
    signature = {**types, **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(kernel, signature, dict(constants), aligned)
    # Said outright, as the default of fusing a product and a sum depends on Triton's version.
    options = {"num_warps": n_warps, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def pack(arguments: Sequence[Tensor | int | None]) -> list[ctypes.c_void_p | ctypes.c_int32]:
    """Arguments as a kernel takes them: addresses, whole numbers, and at the end two scratch areas that it has not."""
    addresses = (a.data_ptr() if isinstance(a, Tensor) else a for a in arguments)
    kinds = (ctypes.c_int32 if isinstance(a, int) else ctypes.c_void_p for a in arguments)
    return [*(kind(a) for kind, a in zip(kinds, addresses, strict=True)), ctypes.c_void_p(), ctypes.c_void_p()]


class Program:
    """A compiled kernel on a GPU, ready to start."""

    def __init__(self, compiled: CompiledKernel, device: int):
        """Raises RuntimeError if the driver refuses it, OSError where there is no driver."""
        self._driver = driver = _driver()
        self._device, self._context, self._function = device, ctypes.c_void_p(), ctypes.c_void_p()
        self._n_threads, self._shared = 32 * compiled.metadata.num_warps, compiled.metadata.shared
        module, handle, resident = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_int()
        by_reference = ctypes.byref
        self._check(driver.cuDeviceGet(by_reference(handle), device))
        self._check(driver.cuDevicePrimaryCtxRetain(by_reference(self._context), handle))
        self._check(driver.cuCtxPushCurrent_v2(self._context))
        try:
            self._check(driver.cuModuleLoadData(by_reference(module), compiled.asm["cubin"]))
            name = compiled.metadata.name.encode()
            self._check(driver.cuModuleGetFunction(by_reference(self._function), module, name))
            self._check(driver.cuFuncSetAttribute(self._function, _MAX_DYNAMIC_SHARED, self._shared))
            occupancy = driver.cuOccupancyMaxActiveBlocksPerMultiprocessor
            size = ctypes.c_size_t(self._shared)
            self._check(occupancy(by_reference(resident), self._function, self._n_threads, size))
        finally:
            driver.cuCtxPopCurrent_v2(by_reference(ctypes.c_void_p()))
        self.n_resident = resident.value * torch.cuda.get_device_properties(device).multi_processor_count
        """How many the GPU holds at once."""

    def __call__(self, n_programs: int, arguments: Sequence[Tensor | int | None]) -> None:
        """Start so many on torch's stream, with tensors of this GPU; ``arguments`` in order, tuples unpacked.

        Raises RuntimeError if the driver refuses.
        """
        packed = pack(arguments)
        places = (ctypes.c_void_p * len(packed))(*(ctypes.addressof(value) for value in packed))
        stream = ctypes.c_void_p(torch.cuda.current_stream(self._device).cuda_stream)
        # A thread of autograd's may have no context yet.
        self._check(self._driver.cuCtxPushCurrent_v2(self._context))
        try:
            sizes = (n_programs, 1, 1, self._n_threads, 1, 1, self._shared)
            self._check(self._driver.cuLaunchKernel(self._function, *sizes, stream, places, None))
        finally:
            self._driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))

    def _check(self, result: int) -> None:
        if result:
            text = ctypes.c_char_p()
            self._driver.cuGetErrorString(result, ctypes.byref(text))
            raise RuntimeError(f"the CUDA driver says: {(text.value or b'error').decode()} ({result})")


@lru_cache
def _driver() -> ctypes.CDLL:
    driver = ctypes.CDLL("libcuda.so.1")
    if result := driver.cuInit(0):
        raise RuntimeError(f"the CUDA driver does not start ({result})")
    return driver
