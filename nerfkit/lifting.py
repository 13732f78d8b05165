"""The verbs that lift; nothing heavy is imported before one needs it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nerfkit.terminal import INTERRUPTED, print_table, say, track, track_named

if TYPE_CHECKING:
    import numpy as np

    from nerfkit.config import Config
    from nerfkit.lift.framing import Framing
    from nerfkit.lift.guide import Term
    from nerfkit.lift.prior import LiftNet
    from nerfkit.lift.scene import Given
    from nerfkit.lift_flags import Lift, LiftBench
    from nerfkit.render import Model
    from nerfkit.run import Run
    from nerfkit.scene.scene import Scene
    from nerfkit.train.progress import Report

_PREVIEW_EVERY = 5.0
"""Seconds."""
_FILM, _FILM_SIZE, _FPS = 72, 320, 24
"""Frames of the film, their pixels a side, frames a second."""


def lift(words: list[str]) -> int:
    """Make one picture an object that can be looked at from all sides."""
    from nerfkit.arguments import parse
    from nerfkit.lift_flags import Lift

    started = time.monotonic()
    arguments = parse(Lift, "lift", words)
    out = arguments.out or Path("runs") / arguments.photo.stem
    out = out if out.name not in ("", "..") else out.resolve()
    further = [_split_view(text) for text in arguments.view]
    with ThreadPoolExecutor() as meanwhile:  # half of the time until the first preview is spent on importing torch
        cut_out = meanwhile.submit(_cut_out, arguments.photo, arguments.mask, arguments.matte)
        from nerfkit.lift.sheet import glimpses_of, sheet, write_picture
        from nerfkit.lift.understand import WEIGHTS, load_prior, understood
        from nerfkit.run import check_free

        check_free(out)
        net = load_prior(arguments.prior or WEIGHTS)
        seen = [cut_out.result(), *(_cut_out(path, None, arguments.matte) for path, _ in further)]
        photo, others = _framed(seen, [azimuth for _, azimuth in further], arguments, net)
    config = _config(arguments.config, arguments.fast, arguments.seed)
    terms = _terms(arguments, photo)
    lifted = understood(net, photo)
    preview = write_picture(out / "preview.png", sheet(photo, glimpses_of(lifted.volume, photo)))
    say(f"{preview}: what the prior makes of it, after {time.monotonic() - started:.1f} s")
    from nerfkit.lift.lift import begin, warm_model
    from nerfkit.lift.looks import views_of
    from nerfkit.lift.settings import Sizes
    from nerfkit.session import interruptible

    with interruptible():
        run, scene = begin(photo, lifted, others, Sizes(), config, out, ["nerfkit", "lift", *words])
        model = warm_model(scene, config, lifted.volume)
        stopped = _learn(run, scene, model, photo, terms, preview)
        write_picture(preview, sheet(photo, views_of(model, photo)))
        if stopped:
            on = "" if terms else f"; go on with: nerfkit train --resume {run.path}"
            say(f"stopped; {run.path} is as far as it came{on}")
            print(run.path)
            return INTERRUPTED
        _finish(run, model, photo, arguments)
    say(f"{time.monotonic() - started:.0f} s in all")
    return 0


def _split_view(text: str) -> tuple[Path, float]:
    """FILE:AZIMUTH."""
    from nerfkit.arguments import UsageError

    path, _, azimuth = text.rpartition(":")
    try:
        degrees = float(azimuth)
    except ValueError:
        degrees = math.nan
    if not math.isfinite(degrees):
        raise UsageError(f"--view {text}: expected a file and degrees to the right, such as back.png:180")
    return Path(path), degrees


def _framed(
    seen: list[tuple[np.ndarray, np.ndarray]], azimuths: list[float], arguments: Lift, net: LiftNet
) -> tuple[Framing, list[Given]]:
    """The object of the photo and its camera, and further pictures, of the same size; they are taken to be from the
    height of the photo."""
    from nerfkit.lift.framing import breadth, framed
    from nerfkit.lift.scene import Given
    from nerfkit.lift.understand import guessed

    known = {"elevation": arguments.elevation, "fov": arguments.fov}
    reach = max(breadth(alpha > 127) for _, alpha in seen)
    (rgb, alpha), *others = seen
    photo = guessed(net, framed(rgb, alpha, reach=reach), **known)
    for name, value in known.items():
        found = getattr(photo, name)
        say(f"{name} {found:.0f} degrees" + (f", guessed; --{name} says otherwise" if value is None else ""))
    pictures = [framed(*other, photo.elevation, photo.fov, reach) for other in others]
    return photo, [Given(picture, azimuth) for picture, azimuth in zip(pictures, azimuths, strict=True)]


def _cut_out(path: Path, mask: Path | None, network: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """A picture, (h, w, 3) of 8 bits, and which of it is the object, (h, w)."""
    from nerfkit.lift.matte import check_matte, matte, onnx_matte
    from nerfkit.lift.photo import read_mask, read_photo

    photo = read_photo(path)
    for remark in photo.remarks:
        say(remark)
    if mask is not None:
        alpha = check_matte(read_mask(mask, photo.rgb.shape[1::-1]), str(mask))
    elif photo.alpha is not None:
        alpha = check_matte(photo.alpha, str(path))
    else:
        alpha = matte(photo.rgb) if network is None else onnx_matte(photo.rgb, network)
        say("told the object from its background; --mask says where it is, if that went wrong")
    return photo.rgb, alpha


def _config(path: Path | None, fast: bool, seed: int | None) -> Config:
    from nerfkit.lift.settings import CONFIG, FAST_STEPS
    from nerfkit.presets import load_preset

    config = CONFIG if path is None else load_preset(path, CONFIG)
    steps = min(FAST_STEPS, config.train.steps or FAST_STEPS) if fast else config.train.steps
    seed = config.train.seed if seed is None else seed
    return replace(config, train=replace(config.train, steps=steps, seed=seed))


def _terms(arguments: Lift, photo: Framing) -> list[Term]:
    """What takes part in the training beside the scene's pixels, from the priors that were asked for."""
    from nerfkit.arguments import UsageError

    if arguments.clip is not None and arguments.diffusion is None:
        raise UsageError("--clip: guides what --diffusion draws; give that, too")
    if arguments.depth is None and arguments.diffusion is None:
        return []
    from nerfkit.lift.adapters import StableDiffusion, Zero123, depth_of, features_of, is_zero123
    from nerfkit.lift.lift import terms_of

    hub, prior = arguments.hub, None
    if arguments.diffusion is not None and is_zero123(arguments.diffusion):
        prior = Zero123(arguments.diffusion, photo, hub)
    elif arguments.diffusion is not None:
        prior = StableDiffusion(arguments.diffusion, arguments.prompt, hub)
    depth = None if arguments.depth is None else depth_of(arguments.depth, hub)(photo)
    features = None if arguments.clip is None else features_of(arguments.clip, hub)
    return terms_of(photo, depth, prior, features)


