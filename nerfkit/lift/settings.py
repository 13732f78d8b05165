"""How lifting goes about it, unless told otherwise."""

from __future__ import annotations

from dataclasses import dataclass

from nerfkit.config import Config, FieldConfig, SamplerConfig, TrainConfig

CONFIG = Config(
    field=FieldConfig(log2_table_size=17, finest_resolution=512),
    sampler=SamplerConfig(resolution=64, n_steps=192, warmup_steps=64),
    train=TrainConfig(steps=2500, samples_per_step=16384, distortion=0.01),
)
FAST_STEPS = 400
"""With --fast."""
RANKING, GUIDANCE, ALIKE = 0.05, 1e-4, 50.0
"""Weights of the order of depths, of a diffusion prior's pull, and within that of likeness to the photo."""


@dataclass(frozen=True)
class Sizes:
    """Pixels a side."""

    photo: tuple[int, int] = (256, 768)
    """As which the picture is learnt, at least and at most: a quarter to four fifths of all pixels are its own."""
    asked: int = 64
    """Of what the prior is asked for."""
