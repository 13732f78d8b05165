"""What the prior makes of a picture: whence it was taken, and a volume.

Nothing that trains or renders fields is imported here: a first preview does not wait for it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from nerfkit.fields.mlp import network_dtype
from nerfkit.lift.framing import Framing
from nerfkit.lift.photo import LiftError
from nerfkit.lift.prior import Lifted, LiftNet

WEIGHTS = Path(__file__).with_name("prior.safetensors")
CONTRAST, THRESHOLD = 1.5, 0.3
"""What the prior's fog is made of, chosen on objects that neither it nor the bench has: left as it is, views are a
tenth of a decibel nearer to the truth, and to networks that see them less like it."""


def load_prior(path: Path = WEIGHTS, device: str = "cpu") -> LiftNet:
    """The network of a file of weights. Raises LiftError where it is none, or one of another shape."""
    try:
        tensors = safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise LiftError(f"{path}: there are no such weights; tools/lift_prior/train.py makes some") from None
    except (safetensors.SafetensorError, OSError) as error:
        raise LiftError(f"{path}: holds no weights that can be read ({error})") from None
    net = LiftNet()
    try:
        net.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except RuntimeError:
        raise LiftError(f"{path}: holds weights of another network, perhaps of another version of nerfkit") from None
    return net.to(device).eval()


@torch.no_grad()
def understood(
    net: LiftNet, framing: Framing, contrast: float = CONTRAST, threshold: float = THRESHOLD, mirrored: bool = True
) -> Lifted:
    """What the prior makes of a picture, and of its mirror image: their mean is a little nearer to the truth.

    ``contrast`` and ``threshold`` are those of `Volume.decided`; 1 and 0.5 leave the fog as it is.
    """
    device = next(net.parameters()).device
    seen, camera = framing.seen().to(device), framing.camera.to(device)
    with _fast(device):
        lifted = net(seen, camera)
        other = net(seen.flip(3), camera) if mirrored else None
    volume = lifted.volume if other is None else lifted.volume.agreed(other.volume.mirrored())
    return replace(lifted, volume=volume.decided(contrast, threshold))


def _fast(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=network_dtype(device.type) is not torch.float32)


@torch.no_grad()
def guessed(net: LiftNet, framing: Framing, elevation: float | None, fov: float | None) -> Framing:
    """The picture at the elevation and through the angle that are given, or else guessed, in degrees."""
    device = next(net.parameters()).device
    with _fast(device):
        guess = net.whence(framing.seen().to(device))[0].rad2deg().tolist()
    return framing.looking(
        min(max(guess[0], -25.0), 85.0) if elevation is None else elevation,
        min(max(guess[1], 20.0), 70.0) if fov is None else fov,
    )
