"""Whole rays at once: values and gradients of the plain twins in a row, whatever the networks' shapes."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from compare import assert_close
from targets import N_RAYS, NETWORKS, NEVER, RESOLUTION, STEPPINGS, cells_of, columns, listed, rays, target_of
from torch import Tensor
from torch.nn import functional as F

from nerfkit.fields.mlp import network_dtype
from nerfkit.kernels import reference, reference_rays
from nerfkit.kernels.cells import clearance
from nerfkit.kernels.check import relative_error
from nerfkit.kernels.contraction import half_of
from nerfkit.kernels.lesson import Lesson, Verdict
from nerfkit.kernels.occupancy import pack_bits
from nerfkit.kernels.raycast import Target, cast, learn
from nerfkit.types import Rays


def gradients(target: Target, outputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Of a random function of colour, opacity and sum of weights * t: by weights and by table."""
    generator = torch.Generator().manual_seed(4)
    loss = sum((output * torch.randn(output.shape, generator=generator)).sum() for output in outputs)
    target.table.grad = None
    target.weights.grad = None
    loss.backward()
    return [target.weights.grad, target.table.grad]


@pytest.mark.parametrize("reach", [0.0, 0.8])
@pytest.mark.parametrize("steps", STEPPINGS)
@pytest.mark.parametrize("shape", NETWORKS)
def test_values_and_gradients_are_those_of_the_twins_in_a_row(shape: str, steps: str, reach: float) -> None:
    target, cells = target_of(NETWORKS[shape]), cells_of(STEPPINGS[steps])
    *expected, wanted_info = reference_rays.cast(target, cells, rays(), *columns(), NEVER, reach)
    *pixels, packed_info = cast(target, cells, rays(), *columns(), NEVER, reach, 20000)
    assert torch.equal(packed_info, wanted_info)
    for actual, wanted in zip(pixels, expected, strict=True):
        assert relative_error(actual, wanted) < 3e-5
    for actual, wanted in zip(gradients(target, tuple(pixels)), gradients(target, tuple(expected)), strict=True):
        assert relative_error(actual, wanted) < 1e-3


@pytest.mark.parametrize("n_cubes", [2, 3])
def test_places_may_be_contracted(n_cubes: int) -> None:
    target, cells = target_of(NETWORKS["default"], half=half_of(n_cubes)), cells_of(STEPPINGS["growing"])
    *expected, wanted_info = reference_rays.cast(target, cells, rays(), *columns(), NEVER)
    *pixels, packed_info = cast(target, cells, rays(), *columns(), NEVER, 0.0, 20000)
    assert torch.equal(packed_info, wanted_info)
    plain, *_ = cast(target_of(NETWORKS["default"]), cells, rays(), *columns(), NEVER)
    assert float((pixels[0] - plain).detach().abs().mean()) > 0.01
    for actual, wanted in zip(pixels, expected, strict=True):
        assert relative_error(actual, wanted) < 1e-3
    for actual, wanted in zip(gradients(target, tuple(pixels)), gradients(target, tuple(expected)), strict=True):
        assert relative_error(actual, wanted) < 1e-3


@pytest.mark.parametrize("early_stop", [NEVER, 0.8])
def test_samples_may_be_listed_instead_of_found_in_cells(early_stop: float) -> None:
    target, samples = target_of(NETWORKS["default"]), listed()
    *expected, wanted_info = reference_rays.cast(target, samples, rays(), *columns(), early_stop)
    *pixels, packed_info = cast(target, samples, rays(), *columns(), early_stop, 0.0, 20000)
    assert torch.equal(packed_info, wanted_info)
    reached = int(packed_info[:, 1].sum())
    assert reached == samples.n_owned if early_stop == NEVER else 0 < reached < 0.9 * samples.n_owned
    for actual, wanted in zip(pixels, expected, strict=True):
        assert relative_error(actual, wanted) < 3e-5
    for actual, wanted in zip(gradients(target, tuple(pixels)), gradients(target, tuple(expected)), strict=True):
        assert relative_error(actual, wanted) < 1e-3


