"""Whole networks in one launch: by Triton's interpreter beside the twin, and compiled for GPUs that are not here."""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from compare import TOLERANCES
from torch import Tensor

triton = pytest.importorskip("triton", reason="Triton is not installed")

from nerfkit.kernels import check, cubin, fused, reference  # noqa: E402

DENSITY, COLOR, WIDE = (32, 64, 16), (32, 64, 3), (32, 128, 16)
NETWORKS = [DENSITY, COLOR, (32, 64, 64, 3), WIDE, (32, 32, 32, 32, 32, 16), (128, 32, 128), (27, 48, 5), (32, 16)]
SHARED = {80: 163 * 1024, 90: 227 * 1024, 120: 99 * 1024}
"""Bytes of shared memory that a program may have, by compute capability."""

# Triton decides when a kernel is defined whether it is interpreted, so another process is asked. bfloat16 cannot be
# tried so: the interpreter keeps it as 16-bit integers, and a dot multiplies those.
SCRIPT = """
import json, sys
import torch
from nerfkit.kernels import fused, reference
from nerfkit.kernels.check import relative_error

torch.use_deterministic_algorithms(True)  # what is allocated is NaN until it is written


class Interpreted:
    n_resident = 3

    def __init__(self, kernel, sizes, dtype, x_too, device):
        self.kernel, self.end = kernel, len(sizes)
        self.constants = fused.signature(kernel, sizes, dtype, x_too)[1]

    def __call__(self, n_programs, arguments):
        x, weights, rest = arguments[0], tuple(arguments[1 : self.end]), arguments[self.end :]
        self.kernel[(n_programs,)](x, weights, *rest, **self.constants)


fused._program = Interpreted


def errors(sizes, n, dtype, x_too, strided):
    torch.manual_seed(0)
    x, seed = (torch.randn(n, size).to(dtype) for size in (sizes[0], sizes[-1]))
    if strided:
        x, seed = (rows.t().contiguous().t() for rows in (x, seed))
    x.requires_grad_(x_too)
    weights = [(torch.randn(b, a) / a**0.5).requires_grad_() for a, b in zip(sizes, sizes[1:])]
    exact = torch.float64 if dtype == torch.float32 else dtype
    twins = [tensor.detach().to(exact if i == 0 or exact == torch.float64 else torch.float32).requires_grad_()
             for i, tensor in enumerate([x, *weights])]
    y, expected = fused.mlp(x, *weights), reference.mlp(*twins)
    assert y.dtype == dtype
    y.backward(seed)
    expected.backward(seed.to(exact))
    assert x_too or x.grad is None
    pairs = {"values": (y, expected)} | ({"x": (x.grad, twins[0].grad)} if x_too else {})
    pairs |= {f"weights {i}": (w.grad, twin.grad) for i, (w, twin) in enumerate(zip(weights, twins[1:]))}
    return {name: relative_error(*pair) for name, pair in pairs.items()}


print(json.dumps([errors(s, n, getattr(torch, kind), *rest) for s, n, kind, *rest in json.loads(sys.argv[1])]))
"""
CASES = [
    *((sizes, 300, kind, True, False) for sizes in NETWORKS for kind in ("float32", "float16")),
    *(((12, 20, 5), n, "float32", True, False) for n in (0, 1, 63, 64, 65)),
    ((12, 20, 5), 300, "float32", False, False),
    ((12, 20, 5), 300, "float16", True, True),
]


