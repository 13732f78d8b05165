"""Picture quality by a named protocol.

A number without its protocol means little: background, rounding, window and network all move it. ``nerfkit-v1`` is,
in the manner of nerfbaselines' "nerf" protocol:

- the field has seen the train split only; each view of the evaluated split counts once;
- both pictures are sRGB in [0, 1], blended over the stated background, clipped, rounded to 8 bit;
- PSNR is -10 log10 of the mean squared error over pixels and channels, at most 100 dB (equal pictures have no finite
  one);
- SSIM is that of Wang et al. (2004) in the form of dm-pix and tf.image: a Gaussian window of 11 x 11 with sigma 1.5,
  k1 = 0.01, k2 = 0.03, range 1, each channel alone, the mean over windows that lie wholly inside. It is computed in
  double precision, where variances need no clamping;
- GMSD is the gradient magnitude similarity deviation of Xue et al. (2014): a perceptual distance that needs no weights,
  0 for equal pictures;
- ``high_pass`` is the PSNR of what a Gaussian blur of sigma 1 takes away from each picture: of its fine detail alone;
- ``aligned`` holds PSNR, SSIM and ``high_pass`` once more, the true picture laid onto the render first by the flow
  between them (`nerfkit.flow`), over the pixels for which it reaches: by the plain scores a blurred picture beats a
  sharp one that is off by half a pixel. ``offset`` is how far, in pixels, root mean square. What a flow can bend is
  forgiven, so aligned scores stand beside the plain ones, never in their place;
- where a mask says that pixels are not to be used, both pictures are black there; PSNR counts the other pixels, SSIM
  the windows about them, LPIPS everything (``masked`` in the record says that there were masks);
- LPIPS is version 0.1 of Zhang et al. (2018) with VGG-16, ``null`` and a reason where its weights are absent;
- each is computed per picture, then averaged.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from nerfkit.config import Config
from nerfkit.flow import LEAST, flow_between, reached, warped
from nerfkit.perceptual import load_lpips
from nerfkit.provenance import commit, config_hash, now, versions

Picture = Float[np.ndarray, "h w 3"] | Float[Tensor, "h w 3"]
"""RGB in [0, 1]; those of one call have one size."""
AnyPicture = Float[np.ndarray, "_ _ 3"] | Float[Tensor, "_ _ 3"]
"""The same, each of its own size."""
Mask = Bool[np.ndarray, "h w"]
"""True = the pixel counts."""


@dataclass(frozen=True)
class Protocol:
    """Everything that decides a number besides the pictures themselves."""

    name: str
    bits: int = 8
    """Both pictures are rounded to this depth."""
    psnr_cap: float = 100.0
    """dB given to equal pictures."""
    ssim_window: int = 11
    ssim_sigma: float = 1.5
    ssim_k1: float = 0.01
    ssim_k2: float = 0.03
    high_pass_sigma: float = 1.0
    """Pixels; of the blur that leaves detail out."""
    flow: str = "DIS, medium, to single pixels"
    lpips_net: Literal["alex", "vgg"] = "vgg"
    color_space: str = "sRGB"
    trained_on: str = "train split only"
    mean: str = "per image, then mean"


@dataclass(frozen=True)
class Setting:
    """What was compared."""

    background: str
    """Colour behind transparent pixels, of both pictures; ``sky`` where there are none: the render has its own."""
    split: str
    """Which views: train, val or test."""
    split_rule: str
    """How the views were chosen, for a reader: "every 8th view", "the scene's own"."""
    masked: bool = False
    """Whether masks left pixels out."""


@dataclass(frozen=True)
class Cost:
    """What the picture quality was paid with."""

    train_seconds: float
    """Wall clock from the first step to the last, without loading and evaluation."""
    n_steps: int
    rays_per_second: float
    train_samples_per_ray: float
    """Of the training's rays; those of pictures end later."""
    peak_memory_bytes: int
    model_bytes: int
    """On disk, of what rendering needs."""
    device: str


def to_bytes(picture: Picture, bits: int = 8) -> UInt8[np.ndarray, "h w 3"]:
    """Clip to [0, 1] and round to 2**bits - 1 levels (bits <= 8). NaN becomes 0."""
    values = picture.detach().cpu().double().numpy() if isinstance(picture, Tensor) else picture.astype(np.float64)
    return np.rint(np.clip(np.nan_to_num(values, nan=0.0), 0, 1) * (2**bits - 1)).astype(np.uint8)


def psnr(prediction: Picture, truth: Picture, mask: Mask | None = None) -> float:
    """Peak signal-to-noise ratio in dB, -10 log10(mean((prediction - truth)**2)); infinite for equal pictures.

    The mean is over the pixels where ``mask`` is true.

    >>> round(psnr(np.full((4, 4, 3), 0.5), np.full((4, 4, 3), 0.6)), 6)
    20.0
    """
    squared = (_double(prediction) - _double(truth)) ** 2
    error = float(np.mean(squared if mask is None else squared[mask]))
    return math.inf if error == 0 else -10 * math.log10(error)


