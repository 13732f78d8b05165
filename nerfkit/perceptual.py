"""How different two pictures look to a network that has learnt to see: LPIPS (Zhang et al. 2018).

Its weights are ImageNet's, which no package ships; where they are absent, `load_lpips` says so.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Picture = Float[np.ndarray, "h w 3"]
"""RGB in [0, 1]; those of one call have one size."""

_TRUNKS = {
    # File in torch's cache, and the five stages: (width of the pooling before it or 0, number of convolutions).
    "vgg": ("vgg16-397923af.pth", ((0, 2), (2, 2), (2, 3), (2, 3), (2, 3))),
    "alex": ("alexnet-owt-7be5be79.pth", ((0, 1), (3, 1), (3, 1), (0, 1), (0, 1))),
}
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class Lpips:
    """Learned perceptual distance, version 0.1: 0 for equal pictures, larger is worse.

    The linear heads are those inside the `lpips` package, the trunk's weights come from a file. Neither `lpips` nor
    torchvision is imported (the registry's torchvision cannot be on a CPU-only torch), and nothing is downloaded.
    """

    def __init__(self, net: Literal["alex", "vgg"] = "vgg", weights: Path | None = None) -> None:
        """Load the weights: ImageNet ones of torchvision's ``vgg16`` or ``alexnet``, ``.pth`` or ``.safetensors``.

        Raises LpipsError with the reason where a file is missing or does not fit.
        """
        package = importlib.util.find_spec("lpips")
        if package is None or package.origin is None:
            raise LpipsError("the package lpips is not installed; pip install lpips")
        name, self.stages = _TRUNKS[net]
        path = _weights_of(name, weights)
        heads = _load_tensors(Path(package.origin).parent / "weights" / "v0.1" / f"{net}.pth")
        trunk = _load_tensors(path)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.heads = [heads[f"lin{i}.model.1.weight"].to(self.device) for i in range(len(self.stages))]
            numbers = sorted({int(key.split(".")[1]) for key in trunk if key.startswith("features.")})
            self.layers = [
                tuple(trunk[f"features.{i}.{w}"].to(self.device) for w in ("weight", "bias")) for i in numbers
            ]
            if len(self.layers) != (wanted := sum(count for _, count in self.stages)):
                raise ValueError(f"{wanted} convolutions are needed, it has {len(self.layers)}")
            self(np.zeros((64, 64, 3)), np.ones((64, 64, 3)))
        except (KeyError, ValueError, RuntimeError) as error:
            raise LpipsError(f"{path}: these are not the {net} weights: {error}") from None

    def features(self, picture: Picture) -> Iterator[Float[Tensor, "1 c h2 w2"]]:
        """Activations after each of the five stages."""
        x = torch.from_numpy(np.ascontiguousarray(picture)).to(self.device, torch.float32).permute(2, 0, 1)[None]
        x = _normalized(x)
        layers = iter(self.layers)
        for pool, count in self.stages:
            if pool:
                x = functional.max_pool2d(x, pool, stride=2)
            for weight, bias in islice(layers, count):
                width = weight.shape[-1]  # 3 but for the first two of AlexNet: 11 at stride 4, and 5
                x = functional.conv2d(x, weight, bias, 4 if width == 11 else 1, 1 if width == 3 else 2).relu()
            yield x

    @torch.no_grad()
    def __call__(self, prediction: Picture, truth: Picture) -> float:
        """Distance of two pictures, each at least 32 pixels a side (ValueError otherwise)."""
        if min(prediction.shape[:2]) < 32:
            raise ValueError(f"LPIPS needs pictures of at least 32 pixels a side, found {tuple(prediction.shape[:2])}")
        total = 0.0
        for head, a, b in zip(self.heads, self.features(prediction), self.features(truth), strict=True):
            a, b = (f / (f.square().sum(1, keepdim=True).sqrt() + 1e-10) for f in (a, b))
            total += float(functional.conv2d((a - b).square(), head).mean())
        return total


class FirstBlock:
    """How much patches differ to the first block of VGG-16, before its first pooling: edges, and no content yet.

    In the manner of AligNeRF (Jiang et al. 2023), which takes that of VGG-19. The sum of squared differences of its
    responses, over all places whose 5x5 surroundings are known, so scaled that small differences without structure
    count four times their squares, as they do with `train.losses.high_frequency`.
    """

    def __init__(self, weights: Path | None = None):
        """``weights`` as of `Lpips`. Raises LpipsError with the reason where they are missing or do not fit."""
        path = _weights_of(_TRUNKS["vgg"][0], weights)
        trunk = _load_tensors(path)
        try:
            self.layers = [tuple(trunk[f"features.{i}.{w}"].float() for w in ("weight", "bias")) for i in (0, 2)]
            self.scale = 1.0
            generator = torch.Generator().manual_seed(0)
            grey = torch.rand(64, 9, 9, 3, generator=generator)
            little = 0.01 * torch.randn(64, 9, 9, 3, generator=generator)
            n_places = 64 * 5 * 5
            self.scale = 4.0 * n_places * float(little.square().mean()) * 3 / float(self(grey + little, grey))
        except (KeyError, RuntimeError) as error:
            raise LpipsError(f"{path}: these are not the vgg weights: {error}") from None

    def __call__(self, patches: Float[Tensor, "n s s 3"], truth: Float[Tensor, "n s s 3"]) -> Float[Tensor, ""]:
        """The difference. Differentiable in ``patches``."""
        each = [_normalized(x.permute(0, 3, 1, 2)) for x in (patches, truth)]
        for weight, bias in self.layers:
            w, b = weight.to(patches.device), bias.to(patches.device)
            each = [functional.conv2d(x, w, b).relu() for x in each]
        return self.scale * (each[0] - each[1]).square().sum()


class LpipsError(RuntimeError):
    """Why LPIPS cannot be computed, in one sentence."""


@functools.lru_cache(maxsize=2)
def load_lpips(net: Literal["alex", "vgg"] = "vgg", weights: Path | None = None) -> tuple[Lpips | None, str | None]:
    """The metric and None, or None and the reason. ``weights`` None looks in torch's cache."""
    try:
        return Lpips(net, weights), None
    except LpipsError as error:
        return None, str(error)


def _normalized(x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    shift, scale = (torch.tensor(numbers, device=x.device).view(1, 3, 1, 1) for numbers in (_SHIFT, _SCALE))
    return (2 * x - 1 - shift) / scale


def _weights_of(name: str, given: Path | None) -> Path:
    """The file of a network's weights: the given one, or that in torch's cache. Raises LpipsError if there is none."""
    path = given or Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        raise LpipsError(f"no {name.split('-')[0]} weights: there is no {path.name} in {_short(path.parent)}")
    return path


def _short(path: Path) -> str:
    """A path as people write it: the reason goes into files that are shared, and a home is nobody's business."""
    return f"~/{path.relative_to(Path.home())}" if path.is_relative_to(Path.home()) else str(path)


def _load_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name. A ``.pth`` goes through torch's restricted reader, which builds tensors and runs nothing."""
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise half a dozen kinds
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise LpipsError(f"{path}: cannot be read as weights: {reason}") from None
