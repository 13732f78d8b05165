"""What came of training steps, in numbers: on a CPU at once, on CUDA some steps later, when no one waits for them."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

LAG = 2
"""Steps by which the numbers of one on CUDA come later: so many are sent there before the host waits for the first."""

_NAP = 5e-5
"""Seconds between two looks whether numbers have come."""


@dataclass(frozen=True)
class Told:
    """Of one step."""

    loss: float
    squared_error: float
    n_rays: int
    n_samples: int


class _Coming:
    """Numbers on their way from CUDA to the host."""

    def __init__(self, numbers: Tensor):
        self._here = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True).copy_(numbers, non_blocking=True)
        self._arrived = torch.cuda.Event()
        self._arrived.record()

    def read(self) -> list[float]:
        """Them, once they are there. Until then this process listens to signals: where a rank was lost they never come,
        and torchrun says so."""
        while not self._arrived.query():
            time.sleep(_NAP)
        return self._here.tolist()


def _on_its_way(number: float | Tensor) -> bool:
    return isinstance(number, Tensor) and number.is_cuda


class Later:
    """The numbers of successive steps, each told once and in their order."""

    def __init__(self) -> None:
        self._coming: deque[_Coming] = deque()

    def add(
        self, loss: float | Tensor, squared_error: float | Tensor, n_rays: int | Tensor, n_samples: int | Tensor
    ) -> list[Told]:
        """Those of another step; returns what is known by now: this one where they are numbers already, else the one
        of `LAG` steps before, if there was one."""
        if not _on_its_way(squared_error):
            return [Told(float(loss), float(squared_error), int(n_rays), int(n_samples))]
        numbers = loss, squared_error, n_rays, n_samples
        each = (torch.as_tensor(x, device=squared_error.device).double() for x in numbers)
        self._coming.append(_Coming(torch.stack([*each])))
        return [self._next()] if len(self._coming) > LAG else []

    def _next(self) -> Told:
        loss, error, n_rays, n_samples = self._coming.popleft().read()
        return Told(loss, error, int(n_rays), int(n_samples))

    def rest(self) -> list[Told]:
        """All that is still to come."""
        return [self._next() for _ in range(len(self._coming))]


def known(number: Tensor) -> float | Tensor:
    """A number of the device: itself on a CPU, on CUDA still to be told."""
    return number if _on_its_way(number) else number.item()
