"""Metrics against slow plain twins and against the packages they claim to equal; the protocol's promises."""

import json
import math

import cv2
import numpy as np
import pytest
import torch

from nerfkit.config import Config
from nerfkit.evaluate import (
    PROTOCOLS,
    Cost,
    Setting,
    aligned_scores,
    gmsd,
    high_pass,
    metrics_record,
    peak_memory_bytes,
    psnr,
    render_pairs,
    score_images,
    ssim,
    to_bytes,
)


def pair(seed: int = 0, shape: tuple[int, int, int] = (19, 23, 3), noise: float = 0.1):
    rng = np.random.default_rng(seed)
    truth = rng.random(shape)
    return np.clip(truth + noise * rng.standard_normal(shape), 0, 1), truth


def slow_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """One window at a time, in two dimensions, from the definitions of mean, variance and covariance."""
    window = np.empty((11, 11))
    for i in range(11):
        for j in range(11):
            window[i, j] = math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for channel in range(3):
        for y in range(a.shape[0] - 10):
            for x in range(a.shape[1] - 10):
                p, q = a[y : y + 11, x : x + 11, channel], b[y : y + 11, x : x + 11, channel]
                p_mean, q_mean = (window * p).sum(), (window * q).sum()
                p_var, q_var = (window * (p - p_mean) ** 2).sum(), (window * (q - q_mean) ** 2).sum()
                covariance = (window * (p - p_mean) * (q - q_mean)).sum()
                top = (2 * p_mean * q_mean + 0.01**2) * (2 * covariance + 0.03**2)
                values.append(top / ((p_mean**2 + q_mean**2 + 0.01**2) * (p_var + q_var + 0.03**2)))
    return float(np.mean(values))


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.3])
@pytest.mark.parametrize("shape", [(11, 11, 3), (19, 23, 3)])
def test_ssim_equals_the_plain_double_loop(noise, shape):
    a, b = pair(3, shape, noise)
    assert ssim(a, b) == pytest.approx(slow_ssim(a, b), abs=1e-12)


def test_ssim_laws():
    a, b = pair(noise=0.2)
    assert ssim(a, a) == pytest.approx(1, abs=1e-12)
    assert ssim(a, b) == pytest.approx(ssim(b, a), abs=1e-12)
    assert ssim(a, b) == pytest.approx(ssim(a.transpose(1, 0, 2), b.transpose(1, 0, 2)), abs=1e-12)
    assert ssim(a, b) == pytest.approx(ssim(torch.from_numpy(a), torch.from_numpy(b)), abs=1e-15)
    assert ssim(a, 1 - a) < 0 < ssim(a, b) < 1
    flat = np.full((16, 16, 3), 0.5)
    assert ssim(flat, flat * 0.9) == pytest.approx((2 * 0.45 * 0.5 + 1e-4) / (0.25 + 0.45**2 + 1e-4), abs=1e-9)
    with pytest.raises(ValueError, match="at least 11 pixels"):
        ssim(*pair(shape=(10, 40, 3)))


def test_psnr_laws():
    a, b = pair()
    assert psnr(a, b) == pytest.approx(-10 * math.log10(((a - b) ** 2).mean()))
    assert psnr(b + (a - b) / 10, b) == pytest.approx(psnr(a, b) + 20)
    assert psnr(torch.from_numpy(a).float(), torch.from_numpy(b).float()) == pytest.approx(psnr(a, b), abs=1e-4)
    assert psnr(a, a) == math.inf
    assert math.isnan(psnr(np.full_like(a, np.nan), a))


def test_rounding():
    values = np.array([[[-1.0, 0.0, 0.4999 / 255], [0.5001 / 255, 1.0, 7.0]], [[np.nan, np.inf, 0.5], [0, 0, 0]]])
    assert to_bytes(values).tolist() == [[[0, 0, 0], [1, 255, 255]], [[0, 255, 128], [0, 0, 0]]]
    assert to_bytes(torch.from_numpy(values)).tolist() == to_bytes(values).tolist()
    levels = np.arange(255 * 3).reshape(255, 1, 3) % 256
    assert np.array_equal(to_bytes(levels / 255), levels)


def test_scores_are_of_the_rounded_pictures_and_per_image_means(tmp_path):
    views = [(index, f"test/{index}.jpg", pair(index)[1]) for index in range(3)]
    predictions = [np.clip(pair(index, noise=0.05 * (index + 1))[0], -1, 2) for index in range(3)]
    scores = score_images(render_pairs(lambda i: torch.from_numpy(predictions[i]), views), save_to=tmp_path)
    assert scores["n_images"] == 3
    for key in ("psnr", "ssim"):
        assert scores[key] == pytest.approx(np.mean([record[key] for record in scores["per_image"]]))
    for record, prediction, (_, name, truth) in zip(scores["per_image"], predictions, views, strict=True):
        a, b = np.round(prediction * 255) / 255, np.round(truth * 255) / 255
        assert record["name"] == name
        assert record["psnr"] == pytest.approx(psnr(a, b)) and record["ssim"] == pytest.approx(ssim(a, b))
    written = cv2.imread(str(tmp_path / "test" / "2.png"))[..., ::-1]
    assert np.array_equal(written, to_bytes(predictions[2]))


