"""Masks: which units stay. Exactly as many as asked for, the same on every machine, and never an output cut off."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from nerfkit.sparsity.ratios import PruneError

Masks = dict[str, Tensor]
"""Of each part a mask, bool: True stays."""
Scores = Mapping[str, Tensor]
"""Of each part a number for each unit: the larger, the rather it stays."""


def largest(scores: Float[Tensor, "*shape"], count: int) -> Bool[Tensor, "*shape"]:
    """The ``count`` largest of all scores; of equal ones the first.

    >>> largest(torch.tensor([1.0, 3.0, 1.0, 1.0]), 2).tolist()
    [True, True, False, False]
    """
    mask = torch.zeros(scores.numel(), dtype=torch.bool)
    order = torch.sort(scores.reshape(-1).cpu(), descending=True, stable=True).indices
    mask[order[:count]] = True
    return mask.view(scores.shape)


def random_scores(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
    """Scores that say nothing, the same of a seed on every machine."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def counts_of_all(scores: Scores, total: int) -> dict[str, int]:
    """How many of each part are among the ``total`` largest scores of all of them; of equal ones the first."""
    joined = torch.cat([one.reshape(-1).cpu().double() for one in scores.values()])
    chosen = largest(joined, total).split([one.numel() for one in scores.values()])
    return {name: int(mask.sum()) for name, mask in zip(scores, chosen, strict=True)}


def draw(scores: Scores, counts: Mapping[str, int]) -> Masks:
    """Of each part the units with the largest scores. Raises PruneError where nothing would be left of one."""
    for name, score in scores.items():
        if counts[name] < 1:
            raise PruneError(f"nothing of {name} ({score.numel()}) would be left; prune less, or by another ratio")
    return {name: largest(score, counts[name]) for name, score in scores.items()}


def connected(chain: Sequence[Tensor]) -> list[Tensor]:
    """Which neurons of a chain of masked matrices hear an input: of the inputs (all), and of what each layer gives."""
    alive = [torch.ones(chain[0].shape[1], dtype=torch.bool)]
    for mask in chain:
        alive.append((mask & alive[-1]).any(1))
    return alive


def with_paths(masks: Masks, scores: Scores, chains: Mapping[tuple[str, ...], int]) -> Masks:
    """The same masks, but where an output would hear no input: a path to it then takes the place of the weakest units.

    Args:
        masks, scores: of parts; those of ``chains`` are matrices (outputs, inputs).
        chains: names of the matrices of each network, first to last, and how many of its outputs must hear something.

    The counts stay as they are. Raises PruneError where a matrix has too few weights left for the paths.
    """
    masks = dict(masks)
    for names, n_outputs in chains.items():
        chain, score = [masks[name] for name in names], [scores[name].double().cpu() for name in names]
        alive = connected(chain)
        if bool(alive[-1][:n_outputs].all()):
            continue
        paths = [torch.zeros_like(mask) for mask in chain]
        for output in range(n_outputs):
            row = output
            for i in reversed(range(len(chain))):
                row_before, row = row, _way_in(score[i][row], chain[i][row] & alive[i], alive[i])
                paths[i][row_before, row] = True
        for name, one, path in zip(names, score, paths, strict=True):
            count, needed = int(masks[name].sum()), int(path.sum())
            if needed > count:
                raise PruneError(
                    f"{name}: {count} weights would stay, {needed} are needed to reach all outputs; prune less, or by "
                    "another ratio"
                )
            masks[name] = largest(one.masked_fill(path, math.inf), count)
    return masks


def _way_in(score: Float[Tensor, " n_in"], kept: Bool[Tensor, " n_in"], alive: Bool[Tensor, " n_in"]) -> int:
    """The best input of a neuron: of the weights that stay, else of the inputs that hear something, else of all."""
    among = kept if bool(kept.any()) else alive if bool(alive.any()) else torch.ones_like(alive)
    return int(score.masked_fill(~among, -math.inf).argmax())


def pack(mask: Bool[Tensor, "*shape"]) -> UInt8[Tensor, " n_bytes"]:
    """Eight units a byte, the first one in the highest bit."""
    return torch.from_numpy(np.packbits(mask.cpu().numpy().reshape(-1)))


def unpack(packed: UInt8[Tensor, " n_bytes"], shape: tuple[int, ...]) -> Bool[Tensor, "*shape"]:
    """The inverse of `pack`."""
    bits = np.unpackbits(packed.cpu().numpy(), count=math.prod(shape))
    return torch.from_numpy(bits.astype(bool)).view(shape)


def to_torch(values: Mapping[str, Tensor], masks: Masks) -> dict[str, Tensor]:
    """Parameters under the names of ``torch.nn.utils.prune``: ``x_orig`` and ``x_mask`` for each masked x."""
    out: dict[str, Tensor] = {}
    for name, value in values.items():
        if name in masks:
            out |= {f"{name}_orig": value, f"{name}_mask": masks[name].to(value.dtype)}
        else:
            out[name] = value
    return out


def from_torch(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Masks]:
    """The inverse of `to_torch`: parameters, those that are pruned as zeros, and masks."""
    masks = {name.removesuffix("_mask"): value != 0 for name, value in state.items() if name.endswith("_mask")}
    values = {}
    for name, value in state.items():
        if not name.endswith("_mask"):
            name = name.removesuffix("_orig")
            values[name] = value * masks[name] if name in masks else value
    return values, masks
