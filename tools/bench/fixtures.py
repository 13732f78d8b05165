"""Four small scenes given by formulas, whose truth is known without noise, to measure what pruning and bytes do.

    python tools/bench/fixtures.py FOLDER [--views 24] [--noise 0.05] [--size 100]

Each is a density and a colour at every place, rendered by adding up 256 steps along each ray before white:

- ``solid``: a box and a ball with a woven texture;
- ``lattice``: thin bars, most of the space between them empty;
- ``glossy``: balls whose highlights move with who looks;
- ``fog``: clouds through which one sees, where leaving out empty space cannot help.

Training views carry Gaussian noise; eight held-out views do not.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import torch
from torch import Tensor

from nerfkit.cameras import Cameras
from nerfkit.poses import look_at, opencv_to_opengl

N_STEPS = 256
DISTANCE, REACH, ANGLE_X = 3.2, 1.3, 0.8
N_HELD_OUT = 8
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    # A table that is large for pictures so small, and steps that a thousand of take ten seconds on one core.
    "fixture": {
        "field": {"log2_table_size": 14, "finest_resolution": 128},
        "sampler": {"resolution": 64, "n_steps": 192},
        "train": {"samples_per_step": 2048},
        "data": {"background": "white"},
    },
    "default": {},
}
"""Settings of fields by name, as they stand in a config file."""
FLOOR = "noise.json"
"""File with the mean square of the noise as it is in the training views: what is cut off at black and white is less."""

Look = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Places (n, 3) in [-1, 1]^3 and directions -> densities (n,) and colours (n, 3)."""


def _inside(distance: Tensor) -> Tensor:
    """Density of a thing from the signed distance to its surface."""
    return 120.0 * torch.sigmoid(-distance / 0.006)


