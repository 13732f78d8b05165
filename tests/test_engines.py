"""The choice of an engine."""

from __future__ import annotations

import re

import pytest
import torch

from nerfkit import engines
from nerfkit.config import FieldConfig
from nerfkit.engines import Engine, EngineError, choose_device, explain, resolve

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")


def test_the_cpu_is_always_there() -> None:
    assert choose_device("cpu").type == "cpu"
    assert "CPU" in explain("cpu") and "as asked" in explain("cpu")


@without_cuda
def test_auto_is_the_cpu_where_there_is_no_cuda_and_says_why() -> None:
    assert choose_device("auto").type == "cpu"
    assert "CPU" in explain("auto") and "as asked" not in explain("auto")


@without_cuda
@pytest.mark.parametrize("engine", ["cuda", "tinycudann", "nerfacc", "tinycudann+nerfacc"])
def test_cuda_that_is_not_there_is_told(engine: Engine) -> None:
    with pytest.raises(EngineError, match=re.escape(f"engine {engine}: ") + ".*; use --engine cpu"):
        choose_device(engine)


def test_auto_takes_cuda_where_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda"
    assert choose_device("cpu").type == "cpu"


def test_auto_is_measured_and_what_is_asked_for_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    config, seconds = FieldConfig(), {"cuda": 1.0, "tinycudann": 0.1}
    assert resolve("cpu", config) == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(engines, "_seconds", lambda config, engine: seconds[engine])
    engines._fastest.cache_clear()
    assert resolve("auto", config) == "tinycudann" and resolve("cuda", config) == "cuda"
    assert explain("auto", config) == "engine: CUDA on a GPU, networks by tinycudann"
    assert explain("tinycudann+nerfacc").endswith("networks by tinycudann, marching and compositing by nerfacc")
    seconds["tinycudann"] = 0.9
    engines._fastest.cache_clear()
    assert resolve("auto", config) == "cuda" and explain("auto", config) == "engine: CUDA on a GPU"
    engines._fastest.cache_clear()


def test_auto_is_ours_where_the_other_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(config: FieldConfig, engine: Engine) -> float:
        if engine == "tinycudann":
            raise EngineError("it does not load")
        return 1.0

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(engines, "_seconds", seconds)
    engines._fastest.cache_clear()
    assert resolve("auto", FieldConfig()) == "cuda"
    engines._fastest.cache_clear()
