"""Flow finds shifts that are known, and undoes them."""

import cv2
import numpy as np
import pytest

from nerfkit.flow import flow_between, reached, warped


def texture(seed: int = 0, height: int = 90, width: int = 110) -> np.ndarray:
    """Clouds of several sizes in colour, float32 in [0, 255]."""
    rng = np.random.default_rng(seed)
    layers = [cv2.GaussianBlur(rng.random((height, width, 3)).astype(np.float32), (0, 0), s) * s for s in (1, 2, 5)]
    picture = sum(layers[1:], layers[0])
    return 255 * (picture - picture.min()) / (picture.max() - picture.min())


def shifted(picture: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """The picture, moved to the right and down."""
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(np.float32)
    return cv2.remap(picture, x - dx, y - dy, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def to_bytes(picture: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(picture, 0, 255)).astype(np.uint8)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (1.0, 0.0), (0.4, -0.3), (-2.5, 1.75)])
def test_a_shift_is_found_and_undone(shift):
    first = texture()
    second = shifted(first, *shift)
    flow = flow_between(to_bytes(first), to_bytes(second))
    inner = (slice(8, -8), slice(8, -8))
    assert np.abs(flow - np.array(shift, np.float32))[inner].mean() < 0.05
    left = np.abs(warped(second, flow) - first)[inner].mean()
    assert left <= max(0.3 * np.abs(second - first)[inner].mean(), 1e-6)


def test_reach_is_up_to_the_border_and_the_mask():
    flow = np.zeros((20, 30, 2), np.float32)
    flow[..., 0] = 3.0
    usable = np.ones((20, 30), bool)
    usable[:5] = False
    expected = np.zeros((20, 30), bool)
    expected[5:, :27] = True
    assert np.array_equal(reached(usable, flow), expected)


def test_a_whole_shift_is_exact():
    picture = texture(1)
    flow = np.broadcast_to(np.array([2.0, -1.0], np.float32), (*picture.shape[:2], 2))
    assert np.allclose(warped(picture, flow)[1:, :-2], picture[:-1, 2:], atol=1e-3)


def test_pictures_that_have_no_flow_are_told():
    with pytest.raises(ValueError, match="at least 16 pixels"):
        flow_between(np.zeros((15, 40, 3), np.uint8), np.zeros((15, 40, 3), np.uint8))
