"""The curves of a training for TensorBoard."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

from nerfkit.train.progress import Report

_CURVES = tuple(field.name for field in fields(Report) if field.name not in ("step", "progress", "eta"))


def with_tensorboard(reports: Iterator[Report], folder: Path) -> Iterator[Report]:
    """Pass reports on, and write their numbers as event files into a folder; those of a resumed training join them.

    ``reports`` is closed at the end. Raises ImportError where tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ImportError("--tensorboard needs tensorboard: pip install 'nerfkit[log]'") from None
    return _write(reports, folder, SummaryWriter)


def _write(reports: Iterator[Report], folder: Path, writer_of: Any) -> Iterator[Report]:
    writer = None
    with closing(reports):
        try:
            for report in reports:
                # Events after the checkpoint that a training goes on from are void.
                writer = writer or writer_of(str(folder), purge_step=report.step)
                for name in _CURVES:
                    if (value := getattr(report, name)) is not None:
                        writer.add_scalar(name, value, report.step)
                yield report
        finally:
            if writer is not None:
                writer.close()
