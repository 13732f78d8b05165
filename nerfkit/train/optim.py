"""The course of a training: optimisers of table and networks, and the learning rate."""

from __future__ import annotations

import torch
from torch import Tensor

from nerfkit.config import TrainConfig
from nerfkit.fields.hash import HashField
from nerfkit.kernels.adam import SparseAdam

_BETAS = (0.9, 0.99)


def rate_at(step: int, progress: float, config: TrainConfig) -> float:
    """Factor on the learning rates: a linear warm-up, then exponentially down to ``final_lr`` at progress 1."""
    warmup = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    return warmup * config.final_lr ** min(progress, 1.0)


class Optimizer:
    """Sparse Adam for the table, Adam for the networks, whose weights alone decay."""

    def __init__(self, field: HashField, config: TrainConfig):
        self.config = config
        self.table = SparseAdam(field.table, _BETAS, field.rounded)
        self.networks = torch.optim.Adam(
            field.network_parameters(),
            lr=config.network_lr,
            betas=_BETAS,
            eps=1e-15,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.n_steps = 0

    def step(self, rate: float) -> None:
        """Move all parameters along their ``.grad``, at ``rate`` times the configured learning rates."""
        self.n_steps += 1
        for group in self.networks.param_groups:
            group["lr"] = self.config.network_lr * rate
        self.networks.step()
        self.table.step(self.n_steps, self.config.table_lr * rate)

    def state_dict(self) -> dict[str, Tensor]:
        """Plain named tensors, for a checkpoint."""
        state = {"table.means": self.table.means, "table.squares": self.table.squares}
        state["n_steps"] = torch.tensor(self.n_steps)
        for i, entry in self.networks.state_dict()["state"].items():
            state |= {f"networks.{i}.{name}": torch.as_tensor(value) for name, value in entry.items()}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state_dict`."""
        self.table.means.copy_(state["table.means"])
        self.table.squares.copy_(state["table.squares"])
        self.n_steps = int(state["n_steps"])
        entries: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            if name.startswith("networks."):
                _, i, key = name.split(".")
                entries.setdefault(int(i), {})[key] = value
        self.networks.load_state_dict({**self.networks.state_dict(), "state": entries})
