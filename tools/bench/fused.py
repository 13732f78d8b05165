"""Both default networks on a GPU: all layers in one kernel beside torch's products, and tinycudann's where it is there.

python tools/bench/fused.py [--log2-rows 18]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial

import torch
from record import record, seconds

from nerfkit.config import FieldConfig
from nerfkit.fields.hash import HashField
from nerfkit.fields.mlp import MLP
from nerfkit.kernels import products

N_CALLS = 20
"""Calls timed together, so that starting the clock and waiting for the GPU weigh little."""


def work(sizes: tuple[int, ...], n_rows: int, both: bool) -> dict[str, float]:
    """Bytes that have to move and operations that have to be done, whoever does them.

    Half precision outside, float32 weights; each product of a matrix is two operations a number and row. Backward reads
    x and the gradient of y, writes that of x and those of the weights, and does two more products a layer; activations
    that are computed again, or kept, are a way to do it and no part of the work.
    """
    n_weights = sum(a * b for a, b in zip(sizes, sizes[1:], strict=False))
    n_bytes, flops = 2 * n_rows * (sizes[0] + sizes[-1]) + 4 * n_weights, 2 * n_rows * n_weights
    if both:
        n_bytes += 2 * n_rows * (2 * sizes[0] + sizes[-1]) + 8 * n_weights
        flops *= 3
    return {"bytes": n_bytes, "flops": flops}


def limits(device: torch.device) -> dict[str, float]:
    """What the GPU does at best, measured: bytes a second of a copy, operations a second of a large product."""
    rows = torch.zeros(2**28, dtype=torch.uint8, device=device)
    square = torch.randn(8192, 8192, dtype=torch.bfloat16, device=device)  # zeros draw less power, and run faster
    target, product = torch.empty_like(rows), torch.empty_like(square)
    copying = seconds(lambda: target.copy_(rows), device=device.type)["median"]
    multiplying = seconds(lambda: torch.mm(square, square, out=product), device=device.type)["median"]
    return {"bytes": 2 * rows.numel() / copying, "flops": 2 * len(square) ** 3 / multiplying}


def peer(sizes: tuple[int, ...], device: torch.device) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """tinycudann's network of this shape; None where it is not installed or does not load."""
    try:
        import tinycudann
    except (ImportError, OSError, RuntimeError):
        return None
    shape = {"n_neurons": sizes[1], "n_hidden_layers": len(sizes) - 2}
    kind = {"otype": "FullyFusedMLP", "activation": "ReLU", "output_activation": "None"}
    return tinycudann.Network(sizes[0], sizes[-1], {**kind, **shape}).to(device)


def contestants(network: MLP, device: torch.device) -> Iterator[tuple[str, torch.dtype, Callable[..., torch.Tensor]]]:
    """Each one's name, the format it takes, and the call."""
    try:
        from nerfkit.kernels import fused
    except ImportError:  # no Triton
        pass
    else:
        yield "fused", torch.bfloat16, lambda x: fused.mlp(x, *network.weights)
    yield "torch", torch.bfloat16, lambda x: products.mlp(x, [*network.weights], products)
    if (other := peer(network.sizes, device)) is not None:
        yield "tinycudann", torch.float16, other


def each(call: Callable[..., torch.Tensor], learnt: list[torch.Tensor], seed: torch.Tensor | None) -> None:
    """So many forward passes of the first of what is learnt, each with a backward pass if there is a seed for it."""
    for _ in range(N_CALLS):
        with torch.set_grad_enabled(seed is not None):
            y = call(learnt[0])
        if seed is not None:
            torch.autograd.grad(y, learnt, seed)


def measure(name: str, network: MLP, n_rows: int, best: dict[str, float], device: torch.device) -> None:
    """One line for each contestant, forward and with the backward pass."""
    generator = torch.Generator(device).manual_seed(0)
    sizes = network.sizes
    for engine, dtype, call in contestants(network, device):
        ends = (sizes[0], sizes[-1])
        x, seed = (torch.randn(n_rows, n, generator=generator, device=device).to(dtype) for n in ends)
        weights = call.parameters() if isinstance(call, torch.nn.Module) else network.weights
        learnt = [x.requires_grad_(), *weights]
        for passes, gradient in (("forward", None), ("forward and backward", seed)):
            timing = seconds(partial(each, call, learnt, gradient), device=device.type)
            timing = {key: value / N_CALLS for key, value in timing.items()}
            needed = work(sizes, n_rows, gradient is not None)
            shares = {key: value / timing["median"] / best[key] for key, value in needed.items()}
            figures = {"network": name, "sizes": sizes, "n_rows": n_rows, "engine": engine, "passes": passes}
            record(
                "fused",
                **figures,
                seconds=timing,
                **needed,
                shares=shares,
                best=best,
                gpu=torch.cuda.get_device_name(device),
            )


def main() -> None:
    """Measure and print one JSON line for each network, engine and pass."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log2-rows", type=int, default=18)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("tools/bench/fused.py needs an NVIDIA GPU, and torch finds none here")
    device = torch.device("cuda", torch.cuda.current_device())
    best = limits(device)
    field = HashField(FieldConfig(), device)
    for name, network in (("density", field.density_network), ("color", field.color_network)):
        measure(name, network, 2**options.log2_rows, best, device)


if __name__ == "__main__":
    main()
