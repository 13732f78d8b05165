"""Cameras of nobody's look at what the training cameras look at, from between them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import write_ball

from nerfkit.config import DataConfig
from nerfkit.scene import load_scene
from nerfkit.stego.views import views_between


@pytest.mark.parametrize("n_train", [1, 8])
def test_they_are_nearer_and_further_and_look_at_it(tmp_path: Path, n_train: int) -> None:
    """A scene of a single photograph has them, too: before and behind its one camera."""
    scene = load_scene(write_ball(tmp_path, n_train, 32), DataConfig())
    views = views_between(scene, 40, 24, 0)
    assert len(views) == 40 and set(views.width.tolist()) == set(views.height.tolist()) == {24}
    center = np.array(scene.frame.center)
    before = np.linalg.norm(scene.cameras.c2w[scene.splits["train"], :, 3].numpy() - center, axis=1)
    away = center - views.c2w[:, :, 3].numpy()
    distances = np.linalg.norm(away, axis=1)
    assert distances.min() < 0.85 * before.min() and distances.max() > 1.2 * before.min()
    forward = views.c2w[:, :, 2].numpy()
    assert (np.einsum("ni,ni->n", forward, away) / distances).min() > 0.9
