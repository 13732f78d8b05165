"""What is written into the numbers of a table is read from them, whatever was done to them, and from no others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from nerfkit.kernels.hashgrid import grid_layout
from nerfkit.stego.carriers import Carriers
from nerfkit.stego.keys import Key
from nerfkit.stego.message import FORMATS, Letter, Reading, chance_of_agreement
from nerfkit.stego.weights import SHARE, compared, moves, swings, told

LAYOUT = grid_layout(4, 4, 14, 16, 64)
STRENGTH = 0.05 / SHARE
"""Numbers of the finest level move by a twentieth."""
MESSAGE = b"secret"


def letter(number: int = 0, n_bits: int = 48) -> Letter:
    return Letter(Key(number.to_bytes(32, "big")).of_scene("scene"), FORMATS[n_bits])


@pytest.fixture(scope="module")
def table() -> Tensor:
    """Of which most entries never learnt anything."""
    generator = torch.Generator().manual_seed(0)
    learnt = torch.rand(LAYOUT.n_entries, 1, generator=generator) < 0.4
    return torch.randn(LAYOUT.n_entries, 4, generator=generator) * torch.where(learnt, 1.0, 1e-4)


@pytest.fixture(scope="module")
def carriers() -> Carriers:
    generator = torch.Generator().manual_seed(1)
    entries = torch.randperm(LAYOUT.n_entries, generator=generator)[:2000]
    return Carriers(entries, torch.randn(2000, 4, generator=generator))


def marked(table: Tensor, carriers: Carriers, by: Letter | None = None, message: bytes = MESSAGE) -> Tensor:
    return table + STRENGTH * moves(swings(table, LAYOUT, carriers), by or letter(), message)


def numbers(table: Tensor, carriers: Carriers, suspect: Tensor, by: Letter | None = None) -> np.ndarray:
    """What the second mark alone says of each bit."""
    return told(carriers, by or letter(), compared(carriers, LAYOUT, table, suspect))["numbers"]


def reading(table: Tensor, carriers: Carriers, suspect: Tensor, by: Letter | None = None) -> Reading | None:
    return (by or letter()).read(numbers(table, carriers, suspect, by))


@pytest.mark.parametrize("n_bits", FORMATS)
def test_what_is_written_is_read(table: Tensor, carriers: Carriers, n_bits: int) -> None:
    message = bytes(range(n_bits // 8))
    found = reading(table, carriers, marked(table, carriers, letter(3, n_bits), message), letter(3, n_bits))
    assert (found.message, found.corrected) == (message, 0) and found.p_value < 1e-20


def test_each_number_moves_by_its_share(table: Tensor, carriers: Carriers) -> None:
    share = (marked(table, carriers) / table - 1).abs()
    assert float(share[carriers.entries].max()) == 0.0
    free = torch.ones(len(table), dtype=torch.bool)
    free[carriers.entries] = False
    for a, b, resolution in zip(LAYOUT.offsets, LAYOUT.offsets[1:], LAYOUT.resolutions, strict=False):
        own = share[a:b][free[a:b]]
        assert torch.allclose(own, torch.full_like(own, 0.05 * resolution / LAYOUT.resolutions[-1]), atol=1e-4)


def test_the_first_mark_is_read_beside_it(table: Tensor, carriers: Carriers) -> None:
    """Of the same table, and each is heard where the other is not."""
    one, word = letter(), letter().write(MESSAGE)
    first = table.clone()
    first[carriers.entries] += 0.01 * carriers.moves(one.secret, word)
    for suspect, there in ((first, (True, False)), (marked(table, carriers), (False, True))):
        each = told(carriers, one, compared(carriers, LAYOUT, table, suspect))
        assert tuple(one.verify(values, MESSAGE)[0] == 127 for values in each.values()) == there


def test_another_key_or_no_mark_reads_nothing(table: Tensor, carriers: Carriers) -> None:
    noise = 0.01 * torch.randn(table.shape, generator=torch.Generator().manual_seed(2))
    assert reading(table, carriers, marked(table, carriers), letter(1)) is None
    for suspect in (table, table.half(), table + noise, torch.zeros_like(table), torch.full_like(table, torch.nan)):
        found = reading(table, carriers, suspect)
        assert found is None or found.p_value > 1e-6


def test_wrong_keys_hear_fair_coins(table: Tensor, carriers: Carriers) -> None:
    """Of a table that another key has marked: agreement with any key's word is binomial, as it is the key that is
    drawn."""
    heard, chance = compared(carriers, LAYOUT, table, marked(table, carriers)), np.random.default_rng(0)
    agreeing = []
    for number in range(1, 151):
        one = letter(number)
        values = sum(told(carriers, one, heard).values())
        agreeing.append(one.verify(values, MESSAGE)[0])
        found = one.read(values)
        assert found is None or found.p_value > 1e-6
    low, high = (np.array([chance_of_agreement(127, a + d) for a in agreeing]) for d in (1, 0))
    assert stats.kstest(chance.uniform(low, high), "uniform").pvalue > 1e-3
    assert np.mean(agreeing) == pytest.approx(63.5, abs=4 * np.sqrt(127 / 4 / 150))


@pytest.mark.parametrize("step", [0.02, 0.1, 0.3])
def test_rounding_is_noise_of_a_twelfth_of_a_squared_step(table: Tensor, carriers: Carriers, step: float) -> None:
    """A bit is heard as plainly as a matched filter hears it under white noise of that variance."""
    values = numbers(table, carriers, (marked(table, carriers) / step).round() * step) * letter().write(MESSAGE)
    signal, noise = 0.0, 0.0
    far = swings(table, LAYOUT, carriers).double()
    for a, b in zip(LAYOUT.offsets, LAYOUT.offsets[1:], strict=False):
        power = (far[a:b] ** 2).sum()
        variance = step**2 / 12 + STRENGTH**2 * (far[a:b] ** 4).sum() / power
        signal += STRENGTH * power / variance
        noise += power / variance
    assert values.mean() == pytest.approx(float(signal / noise**0.5) / np.sqrt(127), rel=0.05)


def rounded(table: Tensor, n_bits: int) -> Tensor:
    """Each level in so many bits a number."""
    out = table.clone()
    for a, b in zip(LAYOUT.offsets, LAYOUT.offsets[1:], strict=False):
        step = table[a:b].abs().max() / (2 ** (n_bits - 1) - 1)
        out[a:b] = (table[a:b] / step).round() * step
    return out


def pruned(table: Tensor, share: float) -> Tensor:
    """Without so many of the smallest numbers."""
    return torch.where(table.abs() <= table.abs().flatten().quantile(share), 0.0, table)


def mixed(table: Tensor) -> Tensor:
    """The features of each level in those of another base, which the first layer of a network can undo."""
    out, generator = table.clone(), torch.Generator().manual_seed(4)
    for a, b in zip(LAYOUT.offsets, LAYOUT.offsets[1:], strict=False):
        out[a:b] = table[a:b] @ (0.3 * torch.randn(4, 4, generator=generator))
    return out


def littered(table: Tensor) -> Tensor:
    """A third of the entries, which nobody may see, with numbers that are out of all proportion."""
    out, generator = table.clone(), torch.Generator().manual_seed(5)
    which = torch.rand(len(table), generator=generator) < 0.33
    out[which] = 1e4 * torch.randn(int(which.sum()), 4, generator=generator)
    return out


def boundless(table: Tensor) -> Tensor:
    """One number that nobody may see, as large as numbers go."""
    out = table.clone()
    out[len(table) // 3, 1] = 3.4e38
    return out


ATTACKS = {
    "float16": lambda t: t.half(),
    "bfloat16": lambda t: t.bfloat16(),
    "int8": lambda t: rounded(t, 8),
    "int6": lambda t: rounded(t, 6),
    "int5": lambda t: rounded(t, 5),
    "half pruned": lambda t: pruned(t, 0.5),
    "noise": lambda t: t + 0.2 * torch.randn(t.shape, generator=torch.Generator().manual_seed(3)),
    "scaled": lambda t: 0.25 * t,
    "permuted": lambda t: t[:, [2, 0, 3, 1]],
    "mixed": mixed,
    "littered": littered,
    "boundless": boundless,
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_it_survives_what_happens_to_models(table: Tensor, carriers: Carriers, attack: str) -> None:
    found = reading(table, carriers, ATTACKS[attack](marked(table, carriers)))
    assert found is not None and found.message == MESSAGE and found.p_value < 1e-6


def test_mixing_features_takes_nothing_away(table: Tensor, carriers: Carriers) -> None:
    suspect = marked(table, carriers)
    plain, again = (numbers(table, carriers, one) for one in (suspect, mixed(suspect)))
    assert np.allclose(plain, again, atol=0.02 * np.abs(plain).max())
