"""Files and folders that are written beside their place and moved there when they are whole.

What fails or is interrupted on the way leaves nothing, and what lay there before stays.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def beside(path: Path, ending: str) -> Path:
    """Where lies what is made of a file or a folder: beside it, with its name and this ending.

    >>> str(beside(Path("runs/mine"), "-pruned"))
    'runs/mine-pruned'
    """
    path = path.resolve() if path.name in ("", "..") else path
    return path.with_name(f"{path.name}{ending}")


class PlaceError(ValueError):
    """A place that cannot be written to: one sentence that names it."""


@contextmanager
def file_aside(path: Path) -> Iterator[Path]:
    """Where to write the file that is to lie at ``path``; folders above it are made.

    Raises PlaceError where a folder lies there.
    """
    if path.is_dir():
        raise PlaceError(f"{path}: is a folder, no file can be written there")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def folder_aside(path: Path, kind: str, is_ours: Callable[[str], bool]) -> Iterator[Path]:
    """The new folder that is to replace the one at ``path``.

    Args:
        path: of the folder; those above it are made.
        kind: what an entry is, for the refusal: "frame of a film".
        is_ours: whether an entry of that name may be replaced.

    Raises PlaceError where a file lies there, or a folder with anything else in it.
    """
    if path.exists() and not path.is_dir():
        raise PlaceError(f"{path}: is a file, no folder can be written there")
    strangers = [entry.name for entry in path.iterdir() if not is_ours(entry.name)] if path.exists() else []
    if strangers:
        raise PlaceError(f"{path}: holds {min(strangers)}, which is no {kind}; choose another folder")
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    aside.mkdir(parents=True)
    try:
        yield aside
        if path.exists():
            shutil.rmtree(path)
        os.replace(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
