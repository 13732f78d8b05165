"""What a training starts from on each kind of device."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nerfkit.arguments import parse_train
from nerfkit.config import Config, check
from nerfkit.defaults import CUDA, defaults


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def test_both_can_be_trained_with() -> None:
    assert check(CUDA) == CUDA and check(Config()) == Config() and Config() != CUDA


def test_a_cpu_has_the_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert defaults("auto") == defaults("cpu") == parse_train(["scene"])[1] == Config()


@pytest.mark.usefixtures("gpu")
def test_a_gpu_has_larger_ones_under_presets_and_flags(tmp_path: Path) -> None:
    assert defaults("auto") == defaults("tinycudann") == parse_train(["scene"])[1] == CUDA
    assert parse_train(["scene", "--engine", "cpu"])[1].field == Config().field
    preset = tmp_path / "preset.toml"
    preset.write_text("[field]\nwidth = 32\n[train]\nfinal_lr = 0.5\n")
    config = parse_train(["scene", "--config", str(preset), "--train.final-lr", "0.25"])[1]
    assert (config.field.width, config.train.final_lr) == (32, 0.25)
    assert config.field.log2_table_size == CUDA.field.log2_table_size
    assert config.train.samples_per_step == CUDA.train.samples_per_step
    preset.write_text('engine = "cpu"\n')
    assert parse_train(["scene", "--config", str(preset)])[1].train == Config().train


def test_help_needs_no_torch() -> None:
    script = "import sys, nerfkit.cli; nerfkit.cli.main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60).returncode == 0
