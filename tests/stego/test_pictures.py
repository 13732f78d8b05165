"""Pictures that come from outside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nerfkit.lift.photo import read_photo
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
