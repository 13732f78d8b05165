"""How wide the networks should be, and how deep: widths are learnt along with a field, within so many multiplications.

In the manner of Dong and Yang 2019, "Network Pruning via Transformable Architecture Search": each network has a logit
for each width that it might have. In a step two widths of each are drawn by their probabilities and mixed, so that the
gradient of the mixture moves the logits; and the multiplications that are to be expected cost nothing while they lie
in a band about what is wanted. Here networks that are wide enough for all widths are shared by them: the first neurons
are those of the narrow ones. Depths are tried in turn, and the one that learns best is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nerfkit.config import Config, FieldConfig
from nerfkit.fields.hash import HashField
from nerfkit.kernels.adam import Adam
from nerfkit.scene.scene import Scene
from nerfkit.sparsity.ratios import PruneError
from nerfkit.train.loop import fit, model_of
from nerfkit.train.training import Training

WIDTHS = (16, 32, 48, 64)
DEPTHS = ((1, 1), (1, 2), (2, 1))
"""Hidden layers of the density and of the colour network."""
BAND = 0.05
"""How far the multiplications may be off what is wanted, as a share of it."""
_RATE, _PRICE = 0.02, 2.0
_WARM, _COLD = 5.0, 0.1
"""How evenly two widths are mixed, at the start and at the end."""


Width = int | float | Tensor
"""Neurons of a layer, as many as there are or as are to be expected."""


def multiplications(field: FieldConfig, density: Width, color: Width) -> Width:
    """Of one sample in a density and a colour network of such widths: as many as they have weights."""
    n_in = (field.n_levels * field.n_features, field.geo_features + field.sh_degree**2)
    layers, n_out = (field.density_layers, field.color_layers), (field.geo_features, 3)
    return sum(w * (n_in[i] + n_out[i]) + (layers[i] - 1) * w * w for i, w in enumerate((density, color)))


class WidthSearch:
    """A `Policy` that learns which widths the two networks of a field should have."""

    def __init__(self, field: HashField, wanted: float, seed: int = 0, widths: Sequence[int] = WIDTHS):
        """``wanted`` multiplications; the field is as wide as the largest of ``widths``."""
        self.config, self.wanted, self.widths = field.config, wanted, tuple(widths)
        self.logits = nn.Parameter(torch.zeros(2, len(widths)))
        """Of each width, for the density and for the colour network."""
        self._hidden = [list(network.weights)[:-1] for network in (field.density_network, field.color_network)]
        self._still = [[w.detach().clone() for w in network] for network in self._hidden]
        sizes = torch.tensor(self.widths)
        self._upto = (torch.arange(int(sizes.max())) < sizes[:, None]).float()
        self._sizes = sizes.float()
        self._adam, self._n, self._scale = Adam([self.logits]), 0, 0.0
        self._generator = torch.Generator().manual_seed(seed)
        self._gates = torch.ones(2, int(sizes.max()))

    def before_step(self, training: Training) -> None:
        """Hand the gradient on to what stands behind the gates, and move the logits."""
        heard = torch.zeros_like(self._gates)
        with torch.no_grad():
            for network, (hidden, still) in enumerate(zip(self._hidden, self._still, strict=True)):
                gates = self._gates[network].detach().to(hidden[0].device)
                for w, behind in zip(hidden, still, strict=True):
                    heard[network] += (behind * w.grad).sum(1).cpu()
                    w.grad = w.grad * gates[:, None]
                    w.copy_(behind)
        if self._gates.requires_grad:
            self._move(heard)

    def after_step(self, training: Training) -> None:
        """Draw widths for the next step, and let the networks be as wide as their mixture."""
        progress = min(training.clock.progress(training.model.config), 1.0)
        self._gates = self._drawn(_WARM + (_COLD - _WARM) * progress)
        with torch.no_grad():
            for network, hidden in enumerate(self._hidden):
                gates = self._gates[network].to(hidden[0].device)
                for i, w in enumerate(hidden):
                    self._still[network][i].copy_(w)
                    w.mul_(gates[:, None])

    def best(self) -> tuple[int, int]:
        """The most probable widths of the density and the colour network that are not above the band.

        Raises PruneError where none are.
        """
        likely = self.logits.detach().log_softmax(1)
        able = [
            (float(likely[0, i] + likely[1, k]), (self.widths[i], self.widths[k]))
            for i, k in product(range(len(self.widths)), repeat=2)
            if multiplications(self.config, self.widths[i], self.widths[k]) <= (1 + BAND) * self.wanted
        ]
        if not able:
            raise PruneError(
                f"{self.wanted:.0f} multiplications are too few for networks of {min(self.widths)} neurons"
            )
        return max(able)[1]

    def state_dict(self) -> dict[str, Tensor]:
        """The logits alone: a search is not interrupted."""
        return {"logits": self.logits.detach()}

    def load_state_dict(self, state: dict[str, Tensor], training: Training) -> None:
        """Take the logits, not the weights behind them."""
        with torch.no_grad():
            self.logits.copy_(state["logits"])

    def _drawn(self, temperature: float) -> Float[Tensor, "2 width"]:
        """How much of each neuron is there, in a mixture of two widths that are drawn for each network."""
        gates = []
        for logits in self.logits:
            two = torch.multinomial(logits.detach().softmax(0), 2, generator=self._generator)
            noise = torch.rand(2, generator=self._generator).clamp(min=1e-6).log().neg().log().neg()
            mixed = ((logits.log_softmax(0)[two] + noise) / temperature).softmax(0)
            gates.append(mixed @ self._upto[two])
        return torch.stack(gates)

    def _move(self, heard: Float[Tensor, "2 width"]) -> None:
        """A step of the logits, along what the pictures want, in units of what they usually do, and the price."""
        (pictures,) = torch.autograd.grad((self._gates * heard).sum(), self.logits)
        size = float(pictures.square().mean().sqrt())
        self._scale = 0.95 * self._scale + 0.05 * size if self._n else size
        expected = self.logits.softmax(1) @ self._sizes
        off = torch.log(multiplications(self.config, expected[0], expected[1]) / self.wanted)
        self.logits.grad = pictures / max(self._scale, 1e-12)
        if abs(float(off.detach())) > BAND:
            (price,) = torch.autograd.grad(off.abs(), self.logits)
            self.logits.grad += _PRICE * price
        self._n += 1
        self._adam.step(self._n, _RATE)


@dataclass(frozen=True)
class Shape:
    """The networks that a search of one depth came to."""

    field: FieldConfig
    """With the widths and the depth that were found."""
    share: float
    """Of the multiplications of the networks that were to be replaced."""
    psnr: float
    """Of the training rays at the end of the search."""


def search_shapes(
    scene: Scene, config: Config, share: float, depths: Sequence[tuple[int, int]] = DEPTHS
) -> list[Shape]:
    """The best widths of each depth with a ``share`` in (0, 1] of the multiplications of ``config``'s networks, the
    depth that learnt best first. Each depth takes the steps of a training of ``config``.

    Raises PruneError where the share leaves room for none.
    """
    own = config.field
    wanted = share * multiplications(own, own.width, own.color_width or own.width)
    found = []
    for density_layers, color_layers in depths:
        field = replace(own, density_layers=density_layers, color_layers=color_layers, width=max(WIDTHS), color_width=0)
        if multiplications(field, min(WIDTHS), min(WIDTHS)) > (1 + BAND) * wanted:
            continue
        wide = replace(config, field=field)
        model = model_of(scene, wide)
        search = WidthSearch(model.field, wanted, config.train.seed)
        (*_, last) = fit(scene, wide, model=model, policies=[search])
        width, color_width = search.best()
        field = replace(field, width=width, color_width=color_width)
        cost = multiplications(field, width, color_width) / wanted * share
        found.append(Shape(field, cost, last.psnr))
    if not found:
        raise PruneError(f"a share of {share:g} is too little for networks of {min(WIDTHS)} neurons")
    return sorted(found, key=lambda one: -one.psnr)
