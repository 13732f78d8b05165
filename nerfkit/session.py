"""One training as a command: begin a run or take one up again, and train until it is done or somebody says stop."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nerfkit.arguments import Train, UsageError, differing
from nerfkit.assess import backdrop, scene_of
from nerfkit.config import Config
from nerfkit.defaults import defaults
from nerfkit.ranks import ALONE, Ranks
from nerfkit.run import Run
from nerfkit.scene import Scene, load_scene
from nerfkit.scene.scene import Frame
from nerfkit.scene.tiling import Tiling, divide, part_of
from nerfkit.sparsity.pruning import policies_of
from nerfkit.train.loop import fit, model_of
from nerfkit.train.progress import Report, show
from nerfkit.train.tiled import Standing, begin_tiles, fit_tiles
from nerfkit.train.training import Training
from nerfkit.viewer import Viewer


@dataclass(frozen=True)
class Session:
    """What is to be trained."""

    run: Run
    scene: Scene
    resumed: bool
    """Whether there is a checkpoint to go on from."""
    seconds: float
    """Of training, before this session."""
    remarks: list[str]
    """Sentences for the user."""
    ranks: Ranks = ALONE
    """Who trains it together."""


def begin(arguments: Train, config: Config, command: list[str], ranks: Ranks = ALONE) -> Session:
    """Begin a run, or take one up again with ``--resume``. The first rank does, and the others read what it wrote.

    ``train SCENE --out RUN --resume`` begins where there is no run yet, so that a command can be repeated until it is
    done; ``train --resume RUN`` wants one. A run that has no checkpoint yet starts from its first step.

    Raises RunError, SceneError or UsageError, and then nothing was written over.
    """
    session = _begin(arguments, config, command, ranks) if ranks.is_first else None
    folder, resumed, seconds = ranks.first(session and (session.run.path, session.resumed, session.seconds))
    if session is not None:
        return session
    run = Run.open(folder, writes=False)
    scene = _scene_again(run, None if _names_run(arguments) else arguments.scene)
    return Session(run, scene, resumed, seconds, [], ranks)


def _begin(arguments: Train, config: Config, command: list[str], ranks: Ranks) -> Session:
    alone = _names_run(arguments)
    folder = arguments.scene if alone else arguments.out
    if alone or (arguments.resume and (folder / "config.json").exists()):
        run = Run.open(folder)
        _same_settings(run, arguments, config)
        _possible(arguments, run.config, ranks)
        standing = Standing.of(run)
        step = standing.step
        scene = _scene_again(run, None if alone else arguments.scene)
        run.resume(step, command)
        remarks = [*_warnings(scene), f"{run.path}: going on from step {step}"]
        return Session(run, scene, run.has_checkpoint, standing.seconds, remarks, ranks)
    _possible(arguments, config, ranks)
    scene = load_scene(arguments.scene, config.data)
    tiling = divide(scene, config.train.tiles, config.sampler.resolution) if config.train.tiles else None
    folder = folder or _fresh_folder(Path("runs") / scene.name)
    splits = {name: [scene.image_names[view] for view in views] for name, views in scene.splits.items()}
    frame = scene.frame.to_dict()
    run = Run.create(folder, config, scene.source, scene.name, frame, scene.fingerprint, splits, command)
    anew = [f"{folder}: there was no run here to resume, so this one begins anew"] if arguments.resume else []
    if tiling is not None:
        begin_tiles(run, tiling)
        anew += [_about(scene, tiling, number) for number in range(len(tiling))]
    return Session(run, scene, False, 0.0, [*_warnings(scene), *anew], ranks)


def _scene_again(run: Run, path: Path | None) -> Scene:
    """A run's scene as it is to train on: poses that it refines are in its checkpoint, and a tile has its own frame."""
    scene = scene_of(run, path, as_found=run.config.train.moves_cameras)
    return replace(scene, frame=Frame.from_dict(run.frame))


def reports_of(session: Session, viewer: Viewer | None) -> Iterator[Report]:
    """The training itself: of the whole scene, or of its tiles in turn."""
    run, scene = session.run, session.scene
    if run.config.train.tiles:
        return fit_tiles(scene, run)
    model = model_of(scene, run.config, session.resumed) if viewer is None else viewer.model
    training = Training.new(scene, model, policies_of(run.config, model.field), session.ranks)
    return fit(scene, run.config, run, session.resumed, training=training)


