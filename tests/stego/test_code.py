from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from nerfkit.stego.code import Code, generator_polynomial


def test_the_generator_is_the_one_in_the_tables() -> None:
    """Lin and Costello, Error Control Coding, appendix C, lists them in octal."""
    assert oct(generator_polynomial(63, 45)) == "0o1701317"
    assert oct(generator_polynomial(127, 64)) == "0o1206534025570773100045"
    assert generator_polynomial(255, 131).bit_length() - 1 == 124


@pytest.mark.parametrize(("n", "k"), [(63, 46), (100, 50), (127, 63)])
def test_there_are_no_others(n: int, k: int) -> None:
    with pytest.raises(ValueError, match="no "):
        generator_polynomial(n, k)


@pytest.mark.parametrize(("n", "k", "t"), [(63, 30, 6), (127, 64, 10), (255, 131, 18)])
def test_words_are_multiples_of_the_generator_and_far_apart(n: int, k: int, t: int) -> None:
    code, chance = Code(n, k), np.random.default_rng(0)
    for _ in range(200):
        message = chance.integers(0, 2, k).astype(np.uint8)
        word = code.encode(message)
        assert np.array_equal(word[:k], message)
        assert np.array_equal(np.roll(word, 1)[:k] @ code.generator & 1, np.roll(word, 1))  # cyclic
        assert not message.any() or word.sum() >= 2 * t + 1


@pytest.mark.parametrize(("n", "k", "t"), [(63, 30, 6), (127, 64, 10), (255, 131, 18)])
def test_few_unsure_errors_are_mended(n: int, k: int, t: int) -> None:
    code, chance = Code(n, k), np.random.default_rng(1)
    for _ in range(50):
        message = chance.integers(0, 2, k).astype(np.uint8)
        values = (2.0 * code.encode(message) - 1.0) * chance.uniform(1.0, 2.0, n)
        wrong = chance.choice(n, t, replace=False)
        values[wrong] *= -0.3
        assert np.array_equal(code.decode(values), message)


def test_sure_bits_are_worth_more_than_their_number() -> None:
    """At a tenth of wrong bits a decoder that counts mends a fifth of the words."""
    code, chance = Code(127, 64), np.random.default_rng(2)
    signal = -NormalDist().inv_cdf(0.1)
    right = within = 0
    for _ in range(100):
        message = chance.integers(0, 2, 64).astype(np.uint8)
        word = code.encode(message)
        values = (2.0 * word - 1.0) * signal + chance.normal(size=127)
        right += np.array_equal(code.decode(values), message)
        within += ((values > 0) != word).sum() <= 10
    assert right >= 85 and within <= 40


def test_two_errors_among_the_surest_are_found() -> None:
    code, chance = Code(63, 30), np.random.default_rng(3)
    for _ in range(20):
        message = chance.integers(0, 2, 30).astype(np.uint8)
        values = (2.0 * code.encode(message) - 1.0) * chance.uniform(0.5, 1.0, 63)
        values[chance.choice(63, 2, replace=False)] *= -3.0
        assert np.array_equal(code.decode(values), message)
