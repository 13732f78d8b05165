"""What several processes do together, as programs for ``torchrun``: ``ranked.py NAME WORDS...``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import save_file

from nerfkit.config import Config, DataConfig, FieldConfig, SamplerConfig, TrainConfig
from nerfkit.ranks import Ranks, RanksError, joined
from nerfkit.scene import Scene, load_scene
from nerfkit.sparsity.pruning import policies_of
from nerfkit.train import loop
from nerfkit.train.loop import fit, model_of
from nerfkit.train.training import Training

CONFIG = Config(
    field=FieldConfig(n_levels=4, log2_table_size=11, base_resolution=8, finest_resolution=64, width=16),
    sampler=SamplerConfig(resolution=32, n_steps=64, update_every=4, warmup_steps=8, observe_every=2, n_probes=1000),
    train=TrainConfig(steps=12, samples_per_step=24576, report_every=5, warmup_steps=5, seed=3),
    engine="cpu",
)
MORE = {
    "grid": {},
    "timed": {"train": {"steps": 0, "time_budget": 0.12}},
    "learned": {"sampler": {"kind": "learned"}},
    "patches": {
        "field": {"head": "sample"},
        "sampler": {"kind": "proposal"},
        "train": {"patch_share": 0.3, "patch_size": 8, "high_frequency": 0.1, "align": 1, "exposure": True},
    },
}
"""What takes part in a step in different ways: what rays met, patches and where they fit, networks beside the field."""


class Watch:
    """A clock that advances by a hundredth of ``speed`` seconds whenever it is asked."""

    def __init__(self, speed: float):
        self.speed, self.n = speed, 0

    def perf_counter(self) -> float:
        self.n += 1
        return self.speed * self.n / 100


def config_of(name: str) -> Config:
    """Small settings with the part that is asked for."""
    return replace(CONFIG, **{part: replace(getattr(CONFIG, part), **more) for part, more in MORE[name].items()})


def train(ranks: Ranks, scene: str, out: str) -> None:
    """Train in every way, and let each rank write all that it has in the end."""
    with patch.object(loop, "time", Watch(1.0 + ranks.rank)):  # no two clocks agree
        for name in MORE:
            _train(
                ranks, config_of(name), load_scene(Path(scene), DataConfig()), f"{out}/{name}-{ranks.rank}.safetensors"
            )


def _train(ranks: Ranks, config: Config, scene: Scene, out: str) -> None:
    model = model_of(scene, config)
    training = Training.new(scene, model, policies_of(config, model.field), ranks)
    list(fit(scene, config, training=training))
    model.sampler.share(ranks)
    parts = (model.field.state_dict(), model.sampler.state_dict(), training.optimizer.state_dict())
    tensors = {f"{i}.{key}": tensor.clone() for i, part in enumerate(parts) for key, tensor in part.items()}
    counts = torch.tensor([training.clock.step, training.clock.n_rays, training.clock.n_samples])
    save_file({**tensors, "counts": counts}, out)


def talk(ranks: Ranks, out: str) -> None:
    """Tell each other this and that, and see whether it arrives."""
    own = torch.arange(3 * ranks.rank, dtype=torch.bfloat16).view(3, -1)
    thing = {"rank": ranks.rank, "in": [own, torch.tensor(ranks.rank > 0)], "nothing": torch.empty(0, 3)}
    for rank, told in enumerate(ranks.exchange(thing)):
        assert told["rank"] == rank and bool(told["in"][1]) == (rank > 0) and told["nothing"].shape == (0, 3)
        assert told["in"][0].dtype == torch.bfloat16 and told["in"][0].flatten().tolist() == list(range(3 * rank))
    assert ranks.first(f"{ranks}") == f"process 1 of {ranks.size}"
    for n in range(5):
        assert list(ranks.in_turn(lambda i: (i, i % ranks.size == ranks.rank), n))[0:n] == [(i, True) for i in range(n)]
        assert ranks.together([10 * i for i in ranks.own(n)], n) == [10 * i for i in range(n)]
    most, total = torch.tensor([float(ranks.rank), -float(ranks.rank)]), torch.full((2, 2), 1.0 + ranks.rank)
    ranks.maximum(most)
    ranks.sum(total)
    assert most.tolist() == [ranks.size - 1.0, 0.0]
    assert total.tolist() == [[ranks.size * (ranks.size + 1) / 2] * 2] * 2
    (Path(out) / f"talked-{ranks.rank}").touch()


def stray(ranks: Ranks, out: str) -> None:
    """Do different things at once, which nobody can wait for."""
    try:
        ranks.exchange(1) if ranks.is_first else ranks.sum(torch.zeros(1))
    except RanksError as error:
        (Path(out) / f"strayed-{ranks.rank}").write_text(str(error))


def fail(ranks: Ranks, out: str) -> None:
    """Have the last rank fail alone while all others, which talked to it before, wait for it."""
    talk(ranks, out)
    if ranks.rank == ranks.size - 1:
        raise ValueError("no luck here")
    try:
        ranks.exchange(0)
    except SystemExit as error:
        (Path(out) / f"left-{ranks.rank}").write_text(str(error.code))
        raise


PROGRAMS: dict[str, Any] = {"train": train, "stray": stray, "fail": fail}

if __name__ == "__main__":
    with joined() as this:
        PROGRAMS[sys.argv[1]](this, *sys.argv[2:])
