"""Those who mixed their copies are named, and nobody else: on what pictures say of each bit, as real ones do."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from nerfkit.stego.keys import Key, StegoError
from nerfkit.stego.message import FORMATS
from nerfkit.stego.recipients import Addresses, recipient_of

NAMES = [f"recipient {number}" for number in range(60)]
SIGNAL = 3.0
"""Of a bit of one copy, in standard deviations of what chance says of it; a good picture has more."""
MIXTURES = {
    "mean": lambda words: words.mean(0),
    "median": lambda words: np.median(words, 0),
    "least and greatest": lambda words: np.where(np.abs(words.sum(0)) == len(words), words[0], 0.0),
}


def addresses(number: int = 0, n_bits: int = 48) -> Addresses:
    return Addresses(Key(number.to_bytes(32, "big")).of_scene("scene"), FORMATS[n_bits])


def values_of(own: Addresses, guilty: list[str], how: str, chance: np.random.Generator) -> np.ndarray:
    """What pictures say of each bit that were made of some recipients' copies."""
    words = np.stack([own.write(name) for name in guilty])
    return SIGNAL * MIXTURES[how](words) + chance.normal(size=words.shape[1])


@pytest.mark.parametrize("n_bits", FORMATS)
def test_a_recipients_own_copy_names_him_alone(n_bits: int) -> None:
    chance = np.random.default_rng(0)
    for number in range(10):
        own = addresses(number, n_bits)
        found = own.named(values_of(own, [NAMES[number]], "mean", chance), NAMES, 1e-6)
        assert [one.name for one in found] == [NAMES[number]] and found[0].p_value < 1e-12
        assert own.tells(own.write("a"), "a", 1e-6) and not own.tells(own.write("a"), "b", 1e-6)


def test_words_are_of_key_scene_and_name() -> None:
    first = addresses().write("Ada")
    assert np.array_equal(first, addresses().write("Ada")) and set(first) == {-1.0, 1.0}
    for other in (addresses().write("Eve"), addresses(1).write("Ada")):
        assert abs(first @ other) < 60
    words = np.stack([addresses().write(str(number)) for number in range(400)])
    assert stats.kstest(words @ first / np.sqrt(127), "norm").pvalue > 1e-3


@pytest.mark.parametrize("how", ["mean", "median"])
def test_three_who_mixed_their_copies_are_found(how: str) -> None:
    chance = np.random.default_rng(1)
    n_found = 0
    for number in range(40):
        own, guilty = addresses(number), [NAMES[i] for i in chance.choice(len(NAMES), 3, replace=False)]
        found = {one.name for one in own.named(values_of(own, guilty, how, chance), NAMES, 1e-6)}
        assert found <= set(guilty)
        n_found += bool(found)
    assert n_found == 40


def test_taking_out_the_others_shows_more_than_the_sum_alone() -> None:
    """Eight copies without noise: each word alone is drowned by seven others."""
    chance = np.random.default_rng(2)
    own, guilty = addresses(), NAMES[:8]
    values = np.stack([own.write(name) for name in guilty]).mean(0) + 0.01 * chance.normal(size=127)
    assert {one.name for one in own.named(values, NAMES, 1e-6)} == set(guilty)
    assert sum(own.tells(values, name, 1e-6 / len(NAMES)) for name in guilty) < 8


@pytest.mark.parametrize("how", MIXTURES)
def test_an_innocent_is_named_no_more_often_than_was_said(how: str) -> None:
    """P(p <= a) <= a over the innocents' words, for values that are full of other words."""
    chance, rate = np.random.default_rng(3), 0.05
    named, n_trials = 0, 150
    for number in range(n_trials):
        own = addresses(number)
        found = own.named(values_of(own, NAMES[:3], how, chance), NAMES, rate)
        named += any(one.name not in NAMES[:3] for one in found)
    assert stats.binomtest(named, n_trials, rate, alternative="greater").pvalue > 1e-3


def test_nobody_is_named_of_noise_or_of_nothing() -> None:
    chance = np.random.default_rng(4)
    assert not any(addresses(number).named(chance.standard_cauchy(127), NAMES, 1e-3) for number in range(20))
    assert addresses().named(chance.normal(size=127), [], 1e-6) == []
    assert addresses().named(np.zeros(127), NAMES, 1e-6) == []


def test_equal_names_are_one() -> None:
    assert recipient_of("Rene\u0301e  B.\t") == recipient_of("Ren\u00e9e B.")
    for text in ("", "  ", "x" * 201, "a\0b"):
        with pytest.raises(StegoError, match="--to"):
            recipient_of(text)
