"""Widths that are learnt: what a mixture shows, what moves the logits, and that the price is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small import CONFIG as SMALL

from nerfkit.config import DataConfig, FieldConfig
from nerfkit.fields.hash import HashField
from nerfkit.scene import load_scene
from nerfkit.scene.scene import Scene
from nerfkit.sparsity.ratios import PruneError
from nerfkit.sparsity.shape import BAND, WidthSearch, multiplications, search_shapes
from nerfkit.train.loop import model_of
from nerfkit.train.training import Training

CONFIG = replace(SMALL, field=replace(SMALL.field, width=64))


@pytest.fixture
def scene(toy_scene: Path) -> Scene:
    return load_scene(toy_scene, DataConfig())


@pytest.mark.parametrize("layers", [(1, 1), (1, 2), (3, 2)])
def test_multiplications_are_as_many_as_weights(layers: tuple[int, int]) -> None:
    config = FieldConfig(log2_table_size=8, width=48, color_width=16, density_layers=layers[0], color_layers=layers[1])
    field = HashField(config, torch.device("cpu"))
    assert multiplications(config, 48, 16) == sum(w.numel() for w in field.network_parameters())


def test_the_networks_are_as_wide_as_was_drawn_and_the_weights_behind_come_back(scene: Scene) -> None:
    training = Training.new(scene, model_of(scene, CONFIG))
    field, search = training.model.field, WidthSearch(training.model.field, 3000.0)
    with torch.no_grad():  # a density network of 16 neurons, a colour network of 48
        search.logits.copy_(torch.tensor([[40.0, 0.0, 0.0, 0.0], [0.0, 0.0, 40.0, 0.0]]))
    before = {name: w.detach().clone() for name, w in field.named_parameters()}
    training.clock.step = CONFIG.train.steps  # at the end widths are hardly mixed
    search.after_step(training)
    for name, width in (("density_network", 16), ("color_network", 48)):
        w, own = field.get_parameter(f"{name}.weights.0").detach(), before[f"{name}.weights.0"]
        torch.testing.assert_close(w[:width], own[:width])
        assert float(w[width:].abs().max()) < 1e-6
    training.learn(training.n_rays)
    search.before_step(training)
    for name, w in field.named_parameters():
        assert torch.equal(w, before[name])
    assert float(field.density_network.weights[0].grad[16:].abs().max()) < 1e-6


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_logits_go_where_the_loss_falls(scene: Scene, sign: float) -> None:
    """A loss that falls with the neurons beyond the sixteenth, or rises, where the price takes no part."""
    training = Training.new(scene, model_of(scene, CONFIG))
    search = WidthSearch(training.model.field, 1.0)
    for _ in range(60):
        search.after_step(training)
        expected = search.logits.detach().softmax(1) @ torch.tensor([16.0, 32.0, 48.0, 64.0])
        search.wanted = float(multiplications(search.config, expected[0], expected[1]))
        for hidden in search._hidden:
            for w in hidden:
                w.grad = torch.zeros_like(w)
                w.grad[16:] = sign * w.detach()[16:].sign()
        search.before_step(training)
    narrow, wide = search.logits.detach()[:, 0], search.logits.detach()[:, -1]
    assert bool((wide > narrow).all()) if sign < 0 else bool((wide < narrow).all())


def test_a_search_keeps_to_its_price_and_names_a_field_that_trains(scene: Scene) -> None:
    full = multiplications(CONFIG.field, 64, 64)
    found = search_shapes(scene, CONFIG, 0.5, ((1, 1), (1, 2)))
    assert {one.field.color_layers for one in found} == {1, 2}
    assert found[0].psnr >= found[1].psnr
    for one in found:
        field = one.field
        assert multiplications(field, field.width, field.color_width) == pytest.approx(one.share * full)
        assert one.share <= 0.5 * (1 + BAND)
    model = model_of(scene, replace(CONFIG, field=found[0].field))
    assert model.field.color_network.sizes[1] == found[0].field.color_width


def test_a_share_that_leaves_no_room_is_refused(scene: Scene) -> None:
    with pytest.raises(PruneError, match="too little"):
        search_shapes(scene, CONFIG, 0.1)