def test_pictures_are_rendered_one_at_a_time():
    order = []

    def render(index):
        order.append(index)
        return np.zeros((12, 12, 3))

    pairs = render_pairs(render, [(i, str(i), np.zeros((12, 12, 3))) for i in (4, 2)])
    assert order == []
    next(pairs)
    assert order == [4]


def test_equal_pictures_get_the_cap():
    truth = np.round(pair()[1] * 255) / 255
    scores = score_images([("a", truth + 1e-4, truth), ("b", truth, truth)])
    assert scores["psnr"] == PROTOCOLS["nerfkit-v1"].psnr_cap
    json.dumps(scores, allow_nan=False)


def test_what_cannot_be_scored_is_said():
    with pytest.raises(ValueError, match="split is empty"):
        score_images([])
    with pytest.raises(ValueError, match=r"r_1: the render is \(12, 12, 3\), the picture \(12, 14, 3\)"):
        score_images([("r_1", np.zeros((12, 12, 3)), np.zeros((12, 14, 3)))])


def test_a_record_is_complete_and_json():
    scores = score_images([("a", *pair())])
    setting = Setting(background="white", split="test", split_rule="every 8th view")
    cost = Cost(12.5, 400, 1e6, 8.5, 10**9, 20_000_000, "some device")
    record = metrics_record(scores, setting, cost, Config())
    wanted = "protocol psnr ssim lpips lpips_reason n_images train_seconds n_steps rays_per_second "
    wanted += "train_samples_per_ray peak_memory_bytes model_bytes device background split split_rule per_image "
    wanted += "versions commit config_hash"
    assert set(wanted.split()) <= record.keys()
    assert record["protocol"] == "nerfkit-v1" and record["rules"]["ssim_sigma"] == 1.5
    assert record["per_image"][0].keys() >= {"name", "psnr", "ssim"}
    assert (record["lpips"] is None) == bool(record["lpips_reason"])
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_peak_memory_grows_with_what_is_held():
    before = peak_memory_bytes()
    assert before > 20_000_000
    held = np.ones(60_000_000)
    assert peak_memory_bytes() >= max(before, held.nbytes)


