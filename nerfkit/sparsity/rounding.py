"""Learning under rounding: the table that is rendered holds whole multiples of steps, the one that learns does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int16
from torch import Tensor

from nerfkit.fields.hash import HashField
from nerfkit.kernels.coder import MOST
from nerfkit.kernels.hashgrid import GridLayout
from nerfkit.kernels.quantise import quantise
from nerfkit.train.training import Training

PRICE = 0.12
"""Of a bit, in squares of a step: where steps are fine, that is what a bit is worth."""

BytesFn = Callable[["Lattice", Tensor], int]
"""Length of the file of a table that is rounded to a lattice."""


@dataclass
class Lattice:
    """How a table is rounded: a step for each level, and what its multiples cost."""

    layout: GridLayout
    coded: Bool[Tensor, " n_entries"]
    """Entries that are written at all."""
    steps: list[float]
    prices: Float[Tensor, "n_entries n_features"]
    """Of a bit for each number, in squares of its level's step: what nobody looks at is cheap to leave out."""
    others: dict[str, float] = field(default_factory=dict)
    """Steps of what else there is, by its name: matrices of the networks, and the sky."""
    costs: list[tuple[float, float]] = field(default_factory=list)
    """Bits for the first step away from zero, and for each further one, of each level."""

    def __post_init__(self) -> None:
        self.costs = self.costs or [(3.0, 2.0)] * self.layout.n_levels

    def round(self, values: Float[Tensor, "n_entries n_features"], out: Float[Tensor, "n_entries n_features"]) -> None:
        """Write rounded values into ``out``."""
        for i, (a, b) in enumerate(zip(self.layout.offsets, self.layout.offsets[1:], strict=False)):
            quantise(values[a:b], self.prices[a:b], self.steps[i], *self.costs[i], out[a:b])

    def whole(self, values: Float[Tensor, "n_entries n_features"]) -> Int16[Tensor, "n_entries n_features"]:
        """The multiples of each number; entries that are not written are 0."""
        out = torch.empty_like(values)
        self.round(values, out)
        for i, (a, b) in enumerate(zip(self.layout.offsets, self.layout.offsets[1:], strict=False)):
            out[a:b] /= self.steps[i]
        return (out.round() * self.coded[:, None].to(out.device)).clamp(-MOST, MOST).to(torch.int16).cpu()

    def scaled(self, factor: float) -> Lattice:
        """The same with longer steps."""
        steps = [factor * step for step in self.steps]
        others = {name: factor * step for name, step in self.others.items()}
        return replace(self, steps=steps, others=others)

    def learn_costs(self, values: Float[Tensor, "n_entries n_features"]) -> float:
        """Take the costs from how often each multiple occurs now; returns the bytes of all numbers, were they alone."""
        whole, bits = self.whole(values).int().abs(), 0.0
        for i, (a, b) in enumerate(zip(self.layout.offsets, self.layout.offsets[1:], strict=False)):
            sizes = whole[a:b][self.coded[a:b]].reshape(-1)
            counts = torch.bincount(sizes.long(), minlength=4).double()
            n = float(counts.sum())
            if n == 0:
                continue
            each = counts / n
            bits += float(n * -(each[each > 0] * each[each > 0].log2()).sum() + (n - counts[0]))
            zero, one, two, three = ((counts[:4] + 0.5) / n).log2().neg().tolist()
            rise, slope = one + 1.0 - zero, min(max((three - one) / 2, 0.3), 6.0)
            self.costs[i] = (min(max(rise, 0.0), 12.0), slope)
        return max(bits / 8, 1.0)


class Rounding:
    """A `Policy`: gradients at the rounded table move the one behind it (Bengio et al. 2013, "straight through").

    Args of its making: the lattice; the table as it is, ``values``; how many bytes the file should have; and what says
    how many it would have, of a lattice and a table. Every so many steps the lattice follows.
    """

    def __init__(
        self, lattice: Lattice, values: Float[Tensor, "n f"], target: float, bytes_fn: BytesFn, every: int = 50
    ):
        self.lattice, self.target, self.bytes_fn, self.every = lattice, target, bytes_fn, every
        self.values = values.detach().clone()
        """The table behind the rounded one."""
        self._rounded = torch.empty_like(self.values)
        self._ratio = 0.0

    def show(self, field: HashField) -> None:
        """Give a field the rounded table."""
        self.lattice.round(self.values, self._rounded)
        with torch.no_grad():
            field.table.copy_(self._rounded)

    def before_step(self, training: Training) -> None:
        """Let the optimiser move the table behind."""
        with torch.no_grad():
            training.model.field.table.copy_(self.values)

    def after_step(self, training: Training) -> None:
        """Render the rounded one; now and then see how long the file would be, and choose the steps anew."""
        self.values.copy_(training.model.field.table.detach())
        step, last = training.clock.step, training.model.config.train.steps
        if step % self.every == 0:
            alone = self.lattice.learn_costs(self.values)
            if step % (4 * self.every) == 0 or not self._ratio:
                self._ratio = self.bytes_fn(self.lattice, self.values) / alone
            off = math.log(alone * self._ratio / self.target)
            # Towards the end the steps come to rest, so that what is learnt fits them.
            gain = 0.6 * min(1.0, 2.0 * (1.0 - step / last))
            self.lattice = self.lattice.scaled(math.exp(min(max(gain * off, -0.3), 0.3)))
        self.show(training.model.field)

    def state_dict(self) -> dict[str, Tensor]:
        """The table behind, and the lattice's numbers."""
        costs = (cost for pair in self.lattice.costs for cost in pair)
        numbers = [*self.lattice.steps, *self.lattice.others.values(), self._ratio, *costs]
        return {"values": self.values, "numbers": torch.tensor(numbers, dtype=torch.float64)}

    def load_state_dict(self, state: dict[str, Tensor], training: Training) -> None:
        """The inverse of `state_dict`."""
        lattice, numbers = self.lattice, iter(state["numbers"].tolist())
        self.values.copy_(state["values"])
        lattice.steps = [next(numbers) for _ in lattice.steps]
        lattice.others = {name: next(numbers) for name in lattice.others}
        self._ratio = next(numbers)
        lattice.costs = [(next(numbers), next(numbers)) for _ in lattice.costs]
