"""The course of a training: optimisers of table and networks, and the learning rate."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nerfkit.config import TrainConfig
from nerfkit.fields.hash import HashField
from nerfkit.kernels.adam import Adam, SparseAdam

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
        self.networks = Adam(field.small_parameters(), _BETAS, config.weight_decay)
        self.n_steps = 0

    def step(self, rate: float) -> None:
        """Move all parameters along their ``.grad``, at ``rate`` times the configured learning rates."""
        self.n_steps += 1
        self.networks.step(self.n_steps, self.config.network_lr * rate)
        self.table.step(self.n_steps, self.config.table_lr * rate)

    def moments_of(self, parameter: nn.Parameter) -> tuple[Tensor, Tensor]:
        """Running means of a parameter's gradient and of its square."""
        if parameter is self.table.table:
            return self.table.means, self.table.squares
        i = next(i for i, own in enumerate(self.networks.parameters) if own is parameter)
        return self.networks.means[i], self.networks.squares[i]

    def _moments(self) -> dict[str, Tensor]:
        moments = {"table.means": self.table.means, "table.squares": self.table.squares}
        for name, tensors in (("means", self.networks.means), ("squares", self.networks.squares)):
            moments |= {f"networks.{i}.{name}": tensor for i, tensor in enumerate(tensors)}
        return moments

    def state_dict(self) -> dict[str, Tensor]:
        """Plain named tensors, for a checkpoint."""
        return {**self._moments(), "n_steps": torch.tensor(self.n_steps)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state_dict`."""
        for name, tensor in self._moments().items():
            tensor.copy_(state[name])
        self.n_steps = int(state["n_steps"])
