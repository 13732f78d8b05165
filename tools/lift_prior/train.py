"""Train the prior of `nerfkit lift`: LiftNet, on the pictures of make_views.py.

    PYTHONPATH=tools python -m lift_prior.train OUT VIEWS --minutes 60 [--cells 16] [--rate 1e-3] [--cool]
        [--look lite0.pth]

Training goes on from what is in OUT (`last.safetensors` with moments and averages, `log.jsonl`); few cells a side
first, 32 at the end, is how few processors come furthest. ``--cool`` lets the rate fall to nothing over these minutes.
What is right pixel by pixel is a blur of all that may be: with ``--look``, views are also to look right to a network
that has seen many pictures (lite0.py says whence). What is shipped, the moving average in half precision, is written to
OUT/prior.safetensors after each look at the validation set.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lift_prior.frames import Picture, framed, unmoved
from lift_prior.lite0 import Lite0
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import binary_cross_entropy, cosine_similarity, interpolate

from nerfkit.aside import file_aside
from nerfkit.lift.bench import psnr
from nerfkit.lift.framing import Similarity
from nerfkit.lift.photo import LiftError
from nerfkit.lift.prior import CELLS, COARSEST, LiftNet
from nerfkit.lift.volume import Volume, orbiting, pixel_places, pixel_rays

_BATCH, _TARGETS, _RAYS, _SAMPLES = 8, 5, 256, 40
"""Objects of a step, views of each (the first is the picture itself), rays of each, samples of each."""
_WARM, _AVERAGE, _CLIP = 200, 0.99, 1.0
_VALIDATED = 300.0
"""Seconds between looks at the validation set."""
_SHARES = {"train": 0.6, "drawn": 0.4}
_WHOLE, _WHOLE_SAMPLES, _WHOLE_WEIGHT = 4, 48, 0.3
"""Objects of a step of which a whole view is looked at, samples of its rays, what that counts beside pixels."""
_IN_FRONT, _FRAMED = 0.5, 0.7
"""Share of pictures that are chosen among those from in front, and of those that are cut out as `nerfkit lift` does."""


@dataclass(frozen=True)
class Views:
    """A set that `make_views.py` made."""

    rgba: np.ndarray
    depth: np.ndarray
    normal: np.ndarray
    cameras: np.ndarray
    n: int

    @classmethod
    def open(cls, folder: Path) -> Views:
        """What is there of it."""
        arrays = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("rgba", "depth", "normal", "cameras")
        }
        return cls(**arrays, n=len(json.loads((folder / "names.json").read_text())))


@dataclass
class Example:
    """A picture, and what rays of other views of the same object should see; y is up, the picture's azimuth is 0."""

    rgba: Tensor
    """(4, s, s) straight, [0, 1]."""
    camera: Tensor
    """(3,) elevation, field of view, distance."""
    depth: Tensor
    """(s, s) z, 0 where nothing is."""
    normals: Tensor
    """(3, s, s) in the camera."""
    rays_o: Tensor
    rays_d: Tensor
    rgb: Tensor
    """(n, 3) straight."""
    opacity: Tensor
    distance: Tensor
    """(n,) 0 where unknown."""
    other: Tensor
    """(3, 4) camera-to-world of another view."""
    through: Tensor
    """() its field of view."""
    view: Tensor
    """(4, s / 2, s / 2) of it, colour times alpha."""


