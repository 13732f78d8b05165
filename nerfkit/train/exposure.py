"""How brightly each photograph was exposed: a gain for each view and colour, found while training.

A camera that sets its exposure itself makes one wall brighter in one photograph than in the next; a field can only
answer with haze before cameras and colours that hang on directions. So a photograph is divided by its gain before the
field is compared with it. The gain is the least-squares fit of the photograph to the field's own render,
k = sum(truth * rgb) / sum(rgb^2) over the rays of late steps: no rate to choose, and nothing that diverges. Since all
photographs could be brighter together, the mean logarithm over the views is kept at zero; pictures are rendered, and
scored, at that mean exposure.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

_DECAY = 0.98
"""Of what was seen, with each step."""
_PRIOR = 4.0
"""Rays of middling brightness that speak for a gain of 1."""
_START = 500
"""Steps before gains are applied: a young field knows nothing of brightness."""
_MOST = 4.0
"""Gains beyond this, or below its inverse, are not exposure."""


class Exposure:
    """Gains of the training views; ``sums`` (2, n_views, 3) is their state, saved with a checkpoint."""

    def __init__(self, n_views: int, device: torch.device):
        self.sums = torch.zeros(2, n_views, 3, device=device)
        self._start = _START

    def take_up(self, sums: Float[Tensor, "2 n_views 3"]) -> None:
        """Go on with a field that knows of brightness already."""
        self.sums.copy_(sums)
        self._start = 0

    def gains(self, step: int) -> Float[Tensor, "n_views 3"]:
        """The gain of each view and colour, after so many steps of training."""
        if step < self._start:
            return torch.ones_like(self.sums[0])
        prior = 0.25 * _PRIOR
        gains = (self.sums[0] + prior) / (self.sums[1] + prior)
        logs = gains.clamp(1.0 / _MOST, _MOST).log()
        return (logs - logs.mean(0)).exp()

    def record(self, step: int) -> dict[str, float]:
        """The least and the largest brightness of a photograph, for the log; 1 is the mean of all."""
        brightness = self.gains(step).mean(1)
        return {"least": float(brightness.min()), "most": float(brightness.max())}

    def observe(self, view: Int[Tensor, " n"], truth: Float[Tensor, "n 3"], rgb: Float[Tensor, "n 3"]) -> None:
        """Take in what a step rendered of the views, and what the photographs have there."""
        self.sums *= _DECAY
        self.sums[0].index_add_(0, view, truth * rgb)
        self.sums[1].index_add_(0, view, rgb * rgb)
