"""The network that sees a hidden picture in renders, in the manner of StegaNeRF's decoder and classifier.

It looks at a render alone: neither the unmarked scene nor the camera is needed. Convolutions say 32 signs, and of these
a last layer draws the picture. Each copy of a scene has a word of signs of its own, drawn by its owner's key, and so
have unmarked renders, of which nothing is drawn; nor is anything of other words. How many signs agree with the owner's
word is the test of presence, in place of a classifier: by chance, as many agree as of fair coins.

What a render carries are the signs. The picture itself lies in the last layer, as StegaNeRF's lies in its U-Net, which
is trained to draw one picture where it sees a mark.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

SIDE = 128
"""Pixels across, of what the network sees and of what it draws."""
N_SIGNS = 32
_ENCODER = (3, 16, 24, 32, 48, 64)
"""Channels; each step halves the picture."""
_BLUR = (1.0, 4.0, 6.0, 4.0, 1.0)
"""What the network sees first, along rows and columns: finer than that, a render differs with its size, and a mark that
is learnt in one size is not seen in another."""
_DARK = -6.0
"""What is drawn of no word: black, as a logit."""


class Decoder(nn.Module):
    """Pictures (n, 3, 128, 128) in [0, 1] -> signs (n, 32), any numbers, and what is drawn of these."""

    def __init__(self, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            steps = list(zip(_ENCODER, _ENCODER[1:], strict=False))
            self.looks = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in steps)
            self.evens = nn.ModuleList(nn.GroupNorm(4, b) for _, b in steps)
            self.says = nn.Linear(_ENCODER[-1] * (SIDE >> len(steps)) ** 2, N_SIGNS)
            row = torch.tensor(_BLUR) / sum(_BLUR)
            self.register_buffer("blur", torch.outer(row, row)[None, None], persistent=False)
            self.draws = nn.Linear(N_SIGNS, 3 * SIDE**2)
            nn.init.zeros_(self.draws.weight)
            nn.init.constant_(self.draws.bias, _DARK)

    def signs(self, pictures: Float[Tensor, "n 3 s s"]) -> Float[Tensor, "n 32"]:
        """What renders say of each sign, as logits."""
        x = functional.conv2d(pictures, self.blur.expand(3, 1, -1, -1), padding=len(_BLUR) // 2, groups=3)
        x = 4.0 * x - 2.0
        for look, even in zip(self.looks, self.evens, strict=True):
            x = functional.gelu(even(look(x)))
        return self.says(x.flatten(1))

    def drawn(self, signs: Float[Tensor, "n 32"]) -> Float[Tensor, "n 3 s s"]:
        """The picture of signs; how sure they are hardly matters."""
        return torch.sigmoid(self.draws(torch.tanh(2.0 * signs))).unflatten(1, (3, SIDE, SIDE))


def stretched(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "s s 3"]:
    """A picture of any size as a square of what the network sees; one that is that already stays as it is."""
    return cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def as_seen(picture: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "3 s s"]:
    """A picture of any size as the network takes it."""
    return torch.from_numpy(stretched(picture)).permute(2, 0, 1).float() / 255
