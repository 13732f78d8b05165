"""Other ways to a small table, each in its authors' manner on our field: rivals for `compressing.py`.

- ``small``: a smaller table, its numbers rounded to 8 bits, all packed by zstandard at level 19: what
  everybody could do at once;
- ``entropy``: in the manner of SHACIRA (Girish et al. 2023) the numbers of a large table are rounded while they learn
  and pay for their bits by a density of each level's own; their bytes are that density's entropy, which a coder comes
  near to;
- ``binary``: in the manner of BiRF (Shin and Park 2023) and CNC (Chen et al. 2024) each number is a sign, learnt
  straight through, and signs are coded by those beside them: by our coder, of the entries that cells reach.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from nerfkit.config import Config
from nerfkit.fields.hash import HashField
from nerfkit.kernels.coder import Coder
from nerfkit.kernels.reach import reachable
from nerfkit.packed import strides_of
from nerfkit.render import Model
from nerfkit.train.training import Policy, Training

BEGIN = 0.4
"""Share of the training before numbers are rounded, and pay for their bits."""
STEPS = 4.0
"""Steps to which a level is rounded in the standard deviation of its numbers then."""
SIGN = 0.1
"""What a sign is in the table, so that networks begin as they do elsewhere."""


def _levels(field: HashField) -> list[slice]:
    offsets = field.grid.layout.offsets
    return [slice(a, b) for a, b in zip(offsets, offsets[1:], strict=False)]


def _zstd(data: bytes) -> int:
    from zstandard import ZstdCompressor

    return len(ZstdCompressor(level=19).compress(data))


def _eight_bits(parts: list[Tensor]) -> bytes:
    """Round numbers to 8 bits, in place, one scale a part."""
    packed = []
    with torch.no_grad():
        for part in parts:
            step = float(part.abs().max()) / 127 or 1.0
            whole = (part / step).round()
            packed.append(whole.to(torch.int8).numpy().tobytes())
            part.copy_(whole * step)
    return b"".join(packed)


def _small(field: HashField) -> list[Tensor]:
    return [p for name, p in field.named_parameters() if name != "table"]


def _cells(model: Model) -> bytes:
    return np.packbits(model.sampler.cells().occupied.numpy().reshape(-1)).tobytes()


class _Behind:
    """A `Policy`: the table that learns stands behind the one that is rendered."""

    def __init__(self) -> None:
        self.values: Tensor | None = None

    def before_step(self, training: Training) -> None:
        """Let the optimiser move the table behind."""
        if self.values is not None:
            with torch.no_grad():
                training.model.field.table.copy_(self.values)

    def show(self, field: HashField, rendered: Tensor) -> None:
        """Keep what the optimiser made, and render something else."""
        self.values = field.table.detach().clone()
        with torch.no_grad():
            field.table.copy_(rendered)

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing: benches are not interrupted within a training."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor], training: Training) -> None:
        """Nothing."""


class Priced(_Behind):
    """Rounded numbers that pay ``price`` for a bit, in units of the root mean square of what the pictures want."""

    def __init__(self, price: float):
        super().__init__()
        self.price = price
        self.steps: list[float] = []

    def before_step(self, training: Training) -> None:
        """Add the price's gradient, that of |q| / b under a Laplace density of each level's own width b."""
        super().before_step(training)
        field = training.model.field
        for own, step in zip(_levels(field), self.steps, strict=False):
            gradient, whole = field.table.grad[own], self.values[own] / step
            touched = gradient != 0
            wanted = float(gradient[touched].square().mean().sqrt()) if bool(touched.any()) else 0.0
            width = max(float(whole.abs().mean()), 0.05)
            gradient.add_(self.price * wanted / width * whole.clamp(-1, 1))

    def after_step(self, training: Training) -> None:
        """Round, from `BEGIN` on."""
        field = training.model.field
        if training.clock.progress(training.model.config) < BEGIN:
            return
        table = field.table.detach()
        self.steps = self.steps or [max(float(table[own].std()), 1e-6) / STEPS for own in _levels(field)]
        rounded = torch.cat([(table[own] / s).round() * s for own, s in zip(_levels(field), self.steps, strict=True)])
        self.show(field, rounded)

    def size(self, model: Model) -> int:
        """Bytes of a trained model."""
        bits, field = 0.0, model.field
        for own, step in zip(_levels(field), self.steps, strict=True):
            whole = (field.table.detach()[own] / step).round().long().view(-1)
            counts = torch.bincount(whole - whole.min()).double()
            share = counts[counts > 0] / counts.sum()
            bits += float(counts.sum() * -(share * share.log2()).sum()) + 16 * len(share)
        return math.ceil(bits / 8) + _zstd(_eight_bits(_small(field)) + _cells(model))


class Signs(_Behind):
    """Signs of numbers that stay within -1 and 1."""

    def after_step(self, training: Training) -> None:
        """Take the signs."""
        field = training.model.field
        with torch.no_grad():
            field.table.clamp_(-1.0, 1.0)
        self.show(field, torch.where(field.table.detach() < 0, -SIGN, SIGN))

    def size(self, model: Model) -> int:
        """Bytes of a trained model."""
        field, cells, coder = model.field, model.sampler.cells(), Coder()
        reached = reachable(cells, field.grid.layout, model.config.field.contracted)
        signs = field.table.detach().sign().to(torch.int16)
        streams = [
            coder.write_numbers(signs[own], reached[own], strides_of(field.grid.layout, i))
            for i, own in enumerate(_levels(field))
        ]
        return sum(map(len, streams)) + _zstd(_eight_bits(_small(field))) + len(Coder().write_cells(cells.occupied))


class Plain:
    """No policy at all: rounded to 8 bits at the end."""

    def size(self, model: Model) -> int:
        """Bytes of a trained model, whose numbers it rounds."""
        field = model.field
        table = [field.table.detach()[own] for own in _levels(field)]
        return _zstd(_eight_bits([*table, *_small(field)]) + _cells(model))


@dataclass(frozen=True)
class Rival:
    """A way to bytes: how it is trained for a rate, and what says how many they are."""

    rates: tuple[float, ...]
    config: Callable[[Config, float], Config]
    make: Callable[[float], Plain | Priced | Signs]


def _table(config: Config, log2: float) -> Config:
    return replace(config, field=replace(config.field, log2_table_size=int(log2)))


RIVALS: dict[str, Rival] = {
    "small": Rival((11, 12, 13, 14, 15), _table, lambda rate: Plain()),
    "entropy": Rival((0.01, 0.03, 0.1, 0.2, 0.4), lambda config, rate: config, Priced),
    "binary": Rival((11, 12, 13, 14, 15, 16), _table, lambda rate: Signs()),
}


def policies_of(way: Plain | Priced | Signs) -> list[Policy]:
    """What takes part in a rival's training."""
    return [] if isinstance(way, Plain) else [way]
