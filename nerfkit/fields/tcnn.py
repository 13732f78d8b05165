"""Encoding and networks of a hash field, computed by tiny-cuda-nn (Mueller 2021) instead of our kernels.

Its grid has our numerics, so that both read the same table and the same weights, which remain the field's: a checkpoint
moves between the engines both ways. What differs is the number format, float16 there.

A module of its has one row of numbers: the matrices of the network, each (n_out, n_in) with both rounded up to a
multiple of 16, then the table level by level. It is put together from the field's for each call, which costs a copy of
the table and lets autograd take the gradients apart again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from nerfkit.config import FieldConfig
from nerfkit.kernels.hashgrid import GridLayout

WIDTHS = (16, 32, 64, 128)
"""Neurons of a layer that its fully fused networks can have."""
_STEP = 16


class TcnnError(RuntimeError):
    """tiny-cuda-nn cannot be loaded, or cannot hold such a field: one sentence."""


def load() -> Any:
    """The module ``tinycudann``. Raises TcnnError where it does not load: without a GPU it raises OSError itself."""
    try:
        import tinycudann
    except (ImportError, OSError, RuntimeError) as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise TcnnError(f"tinycudann does not load here ({why})") from None
    return tinycudann


def grid_config(layout: GridLayout, config: FieldConfig) -> dict[str, Any]:
    """What its encoding is to be asked for."""
    growth = (layout.scales[-1] + 1) / (layout.scales[0] + 1)
    return {
        "otype": "HashGrid",
        "n_levels": layout.n_levels,
        "n_features_per_level": layout.n_features,
        "log2_hashmap_size": config.log2_table_size,
        "base_resolution": config.base_resolution,
        "per_level_scale": growth ** (1 / max(layout.n_levels - 1, 1)),
        "interpolation": "Linear",
    }


def network_config(width: int, n_hidden: int, key: str) -> dict[str, Any]:
    """What one of its networks is to be asked for. Raises TcnnError, naming ``key``, where there is none such."""
    if width not in WIDTHS or n_hidden < 1:
        have = f"{n_hidden} hidden layers of {width}"
        raise TcnnError(f"{key}: tinycudann has networks of one or more hidden layers of 16, 32, 64 or 128, not {have}")
    shape = {"n_neurons": width, "n_hidden_layers": n_hidden}
    return {"otype": "FullyFusedMLP", "activation": "ReLU", "output_activation": "None", **shape}


def flat(weights: Sequence[Tensor]) -> Float[Tensor, " n"]:
    """The matrices of a network in one row as tiny-cuda-nn has them, padded with zeros; differentiable.

    >>> flat([torch.ones(16, 3), torch.ones(2, 16)]).shape
    torch.Size([512])
    """
    rows = []
    for w in weights:
        n_out, n_in = w.shape
        rows.append(F.pad(w, (0, -n_in % _STEP, 0, -n_out % _STEP)).reshape(-1))
    return torch.cat(rows)


class Tcnn:
    """The modules that serve one field."""

    def __init__(
        self, layout: GridLayout, config: FieldConfig, density: Sequence[int], color: Sequence[int], module: Any
    ):
        """``density`` and ``color`` are the numbers of the networks' layers, inputs and outputs among them; ``module``
        is tinycudann. Raises TcnnError where it has no such field."""
        hidden = [network_config(density[1], len(density) - 2, "field.width, field.density_layers")]
        hidden.append(network_config(color[1], len(color) - 2, "field.color_width, field.color_layers"))
        grid = grid_config(layout, config)
        try:
            self._density = module.NetworkWithInputEncoding(3, density[-1], grid, hidden[0])
            self._color = module.Network(color[0], color[-1], hidden[1])
        except RuntimeError as error:
            raise TcnnError(f"tinycudann makes no such field ({str(error).splitlines()[0]})") from None
        expected = layout.n_entries * layout.n_features + _size(density)
        for one, n in ((self._density, expected), (self._color, _size(color))):
            if one.params.numel() != n:
                raise TcnnError(f"tinycudann has {one.params.numel()} numbers where this field has {n}")
            del one.params  # a parameter of its own; in its place come rows made of the field's

    def density(
        self,
        positions: Float[Tensor, "n 3"],
        table: Float[Tensor, "entries features"],
        weights: Sequence[Tensor],
    ) -> Float[Tensor, "n c"]:
        """The density network's outputs at places that are contracted already; differentiable in table and weights."""
        self._density.params = torch.cat([flat(weights), table.reshape(-1)])
        return _some(self._density, positions)

    def color(self, x: Float[Tensor, "n n_in"], weights: Sequence[Tensor]) -> Float[Tensor, "n n_out"]:
        """The colour network's outputs; differentiable in all."""
        self._color.params = flat(weights)
        return _some(self._color, x)


def _some(module: Any, x: Tensor) -> Tensor:
    """A module's outputs, of which it cannot have none: it divides by their number."""
    return module(x) if len(x) else module(x.new_zeros(1, x.shape[1]))[:0]


def _size(sizes: Sequence[int]) -> int:
    """Numbers of a network's padded matrices."""
    up = [-(-n // _STEP) * _STEP for n in sizes]
    return sum(a * b for a, b in zip(up, up[1:], strict=False))
