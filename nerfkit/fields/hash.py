"""The hash field: a multiresolution table, a density and a colour network (Mueller et al. 2022, section 5.4)."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nerfkit.config import FieldConfig
from nerfkit.fields.bias import begin_sparse
from nerfkit.fields.conv import DeferredHead, SampleHead
from nerfkit.fields.mlp import MLP, network_dtype
from nerfkit.fields.tcnn import Tcnn
from nerfkit.kernels.contraction import contract, half_of
from nerfkit.kernels.hashgrid import GridLayout, HashGrid, grid_layout
from nerfkit.kernels.raycast import Networks, Target
from nerfkit.kernels.shade import join_directions, spherical_harmonics

_MAX_LOG_DENSITY = 15.0
"""The exponential's gradient is cut off here, so that one bad step cannot end a training."""


class _TruncatedExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        sigmas = features[:, 0].float().clamp(max=_MAX_LOG_DENSITY).exp()
        ctx.save_for_backward(sigmas)
        ctx.like = features
        return sigmas

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        out = torch.zeros_like(ctx.like)
        out[:, 0] = gradient * ctx.saved_tensors[0]
        return out


def layout_of(config: FieldConfig, n_cubes: int) -> GridLayout:
    """Sizes of the table of a field in nested cubes (see `HashField`)."""
    finest = config.finest_resolution * (min(n_cubes, 2) if config.contracted else 2 ** (n_cubes - 1))
    return grid_layout(config.n_levels, config.n_features, config.log2_table_size, config.base_resolution, finest)


