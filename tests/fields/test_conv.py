"""The convolutional head: what it begins as, how far it reaches, and that strips of a picture are the picture."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nerfkit.fields import conv
from nerfkit.fields.conv import APRON, DeferredHead, SampleHead, corrected


def lively(n_features: int = 5, seed: int = 0) -> DeferredHead:
    head, generator = DeferredHead(n_features, 6, torch.Generator().manual_seed(seed)), torch.Generator()
    with torch.no_grad():
        for i, sides in enumerate(head.sides):
            sides.normal_(std=0.3, generator=generator.manual_seed(seed + 2 + i))
    return head


def picture(height: int, width: int, n_features: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    colors = torch.rand(height, width, 3, generator=generator)
    return torch.cat([colors, torch.randn(height, width, n_features, generator=generator)], -1)


def slow(x: Tensor, sides: Tensor, matrix: Tensor) -> Tensor:
    """y_p = M x_p + sum_t D_t (x_t - x_p), pixel by pixel (h, w, c); beyond the border is what is nearest."""
    height, width = x.shape[:2]
    around = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    out = torch.zeros(height, width, len(matrix))
    for y in range(height):
        for u in range(width):
            out[y, u] = matrix @ x[y, u]
            for t, (dy, dx) in enumerate(around):
                beside = x[min(max(y + dy, 0), height - 1), min(max(u + dx, 0), width - 1)]
                out[y, u] += sides[:, :, t] @ (beside - x[y, u])
    return out


def test_it_is_the_plain_formula() -> None:
    head, pixels = lively(), picture(5, 7)
    with torch.no_grad():
        hidden = torch.relu(slow(pixels[..., 3:], head.sides[0], head.matrix))
        wanted = pixels[..., :3] + 0.25 * torch.tanh(slow(hidden, head.sides[1], torch.zeros(3, 6)))
        assert torch.allclose(head(pixels[None])[0], wanted, atol=1e-5)


def test_a_pixel_among_its_like_stays_as_it_is() -> None:
    head, pixels = lively(), picture(5, 7)
    pixels[:, :4, 3:] = pixels[2, 2, 3:]
    with torch.no_grad():
        change = (head(pixels[None])[0] - pixels[..., :3]).abs().amax(-1)
    assert change[:, :2].max() < 1e-5
    assert change[:, 2:].min() > 1e-3


def test_what_has_met_nothing_stays_as_it_is() -> None:
    pixels = torch.cat([torch.rand(6, 6, 3), torch.zeros(6, 6, 5)], -1)
    with torch.no_grad():
        assert torch.equal(lively()(pixels[None])[0], pixels[..., :3])


def test_it_begins_by_changing_nothing() -> None:
    head = DeferredHead(5, 6, torch.Generator().manual_seed(0))
    pixels = picture(6, 8)
    assert torch.equal(corrected(head, pixels), pixels[..., :3])
    head(pixels[None]).sum().backward()
    assert head.sides[1].grad.abs().max() > 0


def test_a_correction_is_bounded() -> None:
    head, pixels = lively(), picture(6, 8)
    with torch.no_grad():
        head.sides[1].mul_(1e4)
        change = (head(pixels[None])[0] - pixels[..., :3]).abs()
    assert 0.2499 < change.max() <= 0.2501
    assert corrected(head, pixels).min() >= 0.0 and corrected(head, pixels).max() <= 1.0


def test_it_looks_no_further_than_its_apron() -> None:
    head, pixels = lively(), picture(15, 15)
    other = pixels.clone()
    other[7, 7] += 1.0
    with torch.no_grad():
        changed = (head(pixels[None]) != head(other[None]))[0].any(-1).nonzero()
    assert (changed - 7).abs().max() == APRON


@pytest.mark.parametrize("rows", [1, 2, 3, 50])
def test_strips_are_the_picture(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    head, pixels = lively(), picture(13, 9)
    with torch.no_grad():
        whole = head(pixels[None])[0].clamp(0, 1)
    monkeypatch.setattr(conv, "_STRIP", rows * 9)
    assert torch.allclose(corrected(head, pixels), whole, atol=1e-6)


SIZES = (9, 7, 6, 3)


def matrices(seed: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(b, a, generator=generator) / a**0.5 for a, b in zip(SIZES, SIZES[1:], strict=False)]


def lively_sample_head() -> SampleHead:
    head = SampleHead(SIZES)
    with torch.no_grad():
        for i, sides in enumerate(head.sides):
            sides.normal_(std=0.2, generator=torch.Generator().manual_seed(i))
    return head


def perceptron(x: Tensor, weights: list[Tensor]) -> Tensor:
    for w in weights[:-1]:
        x = torch.relu(x @ w.t())
    return x @ weights[-1].t()


def test_at_samples_it_begins_as_the_colour_network() -> None:
    x = torch.randn(2, 5, 4, 3, 9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(SampleHead(SIZES)(x, matrices()), perceptron(x, matrices()), rtol=1e-4, atol=1e-5)


def test_at_samples_like_neighbours_count_as_none() -> None:
    x = torch.randn(2, 1, 1, 3, 9, generator=torch.Generator().manual_seed(0)).expand(2, 5, 4, 3, 9)
    torch.testing.assert_close(lively_sample_head()(x, matrices()), perceptron(x, matrices()), rtol=1e-4, atol=1e-5)


def test_at_samples_it_is_the_plain_formula() -> None:
    head, weights = lively_sample_head(), matrices()
    x = torch.randn(1, 5, 4, 2, 9, generator=torch.Generator().manual_seed(0))
    values = x[0] @ weights[0].t()
    for matrix, sides in zip(weights[1:], head.sides, strict=True):
        hidden = torch.relu(values)
        values = torch.stack([slow(hidden[:, :, k], sides, matrix) for k in range(2)], 2)
    torch.testing.assert_close(head(x, weights)[0], values, rtol=1e-4, atol=1e-5)


def test_at_samples_it_looks_no_further_than_its_apron_and_at_no_other_sample() -> None:
    head = lively_sample_head()
    x = torch.randn(1, 15, 15, 3, 9, generator=torch.Generator().manual_seed(0))
    other = x.clone()
    other[0, 7, 7, 1] += 1.0
    with torch.no_grad():
        changed = (head(x, matrices()) != head(other, matrices())).any(-1)[0].nonzero()
    assert (changed[:, :2] - 7).abs().max() == head.apron == 2
    assert changed[:, 2].unique().tolist() == [1]
