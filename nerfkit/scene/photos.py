"""Photographs as they come: a folder of pictures, or a video, made ready for structure from motion.

Pictures end up upright (as their EXIF says), each once, in one folder, with what their files tell of where they were
taken. Of a video the sharpest frame of each stretch is taken.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps

from nerfkit.aside import file_aside
from nerfkit.poses import SceneError
from nerfkit.scene.listing import SUFFIXES

VIDEOS = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mts", ".mpg", ".mpeg")
"""Suffixes of videos, in lower case."""
UNREADABLE = (".heic", ".heif", ".avif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2")
"""Suffixes of photographs that nothing here decodes."""
_ORIENTATION = ExifTags.Base.Orientation
_UNDECODED = (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError)
"""What Pillow raises for damaged files, and for those that it will not unpack."""
_KNOWN = ("JPEG", "MPO", "PNG", "BMP", "TIFF")
"""Formats, as Pillow names them, that COLMAP reads."""
_SMALL = 480
"""Rows at which frames are compared for sharpness: noise is gone there, blur is not."""

Progress = Callable[[str, int, int], None]
"""Hears the name of a stage, how much of it is done and how much there is."""


@dataclass(frozen=True)
class Photos:
    """What is in the folder of pictures that were made ready."""

    names: list[str]
    """Paths in that folder, sorted."""
    ordered: bool
    """Whether neighbours in the list were taken one after the other."""
    alike: bool
    """Whether all can be taken for pictures of one camera: of one video, or of one size and no word about cameras."""
    positions: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    """Latitude and longitude (degrees) and altitude (metres) where known."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Files that are not used, and why."""
    mark: str = ""
    """A word that changes with the source's files: what was found out about others must not be taken for these."""


def gather(source: Path, folder: Path, n_frames: int, on_progress: Progress) -> Photos:
    """Make the photographs of a folder, or the frames of a video, ready in ``folder``.

    What an interrupted call left there is used, if it was for the same source.

    Args:
        source: a folder, searched in all its depths, or a video.
        folder: is made; a JSON file beside it, of its name, says when it is complete.
        n_frames: to take from a video.

    Raises SceneError where there is no photograph that can be used.
    """
    if not source.exists():
        raise SceneError(f"{source}: there is no such folder or video")
    record = folder.with_name(f"{folder.name}.json")
    mark = _mark(source, folder, n_frames)
    try:
        kept = json.loads(record.read_text())
        if kept["mark"] == mark:
            positions = {name: tuple(place) for name, place in kept.pop("positions").items()}
            return Photos(**kept, positions=positions)
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none, or not a whole one: begin anew
    shutil.rmtree(folder, ignore_errors=True)  # rather than write into it: files there may be links to somebody's own
    folder.mkdir(parents=True)
    read = (_from_folder if source.is_dir() else _from_video)(source, folder, n_frames, on_progress)
    photos = replace(read, mark=mark)
    with file_aside(record) as aside:
        aside.write_text(json.dumps(asdict(photos)))
    return photos