@contextmanager
def page_of(arguments: Train, session: Session, say: Callable[[str], None]) -> Iterator[Viewer | None]:
    """The viewer of a training, if one is wanted; closed in the end. ``say`` hears where its page is.

    Raises ViewerError.
    """
    if not arguments.view:
        yield None
        return
    run, scene = session.run, session.scene
    viewer = Viewer(scene, model_of(scene, run.config, session.resumed), run, arguments.port, backdrop(scene))
    say(f"look at {viewer.url}")
    try:
        yield viewer
    finally:
        viewer.close()


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does, unless it is ignored: raise KeyboardInterrupt."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGTERM)
    if _heeded(signal.SIGTERM):
        signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        _take_back(signal.SIGTERM, interrupt, before)


def train_until_done(
    reports: Iterator[Report], seconds: float, on_first: Callable[[float], None], ranks: Ranks = ALONE
) -> bool:
    """Train to the end, or to the first report after Ctrl-C or SIGTERM, so that no step is torn.

    Whoever asks twice, or before the first report, is not kept waiting: KeyboardInterrupt.

    Args:
        reports: of ``fit``; it is closed at the end.
        seconds: of training, before this session.
        on_first: hears, at the first report, how many seconds passed before the first step.
        ranks: who trains together: all stop where one of them was asked to.

    Returns whether it was stopped.
    """
    asked: list[int] = []
    begun = time.monotonic() - seconds
    before: dict[int, Any] = {}
    stopped, finished = False, 0.0

    def ask(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    def passed() -> Iterator[Report]:
        """Reports as they come, each as soon as all know of who was asked to stop before it.

        So when the first one is shown, stopping waits for whole steps on every rank.
        """
        nonlocal stopped
        try:
            for report in reports:
                if not before:
                    kinds = [kind for kind in (signal.SIGINT, signal.SIGTERM) if _heeded(kind)]
                    before.update({kind: signal.signal(kind, ask) for kind in kinds})
                    on_first(time.monotonic() - begun - report.seconds)
                stopped = any(ranks.exchange(bool(asked)))
                yield report
        finally:
            reports.close()

    try:
        with closing(show(passed())) as shown:
            for report in shown:
                finished = report.progress
                if stopped:
                    break
    finally:
        for kind, handler in before.items():
            _take_back(kind, ask, handler)
    return stopped and finished < 1


def _take_back(kind: int, ours: Callable[[int, Any], None], before: Any) -> None:
    """Handle a signal as before, unless something else than our own handler was put in place meanwhile."""
    if signal.getsignal(kind) is ours:
        signal.signal(kind, before)


def _heeded(kind: int) -> bool:
    """Whether a signal is for us: who starts a command with it ignored (``nohup``, ``&`` in a script) means that."""
    return signal.getsignal(kind) is not signal.SIG_IGN


def _names_run(arguments: Train) -> bool:
    """Whether the folder that the command line names first is that of a run."""
    return arguments.resume and arguments.out is None


def _possible(arguments: Train, config: Config, ranks: Ranks) -> None:
    if ranks.size > 1 and (arguments.view or config.train.tiles):
        flag = "--view" if arguments.view else "--tiles"
        raise UsageError(f"{flag}: goes with one process, not with {ranks.size}; start it without torchrun")
    if arguments.view and config.train.tiles:
        raise UsageError("--view: tiles are put together when all are trained; leave it out, then: nerfkit view RUN")


def _about(scene: Scene, tiling: Tiling, number: int) -> str:
    """Of how much use the views are to a tile."""
    part = part_of(scene, tiling, number)
    shares = [float(part.masks[view].mean()) for view in part.splits["train"]]
    views = f"{len(shares)} of {len(scene.splits['train'])} views, {100 * sum(shares) / len(shares):.0f} % of their"
    return f"tile {number + 1} of {len(tiling)}: {views} pixels"


def _warnings(scene: Scene) -> list[str]:
    return [f"warning: {text}" for text in scene.warnings]


def _same_settings(run: Run, arguments: Train, config: Config) -> None:
    """Refuse settings that the run does not have: they would make it another. What is left open is the run's."""
    asked = differing(config, defaults(config.engine))
    if arguments.time_budget is not None and run.config.train.steps:
        asked["train.steps"] = (0, run.config.train.steps)
    for key, (value, kept) in differing(config, run.config).items():
        if key in asked:
            raise UsageError(f"{run.path}: {key} is {kept} in this run, not {value}; a resumed run keeps its settings")


def _fresh_folder(parent: Path) -> Path:
    taken = {int(path.name) for path in parent.glob("*") if path.name.isdecimal()}
    return parent / f"{max(taken, default=0) + 1:03d}"