@pytest.mark.parametrize("delta", [0.1, math.inf])
@pytest.mark.parametrize("steps", STEPPINGS)
def test_learning_is_casting_a_loss_and_its_backward_pass(steps: str, delta: float) -> None:
    target, cells = target_of(NETWORKS["default"]), cells_of(STEPPINGS[steps])
    truth = torch.rand(N_RAYS, 3, generator=torch.Generator().manual_seed(5))
    lesson = Lesson(truth, delta, 3.0, 1e-3, 0.8, 20000)
    learned = learn(target, cells, rays(), *columns(), lesson)
    g_table = target.table.grad
    target.table.grad = None
    rgb, *_, packed_info = cast(target, cells, rays(), *columns(), 1e-3, 0.8, 20000)
    e = (rgb - truth).abs()
    assert 0.1 < float((e < 0.1).float().mean()) < 0.9
    loss = 3.0 * torch.where(e < delta, e * e / 2, min(delta, 1e6) * (e - min(delta, 1e6) / 2)).sum()
    loss.backward()
    assert learned.loss == pytest.approx(loss.item(), rel=1e-5)
    assert learned.n_samples == int(packed_info[:, 1].sum())
    assert_close(learned.g_weights, target.weights.grad)
    assert_close(g_table, target.table.grad)


def test_learning_by_a_judge_is_casting_its_loss_and_a_backward_pass() -> None:
    target, cells = target_of(NETWORKS["deferring"]), cells_of(STEPPINGS["even"])
    generator = torch.Generator().manual_seed(5)
    mix, truth = torch.randn(10, 3, generator=generator), torch.rand(N_RAYS, 3, generator=generator)

    def loss_of(gathered: Tensor, mix: Tensor) -> Tensor:
        return ((gathered @ mix - truth) ** 2 * torch.arange(N_RAYS)[:, None]).sum()

    def judge(gathered: Tensor) -> Verdict:
        leaves = gathered.detach().requires_grad_(), mix.clone().requires_grad_()
        loss = loss_of(*leaves)
        g_gathered, g_mix = torch.autograd.grad(loss, leaves)
        return Verdict(loss.item(), g_gathered, gathered @ mix, (g_mix,))

    learned = learn(target, cells, rays(), *columns(), Lesson(truth, 0.1, 3.0, 1e-3, 0.8, 20000), judge=judge)
    g_table = target.table.grad
    target.table.grad = None
    gathered, *_, packed_info = cast(target, cells, rays(), *columns(), 1e-3, 0.8, 20000)
    mixing = mix.clone().requires_grad_()
    loss = loss_of(gathered, mixing)
    loss.backward()
    assert learned.loss == pytest.approx(loss.item(), rel=1e-5)
    assert learned.n_samples == int(packed_info[:, 1].sum())
    assert_close(learned.rgb, gathered @ mix)
    for actual, wanted in ((learned.g_weights, target.weights.grad), (g_table, target.table.grad)):
        assert_close(actual, wanted)
    assert_close(learned.g_more[0], mixing.grad)


def test_what_rays_gather_beside_the_colour_takes_no_part_in_its_loss() -> None:
    plain, more = (target_of(NETWORKS[name]) for name in ("default", "deferring"))
    n_shared = plain.networks.n_weights
    with torch.no_grad():
        plain.weights.copy_(more.weights[:n_shared])
    truth = torch.rand(N_RAYS, 3, generator=torch.Generator().manual_seed(5))
    lesson, cells = Lesson(truth, 0.1, 3.0, 1e-3, 0.0, 20000), cells_of(STEPPINGS["even"])
    one, other = (learn(target, cells, rays(), *columns(), lesson) for target in (plain, more))
    assert torch.equal(one.rgb, other.rgb) and torch.equal(one.g_weights, other.g_weights[:n_shared])
    assert not other.g_weights[n_shared:].any() and torch.equal(plain.table.grad, more.table.grad)


