"""A field and a training so small that a test has time for many."""

from __future__ import annotations

from nerfkit.config import Config, FieldConfig, SamplerConfig, TrainConfig

CONFIG = Config(
    field=FieldConfig(n_levels=4, log2_table_size=9, base_resolution=4, finest_resolution=32, width=16),
    sampler=SamplerConfig(resolution=32, n_steps=64, update_every=4, warmup_steps=12, n_probes=1000),
    train=TrainConfig(steps=12, samples_per_step=4096, report_every=1, warmup_steps=5, seed=3),
    engine="cpu",
)
