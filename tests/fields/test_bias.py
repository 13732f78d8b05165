"""A wanted share of active neurons, met at the start."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from nerfkit.config import Config, ConfigError, DataConfig, FieldConfig, SamplerConfig, TrainConfig, check
from nerfkit.fields.bias import active_shares
from nerfkit.fields.hash import HashField
from nerfkit.scene import load_scene
from nerfkit.train.loop import fit


def looks(n: int = 20_000) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(n, 3, generator=generator), normalize(torch.randn(n, 3, generator=generator), dim=1)


@pytest.mark.parametrize("share", [0.5, 0.3, 0.2, 0.1])
@pytest.mark.parametrize("seed", [0, 1])
def test_as_many_neurons_are_active_as_was_asked_for(share: float, seed: int) -> None:
    field = HashField(FieldConfig(log2_table_size=14, bias_init=share), torch.device("cpu"), seed)
    shares = active_shares(field, *looks())
    assert shares["density_network"][0] == pytest.approx(share, abs=0.05)
    assert shares["color_network"][0] == pytest.approx(share, abs=0.05)


def test_without_it_half_are_and_nothing_is_changed() -> None:
    field = HashField(FieldConfig(log2_table_size=14), torch.device("cpu"))
    assert active_shares(field, *looks())["density_network"][0] == pytest.approx(0.5, abs=0.05)
    assert float(field.table.detach().abs().max()) <= 1e-4


def test_it_still_learns(toy_scene: Path) -> None:
    config = Config(
        field=FieldConfig(n_levels=4, log2_table_size=11, base_resolution=8, finest_resolution=64, bias_init=0.3),
        sampler=SamplerConfig(resolution=32, n_steps=64, update_every=4, warmup_steps=12, n_probes=1000),
        train=TrainConfig(steps=60, samples_per_step=8192, report_every=10, warmup_steps=5),
        engine="cpu",
    )
    scene = load_scene(toy_scene, DataConfig())
    reports = list(fit(scene, config))
    assert reports[-1].psnr > reports[0].psnr + 1.0


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_shares_that_are_none_are_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="field.bias_init"):
        check(Config(field=FieldConfig(bias_init=share)))