def slow_gmsd(a: np.ndarray, b: np.ndarray) -> float:
    """Pixel by pixel."""
    lengths = []
    for picture in (a, b):
        grey = 255 * (0.299 * picture[..., 0] + 0.587 * picture[..., 1] + 0.114 * picture[..., 2])
        rows, columns = grey.shape[0] // 2, grey.shape[1] // 2
        small = [[grey[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean() for x in range(columns)] for y in range(rows)]
        length = {}
        for y in range(1, rows - 1):
            for x in range(1, columns - 1):
                across = sum(small[y + k][x + 1] - small[y + k][x - 1] for k in (-1, 0, 1)) / 3
                down = sum(small[y + 1][x + k] - small[y - 1][x + k] for k in (-1, 0, 1)) / 3
                length[y, x] = math.hypot(across, down)
        lengths.append(length)
    one, other = lengths
    values = [(2 * one[at] * other[at] + 170) / (one[at] ** 2 + other[at] ** 2 + 170) for at in one]
    return float(np.std(values))


@pytest.mark.parametrize("shape", [(6, 6, 3), (19, 23, 3), (20, 24, 3)])
def test_gmsd_equals_the_plain_loop(shape):
    a, b = pair(0, shape)
    assert gmsd(a, b) == pytest.approx(slow_gmsd(a, b), abs=1e-9)
    assert gmsd(a, b) == pytest.approx(gmsd(b, a)) and gmsd(b, b) == 0.0


def test_gmsd_grows_with_blur():
    _, truth = pair(3, (64, 64, 3))
    distances = [gmsd(cv2.GaussianBlur(truth, (0, 0), sigma), truth) for sigma in (0.4, 0.8, 1.6)]
    assert 0 < distances[0] < distances[1] < distances[2]
    with pytest.raises(ValueError, match="at least 6 pixels"):
        gmsd(truth[:5], truth[:5])


def blurred_and_shifted(dx: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture of clouds; the same moved to the right; the same blurred in its place."""
    rng = np.random.default_rng(5)
    clouds = sum(cv2.GaussianBlur(rng.random((80, 90, 3)), (0, 0), sigma) * sigma for sigma in (1, 2, 4))
    truth = (clouds - clouds.min()) / (clouds.max() - clouds.min())
    y, x = np.mgrid[:80, :90].astype(np.float32)
    moved = cv2.remap(np.float32(truth), x - np.float32(dx), y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    return truth, np.clip(moved, 0, 1), cv2.GaussianBlur(truth, (0, 0), 0.8)


def test_high_pass_sees_detail_alone():
    a, b = pair(0, (40, 50, 3))
    assert np.allclose(high_pass(a + 0.3), high_pass(a)) and np.allclose(high_pass(2 * a), 2 * high_pass(a))
    ramp = np.broadcast_to(np.linspace(0, 1, 50)[None, :, None], (40, 50, 3))
    assert np.abs(high_pass(ramp)[:, 8:-8]).max() < 1e-6
    scores = score_images([("a", a, b)])
    rounded = [high_pass(to_bytes(x) / 255) for x in (a, b)]
    assert scores["high_pass"] == pytest.approx(psnr(*rounded))


def test_aligned_scores_forgive_a_shift_and_not_a_blur():
    truth, moved, blurred = blurred_and_shifted(0.7)
    sharp, soft = score_images([("a", moved, truth)]), score_images([("a", blurred, truth)])
    assert sharp["psnr"] < soft["psnr"] and sharp["high_pass"] < soft["high_pass"]
    assert sharp["aligned"]["psnr"] > soft["aligned"]["psnr"] + 3
    assert sharp["aligned"]["high_pass"] > soft["aligned"]["high_pass"] + 3
    assert sharp["aligned"]["offset"] == pytest.approx(0.7, abs=0.05) and soft["aligned"]["offset"] < 0.1


def test_aligned_scores_of_equal_pictures_are_the_plain_ones():
    truth = to_bytes(blurred_and_shifted(0.0)[0]) / 255
    assert aligned_scores(truth, truth) == {
        "psnr": 100.0,
        "ssim": pytest.approx(1.0),
        "high_pass": 100.0,
        "offset": 0.0,
    }
    scores = score_images([("a", *pair(0, (20, 24, 3))), ("b", *pair(0, (15, 24, 3)))])
    assert scores["per_image"][0]["aligned"] is not None
    assert scores["aligned"] is None, "the second is too small"


def test_what_a_mask_hides_does_not_count_where_a_flow_leads_to_it():
    truth, moved, _ = blurred_and_shifted(1.0)
    mask = np.ones(truth.shape[:2], bool)
    mask[30:40, 50:60] = False
    hidden = truth.copy()
    hidden[~mask] = 0.0
    scores = score_images([("a", np.where(mask[..., None], moved, 0.0), hidden)], masks={"a": mask})
    assert scores["aligned"]["psnr"] > scores["psnr"] + 3


class TestMasks:
    def masked(self):
        a, b = pair(1, (30, 40, 3))
        mask = np.zeros((30, 40), bool)
        mask[4:26, 5:30] = True
        return a, b, mask

    def test_what_is_hidden_does_not_count(self):
        a, b, mask = self.masked()
        other = np.where(mask[..., None], a, 0.77)
        first, second = (score_images([("x", one, b)], masks={"x": mask}) for one in (a, other))
        for key in ("psnr", "ssim", "gmsd"):
            assert first[key] == second[key]

    def test_psnr_is_that_of_the_shown_pixels(self):
        a, b, mask = self.masked()
        a, b = to_bytes(a) / 255, to_bytes(b) / 255
        expected = -10 * math.log10(((a - b)[mask] ** 2).mean())
        assert score_images([("x", a, b)], masks={"x": mask})["psnr"] == pytest.approx(expected)

    def test_ssim_is_the_mean_of_windows_about_shown_pixels(self):
        a, b, mask = self.masked()
        each = [
            slow_ssim(a[y - 5 : y + 6, x - 5 : x + 6], b[y - 5 : y + 6, x - 5 : x + 6])
            for y in range(5, 25)
            for x in range(5, 35)
            if mask[y, x]
        ]
        assert ssim(a, b, mask=mask) == pytest.approx(np.mean(each), abs=1e-9)

    def test_a_whole_mask_is_none(self):
        a, b, _ = self.masked()
        whole = np.ones((30, 40), bool)
        assert score_images([("x", a, b)], masks={"x": whole}) == score_images([("x", a, b)])

    def test_a_picture_of_which_nothing_is_shown_is_left_out(self):
        a, b, mask = self.masked()
        scores = score_images([("x", a, b), ("y", a, b)], masks={"x": mask, "y": np.zeros_like(mask)})
        assert scores["n_images"] == 1