def solid(x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """A box under a ball."""
    box = ((x - torch.tensor([0.0, 0.0, -0.45])).abs() - torch.tensor([0.6, 0.6, 0.3])).amax(1)
    ball = (x - torch.tensor([0.1, -0.1, 0.3])).norm(dim=1) - 0.42
    weave = 0.5 + 0.5 * torch.sin(14 * x[:, :1] + 9 * x[:, 2:]) * torch.sin(12 * x[:, 1:2])
    warm, cold = torch.tensor([0.9, 0.45, 0.15]), torch.tensor([0.1, 0.3, 0.55])
    stripes = 0.5 + 0.5 * torch.sin(25 * x[:, 2:] + 6 * x[:, :1])
    color = torch.where((ball < box)[:, None], stripes * warm + (1 - stripes) * 0.9, weave * cold + (1 - weave) * 0.7)
    return _inside(torch.minimum(box, ball)), color


def lattice(x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Bars along three axes, painted by where they are."""
    off = (torch.remainder(x + 0.2, 0.4) - 0.2).abs()
    bars = torch.stack([torch.maximum(off[:, a], off[:, b]) for a, b in ((0, 1), (1, 2), (0, 2))], 1).amin(1) - 0.025
    cut = x.abs().amax(1) - 0.75
    return _inside(torch.maximum(bars, cut)), 0.5 + 0.45 * torch.sin(5 * x + torch.tensor([0.0, 2.0, 4.0]))


def glossy(x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Three balls under two lamps, by Phong's formula."""
    centers = torch.tensor([[0.4, 0.0, -0.2], [-0.35, 0.3, 0.0], [-0.1, -0.45, 0.25]])
    radii = torch.tensor([0.42, 0.36, 0.3])
    to = x[:, None] - centers
    distance, which = (to.norm(dim=2) - radii).min(1)
    normal = torch.nn.functional.normalize(to[torch.arange(len(x)), which], dim=1)
    base = torch.tensor([[0.7, 0.1, 0.1], [0.1, 0.5, 0.2], [0.15, 0.2, 0.6]])[which]
    mirror = d - 2 * (d * normal).sum(1, keepdim=True) * normal
    color = 0.25 * base
    for lamp in ([0.6, -0.5, 0.62], [-0.7, 0.4, 0.59]):
        to_lamp = torch.tensor(lamp)
        color = color + 0.55 * base * (normal @ to_lamp).clamp(min=0)[:, None]
        color = color + 0.6 * (mirror @ to_lamp).clamp(min=0)[:, None] ** 24
    return _inside(distance), color.clamp(0, 1)


def fog(x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Clouds with soft borders."""
    density, color = torch.zeros(len(x)), torch.zeros(len(x), 3)
    clouds = (
        ((0.3, 0.2, 0.1), 0.3, (0.9, 0.3, 0.2)),
        ((-0.35, -0.1, 0.2), 0.25, (0.2, 0.5, 0.9)),
        ((0.0, -0.3, -0.35), 0.35, (0.3, 0.7, 0.3)),
        ((-0.2, 0.4, -0.3), 0.2, (0.8, 0.7, 0.2)),
    )
    for center, width, paint in clouds:
        own = 5.0 * torch.exp(-((x - torch.tensor(center)).norm(dim=1) ** 2) / (2 * width**2))
        own = own * (0.6 + 0.4 * torch.sin(9 * x).prod(1))
        density, color = density + own, color + own[:, None] * torch.tensor(paint)
    return density, color / density.clamp(min=1e-6)[:, None]


FIXTURES: dict[str, Look] = {"solid": solid, "lattice": lattice, "glossy": glossy, "fog": fog}


def picture(look: Look, cameras: Cameras, number: int) -> Tensor:
    """What a camera sees, (h, w, 3) in [0, 1], before white."""
    pixels = cameras.pixel_grid(number)
    flat = pixels.flatten(0, 1)
    rays = cameras.rays(torch.full((len(flat),), number), flat)
    near, step = DISTANCE - REACH, 2 * REACH / N_STEPS
    rgb, trans = torch.zeros(len(flat), 3), torch.ones(len(flat))
    for k in range(N_STEPS):
        x = rays.rays_o + (near + (k + 0.5) * step) * rays.rays_d
        density, color = look(x, rays.rays_d)
        alpha = 1 - torch.exp(-density * step)
        rgb, trans = rgb + (trans * alpha)[:, None] * color, trans * (1 - alpha)
    return (rgb + trans[:, None]).clamp(0, 1).view(*pixels.shape[:2], 3)


def cameras_about(n: int, size: int, shift: float) -> Cameras:
    """Cameras on a sphere, the more even the more there are."""
    k = torch.arange(n) + 0.5
    height, turn = 0.9 - 1.3 * k / n, k * math.pi * (3 - math.sqrt(5)) + shift
    level = (1 - height**2).sqrt()
    eye = DISTANCE * torch.stack([level * turn.cos(), level * turn.sin(), height], 1)
    c2w = look_at(eye, torch.zeros(n, 3), torch.tensor([0.0, 0.0, 1.0]))
    return Cameras.pinhole(c2w, size / 2 / math.tan(ANGLE_X / 2), size, size)


def write(folder: Path, name: str, n_views: int, noise: float, size: int = 100) -> Path:
    """Write a fixture as a Blender-synthetic scene; one that is there already stays. Returns its folder."""
    root = folder / f"{name}-{n_views}-{noise:g}-{size}"
    if (root / FLOOR).exists():
        return root
    generator, off = torch.Generator().manual_seed(0), []
    for split, n, sigma, shift in (("train", n_views, noise, 0.0), ("test", N_HELD_OUT, 0.0, 0.7)):
        (root / split).mkdir(parents=True, exist_ok=True)
        cameras, frames = cameras_about(n, size, shift), []
        for i in range(n):
            clean = picture(FIXTURES[name], cameras, i)
            seen = (clean + sigma * torch.randn(clean.shape, generator=generator)).clamp(0, 1)
            off.append(float((seen - clean).square().mean()))
            imageio.imwrite(root / split / f"r_{i}.png", (seen * 255).round().byte().numpy())
            pose = opencv_to_opengl(cameras.c2w[i : i + 1])[0].tolist()
            frames.append({"file_path": f"./{split}/r_{i}", "transform_matrix": [*pose, [0.0, 0.0, 0.0, 1.0]]})
        text = json.dumps({"camera_angle_x": ANGLE_X, "frames": frames})
        (root / f"transforms_{split}.json").write_text(text)
    (root / FLOOR).write_text(json.dumps({"floor": sum(off) / n_views}))
    return root


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--views", type=int, default=24)
    parser.add_argument("--noise", type=float, default=0.05)
    parser.add_argument("--size", type=int, default=100)
    arguments = parser.parse_args()
    for fixture in FIXTURES:
        print(write(arguments.folder, fixture, arguments.views, arguments.noise, arguments.size))