def ssim(prediction: Picture, truth: Picture, protocol: Protocol | None = None, mask: Mask | None = None) -> float:
    """Structural similarity, in [-1, 1]; 1 for equal pictures.

    With window means mu, variances v and covariance c, the mean over windows and channels of
    (2 mu_a mu_b + k1^2) (2 c + k2^2) / ((mu_a^2 + mu_b^2 + k1^2) (v_a + v_b + k2^2)); with a mask, over the windows
    whose middle it marks, or over all if there is none.

    Raises ValueError where a picture is smaller than the window.
    """
    rule = protocol or PROTOCOLS["nerfkit-v1"]
    a, b = _double(prediction), _double(truth)
    if min(a.shape[:2]) < rule.ssim_window:
        raise ValueError(f"SSIM needs pictures of at least {rule.ssim_window} pixels a side, found {a.shape[:2]}")
    offsets = np.arange(rule.ssim_window) - (rule.ssim_window - 1) / 2
    kernel = np.exp(-0.5 * (offsets / rule.ssim_sigma) ** 2)
    kernel /= kernel.sum()
    margin = rule.ssim_window // 2

    def window_mean(x: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h2 w2 3"]:
        return cv2.sepFilter2D(x, -1, kernel, kernel)[margin : -margin or None, margin : -margin or None]

    mean_a, mean_b = window_mean(a), window_mean(b)
    variance = window_mean(a * a + b * b) - mean_a**2 - mean_b**2
    covariance = window_mean(a * b) - mean_a * mean_b
    c1, c2 = rule.ssim_k1**2, rule.ssim_k2**2
    top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    every = top / ((mean_a**2 + mean_b**2 + c1) * (variance + c2))
    middle = None if mask is None else mask[margin : -margin or None, margin : -margin or None]
    return float(np.mean(every if middle is None or not middle.any() else every[middle]))


def high_pass(picture: Picture, sigma: float = 1.0) -> Float[np.ndarray, "h w 3"]:
    """What a Gaussian blur (sigma in pixels, borders mirrored) takes away from a picture: its fine detail."""
    values = _double(picture)
    return values - cv2.GaussianBlur(values, (0, 0), sigma)


def aligned_scores(
    prediction: Picture, truth: Picture, protocol: Protocol | None = None, mask: Mask | None = None
) -> dict[str, float] | None:
    """PSNR, SSIM and ``high_pass`` after the true picture is laid onto the other; ``offset`` in pixels.

    None where the pictures are too small for a flow, or it leaves no pixel.
    """
    rule = protocol or PROTOCOLS["nerfkit-v1"]
    if min(prediction.shape[:2]) < LEAST:
        return None
    a, b = _double(prediction), _double(truth)
    flow = flow_between(to_bytes(a), to_bytes(b))
    counts = np.ones(a.shape[:2], bool) if mask is None else mask
    counts = counts & reached(counts, flow)
    if not counts.any():
        return None
    b = np.clip(warped(b, flow), 0.0, 1.0).astype(np.float64)
    detail = psnr(high_pass(a, rule.high_pass_sigma), high_pass(b, rule.high_pass_sigma), counts)
    return {
        "psnr": min(psnr(a, b, counts), rule.psnr_cap),
        "ssim": ssim(a, b, rule, counts),
        "high_pass": min(detail, rule.psnr_cap),
        "offset": float(np.sqrt((flow[counts] ** 2).sum(-1).mean())),
    }


def gmsd(prediction: Picture, truth: Picture) -> float:
    """Gradient magnitude similarity deviation (Xue et al. 2014): 0 for equal pictures, larger is worse.

    The standard deviation of (2 m_a m_b + c) / (m_a^2 + m_b^2 + c), where m is the length of the gradient (Prewitt) of
    the brightness in [0, 255], halved by 2 x 2 means, and c = 170. What the eye notices is not the mean distortion of
    edges but how unevenly it is spread.

    Raises ValueError where a picture is smaller than 6 pixels a side.
    """
    if min(prediction.shape[:2]) < 6:
        raise ValueError(f"GMSD needs pictures of at least 6 pixels a side, found {tuple(prediction.shape[:2])}")
    lengths = []
    for picture in (prediction, truth):
        grey = 255 * _double(picture) @ np.array([0.299, 0.587, 0.114])
        small = cv2.blur(grey, (2, 2), anchor=(0, 0))[:-1:2, :-1:2]
        across = np.array([[1, 0, -1]] * 3) / 3
        gradients = [cv2.filter2D(small, -1, kernel)[1:-1, 1:-1] for kernel in (across, across.T)]
        lengths.append(np.hypot(*gradients))
    a, b = lengths
    return float(np.std((2 * a * b + 170) / (a * a + b * b + 170)))


def render_pairs(
    render_fn: Callable[[int], AnyPicture], views: Iterable[tuple[int, str, AnyPicture]]
) -> Iterator[tuple[str, AnyPicture, AnyPicture]]:
    """Render each view (index, name, truth) when its turn comes: yields (name, prediction, truth)."""
    for index, name, truth in views:
        yield name, render_fn(index), truth


def score_images(
    pairs: Iterable[tuple[str, AnyPicture, AnyPicture]],
    protocol: Protocol | None = None,
    lpips_weights: Path | None = None,
    save_to: Path | None = None,
    masks: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Score pictures, one at a time.

    Args:
        pairs: (name, prediction, truth), RGB over the same background.
        protocol: ``nerfkit-v1`` where None.
        lpips_weights: file of the trunk's weights; None looks in torch's cache.
        save_to: folder that gets each prediction, as it was scored, as a PNG.
        masks: which pixels count (h, w), by name; a picture without one counts whole, one whose mask leaves nothing
            is left out.

    Returns ``psnr, ssim, gmsd, high_pass, aligned, lpips, lpips_reason, n_images, per_image``; means over pictures,
    ``aligned`` None where one has none. Raises ValueError where two pictures differ in size, or there
    are none.
    """
    rule = protocol or PROTOCOLS["nerfkit-v1"]
    metric, reason = load_lpips(rule.lpips_net, lpips_weights)
    top = 2**rule.bits - 1
    per_image: list[dict[str, Any]] = []
    for name, prediction, truth in pairs:
        if prediction.shape != truth.shape:
            raise ValueError(f"{name}: the render is {tuple(prediction.shape)}, the picture {tuple(truth.shape)}")
        rounded = to_bytes(prediction, rule.bits)
        a, b = rounded / top, to_bytes(truth, rule.bits) / top
        mask = (masks or {}).get(name)
        if mask is not None:
            if not mask.any():
                continue
            a, b = a * mask[..., None], b * mask[..., None]
        record = {
            "name": name,
            "psnr": min(psnr(a, b, mask), rule.psnr_cap),
            "ssim": ssim(a, b, rule, mask),
            "gmsd": gmsd(a, b),
            "high_pass": min(psnr(*(high_pass(x, rule.high_pass_sigma) for x in (a, b)), mask), rule.psnr_cap),
            "aligned": aligned_scores(a, b, rule, mask),
        }
        if metric is not None and min(a.shape[:2]) < 32:
            metric, reason = None, f"{name} is smaller than the 32 pixels that LPIPS needs"
        if metric is not None:
            record["lpips"] = metric(a, b)
        per_image.append(record)
        if save_to is not None:
            file = save_to / Path(name).with_suffix(".png")
            file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(file), np.rint(a[..., ::-1] * 255).astype(np.uint8))
    if not per_image:
        raise ValueError("there is no picture to score: the split is empty")
    means = {key: fmean(record[key] for record in per_image) for key in ("psnr", "ssim", "gmsd", "high_pass")}
    laid = [record["aligned"] for record in per_image]
    aligned = {key: fmean(one[key] for one in laid) for key in laid[0]} if all(laid) else None
    lpips = fmean(record["lpips"] for record in per_image) if metric is not None else None
    means |= {"aligned": aligned, "lpips": lpips, "lpips_reason": reason}
    return {**means, "n_images": len(per_image), "per_image": per_image}


def metrics_record(
    scores: dict[str, Any], setting: Setting, cost: Cost, config: Config, protocol: Protocol | None = None
) -> dict[str, Any]:
    """The content of ``metrics.json``: `score_images`'s answer with all that it takes to compare it to another."""
    rule = protocol or PROTOCOLS["nerfkit-v1"]
    head = {key: value for key, value in scores.items() if key != "per_image"}
    return {
        "protocol": rule.name,
        **head,
        **dataclasses.asdict(cost),
        **dataclasses.asdict(setting),
        "rules": dataclasses.asdict(rule),
        "versions": versions(),
        "commit": commit(),
        "config_hash": config_hash(config),
        "seed": config.train.seed,
        "time": now(),
        "per_image": scores["per_image"],
    }


def peak_memory_bytes() -> int:
    """Most memory in use so far: allocated on the GPU where one was used, else resident in this process.

    0 where the system does not tell.
    """
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    try:
        import resource  # Windows has none
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _double(picture: Picture) -> Float[np.ndarray, "h w 3"]:
    if isinstance(picture, Tensor):
        return picture.detach().cpu().double().numpy()
    return np.ascontiguousarray(picture, np.float64)


PROTOCOLS = {"nerfkit-v1": Protocol("nerfkit-v1")}
