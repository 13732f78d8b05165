"""Pictures of every make, what of them is object, and how it is framed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from ball_photo import ball
from PIL import Image

from nerfkit.lift.framing import breadth, framed
from nerfkit.lift.matte import check_matte, matte, onnx_matte
from nerfkit.lift.photo import LARGEST_SIDE, LiftError, read_mask, read_photo

SHARED = Path(__file__).parents[3] / "shared" / "data" / "objects"


def overlap(alpha: np.ndarray, truth: np.ndarray) -> float:
    mine = alpha > 127
    return float((mine & truth).sum() / (mine | truth).sum())


def test_grey_palette_and_cmyk_become_rgb(tmp_path):
    rgb, _ = ball()
    for mode, name in (("L", "a.png"), ("P", "b.gif"), ("CMYK", "c.jpg"), ("1", "d.png"), ("I;16", "e.png")):
        image = (
            Image.fromarray(rgb[..., 0].astype(np.uint16) * 257)
            if mode == "I;16"
            else Image.fromarray(rgb).convert(mode)
        )
        image.save(tmp_path / name)
        photo = read_photo(tmp_path / name)
        assert photo.rgb.shape == rgb.shape
        assert photo.alpha is None
        assert photo.rgb.std() > 10


def test_exif_turns_pictures_upright(tmp_path):
    image = Image.fromarray(ball()[0][:, :64])
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    photo = read_photo(tmp_path / "turned.jpg")
    assert photo.rgb.shape == (64, 96, 3)
    assert np.abs(photo.rgb.astype(float) - np.rot90(np.asarray(image), -1)).mean() < 3


def test_of_what_moves_the_first_frame_is_lifted(tmp_path):
    first, second = Image.fromarray(ball()[0]), Image.fromarray(255 - ball()[0])
    first.save(tmp_path / "moves.gif", save_all=True, append_images=[second])
    photo = read_photo(tmp_path / "moves.gif")
    assert np.abs(photo.rgb.astype(float) - ball()[0]).mean() < 10
    assert "first frame" in photo.remarks[0]


def test_large_pictures_are_reduced_with_their_alpha(tmp_path):
    rgb, inside = ball(1536)
    Image.fromarray(np.dstack([rgb, 255 * inside.astype(np.uint8)])).save(tmp_path / "large.png")
    photo = read_photo(tmp_path / "large.png")
    assert photo.rgb.shape == (LARGEST_SIDE, LARGEST_SIDE, 3)
    assert photo.alpha.mean() / 255 == pytest.approx(inside.mean(), abs=1e-3)


def test_what_is_no_number_is_dark(tmp_path):
    grey = ball()[0][..., 0].astype(np.float32) / 255
    grey[:10] = np.nan
    Image.fromarray(grey).save(tmp_path / "nan.tif")
    found = read_photo(tmp_path / "nan.tif").rgb[..., 0]
    assert found[:10].max() == 0 and np.array_equal(found[10:], ball()[0][10:, :, 0])


@pytest.mark.parametrize("make", ["tiny", "bomb", "text", "cut", "none", "folder"])
def test_what_cannot_be_lifted_is_a_sentence(make, tmp_path):
    path = tmp_path / f"{make}.png"
    if make == "tiny":
        Image.new("RGB", (16, 16)).save(path)
    elif make == "bomb":
        Image.new("1", (20_000, 10_000)).save(path)
    elif make == "text":
        path.write_text("no picture")
    elif make == "cut":
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:4000])
    elif make == "folder":
        path.mkdir()
    with pytest.raises(LiftError, match=f"{make}.png: "):
        read_photo(path)


def test_masks_are_of_the_picture_s_shape(tmp_path):
    Image.fromarray(255 * ball(48)[1].astype(np.uint8)).save(tmp_path / "mask.png")
    mask = read_mask(tmp_path / "mask.png", (96, 96))
    assert overlap(mask, ball()[1]) > 0.93
    with pytest.raises(LiftError, match="another shape"):
        read_mask(tmp_path / "mask.png", (96, 48))
    Image.fromarray(ball()[1].astype(np.uint8)).save(tmp_path / "labels.png")
    assert overlap(read_mask(tmp_path / "labels.png", (96, 96)), ball()[1]) == 1.0


@pytest.mark.parametrize("ground", [(235, 235, 230), (0, 0, 0), (40, 90, 160)])
def test_a_ball_is_told_from_its_ground(ground):
    rgb, inside = ball(160, ground)
    assert overlap(matte(rgb), inside) > 0.95


def test_black_bars_are_no_ground():
    rgb, inside = ball(160)
    barred, there = np.zeros((220, 160, 3), np.uint8), np.zeros((220, 160), bool)
    barred[30:190], there[30:190] = rgb, inside
    assert overlap(matte(barred), there) > 0.95


def test_a_noisy_ground_and_an_object_of_several_colours():
    rgb, inside = ball(160, (120, 140, 120))
    noise = np.random.default_rng(0).normal(0, 14, rgb.shape)
    rgb = np.where(inside[..., None] & (np.mgrid[:160, :160][0] > 80)[..., None], np.array([250, 240, 60]), rgb)
    assert overlap(matte((rgb + noise).clip(0, 255).astype(np.uint8)), inside) > 0.9


def test_mattes_that_show_nothing_or_all_are_sentences():
    with pytest.raises(LiftError, match="no object stands out"):
        matte(np.full((64, 64, 3), 128, np.uint8))
    with pytest.raises(LiftError, match="no object stands out"):
        check_matte(np.zeros((64, 64), np.uint8))
    with pytest.raises(LiftError, match="all of the picture is object"):
        check_matte(np.full((64, 64), 255, np.uint8))


def test_onnx_mattes_without_a_network_are_sentences(tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    (tmp_path / "x.onnx").write_text("no network")
    for name in ("x.onnx", "y.onnx"):
        with pytest.raises(LiftError, match=name):
            onnx_matte(ball()[0], tmp_path / name)


def test_photographs_are_told_from_their_ground():
    folders = sorted((SHARED / "realfusion").glob("*")) if SHARED.is_dir() else []
    if not folders:
        pytest.skip("../shared/data/objects is not there")
    found = []
    for folder in folders:
        photo = read_photo(folder / "image.png")
        mask = cv2.imread(str(folder / "mask.png"), cv2.IMREAD_GRAYSCALE)
        found.append(overlap(matte(photo.rgb), cv2.resize(mask, photo.rgb.shape[1::-1]) > 127))
    assert np.median(found) > 0.9


def test_objects_are_framed_alike_wherever_they_were():
    rgb, inside = ball(200)
    alpha = 255 * inside.astype(np.uint8)
    shifted = (np.roll(x, (37, -40), (0, 1)) for x in (rgb, alpha))
    first, second = framed(rgb, alpha), framed(*shifted)
    assert np.array_equal(first.rgba[..., 3], second.rgba[..., 3])
    there = np.argwhere(first.rgba[..., 3] > 127)
    assert np.ptp(there, axis=0).max() / first.rgba.shape[0] == pytest.approx(0.85, abs=0.02)
    assert np.abs((there.min(0) + there.max(0)) / 2 - first.rgba.shape[0] / 2).max() <= 1


def test_specks_have_no_say_in_where_the_object_is():
    rgb, inside = ball(200)
    alpha = np.pad(255 * inside.astype(np.uint8), ((0, 100), (0, 100)))
    rgb = np.pad(rgb, ((0, 100), (0, 100), (0, 0)))
    speckled = alpha.copy()
    speckled[298, 298] = speckled[2, 250] = 255
    assert np.array_equal(framed(rgb, speckled).rgba, framed(rgb, alpha).rgba)
    speckled[250:290, 250:290] = 255  # a second object is none
    assert framed(rgb, speckled).rgba.shape[0] > 1.3 * framed(rgb, alpha).rgba.shape[0]


def test_pictures_of_one_object_show_it_in_one_size():
    """Of a long one, one from its end and one, of other resolution, from its side."""

    def shape(picture: np.ndarray) -> tuple[float, float]:
        rows, columns = np.nonzero(picture[..., 3])
        return (np.ptp(rows) + 1) / len(picture), (np.ptp(columns) + 1) / len(picture)

    end, side = np.zeros((100, 100), np.uint8), np.zeros((200, 400), np.uint8)
    end[30:60, 40:60] = 255
    side[80:140, 50:290] = 255
    reach = max(breadth(alpha > 127) for alpha in (end, side))
    alone = framed(np.zeros((*side.shape, 3), np.uint8), side)
    of_end, of_side = (framed(np.zeros((*a.shape, 3), np.uint8), a, reach=reach) for a in (end, side))
    assert shape(of_side.rgba) == shape(alone.rgba)
    assert shape(of_end.rgba)[0] == pytest.approx(shape(of_side.rgba)[0], rel=0.02)
    assert shape(of_end.rgba)[1] == pytest.approx(shape(of_end.rgba)[0] * 2 / 3, rel=0.05)


def test_too_few_pixels_are_a_sentence():
    alpha = np.zeros((64, 64), np.uint8)
    alpha[10:18, 20:24] = 255
    with pytest.raises(LiftError, match="the object is 4x8 pixels"):
        framed(np.zeros((64, 64, 3), np.uint8), alpha)


def test_cameras_see_the_ball_whole_through_any_angle():
    rgb, inside = ball()
    photo = framed(rgb, 255 * inside.astype(np.uint8))
    for fov in (20.0, 60.0):
        turned = photo.looking(10.0, fov)
        assert turned.radius * np.sin(np.radians(fov) / 2) == pytest.approx(1.0)
    for elevation, fov in ((95.0, 40.0), (0.0, 150.0)):
        with pytest.raises(LiftError, match="degrees"):
            photo.looking(elevation, fov)


def test_scaling_does_not_let_colours_of_nothing_bleed_in():
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[..., :3] = (0, 255, 0)
    rgba[16:48, 16:48] = (255, 0, 0, 255)
    small = framed(rgba[..., :3], rgba[..., 3]).scaled(11).rgba
    assert small[small[..., 3] > 0][:, 1].max() < 3