@pytest.fixture(scope="module")
def interpreted() -> dict[tuple[Any, ...], dict[str, float]]:
    """The relative errors of each case."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, json.dumps(CASES)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_values_and_gradients_are_those_of_the_twin(
    case: tuple[Any, ...], interpreted: dict[tuple[Any, ...], dict[str, float]]
) -> None:
    sizes, _, kind, x_too, _ = case
    errors = interpreted[case]
    assert len(errors) == 1 + x_too + len(sizes) - 1
    # A hidden number that is rounded to the other side differs by a whole unit of the format.
    limit = TOLERANCES[getattr(torch, kind)] * (2 if kind == "float16" else 1)
    assert {name: error for name, error in errors.items() if not error <= limit} == {}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder where what is compiled is kept, rather than with what another day left."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("triton")
        patch.setenv("TRITON_CACHE_DIR", str(folder))
        yield folder


@pytest.mark.parametrize("kernel", [fused._forward, fused._backward], ids=["forward", "backward"])
@pytest.mark.parametrize("capability", SHARED)
class TestCompiled:
    @pytest.mark.parametrize("sizes", [DENSITY, COLOR, WIDE, (128, 32, 128)], ids=str)
    def test_a_program_fits_into_the_gpu(self, kernel: Any, capability: int, sizes: Any, fresh: Path) -> None:
        compiled = fused.compiled(kernel, sizes, torch.bfloat16, True, capability)
        assert compiled.asm["cubin"][:4] == b"\x7fELF"
        assert compiled.metadata.shared <= SHARED[capability]

    @pytest.mark.parametrize("sizes", [DENSITY, COLOR], ids=str)
    def test_the_default_networks_stay_in_registers(
        self, kernel: Any, capability: int, sizes: Any, fresh: Path
    ) -> None:
        compiled = fused.compiled(kernel, sizes, torch.bfloat16, True, capability)
        file = fresh / "kernel.cubin"
        file.write_bytes(compiled.asm["cubin"])
        tool = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", str(file)]
        usage = subprocess.run(tool, capture_output=True, text=True, check=True).stdout
        registers, stack = map(int, re.search(r"REG:(\d+) STACK:(\d+)", usage).groups())
        assert registers <= 200 and stack == 0

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_it_takes_what_it_is_handed(self, kernel: Any, capability: int, dtype: torch.dtype, fresh: Path) -> None:
        compiled = fused.compiled(kernel, DENSITY, dtype, True, capability)
        entry = re.search(r"\.entry _\w+\((.*?)\)", compiled.asm["ptx"], re.S).group(1)
        rows = torch.zeros(1)
        handed = cubin.pack([rows] * (4 if kernel is fused._forward else 6) + [1])
        kinds = {ctypes.c_void_p: "u64", ctypes.c_int32: "u32"}
        assert re.findall(r"\.param \.(\w+)", entry) == [kinds[type(value)] for value in handed]


class Driver:
    """In the place of CUDA's: notes what is started, and whether the right context was there."""

    def __init__(self) -> None:
        self.contexts: list[Any] = []
        self.started: list[tuple[Any, ...]] = []
        self.values: list[int | None] = []
        self.refuses = False

    def __getattr__(self, name: str) -> Any:
        assert name.startswith("cu")
        return lambda *inputs: 0

    def cuCtxPushCurrent_v2(self, context: Any) -> int:
        self.contexts.append(context)
        return 0

    def cuCtxPopCurrent_v2(self, place: Any) -> int:
        self.contexts.pop()
        return 0

    def cuOccupancyMaxActiveBlocksPerMultiprocessor(self, place: Any, *inputs: Any) -> int:
        place._obj.value = 3
        return 0

    def cuLaunchKernel(self, function: Any, *inputs: Any) -> int:
        assert len(self.contexts) == 1
        *sizes, stream, places, _ = inputs
        kinds = [ctypes.c_void_p] * 4 + [ctypes.c_int32] + [ctypes.c_void_p] * 2
        self.values = [kind.from_address(place).value for kind, place in zip(kinds, places, strict=True)]
        self.started.append((*sizes, stream.value))
        return 719 if self.refuses else 0


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver()
    monkeypatch.setattr(cubin, "_driver", lambda: driver)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(multi_processor_count=10))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda i: SimpleNamespace(cuda_stream=7))
    return driver


class TestStart:
    @pytest.fixture
    def program(self, fresh: Path, driver: Driver) -> cubin.Program:
        return cubin.Program(fused.compiled(fused._forward, DENSITY, torch.bfloat16, False, 90), 0)

    def test_the_driver_gets_sizes_and_addresses(self, program: cubin.Program, driver: Driver) -> None:
        tensors = [torch.zeros(i) for i in range(1, 5)]
        program(20, [*tensors, 1000])
        assert program.n_resident == 30
        shared = fused.compiled(fused._forward, DENSITY, torch.bfloat16, False, 90).metadata.shared
        assert driver.started == [(20, 1, 1, 32 * fused.N_WARPS, 1, 1, shared, 7)]
        assert driver.values == [*(tensor.data_ptr() for tensor in tensors), 1000, None, None]
        assert driver.contexts == []

    def test_a_refusal_is_told_and_leaves_no_context(self, program: cubin.Program, driver: Driver) -> None:
        driver.refuses = True
        with pytest.raises(RuntimeError, match="719"):
            program(1, [torch.zeros(1)] * 4 + [1])
        assert driver.contexts == []


class TestTrial:
    def test_a_gpu_that_is_not_there_is_told(self) -> None:
        agrees, text = fused.trial(torch.device("cuda", 99))
        assert not agrees and text.startswith("its kernels do not run: ")

    def test_equal_networks_pass(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fused, "mlp", reference.mlp)
        agrees, text = fused.trial.__wrapped__(torch.device("cpu"))
        assert agrees and "9 comparisons" in text

    def test_a_network_without_a_layer_s_relu_does_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def linear(x: Tensor, *weights: Tensor) -> Tensor:
            for w in weights:
                x = x @ w.to(x.dtype).T
            return x

        monkeypatch.setattr(fused, "mlp", linear)
        errors = check.compare_networks(torch.device("cpu"))
        assert min(errors.values()) > 0.1
        assert not fused.trial.__wrapped__(torch.device("cpu"))[0]


@pytest.mark.parametrize(
    ("sizes", "dtype", "taken"),
    [
        (DENSITY, torch.bfloat16, True),
        ((128, 32, 128), torch.float16, True),
        (DENSITY, torch.float32, False),
        ((129, 16), torch.bfloat16, False),
        ((32, 128, 128, 16), torch.bfloat16, False),
    ],
)
def test_small_networks_of_half_precision_are_taken(
    sizes: tuple[int, ...], dtype: torch.dtype, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "trial", lambda device: (True, ""))
    assert fused.serves(sizes, dtype, torch.device("cuda", 0)) == taken


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
class TestOnCuda:
    device = torch.device("cuda", 0)

    def test_it_agrees_with_its_twin(self) -> None:
        agrees, text = fused.trial(self.device)
        assert agrees, text

    def test_it_gives_the_same_numbers_each_time(self) -> None:
        x = torch.randn(100_000, 32, device=self.device, dtype=torch.bfloat16)
        weights = [torch.randn(b, a, device=self.device).requires_grad_() for a, b in ((32, 64), (64, 16))]
        runs = [torch.autograd.grad(fused.mlp(x, *weights).sum(), weights) for _ in range(2)]
        assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))
