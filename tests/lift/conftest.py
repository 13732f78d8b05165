"""A ball in a picture, and a prior that has learnt nothing, for whom the other sides do not matter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ball_photo import ball
from PIL import Image
from safetensors.torch import save_file

from nerfkit.lift.prior import LiftNet


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """An opaque picture of the ball."""
    path = tmp_path / "ball.png"
    Image.fromarray(ball()[0]).save(path)
    return path


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a prior that has learnt nothing."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("prior") / "prior.safetensors"
    save_file({name: tensor.half().contiguous() for name, tensor in LiftNet().state_dict().items()}, path)
    return path
