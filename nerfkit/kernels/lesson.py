"""What rays are to learn, and what they learned: the two ends of a training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from nerfkit.types import Met


@dataclass(frozen=True)
class Lesson:
    """What rays should have shown, and how far they may go.

    The loss is ``factor`` times Huber's, summed over all numbers: e^2 / 2 up to ``delta``, delta (e - delta / 2) above.
    """

    truth: Float[Tensor, "n_rays 3"]
    delta: float
    factor: float
    early_stop: float
    """Transmittance, in (0, 1), behind which a ray ends."""
    reach: float
    """Distance (model units) up to which gradients are damped, see `composite`; 0 damps none."""
    capacity: int
    """Samples of all rays together that there is room for; rays end where it is used up. 0 keeps none: no gradient."""
    distortion: float = 0.0
    """Factor on the distortion of the rays' weights (`losses.distortion`), which is added to the loss; 0 or more."""
    halfway: float = 1.0
    """Distance (model units) at which that counts half of all places as nearer."""


@dataclass(frozen=True)
class Verdict:
    """What a judge says about what rays gathered."""

    loss: float | Float[Tensor, ""]
    g_gathered: Float[Tensor, "n_rays c"]
    """The loss's gradient."""
    rgb: Float[Tensor, "n_rays 3"]
    """The colours that it made of it."""
    g_more: tuple[Tensor, ...]
    """The loss's gradients with respect to what the judge learns itself."""


Judge = Callable[[Tensor], Verdict]
"""Takes what rays gathered, (n_rays, c): the colour first, then whatever else a field's colour network says."""


@dataclass(frozen=True)
class Learned:
    """What one `learn` found; the table's gradient went to the grid."""

    g_weights: Float[Tensor, " n_weights"]
    rgb: Float[Tensor, "n_rays 3"]
    opacity: Float[Tensor, " n_rays"]
    n_samples: int | Int[Tensor, ""]
    """That the rays reached; like the loss still on the device, where that is still at work."""
    n_rays: int | Int[Tensor, ""]
    """Rays that there was room for: what the others met nobody knows, so that they tell nothing of all rays."""
    loss: float | Float[Tensor, ""]
    """Of the colours."""
    met: Met | None = None
    """What the rays met, where that was asked for."""
    g_more: tuple[Tensor, ...] = ()
    """Gradients of what a judge learns itself."""
