"""The flags of each verb. Every setting of the config tree is a flag of ``train``, its default that of the preset."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro
from tyro.conf import FlagCreatePairsOff, Positional, arg

from nerfkit.config import Config, check, flat
from nerfkit.defaults import defaults
from nerfkit.presets import load_preset

Arguments = TypeVar("Arguments")


class UsageError(ValueError):
    """A command line that makes no sense: one sentence."""

    exit_code = 2


@dataclass(frozen=True)
class Train:
    """Train a model of a folder of posed photographs; score it on its held-out views.

    Ctrl-C writes a checkpoint and ends with code 130; --resume goes on from there, with --steps on a CPU to the same
    numbers.
    """

    scene: Annotated[Positional[Path], arg(metavar="SCENE")]
    """Folder of the scene; with --resume alone, of the run."""
    out: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Folder of the run: a new or an empty one. By default the next free number in runs/SCENE."""
    time_budget: Annotated[str | None, arg(metavar="TIME")] = None
    """How long to train, as 60s, 5m, 1h or a number of seconds; the learning rate follows it."""
    steps: Annotated[int | None, arg(metavar="N")] = None
    """Train this many steps instead."""
    downscale: Annotated[int | None, arg(metavar="N")] = None
    """Divide the size of the pictures by this whole number."""
    tiles: Annotated[str | None, arg(metavar="NxN")] = None
    """Train the scene as tiles, one after another: a number, or two such as 2x2; for what one model cannot hold."""
    realign: Annotated[int | None, arg(metavar="N")] = None
    """Lay the photographs onto what the model shows of them, in N rounds, and bend them to fit: for misaligned ones."""
    seed: Annotated[int | None, arg(metavar="N")] = None
    """Of everything random."""
    config: Annotated[Path | None, arg(metavar="FILE")] = None
    """A TOML file of settings, such as configs/fast.toml; flags win over it."""
    resume: bool = False
    """Go on with the run, in its folder and with its settings."""
    no_eval: bool = False
    """Do not score the model after training."""
    tensorboard: bool = False
    """Write curves for TensorBoard into the run's folder tensorboard, too."""
    view: bool = False
    """Show the training in the browser while it goes on; closing the page stops it with a checkpoint."""
    port: Annotated[int, arg(metavar="N")] = 7007
    """Of the page."""
    settings: Annotated[Config, arg(name="")] = Config()
    """All settings."""


@dataclass(frozen=True)
class Prepare:
    """Find the cameras of a folder of photographs or a video, and write a scene to train on.

    Interrupted, the same command goes on where it was.
    """

    photos: Annotated[Positional[Path], arg(metavar="PHOTOS|VIDEO")]
    """Folder of photographs, searched in all its depths, or a video."""
    out: Annotated[Path | None, arg(metavar="SCENE", aliases=["-o"])] = None
    """Folder of the scene: a new or an empty one. By default PHOTOS-scene beside them."""
    frames: Annotated[int, arg(metavar="N")] = 120
    """Video: how many frames to take, the sharpest of each stretch."""
    max_size: Annotated[int, arg(metavar="PIXELS")] = 0
    """Longest side of the pictures written; 0 keeps that of the photographs."""


