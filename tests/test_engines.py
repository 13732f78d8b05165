"""The choice of an engine, and the doctor."""

from __future__ import annotations

import builtins
import sys
from types import ModuleType
from typing import Any

import pytest
import torch

from nerfkit import engines
from nerfkit.engines import EngineError, choose_device, examine, explain

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")


def test_the_cpu_is_always_there() -> None:
    assert choose_device("cpu").type == "cpu"
    assert "CPU" in explain("cpu") and "as asked" in explain("cpu")


@without_cuda
def test_auto_is_the_cpu_where_there_is_no_cuda_and_says_why() -> None:
    assert choose_device("auto").type == "cpu"
    assert "CPU" in explain("auto") and "as asked" not in explain("auto")


@without_cuda
def test_cuda_that_is_not_there_is_told() -> None:
    with pytest.raises(EngineError, match="engine cuda: .*; use --engine cpu"):
        choose_device("cuda")


def test_auto_takes_cuda_where_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda"
    assert choose_device("cpu").type == "cpu"


def test_the_doctor_finds_the_kernels_right() -> None:
    findings = {finding.name: finding for finding in examine()}
    assert len(findings) == len(engines.CHECKS)
    assert findings["Warp kernels on the CPU"].present, findings["Warp kernels on the CPU"].detail
    assert all(finding.detail for finding in findings.values())


def test_the_doctor_notices_wrong_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nerfkit.kernels.self_check", lambda device: {"march": 1e-7, "composite": 0.3})
    finding = engines._warp_cpu()
    assert not finding.present
    assert "3.0e-01 (composite)" in finding.detail


@pytest.mark.parametrize("agrees", [True, False])
def test_the_doctor_says_what_the_trial_of_networks_found(agrees: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    fused = ModuleType("fused")
    fused.trial = lambda device: (agrees, "2 comparisons")
    monkeypatch.setitem(sys.modules, "nerfkit.kernels.fused", fused)
    monkeypatch.setattr("nerfkit.kernels.fused", fused, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    finding = engines._triton()
    assert finding.present == agrees
    assert finding.detail == "2 comparisons" + ("" if agrees else "; networks are torch's products")


def test_the_doctor_names_triton_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "nerfkit.kernels.fused", None)
    monkeypatch.delattr("nerfkit.kernels.fused", raising=False)
    assert engines._triton().install == "pip install triton"


def test_the_doctor_survives_kernels_that_do_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(device: torch.device) -> dict[str, float]:
        raise RuntimeError("no compiler\nand more")

    monkeypatch.setattr("nerfkit.kernels.self_check", fail)
    finding = engines._warp_cpu()
    assert not finding.present and finding.detail == "its kernels do not run: no compiler"


def test_tinycudann_that_cannot_load_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name == "tinycudann":
            raise OSError("Unknown compute capability")
        return load(name, *rest, **more)

    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.delitem(sys.modules, "tinycudann", raising=False)
    finding = engines._tinycudann()
    assert not finding.present
    assert "Unknown compute capability" in finding.detail and "conda install" in finding.install
