"""Every kind of picture becomes 8-bit RGB(A); what is broken is named."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from nerfkit.poses import SceneError
from nerfkit.scene import images
from nerfkit.scene.images import (
    border_color,
    read_image,
    read_mask,
    read_picture,
    read_pictures,
    reduce_image,
    reduce_mask,
)

RAMP = np.stack([*np.meshgrid(np.arange(16) * 16, np.arange(12) * 20), np.full((12, 16), 7)], -1).astype(np.uint8)


def write(path: Path, array: np.ndarray) -> Path:
    channels = array if array.ndim == 2 else array[..., [2, 1, 0, *range(3, array.shape[2])]]
    assert cv2.imwrite(str(path), channels)
    return path


def test_colour_order_and_opaque_alpha(tmp_path):
    assert np.array_equal(read_image(write(tmp_path / "a.png", RAMP))[0], RAMP)
    opaque = np.dstack([RAMP, np.full(RAMP.shape[:2], 255, np.uint8)])
    assert np.array_equal(read_image(write(tmp_path / "b.png", opaque))[0], RAMP)
    opaque[0, 0, 3] = 9
    assert np.array_equal(read_image(write(tmp_path / "c.png", opaque))[0], opaque)


def test_grey_and_16_bits(tmp_path):
    grey = RAMP[..., 0]
    assert np.array_equal(read_image(write(tmp_path / "a.png", grey))[0], np.dstack([grey] * 3))
    deep = RAMP.astype(np.uint16) * 257
    assert np.array_equal(read_image(write(tmp_path / "b.png", deep))[0], RAMP)


def test_palette_and_grey_with_alpha(tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    pillow.fromarray(RAMP // 64 * 64).convert("P", palette=pillow.Palette.ADAPTIVE).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png")[0], RAMP // 64 * 64)
    pair = np.dstack([RAMP[..., 0], RAMP[..., 1]])
    pillow.fromarray(pair, "LA").save(tmp_path / "b.png")
    found, _ = read_image(tmp_path / "b.png")
    assert found.shape == (12, 16, 4) and np.array_equal(found[..., 3], RAMP[..., 1])


def test_exif_orientation_is_ignored(tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    exif = pillow.Exif()
    exif[0x0112] = 6
    pillow.fromarray(RAMP).save(tmp_path / "a.jpg", exif=exif, quality=95)
    assert read_image(tmp_path / "a.jpg")[0].shape == (12, 16, 3)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.9])
def test_truncated_pictures_are_named(tmp_path, suffix, kept):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = write(tmp_path / f"a.{suffix}", noise)
    assert read_image(path)[0].shape == (64, 64, 3)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(SceneError, match=f"a.{suffix}: not a complete picture"):
        read_image(path)


def test_other_bytes_and_floats_are_named(tmp_path):
    (tmp_path / "a.png").write_text("not a picture")
    with pytest.raises(SceneError, match="a.png: not a complete picture"):
        read_image(tmp_path / "a.png")
    with pytest.raises(SceneError, match="b.png: cannot be read"):
        read_image(tmp_path / "b.png")
    assert cv2.imwrite(str(tmp_path / "c.tiff"), RAMP.astype(np.float32))
    with pytest.raises(SceneError, match="c.tiff: has float32 pixels"):
        read_image(tmp_path / "c.tiff")


def test_reduction_averages_and_crops():
    assert np.array_equal(reduce_image(RAMP, 1), RAMP)
    small = reduce_image(RAMP, 5)
    mean = RAMP[:10, :15].reshape(2, 5, 3, 5, 3).mean(axis=(1, 3))
    assert small.shape == (2, 3, 3) and np.abs(small - mean).max() <= 0.51


def test_hidden_colours_do_not_bleed():
    image = np.zeros((2, 2, 4), np.uint8)
    image[..., :3] = [250, 0, 0]
    image[0, 0] = [10, 200, 30, 255]
    assert np.abs(reduce_image(image, 2)[0, 0].astype(int) - [10, 200, 30, 64]).max() <= 1


def test_no_more_than_a_few_pictures_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_n_threads", lambda: 2)
    opened = []

    def read(path, mask, factor, cut):
        opened.append(path)
        return path

    monkeypatch.setattr(images, "read_picture", read)
    paths = [tmp_path / str(number) for number in range(40)]
    for number, found in enumerate(read_pictures(((path, None) for path in paths), 1)):
        assert found == paths[number] and len(opened) <= number + 6
    assert len(opened) == 40


def test_borders(tmp_path):
    image = np.full((20, 30, 3), 255, np.uint8)
    image[3:-3, 3:-3] = RAMP[:10, :5].repeat(2, 0)[:14].repeat(5, 1)[:, :24]
    assert border_color(image) == "white" and border_color(255 - image) == "black"
    image[0] = image[:, 0] = 100
    assert border_color(image) is None


def test_masks(tmp_path):
    mask = np.full((12, 16), 255, np.uint8)
    mask[3, 5] = 0
    path, picture = write(tmp_path / "m.png", mask), write(tmp_path / "a.png", RAMP)
    assert np.array_equal(read_mask(path)[0], mask > 0)
    small = reduce_mask(mask > 0, 4)
    assert small.shape == (3, 4) and not small[0, 1] and small.sum() == 11
    assert read_picture(picture, path, 4).mask.sum() == 11
    with pytest.raises(SceneError, match="m2.png: the mask is 12x12, its picture a.png is 16x12"):
        read_picture(picture, write(tmp_path / "m2.png", mask[:, :12]), 1)
    with pytest.raises(SceneError, match="downscale = 13"):
        read_picture(picture, None, 13)
