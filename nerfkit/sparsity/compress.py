"""A trained run in a file of as many bytes as one says.

Cells that show stay, as many as there is room for, entries that they cannot reach go, and the table learns under
rounding while the length of its steps follows the bytes of the file. How finely a level is rounded, and how readily a
number is left out, follows from how much the pictures hear of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nerfkit.config import ConfigError, PruneConfig, check
from nerfkit.kernels.coder import MOST
from nerfkit.kernels.hashgrid import GridLayout
from nerfkit.kernels.reach import reachable
from nerfkit.packed import Quantised, as_steps, header_of, pack
from nerfkit.render import Model
from nerfkit.run import Run
from nerfkit.sampling.settled import Settled
from nerfkit.scene.scene import Scene
from nerfkit.sparsity.again import steps_of, take_up
from nerfkit.sparsity.criteria import N_BATCHES, error_now, gradients
from nerfkit.sparsity.ratios import PruneError
from nerfkit.sparsity.rounding import PRICE, BytesFn, Lattice, Rounding
from nerfkit.sparsity.shown import cells_within
from nerfkit.train.loop import fit
from nerfkit.train.progress import Report
from nerfkit.train.training import Training

_COARSE = 12.0
"""Steps of a matrix's numbers in their root mean square, at least: every sample passes them."""
_FOR_CELLS = 0.25
"""Share of the bytes that cells may take, if there are cells to leave out."""
_SLACK = 0.03
"""Share of the bytes that may stay unused."""
LITTLE = 0.03
"""Share by which rounding may raise the error of training rays at once without a need to learn under it: a converged
field that is trained on loses as much of its held-out views."""
_WIDEST = 8.0
"""How far the price of a bit may be from its mean, either way."""


@dataclass
class Compression:
    """A model on its way into a file. Made by `begin`; `learn` trains it, `file` is what it is then."""

    training: Training
    header: dict[str, Any]
    n_bytes: int
    rounding: Rounding
    lost: float
    """Share by which rounding at once raised the error of training rays."""

    def learn(self) -> Iterator[Report]:
        """Train under rounding, where that lost more than `LITTLE`; yields reports as `fit` does."""
        if self.lost < LITTLE:
            return
        training = replace(self.training, policies=[self.rounding])
        yield from fit(training.pixels.scene, self.model.config, training=training)

    @property
    def model(self) -> Model:
        """As it is now."""
        return self.training.model

    def file(self) -> bytes:
        """The file: of its budget all, but for a few hundredths. The model then is what a reader will find in it."""
        values = self.rounding.values
        lattice = fitting(self.rounding.lattice, values, self.n_bytes, self.rounding.bytes_fn)
        parts = quantised(self.model, lattice, values)
        self.model.field.load_state_dict(parts.state(lattice.layout))
        return packed(self.header, self.model, parts)


def begin(run: Run, scene: Scene, n_bytes: int, share: float) -> Compression:
    """Take up a run to put it into ``n_bytes``, by training it on for a ``share`` of its steps.

    Raises PruneError where the bytes are too few for the cells and the networks alone, and says how many those are; and
    where what they hold could not be read, whose occupancy is always that of a grid.
    """
    try:
        check(replace(run.config, sampler=replace(run.config.sampler, kind="grid")))
    except ConfigError as error:
        raise PruneError(f"{run.path}: cannot be compressed, as a file has cells to be looked at ({error})") from None
    training = take_up(run, scene, steps_of(run, share))
    model = training.model
    config = replace(model.config, sampler=replace(model.config.sampler, kind="grid"), prune=PruneConfig())
    model = replace(model, sampler=Settled(cells_within(model, scene, int(_FOR_CELLS * n_bytes))), config=config)
    training, header = replace(training, model=model), header_of(run, config, run.load_checkpoint())
    layout = model.field.grid.layout
    coded = reachable(model.sampler.cells(), layout, config.field.contracted)
    lattice = worth(training, layout, coded)

    def bytes_fn(lattice: Lattice, values: Tensor) -> int:
        return len(packed(header, model, quantised(model, lattice, values)))

    table = model.field.table.detach().clone()
    least = bytes_fn(lattice.scaled(1e6), table)
    if n_bytes < least:
        raise PruneError(
            f"{n_bytes} bytes: this scene takes {least} without a single entry of its table; allow that and more"
        )
    for _ in range(3):
        lattice = fitting(lattice, table, n_bytes, bytes_fn)
        lattice.learn_costs(table)
    rounding = Rounding(lattice, table, (1.0 - _SLACK / 2) * n_bytes, bytes_fn)
    before = error_now(training, N_BATCHES)
    rounding.show(model.field)
    lost = error_now(training, N_BATCHES) / before - 1.0
    return Compression(training, header, n_bytes, rounding, lost)