def example(views: Views, chance: np.random.Generator) -> Example:
    """One of an object by chance, mirrored and painted over by chance."""
    i = int(chance.integers(views.n))
    which = chosen(views.cameras[i][:, 0], chance)
    poses = torch.from_numpy(views.cameras[i][which].astype(np.float32))
    rgba = torch.from_numpy(views.rgba[i][which].astype(np.float32)) / 255
    depth = torch.from_numpy(views.depth[i][which].astype(np.float32))
    normal = torch.from_numpy(views.normal[i, which[0]].astype(np.float32)) / 127
    azimuth = poses[:, 0]
    normal = normal @ orbiting(azimuth[:1], poses[:1, 1], poses[:1, 3])[0, :, :3]
    azimuth = azimuth - azimuth[0]
    if chance.random() < 0.5:
        rgba, depth, normal, azimuth = (
            rgba.flip(2),
            depth.flip(2),
            normal.flip(1) * torch.tensor([-1.0, 1, 1]),
            -azimuth,
        )
    rgba = torch.cat([_repainted(rgba[..., :3], chance), rgba[..., 3:]], -1)
    c2w, fov = orbiting(azimuth, poses[:, 1], poses[:, 3]), poses[:, 2]
    rows, columns = zip(*(_pixels(one[..., 3], chance) for one in rgba), strict=True)
    rows, columns = torch.stack(rows), torch.stack(columns)
    size = rgba.shape[1]
    xy = (torch.stack([columns, rows], -1) + 0.5) / size
    rays_o, rays_d = pixel_rays(c2w, fov, xy)
    view = torch.arange(len(rgba))[:, None]
    found = rgba[view, rows, columns]
    z = depth[view, rows, columns]
    z = torch.where(found[..., 3] > 0.99, z, 0.0)
    cos = (rays_d * c2w[:, None, :, 2]).sum(-1)
    picture, world = _cut_out(Picture(rgba[0], depth[0], normal, c2w[0], float(fov[0])), chance)
    parts = [world.points(rays_o), world.directions(rays_d), found[..., :3], found[..., 3], world.scale * z / cos]
    shown = torch.cat([rgba[1, ..., :3] * rgba[1, ..., 3:], rgba[1, ..., 3:]], -1).permute(2, 0, 1)
    small = interpolate(shown[None], scale_factor=0.5, mode="area")[0]
    return Example(
        picture.rgba.permute(2, 0, 1),
        picture.camera,
        picture.depth,
        picture.normals.permute(2, 0, 1),
        *(part.flatten(0, 1) for part in parts),
        world.cameras(c2w[1]),
        fov[1],
        small,
    )


def _cut_out(picture: Picture, chance: np.random.Generator) -> tuple[Picture, Similarity]:
    """Most pictures as `nerfkit lift` cuts them out; the others as they are, in their true frame."""
    try:
        return framed(picture) if chance.random() < _FRAMED else (picture, unmoved())
    except LiftError:  # too few pixels to be cut out
        return picture, unmoved()


