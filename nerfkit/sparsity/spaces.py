"""What of a field may be pruned, as whole units: a weight, all that comes out of a neuron, an entry of the table.

A space declares its units; it finds none by itself. A mask of units spreads to one of each parameter's numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nerfkit.fields.hash import HashField
from nerfkit.sparsity.ratios import PruneError, Shape


@dataclass(frozen=True)
class Part:
    """Units of one parameter, of which some are to stay."""

    name: str
    """The parameter's in `HashField.named_parameters`, or with a level behind it."""
    parameter: str
    shape: Shape
    """Of the mask of units."""
    spread: Callable[[Tensor], Tensor]
    """A view that gives each number of the parameter (of the rows `rows`) the value of its unit."""
    gather: Callable[[Tensor], Tensor]
    """Sums over the numbers of each unit."""
    rows: tuple[int, int] | None = None
    """First one and the one behind the last, of the parameter's rows, where others belong to other parts."""

    def of(self, parameter: Tensor) -> Tensor:
        """What the part is of: a view of the whole parameter or of some of its rows."""
        return parameter if self.rows is None else parameter[slice(*self.rows)]


def _weights(field: HashField) -> list[Part]:
    return [Part(name, name, tuple(w.shape), _same, _same) for name, w in _matrices(field)]


def _neurons(field: HashField) -> list[Part]:
    """Rows of all matrices but the last one of each network: what comes into a neuron. What goes out follows."""
    parts = []
    for name, w in _matrices(field):
        network, _, number = name.rpartition(".")
        if int(number) < len(field.get_submodule(network)) - 1:
            parts.append(Part(name, name, (len(w),), _over_columns(w.shape[1]), lambda x: x.sum(1)))
    return parts


def _kernels(field: HashField) -> list[Part]:
    """Pairs of an input and an output of a head's convolutions, each with all of its taps."""
    found = [(name, p) for name, p in field.named_parameters() if ".sides." in name]
    return [Part(n, n, tuple(p.shape[:2]), _over_taps(p.shape[2]), lambda x: x.sum(2)) for n, p in found]


def _entries(field: HashField) -> list[Part]:
    return [
        Part(f"table.{i}", "table", (rows[1] - rows[0],), _over_columns(field.table.shape[1]), _sum_rows, rows)
        for i, rows in enumerate(level_rows(field))
    ]


def _levels(field: HashField) -> list[Part]:
    sizes = torch.tensor([rows[1] - rows[0] for rows in level_rows(field)])
    columns = field.table.shape[1]

    def spread(x: Tensor) -> Tensor:
        return x.repeat_interleave(sizes.to(x.device))[:, None].expand(-1, columns)

    def gather(x: Tensor) -> Tensor:
        return torch.stack([one.sum() for one in x.split(sizes.tolist())])

    return [Part("table", "table", (len(sizes),), spread, gather)]


def _features(field: HashField) -> list[Part]:
    return [
        Part(f"table.{i}", "table", (field.table.shape[1],), _over_rows(rows[1] - rows[0]), _sum_columns, rows)
        for i, rows in enumerate(level_rows(field))
    ]


SPACES: dict[str, Callable[[HashField], list[Part]]] = {
    "weights": _weights,
    "neurons": _neurons,
    "kernels": _kernels,
    "entries": _entries,
    "levels": _levels,
    "features": _features,
}


def parts_of(field: HashField, space: str) -> list[Part]:
    """The units of a space, part by part. Raises PruneError where the field has none."""
    parts = SPACES[space](field)
    if not parts:
        raise PruneError(f"prune.space: this field has no {space}; set field.head, or prune something else")
    return parts


def level_rows(field: HashField) -> list[tuple[int, int]]:
    """The first row of the table that each level owns, and the one behind its last."""
    offsets = field.grid.layout.offsets
    return list(zip(offsets, offsets[1:], strict=False))


def on_parameters(field: HashField, parts: list[Part], masks: dict[str, Tensor]) -> dict[str, Tensor]:
    """Masks of parts -> masks of whole parameters, on their device; what no part holds stays."""
    found: dict[str, Tensor] = {}
    for part in parts:
        parameter = field.get_parameter(part.parameter)
        whole = found.setdefault(part.parameter, torch.ones_like(parameter, dtype=torch.bool, requires_grad=False))
        part.of(whole).copy_(part.spread(masks[part.name].to(parameter.device)))
    return found


def gathered(parts: list[Part], scores: dict[str, Tensor]) -> dict[str, Tensor]:
    """Scores of each parameter's numbers -> of units, by sums, on the CPU."""
    return {part.name: part.gather(part.of(scores[part.parameter]).cpu()) for part in parts}


def _matrices(field: HashField) -> list[tuple[str, Tensor]]:
    return [(name, w) for name, w in field.named_parameters() if "_network.weights." in name]


def _same(x: Tensor) -> Tensor:
    return x


def _sum_rows(x: Tensor) -> Tensor:
    return x.sum(1)


def _sum_columns(x: Tensor) -> Tensor:
    return x.sum(0)


def _over_columns(n: int) -> Callable[[Tensor], Tensor]:
    return lambda x: x[:, None].expand(-1, n)


def _over_taps(n: int) -> Callable[[Tensor], Tensor]:
    return lambda x: x[:, :, None].expand(-1, -1, n)


def _over_rows(n: int) -> Callable[[Tensor], Tensor]:
    return lambda x: x[None, :].expand(n, -1)
