"""Rays on triangles: the first that each ray meets, by Warp's tree of boxes."""

from __future__ import annotations

from typing import no_type_check

import torch
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor

from nerfkit.kernels.launch import array, launch


@wp.kernel
@no_type_check
def _first_hits(
    first: int,
    mesh: wp.uint64,
    rays_o: wp.array(dtype=wp.vec3f),
    rays_d: wp.array(dtype=wp.vec3f),
    faces: wp.array(dtype=wp.int32),
    weights: wp.array(dtype=wp.vec3f),
    t: wp.array(dtype=wp.float32),
):
    i = first + wp.tid()
    hit = wp.mesh_query_ray(mesh, rays_o[i], rays_d[i], 1.0e6)
    if hit.result:
        faces[i] = hit.face
        weights[i] = wp.vec3f(hit.u, hit.v, 1.0 - hit.u - hit.v)
        t[i] = hit.t
    else:
        faces[i] = -1
        weights[i] = wp.vec3f(0.0, 0.0, 0.0)
        t[i] = 0.0


class Solid:
    """Triangles that rays can meet."""

    def __init__(self, vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]):
        """On the device of the vertices."""
        self.device = vertices.device
        corners, order = vertices.float().contiguous(), faces.to(self.device, torch.int32).flatten().contiguous()
        self._kept = corners, order
        points = wp.from_torch(corners, dtype=wp.vec3f)
        self._mesh = wp.Mesh(points, wp.from_torch(order, dtype=wp.int32))

    def first_hits(
        self, rays_o: Float[Tensor, "n 3"], rays_d: Float[Tensor, "n 3"]
    ) -> tuple[Int[Tensor, " n"], Float[Tensor, "n 3"], Float[Tensor, " n"]]:
        """The triangle that each ray meets first (-1: none), what share of its corners lies there, and how far
        along."""
        n = len(rays_o)
        faces = torch.empty(n, dtype=torch.int32, device=self.device)
        weights, t = torch.empty(n, 3, device=self.device), torch.empty(n, device=self.device)
        rays = [array(rays.to(self.device).float().contiguous(), wp.vec3f) for rays in (rays_o, rays_d)]
        launch(_first_hits, n, [self._mesh.id, *rays, faces, array(weights, wp.vec3f), t], self.device)
        return faces, weights, t