def chosen(azimuth: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """A picture, often from in front, as people take them, and views evenly around it where there are any."""
    order = chance.permutation(len(azimuth))
    if chance.random() < _IN_FRONT:
        order = order[np.argsort(np.cos(azimuth[order]) < np.cos(np.radians(45)), kind="stable")]
    first, rest = order[0], order[1:]
    around = ((azimuth[rest] - azimuth[first]) % (2 * np.pi) * (_TARGETS - 1) / (2 * np.pi)).astype(int)
    _, one_of_each = np.unique(around, return_index=True)
    spare = np.setdiff1d(np.arange(len(rest)), one_of_each)
    return np.concatenate([[first], rest[np.concatenate([one_of_each, spare])[: _TARGETS - 1]]])


def _repainted(rgb: Tensor, chance: np.random.Generator) -> Tensor:
    """All views of an object in other colours."""
    if chance.random() < 0.4:
        rgb = rgb[..., torch.from_numpy(chance.permutation(3))]
    gain = torch.from_numpy(chance.uniform(0.75, 1.2, 3).astype(np.float32))
    return (rgb.clamp(min=1e-4) ** float(chance.uniform(0.75, 1.3)) * gain).clamp(0, 1)


def _pixels(alpha: Tensor, chance: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Rows and columns, half of them about the object."""
    size, n = alpha.shape[0], _RAYS // 2
    rows, columns = chance.integers(size, size=_RAYS), chance.integers(size, size=_RAYS)
    inside = torch.nonzero(alpha > 0)
    if len(inside):
        low, high = (inside.min(0).values - 3).clamp(min=0), (inside.max(0).values + 4).clamp(max=size)
        rows[:n] = chance.integers(int(low[0]), int(high[0]), size=n)
        columns[:n] = chance.integers(int(low[1]), int(high[1]), size=n)
    return torch.from_numpy(rows), torch.from_numpy(columns)


def loss_of(
    net: LiftNet, batch: list[Example], n_cells: int, device: torch.device, eye: Lite0 | None = None
) -> tuple[Tensor, dict[str, float]]:
    """What is made small, and its parts."""

    def stacked(name: str) -> Tensor:
        return torch.stack([getattr(one, name) for one in batch]).to(device)

    rgba, camera = stacked("rgba"), stacked("camera")
    with torch.autocast(device.type, torch.bfloat16, enabled=learns_in_bf16(device, n_cells)):
        lifted = net(rgba, camera, n_cells)
    seen = lifted.volume.look(stacked("rays_o"), stacked("rays_d"), _SAMPLES, -1.0)
    opacity, distance = stacked("opacity"), stacked("distance")
    behind = torch.rand(len(batch), 1, 3, device=device)
    want = stacked("rgb") * opacity[..., None] + behind * (1 - opacity[..., None])
    error = seen.rgb + behind * (1 - seen.opacity[..., None]) - want
    known = (distance > 0).float()
    far = (seen.depth - distance * seen.opacity).abs() * known
    half = interpolate(stacked("depth")[:, None], scale_factor=0.5, mode="nearest")[:, 0]
    there = (half > 0).float()
    flat = (lifted.depth - (half - camera[:, 2, None, None])).abs() * there
    facing = interpolate(stacked("normals"), scale_factor=0.5, mode="nearest")
    turned = (1 - cosine_similarity(lifted.normals, facing, dim=1)) * there
    shown = seen.opacity.clamp(1e-4, 1 - 1e-4)
    parts = {
        "colour": error.square().mean() + 0.1 * error.abs().mean(),
        "opacity": 0.5 * (seen.opacity - opacity).square().mean() + 0.03 * binary_cross_entropy(shown, opacity),
        "distance": 0.1 * far.sum() / known.sum().clamp(min=1),
        "depth": 0.2 * flat.sum() / there.sum().clamp(min=1),
        "normals": 0.02 * turned.sum() / there.sum().clamp(min=1),
        "camera": 0.1 * (lifted.camera - camera[:, :2]).abs().mean(),
    }
    if eye is not None:
        parts["look"] = _WHOLE_WEIGHT * unlike_views(
            eye, lifted.volume, stacked("other"), stacked("through"), stacked("view")
        )
    total = torch.stack(list(parts.values())).sum()
    return total, {name: float(value.detach()) for name, value in parts.items()} | {
        "mse": float(error.detach().square().mean())
    }


@cache
def learns_in_bf16(device: torch.device, n_cells: int) -> bool:
    """Whether gradients of bfloat16 are to be trusted here, in the coarsest cells of the network: on processors with
    AVX512_BF16 and without AMX, torch 2.13 makes noise or infinities of those of 2x2x2 cells."""
    n = n_cells // COARSEST
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        conv, x = torch.nn.Conv3d(64, 64, 3, padding=1).to(device), torch.randn(2, 64, n, n, n).to(device)
    found = []
    for enabled in (False, True):
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            y = conv(x)
        found += torch.autograd.grad(y.float().square().sum(), conv.weight)
    return bool((found[1] - found[0]).norm() < 0.1 * found[0].norm())


def unlike_views(eye: Lite0, volumes: Volume, c2w: Tensor, fov: Tensor, views: Tensor) -> Tensor:
    """How unlike the truth whole views of the first few volumes look, before grounds of any colour."""
    n, size = min(_WHOLE, len(c2w)), views.shape[-1]
    some, places = Volume(volumes.sigmas[:n], volumes.rgbs[:n]), pixel_places(size).to(c2w)
    seen = some.look(*pixel_rays(c2w[:n], fov[:n], places.expand(n, -1, -1)), _WHOLE_SAMPLES, -1.0)
    behind = torch.rand(n, 3, 1, 1, device=views.device)
    mine = torch.cat([seen.rgb, seen.opacity[..., None]], -1).transpose(1, 2).unflatten(2, (size, size))
    a, b = (x[:, :3] + behind * (1 - x[:, 3:]) for x in (mine, views[:n]))
    return eye.unlike(a, b)


@torch.no_grad()
def scores(net: LiftNet, views: Views, n_cells: int, device: torch.device, n_targets: int = 4) -> dict[str, float]:
    """Of the validation set, over white: novel views from all around (the first third that make_views.py makes are from
    in front, like the picture) at half of their size, beside copies of the picture. First of pictures as they are, of
    which the frame is told; then of pictures cut out as `nerfkit lift` does, from cameras that went along."""
    size = views.rgba.shape[2] // 2
    places = pixel_places(size).to(device)
    found: dict[str, list[float]] = {}

    def note(**figures: float) -> None:
        for name, value in figures.items():
            found.setdefault(name, []).append(value)

    for i in range(views.n):
        poses = torch.from_numpy(views.cameras[i].astype(np.float32))
        rgba = torch.from_numpy(views.rgba[i].astype(np.float32)) / 255
        c2w, fov = orbiting(poses[:, 0] - poses[0, 0], poses[:, 1], poses[:, 3]), poses[:, 2]
        white = rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]
        small = interpolate(torch.cat([white, rgba[..., 3:]], -1).permute(0, 3, 1, 2), scale_factor=0.5, mode="area")
        small = small.permute(0, 2, 3, 1).flatten(1, 2).to(device)
        flat = torch.zeros(rgba.shape[1:3])
        plain = Picture(rgba[0], flat, flat[..., None].expand(-1, -1, 3), c2w[0], float(fov[0]))
        for name, (picture, world) in (("", (plain, unmoved())), ("framed_", framed(plain))):
            camera = picture.camera[None].to(device)
            with torch.autocast(device.type, torch.bfloat16):
                lifted = net(picture.rgba.permute(2, 0, 1)[None].to(device), camera, n_cells)
            for v in np.linspace(len(poses) // 3, len(poses) - 1, n_targets).astype(int).tolist():
                rays = pixel_rays(world.cameras(c2w[v : v + 1]).to(device), fov[v : v + 1].to(device), places[None])
                seen = lifted.volume.look(*rays, 64)
                white = seen.rgb[0] + 1 - seen.opacity[0][:, None]
                at, iou = (
                    psnr(white.cpu().numpy(), small[v, :, :3].cpu().numpy()),
                    _iou(seen.opacity[0], small[v, :, 3]),
                )
                note(**{f"{name}psnr": at, f"{name}iou": iou})
                if not name:
                    note(copy=psnr(small[0, :, :3].cpu().numpy(), small[v, :, :3].cpu().numpy()))
                    note(copy_iou=_iou(small[0, :, 3], small[v, :, 3]))
            off = (lifted.camera - camera[:, :2])[0].abs().rad2deg().tolist()
            note(**{f"{name}elevation": off[0], f"{name}fov": off[1]})
    medians = ("elevation", "fov")
    return {name: float(np.median(v) if name.endswith(medians) else np.mean(v)) for name, v in found.items()}


def _iou(a: Tensor, b: Tensor) -> float:
    a, b = a > 0.5, b > 0.5
    return float((a & b).sum() / (a | b).sum().clamp(min=1))


class Training:
    """LiftNet, its optimiser, and the moving average that is shipped."""

    def __init__(self, out: Path, device: torch.device):
        self.out, self.net, self.step = out, LiftNet().to(device), 0
        self.average = {name: value.detach().clone() for name, value in self.net.state_dict().items()}
        self.optimizer = torch.optim.AdamW(self.net.parameters(), 1e-3, betas=(0.9, 0.98), weight_decay=0.01)
        if (out / "last.safetensors").exists():
            self._read(load_file(out / "last.safetensors"))

    def _read(self, tensors: dict[str, Tensor]) -> None:
        def part(of: str) -> dict[str, Tensor]:
            return {name[len(of) + 1 :]: value for name, value in tensors.items() if name.startswith(of + ".")}

        self.net.load_state_dict(part("net"))
        for name, value in part("average").items():
            self.average[name].copy_(value)
        self.step = int(tensors["step"])
        first, second = part("first"), part("second")
        for name, parameter in self.net.named_parameters():
            moments = {"exp_avg": first[name].clone(), "exp_avg_sq": second[name].clone()}
            self.optimizer.state[parameter] = {"step": torch.tensor(float(self.step)), **moments}

    def save(self) -> None:
        """To go on from."""
        tensors = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        for name, parameter in self.net.named_parameters():
            state = self.optimizer.state[parameter]
            tensors |= {f"first.{name}": state["exp_avg"], f"second.{name}": state["exp_avg_sq"]}
        tensors["step"] = torch.tensor(self.step)
        self._write("last.safetensors", tensors)

    def ship(self, about: dict[str, str]) -> None:
        """The average, in half precision."""
        self._write("prior.safetensors", {name: value.half() for name, value in self.average.items()}, about)

    def _write(self, name: str, tensors: dict[str, Tensor], about: dict[str, str] | None = None) -> None:
        with file_aside(self.out / name) as path:
            save_file({key: value.contiguous() for key, value in tensors.items()}, path, metadata=about)

    def learn(self, loss: Tensor, rate: float) -> None:
        """A step down."""
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), _CLIP)
        self.optimizer.param_groups[0]["lr"] = rate * min(1.0, (self.step + 1) / _WARM)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        keep = min(_AVERAGE, self.step / (self.step + 10))
        with torch.no_grad():
            for name, value in self.net.state_dict().items():
                self.average[name].lerp_(value, 1 - keep)

    def averaged(self) -> LiftNet:
        """The network that is shipped."""
        net = LiftNet().to(next(self.net.parameters()).device)
        net.load_state_dict(self.average)
        return net.eval()


def main() -> None:
    """Train for so many minutes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("views", type=Path)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--cells", type=int, default=CELLS)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--cool", action="store_true")
    parser.add_argument("--look", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    device = torch.device(args.device)
    sets = {name: Views.open(args.views / name) for name in (*_SHARES, "validation")}
    training = Training(args.out, device)
    eye = None if args.look is None else Lite0.open(args.look).to(device)
    chance = np.random.default_rng(training.step)
    torch.manual_seed(training.step)
    started = looked = time.monotonic()
    sums: dict[str, float] = {}
    n = 0
    while (share := (time.monotonic() - started) / (60 * args.minutes)) < 1:
        names = chance.choice(list(_SHARES), size=_BATCH, p=list(_SHARES.values()))
        batch = [example(sets[name], chance) for name in names]
        loss, parts = loss_of(training.net, batch, args.cells, device, eye)
        training.learn(loss, args.rate * (1 - share if args.cool else 1.0))
        n += 1
        for name, value in parts.items():
            sums[name] = sums.get(name, 0.0) + value
        if time.monotonic() - looked > _VALIDATED:
            _report(training, sets["validation"], args, {name: value / n for name, value in sums.items()})
            sums, n, looked = {}, 0, time.monotonic()
    _report(training, sets["validation"], args, {name: value / max(n, 1) for name, value in sums.items()})


def _report(training: Training, validation: Views, args: argparse.Namespace, parts: dict[str, Any]) -> None:
    """Keep what was learnt, and say how good it is."""
    training.save()
    found = scores(training.averaged(), validation, args.cells, next(training.net.parameters()).device)
    row = {
        "time": time.strftime("%FT%T"),
        "step": training.step,
        "cells": args.cells,
        "rate": args.rate,
        "cool": args.cool,
        "looked": args.look is not None,
    }
    row |= {name: round(value, 5) for name, value in {**parts, **found}.items()}
    with (args.out / "log.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)
    training.ship({name: str(value) for name, value in row.items()})


if __name__ == "__main__":
    main()
