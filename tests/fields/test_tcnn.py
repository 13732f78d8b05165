"""A field whose networks tiny-cuda-nn computes: the same numbers, the same gradients, the same checkpoint."""

from __future__ import annotations

import dataclasses
import math
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from compare import assert_close
from torch import Tensor, nn

from nerfkit.config import FieldConfig
from nerfkit.engines import EngineError, serve
from nerfkit.fields.hash import HashField
from nerfkit.fields.tcnn import Tcnn, TcnnError, grid_config, load
from nerfkit.kernels import reference
from nerfkit.kernels.check import relative_error
from nerfkit.kernels.hashgrid import grid_layout

CPU = torch.device("cpu")
CONFIG = FieldConfig(n_levels=4, n_features=4, log2_table_size=10, base_resolution=4, finest_resolution=50, width=32)


def padded(n: int) -> int:
    return math.ceil(n / 16) * 16


class Module(nn.Module):
    """As tiny-cuda-nn describes its modules: a network, before it perhaps a grid, and one row of numbers for both."""

    def __init__(self, sizes: list[int], grid: dict[str, Any] | None):
        super().__init__()
        self.sizes, self.layout = sizes, None
        if grid is not None:
            finest = round(grid["base_resolution"] * grid["per_level_scale"] ** (grid["n_levels"] - 1))
            names = ("n_levels", "n_features_per_level", "log2_hashmap_size", "base_resolution")
            self.layout = grid_layout(*(grid[name] for name in names), finest)
        shapes = zip(sizes[1:], sizes, strict=False)
        n = sum(padded(a) * padded(b) for a, b in shapes)
        n += 0 if self.layout is None else self.layout.n_entries * self.layout.n_features
        self.params = nn.Parameter(torch.zeros(n))

    def forward(self, x: Tensor) -> Tensor:
        at, matrices = 0, []
        for n_in, n_out in zip(self.sizes, self.sizes[1:], strict=False):
            shape = padded(n_out), padded(n_in)
            w = self.params[at : at + math.prod(shape)].view(shape)
            at += math.prod(shape)
            assert not w.detach()[n_out:].any() and not w.detach()[:, n_in:].any()
            matrices.append(w[:n_out, :n_in])
        if self.layout is not None:
            x = reference.encode(x, self.params[at:].view(-1, self.layout.n_features), self.layout)
        for w in matrices[:-1]:
            x = torch.relu(x @ w.T)
        return x @ matrices[-1].T


def module_of(n_in: int, n_out: int, *configs: dict[str, Any]) -> Module:
    *grid, network = configs
    assert network["otype"] == "FullyFusedMLP" and network["output_activation"] == "None"
    first = n_in if not grid else grid[0]["n_levels"] * grid[0]["n_features_per_level"]
    return Module([first, *[network["n_neurons"]] * network["n_hidden_layers"], n_out], grid[0] if grid else None)


TINY = SimpleNamespace(NetworkWithInputEncoding=module_of, Network=module_of)


def outputs(field: HashField) -> tuple[Tensor, ...]:
    """Densities and colours, and the gradients of both with respect to all that is learnt."""
    generator = torch.Generator().manual_seed(3)
    positions = torch.rand(200, 3, generator=generator)
    rays_d = nn.functional.normalize(torch.randn(20, 3, generator=generator), dim=1)
    seed = torch.randn(200, 4, generator=generator)
    field.table.grad = None
    sigmas, features = field.density(positions)
    rgbs = field.color(features, rays_d, torch.arange(200).div(10, rounding_mode="floor").int())
    loss = (sigmas * seed[:, 0]).sum() + (rgbs[:, :3] * seed[:, 1:]).sum()
    *gradients, g_table = torch.autograd.grad(loss, [*field.network_parameters(), field.table], allow_unused=True)
    return sigmas, rgbs, *gradients, field.table.grad if g_table is None else g_table


