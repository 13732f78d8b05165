"""Nanoseconds a sample of every kernel, forward and backward, on ray-coherent samples in a thin shell.

python tools/bench/kernels.py [--device cpu] [--log2-table-size 17]
"""

from __future__ import annotations

import argparse

import torch
from record import record, seconds

from nerfkit.config import FieldConfig
from nerfkit.fields.hash import HashField
from nerfkit.kernels.adam import SparseAdam
from nerfkit.kernels.cells import Cells
from nerfkit.kernels.composite import composite, keep_visible
from nerfkit.kernels.launch import prepare_cpu
from nerfkit.kernels.march import Stepping, sample_positions
from nerfkit.kernels.raycast import cast
from nerfkit.types import Rays, Samples

N_RAYS = 8192
RESOLUTION = 128


def shell_rays(device: torch.device) -> tuple[Rays, Samples, Cells]:
    """Rays from a sphere of cameras, and their samples in cells between radii 0.28 and 0.30 of the cube."""
    generator = torch.Generator().manual_seed(0)
    origin = torch.nn.functional.normalize(torch.randn(N_RAYS, 3, generator=generator), dim=1) * 1.2
    target = (torch.rand(N_RAYS, 3, generator=generator) - 0.5) * 0.5
    rays_d = torch.nn.functional.normalize(target - origin, dim=1)
    rays = Rays(origin + 0.5, rays_d, torch.ones(N_RAYS)).to(device)
    axis = (torch.arange(RESOLUTION) + 0.5) / RESOLUTION - 0.5
    radius = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0)
    values = ((radius > 0.28) & (radius < 0.30)).float().view(1, -1).to(device)
    cells = Cells.bake(values, 0.5, Stepping(1, RESOLUTION, 0.0, 3**0.5 / 384, 3**0.5 / 384))
    jitter = torch.rand(N_RAYS, generator=generator).to(device)
    samples = cells.sample(rays, jitter)
    n = samples.n_owned
    per_sample = seconds(lambda: cells.sample(rays, jitter), device=device.type)
    record("kernel", kernel="march", n_samples=n, ns={k: v / n * 1e9 for k, v in per_sample.items()})
    return rays, samples, cells


def main() -> None:
    """Measure and print one JSON line a kernel."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--log2-table-size", type=int, default=FieldConfig().log2_table_size)
    options = parser.parse_args()
    device = torch.device(options.device)
    prepare_cpu()
    rays, samples, cells = shell_rays(device)
    n = samples.n_owned
    config = FieldConfig(log2_table_size=options.log2_table_size)
    field = HashField(config, device)
    positions = sample_positions(rays, samples)

    def measure(kernel: str, fn: object) -> None:
        timing = seconds(fn, device=device.type)
        record(
            "kernel",
            kernel=kernel,
            n_samples=n,
            device=str(device),
            ns={k: v / n * 1e9 for k, v in timing.items()},
            log2_table_size=options.log2_table_size,
        )

    features = field.grid.forward(positions, field.table, field.dtype)
    measure("hashgrid forward", lambda: field.grid.forward(positions, field.table, field.dtype))
    measure("hashgrid backward", lambda: field.grid.backward(positions, features, field.table))
    adam = SparseAdam(field.table)
    measure("adam", lambda: (field.table.grad.fill_(1e-3), adam.step(1, 0.0)))
    encoded = features.clone().requires_grad_()

    def networks() -> None:
        geo = field.density_network(encoded)
        rgb = field.color_network(torch.cat([geo, geo.detach()], 1)[:, : geo.shape[1] + config.sh_degree**2])
        rgb.sum().backward()

    measure("networks forward and backward", networks)
    with torch.no_grad():
        sigmas = field.density(positions)[0] * 30.0
    rgbs = torch.rand(len(samples), 3, device=device)
    background = torch.rand(len(rays), 3, device=device)
    measure("keep_visible", lambda: keep_visible(samples, sigmas, 1e-3))
    measure("composite forward", lambda: composite(sigmas, rgbs, samples, background))
    leaf = sigmas.clone().requires_grad_()
    measure("composite both", lambda: composite(leaf, rgbs, samples, background)[0].sum().backward())
    if device.type != "cpu":
        return
    jitter = torch.full((len(rays),), 0.5)

    def whole(capacity: int) -> torch.Tensor:
        return cast(field.target(), cells, rays, jitter, background, 0.0, capacity=capacity)[0]

    measure("whole rays forward", lambda: whole(0))
    measure("whole rays both", lambda: whole(2 * n).sum().backward())


if __name__ == "__main__":
    main()
