"""What ``torchrun`` tells the processes that it starts together: how many they are, and which of them this one is."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Of one process among all."""

    rank: int = 0
    """Counted from 0."""
    size: int = 1
    """Number of processes."""
    local_rank: int = 0
    """Counted among those on the same machine."""
    local_size: int = 1
    """Number of these."""

    @property
    def is_first(self) -> bool:
        """Whether it is the one that speaks and writes."""
        return self.rank == 0


def place() -> Place:
    """The place of this process; alone, where torchrun did not start it."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return Place(*(int(os.environ[name]) for name in names)) if all(name in os.environ for name in names) else Place()
