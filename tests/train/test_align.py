"""Patches are laid where they fit: against plain loops, and where the answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nerfkit.train.align import Alignment, Matches, matches, structural_distance

SIZE, REACH = 12, 2
ALL = torch.ones(1, 2 * REACH + 1, 2 * REACH + 1, dtype=torch.bool)


def clouds(n: int, side: int, seed: int = 0) -> Tensor:
    """Smooth pictures (n, side, side, 3) with detail of a few pixels."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, side // 3 + 2, side // 3 + 2, generator=generator)
    return F.interpolate(coarse, (side, side), mode="bicubic", align_corners=True).clamp(0, 1).permute(0, 2, 3, 1)


def shifted(pictures: Tensor, dx: float, dy: float, margin: int) -> Tensor:
    """What stands at x + d of the pictures, at x; without a margin."""
    n, side = pictures.shape[:2]
    at = torch.arange(margin, side - margin).float()
    y, x = torch.meshgrid(at + dy, at + dx, indexing="ij")
    places = (2 * torch.stack([x, y], -1) / (side - 1) - 1).expand(n, -1, -1, -1)
    out = F.grid_sample(pictures.permute(0, 3, 1, 2), places, mode="bicubic", align_corners=True)
    return out.permute(0, 2, 3, 1)


def slow_distance(patch: Tensor, window: Tensor) -> Tensor:
    size, n = len(patch), len(window) - len(patch) + 1
    out = torch.zeros(n, n, dtype=torch.float64)
    for y in range(n):
        for x in range(n):
            similarity = 0.0
            for c in range(3):
                p, g = patch[..., c].double(), window[y : y + size, x : x + size, c].double()
                top = (2 * p.mean() * g.mean() + 1e-4) * (2 * ((p - p.mean()) * (g - g.mean())).mean() + 9e-4)
                spread = ((p - p.mean()) ** 2).mean() + ((g - g.mean()) ** 2).mean() + 9e-4
                similarity += top / ((p.mean() ** 2 + g.mean() ** 2 + 1e-4) * spread) / 3
            out[y, x] = (1 - similarity) / 2
    return out


def test_the_distance_is_that_of_the_plain_loop() -> None:
    windows, patches = clouds(3, SIZE + 2 * REACH), clouds(3, SIZE, seed=1)
    patches[2] = 0.999  # flat and bright, where variances are differences of large sums
    windows[2] = 1.0
    found = structural_distance(patches, windows)
    for i in range(3):
        assert torch.allclose(found[i].double(), slow_distance(patches[i], windows[i]), atol=1e-5)


@pytest.mark.parametrize("offset", [(0, 0), (1, 0), (-2, 1), (2, 2)])
def test_whole_offsets_are_found(offset: tuple[int, int]) -> None:
    windows = clouds(4, SIZE + 2 * REACH)
    patches = shifted(windows, *offset, REACH)
    found = matches(patches, windows, ALL.expand(4, -1, -1), 0.05)
    assert torch.equal(found.offsets, torch.tensor([offset] * 4))
    assert torch.allclose(found.truth, patches, atol=1e-4)


def test_offsets_between_pixels_are_found() -> None:
    windows = clouds(16, SIZE + 2 * REACH + 2)
    for offset in ((0.3, -0.4), (-0.6, 1.2)):
        patches = shifted(windows, *offset, REACH + 1)
        found = matches(patches, windows[:, 1:-1, 1:-1], ALL.expand(16, -1, -1), 0.05)
        assert (found.sureness > 0).all()
        assert (found.finer - torch.tensor(offset)).abs().mean() < 0.1


def test_what_is_beyond_the_border_is_no_match() -> None:
    windows = clouds(1, SIZE + 2 * REACH)
    patches = shifted(windows, 2, 0, REACH)
    inside = ALL.clone()
    inside[:, :, -1] = False
    found = matches(patches, windows, inside, 0.05)
    assert found.offsets[0, 0] < 2
    nothing = matches(patches, windows, torch.zeros_like(ALL), 0.05)
    assert nothing.offsets.tolist() == [[0, 0]] and nothing.sureness.tolist() == [[0.0, 0.0]]


def test_an_offset_has_its_price() -> None:
    windows = clouds(2, SIZE + 2 * REACH)
    patches = shifted(windows, 1, 1, REACH)
    inside = ALL.expand(2, -1, -1)
    assert matches(patches, windows, inside, 100.0).offsets.abs().sum() == 0
    flat = torch.full_like(patches, 0.3)
    assert matches(flat, torch.full_like(windows, 0.3), inside, 0.05).offsets.abs().sum() == 0


def test_the_match_is_no_function_of_the_patch() -> None:
    windows = clouds(1, SIZE + 2 * REACH)
    patches = clouds(1, SIZE, 1).requires_grad_()
    found = matches(patches, windows, ALL, 0.05)
    assert not found.truth.requires_grad and not found.finer.requires_grad


def test_drift_is_the_mean_that_sure_patches_agree_on_less_that_of_all_views() -> None:
    alignment = Alignment(3, 3)
    offsets = torch.tensor([[1.0, 0.0], [3.0, 0.0], [-1.0, 2.0]])
    sureness = torch.tensor([[1.0, 1.0], [3.0, 0.0], [1.0, 0.0]])
    found = Matches(offsets.round().long(), offsets, sureness, torch.zeros(3, 1, 1, 3))
    alignment.observe(torch.tensor([0, 0, 2]), found)
    wanted = torch.tensor([[1.75, 0.0], [0.0, 0.0], [-1.75, 0.0]])  # of 2.5 and -1; the second view says nothing
    assert alignment.counts[3, 4] == alignment.counts[3, 6] == alignment.counts[5, 2] == 1
    assert alignment.is_due(0.25) and not alignment.is_due(0.24)
    assert torch.allclose(alignment.take(), wanted)
    assert alignment.take().abs().sum() == 0 and not alignment.is_due(0.34)
    assert alignment.counts.sum() == 3, "what is drawn is of the whole training"
    again = Alignment(3, 3)
    again.load_state_dict(alignment.state_dict())
    assert again.is_due(0.35) and torch.equal(again.counts, alignment.counts)
