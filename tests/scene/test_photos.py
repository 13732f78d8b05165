"""Photographs become upright files, each once; a video gives its sharpest frames."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from imageio_ffmpeg import write_frames
from PIL import ExifTags, Image

from nerfkit.poses import SceneError
from nerfkit.scene import photos as module
from nerfkit.scene.photos import gather


def silent(stage: str, done: int, total: int) -> None:
    assert 0 <= done <= total and stage


def picture(seed: int, size: tuple[int, int] = (48, 32)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.NEAREST)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "holiday"
    (folder / "more").mkdir(parents=True)
    for number, name in enumerate(["b.png", "a.jpg", "more/a.jpg"]):
        picture(number).save(folder / name)
    return folder


def test_all_photographs_are_found_with_their_folders(source: Path, tmp_path: Path) -> None:
    found = gather(source, tmp_path / "out", 10, silent)
    assert found.names == ["a.jpg", "b.png", "more/a.jpg"] and not found.ordered and found.alike
    for name in found.names:
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
    assert not found.left_out and not found.positions


@pytest.mark.parametrize("turn", [1, 2, 3, 4, 5, 6, 7, 8])
def test_photographs_stand_upright(turn: int, source: Path, tmp_path: Path) -> None:
    upright = picture(9, (64, 32))
    # EXIF's eight orientations: what has to be done to the stored picture so that it stands upright.
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright if turn == 1 else upright.transpose(Image.Transpose(undo[turn]))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = turn
    exif[ExifTags.Base.Model] = "Lochkamera"
    stored.save(source / "turned.png", exif=exif)
    found = gather(source, tmp_path / "out", 10, silent)
    with Image.open(tmp_path / "out" / "turned.png") as image:
        assert np.array_equal(np.asarray(image), np.asarray(upright))
        assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1
        assert image.getexif()[ExifTags.Base.Model] == "Lochkamera"
    assert not found.alike, "one of them knows its camera"


def test_a_tiff_stands_upright_too(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    upright, exif = picture(9, (64, 32)), Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "in" / "turned.tif", exif=exif)
    gather(tmp_path / "in", tmp_path / "out", 10, silent)
    stored = cv2.imread(str(tmp_path / "out" / "turned.tif"), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    assert np.array_equal(stored[..., ::-1], np.asarray(upright))


def test_what_colmap_does_not_read_becomes_what_it_does(source: Path, tmp_path: Path) -> None:
    picture(7).save(source / "c.webp", lossless=True)
    clear = picture(8)
    clear.putalpha(200)
    clear.save(source / "d.webp", lossless=True)
    found = gather(source, tmp_path / "out", 10, silent)
    assert {"c.webp.jpg", "d.webp.png"} <= set(found.names)
    for name, seed in (("c.webp", 7), ("d.webp", 8)):
        (made,) = (path for path in (tmp_path / "out").iterdir() if path.name.startswith(name))
        assert made.name in found.names
        off = cv2.imread(str(made))[..., ::-1].astype(float) - np.asarray(picture(seed))
        assert np.abs(off).mean() < 3


def test_links_to_photographs_are_photographs(source: Path, tmp_path: Path) -> None:
    (tmp_path / "pick").mkdir()
    for name in ("b.png", "a.jpg"):
        (tmp_path / "pick" / name).symlink_to(Path("..") / source.name / name)
    found = gather(tmp_path / "pick", tmp_path / "deep" / "out", 10, silent)
    assert [(tmp_path / "deep" / "out" / name).read_bytes() for name in found.names] == [
        (source / name).read_bytes() for name in ("a.jpg", "b.png")
    ]


def test_another_source_takes_nothing_over_and_harms_nothing(tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for number in range(3):
        picture(number).save(frames / f"frame-{number:05d}.jpg")
    before = [path.read_bytes() for path in sorted(frames.iterdir())]
    first = gather(frames, tmp_path / "out", 10, silent)
    walk = film(tmp_path / "walk.mp4", [np.full((48, 64, 3), 20 * number, np.uint8) for number in range(6)])
    second = gather(walk, tmp_path / "out", 2, silent)
    assert first.mark != second.mark and len(list((tmp_path / "out").iterdir())) == 2
    assert [path.read_bytes() for path in sorted(frames.iterdir())] == before


def test_what_cannot_be_used_is_told(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / "again.png").write_bytes((source / "b.png").read_bytes())
    (source / "half.jpg").write_bytes((source / "a.jpg").read_bytes()[:300])
    (source / "IMG_1.HEIC").write_bytes(b"ftypheic")
    (source / ".thumbnail.jpg").write_bytes((source / "a.jpg").read_bytes())
    (source / "notes.txt").write_text("hello")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    picture(11, (96, 64)).save(source / "huge.jpg")
    found = gather(source, tmp_path / "out", 10, silent)
    assert len(found.names) == 3 and set(found.left_out) == {"b.png", "half.jpg", "huge.jpg", "IMG_1.HEIC"}
    assert found.left_out["b.png"] == "is the same picture as again.png"
    assert "does not decode" in found.left_out["half.jpg"] and "convert it to JPEG" in found.left_out["IMG_1.HEIC"]


def test_places_are_read(source: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    gps = {1: "S", 2: (33.0, 51.0, 30.0), 3: "E", 4: (151.0, 12.0, 36.0), 5: b"\1", 6: 12.5}
    exif[ExifTags.IFD.GPSInfo] = gps
    picture(5).save(source / "c.jpg", exif=exif)
    found = gather(source, tmp_path / "out", 10, silent)
    assert list(found.positions) == ["c.jpg"]
    assert found.positions["c.jpg"] == pytest.approx((-(33 + 51 / 60 + 30 / 3600), 151 + 12 / 60 + 36 / 3600, -12.5))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: None, "there is no such folder or video"),
        (lambda path: path.mkdir(), "holds no photograph"),
        (lambda path: path.write_text("no video"), "does not decode as a video"),
    ],
)
def test_a_source_without_photographs(make: object, sentence: str, tmp_path: Path) -> None:
    make(tmp_path / "x")
    with pytest.raises(SceneError, match=sentence):
        gather(tmp_path / "x", tmp_path / "out", 10, silent)


def test_only_what_cannot_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "phone"
    folder.mkdir()
    (folder / "IMG_1.HEIC").write_bytes(b"ftypheic")
    with pytest.raises(SceneError, match=r"1 photos that cannot be read; convert them first .*jpg \*\.HEIC\)"):
        gather(folder, tmp_path / "out", 10, silent)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8")
    with pytest.raises(SceneError, match="none of 1 photos can be used .IMG_1.HEIC HEIC is not read"):
        gather(folder, tmp_path / "out", 10, silent)


def film(path: Path, frames: list[np.ndarray]) -> Path:
    writer = write_frames(str(path), (64, 48), fps=10, quality=9)
    writer.send(None)
    for frame in frames:
        writer.send(np.ascontiguousarray(frame))
    writer.close()
    return path


def test_the_sharpest_frame_of_each_stretch_is_taken(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    frames, sharp = [], [3, 5, 10, 19]
    for number in range(20):
        noise = cv2.resize(generator.integers(0, 256, (12, 16, 3), np.uint8), (64, 48), interpolation=cv2.INTER_NEAREST)
        noise[:8] = 12 * number
        frames.append(noise if number in sharp else cv2.GaussianBlur(noise, (0, 0), 2.0))
    found = gather(film(tmp_path / "walk.mp4", frames), tmp_path / "out", 4, silent)
    assert found.ordered and found.alike and len(found.names) == 4
    brightness = [np.median(cv2.imread(str(tmp_path / "out" / name))[1:5]) for name in found.names]
    assert [round(float(value) / 12) for value in brightness] == sharp


def test_a_short_video_gives_all_its_frames(tmp_path: Path) -> None:
    frames = [np.full((48, 64, 3), 20 * number, np.uint8) for number in range(6)]
    assert len(gather(film(tmp_path / "walk.mp4", frames), tmp_path / "out", 100, silent).names) == 6


def test_what_was_made_ready_is_not_made_again(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = gather(source, tmp_path / "out", 10, silent)

    def never(*_: object) -> None:
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(module, "_from_folder", never)
        assert gather(source, tmp_path / "out", 10, silent) == first
    picture(7).save(source / "new.png")
    assert len(gather(source, tmp_path / "out", 10, silent).names) == 4
    (tmp_path / "out.json").write_text("{")
    assert len(gather(source, tmp_path / "out", 10, silent).names) == 4