class HashField(nn.Module):
    """Density per model unit and colour at positions in the unit cube.

    ``sigma = exp(g_0)`` with g = density_network(encode(x)), and
    ``rgb = sigmoid(color_network([g, SH(direction)]))``; `behind` is the colour of the sky. With a ``head`` the colour
    network has further outputs, which rays gather for it; with ``neighbours`` it asks the rays about one as well, if
    they come in patches.
    """

    def __init__(self, config: FieldConfig, device: torch.device, seed: int = 0, n_cubes: int = 1):
        """``n_cubes`` is the number of nested cubes, each twice as wide as the one in it, of which all is the last."""
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        layout = layout_of(config, n_cubes)
        self.config = config
        self.dtype = network_dtype(device.type)
        self.grid = HashGrid(layout, device, half_of(n_cubes) if config.contracted else 0.0)
        table = (torch.rand(layout.n_entries, layout.n_features, generator=generator) * 2.0 - 1.0) * 1e-4
        self.table = nn.Parameter(table)
        n_encoded = layout.n_levels * layout.n_features
        n_geo = config.geo_features
        self.density_network = MLP(n_encoded, config.width, config.density_layers, n_geo, generator)
        n_more = config.head_features if config.head == "deferred" else 0
        n_seen, color_width = n_geo + config.sh_degree**2, config.color_width or config.width
        self.color_network = MLP(n_seen, color_width, config.color_layers, 3 + n_more, generator)
        self.head = DeferredHead(n_more, config.head_width, generator) if config.head == "deferred" else None
        self.neighbours = SampleHead(self.color_network.sizes) if config.head == "sample" else None
        self.sky = nn.Parameter(torch.zeros(config.sh_degree**2, 3))
        if config.bias_init:
            begin_sparse(self, config.bias_init)
        self.to(device)
        self.tcnn: Tcnn | None = None
        self._rounded, self._rounded_from = self.table.detach().half(), self.table._version

    def density(self, positions: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n c"]]:
        """Densities per model unit, and the density network's outputs, which `color` takes."""
        if self.tcnn is not None:
            places = contract(positions, self.grid.half)
            features = self.tcnn.density(places, self.table, [*self.density_network.weights])
        else:
            rounded = self.rounded if self.table.is_cuda else None  # half of the bytes to fetch
            features = self.density_network(self.grid.encode(positions, self.table, self.dtype, rounded))
        return _TruncatedExp.apply(features), features

    def color(
        self, features: Float[Tensor, "n c"], rays_d: Float[Tensor, "n_rays 3"], ray_indices: Int[Tensor, " n"]
    ) -> Float[Tensor, "n d"]:
        """RGB in [0, 1] of features seen along the unit directions of the rays that own them, then all for the head."""
        harmonics = spherical_harmonics(rays_d, self.config.sh_degree).to(features.dtype)
        x = join_directions(features, harmonics, ray_indices)
        said = self.color_network(x) if self.tcnn is None else self.tcnn.color(x, [*self.color_network.weights])
        seen = said.float()
        return torch.sigmoid(seen) if self.head is None else torch.cat([torch.sigmoid(seen[:, :3]), seen[:, 3:]], 1)

    def color_of_patches(
        self, features: Float[Tensor, "n h w k c"], rays_d: Float[Tensor, "n_rays 3"]
    ) -> Float[Tensor, "n h w k 3"]:
        """RGB in [0, 1] of k samples on each ray of n patches, seen by their neighbours too."""
        harmonics = spherical_harmonics(rays_d, self.config.sh_degree).to(features.dtype)
        each = harmonics.view(*features.shape[:3], 1, -1).expand(*features.shape[:4], -1)
        seen = self.neighbours(torch.cat([features, each], -1), list(self.color_network.weights))
        return torch.sigmoid(seen.float())

    def layer_by_layer(
        self, positions: Float[Tensor, "n 3"], rays_d: Float[Tensor, "n 3"]
    ) -> tuple[list[Float[Tensor, "n _"]], list[Float[Tensor, "n _"]]]:
        """What each layer of the density and of the colour network says of places seen along directions, float32."""
        density = self.density_network.layer_by_layer(self.grid.encode(positions, self.table, torch.float32))
        rows = torch.arange(len(positions), dtype=torch.int32, device=positions.device)
        seen = join_directions(density[-1], spherical_harmonics(rays_d, self.config.sh_degree), rows)
        return density, self.color_network.layer_by_layer(seen)

    def behind(self, rays_d: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """RGB in [0, 1] of what lies behind everything, ``sigmoid(SH(direction) @ sky)``.

        So few numbers can be no more than a gradient from one colour to another: clouds and hills remain things.
        """
        return torch.sigmoid(spherical_harmonics(rays_d, self.config.sh_degree) @ self.sky)

    @property
    def rounded(self) -> Float[Tensor, "entries features"]:
        """The table in half precision, which fits twice as much of it into a cache.

        The optimiser writes both; where another hand changed the table, the copy is taken anew.
        """
        if self._rounded_from != self.table._version:
            self._rounded.copy_(self.table.detach())
            self._rounded_from = self.table._version
        return self._rounded

    def target(self) -> Target:
        """All parts, for a kernel that holds whole rays."""
        config = self.config
        networks = Networks(config.n_levels, config.n_features, self.density_network.sizes, self.color_network.sizes)
        weights = torch.cat([w.view(-1) for w in self.network_parameters()])
        return Target(networks, self.grid, self.table, self.rounded, weights, str(self.dtype).removeprefix("torch."))

    def set_gradients(self, flat: Float[Tensor, " n_weights"]) -> None:
        """Hand the networks' weights their gradients, which lie in one row as the weights do in `target`."""
        parameters = self.network_parameters()
        for w, gradient in zip(parameters, flat.split([w.numel() for w in parameters]), strict=True):
            w.grad = gradient.view_as(w)

    def small_parameters(self) -> list[nn.Parameter]:
        """All that is learnt but the table."""
        return [*self.network_parameters(), self.sky, *self.head_parameters()]

    def head_parameters(self) -> list[nn.Parameter]:
        """The numbers of the convolutions, if there are any."""
        return [*([] if self.head is None else self.head.parameters()), *self.neighbour_parameters()]

    def neighbour_parameters(self) -> list[nn.Parameter]:
        """Those of the convolutions at each sample."""
        return [] if self.neighbours is None else [*self.neighbours.parameters()]

    def network_parameters(self) -> list[nn.Parameter]:
        """The weights of both networks, in a fixed order."""
        return [*self.density_network.weights, *self.color_network.weights]