@pytest.mark.parametrize("distortion", [0.0, 5.0])
@pytest.mark.parametrize("steps", STEPPINGS)
def test_learning_is_that_of_the_twin(steps: str, distortion: float) -> None:
    target, cells = target_of(NETWORKS["default"]), cells_of(STEPPINGS[steps])
    truth = torch.rand(N_RAYS, 3, generator=torch.Generator().manual_seed(5))
    lesson = Lesson(truth, 0.1, 3.0, NEVER, 0.0, 20000, distortion, 0.4)
    found = []
    for learn_ in (learn, reference_rays.learn):
        target.table.grad = None
        learned = learn_(target, cells, rays(), *columns(), lesson)
        found.append([learned.g_weights, target.table.grad, learned.rgb, torch.tensor(learned.loss)])
    for actual, wanted in zip(*found, strict=True):
        assert relative_error(actual, wanted) < 1e-3


@pytest.mark.parametrize("steps", STEPPINGS)
def test_empty_blocks_are_left_out(steps: str) -> None:
    target, cells = target_of(NETWORKS["default"]), cells_of(STEPPINGS[steps], 0.4)
    *expected, wanted_info = reference_rays.cast(target, cells, rays(), *columns(), NEVER)
    *pixels, packed_info = cast(target, cells, rays(), *columns(), NEVER)
    n_samples = int(wanted_info[:, 1].sum())
    *_, everywhere = cast(target, cells_of(STEPPINGS[steps]), rays(), *columns(), NEVER)
    assert 0 < n_samples < 0.7 * int(everywhere[:, 1].sum())
    # One step in some hundreds may lie on the two sides of a block's face, by rounding.
    assert int((packed_info[:, 1] - wanted_info[:, 1]).abs().sum()) <= n_samples // 300
    assert float((pixels[0] - expected[0]).detach().abs().mean()) < 1e-3


@pytest.mark.skipif(network_dtype("cpu") != torch.bfloat16, reason="this processor multiplies no bfloat16")
@pytest.mark.parametrize("shape", NETWORKS)
def test_half_precision_differs_by_its_rounding(shape: str) -> None:
    cells = cells_of(STEPPINGS["even"])
    found = []
    for word in ("float32", "bfloat16"):
        target = target_of(NETWORKS[shape], word, 0.3)
        *pixels, _ = cast(target, cells, rays(), *columns(), NEVER, 0.0, 20000)
        found.append([pixels[0].detach().clone(), *gradients(target, tuple(pixels))])
    assert 0.0 < relative_error(found[1][0], found[0][0]) < 0.02
    for actual, wanted in zip(found[1][1:], found[0][1:], strict=True):
        assert float((actual - wanted).norm() / wanted.norm()) < 0.1


def test_a_rounded_table_is_looked_up_and_the_table_learns() -> None:
    target, cells = target_of(NETWORKS["default"]), cells_of(STEPPINGS["even"])
    halves = dataclasses.replace(target, rounded=target.table.detach().half())
    same = dataclasses.replace(target, rounded=halves.rounded.float())
    results = []
    for one in (halves, same):
        *pixels, _ = cast(one, cells, rays(), *columns(), NEVER, 0.0, 20000)
        results.append([*pixels, *gradients(target, tuple(pixels))])
    for actual, wanted in zip(*results, strict=True):
        assert_close(actual, wanted)
    assert float(results[0][-1].abs().max()) > 0.0


@pytest.mark.parametrize("stop", [0.5, 1e-3])
def test_a_ray_ends_where_it_is_opaque(stop: float) -> None:
    target, cells = target_of(NETWORKS["default"], thickness=3.0), cells_of(STEPPINGS["even"])
    *_, wanted_info = reference_rays.cast(target, cells, rays(), *columns(), stop)
    *_, everything = reference_rays.cast(target, cells, rays(), *columns(), NEVER)
    *pixels, packed_info = cast(target, cells, rays(), *columns(), stop, 0.0, 20000)
    assert torch.equal(packed_info, wanted_info) and wanted_info[:, 1].sum() < 0.7 * everything[:, 1].sum()
    *without, _ = cast(dataclasses.replace(target, weights=target.weights.detach()), cells, rays(), *columns(), stop)
    for actual, wanted in zip(without, pixels, strict=True):
        assert torch.equal(actual, wanted)


