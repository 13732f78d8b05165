"""Launching Warp kernels: over all cores on a CPU, on torch's stream on CUDA.

Warp runs a CPU launch in one thread and releases the interpreter lock meanwhile; torch's own threads wait for one
another after every small operation, which costs most of the time as soon as anything else runs on the machine. So on a
CPU the parallelism is ours and coarse: `parallel` gives whole tasks (a few thousand rays, forward and backward) to
one thread each, in which torch and Warp run single-threaded; `launch` outside of such a task cuts its range into parts.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, TypeVar, no_type_check

import torch
import warp as wp
from torch import Tensor

Item = TypeVar("Item")
Result = TypeVar("Result")

wp.config.log_level = wp.LOG_ERROR
wp.config.enable_backward = False


def _start_warp() -> None:
    """Start Warp; without a GPU it writes a warning about that past Python to standard error, which is held back."""
    if torch.cuda.is_available():
        wp.init()
        return
    sys.stderr.flush()
    standard_error = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        wp.init()
    finally:
        os.dup2(standard_error, 2)
        os.close(standard_error)


_start_warp()

_WARP_TYPES = {
    torch.float32: wp.float32,
    torch.bfloat16: wp.bfloat16,
    torch.float16: wp.float16,
    torch.int32: wp.int32,
    torch.int64: wp.int64,
    torch.uint8: wp.uint8,
}
_here = threading.local()


@lru_cache
def prepare_cpu() -> int:
    """Set this process up for coarse parallelism, once; returns the number of worker threads (torch's, as found).

    Torch's own threading is turned off, and freed memory is kept for the next step: handing hundreds of megabytes back
    to the system at every step costs more in page faults than the arithmetic on them.
    """
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # not glibc
        return n_threads
    for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
        mallopt(option, 1 << 30)
    return n_threads


def hand_back_memory() -> None:
    """Give freed memory back to the system, which `prepare_cpu` keeps: when something large ends and another begins."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):  # not glibc
        return


def _start_worker() -> None:
    torch.set_num_threads(1)


@lru_cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(prepare_cpu(), "nerfkit", _start_worker)


def current_task() -> int:
    """Index of the `parallel` task that this thread runs, -1 outside of one."""
    return getattr(_here, "task", -1)


def parallel(fn: Callable[[Item], Result], items: Iterable[Item], device: torch.device) -> list[Result]:
    """``[fn(item) for item in items]``, on a CPU with one core for each; an exception of a task is raised here."""
    if device.type != "cpu" or current_task() >= 0:
        return [fn(item) for item in items]

    def run(task: tuple[int, Item]) -> Result:
        _here.task = task[0]
        try:
            return fn(task[1])
        finally:
            _here.task = -1

    return list(_pool().map(run, enumerate(items)))


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The same numbers on a device; on the way to CUDA the host need not wait for them to arrive."""
    if device.type == "cpu" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def array(tensor: Tensor, dtype: Any = None) -> Any:
    """A Warp view of a contiguous tensor, without a copy; it keeps the tensor's memory.

    ``dtype`` may be a vector type that spans the last dimension (``wp.vec3f`` for (..., 3) float32).
    """
    tensor = tensor.detach()
    view = wp.from_torch(tensor, dtype=dtype or _WARP_TYPES[tensor.dtype], return_ctype=True)
    view.tensor = tensor
    return view


@lru_cache
def _stream(stream: Any) -> wp.Stream:
    """Warp's view of one of torch's streams, made once: it takes as long as a launch."""
    return wp.stream_from_torch(stream)


def launch(kernel: wp.Kernel, n: int, inputs: list[Any], device: torch.device, n_parts: int = 0) -> None:
    """Run ``kernel(first, *inputs)`` for the n indices ``first + wp.tid()``; tensors are viewed by `array`.

    On a CPU the range is cut into ``n_parts`` parts (default: two for each core); no kernel may write what another
    index writes, so that the result does not depend on the number of threads.
    """
    if n == 0:
        return
    inputs = [array(x) if isinstance(x, Tensor) else x for x in inputs]
    if device.type != "cpu":
        wp.launch(kernel, dim=n, inputs=[0, *inputs], stream=_stream(torch.cuda.current_stream(device)))
        return
    n_parts = 1 if current_task() >= 0 else min(n_parts or 2 * prepare_cpu(), n)
    bounds = [n * i // n_parts for i in range(n_parts + 1)]

    def part(i: int) -> None:
        wp.launch(kernel, dim=bounds[i + 1] - bounds[i], inputs=[bounds[i], *inputs], device="cpu")

    parallel(part, range(n_parts), device)


class Native:
    """C++ text that one CPU core runs on tensors and numbers of given names, with little to do for the interpreter.

    Warp takes some ten microseconds for each tensor that it is given, many times that where its own code has left the
    cache; a kernel that holds half of a training step would spend a third of its time so. Here it is given the
    addresses in one array and the numbers in another. ``head`` defines the types that ``tensors`` and ``numbers`` name.
    """

    def __init__(self, head: str, body: str, tensors: dict[str, str], numbers: dict[str, str]):
        lines = [f"{kind}* const {name} = ({kind}*)addresses_[{i}];" for i, (name, kind) in enumerate(tensors.items())]
        lines += [f"const {kind} {name} = ({kind})numbers_[{i}];" for i, (name, kind) in enumerate(numbers.items())]
        base = "const long long* addresses_ = (const long long*)addresses.data;\n"
        base += "const double* numbers_ = (const double*)numbers.data;\n"

        @wp.func_native(head + base + "\n".join(lines) + body)
        @no_type_check
        def run(addresses: wp.array(dtype=wp.int64), numbers: wp.array(dtype=wp.float64)): ...

        @wp.kernel(module="unique", grid_stride=False)
        @no_type_check
        def kernel(first: int, addresses: wp.array(dtype=wp.int64), numbers: wp.array(dtype=wp.float64)):
            run(addresses, numbers)

        self._kernel = kernel

    def __call__(self, tensors: Sequence[Tensor], numbers: Sequence[float | int]) -> None:
        """Run the text; tensors are contiguous, in the order of their names, and not checked."""
        addresses = torch.tensor([tensor.data_ptr() for tensor in tensors])
        values = torch.tensor(numbers, dtype=torch.float64)
        launch(self._kernel, 1, [array(addresses, wp.int64), array(values, wp.float64)], addresses.device)