def _learn(run: Run, scene: Scene, model: Model, photo: Framing, terms: list[Term], preview: Path) -> bool:
    """Teach the field, with a preview now and then. Whether somebody said stop."""
    from nerfkit.lift.lift import lift as learn
    from nerfkit.lift.looks import views_of
    from nerfkit.lift.sheet import sheet, write_picture
    from nerfkit.session import train_until_done

    shown = time.monotonic()

    def watched() -> Iterator[Report]:
        nonlocal shown
        for report in learn(run, scene, model, terms):
            if time.monotonic() - shown > _PREVIEW_EVERY:
                write_picture(preview, sheet(photo, views_of(model, photo)))
                shown = time.monotonic()
            yield report

    return train_until_done(watched(), 0.0, lambda seconds: None)


def _finish(run: Run, model: Model, photo: Framing, arguments: Lift) -> None:
    """Film, mesh, the map of what was seen, and the figures of the reference view."""
    from nerfkit.lift.looks import reference_scores, seen_sheet
    from nerfkit.lift.sheet import write_picture
    from nerfkit.report import write_report

    found = reference_scores(model, photo)
    run.write_json("lift.json", {"elevation": photo.elevation, "fov": photo.fov, **found})
    (run.path / "renders").mkdir(exist_ok=True)
    made = [write_picture(run.path / "renders" / "seen.png", seen_sheet(model, photo))]
    if not arguments.no_film:
        made.append(_film(run, model, photo))
    if not arguments.no_mesh:
        made += _mesh(run, model)
    made.append(write_report(run))
    print_table({"photo": f"{found['psnr']:.1f} dB, outline {found['iou']:.3f} (intersection over union)"}.items())
    for path in made:
        print(path)