def worth(training: Training, layout: GridLayout, coded: Bool[Tensor, " n_entries"]) -> Lattice:
    """A lattice with lengths of steps, right one to another, and prices of a bit for each number.

    Of a loss that is flat at the numbers as they are, an error e of one costs F e^2 / 2, with F the mean square of the
    gradient (Fisher's information). Rounding costs least for steps of 1 / sqrt(F) in the mean of a level or a matrix;
    within a level, a bit for a number of less worth is dearer.
    """
    squares: dict[str, Tensor] = {}
    for batch in range(4 * N_BATCHES):
        for name, gradient in gradients(training, 1, batch).items():
            squares[name] = squares.get(name, 0.0) + gradient**2
    field, table = training.model.field, squares["table"]
    steps, prices = [], torch.full_like(table, PRICE)
    for a, b in zip(layout.offsets, layout.offsets[1:], strict=False):
        own = table[a:b]
        steps.append(_step_of(own))
        off = (own.mean() / own.mean(1, keepdim=True).clamp(min=1e-30)).sqrt().clamp(1.0 / _WIDEST, _WIDEST)
        prices[a:b] = PRICE * off
    # The sky of a scene that shows none hears of nothing; it is few numbers.
    others = {name: _step_of(squares.get(name, torch.ones(1))) for name in field.state_dict() if name != "table"}
    unit = float(field.table.detach().std()) / math.exp(sum(map(math.log, steps)) / len(steps))
    return Lattice(layout, coded, steps, prices, others).scaled(unit)


def _step_of(squares: Tensor) -> float:
    return 1.0 / math.sqrt(max(float(squares.mean()), 1e-30))


def fitting(lattice: Lattice, values: Float[Tensor, "n f"], n_bytes: int, bytes_fn: BytesFn) -> Lattice:
    """The lattice with the shortest steps whose file is no longer than ``n_bytes``, to a few hundredths."""
    offsets = lattice.layout.offsets
    finest = [
        float(values[a:b].abs().max()) / MOST / step
        for a, b, step in zip(offsets, offsets[1:], lattice.steps, strict=False)
    ]
    low, high, guess, best = math.log(max(*finest, 1e-9)), 14.0, 0.0, lattice.scaled(math.exp(14.0))
    for _ in range(24):
        guess = min(max(guess, low), high)
        tried = lattice.scaled(math.exp(guess))
        length = bytes_fn(tried, values)
        if length <= n_bytes:
            best, high = tried, guess
            if length >= (1.0 - _SLACK) * n_bytes:
                break
        else:
            low = guess
        if high - low < 1e-4:
            break
        # Bytes fall about as fast as steps grow; the borders keep a guess that is not so from going astray.
        margin = 0.1 * (high - low)
        guess = min(max(guess + math.log(length / n_bytes) + _SLACK / 2, low + margin), high - margin)
    return best


def quantised(model: Model, lattice: Lattice, values: Float[Tensor, "n f"]) -> Quantised:
    """A model's numbers as whole multiples of steps, its table being ``values``."""
    networks: dict[str, tuple[Tensor, float]] = {}
    for name, w in model.field.state_dict().items():
        if name != "table":
            size, most = float(w.square().mean().sqrt()), float(w.abs().max())
            step = max(min(lattice.others[name], size / _COARSE), most / MOST, 1e-12)
            networks[name] = (as_steps(w, step), step)
    return Quantised(networks, lattice.whole(values), lattice.steps, model.sampler.cells())


def packed(header: dict[str, Any], model: Model, parts: Quantised) -> bytes:
    """The file of a model's quantised numbers."""
    return pack(parts, header, model.field.grid.layout, model.config.field.contracted)
