"""A pinhole by its matrix and by its ten numbers, and the one that fits matches best.

The numbers are log focal length, log ratio of a pixel's sides, principal point, rotation vector and translation.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nerfkit.types import Rays

_STIFF = 1e6
"""Price of pixels that are not square: a hundredth is as dear as a hundred matches being off by a pixel."""


@dataclass(frozen=True)
class Projective:
    """A camera given by its matrix: pixels (x, y) = (P X)[:2] / (P X)[2], X homogeneous, in scene coordinates."""

    matrix: Float[np.ndarray, "3 4"]
    """Its left 3x3 part has a positive determinant and its third row gives depths that are positive before it."""

    def project(self, points: Float[np.ndarray, "n 3"]) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, " n"]]:
        """Pixels of points, and their depths up to a positive factor."""
        seen = points @ self.matrix[:, :3].T + self.matrix[:, 3]
        depth = seen[:, 2]
        return seen[:, :2] / np.where(np.abs(depth) < 1e-12, 1e-12, depth)[:, None], depth

    def rays(self, pixels: Float[Tensor, "n 2"]) -> Rays:
        """Rays through pixels, scene coordinates."""
        inverse = np.linalg.inv(self.matrix[:, :3])
        eye = torch.from_numpy(-inverse @ self.matrix[:, 3]).float()
        ends = torch.cat([pixels.double(), torch.ones(len(pixels), 1)], 1) @ torch.from_numpy(inverse).double().T
        directions = torch.nn.functional.normalize(ends, dim=1).float()
        forward = torch.nn.functional.normalize(torch.from_numpy(self.matrix[2, :3].copy()), dim=0).float()
        return Rays(eye.expand(len(pixels), 3).contiguous(), directions, directions @ forward)

    def rays_of(self, size: tuple[int, int]) -> Rays:
        """Rays through all pixels of a picture of ``size`` (width, height), row after row."""
        y, x = torch.meshgrid(torch.arange(size[1]) + 0.5, torch.arange(size[0]) + 0.5, indexing="ij")
        return self.rays(torch.stack([x, y], -1).reshape(-1, 2))

    def scaled(self, x: float, y: float) -> Projective:
        """The camera of the picture resized by these factors."""
        return Projective(np.diag([x, y, 1.0]) @ self.matrix)

    @classmethod
    def of(cls, numbers: Float[np.ndarray, " 10"]) -> Projective:
        """The pinhole K [R | t] of ten numbers."""
        return cls(_inner(numbers) @ np.concatenate([cv2.Rodrigues(numbers[4:7])[0], numbers[7:, None]], 1))

    def numbers(self) -> Float[np.ndarray, " 10"]:
        """The inverse of `of`, of the nearest matrix that is a pinhole's: what is skewed is made straight."""
        matrix = self.matrix / np.linalg.norm(self.matrix[2, :3])
        a, b, c = matrix[:, :3]
        cx, cy = a @ c, b @ c
        x, y = a - cx * c, b - cy * c
        fx, fy = np.linalg.norm(x), np.linalg.norm(y)
        u, _, v = np.linalg.svd(np.stack([x / fx, y / fy, c]))
        turn = u @ np.diag([1.0, 1.0, np.linalg.det(u @ v)]) @ v
        t = np.linalg.solve(np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]), matrix[:, 3])
        return np.concatenate([[np.log(fx), np.log(fy / fx), cx, cy], cv2.Rodrigues(turn)[0][:, 0], t])


def slopes(numbers: Float[np.ndarray, " 10"], points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 2 10"]:
    """How fast pixels of points move as each number of a pinhole does."""
    turn, by_turn = cv2.Rodrigues(numbers[4:7])
    outer, inner = np.concatenate([turn, numbers[7:, None]], 1), _inner(numbers)
    at, depth = Projective(inner @ outer).project(points)
    x = np.concatenate([points, np.ones_like(points[:, :1])], 1) / np.where(depth == 0.0, 1e-12, depth)[:, None]
    by_number = np.zeros((10, 3, 4))
    by_number[0, :2] = inner[[0, 1], [0, 1], None] * outer[:2]
    by_number[1, 1] = inner[1, 1] * outer[1]
    by_number[2, 0] = by_number[3, 1] = outer[2]
    by_number[4:7, :, :3] = inner @ by_turn.reshape(3, 3, 3)
    by_number[7:, :, 3] = inner.T
    moved = np.einsum("nj,kij->nik", x, by_number)
    return moved[:, :2] - at[:, :, None] * moved[:, 2:]


def _inner(numbers: Float[np.ndarray, " 10"]) -> Float[np.ndarray, "3 3"]:
    """K of the ten numbers."""
    focal, ratio, cx, cy = numbers[:4]
    return np.array([[np.exp(focal), 0.0, cx], [0.0, np.exp(focal + ratio), cy], [0.0, 0.0, 1.0]])


def fitted(camera: Projective, points: Float[np.ndarray, "n 3"], pixels: Float[np.ndarray, "n 2"]) -> Projective:
    """The pinhole for which matches are least off, from a camera nearby; those that are far off count little.

    Gauss-Newton steps in focal length, ratio of a pixel's sides, principal point, rotation and place; the ratio costs
    something, as few points on a plane would leave it free.
    """
    numbers = camera.numbers()
    for _ in range(8):
        off = pixels - Projective.of(numbers).project(points)[0]
        weight = 1.0 / (1.0 + (off**2).sum(1))  # Cauchy's, of a pixel
        slope = slopes(numbers, points)
        weighed = (slope * weight[:, None, None]).reshape(-1, 10)
        normal, wanted = weighed.T @ slope.reshape(-1, 10), weighed.T @ off.reshape(-1)
        normal[1, 1] += _STIFF
        wanted[1] -= _STIFF * numbers[1]
        scale = np.sqrt(np.diag(normal)) + 1e-12
        step = np.linalg.solve(normal / np.outer(scale, scale) + 1e-9 * np.eye(10), wanted / scale) / scale
        step[[0, 1, 4, 5, 6]] = np.clip(step[[0, 1, 4, 5, 6]], -0.3, 0.3)  # a wrong camera must not fly off
        numbers = numbers + step
        if (np.abs(step) * scale).max() < 1e-4 * np.sqrt(len(points)):
            break
    return Projective.of(numbers)