@pytest.mark.parametrize("changes", [{}, {"color_layers": 2, "geo_features": 15}, {"head": "deferred"}], ids=str)
def test_it_computes_what_the_field_does(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tinycudann", TINY)
    field = HashField(dataclasses.replace(CONFIG, **changes), CPU, seed=1, n_cubes=2)
    with torch.no_grad():
        field.table.uniform_(-1.0, 1.0, generator=torch.Generator().manual_seed(2))
    field.dtype = torch.float32
    before = {name: value.clone() for name, value in field.state_dict().items()}
    wanted = outputs(field)
    serve(field, "tinycudann")
    assert field.tcnn is not None
    for actual, expected in zip(outputs(field), wanted, strict=True):
        assert_close(actual, expected)
    assert before.keys() == field.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in field.state_dict().items())


def test_of_no_places_it_is_asked_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(module: nn.Module, inputs: tuple[Tensor]) -> None:
        assert len(inputs[0]), "it divides by the number of places"

    def busy(*inputs: Any) -> Module:
        module = module_of(*inputs)
        module.register_forward_pre_hook(refuse)
        return module

    monkeypatch.setitem(sys.modules, "tinycudann", SimpleNamespace(NetworkWithInputEncoding=busy, Network=busy))
    field = HashField(CONFIG, CPU)
    serve(field, "tinycudann")
    sigmas, features = field.density(torch.empty(0, 3))
    rgbs = field.color(features, torch.empty(0, 3), torch.empty(0, dtype=torch.int32))
    assert len(sigmas) == 0 and rgbs.shape == (0, 3)
    parameters = [*field.network_parameters(), field.table]
    gradients = torch.autograd.grad(sigmas.sum() + rgbs.sum(), parameters)
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize(("base", "finest"), [(16, 2048), (16, 1024), (4, 50), (8, 8)])
def test_levels_grow_as_its_do(base: int, finest: int) -> None:
    layout = grid_layout(8, 2, 15, base, finest)
    asked = grid_config(layout, FieldConfig(log2_table_size=15, base_resolution=base))
    growth = asked["per_level_scale"]
    assert [base * growth**level - 1 for level in range(8)] == pytest.approx(layout.scales)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"width": 48}, "not 1 hidden layers of 48"), ({"color_layers": 0}, "field.color_width, field.color_layers: ")],
)
def test_what_it_cannot_hold_is_told(changes: dict[str, int], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tinycudann", TINY)
    field = HashField(dataclasses.replace(CONFIG, **changes), CPU)
    with pytest.raises(EngineError, match=f"engine tinycudann: .*{words}.*; use --engine cuda"):
        serve(field, "tinycudann")


def test_modules_of_another_size_are_refused() -> None:
    def larger(*inputs: Any) -> Module:
        module = module_of(*inputs)
        module.params = nn.Parameter(torch.zeros(len(module.params) + 8))
        return module

    field = HashField(CONFIG, CPU)
    other = SimpleNamespace(NetworkWithInputEncoding=larger, Network=module_of)
    with pytest.raises(TcnnError, match=r"has \d+ numbers where this field has \d+"):
        Tcnn(field.grid.layout, CONFIG, field.density_network.sizes, field.color_network.sizes, other)


def test_without_it_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tinycudann", None)
    with pytest.raises(TcnnError, match="tinycudann does not load here"):
        load()


def test_the_real_one_computes_what_the_field_does() -> None:
    if not torch.cuda.is_available():
        pytest.skip("tinycudann needs a GPU")
    try:
        load()
    except TcnnError as error:
        pytest.skip(str(error))
    device = torch.device("cuda")
    positions = torch.rand(4096, 3, device=device)
    field = HashField(FieldConfig(), device)
    with torch.no_grad():
        field.table.uniform_(-1.0, 1.0)
    found = []
    for engine in ("cuda", "tinycudann"):
        serve(field, engine)
        field.table.grad = None
        sigmas, features = field.density(positions)
        parameters = [*field.density_network.weights, field.table]
        *gradients, g_table = torch.autograd.grad(features.float().square().mean(), parameters, allow_unused=True)
        found.append([sigmas, features, *gradients, field.table.grad if g_table is None else g_table])
    for ours, theirs in zip(*found, strict=True):
        assert relative_error(theirs, ours) < 2e-2
