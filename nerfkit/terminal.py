"""What the command says on a terminal: results on standard output, remarks and bars on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Result = TypeVar("Result")
INTERRUPTED = 130
"""Exit code after Ctrl-C."""


def say(text: str) -> None:
    """A remark."""
    print(f"nerfkit: {text}", file=sys.stderr, flush=True)


def track_named(items: Iterable[Any], text: str) -> Iterable[Any]:
    """`track` with the text that it shows."""
    return track(items, text=text)


def track(items: Iterable[Any], total: int | None = None, text: str = "rendering") -> Iterable[Any]:
    """Pass items through under a bar, on a terminal; without their number it says only that work goes on."""
    from rich.console import Console
    from rich.progress import track as tracked

    console = Console(stderr=True)
    hidden = not console.is_terminal
    return tracked(items, text, total, console=console, transient=True, disable=hidden)


def print_record(record: dict[str, Any]) -> None:
    """The figures of an evaluation."""
    from nerfkit.charts import duration, si

    lpips = f"{record['lpips']:.4f}" if record["lpips"] is not None else f"none ({record['lpips_reason']})"
    rates = f"{si(record['rays_per_second'])} rays/s, {si(record['train_samples_per_ray'])} samples/ray"
    aligned = record["aligned"] or {}

    def both(key: str, form: str, unit: str = "") -> str:
        laid = f", aligned {aligned[key]:{form}}{unit}" if aligned else ""
        return f"{record[key]:{form}}{unit}{laid}"

    rows = {
        "PSNR": both("psnr", ".2f", " dB"),
        "SSIM": both("ssim", ".4f"),
        "high-pass": both("high_pass", ".2f", " dB"),
        "GMSD": f"{record['gmsd']:.4f}",
        "LPIPS": lpips,
        "samples": f"{si(record['samples_per_ray'])} a ray of these views",
        "protocol": f"{record['protocol']}, {record['n_images']} {record['split']} views over {record['background']}",
        "training": f"{duration(record['train_seconds'])}, {record['n_steps']} steps, {rates}",
        "size": f"model {si(record['model_bytes'])}B, peak memory {si(record['peak_memory_bytes'])}B",
        "device": record["device"],
    }
    if active := record.get("active_neurons"):
        rows["active"] = "; ".join(f"{when} {_shares(shares)}" for when, shares in active.items())
    print_table(rows.items())


def _shares(shares: dict[str, list[float]]) -> str:
    """Active neurons of each network's layers."""
    each = (f"{name.removesuffix('_network')} {', '.join(f'{x:.0%}' for x in own)}" for name, own in shares.items())
    return " and ".join(each)


def print_table(rows: Iterable[tuple[str, Any]]) -> None:
    """Labelled lines."""
    for label, text in rows:
        print(f"{label:12} {text}")


@contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each stage of long work, or on anything but a terminal a line when one begins.

    The context's value hears the name of a stage, how much is done and how much there is.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bars: dict[str, Any] = {}
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, *times, console=console, disable=not console.is_terminal) as progress:

        def on_progress(stage: str, done: int, total: int) -> None:
            if stage not in bars:
                bars[stage] = progress.add_task(stage, total=total)
                if not console.is_terminal:
                    say(f"{stage} ({total})")
            progress.update(bars[stage], completed=done, total=total)

        yield on_progress


def finished(steps: Generator[tuple[int, int], None, Result], text: str) -> Result:
    """What long work returns in the end, under a bar: it yields how much is done and how much there is."""
    with stages() as on_progress:
        while True:
            try:
                on_progress(text, *next(steps))
            except StopIteration as end:
                return end.value
