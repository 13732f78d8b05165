"""Films: a camera path, each of its frames rendered, as an mp4 or a folder of PNG files, in colour and in depth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from nerfkit.aside import file_aside, folder_aside
from nerfkit.cameras import Cameras
from nerfkit.paths import interpolate, orbit, read_path, spiral
from nerfkit.render import Renderer, render_image
from nerfkit.scene import Scene
from nerfkit.types import Rendered

SUFFIXES = (".mp4", ".mov", ".mkv")
DEFAULT_FPS = 24.0
FRAME_NAME = "frame-{:05d}.png"
QUALITY = 17
"""libx264's constant rate factor: 0 is lossless, 17 looks it."""

Frame = UInt8[np.ndarray, "h w 3"]
AddFn = Callable[[Frame], None]


class VideoError(ValueError):
    """A film that cannot be shot or written: one sentence that names the file."""


def camera_path(
    scene: Scene, path: str, n_frames: int | None = None, fps: float | int | None = None
) -> tuple[Cameras, float]:
    """The cameras to film a scene with, scene coordinates, and frames a second.

    Args:
        scene: what was photographed; made paths stay where its training cameras were.
        path: ``orbit``, ``spiral``, ``interpolate`` (through the training cameras), ``test`` (the held-out views), or
            the name of a camera path file.
        n_frames: of a made path; None takes 5 seconds' worth, 10 for ``interpolate``.
        fps: None takes the file's own, else 24.

    Raises VideoError where no view is held out, SceneError for a file that cannot be used.
    """
    rate, seen = float(fps or DEFAULT_FPS), scene.cameras[scene.splits["train"]]
    if path in PATHS:
        make, seconds = PATHS[path]
        return make(seen, n_frames or max(1, round(seconds * rate))), rate
    if path == "test":
        if not scene.splits["test"]:
            raise VideoError(f"{scene.root}: holds out no view, so there is no path test")
        return scene.cameras[scene.splits["test"]], rate
    if not Path(path).suffix:
        raise VideoError(f"no path is called {path}; there is {', '.join(PATHS)}, test, or a JSON file")
    cameras, own = read_path(Path(path), (int(seen.width[0]), int(seen.height[0])))
    return cameras, float(fps or own)


def film(path: Path, fps: float = 24.0) -> AbstractContextManager[AddFn]:
    """Begin a film; the context's value takes its frames (RGB), one call each, and its end finishes the film.

    A path that ends in .mp4, .mov or .mkv becomes a video (H.264, yuv420p; an odd row or column is cropped), one
    without a suffix a folder of PNG files. Raises VideoError for anything else, for frames of several sizes in a video
    and where no frame came, PlaceError for a folder that holds something other than an earlier film.
    """
    if path.suffix.lower() in SUFFIXES:
        return _video(path, fps)
    if path.suffix:
        raise VideoError(f"{path}: a video ends in {', '.join(SUFFIXES)}; a folder of PNG frames has no suffix")
    return _folder(path)


