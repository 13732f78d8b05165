"""The doctor: what works here, why others do not, and what to type."""

from __future__ import annotations

import builtins
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from nerfkit import doctor
from nerfkit.doctor import examine


def test_the_doctor_finds_the_kernels_right() -> None:
    findings = {finding.name: finding for finding in examine()}
    assert len(findings) == len(doctor.CHECKS)
    assert findings["Warp kernels on the CPU"].present, findings["Warp kernels on the CPU"].detail
    assert all(finding.detail for finding in findings.values())


def test_the_doctor_notices_wrong_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nerfkit.kernels.self_check", lambda device: {"march": 1e-7, "composite": 0.3})
    finding = doctor._warp_cpu()
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
    finding = doctor._triton()
    assert finding.present == agrees
    assert finding.detail == "2 comparisons" + ("" if agrees else "; networks are torch's products")


def test_the_doctor_names_triton_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "nerfkit.kernels.fused", None)
    monkeypatch.delattr("nerfkit.kernels.fused", raising=False)
    assert doctor._triton().install == "pip install triton"


def test_the_doctor_survives_kernels_that_do_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(device: torch.device) -> dict[str, float]:
        raise RuntimeError("no compiler\nand more")

    monkeypatch.setattr("nerfkit.kernels.self_check", fail)
    finding = doctor._warp_cpu()
    assert not finding.present and finding.detail == "its kernels do not run: no compiler"


@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        ("Unknown compute capability. Ensure PyTorch", "torch sees none here"),
        ("Could not find compatible tinycudann extension for compute capability 90.", "for another kind of GPU"),
        ("_C.so: undefined symbol: _ZN3c104cuda9SetDeviceEi", "another version of torch or of CUDA"),
        ("libcuda.so.1: cannot open shared object file", "LD_LIBRARY_PATH"),
        ("something else\nand more", r"\(something else\)$"),
    ],
)
def test_tinycudann_that_cannot_load_is_explained(said: str, meaning: str, monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name == "tinycudann":
            raise OSError(said)
        return load(name, *rest, **more)

    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.delitem(sys.modules, "tinycudann", raising=False)
    finding = doctor._tinycudann()
    assert not finding.present and "conda install" in finding.install
    assert re.search(meaning, finding.detail)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.version, "cuda", "12.8")


def tools(monkeypatch: pytest.MonkeyPatch, release: str | None, *names: str) -> None:
    """Let these programs be on the path, and nvcc be of a release."""
    there = {*names, *(["nvcc"] if release else [])}
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/usr/bin/{name}" if name in there else None)
    said = f"Cuda compilation tools, release {release}, V{release}.61"
    monkeypatch.setattr(
        doctor.subprocess, "run", lambda *a, **k: subprocess.CompletedProcess([], 0, stdout=said, stderr="")
    )


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("release", "names", "words"),
    [
        (None, ["g++"], "there is no nvcc"),
        ("11.8", ["g++"], "nvcc is of CUDA 11.8 and torch of 12.8"),
        ("12.4", [], "there is no C++ compiler"),
        ("12.4", ["clang++"], "a build of it could work"),
    ],
)
def test_a_build_that_would_fail_is_foretold(
    release: str | None, names: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools(monkeypatch, release, *names)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    finding = doctor._tinycudann()
    assert not finding.present and words in finding.detail
    assert "TCNN_CUDA_ARCHITECTURES=90 pip install --no-build-isolation" in finding.install


@pytest.mark.usefixtures("gpu")
def test_nerfacc_is_told_what_its_build_wants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = doctor.importlib.util.find_spec
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda n: None if n == "nerfacc.csrc" else find("json"))
    monkeypatch.setattr(doctor, "_build_folder", lambda: str(tmp_path))
    tools(monkeypatch, None, "g++")
    finding = doctor._nerfacc()
    assert not finding.present and "there is no nvcc, there is no ninja" in finding.detail
    tools(monkeypatch, "12.8", "g++", "ninja")
    assert doctor._nerfacc().present and "takes minutes" in doctor._nerfacc().detail
    (tmp_path / "lock").touch()
    finding = doctor._nerfacc()
    assert not finding.present and "wait for it for ever" in finding.detail and finding.install == f"rm -r {tmp_path}"
