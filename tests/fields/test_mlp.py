"""The perceptron: the plain formula, its gradients, and its number format."""

from __future__ import annotations

import math
import subprocess
import sys
from types import ModuleType

import pytest
import torch
from compare import assert_close
from torch import Tensor

from nerfkit.fields.mlp import MLP, network_dtype
from nerfkit.kernels import products
from nerfkit.kernels.products import network_by


def plain(x: Tensor, weights: list[Tensor]) -> Tensor:
    """x -> relu(x W1^T) -> ... -> x Wn^T."""
    for w in weights[:-1]:
        x = torch.relu(x @ w.T)
    return x @ weights[-1].T


def make(n_hidden: int, n: int, device: torch.device) -> tuple[MLP, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    network = MLP(12, 16, n_hidden, 5, generator).to(device)
    x, seed = (torch.randn(n, width, generator=generator).to(device) for width in (12, 5))
    return network, x.requires_grad_(), seed


@pytest.mark.parametrize("n", [0, 1, 300])
@pytest.mark.parametrize("n_hidden", [0, 1, 2, 3])
def test_values_and_gradients_are_those_of_the_formula(n_hidden: int, n: int, device: torch.device) -> None:
    network, x, seed = make(n_hidden, n, device)
    inputs = [x, *network.weights]
    actual = network(x)
    gradients = torch.autograd.grad(actual, inputs, seed)
    exact = [value.detach().double().requires_grad_() for value in inputs]
    expected = plain(exact[0], exact[1:])
    assert_close(actual, expected)
    for gradient, twin in zip(gradients, torch.autograd.grad(expected, exact, seed.double()), strict=True):
        assert_close(gradient, twin)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_the_formula_rounded(dtype: torch.dtype, device: torch.device) -> None:
    network, x, seed = make(2, 300, device)
    half = x.detach().to(dtype).requires_grad_()
    actual = network(half)
    gradients = torch.autograd.grad(actual, [half, *network.weights], seed.to(dtype))
    copies = [half.detach().requires_grad_(), *(w.detach().requires_grad_() for w in network.weights)]
    expected = plain(copies[0], [w.to(dtype) for w in copies[1:]])
    assert actual.dtype == gradients[0].dtype == dtype
    assert all(gradient.dtype == torch.float32 for gradient in gradients[1:])
    assert_close(actual, expected, dtype)
    for gradient, twin in zip(gradients, torch.autograd.grad(expected, copies, seed.to(dtype)), strict=True):
        assert_close(gradient, twin, dtype)


def test_an_input_without_gradient_gets_none(device: torch.device) -> None:
    network, x, _ = make(1, 10, device)
    network(x.detach()).sum().backward()
    assert x.grad is None and all(w.grad is not None for w in network.weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_torch_multiplies_on_a_cpu_and_where_triton_is_absent(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert network_by((32, 64, 16), dtype, torch.device("cpu")) is products
    monkeypatch.setitem(sys.modules, "triton", None)
    for name in ("nerfkit.kernels.fused", "nerfkit.kernels.cubin"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delattr("nerfkit.kernels.fused", raising=False)
    assert network_by((32, 64, 16), dtype, torch.device("cuda", 0)) is products


@pytest.mark.parametrize("serves", [True, False])
def test_one_kernel_takes_on_a_gpu_the_networks_that_it_serves(serves: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    fused = ModuleType("fused")
    fused.serves = lambda *network: serves
    monkeypatch.setitem(sys.modules, "nerfkit.kernels.fused", fused)
    monkeypatch.setattr("nerfkit.kernels.fused", fused, raising=False)
    taken = network_by((32, 64, 16), torch.bfloat16, torch.device("cuda", 0))
    assert taken is (fused if serves else products)


def test_a_cpu_does_not_load_triton() -> None:
    script = "import sys, torch, nerfkit.cli, nerfkit.train.loop; from nerfkit.fields.mlp import MLP\n"
    script += (
        "MLP(32, 64, 1, 16, torch.Generator())(torch.ones(9, 32)).sum().backward(); sys.exit('triton' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=120).returncode == 0


def test_weights_start_within_their_bound() -> None:
    network = MLP(12, 64, 2, 5, torch.Generator().manual_seed(0))
    for w in network.weights:
        bound = math.sqrt(6.0 / sum(w.shape))
        assert 0.9 * bound < float(w.detach().abs().max()) <= bound
    assert [tuple(w.shape) for w in network.weights] == [(64, 12), (64, 64), (5, 64)]


def test_the_seed_decides() -> None:
    one, same, other = (MLP(3, 4, 1, 2, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(one.weights[0], same.weights[0]) and not torch.equal(one.weights[0], other.weights[0])


def test_the_format_is_one_that_the_device_has() -> None:
    assert network_dtype("cuda") == torch.bfloat16
    assert network_dtype("cpu") in (torch.bfloat16, torch.float32)
