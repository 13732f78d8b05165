"""The bench measures what it says: what is fair comes out fair, and what is not is seen."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from conftest import ball_cameras
from scipy import stats

from nerfkit.kernels.hashgrid import grid_layout
from nerfkit.signing_flags import Extract, Inspect, Verify
from nerfkit.stego.carriers import Carriers
from nerfkit.stego.cost import psnr
from nerfkit.stego.extract import RATE, VERIFY_RATE
from nerfkit.stego.forgery import denoised, pasted, residual
from nerfkit.stego.keys import Key
from nerfkit.stego.landmarks import Landmarks
from nerfkit.stego.mark import Mark, Terms
from nerfkit.stego.message import FORMATS, Letter
from nerfkit.stego.model_attacks import noisy, rounded, zeroed
from nerfkit.stego.nulls import agreeing_halves, least_agreeing, uniformity, wrong_keys
from nerfkit.stego.protocol import at_most, attack_psnr, interval
from nerfkit.stego.reading import N_LOOKS
from nerfkit.stego.steganalysis import auc, auc_error, detector, features

N_CARRIERS = 3000


@pytest.fixture(scope="module")
def mark() -> Mark:
    """Of which the nulls ask for carriers and terms alone."""
    carriers = Carriers(torch.arange(N_CARRIERS), torch.ones(N_CARRIERS, 2))
    landmarks = Landmarks(np.zeros((0, 3), np.float32), np.zeros((0, 128), np.uint8), np.zeros(0, np.int64), 1.0)
    return Mark(Terms("scene", 48, 0.01, "white", 42.0, 40.0, None), carriers, landmarks, ball_cameras(1))


@pytest.fixture(scope="module")
def heard() -> list[torch.Tensor]:
    """Of three pictures: as uneven as one likes, for it is the key that is drawn."""
    generator = torch.Generator().manual_seed(0)
    even = torch.randn(3, N_CARRIERS, generator=generator)
    return list(even * torch.rand(3, N_CARRIERS, generator=generator) ** 6 + torch.tensor([[0.0], [1.0], [-3.0]]))


@pytest.mark.parametrize(("good", "n"), [(0, 7), (3, 40), (7, 7)])
def test_bounds_are_those_at_which_what_was_seen_is_rare(good: int, n: int) -> None:
    low, high = interval(good, n)
    assert low == 0.0 if good == 0 else stats.binom.sf(good - 1, n, low) == pytest.approx(0.025)
    assert high == 1.0 if good == n else stats.binom.cdf(good, n, high) == pytest.approx(0.025)
    assert at_most(good, n) == 1.0 if good == n else stats.binom.cdf(good, n, at_most(good, n)) == pytest.approx(0.05)


def test_wrong_keys_find_nothing_and_agree_by_half(mark: Mark, heard: list[torch.Tensor]) -> None:
    row = wrong_keys(mark, heard, 100, 1000)
    assert row["accepted"] == [0, 100] and row["found"] == 3
    assert row["agreeing"] == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / 127 / 100))
    assert row["halves_agreeing"] == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / 127 / 1000))
    assert row["ks"] > 1e-3
    assert row["verified"][0] <= 1 and row["expected"] <= row["verified"][1] * VERIFY_RATE


def test_the_right_key_would_be_found(mark: Mark) -> None:
    """What the nulls call accepted is what a mark does: the same keys read pictures that one of them has marked."""
    chance = np.random.default_rng(0)
    letter = Letter(Key(chance.bytes(32)).of_scene("scene"), FORMATS[48])  # the first that is drawn
    bits, coins = mark.carriers.bits_and_coins(letter.secret, 127)
    word = torch.from_numpy(letter.write(bytes(6))).float()
    assert wrong_keys(mark, [word[bits] * coins], 1, 0)["accepted"] == [1, 1]


def test_half_keys_are_verified_as_letters_do(mark: Mark) -> None:
    values = np.random.default_rng(1).normal(size=(5, 127))
    found = agreeing_halves(values, mark, b"secret", 40, np.random.default_rng(2))
    chance = np.random.default_rng(2)
    letters = [Letter(Key(chance.bytes(32)).of_scene("scene"), FORMATS[48]) for _ in range(40)]
    taken = chance.integers(5, size=40)
    assert found.tolist() == [one.verify(values[i], b"secret")[0] for one, i in zip(letters, taken, strict=True)]


def test_verify_says_yes_from_its_own_threshold_on() -> None:
    least = least_agreeing(127)
    once, twice = (N_LOOKS * stats.binom.sf(least - few, 127, 0.5) for few in (1, 2))
    assert once <= VERIFY_RATE < twice


def test_what_is_measured_is_what_the_verbs_accept() -> None:
    assert (Extract.fpr, Inspect.fpr, Verify.fpr) == (RATE, RATE, VERIFY_RATE)


def test_counts_that_are_no_coins_are_seen() -> None:
    chance = np.random.default_rng(0)
    fair, unfair = chance.binomial(127, 0.5, 2000), chance.binomial(127, 0.52, 2000)
    assert uniformity(fair, 127, chance) > 1e-3 > uniformity(unfair, 127, chance)


def test_what_is_pasted_is_as_strong_as_was_said() -> None:
    picture = np.full((60, 80, 3), 128, np.uint8)
    added = np.random.default_rng(0).normal(size=(30, 40, 3))
    assert psnr([(picture, pasted(picture, added, 35.0))]) == pytest.approx(35.0, abs=0.3)


def test_a_denoiser_takes_away_a_faint_pattern() -> None:
    """And leaves the picture: what is left over is the pattern, mostly."""
    chance = np.random.default_rng(0)
    plain = cv2.resize(chance.integers(60, 200, (6, 6, 3)).astype(np.uint8), (120, 120), interpolation=cv2.INTER_CUBIC)
    pattern = cv2.resize(chance.choice([-2.0, 2.0], (60, 60, 1)), (120, 120), interpolation=cv2.INTER_NEAREST)
    marked = (plain + pattern[..., None]).clip(0, 255).round().astype(np.uint8)
    left = residual([marked], [denoised(marked)]).mean(2)
    assert np.corrcoef(left.ravel(), pattern.ravel())[0, 1] > 0.5
    assert np.array_equal(residual([marked], [plain])[..., 0], marked[..., 0].astype(float) - plain[..., 0])


def test_smaller_pictures_are_compared_at_their_old_size() -> None:
    picture = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], (48, 1, 3))
    small = cv2.resize(picture, (32, 24), interpolation=cv2.INTER_AREA)
    assert attack_psnr([picture], [picture]) == 100.0 and 35.0 < attack_psnr([picture], [small]) < 100.0


def test_an_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    chance = np.random.default_rng(0)
    marked, plain = chance.integers(0, 9, 30) + 1.0, chance.integers(0, 9, 20) + 0.0
    slow = np.mean([(a > b) + 0.5 * (a == b) for a in marked for b in plain])
    assert auc(marked, plain) == pytest.approx(slow)


def test_the_error_of_an_auc_is_how_far_it_varies() -> None:
    chance = np.random.default_rng(0)
    each = [auc(chance.exponential(3.0, 40), chance.exponential(1.0, 40)) for _ in range(1000)]
    assert auc_error(0.75, 40) == pytest.approx(np.std(each), rel=0.1)


def test_a_detector_sees_what_is_there_and_nothing_else() -> None:
    chance = np.random.default_rng(0)
    smooth = [cv2.resize(one, (64, 64), interpolation=cv2.INTER_CUBIC) for one in chance.uniform(60, 200, (60, 8, 8))]

    def pictures(noise: float) -> np.ndarray:
        rough = [one + chance.normal(0, noise, one.shape) for one in smooth]
        return features([np.repeat(one.clip(0, 255).round().astype(np.uint8)[..., None], 3, 2) for one in rough])

    plain, alike, marked = pictures(1.0), pictures(1.0), pictures(1.5)
    score = detector(plain[:30], marked[:30])
    assert auc(score(marked[30:]), score(plain[30:])) > 0.95
    nothing = detector(plain[:30], alike[:30])
    assert abs(auc(nothing(alike[30:]), nothing(plain[30:])) - 0.5) < 4 * auc_error(0.5, 30)


def test_numbers_are_rounded_level_by_level() -> None:
    layout = grid_layout(3, 2, 10, 4, 16)
    table = torch.randn(layout.n_entries, 2, generator=torch.Generator().manual_seed(0))
    table[: layout.offsets[1]] *= 1e-3
    for a, b in zip(layout.offsets, layout.offsets[1:], strict=False):
        before, after = table[a:b], rounded(table, layout, 4)[a:b]
        assert len(after.unique()) <= 16
        assert float((after - before).abs().max()) <= 0.5001 * float(before.max() - before.min()) / 15
        added = noisy(table, layout, 0.5)[a:b] - before
        assert float(added.std()) == pytest.approx(0.5 * float(before.std()), rel=0.2)


def test_the_smallest_numbers_go() -> None:
    table = torch.tensor([[0.1, -0.5], [0.3, -0.2]])
    assert zeroed(table, 0.5).tolist() == torch.tensor([[0.0, -0.5], [0.3, 0.0]]).tolist()
