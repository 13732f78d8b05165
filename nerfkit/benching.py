"""The verb that tries what a mark stands; nothing heavy is imported before it needs it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nerfkit.terminal import say

if TYPE_CHECKING:
    from nerfkit.stego.plan import Plan
    from nerfkit.stego.protocol import Bench


def stego_bench(words: list[str]) -> int:
    """Try what a run's mark stands, and say it in numbers."""
    from nerfkit.arguments import UsageError, parse, value_of, with_defaults
    from nerfkit.config import ConfigError
    from nerfkit.presets import load_preset
    from nerfkit.signing_flags import StegoBench, message_of
    from nerfkit.stego.plan import Plan

    file = value_of("--config", words)
    try:
        preset = Plan() if file is None else load_preset(Path(file), Plan())
    except ConfigError as error:
        raise UsageError(str(error)) from None
    arguments = parse(with_defaults(StegoBench, "plan", preset), "stego-bench", words)
    plan = arguments.plan
    if arguments.suspect and (arguments.key is None or arguments.message is None):
        raise UsageError("--suspect: say with which --key and --message it was marked")
    from nerfkit.stego.bench import PAGE, measured, parts_of
    from nerfkit.stego.bench_page import write_page
    from nerfkit.stego.keys import Key
    from nerfkit.stego.model_attacks import suspect_rows

    bench = _opened(arguments.run, arguments.scene, plan)
    other = None if arguments.other is None else _opened(arguments.other, None, plan)
    parts = parts_of(bench, plan, other, arguments.parts)
    if arguments.suspect:
        key, message = Key.read(arguments.key), message_of(arguments.message, bench.mark.terms.n_bits)
        parts["suspects"] = lambda missing: suspect_rows(bench, plan, missing, arguments.suspect, key, message)
    try:
        for name, rows_fn in parts.items():
            say(name)
            for row in measured(bench.run, name, rows_fn):
                say(f"  {_line(row)}")
    finally:
        write_page(bench.run)
    print(bench.run.path / PAGE)
    return 0


def _opened(folder: Path, scene: Path | None, plan: Plan) -> Bench:
    """An owner's run to be tried. Raises StegoError where it has no mark."""
    from nerfkit.assess import scene_of
    from nerfkit.render import load_model
    from nerfkit.run import Run
    from nerfkit.stego.keys import StegoError
    from nerfkit.stego.mark import read_mark
    from nerfkit.stego.protocol import Bench

    run = Run.open(folder)
    model = load_model(run)
    mark = read_mark(run, model)
    if mark is None:
        raise StegoError(f"{folder}: was never marked; nerfkit embed marks a copy, and leaves here what is tried")
    return Bench.of(run, model, mark, scene_of(run, scene), plan)


_UNSAID = {"part", "time", "cpu", "versions", "commit", "size", "views", "strength", "halves", "read"}


def _line(row: dict[str, Any]) -> str:
    """A row in short."""
    shown = ((name, value) for name, value in row.items() if name not in _UNSAID and value is not None)
    return ", ".join(f"{name} {_short(value)}" for name, value in shown)


def _short(value: Any) -> str:
    if isinstance(value, list):
        return " of ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
