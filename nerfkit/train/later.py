"""What came of training steps, in numbers: on a CPU at once, on CUDA some steps later, when no one waits for them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

LAG = 2
"""Steps by which the numbers of one on CUDA come later: so many are sent there before the host waits for the first."""


@dataclass(frozen=True)
class Told:
    """Of one step."""

    loss: float
    squared_error: float
    n_rays: int
    n_samples: int


@dataclass(frozen=True)
class _Coming:
    """Numbers on their way to the host, and the event after which they are there."""

    numbers: Tensor
    arrived: torch.cuda.Event
    n_rays: int

    def read(self) -> Told:
        self.arrived.synchronize()
        loss, error, n_samples = self.numbers.tolist()
        return Told(loss, error, self.n_rays, int(n_samples))


class Later:
    """The numbers of successive steps, each told once and in their order."""

    def __init__(self) -> None:
        self._coming: deque[_Coming] = deque()

    def add(
        self, loss: float | Tensor, squared_error: float | Tensor, n_rays: int, n_samples: int | Tensor
    ) -> list[Told]:
        """Those of another step; returns what is known by now: this one where they are numbers already, else the one
        of `LAG` steps before, if there was one."""
        if not isinstance(loss, Tensor):
            return [Told(loss, float(squared_error), n_rays, int(n_samples))]
        numbers = torch.stack(
            [torch.as_tensor(x, device=loss.device).double() for x in (loss, squared_error, n_samples)]
        )
        here = torch.empty(3, dtype=torch.float64, pin_memory=True).copy_(torch.stack([*each]), non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        self._coming.append(_Coming(here, arrived, n_rays))
        return [self._coming.popleft().read()] if len(self._coming) > LAG else []

    def rest(self) -> list[Told]:
        """All that is still to come."""
        told = [coming.read() for coming in self._coming]
        self._coming.clear()
        return told


def known(number: Tensor) -> float | Tensor:
    """A number of the device: itself on a CPU, on CUDA still to be told."""
    return number if number.is_cuda else number.item()
