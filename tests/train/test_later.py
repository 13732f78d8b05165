"""Numbers of steps: each is told once, in its order, at once or some steps later."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nerfkit.train import later
from nerfkit.train.later import LAG, Later, Told, known


def test_what_is_known_is_told_at_once() -> None:
    numbers = Later()
    assert numbers.add(0.5, 0.25, 10, 70) == [Told(0.5, 0.25, 10, 70)] and numbers.rest() == []


class Arrived:
    """Numbers that have come."""

    def __init__(self, numbers: Tensor):
        self.read = numbers.tolist


@pytest.mark.parametrize("n", [0, 1, LAG, LAG + 1, 10])
def test_what_is_on_its_way_is_told_in_its_order(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(later, "_Coming", Arrived)
    monkeypatch.setattr(later, "_on_its_way", lambda number: True)
    numbers, told = Later(), []
    for i in range(n):
        now = numbers.add(torch.tensor(i / 4), torch.tensor(i / 8), i, torch.tensor(100 * i))
        assert len(now) == (i >= LAG)
        told += now
    told += numbers.rest()
    assert told == [Told(i / 4, i / 8, i, 100 * i) for i in range(n)] and numbers.rest() == []


def test_cuda_tells_what_it_computed() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    numbers, told = Later(), []
    for i in range(5):
        values = [torch.tensor(float(i), device="cuda") * x for x in (1, 2, 3)]
        assert all(isinstance(known(value), Tensor) for value in values)
        told += numbers.add(values[0], values[1], i, values[2])
    assert told + numbers.rest() == [Told(float(i), 2.0 * i, i, 3 * i) for i in range(5)]