def _film(run: Run, model: Model, photo: Framing) -> Path:
    from nerfkit.lift.scene import turntable
    from nerfkit.video import film, shoot

    out = run.path / "renders" / "turntable.mp4"
    cameras = turntable(_FILM, _FILM_SIZE, photo.elevation)
    with film(out, _FPS) as add:
        for rendered in track(shoot(model, cameras, "white"), len(cameras), "filming"):
            add((rendered.rgb.clamp(0, 1) * 255).round().byte().numpy())
    return out


def _mesh(run: Run, model: Model) -> list[Path]:
    """The mesh, or a remark that says why there is none: what was learnt is worth having without it."""
    from nerfkit.export import write_mesh
    from nerfkit.lattice import ExportError
    from nerfkit.lift.scene import turntable
    from nerfkit.mesh import MeshOptions, extract_mesh

    out = run.path / "exports" / "object.glb"
    options = MeshOptions(resolution=128, watertight=True)
    try:
        write_mesh(extract_mesh(model, turntable(12, 128, 20.0), options, track_named), out)
    except ExportError as error:
        say(f"no mesh: {error}")
        return []
    return [out]


def lift_bench(words: list[str]) -> int:
    """Lift objects whose shape is known, and say how like the truth they are."""
    from nerfkit.arguments import UsageError, parse
    from nerfkit.lift_flags import LiftBench

    arguments = parse(LiftBench, "lift-bench", words)
    if arguments.every < 1:
        raise UsageError(f"--every {arguments.every}: expected at least 1")
    if arguments.framed and arguments.meshes:
        raise UsageError("--meshes: is measured in the true frame, which --framed does not tell")
    answers = [text.partition("=")[::2] for text in arguments.answers]
    if not all(name and folder for name, folder in answers):
        raise UsageError("--answers: expected a name and a folder, such as theirs=pictures/")
    from nerfkit.lift.bench import objects_in
    from nerfkit.lift.distances import distance_of
    from nerfkit.lift.measure import Rows, Way, answered_rows, lifted_rows, trivial_rows
    from nerfkit.lift.understand import WEIGHTS, load_prior
    from nerfkit.provenance import digest

    objects, rows = objects_in(arguments.objects)[:: arguments.every], Rows.open(arguments.rows, arguments.objects)
    more = distance_of(arguments.perceptual, arguments.features)
    rows.keep(trivial_rows(objects, more, rows.missing), say)
    for name, folder in answers:
        rows.keep(answered_rows(objects, name, Path(folder), more, rows.missing), say)
    if not answers:
        path = arguments.prior or WEIGHTS
        net, weights = load_prior(path), digest(path.read_bytes())
        for seed in arguments.seeds:
            config = _config(arguments.config, arguments.fast, seed)
            only = arguments.only_prior
            way = Way(net, weights, config, seed, only, arguments.unknown, arguments.framed, arguments.meshes)
            rows.keep(lifted_rows(objects, _name_of(arguments), way, more, rows.missing), say)
    for line in rows.table():
        print(line)
    return 0


def _name_of(arguments: LiftBench) -> str:
    """What the rows of our method are called."""
    words = ["prior" if arguments.only_prior else "fast" if arguments.fast else "lift"]
    words += [arguments.config.stem] if arguments.config is not None else []
    words += [arguments.prior.parent.name] if arguments.prior is not None else []
    words += ["framed"] if arguments.framed else []
    return ", ".join([*words, *(["camera unknown"] if arguments.unknown else [])])


LIFTING: dict[str, Callable[[list[str]], int]] = {"lift": lift, "lift-bench": lift_bench}
