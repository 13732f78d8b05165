"""What of a picture is the object: its matte.

Pixels along the border are ground, as far as they agree with each other; what differs from them is, in the first guess,
object. GrabCut (Rother et al. 2004) mends the guess, a guided filter (He et al. 2013) lays its edge where the picture's
is. A network that mattes better can be given as an ONNX file.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from nerfkit.lift.onnx import PictureNet
from nerfkit.lift.photo import LiftError

_COARSE = 320
"""Pixels a side, at most, at which pixels are told apart."""
_BORDER = 0.03
_BAR, _BLACK, _BLACK_GROUND = 12, 16, 0.3
"""By how much pixels of a black bar differ, and how dark they are, of 255; share of black pixels around a picture on a
black ground."""
_ROUNDS = 6
_LEAST, _MOST = 0.004, 0.97
"""Share of the picture that an object can have."""


def matte(rgb: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"]:
    """Alpha of the object in an opaque picture. Raises LiftError where there is none to be told from its background."""
    top, left, bottom, right = _within_bars(rgb)
    whole, rgb = rgb.shape[:2], rgb[top:bottom, left:right]
    height, width = rgb.shape[:2]
    scale = min(_COARSE / max(height, width), 1.0)
    small = cv2.resize(rgb, (max(round(width * scale), 8), max(round(height * scale), 8)), interpolation=cv2.INTER_AREA)
    with ThreadPoolExecutor() as both:
        guesses = list(both.map(lambda guess: _cut(small, guess), (_differs(small), _central(small.shape[:2]))))
    found = max(guesses, key=lambda guess: _stands_out(small, guess))
    alpha = cv2.resize(found.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    radius = max(round(1.5 / scale), 1)
    alpha = _guided(rgb.astype(np.float32).mean(-1) / 255, alpha, radius)
    placed = np.zeros(whole, np.uint8)
    placed[top:bottom, left:right] = np.rint(255 * np.clip(1.25 * (alpha - 0.5) + 0.5, 0, 1))
    return check_matte(placed)


def _within_bars(rgb: UInt8[np.ndarray, "h w 3"]) -> tuple[int, int, int, int]:
    """What lies within black bars, as films and squared pictures have them: top, left, bottom, right. Where what is
    left begins black, too, the ground is black, and there are no bars."""
    bounds = []
    for lines in (rgb, rgb.transpose(1, 0, 2)):
        plain = (np.ptp(lines, axis=1).max(-1) <= _BAR) & (lines.mean((1, 2)) < _BLACK)
        inside = np.flatnonzero(~plain)
        bounds.append((int(inside[0]), int(inside[-1]) + 1) if len(inside) >= 32 else (0, len(lines)))
    (top, bottom), (left, right) = bounds
    inner = rgb[top:bottom, left:right]
    if (inner[_border(inner.shape[:2])].mean(-1) < _BLACK).mean() > _BLACK_GROUND:
        return 0, 0, *rgb.shape[:2]
    return top, left, bottom, right


def _cut(small: UInt8[np.ndarray, "h w 3"], guess: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """What GrabCut makes of a guess; the border is ground, where it was not guessed to be object."""
    labels = np.where(guess, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[_border(labels.shape) & ~guess] = cv2.GC_BGD
    if not _LEAST < guess.mean() < _MOST:
        return np.zeros_like(guess)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    cv2.grabCut(small[..., ::-1].copy(), labels, None, *models, _ROUNDS, cv2.GC_INIT_WITH_MASK)
    return _whole((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD))


def _border(shape: tuple[int, ...]) -> Bool[np.ndarray, "h w"]:
    """Pixels along the border."""
    edge = max(round(_BORDER * min(shape)), 1)
    ground = np.ones(shape, bool)
    ground[edge:-edge, edge:-edge] = False
    return ground


def _central(shape: tuple[int, ...]) -> Bool[np.ndarray, "h w"]:
    """An ellipse that photographers would centre their object in."""
    y, x = (np.linspace(-1, 1, n) for n in shape)
    return (y[:, None] / 0.8) ** 2 + (x / 0.7) ** 2 < 1


def _stands_out(small: UInt8[np.ndarray, "h w 3"], found: Bool[np.ndarray, "h w"]) -> float:
    """How much like an object: its middle is in the middle, its outline where colours change, and it leaves the border
    free."""
    if not _LEAST < found.mean() < _MOST:
        return -1.0
    lab = cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_RGB2LAB), (0, 0), 1).astype(np.float32)
    change = np.sqrt(sum(cv2.Sobel(lab, cv2.CV_32F, *d, ksize=3) ** 2 for d in ((1, 0), (0, 1))).sum(-1))
    outline = cv2.morphologyEx(found.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)).astype(bool)
    sharp = float(change[outline].mean()) / float(change.mean() + 1e-6)
    filled = float((found & _central(found.shape)).sum()) / float(found.sum())
    solid = float(found.sum()) / cv2.contourArea(cv2.convexHull(np.argwhere(found)[:, ::-1].astype(np.int32)))
    free = 1.0 - float((found & _border(found.shape)).sum()) / float(_border(found.shape).sum())
    return min(sharp, 4.0) * filled * min(solid, 1.0) ** 0.5 * free


def check_matte(alpha: UInt8[np.ndarray, "h w"], name: str = "the matte") -> UInt8[np.ndarray, "h w"]:
    """The matte, if it shows an object. Raises LiftError where it is empty, or the whole picture."""
    share = float((alpha > 127).mean())
    if share < _LEAST:
        raise LiftError(f"{name}: no object stands out from its background; give --mask, white where the object is")
    if share > _MOST:
        raise LiftError(f"{name}: all of the picture is object; give one with background around it, or --mask")
    return alpha


def _differs(small: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    """What is of another colour than all that is common along the border."""
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32)
    border = lab[_border(lab.shape[:2])]
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 0.5)
    cv2.setRNGSeed(0)
    _, which, middles = cv2.kmeans(border, 4, None, criteria, 3, cv2.KMEANS_PP_CENTERS)
    counts = np.bincount(which.ravel(), minlength=4)
    common = middles[counts > 0.05 * len(border)]
    off = np.linalg.norm(lab[:, :, None] - common, axis=-1).min(-1)
    inside = np.linalg.norm(border[:, None] - common, axis=-1).min(-1)
    return off > max(np.quantile(inside, 0.95) * 1.5, 12.0)


def _whole(found: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The largest piece and those that are not much smaller, without pinholes."""
    found = cv2.morphologyEx(found.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    n, pieces, stats, _ = cv2.connectedComponentsWithStats(found, connectivity=8)
    if n < 2:
        return found.astype(bool)
    areas = stats[:, cv2.CC_STAT_AREA]
    keep = [i for i in range(1, n) if areas[i] > 0.05 * areas[1:].max()]
    found = np.isin(pieces, keep)
    n, holes, stats, _ = cv2.connectedComponentsWithStats((~found).astype(np.uint8), connectivity=4)
    small = [i for i in range(1, n) if stats[i, cv2.CC_STAT_AREA] < 0.002 * found.size]
    return found | np.isin(holes, small)


def _guided(
    guide: Float[np.ndarray, "h w"], alpha: Float[np.ndarray, "h w"], radius: int, smooth: float = 1e-3
) -> Float[np.ndarray, "h w"]:
    """Alpha as, within each window, the best line through what the guide shows (He et al. 2013, equations 5 to 8)."""

    def mean(x: np.ndarray) -> np.ndarray:
        return cv2.blur(x, (2 * radius + 1, 2 * radius + 1))

    m_guide, m_alpha = mean(guide), mean(alpha)
    slope = (mean(guide * alpha) - m_guide * m_alpha) / (mean(guide * guide) - m_guide**2 + smooth)
    return np.clip(mean(slope) * guide + mean(m_alpha - slope * m_guide), 0, 1)


def onnx_matte(rgb: UInt8[np.ndarray, "h w 3"], path: Path) -> UInt8[np.ndarray, "h w"]:
    """The matte of a network in a file (`PictureNet`), stretched to all from 0 to 255. Raises LiftError."""
    found = PictureNet("--matte", path, _COARSE)(rgb / 255)
    if found.ndim != 2:
        raise LiftError(f"--matte {path}: gives {found.ndim} dimensions, expected a picture")
    found = (found - found.min()) / max(float(found.max() - found.min()), 1e-6)
    alpha = cv2.resize(found.astype(np.float32), (rgb.shape[1], rgb.shape[0]), interpolation=cv2.INTER_LINEAR)
    return check_matte(np.rint(255 * np.clip(alpha, 0, 1)).astype(np.uint8), str(path))
