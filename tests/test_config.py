"""Settings in and out, and what is said about those that are none."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from nerfkit.config import Config, ConfigError, FieldConfig, to_dict
from nerfkit.presets import from_dict, load_preset, load_resolved
from nerfkit.stego.plan import Plan

CONFIGS = Path(__file__).parents[1] / "configs"
PRESETS = sorted({*CONFIGS.glob("*.toml")} - {CONFIGS / "stego.toml"})


def preset(folder: Path, text: str) -> Path:
    path = folder / "preset.toml"
    path.write_text(text)
    return path


def test_a_preset_is_laid_over_the_defaults(tmp_path: Path) -> None:
    config = load_preset(preset(tmp_path, 'engine = "cpu"\n[field]\nwidth = 32\n[train]\ntime_budget = 60\n'))
    assert config.field == FieldConfig(width=32)
    assert config.train.time_budget == 60.0 and isinstance(config.train.time_budget, float)
    assert config.engine == "cpu" and config.sampler == Config().sampler


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[field]\nwitdh = 32", "unknown setting field.witdh; did you mean width?"),
        ("[fild]\nwidth = 32", "unknown setting fild; did you mean field?"),
        ("[field]\nzzz = 1", "unknown setting field.zzz; known are n_levels"),
        ("field = 3", "field: expected a table of settings, found 3"),
        ("[field]\nwidth = 32.5", "field.width: expected int, found 32.5"),
        ("[field]\nwidth = true", "field.width: expected int, found True"),
        ("[train]\ntable_lr = '1'", "train.table_lr: expected float, found '1'"),
        (
            "engine = 'gpu'",
            "engine: expected one of auto, cpu, cuda, tinycudann, nerfacc, tinycudann+nerfacc, found",
        ),
        ("[sampler]\nrender_weight = -1", "sampler.render_weight: expected 0 or more, found -1.0"),
        ("[sampler]\nn_proposed = 0", "sampler.n_proposed: expected more than 0, found 0"),
        ("[sampler]\nkind = 'proposal'\n[train]\ntiles = '2'", "sampler.kind: tiles are cut from cells"),
        ("[train]\npatch_share = 1.5", "train.patch_share: expected a share above 0, 1 at most, found 1.5"),
        ("[train]\npatch_share = 0", "train.patch_share: expected a share above 0, 1 at most, found 0"),
        ("[train]\npatch_size = 4", "train.patch_size: expected at least 5, found 4"),
        ("[train]\nrealign = -1", "train.realign: expected 0 or more, found -1"),
        ("[train]\nrealign = 1\ntiles = '2'", "train.realign: each tile would find its own"),
        ("[field]\nhead_features = 14", "field.head_features: expected 1 to 13, found 14"),
        ("[field]\nhead = 'sample'", "field.head: sample needs samples alike"),
        ("[field\n", "preset.toml"),
    ],
)
def test_a_wrong_preset_is_told_by_file_and_key(tmp_path: Path, text: str, sentence: str) -> None:
    path = preset(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        load_preset(path)
    assert sentence in str(error.value)
    assert str(error.value).startswith(str(path))


def test_a_missing_preset_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such config file"):
        load_preset(tmp_path / "no.toml")


def test_the_resolved_config_comes_back(tmp_path: Path) -> None:
    config = dataclasses.replace(Config(), field=FieldConfig(n_levels=4, width=16), engine="cpu")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_dict(config)))
    assert load_resolved(path) == config


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 99}', '{"field": {}}', '{"schema": 1, "fiel": {}}'])
def test_a_resolved_config_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="config.json"):
        load_resolved(path)


def test_plain_data_makes_the_same_config() -> None:
    data = to_dict(Config())
    data.pop("schema")
    assert from_dict(Config, data) == Config()


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_shipped_presets_can_be_read(path: Path) -> None:
    assert isinstance(load_preset(path), Config)


def test_what_a_bench_tries_is_read_of_a_file(tmp_path: Path) -> None:
    most, least = load_preset(CONFIGS / "stego.toml", Plan()), Plan()
    numbers = [name for name, value in dataclasses.asdict(least).items() if isinstance(value, int)]
    assert numbers and all(getattr(most, name) >= getattr(least, name) for name in numbers)
    assert {*least.attacks} < {*most.attacks} and {*least.models} < {*most.models}
    assert most.psnr == (52.0, 42.0, 38.0) and all(isinstance(each, float) for each in most.psnr)
    for text, sentence in (("psnr = 3", "psnr: expected a list, found 3"), ("psnr = ['a']", "psnr: expected float")):
        with pytest.raises(ConfigError, match=sentence):
            load_preset(preset(tmp_path, text), Plan())