def test_the_densities_that_rays_met_are_noted() -> None:
    target, cells = target_of(NETWORKS["default"], thickness=3.0), cells_of(STEPPINGS["even"], noting=True)
    *_, packed_info = cast(target, cells, rays(), *columns(), 0.1, 0.0, 20000)
    samples = reference.march(rays(), columns()[0], cells.bits, cells.blocks, cells.stepping)
    positions = reference.sample_positions(rays(), samples)
    shapes = zip(target.networks.density[1:], target.networks.density, strict=False)
    first, second = (
        w.view(n, m) for (n, m), w in zip(shapes, target.weights.split([2048, 1024, 2048, 192]), strict=False)
    )
    encoded = reference.encode(positions, target.table, target.grid.layout)
    sigmas = torch.exp((torch.relu(encoded @ first.T) @ second.T)[:, 0]).detach()
    rank = torch.arange(samples.n_owned) - samples.packed_info[samples.ray_indices.long(), 0]
    reached = torch.where(rank < packed_info[samples.ray_indices.long(), 1], sigmas, 0.0)
    expected = torch.full((1, len(cells.window)), -1.0)
    reference.observe(positions, samples, reached, RESOLUTION, expected)
    dense = expected[0] > 0.0
    assert relative_error(cells.window[dense], expected[0][dense]) < 1e-4
    # What no ray reached counts as empty, but for what lies more than a block of samples behind: it was not looked at.
    assert dense.sum() > 100 and (cells.window[~dense] <= 0.0).all()
    assert ((cells.window == 0.0) & (expected[0] == 0.0)).any() and (cells.window[expected[0] < 0.0] == -1.0).all()


def test_rays_end_where_the_room_is_used_up() -> None:
    target, cells = target_of(NETWORKS["default"]), cells_of(STEPPINGS["even"])
    *_, whole = cast(target, cells, rays(), *columns(), NEVER, 0.0, 20000)
    room = int(whole[:, 1].sum()) // 2
    *pixels, packed_info = cast(target, cells, rays(), *columns(), NEVER, 0.0, room)
    assert 0.8 * room < int(packed_info[:, 1].sum()) <= room
    assert torch.equal(packed_info[:10], whole[:10]) and not packed_info[-1, 1]
    assert torch.equal(pixels[0][-1], columns()[1][-1])
    assert all(torch.isfinite(gradient).all() for gradient in gradients(target, tuple(pixels)))


def test_no_rays_and_rays_that_miss() -> None:
    target, cells = target_of(NETWORKS["default"]), cells_of(STEPPINGS["even"])
    away = Rays(rays().rays_o[4:7] + 3.0, F.normalize(torch.ones(3, 3), dim=1), torch.ones(3))
    rgb, opacity, t_sum, packed_info = cast(target, cells, away, torch.rand(3), columns()[1][:3], 1e-3, 0.0, 100)
    assert torch.equal(rgb, columns()[1][:3]) and not opacity.any() and not t_sum.any() and not packed_info.any()
    assert not any(gradient.any() for gradient in gradients(target, (rgb, opacity, t_sum)) if gradient is not None)
    rgb, *_ = cast(target, cells, away[:0], torch.rand(0), torch.rand(0, 3), 1e-3, 0.0, 100)
    assert rgb.shape == (0, 3)
    rgb.sum().backward()


@pytest.mark.parametrize("share", [0.0, 0.002, 0.1, 1.0])
def test_clearance_is_the_distance_to_the_nearest_occupied_block(share: float) -> None:
    n, generator = RESOLUTION // 4, torch.Generator().manual_seed(5)
    cells = torch.rand(RESOLUTION, RESOLUTION, RESOLUTION, generator=generator) < share / 64
    bits, _ = pack_bits(cells.float().view(1, -1), 0.5, RESOLUTION)
    occupied = cells.view(n, 4, n, 4, n, 4).any(5).any(3).any(1).nonzero()
    places = torch.cartesian_prod(*[torch.arange(n)] * 3)
    expected = torch.full((n**3,), 255)
    if len(occupied):
        expected = (places[:, None] - occupied).abs().amax(2).amin(1)
    assert torch.equal(clearance(bits, RESOLUTION).long(), expected)
