"""The processes that train one model or shoot one film together: what one of them knows, all can know.

``torchrun`` starts them, and they talk by PyTorch's own means, over nccl on CUDA and gloo elsewhere. All do the same in
the same order, but each only its share of what takes long. Whenever they meet, each first says, over gloo, what it is
about to do: so who fails can let the others know, and who was lost is missed at once instead of being waited for.
"""

from __future__ import annotations

import io
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from nerfkit.torchrun import place

Thing = TypeVar("Thing")

_FAILS = "fail"
_PATIENCE = timedelta(minutes=30)
"""How long a rank that is there is waited for: one may load a scene or compile kernels meanwhile."""
_ALIGNED = 16
"""Bytes, to a multiple of which tensors are filled up on their way, so that each can be looked at where it arrives."""


class RanksError(RuntimeError):
    """Processes that cannot go on together: one sentence, told by each that has it."""

    of_any_rank = True


class Ranks:
    """All processes of a training, of which this is number ``rank`` of ``size``. One alone never waits for anybody."""

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size
        self._end: BaseException | None = None

    def __str__(self) -> str:
        return f"process {self.rank + 1} of {self.size}"

    @property
    def is_first(self) -> bool:
        """Whether this one speaks, writes, and tells the time."""
        return self.rank == 0

    def own(self, n: int) -> range:
        """Which of n things are this rank's to do."""
        return range(self.rank, n, self.size)

    def together(self, done: Sequence[Thing], n: int) -> list[Thing]:
        """What was made of n things, in their order, of which each rank gives what it made of its `own`."""
        each = self.exchange(done)
        return [each[i % self.size][i // self.size] for i in range(n)]

    def in_turn(self, act: Callable[[int], Thing], n: int) -> Iterator[Thing]:
        """``act(0)`` to ``act(n - 1)`` in their order, each done by one rank, as many at once as there are ranks."""
        for begin in range(0, n, self.size):
            some = min(self.size, n - begin)
            yield from self.together([act(begin + i) for i in self.own(some)], some)

    def first(self, thing: Thing) -> Thing:
        """What the first rank has."""
        return self.exchange(thing)[0]

    def exchange(self, thing: Thing) -> list[Thing]:
        """What each rank has, which is anything that can be pickled, with tensors in it that are all on one device.

        Tensors arrive on the device of this rank's own, bit for bit and without a gradient.
        """
        if self.size == 1:
            return [thing]
        text, row = _apart(thing)
        heads = self._meet("exchange", (text, len(row), row.device.type))
        _, longest, device = max(heads, key=lambda head: head[1])
        rows = [torch.empty(longest, dtype=torch.uint8, device=device) for _ in heads]
        if longest:
            row = row.to(device)
            with self._listening():
                dist.all_gather(rows, torch.cat([row, row.new_empty(longest - len(row))]))
        return [_Whole(io.BytesIO(text), row).load() for (text, *_), row in zip(heads, rows, strict=True)]

    def sum(self, tensor: Tensor) -> None:
        """Put the sum over all ranks into a tensor; on all of them it is the same, bit for bit."""
        if self.size > 1:
            self._meet("sum", None)
            with self._listening():
                dist.all_reduce(tensor, dist.ReduceOp.SUM)

    def maximum(self, tensor: Tensor) -> None:
        """Put the largest of each number on any rank into a tensor."""
        if self.size > 1:
            self._meet("maximum", None)
            with self._listening():
                dist.all_reduce(tensor, dist.ReduceOp.MAX)

    def fail(self, code: int) -> None:
        """Let the others know that this one fails; they leave with that code when they meet next, without a word.

        Raises SystemExit where one before this one fails, too, which then tells why.
        """
        try:
            heads = self._gather((_FAILS, code))
        except (RanksError, SystemExit):  # nobody is there to hear it
            return
        first = next(rank for rank, (doing, _) in enumerate(heads) if doing == _FAILS)
        if first != self.rank:
            raise SystemExit(heads[first][1])

    def _meet(self, doing: str, told: Any) -> list[Any]:
        """What each rank tells, as soon as all are about to do the same."""
        heads = self._gather((doing, told))
        code = next((told for what, told in heads if what == _FAILS), None)
        if code is not None:
            self._end = SystemExit(code)
            raise self._end
        if any(what != doing for what, _ in heads):
            self._end = RanksError(f"{self}: the others are not where this one is; --resume begins at one place again")
            raise self._end
        return [told for _, told in heads]

    def _gather(self, head: tuple[str, Any]) -> list[Any]:
        if self._end is not None:
            raise self._end
        heads: list[Any] = [None] * self.size
        with self._listening():
            dist.all_gather_object(heads, head)
        return heads

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Make one sentence of whatever the collectives say when a rank is no longer there."""
        try:
            yield
        except RuntimeError as error:  # of gloo, of nccl, and of the network
            # Then torchrun ends those that are left, which do so by themselves, and shall come to say why.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            text = "another process was lost; a training goes on from its last checkpoint with --resume"
            self._end = RanksError(f"{self}: {text}")
            raise self._end from error


ALONE = Ranks()


@contextmanager
def joined() -> Iterator[Ranks]:
    """All processes that torchrun started together, from here on to the end of the block.

    Who fails within lets the others know, which then leave by SystemExit with the same code. Raises RanksError where
    they do not find each other, or lose one; and, on any but the first, for every error within.
    """
    here = place()
    if here.size == 1:
        yield ALONE
        return
    ranks = Ranks(here.rank, here.size)
    if not dist.is_available():
        raise RanksError(f"{ranks}: this PyTorch is built without torch.distributed; start nerfkit without torchrun")
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise RanksError(f"{ranks}: the processes do not find each other: {str(error).splitlines()[0]}") from None
    # Who leaves by an error leaves the group as it is: to take leave of others that may be lost could last.
    try:
        yield ranks
    except RanksError:
        raise
    except Exception as error:
        ranks.fail(getattr(error, "exit_code", 1))
        if ranks.is_first:
            raise
        raise RanksError(f"{ranks}: {type(error).__name__}: {error}") from error
    dist.destroy_process_group()


class _Apart(pickle.Pickler):
    """Pickles a thing, but puts the bytes of its tensors aside."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file)
        self.rows: list[Tensor] = []

    def persistent_id(self, thing: Any) -> tuple[torch.dtype, torch.Size] | None:
        """What is pickled in the place of a tensor."""
        if not isinstance(thing, Tensor):
            return None
        row = thing.detach().contiguous().view(-1).view(torch.uint8)
        self.rows += [row, row.new_empty(-len(row) % _ALIGNED)]
        return thing.dtype, thing.shape


class _Whole(pickle.Unpickler):
    """The inverse: puts each tensor, a part of the row of bytes, back into its place."""

    def __init__(self, file: io.BytesIO, row: Tensor):
        super().__init__(file)
        self._row = row
        self._begin = 0

    def persistent_load(self, kind: tuple[torch.dtype, torch.Size]) -> Tensor:
        """The next tensor."""
        dtype, shape = kind
        length = shape.numel() * dtype.itemsize
        part = self._row[self._begin : self._begin + length]
        self._begin += length + -length % _ALIGNED
        return part.view(dtype).view(shape)


def _apart(thing: Any) -> tuple[bytes, Tensor]:
    """A thing in two parts: its pickle, and the bytes of all of its tensors."""
    file = io.BytesIO()
    pickler = _Apart(file)
    pickler.dump(thing)
    row = torch.cat(pickler.rows) if pickler.rows else torch.empty(0, dtype=torch.uint8)
    return file.getvalue(), row
