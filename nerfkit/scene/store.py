"""Where decoded pictures are kept: in memory as far as it goes, the others in a file.

The file has no name, or loses it when the process ends, however it ends; it is mapped into memory, so that whoever
reads a picture need not know where it is, and the system keeps in memory what is read most.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from nerfkit.poses import SceneError

SHARE = 0.5
"""Of the memory that is available, which pictures may take unless a setting says how much."""
PIECE = 1 << 30
"""Bytes of the file that are mapped at once: a mapping holds one of the few files that a process may open."""

_GROUPS = (
    ("", "max", "current", "inactive_file"),
    ("memory", "limit_in_bytes", "usage_in_bytes", "total_inactive_file"),
)
"""Where control groups of version 2 and 1 say how much memory they may have, have, and could drop."""


class Store:
    """Keeps arrays, the first ones in memory and what would take more than ``room`` bytes there in a file.

    Used in a ``with``, at whose end no more can be kept; what was, stays until nobody refers to it.
    """

    def __init__(self, room: float | int):
        self.room = room
        self.n_spilled = 0
        """Bytes in the file."""
        self._file, self._piece, self._at = None, None, 0

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def keep(self, array: Shaped[np.ndarray, ...]) -> Shaped[np.ndarray, ...]:
        """The array, or an equal one in the file. Raises SceneError where the file cannot be written."""
        if array.nbytes <= self.room:
            self.room -= array.nbytes
            return array
        folder = spill_folder()
        try:
            return self._spill(np.ascontiguousarray(array), folder)
        except OSError as error:
            done = f"{self.n_spilled / 1e9:.3g} GB of pictures that do not fit in memory are written"
            advice = "set TMPDIR to a folder with more room, or take a larger data.downscale"
            raise SceneError(f"{folder}: {done}, and no more can be ({error.strerror}); {advice}") from None

    def _spill(self, array: Shaped[np.ndarray, ...], folder: Path) -> Shaped[np.ndarray, ...]:
        if self._piece is None or self._at + array.nbytes > len(self._piece):
            size = max(PIECE, array.nbytes)
            self.__exit__()
            self._file = tempfile.TemporaryFile(dir=folder, prefix="nerfkit-", buffering=0)
            self._file.truncate(size)
            self._piece, self._at = mmap.mmap(self._file.fileno(), size), 0
        # Written as a file: on a full disk, writing to mapped memory would kill the process.
        self._file.seek(self._at)
        left = memoryview(array).cast("B")
        while left:
            left = left[self._file.write(left) :]
        start, self._at = self._at, self._at + array.nbytes
        self.n_spilled += array.nbytes
        return np.frombuffer(self._piece, array.dtype, array.size, start).reshape(array.shape)


def room_for_pictures(gigabytes: float) -> float:
    """Bytes of memory that pictures may take: as many as the setting says, or if it is 0 a share of what there is."""
    if gigabytes:
        return gigabytes * 1e9
    return SHARE * available_memory()


def available_memory() -> float | int:
    """Bytes that this process may yet take without others being written out; infinite where the system does not tell.

    On Linux the kernel's own estimate, or what is left to the control group (a container's limit) if that is less;
    elsewhere all that the machine has.
    """
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return min(int(lines["MemAvailable"].split()[0]) * 1024, _left_to_the_group(Path("/sys/fs/cgroup")))
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return float("inf")


def _left_to_the_group(folder: Path) -> float | int:
    """Bytes below a control group's limit, files that can be dropped not counted; infinite where there is no limit."""
    for place, limit_name, used_name, droppable in _GROUPS:
        try:
            limit, used = ((folder / place / f"memory.{name}").read_text().strip() for name in (limit_name, used_name))
            stat = dict(line.split() for line in (folder / place / "memory.stat").read_text().splitlines())
            return float("inf") if limit == "max" else max(0, int(limit) - int(used) + int(stat[droppable]))
        except (OSError, KeyError, ValueError):
            pass
    return float("inf")


def spill_folder() -> Path:
    """Where the file is: as TMPDIR says, else /var/tmp, for /tmp is memory on many systems."""
    lasting = Path("/var/tmp")
    if "TMPDIR" not in os.environ and os.access(lasting, os.W_OK):
        return lasting
    return Path(tempfile.gettempdir())


def read_at_random(array: Shaped[np.ndarray, ...]) -> None:
    """Let the system know that an array is read here and there: in a file, it then reads no more than is asked for.

    Reading ahead, as it does otherwise, costs ten times as much for a single pixel.
    """
    owner = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, memoryview):
        owner = owner.obj
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_RANDOM"):
        owner.madvise(mmap.MADV_RANDOM)
