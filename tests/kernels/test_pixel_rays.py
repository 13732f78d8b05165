"""Rays of pixels: beside their twin, in closed form, at the borders of views, and in threads."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from compare import assert_close
from torch.nn import functional as F

from nerfkit.kernels import launch as launching
from nerfkit.kernels import reference
from nerfkit.kernels.pixels import Views, pixel_rays
from nerfkit.types import Rays

CPU = torch.device("cpu")
SIZES = {"one": [(7, 5)], "alike": [(8, 6)] * 4, "mixed": [(30, 20), (1, 1), (7, 90), (64, 1), (1, 33), (30, 20)]}
"""Widths and heights of the views' pictures."""


def make(sizes: list[tuple[int, int]], bent: bool, device: torch.device) -> Views:
    """Views with random cameras; a bent lens's table has its parts in the opposite order of the views."""
    generator = torch.Generator().manual_seed(len(sizes))
    n, (widths, heights) = len(sizes), torch.tensor(sizes).T
    counts = widths * heights
    ends = counts.cumsum(0)
    bases = ends - counts
    if bent:
        bases = bases - (counts.sum() - ends)
    c2w = torch.cat([torch.randn(n, 3, 3, generator=generator), torch.rand(n, 3, 1, generator=generator)], 2)
    intrinsics = torch.cat([20.0 + 10.0 * torch.rand(n, 2, generator=generator), torch.tensor(sizes) / 3.0], 1)
    directions = F.normalize(torch.randn(int(ends[-1]) if bent else 0, 3, generator=generator), dim=1)
    columns = (torch.stack([ends, bases, widths], 1), c2w, intrinsics, directions)
    return Views(*(column.to(device) for column in columns))


def all_pixels(views: Views) -> torch.Tensor:
    return torch.arange(int(views.places[-1, 0]), device=views.places.device)


def assert_same(actual: Rays, expected: Rays) -> None:
    for field in dataclasses.fields(Rays):
        assert_close(getattr(actual, field.name), getattr(expected, field.name))


@pytest.mark.parametrize("bent", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
def test_rays_are_those_of_the_twin(sizes: str, bent: bool, device: torch.device) -> None:
    views = make(SIZES[sizes], bent, device)
    picked = all_pixels(views)
    picked = picked[torch.randint(len(picked), (3000,), generator=torch.Generator().manual_seed(0)).to(device)]
    assert_same(pixel_rays(picked, views), reference.pixel_rays(picked, views))


@pytest.mark.parametrize("sizes", SIZES)
def test_pixels_lie_line_by_line_and_view_after_view(sizes: str, device: torch.device) -> None:
    views = make(SIZES[sizes], False, device)
    rays, row = pixel_rays(all_pixels(views), views), 0
    for view, (width, height) in enumerate(SIZES[sizes]):
        fl_x, fl_y, cx, cy = views.intrinsics[view].tolist()
        axes, position = views.c2w[view].cpu().double().split([3, 1], 1)
        for y in range(height):
            for x in range(width):
                local = torch.tensor([(x + 0.5 - cx) / fl_x, (y + 0.5 - cy) / fl_y, 1.0], dtype=torch.float64)
                local = local / math.sqrt(local @ local)
                assert_close(rays.rays_d[row], axes @ local)
                assert_close(rays.rays_o[row], position[:, 0])
                assert_close(rays.cos[row], local[2])
                row += 1
    assert row == len(rays)


def test_bent_lenses_look_where_the_table_says(device: torch.device) -> None:
    views = make(SIZES["mixed"], True, device)
    rays, n = pixel_rays(all_pixels(views), views), len(views.directions)
    start = 0
    for view, (width, height) in enumerate(SIZES["mixed"]):
        end = start + width * height
        table = views.directions[n - end : n - start]
        assert_close(rays.rays_d[start:end], table @ views.c2w[view, :, :3].T)
        assert torch.equal(rays.cos[start:end], table[:, 2])
        start = end


def test_a_camera_without_a_turn_looks_ahead(device: torch.device) -> None:
    places, lens = torch.tensor([[9, 0, 3]]), torch.tensor([[2.0, 4.0, 1.5, 1.5]])
    views = Views(
        places.to(device), torch.eye(3, 4, device=device)[None], lens.to(device), torch.empty(0, 3).to(device)
    )
    rays = pixel_rays(torch.tensor([4, 5, 7], device=device), views)
    right, below = 1.0 / math.hypot(1.0, 0.5), 1.0 / math.hypot(1.0, 0.25)
    expected = torch.tensor([[0.0, 0.0, 1.0], [0.5 * right, 0.0, right], [0.0, 0.25 * below, below]])
    assert_close(rays.rays_d, expected)
    assert_close(rays.cos, expected[:, 2])
    assert not rays.rays_o.any()


def test_no_pixels(device: torch.device) -> None:
    rays = pixel_rays(torch.empty(0, dtype=torch.int64, device=device), make(SIZES["one"], False, device))
    assert rays.rays_o.shape == rays.rays_d.shape == (0, 3) and rays.cos.shape == (0,)


@pytest.mark.parametrize("n_threads", [1, 2, 3, 8])
@pytest.mark.parametrize("bent", [False, True])
def test_threads_do_not_matter(bent: bool, n_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    views = make(SIZES["mixed"], bent, CPU)
    picked = all_pixels(views)
    monkeypatch.setattr(launching, "prepare_cpu", lambda: n_threads)
    whole = pixel_rays(picked, views)
    parts = launching.parallel(lambda part: pixel_rays(part, views), picked.split(100), CPU)
    for field in dataclasses.fields(Rays):
        rows = torch.cat([getattr(part, field.name) for part in parts])
        assert torch.equal(rows, getattr(whole, field.name))