@contextmanager
def _video(path: Path, fps: float) -> Iterator[AddFn]:
    from imageio_ffmpeg import write_frames

    writer = size = None

    def add(frame: Frame) -> None:
        nonlocal writer, size
        if size is not None and frame.shape != size:
            found = f"{frame.shape[1]}x{frame.shape[0]} after {size[1]}x{size[0]}"
            raise VideoError(f"{path}: the frames have several sizes ({found}); write them to a folder instead")
        size = frame.shape
        height, width = (side // 2 * 2 for side in size[:2])
        if min(height, width) == 0:
            raise VideoError(f"{path}: frames of {size[1]}x{size[0]} pixels are too small for a video")
        if writer is None:
            options = ["-crf", str(QUALITY), "-preset", "medium", "-movflags", "+faststart"]
            kind = {"codec": "libx264", "pix_fmt_out": "yuv420p", "quality": None, "macro_block_size": 2}
            writer = write_frames(str(aside), (width, height), fps=fps, output_params=options, **kind)
            writer.send(None)
        try:
            writer.send(np.ascontiguousarray(frame[:height, :width]))
        except OSError as error:
            raise VideoError(f"{path}: ffmpeg stopped: {_first_line(error)}") from None

    with file_aside(path) as aside:
        try:
            yield add
            if writer is None:
                raise VideoError(f"{path}: a film needs at least one frame")
        finally:
            if writer is not None:
                writer.close()


@contextmanager
def _folder(path: Path) -> Iterator[AddFn]:
    count = 0

    def add(frame: Frame) -> None:
        nonlocal count
        if not cv2.imwrite(str(aside / FRAME_NAME.format(count)), frame[..., ::-1]):
            raise VideoError(f"{path}: frame {count} could not be written; is the disk full?")
        count += 1

    with folder_aside(path, "frame of a film", _is_frame) as aside:
        yield add
        if not count:
            raise VideoError(f"{path}: a film needs at least one frame")


def _is_frame(name: str) -> bool:
    stem = name.removeprefix("frame-").removesuffix(".png")
    return name == f"frame-{stem}.png" and stem.isdecimal()


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def shoot(model: Renderer, cameras: Cameras, background: str = "white") -> Iterator[Rendered]:
    """Render each camera when its turn comes."""
    for number in range(len(cameras)):
        yield render_image(model, cameras, number, background)


def frames_of(
    model: Renderer, cameras: Cameras, number: int, background: str, between: tuple[float, float] | None
) -> list[Frame]:
    """What one camera sees as the frame of a film, and where there is a range of depths (`depth_range`) its depth."""
    seen = render_image(model, cameras, number, background)
    depth = [] if between is None else [depth_picture(seen.depth, seen.opacity, between)]
    return [(seen.rgb.clamp(0, 1) * 255).round().byte().numpy(), *depth]


def depth_range(model: Renderer, cameras: Cameras, n_looks: int = 8) -> tuple[float, float]:
    """The depths between which most of what a path shows lies, in scene units; so that one scale serves all frames.

    A few small pictures along the path are rendered for it. (1, 2) where all of them are empty.
    """
    looks = cameras[torch.linspace(0, len(cameras) - 1, min(n_looks, len(cameras))).round().long()]
    looks = looks.scaled(min(1.0, 64 / int(looks.width.max())))
    seen = [rendered.depth[rendered.opacity > 0.5].cpu() for rendered in shoot(model, looks)]
    depths = torch.cat(seen)
    depths = depths[depths > 0]
    if not len(depths):
        return 1.0, 2.0
    near, far = torch.quantile(depths.float(), torch.tensor([0.01, 0.99])).tolist()
    return near, max(far, near * 1.01)


def depth_picture(
    depth: Float[Tensor, "h w"], opacity: Float[Tensor, "h w"], between: tuple[float, float]
) -> UInt8[np.ndarray, "h w 3"]:
    """Depth as a colour, RGB: near is warm, far is cold, nothing is black.

    The scale is linear in 1 / depth, as parallax is, from ``between[0]`` to ``between[1]`` (scene units, positive).
    """
    near, far = between
    if not 0 < near < far or not math.isfinite(far):
        raise ValueError(f"depths between {near} and {far} make no scale")
    share = (1 / depth.clamp_min(1e-9) - 1 / far) / (1 / near - 1 / far)
    index = (share.clamp(0, 1) * 255).round().byte().cpu().numpy()
    colours = cv2.applyColorMap(index, cv2.COLORMAP_TURBO)[..., ::-1]
    solid = opacity.clamp(0, 1).cpu().numpy()[..., None]
    return np.rint(colours * solid).astype(np.uint8)


PATHS = {"orbit": (orbit, 5.0), "spiral": (spiral, 5.0), "interpolate": (interpolate, 10.0)}
"""Makers of camera paths, and how many seconds such a film lasts."""
