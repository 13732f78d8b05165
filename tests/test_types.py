"""The shape checker is on: a wrong shape does fail. Were it off, no other test would notice."""

from __future__ import annotations

import jaxtyping
import pytest
import torch

from nerfkit.cameras import Cameras
from nerfkit.charts import duration
from nerfkit.types import Field, Rays


def rays(n: int) -> Rays:
    return Rays(torch.zeros(n, 3), torch.tensor([[0.0, 0.0, 1.0]]).expand(n, 3), torch.ones(n))


def test_a_wrong_shape_fails() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="rays_o"):
        Rays(torch.zeros(5, 4), torch.zeros(5, 3), torch.zeros(5))


def test_shapes_that_do_not_agree_fail() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="rays_d"):
        Rays(torch.zeros(5, 3), torch.zeros(6, 3), torch.zeros(5))


def test_a_wrong_dtype_fails() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        Rays(torch.zeros(5, 3, dtype=torch.int32), torch.zeros(5, 3), torch.zeros(5))


def test_arguments_of_functions_are_checked_too() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        Cameras.pinhole(torch.zeros(2, 4, 4), 10.0, 8, 8)
    with pytest.raises(jaxtyping.TypeCheckError):
        duration("long")


def test_rays_are_cut_like_a_list() -> None:
    whole = rays(5)
    assert len(whole) == 5
    assert len(whole[1:3]) == 2
    assert torch.equal(whole[torch.tensor([4, 0])].rays_d, whole.rays_d[:2])


def test_protocols_are_checked_when_it_runs() -> None:
    assert not isinstance(rays(1), Field)
