from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from nerfkit.stego.keys import Key, StegoError
from nerfkit.stego.message import FORMATS, Letter, chance_of_agreement, chance_of_sum


def letter(number: int = 0, n_bits: int = 48, scene: str = "scene") -> Letter:
    return Letter(Key(bytes([number]) * 32).of_scene(scene), FORMATS[n_bits])


@pytest.mark.parametrize("n_bits", FORMATS)
def test_what_is_written_is_read(n_bits: int) -> None:
    chance = np.random.default_rng(0)
    for _ in range(20):
        message = chance.bytes(n_bits // 8)
        signs = letter(1, n_bits).write(message)
        reading = letter(1, n_bits).read(signs * chance.uniform(0.1, 3.0, len(signs)))
        assert reading.message == message and reading.corrected == 0
        assert reading.p_value == pytest.approx(2.0**n_bits / 2.0 ** len(signs))


def test_another_key_or_scene_reads_nothing() -> None:
    signs = letter().write(b"secret")
    assert letter(1).read(signs) is None
    assert letter(0, scene="another").read(signs) is None
    assert abs((letter(1).write(b"secret") * signs).sum()) < 60


def test_a_message_cannot_be_changed_without_the_key() -> None:
    """Another word of the code, whichever of its bits was changed, is no message."""
    one = letter()
    straight = np.empty(127)
    straight[one._order] = one.write(b"secret") * one._turned
    payload = one.format.code.decode(straight)
    for bit in range(64):
        changed = payload.copy()
        changed[bit] ^= 1
        assert one.read(one._signs(changed)) is None


@pytest.mark.parametrize("n_bits", FORMATS)
def test_messages_of_a_key_are_no_more_alike_than_those_of_two(n_bits: int) -> None:
    """Numbered ones, in all pairs: what carries one verifies as another as often as chance has it."""
    one, n = letter(1, n_bits), FORMATS[n_bits].code.n
    words = np.stack([one.write(f"copy{number:02d}".encode().ljust(n_bits // 8, b"\0")) for number in range(100)])
    agreeing = (words @ words.T / 2 + n / 2)[np.triu_indices(100, 1)]
    assert agreeing.mean() == pytest.approx(n / 2, abs=4 * np.sqrt(n / 4 / len(agreeing)))
    assert agreeing.std() == pytest.approx(np.sqrt(n / 4), rel=0.05)
    assert chance_of_agreement(n, int(agreeing.max())) > 1e-7


def test_wrong_bits_are_counted() -> None:
    signs = letter().write(b"secret") * 2.0
    signs[:7] *= -0.2
    reading = letter().read(signs)
    assert (reading.message, reading.corrected) == (b"secret", 7)
    assert letter().verify(signs, b"secret") == (120, chance_of_agreement(127, 120))


def test_the_length_is_checked() -> None:
    with pytest.raises(StegoError, match="48 bits"):
        letter().write(b"four")


def test_the_chance_of_a_sum_is_that_of_all_signs() -> None:
    """Counted for a dozen numbers, some of them nothing."""
    chance = np.random.default_rng(0)
    for _ in range(20):
        sizes = chance.exponential(size=12) * (chance.random(12) < 0.9)
        sums = np.array(list(itertools.product([-1.0, 1.0], repeat=12))) @ sizes
        for share in (0.2, 0.5, 0.8, 0.95, 1.0):
            total = share * sizes.sum()
            exact, near = (float((sums >= total - slack * sizes.sum()).mean()) for slack in (1e-12, 2e-3))
            assert exact <= chance_of_sum(sizes, total) <= near
    assert chance_of_sum(np.ones(10), 10.0) == 2.0**-10
    assert chance_of_sum(np.ones(10), -1.0) == 1.0
    assert chance_of_sum(np.array([1.0] + [1e-15] * 126), 1.0) >= 0.5, "what is nothing need not agree"


@pytest.mark.parametrize(("n", "agreeing"), [(127, 70), (127, 110), (127, 126), (255, 200)])
def test_coins_of_one_size_are_counted_as_bits_are(n: int, agreeing: int) -> None:
    """Far out, too, where chances are less than what a sum of one could hold."""
    found = chance_of_sum(np.full(n, 0.3), 0.3 * (2 * agreeing - n))
    assert found == pytest.approx(chance_of_agreement(n, agreeing), rel=1e-9)


def test_noise_is_hardly_ever_taken_for_a_message() -> None:
    """Whatever a picture says of the bits: here it is very sure, and for all keys of the same."""
    values = np.random.default_rng(0).normal(size=127) * 100
    p = [r.p_value for r in (letter(i % 256, scene=str(i // 256)).read(values) for i in range(3000)) if r is not None]
    assert len(p) <= 3  # a tag is met by chance once in 65,536 times
    assert all(value > 1e-6 for value in p)


def test_no_agreement_at_all_is_certain() -> None:
    assert math.isclose(chance_of_agreement(5, 0), 1.0)
