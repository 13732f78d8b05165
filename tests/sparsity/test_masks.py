"""Masks: exact counts, shares as their formulas have them, nothing cut off, and files that bring them back."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch.nn.utils import prune

from nerfkit.config import FieldConfig
from nerfkit.fields.hash import HashField
from nerfkit.sparsity import masks as m
from nerfkit.sparsity.ratios import RATIOS, PruneError, n_kept, whole_counts
from nerfkit.sparsity.spaces import SPACES, gathered, on_parameters, parts_of

LAYERS = [(64, 32), (16, 64), (64, 31), (64, 64), (3, 64)]


def random_chain(rng: random.Random) -> list[tuple[int, int]]:
    sizes = [rng.randint(3, 70) for _ in range(rng.randint(2, 5))]
    return [(n_out, n_in) for n_in, n_out in zip(sizes, sizes[1:], strict=False)]


def test_a_thousand_random_networks_are_masked_exactly_and_stay_connected() -> None:
    rng, refused = random.Random(0), 0
    for trial in range(1000):
        shapes = random_chain(rng)
        fraction, ratio = rng.choice([0.0, 0.3, 0.5, 0.8, 0.9, 0.95, 0.99]), rng.choice(sorted(RATIOS))
        names = tuple(f"layer{i}" for i in range(len(shapes)))
        sizes = [math.prod(shape) for shape in shapes]
        total, n_outputs = n_kept(sum(sizes), fraction), shapes[-1][0]
        try:
            shares = RATIOS[ratio](shapes, total / sum(sizes))
            counts = whole_counts(sizes, shares, total)
            scores = m.random_scores(dict(zip(names, shapes, strict=True)), trial)
            masks = m.with_paths(m.draw(scores, dict(zip(names, counts, strict=True))), scores, {names: n_outputs})
        except PruneError:
            refused += 1
            assert fraction >= 0.3  # a mild pruning is never refused, but by a ratio that keeps a layer whole
            continue
        kept = [int(masks[name].sum()) for name in names]
        assert sum(kept) == total and kept == counts
        assert all(abs(n - share * size) < 1 for n, share, size in zip(kept, shares, sizes, strict=True))
        assert bool(m.connected([masks[name] for name in names])[-1].all())
    assert refused < 400


@pytest.mark.parametrize(
    ("density", "shares"), [(0.2, [0.197, 0.328, 0.201, 0.131, 1.0]), (0.05, [0.047, 0.078, 0.048, 0.031, 0.35])]
)
def test_erk_has_the_shares_of_its_formula(density: float, shares: list[float]) -> None:
    found = RATIOS["erk"](LAYERS, density)
    assert found == pytest.approx(shares, abs=5e-4)
    epsilon = [s * math.prod(shape) / sum(shape) for s, shape in zip(found, LAYERS, strict=True) if s < 1]
    assert max(epsilon) == pytest.approx(min(epsilon))


@pytest.mark.parametrize("ratio", sorted(RATIOS))
@pytest.mark.parametrize("density", [1.0, 0.7, 0.5, 0.3])
def test_shares_are_together_what_was_asked_for(ratio: str, density: float) -> None:
    shapes = [(16, 8, 8), *LAYERS]
    shares = RATIOS[ratio](shapes, density)
    kept = sum(s * math.prod(shape) for s, shape in zip(shares, shapes, strict=True))
    assert kept == pytest.approx(density * sum(map(math.prod, shapes)))
    assert all(0 <= s <= 1 for s in shares)


def test_uniform_plus_and_erk_plus_keep_what_they_promise() -> None:
    plus = RATIOS["uniform+"](LAYERS, 0.27)
    assert plus[0] == 1.0 and plus[-1] == 0.2 and len(set(plus[1:-1])) == 1 and plus[1] < 0.2
    assert RATIOS["erk+"](LAYERS, 0.05)[-1] == 1.0
    for ratio, density in (("uniform+", 0.1), ("erk+", 0.01)):
        with pytest.raises(PruneError, match="too few"):
            RATIOS[ratio](LAYERS, density)


def test_the_kernel_takes_part_in_erk_alone() -> None:
    shapes = [(16, 8, 8), (3, 16, 8), (64, 64)]
    assert RATIOS["er"](shapes, 0.2) != RATIOS["erk"](shapes, 0.2)
    assert RATIOS["er"](LAYERS, 0.2) == RATIOS["erk"](LAYERS, 0.2)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 1.5, math.nan])
def test_fractions_that_are_none_are_refused(fraction: float) -> None:
    with pytest.raises(PruneError, match="below 1"):
        n_kept(100, fraction)


def test_equal_scores_are_kept_in_their_order() -> None:
    ones = torch.ones(5, 7)
    assert m.largest(ones, 11).view(-1).nonzero()[:, 0].tolist() == list(range(11))
    counts = m.counts_of_all({"a": ones, "b": ones}, 40)
    assert counts == {"a": 35, "b": 5}


def test_an_output_that_would_be_cut_off_keeps_its_best_path() -> None:
    scores = {"a": torch.rand(6, 4) + 1, "b": torch.rand(3, 6) + 1}
    scores["b"][1] *= 1e-3  # no weight of the second output is among the best
    masks = m.draw(scores, {"a": 8, "b": 6})
    assert not bool(masks["b"][1].any())
    kept = m.with_paths(masks, scores, {("a", "b"): 3})
    assert bool(m.connected([kept["a"], kept["b"]])[-1].all())
    assert {name: int(mask.sum()) for name, mask in kept.items()} == {"a": 8, "b": 6}
    assert int((kept["b"] & ~masks["b"]).sum()) == 1 and bool((kept["a"] == masks["a"]).all())
    with pytest.raises(PruneError, match="2 weights would stay, 3 are needed"):
        m.with_paths(m.draw(scores, {"a": 8, "b": 2}), scores, {("a", "b"): 3})


def test_nothing_left_of_a_layer_is_refused() -> None:
    with pytest.raises(PruneError, match="nothing of b"):
        m.draw({"a": torch.rand(9), "b": torch.rand(9)}, {"a": 3, "b": 0})


def test_packed_masks_come_back() -> None:
    mask = torch.rand(13, 7) > 0.6
    packed = m.pack(mask)
    assert len(packed) == 12 and torch.equal(m.unpack(packed, (13, 7)), mask)


def test_torch_reads_our_masks_and_we_read_torchs() -> None:
    layer = torch.nn.Linear(8, 4, bias=False)
    mask = m.largest(layer.weight.detach().abs(), 9)
    ours = m.to_torch({"weight": layer.weight.detach(), "other": torch.ones(2)}, {"weight": mask})
    theirs = torch.nn.Linear(8, 4, bias=False)
    prune.identity(theirs, "weight")
    assert set(theirs.state_dict()) == set(ours) - {"other"}
    theirs.load_state_dict({name: value for name, value in ours.items() if name != "other"})
    x = torch.rand(3, 8)
    assert torch.equal(theirs(x), x @ (layer.weight * mask).t())
    values, masks = m.from_torch({**theirs.state_dict(), "other": torch.ones(2)})
    assert torch.equal(masks["weight"], mask) and torch.equal(values["weight"], layer.weight * mask)
    assert torch.equal(values["other"], torch.ones(2))


@pytest.mark.parametrize("space", sorted(SPACES))
def test_units_spread_to_their_numbers_and_gather_from_them(space: str) -> None:
    config = FieldConfig(n_levels=4, log2_table_size=9, base_resolution=4, finest_resolution=32, head="deferred")
    field = HashField(config, torch.device("cpu"))
    parts = parts_of(field, space)
    shapes = {part.name: part.shape for part in parts}
    units = {name: score > 0.4 for name, score in m.random_scores(shapes, 0).items()}
    spread = on_parameters(field, parts, units)
    sizes = gathered(parts, {name: torch.ones_like(mask, dtype=torch.float64) for name, mask in spread.items()})
    inside = gathered(parts, {name: mask.double() for name, mask in spread.items()})
    for part in parts:
        assert sizes[part.name].shape == part.shape and float(sizes[part.name].min()) >= 1
        assert torch.equal(inside[part.name], sizes[part.name] * units[part.name])
    n_numbers = sum(int(size.sum()) for size in sizes.values())
    whole = {part.parameter for part in parts}
    if space != "neurons":  # of which the last layer of a network has none
        assert n_numbers == sum(field.get_parameter(name).numel() for name in whole)


def test_a_field_without_a_head_has_no_kernels() -> None:
    with pytest.raises(PruneError, match="no kernels"):
        parts_of(HashField(FieldConfig(log2_table_size=9), torch.device("cpu")), "kernels")
