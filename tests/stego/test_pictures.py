"""Pictures that come from outside."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from nerfkit.lift.photo import read_photo
from nerfkit.stego.keys import StegoError
from nerfkit.stego.pictures import pictures_of

RAMP = np.arange(256, dtype=np.uint8).repeat(64).reshape(128, 128)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("8.png", RAMP),
        ("16.png", RAMP.astype(np.uint16) * 257),
        ("16.tif", RAMP.astype(np.uint16) * 257),
        ("32.tif", RAMP.astype(np.int32) * 257),
        ("float.tif", RAMP.astype(np.float32) / 255),
    ],
)
def test_grey_of_any_depth_becomes_eight_bits(tmp_path: Path, name: str, values: np.ndarray) -> None:
    Image.fromarray(values).save(tmp_path / name)
    (read,) = (picture for _, picture in pictures_of([tmp_path / name]))
    for found in (read, read_photo(tmp_path / name).rgb):
        assert found.dtype == np.uint8 and np.array_equal(found, RAMP[..., None].repeat(3, 2))


def test_dark_grey_of_16_bits_stays_dark(tmp_path: Path) -> None:
    Image.fromarray(RAMP.astype(np.uint16)).save(tmp_path / "dark.png")
    ((_, found),) = pictures_of([tmp_path / "dark.png"])
    assert found.max() <= 1


@pytest.mark.parametrize(("side", "sentence"), [(8, "expected at least"), (128, "megapixels")])
def test_every_page_and_frame_has_a_size_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int, sentence: str
) -> None:
    """Pages of a file, and what a film says of itself, may be other than its first page or its name."""
    monkeypatch.setattr("nerfkit.foreign._MOST_PIXELS", 100 * 100)
    first, second = (Image.new("RGB", (size, size), "red") for size in (64, side))
    first.save(tmp_path / "pages.tif", save_all=True, append_images=[second])
    film = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (side, side))
    film.write(np.zeros((side, side, 3), np.uint8))
    film.release()
    for name in ("pages.tif", "film.avi"):
        with pytest.raises(StegoError, match=f"{name}.*{sentence}"):
            list(pictures_of([tmp_path / name]))
