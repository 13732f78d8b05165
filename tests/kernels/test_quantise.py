"""Rounding to what is worth its bits: the slow reference tries every multiple."""

from __future__ import annotations

import pytest
import torch

from nerfkit.kernels.quantise import quantise


@pytest.mark.parametrize("price", [0.0, 0.12, 0.9])
@pytest.mark.parametrize(("rise", "slope"), [(3.0, 1.5), (0.5, 2.0), (7.0, 0.5)])
def test_no_multiple_would_do_better(price: float, rise: float, slope: float) -> None:
    generator, step = torch.Generator().manual_seed(0), 0.03
    values = torch.randn(999, 4, generator=generator) * 0.1
    prices = price * (0.5 + torch.rand(values.shape, generator=generator))
    out = torch.full_like(values, torch.nan)
    quantise(values, prices, step, rise, slope, out)
    q = torch.arange(-60, 61).float()
    bits = torch.where(q == 0, 0.0, rise + slope * (q.abs() - 1))
    cost = (values[..., None] - q * step) ** 2 + prices[..., None] * step**2 * bits
    found = (values - out) ** 2 + prices * step**2 * torch.where(out == 0, 0.0, rise + slope * ((out / step).abs() - 1))
    # One that is not zero is never rounded to less than one step, nor across zero.
    best = torch.minimum(cost[..., 60], torch.where(q * values[..., None] > 0, cost, torch.inf).amin(-1))
    torch.testing.assert_close(found, best, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(out / step, (out / step).round(), atol=1e-4, rtol=0)


def test_without_a_price_the_nearest_multiple_is_taken() -> None:
    values = torch.tensor([[0.04, -0.06, 0.16, -0.24, 999.0]])
    out = torch.empty_like(values)
    quantise(values, torch.zeros_like(values), 0.1, 3.0, 1.0, out)
    torch.testing.assert_close(out, torch.tensor([[0.0, -0.1, 0.2, -0.2, 204.7]]))