@dataclass(frozen=True)
class Eval:
    """Score a run on held-out views: metrics.json and report.html in its folder."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of the run, or its file."""
    split: Literal["test", "val", "train"] = "test"
    """Which views. Others than test go into metrics-SPLIT.json and leave the report as it is."""
    scene: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Where the scene is, if it was moved since."""
    json: bool = False
    """Print the record as JSON."""


@dataclass(frozen=True)
class Render:
    """Film a run."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of the run, or its file."""
    path: str = "orbit"
    """orbit, spiral, test (the held-out views), interpolate (through the training cameras), or a JSON file."""
    out: Annotated[Path | None, arg(metavar="FILE")] = None
    """x.mp4 (or .mov, .mkv), or a folder of PNG frames if it has no suffix. By default renders/PATH.mp4 in the run."""
    frames: Annotated[int | None, arg(metavar="N")] = None
    """How many, for orbit, spiral and interpolate; by default five seconds' worth, ten for interpolate."""
    fps: Annotated[float | None, arg(metavar="N")] = None
    """Frames a second: by default those of the path file, or 24."""
    size: Annotated[int | None, arg(metavar="PIXELS")] = None
    """Width of the frames in pixels; by default that of the pictures trained on."""
    downscale: float = 1.0
    """Divide the size of the frames by this."""
    depth: bool = False
    """Write the depth too, coloured from near (warm) to far (cold), as x-depth.mp4."""
    background: Literal["auto", "white", "black"] = "auto"
    """Colour behind the model; auto is that of the evaluation."""
    scene: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Where the scene is, if it was moved since."""


@dataclass(frozen=True)
class Prune:
    """Make the model of a run smaller, and train it on for a while: a new run.

    Neurons are taken out, which makes the model smaller and faster. Weights are held at zero, which makes neither, but
    fewer numbers say the same; with few or noisy photographs they may say it better.
    """

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of the run."""
    out: Annotated[Path | None, arg(metavar="FOLDER", aliases=["-o"])] = None
    """Folder of the new run. By default RUN-pruned beside it."""
    neurons: Annotated[int, arg(metavar="N")] = 0
    """Neurons that each hidden layer keeps: 8, 16, 32, 48, 64, 96 or 128; 0 keeps all."""
    fraction: float = 0.0
    """Share of the weights (or of another space) that goes."""
    space: Literal["weights", "neurons", "kernels", "entries", "levels", "features"] = "weights"
    """What the units are."""
    score: Literal["magnitude", "random", "snip", "grasp", "synflow"] = "magnitude"
    """What says which of them stay."""
    ratio: Literal["score", "uniform", "uniform+", "er", "erk", "erk+"] = "erk"
    """How much of each layer stays: by its shape, or as many as are among the best of all."""
    schedule: Literal["once", "gradual", "exchange"] = "gradual"
    """All at once, little by little, or at once and then in exchange for others."""
    steps: Annotated[float, arg(metavar="SHARE")] = 0.2
    """How long to train on, as a share of the steps of the run."""
    scene: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Where the scene is, if it was moved since."""


@dataclass(frozen=True)
class Compress:
    """Write a run as one file of as many bytes as one says: all that render, view, eval and export need of it.

    The model learns on under the rounding that it will be written with.
    """

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of the run."""
    bytes: Annotated[str, arg(metavar="SIZE")] = "1MB"
    """Length of the file, at most and all but for a few hundredths: 400kB, 1MB or a number of bytes."""
    out: Annotated[Path | None, arg(metavar="FILE", aliases=["-o"])] = None
    """x.nerf. By default RUN.nerf beside it."""
    steps: Annotated[float, arg(metavar="SHARE")] = 0.1
    """How long to learn on, if that is needed, as a share of the steps of the run."""
    scene: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Where the scene is, if it was moved since."""


@dataclass(frozen=True)
class Export:
    """Write a run as a mesh, a point cloud or cameras, in the scene's own coordinates."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of the run, or its file."""
    out: Annotated[Path | None, arg(metavar="FILE")] = None
    """x.glb, x.ply or x.obj for a mesh, x.ply for points, x.json (transforms.json) or a folder (that and COLMAP's text
    format) for cameras. By default a place in the run's exports/."""
    kind: Literal["mesh", "points", "cameras"] | None = None
    """What to write; by default what the suffix says, .ply being a mesh, or without --out a mesh."""
    resolution: Annotated[int, arg(metavar="N")] = 256
    """Mesh: cells along the longest side of the box."""
    levels: Annotated[int, arg(metavar="N")] = 1
    """Mesh: nested boxes about the subject that it covers, each twice as large; 1 is what the cameras look at."""
    threshold: Annotated[float | None, arg(metavar="DENSITY")] = None
    """Mesh: density at the surface, for a model of side 1; by default the one that agrees best with the renders."""
    parts: Annotated[float, arg(metavar="SHARE")] = 0.002
    """Mesh: drop connected parts smaller than this share of the largest one; 1 keeps that alone."""
    watertight: bool = False
    """Mesh: close it where the box cuts it, and make sure that nothing is open."""
    points: Annotated[int, arg(metavar="N")] = 200_000
    """Points: how many at most."""
    scene: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Where the scene is, if it was moved since."""


@dataclass(frozen=True)
class View:
    """Show a run in the browser: fly through it, see its depth and its occupied cells, make a film of key frames.

    With the folder of a scene in its place: train on that, with the settings of ``train``, and show it meanwhile.
    """

    run: Annotated[Positional[Path], arg(metavar="RUN|SCENE")]
    """Folder of the run, its file, or the folder of a scene."""
    port: Annotated[int, arg(metavar="N")] = 7007
    """Of the page, which only this machine can open."""
    scene: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Where the scene of the run is, if it was moved since."""


