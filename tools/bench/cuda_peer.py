"""A training step by tinycudann and nerfacc alone, as their documentation puts them together: what ours is beside.

Encoding, networks and their gradients are tinycudann's, marching and compositing nerfacc's, the optimiser torch's; the
scene's pixels, the sizes of tables and networks, and the number of samples a step are those of our own training.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nerfkit.fields.tcnn import grid_config, load, network_config
from nerfkit.kernels import acc
from nerfkit.train.training import Training


class Peer:
    """A field of the same sizes, an occupancy grid, and the step of both, on the pixels of one of our trainings."""

    def __init__(self, training: Training):
        """Raises TcnnError where tinycudann does not load, and whatever nerfacc raises where it cannot build."""
        tcnn, nerfacc = load(), acc.load()
        model, config = training.model, training.model.config
        field, sampler = config.field, model.sampler
        self.training, self.nerfacc, self.stepping = training, nerfacc, sampler.stepping
        density = network_config(field.width, field.density_layers, "field.density_layers")
        color = network_config(field.color_width or field.width, field.color_layers, "field.color_layers")
        grid = grid_config(model.field.grid.layout, field)
        n_geo = field.geo_features
        self.density = tcnn.NetworkWithInputEncoding(3, n_geo, grid, density)
        self.direction = tcnn.Encoding(3, {"otype": "SphericalHarmonics", "degree": field.sh_degree})
        self.color = tcnn.Network(self.direction.n_output_dims + n_geo, 3, color)
        levels = self.stepping.n_levels
        half = 0.5**levels
        box = [0.5 - half] * 3 + [0.5 + half] * 3
        self.estimator = nerfacc.OccGridEstimator(box, self.stepping.resolution, levels).to(model.device)
        parameters = [*self.density.parameters(), *self.color.parameters()]
        self.optimizer = torch.optim.Adam(parameters, 1e-2, betas=(0.9, 0.99), eps=1e-15, fused=True)
        self.n_rays, self.n_steps = training.n_rays, 0

    def sigmas(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Densities and what the colour network takes."""
        features = self.density(positions.clamp(0.0, 1.0))
        return torch.exp(features[:, 0].float().clamp(max=15.0)), features

    def step(self) -> int:
        """One step; returns its samples, for which the host waits."""
        training, steps = self.training, self.stepping
        pixels, model, generator = training.pixels, training.model, training.generator
        picked = pixels.draw(self.n_rays, generator, 0.5)
        background = pixels.background(self.n_rays, generator)
        rays, truth = pixels.rays(picked, model.frame), pixels.colors(picked, background)

        def places(t_starts: Tensor, t_ends: Tensor, owners: Tensor) -> Tensor:
            middles = 0.5 * (t_starts + t_ends)[:, None]
            return rays.rays_o[owners] + middles * rays.rays_d[owners]

        def density(t_starts: Tensor, t_ends: Tensor, owners: Tensor) -> Tensor:
            return self.sigmas(places(t_starts, t_ends, owners))[0]

        def both(t_starts: Tensor, t_ends: Tensor, owners: Tensor) -> tuple[Tensor, Tensor]:
            sigmas, features = self.sigmas(places(t_starts, t_ends, owners))
            seen = self.direction((rays.rays_d[owners] + 1.0) / 2.0)
            return torch.sigmoid(self.color(torch.cat([seen, features], 1)).float()), sigmas

        def occupied(positions: Tensor) -> Tensor:
            return self.sigmas(positions)[0][:, None] * steps.min_step

        self.estimator.update_every_n_steps(self.n_steps, occupied, occ_thre=1e-2)
        how: dict[str, Any] = {"render_step_size": steps.min_step, "cone_angle": steps.cone_angle, "stratified": True}
        how |= {"near_plane": steps.near_plane, "early_stop_eps": model.config.train.early_stop}
        owners, t_starts, t_ends = self.estimator.sampling(rays.rays_o, rays.rays_d, sigma_fn=density, **how)
        rgb, *_ = self.nerfacc.rendering(
            t_starts, t_ends, owners, n_rays=self.n_rays, rgb_sigma_fn=both, render_bkgd=background
        )
        n_samples = len(t_starts)
        if n_samples:
            loss = torch.nn.functional.smooth_l1_loss(rgb, truth)
            self.optimizer.zero_grad()
            (1024.0 * loss).backward()  # in half precision it would be nothing; Adam does not mind
            self.optimizer.step()
        most = model.config.train.samples_per_step
        self.n_rays = min(max(64, round(self.n_rays * most / max(n_samples, 1))), most)
        self.n_steps += 1
        return n_samples
