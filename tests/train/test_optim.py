"""The course of a training: rates, and an optimiser whose state survives."""

from __future__ import annotations

import pytest
import torch
from compare import assert_close

from nerfkit.config import FieldConfig, TrainConfig
from nerfkit.fields.hash import HashField
from nerfkit.train.optim import Optimizer, rate_at

SMALL = FieldConfig(n_levels=2, n_features=4, log2_table_size=8, base_resolution=4, finest_resolution=16, width=8)
CPU = torch.device("cpu")


def with_gradients(field: HashField, step: int) -> HashField:
    generator = torch.Generator().manual_seed(step)
    for parameter in field.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    field.table.grad *= torch.rand(field.table.shape, generator=generator) < 0.3
    return field


class TestRate:
    def test_it_warms_up_in_a_line_and_then_falls(self) -> None:
        config = TrainConfig(warmup_steps=10, final_lr=0.01)
        assert [rate_at(step, 0.0, config) for step in (0, 4, 9, 50)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
        assert [rate_at(99, p, config) for p in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.1, 0.01])

    def test_it_stays_at_the_end_beyond_it(self) -> None:
        config = TrainConfig(final_lr=0.01)
        assert rate_at(1000, 1.7, config) == pytest.approx(0.01)

    def test_no_warm_up(self) -> None:
        assert rate_at(0, 0.0, TrainConfig(warmup_steps=0)) == 1.0


def test_networks_move_by_adam_with_decay_and_the_table_without() -> None:
    config = TrainConfig(weight_decay=0.1, network_lr=0.01, table_lr=0.02)
    field, other = HashField(SMALL, CPU), HashField(SMALL, CPU)
    optimizer = Optimizer(field, config)
    options = {"betas": (0.9, 0.99), "eps": 1e-15}
    adam = torch.optim.Adam(other.network_parameters(), lr=0.005, weight_decay=0.1, **options)
    for step in range(3):
        with_gradients(field, step)
        with_gradients(other, step)
        optimizer.step(0.5)
        adam.step()
    for mine, theirs in zip(field.network_parameters(), other.network_parameters(), strict=True):
        assert_close(mine, theirs)
    untouched = optimizer.table.means == 0.0
    assert untouched.any() and torch.equal(field.table[untouched], other.table[untouched])


def test_a_saved_optimiser_goes_on_bit_for_bit() -> None:
    through, first = HashField(SMALL, CPU), HashField(SMALL, CPU)
    one, two = Optimizer(through, TrainConfig()), Optimizer(first, TrainConfig())
    for step in range(6):
        with_gradients(through, step)
        one.step(0.7)
    for step in range(3):
        with_gradients(first, step)
        two.step(0.7)
    second = HashField(SMALL, CPU, seed=5)
    second.load_state_dict(first.state_dict())
    three = Optimizer(second, TrainConfig())
    three.load_state_dict({name: value.clone() for name, value in two.state_dict().items()})
    for step in range(3, 6):
        with_gradients(second, step)
        three.step(0.7)
    assert all(torch.equal(a, b) for a, b in zip(through.parameters(), second.parameters(), strict=True))
    assert all(torch.equal(value, three.state_dict()[name]) for name, value in one.state_dict().items())


def test_a_fresh_optimiser_can_be_saved_and_loaded() -> None:
    optimizer = Optimizer(HashField(SMALL, CPU), TrainConfig())
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.n_steps == 0