@dataclass(frozen=True)
class Compare:
    """Put two to four runs side by side on one page: figures, curves, pictures, settings."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN RUN ...")]
    """Folders of the runs, or their files."""
    out: Annotated[Path, arg(metavar="FILE")] = Path("compare.html")
    """The page."""
    rows: Annotated[Path | None, arg(metavar="FILE")] = None
    """What tools/bench/compressing.py measured on the scene: other ways to fewer bytes are drawn behind the runs."""


@dataclass(frozen=True)
class Info:
    """Say what a folder of posed photographs holds, and what is wrong with it."""

    scene: Annotated[Positional[Path], arg(metavar="SCENE")]
    """Folder of the scene."""
    downscale: int = 1
    """Divide the size of the pictures by this whole number."""
    picture: Annotated[Path | None, arg(metavar="FILE")] = None
    """Draw the cameras and the box, from above and from the side, as a page x.html."""
    json: bool = False
    """Print it as JSON."""


@dataclass(frozen=True)
class Doctor:
    """Say what this machine can compute with, and compare the kernels with their reference on the spot."""

    json: bool = False
    """Print it as JSON."""


def parse(kind: type[Arguments], verb: str, words: list[str]) -> Arguments:
    """The arguments of a verb. Raises SystemExit: code 2 where they are wrong, 0 where help was asked for."""
    return tyro.cli(kind, prog=f"nerfkit {verb}", args=words, config=(FlagCreatePairsOff,))


def with_defaults(kind: type[Arguments], name: str, preset: Any) -> type[Arguments]:
    """The same flags, those of the settings of this name with a file's values as their defaults: so that the help shows
    them, and flags win over them."""
    settings = (name, Annotated[type(preset), arg(name="")], preset)
    described = {"__doc__": kind.__doc__}
    return dataclasses.make_dataclass(kind.__name__, [settings], bases=(kind,), namespace=described, frozen=True)


def parse_train(words: list[str]) -> tuple[Train, Config]:
    """The arguments of ``train`` and all settings: the engine's defaults, under the file of --config, under the flags.

    Raises ConfigError for a file or a setting that cannot be used and UsageError for flags that make no sense.
    """
    file, engine = value_of("--config", words), value_of("--engine", words)
    if {"-h", "--help"} & {*words}:
        engine = "cpu"  # whose defaults are known without a look at the machine
    elif engine is None:
        engine = "auto" if file is None else load_preset(Path(file)).engine
    preset = defaults(engine) if file is None else load_preset(Path(file), defaults(engine))
    arguments = parse(with_defaults(Train, "settings", preset), "train", words)
    return arguments, check(_with_shorthands(arguments))


def seconds(text: str) -> float:
    """A time as people write it, in seconds. Raises UsageError.

    >>> seconds("60s"), seconds("5m"), seconds("1.5h"), seconds("300")
    (60.0, 300.0, 5400.0, 300.0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)?", text.strip())
    if found is None or float(found[1]) == 0:
        raise UsageError(f"--time-budget {text}: expected a time such as 60s, 5m or 1h")
    return float(found[1]) * {"s": 1, "m": 60, "min": 60, "h": 3600}[found[2] or "s"]


def size_of(text: str) -> int:
    """A length of a file as people write it, in bytes; kB are 1000. Raises UsageError.

    >>> size_of("400kB"), size_of("1.5 MB"), size_of("2000"), size_of("1MiB")
    (400000, 1500000, 2000, 1048576)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(B|kB|KB|kb|k|MB|mb|M|KiB|MiB)?", text.strip())
    if found is None or float(found[1]) == 0:
        raise UsageError(f"--bytes {text}: expected a size such as 400kB or 1MB")
    unit = found[2] or "B"
    factor = 1 if unit == "B" else (1024 if "i" in unit else 1000) ** (1 if unit[0] in "kK" else 2)
    return round(float(found[1]) * factor)


def differing(settings: Config, base: Config) -> dict[str, tuple[Any, Any]]:
    """Dotted keys in which two configs differ, with the value of each."""
    ours, theirs = (flat(dataclasses.asdict(config)) for config in (settings, base))
    return {key: (value, theirs[key]) for key, value in ours.items() if value != theirs[key]}


def value_of(flag: str, words: list[str]) -> str | None:
    """What follows a flag, before the whole is parsed: the file decides the defaults that the parser shows."""
    for number, word in enumerate(words):
        if word.startswith(f"{flag}="):
            return word.removeprefix(f"{flag}=")
        if word == flag and number + 1 < len(words):
            return words[number + 1]
    return None


def _with_shorthands(arguments: Train) -> Config:
    """The settings with --time-budget, --steps, --downscale, --tiles, --realign and --seed laid over them."""
    settings, steps = arguments.settings, arguments.steps
    train, data = {}, {}
    if steps is not None and arguments.time_budget is not None:
        raise UsageError("--steps and --time-budget: one training cannot have both, leave one out")
    if steps is not None:
        if steps < 1:
            raise UsageError(f"--steps {steps}: expected at least 1")
        train["steps"] = steps
    if arguments.time_budget is not None:
        train |= {"time_budget": seconds(arguments.time_budget), "steps": 0}
    if arguments.tiles is not None:
        train["tiles"] = arguments.tiles or "0"  # that is none, and is told so
    if arguments.realign is not None:
        train["realign"] = arguments.realign
    if arguments.seed is not None:
        train["seed"] = arguments.seed
    if arguments.downscale is not None:
        data["downscale"] = arguments.downscale
    return dataclasses.replace(
        settings,
        train=dataclasses.replace(settings.train, **train),
        data=dataclasses.replace(settings.data, **data),
    )