def _mark(source: Path, folder: Path, n_frames: int) -> str:
    """A word that changes with the source's files."""
    facts = [str(source.resolve()), str(n_frames)]
    for path in [source] if source.is_file() else _files(source, folder):
        stat = path.stat()
        facts.append(f"{path} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.blake2b("\n".join(facts).encode(), digest_size=16).hexdigest()


def _files(source: Path, folder: Path) -> list[Path]:
    """All files of a folder, without hidden ones and without what is made ready inside of it."""
    out = folder.resolve()
    found = []
    for path in sorted(source.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(source).parts)
        if path.is_file() and not hidden and out not in path.resolve().parents:
            found.append(path)
    return found


def _from_folder(source: Path, folder: Path, _: int, on_progress: Progress) -> Photos:
    files = _files(source, folder)
    pictures = [path for path in files if path.suffix.lower() in SUFFIXES]
    left_out = {
        path.relative_to(source).as_posix(): f"{path.suffix[1:].upper()} is not read; convert it to JPEG"
        for path in files
        if path.suffix.lower() in UNREADABLE
    }
    if not pictures and left_out:
        example = f"magick mogrify -format jpg *{Path(next(iter(left_out))).suffix}"
        raise SceneError(f"{source}: holds {len(left_out)} photos that cannot be read; convert them first ({example})")
    if not pictures:
        raise SceneError(f"{source}: holds no photograph")
    names, positions, sizes, digests, cameras = [], {}, set(), {}, set()
    for number, path in enumerate(pictures):
        on_progress("reading photos", number, len(pictures))
        name = path.relative_to(source).as_posix()
        digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
        if digest in digests:
            left_out[name] = f"is the same picture as {digests[digest]}"
            continue
        try:
            with Image.open(path) as image:
                turned = image.getexif().get(_ORIENTATION, 1) != 1  # before it is loaded: TIFF is turned by that
                image.load()
                exif = image.getexif()
                place, target = _place(exif), _stand_up(image, turned, path, folder / name)
        except _UNDECODED as error:
            left_out[name] = f"does not decode ({str(error).rstrip('.')})"
            continue
        digests[digest] = name
        name = target.relative_to(folder).as_posix()
        names.append(name)
        with Image.open(target) as image:
            sizes.add(image.size)
        cameras.add(exif.get(ExifTags.Base.Model))
        if place is not None:
            positions[name] = place
    on_progress("reading photos", len(pictures), len(pictures))
    if not names:
        name, why = next(iter(left_out.items()))
        raise SceneError(f"{source}: none of {len(pictures)} photos can be used ({name} {why})")
    alike = len(sizes) == 1 and cameras == {None}
    return Photos(sorted(names), False, alike, positions, left_out)


def _stand_up(image: Image.Image, turned: bool, path: Path, target: Path) -> Path:
    """Put an upright picture at ``target``, the file itself where that is one, and return where it is.

    What COLMAP does not read becomes a JPEG, or a PNG where it has alpha, whose suffix is added to the name.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    known = image.format in _KNOWN
    if known and not turned:
        try:
            os.link(path.resolve(), target)  # not a link that leads there: it may be relative
        except OSError:  # another disk, or a file system without links
            target.write_bytes(path.read_bytes())
        return target
    upright = ImageOps.exif_transpose(image)
    if not known:
        clear = upright.has_transparency_data
        target = target.with_name(f"{target.name}.{'png' if clear else 'jpg'}")
        upright = upright.convert("RGBA" if clear else "RGB")
    options = {"quality": 95, "subsampling": 0} if target.suffix.lower() in (".jpg", ".jpeg") else {}
    upright.save(target, exif=upright.getexif(), **options)
    return target


def _place(exif: Image.Exif) -> tuple[float, float, float] | None:
    """Latitude, longitude and altitude of EXIF's GPS block; None where there is none or it makes no sense."""
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    tags = ExifTags.GPS
    try:
        angles = []
        for value, sign, negative in (
            (tags.GPSLatitude, tags.GPSLatitudeRef, "S"),
            (tags.GPSLongitude, tags.GPSLongitudeRef, "W"),
        ):
            degrees, minutes, seconds = (float(part) for part in gps[value])
            angle = degrees + minutes / 60 + seconds / 3600
            angles.append(-angle if gps.get(sign) == negative else angle)
        height = float(gps.get(tags.GPSAltitude, 0.0))
        below = gps.get(tags.GPSAltitudeRef, b"\0") in (1, b"\1")
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    latitude, longitude = angles
    known = np.isfinite([latitude, longitude, height]).all() and (latitude, longitude) != (0.0, 0.0)
    return (latitude, longitude, -height if below else height) if known and abs(latitude) <= 90 else None


def _from_video(source: Path, folder: Path, n_frames: int, on_progress: Progress) -> Photos:
    """The sharpest frame of each of ``n_frames`` stretches of equal length."""
    total = _count_frames(source)
    if total == 0:
        raise SceneError(f"{source}: does not decode as a video, and is no folder of photos")
    ends = [total * (i + 1) // n_frames for i in range(n_frames)] if total > n_frames else list(range(1, total + 1))
    video, names, best, read = cv2.VideoCapture(str(source)), [], (-1.0, None), 0
    try:
        for end in ends:
            while read < end:
                decoded, frame = video.read()
                read += 1
                if decoded:
                    best = max(best, (_sharpness(frame), frame), key=lambda pair: pair[0])
            if best[1] is not None:
                name = f"frame-{len(names):05d}.jpg"
                if not cv2.imwrite(str(folder / name), best[1], [cv2.IMWRITE_JPEG_QUALITY, 96]):
                    raise SceneError(f"{folder / name}: could not be written; is the disk full?")
                names.append(name)
                best = (-1.0, None)
            on_progress("choosing frames", read, total)
    finally:
        video.release()
    if not names:
        raise SceneError(f"{source}: none of its {total} frames decodes")
    return Photos(names, True, True)


def _count_frames(source: Path) -> int:
    """Frames of a video, counted where its header does not say; 0 if it is none."""
    video = cv2.VideoCapture(str(source))
    try:
        stated = int(video.get(cv2.CAP_PROP_FRAME_COUNT)) if video.isOpened() else 0
        if stated > 0 and video.grab():
            return stated
        counted = 0
        while video.isOpened() and video.grab():
            counted += 1
        return counted
    finally:
        video.release()


def _sharpness(frame: np.ndarray) -> float:
    """Variance of the Laplacian of a frame's brightness, reduced to `_SMALL` rows."""
    grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    scale = min(1.0, _SMALL / grey.shape[0])
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return float(cv2.Laplacian(small, cv2.CV_32F).var())
