"""Compositing and the visibility cut: beside their twins, in closed form, and by the laws of an absorbing medium."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from compare import assert_close, assert_same_samples
from torch import Tensor

from nerfkit.kernels import reference
from nerfkit.kernels.composite import composite, gather, keep_visible
from nerfkit.types import Samples

CASES = {
    "few": [3, 0, 1, 7],
    "one ray": [12],
    "one sample": [1],
    "no sample": [0, 0],
    "many": [(7 * i) % 90 for i in range(300)],
}


def pack(counts: list[int], device: torch.device, spare: int = 5) -> Samples:
    """Samples of random lengths with gaps, and some rows that no ray owns."""
    generator = torch.Generator().manual_seed(len(counts))
    n = sum(counts)
    info = torch.tensor(counts, dtype=torch.int32)
    owners = torch.arange(len(counts), dtype=torch.int32).repeat_interleave(info.long())
    t_starts = torch.arange(n + spare) * 0.03 + 0.01 * torch.rand(n + spare, generator=generator)
    t_ends = t_starts + 0.02 * torch.rand(n + spare, generator=generator)
    columns = [torch.stack([info.cumsum(0).int() - info, info], 1), torch.cat([owners, owners.new_zeros(spare)])]
    return Samples(*(column.to(device) for column in [*columns, t_starts, t_ends]), n)


def medium(samples: Samples, density: float = 30.0) -> tuple[Tensor, Tensor, Tensor]:
    """Densities, colours and backgrounds that want gradients."""
    generator = torch.Generator().manual_seed(7)
    n, n_rays, device = len(samples), len(samples.packed_info), samples.t_starts.device
    sigmas = density * 2.0 * torch.rand(n, generator=generator)
    columns = (sigmas, torch.rand(n, 3, generator=generator), torch.rand(n_rays, 3, generator=generator))
    sigmas, rgbs, background = (column.to(device).requires_grad_() for column in columns)
    return sigmas, rgbs, background


def double(samples: Samples) -> Samples:
    t_starts, t_ends = samples.t_starts.double(), samples.t_ends.double()
    return Samples(samples.packed_info, samples.ray_indices, t_starts, t_ends, samples.n_owned)


@pytest.mark.parametrize("density", [0.0, 1.0, 100.0])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_the_twin(case: str, density: float, device: torch.device) -> None:
    samples = pack(CASES[case], device)
    inputs = medium(samples, density)
    generator = torch.Generator().manual_seed(3)
    n = len(samples.packed_info)
    shapes = ((n, 3), (n,), (n,), (len(samples),))
    seeds = [torch.randn(shape, generator=generator).to(device) for shape in shapes]
    outputs = composite(*inputs[:2], samples, inputs[2])
    gradients = torch.autograd.grad(outputs, inputs, seeds)
    exact = [x.detach().double().requires_grad_() for x in inputs]
    expected = reference.composite(*exact[:2], double(samples), exact[2])
    expected_gradients = torch.autograd.grad(expected, exact, [seed.double() for seed in seeds])
    pairs = [*zip(outputs, expected, strict=True)]
    pairs += zip(gradients[:2], expected_gradients[:2], strict=True)
    # The background's gradient is a share of that of rgb, and is compared with the whole.
    pairs.append((gradients[2] + seeds[0], expected_gradients[2] + seeds[0]))
    for actual, twin in pairs:
        assert_close(actual, twin)


def test_the_twin_has_the_gradient_of_finite_differences(device: torch.device) -> None:
    samples = double(pack(CASES["few"], device))
    inputs = [x.detach().double().requires_grad_() for x in medium(samples)]
    assert torch.autograd.gradcheck(lambda s, c, b: reference.composite(s, c, samples, b), inputs)


@pytest.mark.parametrize("seed", ["rgb", "opacity", "distance", "weights"])
def test_one_output_alone_hands_a_gradient_back(seed: str, device: torch.device) -> None:
    samples, number = pack(CASES["few"], device), ["rgb", "opacity", "distance", "weights"].index(seed)
    inputs = medium(samples)
    results = []
    for op in (composite, reference.composite):
        output = op(*inputs[:2], samples, inputs[2])[number].sum()
        gradients = torch.autograd.grad(output, inputs, allow_unused=True, materialize_grads=True)
        results.append(gradients)
    for actual, expected in zip(*results, strict=True):
        assert_close(actual, expected)


@pytest.mark.parametrize("reach", [0.0, 0.1, 3.0])
def test_gradients_near_the_camera_are_damped(reach: float, device: torch.device) -> None:
    samples = pack(CASES["few"], device)
    inputs = medium(samples)
    outputs = [op(*inputs[:2], samples, inputs[2], reach)[:3] for op in (composite, reference.composite)]
    for actual, expected in zip(*outputs, strict=True):
        assert_close(actual, expected)
    damped, expected = (torch.autograd.grad([o.sum() for o in output], inputs[:2]) for output in outputs)
    full = torch.autograd.grad([o.sum() for o in composite(*inputs[:2], samples, inputs[2])[:3]], inputs[:2])
    share = (samples.t_ends / max(reach, 1e-9)).clamp(max=1.0) ** 2
    for gradient, twin, whole in zip(damped, expected, full, strict=True):
        assert_close(gradient, twin)
        assert_close(gradient, whole * share.view(-1, *[1] * (whole.ndim - 1)))


@pytest.mark.parametrize("sigma", [0.5, 4.0, 40.0])
def test_a_uniform_medium_absorbs_exponentially(sigma: float, device: torch.device) -> None:
    n, length = 400, 0.8
    edges = torch.linspace(0.2, 0.2 + length, n + 1).to(device)
    info, owner = torch.tensor([[0, n]], dtype=torch.int32), torch.zeros(n, dtype=torch.int32)
    samples = Samples(info.to(device), owner.to(device), edges[:-1], edges[1:], n)
    color, behind = torch.tensor([0.2, 0.9, 0.4], device=device), torch.tensor([[1.0, 0.0, 0.5]], device=device)
    sigmas = torch.full((n,), sigma, device=device)
    rgb, opacity, t_sum, _ = composite(sigmas, color.expand(n, 3), samples, behind)
    trans = math.exp(-sigma * length)
    assert float(opacity) == pytest.approx(1.0 - trans, rel=1e-5)
    assert_close(rgb[0], (1.0 - trans) * color + trans * behind[0])
    # The integral of sigma t exp(-sigma (t - t0)), which the middles approach with the square of the step.
    exact = (0.2 + 1.0 / sigma) * (1.0 - trans) - length * trans
    assert float(t_sum) == pytest.approx(exact, rel=1e-4)


class TestLaws:
    def test_weights_and_transmittance_sum_to_one(self, device: torch.device) -> None:
        samples = pack(CASES["many"], device)
        sigmas, rgbs, background = medium(samples)
        _, opacity, _, weights = composite(sigmas, rgbs, samples, background)
        sums = torch.zeros_like(opacity).index_add_(0, samples.ray_indices.long(), weights)
        thickness = (sigmas * (samples.t_ends - samples.t_starts)).detach()
        thickness[samples.n_owned :] = 0.0
        trans = torch.exp(-torch.zeros_like(opacity).index_add_(0, samples.ray_indices.long(), thickness))
        assert_close(sums + trans, torch.ones_like(sums))
        assert_close(opacity, sums)
        assert float(weights.detach().min()) >= 0.0

    def test_colours_stay_between_those_of_samples_and_background(self, device: torch.device) -> None:
        samples = pack(CASES["many"], device)
        sigmas, rgbs, background = (x.detach() for x in medium(samples))
        rgb = composite(sigmas, rgbs, samples, background)[0]
        assert float(rgb.min()) >= 0.0 and float(rgb.max()) <= 1.0 + 1e-6

    def test_splitting_a_sample_changes_nothing(self, device: torch.device) -> None:
        samples = pack(CASES["few"], device, spare=0)
        sigmas, rgbs, background = (x.detach() for x in medium(samples))
        middle = 0.3 * samples.t_starts + 0.7 * samples.t_ends
        halves = Samples(
            samples.packed_info * 2,
            samples.ray_indices.repeat_interleave(2),
            torch.stack([samples.t_starts, middle], 1).flatten(),
            torch.stack([middle, samples.t_ends], 1).flatten(),
            2 * samples.n_owned,
        )
        whole = composite(sigmas, rgbs, samples, background)
        split = composite(sigmas.repeat_interleave(2), rgbs.repeat_interleave(2, 0), halves, background)
        assert_close(split[0], whole[0])
        assert_close(split[1], whole[1])
        assert_close(split[3].view(-1, 2).sum(1), whole[3])

    def test_the_order_of_rays_does_not_matter(self, device: torch.device) -> None:
        samples = pack(CASES["many"], device)
        sigmas, rgbs, background = medium(samples)
        order = torch.randperm(300, generator=torch.Generator().manual_seed(0)).to(device)
        shuffled = dataclasses.replace(samples, packed_info=samples.packed_info[order])
        one, other = composite(sigmas, rgbs, samples, background), composite(sigmas, rgbs, shuffled, background[order])
        for a, b in zip(one[:3], other[:3], strict=True):
            assert torch.equal(a[order], b)
        assert torch.equal(one[3], other[3])

    def test_an_opaque_sample_hides_all_behind_it(self, device: torch.device) -> None:
        samples = pack([5], device)
        sigmas, rgbs, background = medium(samples)
        with torch.no_grad():
            sigmas[0] = 1e8
        rgb, opacity, t_sum, weights = composite(sigmas, rgbs, samples, background)
        assert opacity.tolist() == [1.0] and weights.tolist() == [1.0] + [0.0] * 9
        assert_close(rgb[0], rgbs[0])
        assert t_sum.tolist() == pytest.approx([float(samples.t_starts[0] + samples.t_ends[0]) / 2])
        gradients = torch.autograd.grad(rgb.sum() + t_sum.sum(), (sigmas, rgbs, background))
        assert all(bool(g.isfinite().all()) for g in gradients)
        assert not gradients[1][1:].any() and not gradients[2].any()

    def test_a_ray_without_samples_is_its_background(self, device: torch.device) -> None:
        samples = pack(CASES["no sample"], device)
        sigmas, rgbs, background = medium(samples)
        rgb, opacity, t_sum, weights = composite(sigmas, rgbs, samples, background)
        assert torch.equal(rgb, background) and not opacity.any() and not t_sum.any() and not weights.any()

    def test_rows_that_no_ray_owns_get_no_gradient(self, device: torch.device) -> None:
        samples = pack(CASES["few"], device, spare=9)
        sigmas, rgbs, background = medium(samples)
        rgb = composite(sigmas, rgbs, samples, background)[0]
        for gradient in torch.autograd.grad(rgb.sum(), (sigmas, rgbs)):
            assert gradient[: samples.n_owned].any() and not gradient[samples.n_owned :].any()

    def test_no_rays(self, device: torch.device) -> None:
        samples = pack([], device, spare=0)
        rgb, opacity, t_sum, weights = composite(*medium(samples)[:2], samples, medium(samples)[2])
        assert rgb.shape == (0, 3) and opacity.shape == t_sum.shape == weights.shape == (0,)


class TestKeepVisible:
    @pytest.mark.parametrize("early_stop", [0.5, 1e-2, 1e-4])
    @pytest.mark.parametrize("case", CASES)
    def test_the_cut_is_that_of_the_twin(self, case: str, early_stop: float, device: torch.device) -> None:
        samples = pack(CASES[case], device)
        sigmas = medium(samples, 100.0)[0].detach()
        kept, rows = keep_visible(samples, sigmas, early_stop)
        expected, expected_rows = reference.keep_visible(samples, sigmas, early_stop)
        assert_same_samples(kept, expected)
        assert torch.equal(rows[: kept.n_owned], expected_rows)

    def test_rows_lead_to_the_samples(self, device: torch.device) -> None:
        samples = pack(CASES["many"], device)
        kept, rows = keep_visible(samples, medium(samples, 100.0)[0].detach(), 0.1)
        assert 0 < kept.n_owned < samples.n_owned
        for name in ("t_starts", "t_ends", "ray_indices"):
            mine, theirs = getattr(kept, name), getattr(samples, name)
            assert torch.equal(mine[: kept.n_owned], theirs[rows[: kept.n_owned].long()])
            assert not mine[kept.n_owned :].any()

    def test_a_clear_medium_keeps_all(self, device: torch.device) -> None:
        samples = pack(CASES["many"], device)
        kept, rows = keep_visible(samples, torch.zeros(len(samples), device=device), 1e-4)
        assert kept.n_owned == samples.n_owned and torch.equal(kept.packed_info, samples.packed_info)

    def test_an_opaque_sample_is_the_last(self, device: torch.device) -> None:
        samples = pack([4, 4], device)
        sigmas = torch.tensor([1e6, 1.0, 1.0, 1.0, 0.0, 0.0, 1e6, 0.0], device=device)
        kept, rows = keep_visible(samples, torch.cat([sigmas, torch.zeros(5, device=device)]), 1e-4)
        assert kept.packed_info[:, 1].tolist() == [1, 3]
        assert rows[: kept.n_owned].tolist() == [0, 4, 5, 6]

    def test_a_picture_changes_by_less_than_the_threshold(self, device: torch.device) -> None:
        samples = pack(CASES["many"], device)
        sigmas, rgbs, background = (x.detach() for x in medium(samples, 100.0))
        kept, rows = keep_visible(samples, sigmas, 0.02)
        rows = rows.long()
        whole = composite(sigmas, rgbs, samples, background)[0]
        cut = composite(sigmas[rows], rgbs[rows], kept, background)[0]
        assert 0.0 < float((whole - cut).abs().max()) < 0.02


@pytest.mark.parametrize("reach", [0.0, 0.8])
@pytest.mark.parametrize("case", CASES)
def test_what_is_gathered_is_composited_without_a_background(case: str, reach: float, device: torch.device) -> None:
    samples = pack(CASES[case], device)
    sigmas, rgbs, background = medium(samples)
    values = torch.randn(len(samples), 5, generator=torch.Generator().manual_seed(9)).to(device).requires_grad_()
    found = gather(composite(sigmas, rgbs, samples, background, reach)[3], values, samples, reach)
    nothing = torch.zeros(len(CASES[case]), 5, device=device)
    expected = reference.composite(sigmas, values, samples, nothing, reach)[0]
    assert_close(found, expected)
    factors = torch.randn(found.shape, generator=torch.Generator().manual_seed(8)).to(device)
    for actual, wanted in zip(
        torch.autograd.grad((found * factors).sum(), [sigmas, values], allow_unused=True),
        torch.autograd.grad((expected * factors).sum(), [sigmas, values], allow_unused=True),
        strict=True,
    ):
        if wanted is not None:
            assert_close(actual, wanted)
