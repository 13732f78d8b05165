"""The verb that films a run; nothing heavy is imported before it needs it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from nerfkit.terminal import say, track

if TYPE_CHECKING:
    from nerfkit.arguments import Render


def render(words: list[str]) -> int:
    """Film a run, or write its frames."""
    from nerfkit.arguments import Render, parse

    arguments = parse(Render, "render", words)
    _check(arguments)
    from nerfkit.ranks import joined
    from nerfkit.session import interruptible

    with interruptible(), joined() as ranks:
        from nerfkit.assess import backdrop, scene_of
        from nerfkit.packed import open_run
        from nerfkit.tiles import load
        from nerfkit.video import camera_path, depth_range, film, frames_of

        run = open_run(arguments.run)
        model = load(run)
        scene = scene_of(run, arguments.scene)
        cameras, fps = camera_path(scene, arguments.path, arguments.frames, arguments.fps)
        if arguments.size is not None:
            cameras = cameras.scaled(arguments.size / int(cameras.width[0]))
        elif arguments.downscale != 1:
            cameras = cameras.scaled(1 / arguments.downscale)
        background = backdrop(scene) if arguments.background == "auto" else arguments.background
        out = arguments.out or run.path / "renders" / f"{Path(arguments.path).stem}.mp4"
        files = [out, out.with_name(f"{out.stem}-depth{out.suffix}")] if arguments.depth else [out]
        between = depth_range(model, cameras) if arguments.depth else None

        n_frames = len(cameras)
        with ExitStack() as films:
            add_fns = [films.enter_context(film(file, fps)) for file in files] if ranks.is_first else []
            shots = ranks.in_turn(lambda number: frames_of(model, cameras, number, background, between), n_frames)
            for frames in track(shots, n_frames):
                for add, frame in zip(add_fns, frames, strict=False):  # the first rank alone writes
                    add(frame)
    size = f"{int(cameras.width[0])}x{int(cameras.height[0])}"
    say(f"{n_frames} frames of {size}, {fps:g} a second")
    for file in files:
        print(file)
    return 0


def _check(arguments: Render) -> None:
    from nerfkit.arguments import UsageError

    if arguments.size is not None and arguments.downscale != 1:
        raise UsageError("--size and --downscale: both set the size of the frames, leave one out")
    for name in ("frames", "fps", "size", "downscale"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"--{name} {value}: expected a positive number")
    if arguments.frames is not None and arguments.path not in ("orbit", "spiral", "interpolate"):
        raise UsageError(f"--frames goes with orbit, spiral and interpolate; {arguments.path} has its own number")
