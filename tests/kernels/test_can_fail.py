"""The parity tests can fail: a small fault on one side of each comparison is noticed by it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from compare import TOLERANCES, assert_close, assert_same_samples
from torch import Tensor

from nerfkit.kernels import (
    check,
    composite,
    dense,
    hashgrid,
    march,
    occupancy,
    pixels,
    raycast,
    reference,
    rounds,
    self_check,
    shade,
    stages,
)
from nerfkit.types import Rays, Samples

CPU = torch.device("cpu")
Patch = pytest.MonkeyPatch


def changed(op: Callable[..., Any], change: Callable[..., Any]) -> Callable[..., Any]:
    """The operation with its result put through ``change``."""
    return lambda *inputs: change(op(*inputs))


def later(samples: Samples) -> Samples:
    return dataclasses.replace(samples, t_starts=samples.t_starts + 1e-3, t_ends=samples.t_ends + 1e-3)


def one_short(samples: Samples) -> Samples:
    """The last sample of the first ray that has one is missing."""
    ray = int(samples.packed_info[:, 1].nonzero()[0])
    counts = samples.packed_info[:, 1].clone()
    counts[ray] -= 1
    info = torch.stack([counts.cumsum(0).int() - counts, counts], 1)
    last = int(samples.packed_info[ray].sum()) - 1
    left = torch.arange(len(samples)) != last
    return Samples(info, samples.ray_indices[left], samples.t_starts[left], samples.t_ends[left], samples.n_owned - 1)


def swapped(x: Tensor) -> Tensor:
    return x[:, [1, 0, 2]]


def picks_of_the_next_pixel(patch: Patch) -> None:
    op = pixels.pixel_rays
    patch.setattr(pixels, "pixel_rays", lambda picked, views: op((picked + 1).clamp(max=picked.max()), views))


def views_end_one_later(patch: Patch) -> None:
    op, one = pixels.pixel_rays, torch.tensor([1, 0, 0])
    patch.setattr(pixels, "pixel_rays", lambda p, views: op(p, dataclasses.replace(views, places=views.places + one)))


def distance_for_cosine(patch: Patch) -> None:
    op = pixels.pixel_rays
    patch.setattr(pixels, "pixel_rays", changed(op, lambda rays: dataclasses.replace(rays, cos=1.0 / rays.cos)))


def another_prime(patch: Patch) -> None:
    patch.setattr(reference, "_PRIMES", (1, 2654435763, 805459861))


def no_half_cell(patch: Patch) -> None:
    encode = reference.encode

    def shifted(positions: Tensor, table: Tensor, layout: hashgrid.GridLayout) -> Tensor:
        half = torch.tensor([0.5 / scale for scale in layout.scales])
        features = [encode(positions - h, table, layout) for h in half]
        width = layout.n_features
        return torch.cat([f[:, i * width : (i + 1) * width] for i, f in enumerate(features)], 1)

    patch.setattr(reference, "encode", shifted)


def swapped_axes(patch: Patch) -> None:
    encode = reference.encode
    patch.setattr(reference, "encode", lambda x, *rest: encode(swapped(x), *rest))


def another_layout(patch: Patch) -> None:
    encode = reference.encode
    more = {"resolutions": lambda layout: tuple(r + 1 for r in layout.resolutions)}

    def denser(x: Tensor, table: Tensor, layout: hashgrid.GridLayout) -> Tensor:
        return encode(x, table, dataclasses.replace(layout, resolutions=more["resolutions"](layout)))

    patch.setattr(reference, "encode", denser)


def features_in_another_order(patch: Patch) -> None:
    patch.setattr(reference, "encode", changed(reference.encode, lambda f: f.view(len(f), -1, 4).flip(2).flatten(1)))


def other_cells(patch: Patch) -> None:
    cell_of = reference.cell_of
    patch.setattr(reference, "cell_of", lambda *inputs: cell_of(*inputs)[::-1])


def other_levels(patch: Patch) -> None:
    patch.setattr(reference, "level_of", lambda x, step, n_levels, resolution: n_levels - 1)


def march_one_short(patch: Patch) -> None:
    patch.setattr(march, "march", changed(march.march, one_short))


def march_later(patch: Patch) -> None:
    patch.setattr(march, "march", changed(march.march, later))


def jitter_left_out(patch: Patch) -> None:
    op = march.march
    patch.setattr(march, "march", lambda rays, jitter, *rest: op(rays, 0.0 * jitter, *rest))


def positions_at_starts(patch: Patch) -> None:
    op = march.sample_positions
    at_starts = lambda rays, samples: op(rays, dataclasses.replace(samples, t_ends=samples.t_starts))  # noqa: E731
    patch.setattr(march, "sample_positions", at_starts)


def no_background(patch: Patch) -> None:
    op = composite.composite
    patch.setattr(composite, "composite", lambda s, c, samples, b, *reach: op(s, c, samples, 0.0 * b, *reach))


def colors_swapped(patch: Patch) -> None:
    op = composite.composite
    patch.setattr(composite, "composite", lambda s, c, *rest: op(s, swapped(c), *rest))


def inclusive_transmittance(patch: Patch) -> None:
    op = composite.composite

    def first_left_out(sigmas: Tensor, rgbs: Tensor, samples: Samples, *rest: Any) -> tuple[Tensor, ...]:
        info = samples.packed_info + (samples.packed_info[:, 1:] > 0) * torch.tensor([1, -1], dtype=torch.int32)
        return op(sigmas, rgbs, dataclasses.replace(samples, packed_info=info), *rest)

    patch.setattr(composite, "composite", first_left_out)


def damping_left_out(patch: Patch) -> None:
    op = composite.composite
    patch.setattr(composite, "composite", lambda s, c, samples, b, reach=0.0: op(s, c, samples, b))


def wrong_gradient_only(patch: Patch) -> None:
    backward = composite._Composite.backward

    def scaled(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        sigmas, *rest = backward(ctx, *gradients)
        return sigmas * 1.0001, *rest

    patch.setattr(composite._Composite, "backward", staticmethod(scaled))


def cut_one_later(patch: Patch) -> None:
    op = composite.keep_visible
    patch.setattr(composite, "keep_visible", lambda samples, sigmas, stop: op(samples, sigmas, stop * 0.9))


def rows_shifted(patch: Patch) -> None:
    op = shade.take_rows
    patch.setattr(shade, "take_rows", lambda values, rows, n: op(values, rows.roll(1), n))


def all_rows_hand_back(patch: Patch) -> None:
    op = shade.take_rows
    patch.setattr(shade, "take_rows", lambda values, rows, n: op(values, rows, len(rows)))


def directions_of_the_next_ray(patch: Patch) -> None:
    op = shade.join_directions
    patch.setattr(shade, "join_directions", lambda f, h, rays: op(f, h.roll(1, 0), rays))


def a_sign_of_the_harmonics(patch: Patch) -> None:
    signs = torch.ones(16)
    signs[3] = -1.0
    patch.setattr(shade, "spherical_harmonics", changed(shade.spherical_harmonics, lambda h: h * signs))


def adam_without_correction(patch: Patch) -> None:
    op = reference.adam_step
    patch.setattr(reference, "adam_step", lambda *inputs: op(*inputs[:4], 1000, *inputs[5:]))


def decay_forgotten(patch: Patch) -> None:
    op = occupancy.fold
    patch.setattr(occupancy, "fold", lambda values, window, decay, stale: op(values, window, 1.0, stale))


def another_threshold(patch: Patch) -> None:
    op = occupancy.pack_bits
    patch.setattr(occupancy, "pack_bits", lambda values, threshold, res: op(values, threshold + 0.01, res))


def one_sample_unseen(patch: Patch) -> None:
    op = occupancy.observe

    def but_one(x: Tensor, samples: Samples, *rest: Any) -> None:
        op(x, dataclasses.replace(samples, n_owned=samples.n_owned - 1), *rest)

    patch.setattr(occupancy, "observe", but_one)


def whole_ray_without_a_layer_s_relu(patch: Patch) -> None:
    text_of = changed(dense.dense_text, lambda text: text.replace("if (1) y = y > 0", "if (0) y = y > 0"))
    patch.setattr(raycast, "dense_text", text_of)
    raycast._forward.cache_clear()


def whole_ray_backward_without_a_mask(patch: Patch) -> None:
    text_of = changed(dense.dense_text, lambda text: text.replace("if (1) y = op::load", "if (0) y = op::load"))
    patch.setattr(raycast, "dense_text", text_of)
    raycast._backward.cache_clear()


def whole_ray_with_another_harmonic(patch: Patch) -> None:
    patch.setattr(raycast, "HARMONICS", raycast.HARMONICS.replace("0.5462742152960396f", "0.5462742152960396f * 1.01f"))
    raycast._forward.cache_clear()


def whole_ray_of_even_steps(patch: Patch) -> None:
    patch.setattr(raycast, "MARCH", raycast.MARCH.replace("t * cone_angle", "min_step"))
    raycast._forward.cache_clear()


def whole_ray_of_plain_squares(patch: Patch) -> None:
    patch.setattr(raycast, "RAYS", raycast.RAYS.replace("lanes::clamp(e, -delta, delta)", "e"))
    raycast._forward.cache_clear()


def whole_ray_s_distortion_of_the_later_half(patch: Patch) -> None:
    patch.setattr(raycast, "BACKWARD", raycast.BACKWARD.replace("s * (earlier - later)", "s * (0.0f - later)"))
    raycast._backward.cache_clear()


def stages_that_stop_at_half(patch: Patch) -> None:
    patch.setattr(stages, "limits_of", changed(stages.limits_of, lambda limits: limits.clamp(max=0.7)))


def stages_without_their_last_sample(patch: Patch) -> None:
    patch.setattr(stages, "packed_within", changed(stages.packed_within, lambda info: info - (info > 0).int()))


def a_loss_of_plain_squares(patch: Patch) -> None:
    launch = stages.launch

    def without_bound(kernel: Any, n: int, inputs: list[Any], device: torch.device) -> None:
        if kernel is stages._judge:
            inputs[2] = 1e6
        launch(kernel, n, inputs, device)

    patch.setattr(stages, "launch", without_bound)


def rounds_that_begin_anew(patch: Patch) -> None:
    op = rounds.march_on
    patch.setattr(rounds, "march_on", lambda *inputs: op(*inputs[:-1], None))


def one_colour_for_alpha(patch: Patch) -> None:
    op = pixels.pixel_colors

    def turned(picked: torch.Tensor, pictures: pixels.Pictures, behind: torch.Tensor) -> torch.Tensor:
        return op(picked, pixels.Pictures([picture.flip(2) for picture in pictures.each]), behind)

    patch.setattr(pixels, "pixel_colors", turned)


def usable_from_the_second_on(patch: Patch) -> None:
    op = pixels.usable_pixels
    patch.setattr(pixels, "usable_pixels", lambda ranks, masks: op((ranks + 1).clamp(max=masks.n_usable - 1), masks))


FAULTS: dict[Callable[[Patch], None], str] = {
    picks_of_the_next_pixel: "pixel rays, bent, directions",
    views_end_one_later: "pixel rays, pinhole, origins",
    distance_for_cosine: "pixel rays, pinhole, cosines",
    one_colour_for_alpha: "pixel colours, 4 channels",
    usable_from_the_second_on: "usable pixels",
    another_prime: "hash grid",
    no_half_cell: "hash grid",
    swapped_axes: "hash grid",
    another_layout: "hash grid",
    features_in_another_order: "hash grid",
    other_cells: "march",
    other_levels: "march, even",
    march_one_short: "march",
    march_later: "march",
    jitter_left_out: "march",
    positions_at_starts: "sample positions",
    no_background: "composite, rgb",
    colors_swapped: "composite, rgb",
    inclusive_transmittance: "composite, opacity",
    damping_left_out: "composite, damped gradient",
    wrong_gradient_only: "composite, gradient",
    cut_one_later: "keep visible",
    rows_shifted: "take rows",
    all_rows_hand_back: "join and take, gradient",
    directions_of_the_next_ray: "join directions",
    a_sign_of_the_harmonics: "spherical harmonics",
    adam_without_correction: "adam, table",
    decay_forgotten: "occupancy, fold",
    another_threshold: "occupancy, bits",
    one_sample_unseen: "occupancy, observe",
    whole_ray_without_a_layer_s_relu: "whole rays, rgb",
    whole_ray_backward_without_a_mask: "whole rays, gradient of weights",
    whole_ray_with_another_harmonic: "whole rays, rgb",
    whole_ray_of_even_steps: "whole rays, samples",
    whole_ray_of_plain_squares: "learning, gradient of weights",
    whole_ray_s_distortion_of_the_later_half: "learning, gradient of weights",
    stages_that_stop_at_half: "by stages, learning, loss",
    stages_without_their_last_sample: "by stages, learning, gradient",
    a_loss_of_plain_squares: "by stages, learning, gradient of weights",
    rounds_that_begin_anew: "in rounds, rgb",
}


@pytest.fixture(autouse=True)
def compiled_anew() -> Iterator[None]:
    """A kernel of faulty text is not left to the next test."""
    yield
    raycast._forward.cache_clear()
    raycast._backward.cache_clear()


def agrees(name: str, error: float) -> bool:
    if name.startswith(("whole rays", "learning", "by stages", "in rounds")):
        return error <= (1e-3 if "gradient" in name or "table" in name else 3e-5)
    limit = 2e-3 if name.startswith(("march", "keep visible")) and "rows" not in name else TOLERANCES[torch.float32]
    return error <= (TOLERANCES[torch.bfloat16] if "bf16" in name else limit)


def test_without_a_fault_all_agree() -> None:
    errors = self_check(CPU)
    assert len(errors) > 25 and all(agrees(name, error) for name, error in errors.items()), errors


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_is_noticed(fault: Callable[[Patch], None], monkeypatch: Patch) -> None:
    fault(monkeypatch)
    noticed = [name for name, error in check.compare_all(CPU).items() if not agrees(name, error)]
    assert any(name.startswith(FAULTS[fault]) for name in noticed), noticed


class TestComparisons:
    def test_numbers_that_are_not_finite_are_no_match(self) -> None:
        for bad in (math.nan, math.inf):
            with pytest.raises(AssertionError, match="relative error inf"):
                assert_close(torch.tensor([1.0, bad]), torch.tensor([1.0, 2.0]))

    def test_shapes_must_be_the_same(self) -> None:
        with pytest.raises(AssertionError):
            assert_close(torch.zeros(3), torch.zeros(3, 1))

    def test_a_result_where_nothing_is_expected_is_no_match(self) -> None:
        with pytest.raises(AssertionError):
            assert_close(torch.tensor([1e-9]), torch.zeros(1))

    @pytest.mark.parametrize("change", [later, one_short])
    def test_samples_that_differ_are_no_match(self, change: Callable[[Samples], Samples]) -> None:
        rays = Rays(torch.rand(5, 3), torch.eye(3)[[0, 1, 2, 0, 1]], torch.ones(5))
        bits, blocks = occupancy.pack_bits(torch.ones(1, 32**3), 0.5, 32)
        stepping = march.Stepping(1, 32, 0.0, 0.02, 0.02)
        samples = reference.march(rays, torch.rand(5), bits, blocks, stepping)
        assert_same_samples(samples, samples)
        with pytest.raises(AssertionError, match="have no partner"):
            assert_same_samples(change(samples), samples)

    def test_owners_must_be_right(self) -> None:
        rays = Rays(torch.full((2, 3), 0.5), torch.eye(3)[:2], torch.ones(2))
        bits, blocks = occupancy.pack_bits(torch.ones(1, 32**3), 0.5, 32)
        samples = march.march(rays, torch.zeros(2), bits, blocks, march.Stepping(1, 32, 0.0, 0.02, 0.02))
        wrong = dataclasses.replace(samples, ray_indices=samples.ray_indices * 0)
        with pytest.raises(AssertionError, match="have no partner"):
            assert_same_samples(wrong, samples)
