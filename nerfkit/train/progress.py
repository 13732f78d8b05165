"""What a training says while it runs: a bar on a terminal, plain lines elsewhere.

``fit`` yields a `Report` now and then; `show` draws it and passes it on::

    for report in show(fit(scene, config)):
        ...

This file and ``cli.py`` are the only ones that print. It goes to standard error, so that standard output stays free
for what a program may read.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from nerfkit.charts import duration, si


@dataclass(frozen=True)
class Report:
    """Where a training stands. Rates and means are over the steps since the last report."""

    step: int
    """Optimiser steps done."""
    seconds: float
    """Of training, without loading and evaluation; a resumed training counts on."""
    loss: float
    psnr: float
    """Of the training rays, dB."""
    rays_per_second: float
    samples_per_ray: float
    samples_per_second: float
    learning_rate: float
    """Of the table."""
    occupancy: float
    """Share of the sampler's cells that count as occupied, in [0, 1]."""
    progress: float
    """Share of the training that is done, in [0, 1]."""
    eta: float
    """Seconds that remain, as estimated."""
    test_psnr: float | None = None
    """Of a held-out view, dB, where one was rendered for this report."""


def describe(report: Report) -> str:
    """One line about a report.

    >>> describe(Report(1200, 12.3, 0.0037, 24.31, 1.2e6, 7.4, 8.9e6, 0.01, 0.11, 0.38, 20.0))
    'step 1200   38 %  PSNR 24.31 dB  1.2 M rays/s  7.4 samples/ray  12.3 s, 20.0 s left'
    """
    held_out = "" if report.test_psnr is None else f" (held out {report.test_psnr:.2f})"
    return (
        f"step {report.step}  {100 * report.progress:3.0f} %  PSNR {report.psnr:.2f} dB{held_out}  "
        f"{si(report.rays_per_second)} rays/s  {si(report.samples_per_ray)} samples/ray  "
        f"{duration(report.seconds)}, {duration(report.eta)} left"
    )


def show(reports: Iterable[Report], every: float = 5.0, console: Console | None = None) -> Iterator[Report]:
    """Pass reports through and show them.

    Args:
        reports: an iterator, usually ``fit(...)``. It is closed when the caller stops early.
        every: seconds between plain lines, where there is no terminal; the first and the last report always get one.
        console: where to write; standard error where None.
    """
    console = console or Console(stderr=True)
    shown = _bar(reports, console) if console.is_terminal else _lines(reports, console, every)
    try:
        yield from shown
    finally:
        close = getattr(reports, "close", None)
        if close is not None:
            close()


def _lines(reports: Iterable[Report], console: Console, every: float) -> Iterator[Report]:
    due, waiting = -float("inf"), None

    def say(report: Report) -> None:
        console.print(describe(report), markup=False, highlight=False, soft_wrap=True)

    try:
        for report in reports:
            waiting = report
            if time.monotonic() >= due:
                say(report)
                due, waiting = time.monotonic() + every, None
            yield report
    finally:
        if waiting is not None:
            say(waiting)


def _facts(report: Report, room: int) -> str:
    """As many facts as fit into so many columns, the ones looked for most first."""
    facts = [
        f"step {report.step}",
        f"{report.psnr:.2f} dB",
        f"{duration(report.eta)} left",
        f"{si(report.rays_per_second)} rays/s",
        f"{si(report.samples_per_ray)} samples/ray",
    ]
    if report.test_psnr is not None:
        facts.append(f"{report.test_psnr:.2f} dB held out")
    while len(facts) > 1 and len("  ".join(facts)) > room:
        facts.pop()
    return "  ".join(facts)


def _bar(reports: Iterable[Report], console: Console) -> Iterator[Report]:
    columns = (
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:3.0f} %"),
        TextColumn("{task.fields[facts]}", markup=False),
    )
    # No refresh thread: on few cores it would take its time from the training, and there is news only with a report.
    with Progress(*columns, console=console, auto_refresh=False, expand=True) as bar:
        task = bar.add_task("training", total=1.0, facts="starting")
        for report in reports:
            facts = _facts(report, console.width - 18)  # 10 columns for the bar, 8 for the percentage and gaps
            bar.update(task, completed=report.progress, facts=facts, refresh=True)
            yield report
