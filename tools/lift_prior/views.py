"""Pictures of meshes, each ray followed to what it meets first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from lift_prior.mesh import Mesh

from nerfkit.kernels.meshes import Solid


@dataclass(frozen=True)
class Light:
    """Where light comes from, and how much of it from everywhere."""

    towards: tuple[float, float, float]
    ambient: float = 0.62
    """Share of light that comes from everywhere."""
    sky: float = 0.15
    """Share of that which comes from above more than from below."""


class Stage:
    """A mesh to be looked at."""

    def __init__(self, mesh: Mesh):
        sizes = np.array([texture.shape[:2] for texture in mesh.textures])
        starts = np.cumsum([0, *sizes.prod(1)])[:-1]
        self.pixels = np.concatenate([texture.reshape(-1, 3) for texture in mesh.textures]).astype(np.float32) / 255
        self.sizes, self.starts = sizes[mesh.texture], starts[mesh.texture]
        self.uvs = mesh.uvs.astype(np.float32)
        a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
        normals = np.cross(b - a, c - a)
        self.normals = (normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)).astype(np.float32)
        self.solid = Solid(torch.from_numpy(mesh.vertices).float(), torch.from_numpy(mesh.faces))

    def look(
        self, c2w: np.ndarray, fov: float, size: int, light: Light, fine: int = 2
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What a camera sees, (size, size, ...): straight RGBA in [0, 1], z-depth (0 where nothing is), world normals.

        ``fov`` in radians; ``fine`` x ``fine`` rays a pixel.
        """
        n = size * fine
        at = ((np.arange(n, dtype=np.float32) + 0.5) / n * 2 - 1) * np.float32(np.tan(fov / 2))
        local = np.stack([*np.meshgrid(at, at), np.ones((n, n), np.float32)], -1).reshape(-1, 3)
        cos = 1 / np.linalg.norm(local, axis=1)
        rays_d = ((local * cos[:, None]) @ c2w[:, :3].T).astype(np.float32)
        rays_o = np.broadcast_to(c2w[:, 3].astype(np.float32), rays_d.shape)
        found = self.solid.first_hits(torch.from_numpy(rays_o.copy()), torch.from_numpy(rays_d))
        face, weights, t = (x.numpy() for x in found)
        met = np.flatnonzero(face >= 0)
        hit = face[met]
        normal = self.normals[hit]
        normal = normal * -np.sign((normal * rays_d[met]).sum(1, keepdims=True))
        towards = np.array(light.towards) / np.linalg.norm(light.towards)
        shine = light.ambient * (1 - light.sky + light.sky * normal[:, 1])
        shine = shine + (1 - light.ambient) * 1.6 * np.maximum(normal @ towards, 0)
        values = np.zeros((n * n, 8), np.float32)
        values[met, :3] = self._paint(hit, weights[met]) * shine[:, None]
        values[met, 3] = 1
        values[met, 4] = t[met] * cos[met]
        values[met, 5:] = normal
        sums = values.reshape(size, fine, size, fine, 8).sum((1, 3))
        seen = np.maximum(sums[..., 3:4], 1)
        rgb = np.clip(sums[..., :3] / seen, 0, 1)
        return np.concatenate([rgb, sums[..., 3:4] / fine**2], -1), sums[..., 4] / seen[..., 0], sums[..., 5:] / seen

    def _paint(self, face: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The texture's colour at places of triangles."""
        uv = (self.uvs[face] * weights[..., None]).sum(1)
        uv = uv - np.floor(uv)
        height, width = self.sizes[face].T
        column = np.minimum((uv[:, 0] * width).astype(int), width - 1)
        row = np.minimum(((1 - uv[:, 1]) * height).astype(int), height - 1)
        return self.pixels[self.starts[face] + row * width + column]
