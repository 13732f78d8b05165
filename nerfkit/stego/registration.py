"""How a picture lies on what the scene shows, and what is left between the two.

A host pixel p shows a place X_p, and a camera C sees it at C(X_p): there the picture is what the host is at p, but for
light and blur,

    picture(C(X_p)) = gain * host(p) + offset.

The camera is found by Gauss-Newton steps on that (registration in the manner of Lucas and Kanade 1981, the host's
slopes in place of the picture's), with the numbers of a pinhole alone, from coarse to fine: a host that was rendered
once serves for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from nerfkit.kernels.launch import parallel
from nerfkit.render import Model, background_color
from nerfkit.stego.carriers import LUMA
from nerfkit.stego.landmarks import Matches, features
from nerfkit.stego.pinhole import Projective, slopes
from nerfkit.types import Rendered

_BLURS = (0.7, 1.4, 2.8)
"""Pixels of Gaussian blur; how much of each lies between host and picture is found with the rest."""
_NEAR = 4.0
"""Pixels around one, whose differences say how far it can be trusted."""
_WIDE = 12.0
"""Pixels over which light is taken to be even."""
_CARRIED, _LEAST_SHARE = 2.0, 0.01
"""Pixels of blur which leave what is as wide as a carrier; what each channel adds, as a share of all, to how channels
differ together, at least."""
_FLOOR = 0.004
"""Differences in luminance that a good picture has: rounding, and a camera that is found to a fifth of a pixel."""
_OPAQUE = 0.9
"""Opacity, of a pixel and those around it, from which on it shows a surface."""
_ENDS, _LEAST_CUT = 0.02, 0.01
"""How near to black or white a picture is where it may have been cut off, and the share of its values, of surfaces that
are neither, from which on it was."""
_STEPS = (2.0, 1.0, 1.0)
"""Pixels of blur under which a camera is found, one step after the other."""
_AMONG = 2500
"""Pixels that a step looks at, at least where there are as many."""
_FAR = 2.0
"""Pixels that the last fit moves a picture, at most."""
_LARGER = 1.5
"""How much larger pictures are made in which features are looked for."""
_REACHES, _N_LIKE, _FEW = (48.0, 24.0, 12.0, 6.0, 3.0), 4, 12
"""Pixels of that by which a camera may be off, one look after the other; how many features each may be; and how many
there must be."""
_ROUNDS, _ENOUGH = 3, 16_000
"""Of a fit: how often it is weighed anew, and about how many pixels it takes."""


@dataclass(frozen=True)
class Host:
    """What the unmarked scene shows a camera, in the light of a picture: see `lit`."""

    rgb: Float[Tensor, "h w 3"]
    luma: Float[Tensor, "h w"]
    live: Bool[Tensor, "h w 3"]
    """Channels in which the picture shows what the scene does, which is neither black nor white there."""
    solid: Bool[Tensor, "h w"]
    """Where it shows surfaces, and not their borders."""
    points: Float[Tensor, "h w 3"]
    """Where rays end, scene coordinates."""
    counts: Tensor
    """Samples that each ray reached."""


def host_of(model: Model, camera: Projective, size: tuple[int, int], background: str) -> Host:
    """The scene as a camera sees it, in a picture of ``size`` (width, height)."""
    width, height = size
    rays = camera.rays_of(size)
    behind = None if background == "sky" else background_color(background).expand(len(rays), 3)

    def look(part: Tensor) -> Rendered:
        return model.render(rays[part], None if behind is None else behind[part])

    pieces = parallel(look, list(torch.arange(len(rays)).split(4096)), model.device)
    rgb, opacity, distance, counts = (
        torch.cat([getattr(piece, name) for piece in pieces]).cpu() for name in ("rgb", "opacity", "distance", "counts")
    )
    points = rays.rays_o + rays.rays_d * distance[:, None]
    solid = blurred(opacity.view(height, width), 1.0) > _OPAQUE
    rgb = rgb.view(height, width, 3)
    live = torch.ones_like(rgb, dtype=torch.bool)
    return Host(rgb, rgb @ torch.tensor(LUMA), live, solid, points.view(height, width, 3), counts.view(height, width))


def lit(host: Host, picture: Float[Tensor, "h w 3"], camera: Projective) -> Host:
    """The host in the light of a picture that a camera took.

    What was made brighter ends at white, and what was made darker at black: ``picture = clip(gain * host + offset)``,
    which is a line again of a host that ends where this does, ``clip(host, -offset / gain, (1 - offset) / gain)``. A
    picture of which next to nothing was cut off so leaves it as it is.
    """
    some = _every(host.solid, _AMONG)
    at, shown = camera.project(host.points[some].double().numpy())[0], host.rgb[some].T
    taken = torch.stack([_taken(channel, at) for channel in _channels(picture)])
    inside = (taken > _ENDS) & (taken < 1.0 - _ENDS)
    cut = ~inside & (shown > 2 * _ENDS) & (shown < 1.0 - 2 * _ENDS)
    if float(cut.float().mean()) < _LEAST_CUT or int(inside.sum()) < _FEW:
        return host
    gain, offset = _line(shown[inside], taken[inside])
    low, high = -offset / gain, (1.0 - offset) / gain
    low, high = low if low > _ENDS else -math.inf, high if high < 1.0 - _ENDS else math.inf
    live = (host.rgb > low) & (host.rgb < high)
    rgb = host.rgb.clamp(low, high)
    return replace(host, rgb=rgb, luma=rgb @ torch.tensor(LUMA), live=live)


def _line(x: Float[Tensor, " n"], y: Float[Tensor, " n"]) -> tuple[float, float]:
    """Gain, above a tenth, and offset of y ~ gain * x + offset, robustly and by how widely both are spread: where what
    lies a little aside spoils either, least squares would find too flat a line."""
    weight = torch.ones_like(x)
    for _ in range(_ROUNDS):
        total = weight.sum()
        middle, level = (weight * x).sum() / total, (weight * y).sum() / total
        widths = [(weight * off**2).sum().sqrt() for off in (x - middle, y - level)]
        gain = (widths[1] / widths[0].clamp_min(1e-6)).clamp_min(0.1)
        off = y - level - gain * (x - middle)
        weight = 1.0 / (1.0 + (off / (2.0 * off.abs().mean()).clamp_min(1e-4)) ** 2)
    return float(gain), float(level - gain * middle)


def registered(camera: Projective, seen: Float[Tensor, "h w"], host: Host) -> Projective:
    """The camera that took a picture, from the one nearby that saw the host; this one itself if it fits better."""
    some = _every(host.solid, _AMONG)
    points = host.points[some].double().numpy()
    numbers = camera.numbers()
    for sigma in _STEPS:
        now = Projective.of(numbers)
        shown = blurred(host.luma, sigma)
        across, down = _edges(shown)[:, some].double().numpy()
        moved = slopes(numbers, points)
        columns = torch.from_numpy((moved[:, 0].T * across + moved[:, 1].T * down).astype(np.float32))
        fit = _fit(_taken(blurred(seen, sigma), now.project(points)[0]), shown[some][None], columns)
        step = fit.moves.double().numpy()
        step[[0, 1, 4, 5, 6]] = np.clip(step[[0, 1, 4, 5, 6]], -0.1, 0.1)  # a wrong camera must not fly off
        numbers = numbers + step
    found = Projective.of(numbers)
    return max(camera, found, key=lambda one: likeness(seen, host, one))


def relocated(camera: Projective, seen: Float[Tensor, "h w"], host: Host, eye: Projective) -> Projective | None:
    """The camera that took a picture, from one that may be many pixels off; None where features are too few.

    Those of the picture are looked for among those of the host, which an ``eye`` nearby sees: from there they look
    alike, and none is far from where it was.

    Args:
        camera: in pixels of the picture; up to some thirty of them off.
        eye: the camera of the host, in pixels of the host.
    """
    large = camera.scaled(_LARGER, _LARGER)
    pixels, found = features(_grey(seen))
    at, there = features(_grey(host.luma))
    x, y = (at / _LARGER).astype(np.int64).T
    solid = host.solid[y, x].numpy()
    at, there, x, y = at[solid], there[solid], x[solid], y[solid]
    if min(len(pixels), len(at)) < _FEW:
        return None
    rays = eye.rays(torch.from_numpy(at / _LARGER).float())
    t = ((host.points[y, x] - rays.rays_o) * rays.rays_d).sum(1, keepdim=True)
    places = (rays.rays_o + t * rays.rays_d).double().numpy()
    alike = torch.from_numpy(found) @ torch.from_numpy(there).T
    aside = torch.cdist(torch.from_numpy(pixels).float(), torch.from_numpy(large.project(places)[0]).float())
    alike[aside > 1.5 * _REACHES[0]] = -1.0
    likeness, which = (each.numpy() for each in alike.topk(min(_N_LIKE, len(at)), 1))
    nearer, n = Matches(pixels, places[which], likeness).with_more(large, _REACHES)
    return nearer.scaled(1 / _LARGER, 1 / _LARGER) if n else None


def _grey(values: Float[Tensor, "h w"]) -> UInt8[np.ndarray, "rows columns"]:
    """Of 8 bits, larger: features are looked for in pictures of about 400 pixels."""
    grey = (values.clamp(0, 1) * 255).round().byte().numpy()
    return cv2.resize(grey, None, fx=_LARGER, fy=_LARGER, interpolation=cv2.INTER_CUBIC)


def likeness(seen: Float[Tensor, "h w"], host: Host, camera: Projective, sigma: float = 1.0) -> float:
    """Correlation of a picture with what the scene shows a camera, both blurred; of one colour alone it is none."""
    moved = _taken(blurred(seen, sigma), camera.project(host.points[host.solid].double().numpy())[0])
    return float(torch.corrcoef(torch.stack([moved, blurred(host.luma, sigma)[host.solid]]))[0, 1])


def residual(picture: Float[Tensor, "h w 3"], host: Host, camera: Projective) -> Float[Tensor, "h w 3"]:
    """What the picture shows beyond the host, times how much each pixel and channel counts.

    The picture is moved onto the host, as the camera says and by a little more, which is blurred and scaled in
    brightness, channel by channel, as fits it best.
    """
    solid, smooth = host.solid, blurred(host.luma, 1.0)
    at, depth = camera.project(host.points[solid].double().numpy())
    moves = _moves(solid, torch.from_numpy(depth).float())
    seen = blurred(picture @ torch.tensor(LUMA), 1.0)
    fit = _fit(_taken(seen, at), smooth[solid][None], _columns(smooth, solid, moves))
    shift = (fit.moves.view(2, -1) @ moves).clamp(-_FAR, _FAR)
    at = at + shift.T.double().numpy()
    channels = zip(_channels(picture), _channels(host.rgb), strict=True)
    fits = [_fit(_taken(one, at), _bands(shown)[:, solid], _columns(shown, solid, moves)) for one, shown in channels]
    off = torch.zeros(3, *solid.shape)
    off[:, solid] = torch.stack([fit.off for fit in fits]) * host.live[solid].T
    weighed = zip(fits, _weighed(off, solid), strict=True)
    # The carriers were blurred as well: what they hear of a blurred pattern is its blur once more.
    left = [torch.einsum("k,khw->hw", fit.light, _bands(one)) for fit, one in weighed]
    return torch.stack(left, 2) * solid[..., None]


def _weighed(off: Float[Tensor, "3 h w"], solid: Bool[Tensor, "h w"]) -> Float[Tensor, "3 h w"]:
    """Differences but for what is even over many pixels, weighed by how large and how wide they are.

    Noise differs in each channel for itself, a texture that lies a little aside in all of them, JPEG in colour most and
    there over many pixels. Along the axes of the covariance of what is as wide as a carrier, differences tell nothing
    of each other, so that each is weighed for itself: by its variance around a pixel, times how much more of it than
    of the others is so wide.
    """
    there = solid.float()
    even, near = (blurred(there, sigma).clamp_min(1e-3) for sigma in (_WIDE, _NEAR))
    off = torch.stack([(one - blurred(one, _WIDE) / even) * there for one in off])
    size = (blurred(off.square().sum(0), _NEAR) / near)[solid].sqrt() + _FLOOR
    wide = torch.stack([blurred(one, _CARRIED) for one in off])[:, solid] / size
    covariance = wide @ wide.T
    covariance = covariance / covariance.trace().clamp_min(1e-12) + _LEAST_SHARE * torch.eye(3)
    shares, axes = torch.linalg.eigh(covariance)
    along = torch.einsum("ck,chw->khw", axes, off)
    fine = (along[:, solid] / size).square().mean(1).clamp_min(1e-6)
    wideness = shares / fine * (fine.sum() / shares.sum())
    variances = [3.0 * more * blurred(one**2, _NEAR) / near for one, more in zip(along, wideness, strict=True)]
    return torch.einsum("ck,khw->chw", axes, along / (torch.stack(variances) + _FLOOR**2)) * there


def _channels(values: Float[Tensor, "h w 3"]) -> Sequence[Float[Tensor, "h w"]]:
    return values.permute(2, 0, 1).contiguous().unbind()


def _bands(values: Float[Tensor, "h w"]) -> Float[Tensor, "k h w"]:
    """Values, and what a little blur takes from them, and what the more takes from that: any blur is a sum of these."""
    each = [values, *(blurred(values, sigma) for sigma in _BLURS)]
    return torch.stack([values, *(b - a for a, b in zip(each, each[1:], strict=False))])


def _columns(
    shown: Float[Tensor, "h w"], solid: Bool[Tensor, "h w"], moves: Float[Tensor, "k n"]
) -> Float[Tensor, "2*k n"]:
    """What moves, across and then down, change in what is shown."""
    across, down = _edges(shown)[:, solid]
    return torch.cat([across * moves, down * moves])


def _moves(solid: Bool[Tensor, "h w"], depth: Float[Tensor, " n"]) -> Float[Tensor, "k n"]:
    """Fields, at solid pixels, of which a small move of the camera or a bend of its lens of third order is a sum."""
    height, width = solid.shape
    row, column = solid.nonzero(as_tuple=True)
    x, y = 2.0 * column / max(width - 1, 1) - 1.0, 2.0 * row / max(height - 1, 1) - 1.0
    near = 1.0 / depth.clamp_min(1e-6)
    near = near / near.mean() - 1.0
    return torch.stack([*(x**i * y**j for i in range(4) for j in range(4 - i)), near, near * x, near * y])


@dataclass(frozen=True)
class Fit:
    """How a picture lies on what it should show."""

    off: Float[Tensor, " n"]
    """What is left at each pixel, in the brightness of the host."""
    light: Float[Tensor, " k"]
    """How much of what should be shown is there, in units of the first."""
    moves: Float[Tensor, " m"]
    """How much of each move lies between the two."""


def _fit(seen: Float[Tensor, " n"], shown: Float[Tensor, "k n"], moves: Float[Tensor, "m n"]) -> Fit:
    """seen ~ gains * shown + offset - gain * moves by robust least squares; ``moves`` are slopes times moves."""
    a = torch.cat([shown, torch.ones_like(shown[:1]), moves])
    every = 2 * (a.shape[1] // (2 * _ENOUGH)) + 1  # odd, so as not to take columns of a picture
    some, wanted = a[:, ::every], seen[::every]
    scale = some.square().mean(1).sqrt().clamp_min(1e-9)
    some = some / scale[:, None]
    weight = torch.ones_like(wanted)
    for _ in range(_ROUNDS):
        weighed = some * weight
        normal = (weighed @ some.T).double()
        normal += 1e-5 * normal.diagonal().mean() * torch.eye(len(normal))
        found = torch.linalg.solve(normal, (weighed @ wanted).double()).float()
        off = wanted - found @ some
        size = off.abs().mean()
        weight = 1.0 / (1.0 + (off / (2.0 * size).clamp_min(1e-4)) ** 2)
    found = found / scale
    k = len(shown)
    gain = found[0].clamp_min(0.1)
    return Fit((seen - found @ a) / gain, found[:k] / gain, -found[k + 1 :] / gain)


def _every(solid: Bool[Tensor, "h w"], n: int) -> Bool[Tensor, "h w"]:
    """Of solid pixels those of every few rows and columns, about n of them."""
    step = max(int((float(solid.sum()) / n) ** 0.5), 1)
    some = torch.zeros_like(solid)
    some[::step, ::step] = solid[::step, ::step]
    return some


def _edges(values: Float[Tensor, "h w"]) -> Float[Tensor, "2 h w"]:
    """Slopes by x and y."""
    down, across = torch.gradient(values)
    return torch.stack([across, down])


def _taken(seen: Float[Tensor, "h w"], at: Float[np.ndarray, "n 2"]) -> Float[Tensor, " n"]:
    """A picture at some places of it."""
    n = len(at)
    maps = np.zeros((-(-n // 1024) * 1024, 2), np.float32)  # of a row or column OpenCV allows 32767
    maps[:n] = at - 0.5
    x, y = np.ascontiguousarray(maps.T).reshape(2, -1, 1024)
    taken = cv2.remap(seen.numpy(), x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return torch.from_numpy(taken).reshape(-1)[:n]


def blurred(values: Float[Tensor, "h w"], sigma: float) -> Float[Tensor, "h w"]:
    """Gaussian blur, zeros outside."""
    if not sigma:
        return values
    return torch.from_numpy(cv2.GaussianBlur(values.numpy(), (0, 0), sigma, borderType=cv2.BORDER_CONSTANT))
