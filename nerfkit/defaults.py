"""What a training starts from where nobody says otherwise: a GPU has the time for more than a CPU."""

from __future__ import annotations

from nerfkit.config import Config, FieldConfig, SamplerConfig, TrainConfig

CUDA = Config(
    field=FieldConfig(log2_table_size=19, finest_resolution=2048, color_layers=2),
    sampler=SamplerConfig(n_steps=1024),
    train=TrainConfig(samples_per_step=1 << 18, final_lr=0.01),
)
"""Tables, networks and steps of about the size of instant-ngp's (Mueller et al. 2022, section 5.4)."""


def defaults(engine: str) -> Config:
    """The settings that presets and flags are laid over, where an engine is to compute."""
    if engine == "cpu":
        return Config()
    import torch  # which the command line does without as long as it can

    return CUDA if torch.cuda.is_available() else Config()
