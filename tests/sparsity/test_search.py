"""Searches of masks: tickets go back to where they began, jackpots move no weight, the best of many is no worse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small import CONFIG as SMALL

from nerfkit.assess import scene_of
from nerfkit.config import DataConfig
from nerfkit.run import Run
from nerfkit.scene import load_scene
from nerfkit.scene.scene import Scene
from nerfkit.sparsity.again import take_up
from nerfkit.sparsity.criteria import error_now
from nerfkit.sparsity.search import MaskSearch, best_of_random, jackpot, popup
from nerfkit.sparsity.tickets import Ticket, tickets
from nerfkit.train.loop import fit, model_of
from nerfkit.train.training import Training

CONFIG = replace(SMALL, train=replace(SMALL.train, steps=10))


@pytest.fixture
def scene(toy_scene: Path) -> Scene:
    return load_scene(toy_scene, DataConfig())


@pytest.fixture
def training(small_run: Path) -> Training:
    run = Run.open(small_run)
    return take_up(run, scene_of(run))


def kept(ticket: Ticket) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in ticket.masks.items()}


def test_each_round_prunes_a_share_and_counts_its_steps(scene: Scene) -> None:
    found = list(tickets(scene, CONFIG, 3, 0.2, rewind=4))
    total = sum(mask.numel() for mask in found[0].masks.values())
    left = [total]
    for _ in range(3):
        left.append(left[-1] - round(0.2 * left[-1]))
    assert [sum(kept(ticket).values()) for ticket in found] == left
    assert [ticket.n_steps for ticket in found] == [10, 16, 22, 28]
    for ticket, before in zip(found[1:], found, strict=False):
        for name, mask in ticket.masks.items():
            assert not bool((ticket.model.field.get_parameter(name)[~mask] != 0).any())
            assert not bool((mask & ~before.masks[name]).any())


def test_a_ticket_of_all_weights_is_the_dense_field_again(scene: Scene) -> None:
    """Going back and training on gives what was there, bit for bit, if nothing is pruned and rays are drawn alike."""
    dense, again = tickets(scene, CONFIG, 1, 0.0, rewind=0)
    assert all(bool(mask.all()) for mask in again.masks.values())
    for name, value in dense.model.field.state_dict().items():
        assert torch.equal(value, again.model.field.state_dict()[name])


def test_controls_change_what_they_should_and_only_that(scene: Scene) -> None:
    plain, reinit, reprune = (list(tickets(scene, CONFIG, 3, 0.4, 3, c))[3] for c in ("none", "reinit", "reprune"))
    assert kept(plain) == kept(reinit) == kept(reprune) and plain.n_steps == reinit.n_steps == reprune.n_steps
    assert all(torch.equal(plain.masks[name], reinit.masks[name]) for name in plain.masks)
    assert any(not torch.equal(plain.masks[name], reprune.masks[name]) for name in plain.masks)
    name = "color_network.weights.0"
    assert not torch.equal(plain.model.field.get_parameter(name), reinit.model.field.get_parameter(name))


def searched(training: Training, search: MaskSearch, steps: int = 6) -> MaskSearch:
    config = training.model.config
    config = replace(config, train=replace(config.train, steps=steps))
    model = replace(training.model, config=config)
    for _ in fit(training.pixels.scene, config, training=replace(training, model=model, policies=[search])):
        pass
    return search


@pytest.mark.parametrize("restricted", [False, True])
def test_a_jackpot_moves_masks_and_no_number(training: Training, restricted: bool) -> None:
    field = training.model.field
    before = {name: value.clone() for name, value in field.state_dict().items()}
    search = jackpot(field, 0.8, restricted)
    first = {name: mask.clone() for name, mask in search.masks.items()}
    searched(training, search)
    assert torch.equal(field.table.detach(), before["table"])
    for name, mask in search.masks.items():
        assert int(mask.sum()) == int(first[name].sum()) == search.counts[name]
        assert torch.equal(field.get_parameter(name).detach(), before[name] * mask)
    assert any(not torch.equal(search.masks[name], first[name]) for name in first)
    total = sum(mask.numel() for mask in first.values())
    assert sum(search.counts.values()) == total - round(0.8 * total)


def test_a_jackpot_is_better_than_what_it_began_with(training: Training) -> None:
    search = jackpot(training.model.field, 0.7)
    began = error_now(training, 4)
    searched(training, search, 80)
    assert error_now(training, 4) < began


def test_random_signs_stay_what_they_were_and_the_table_learns(scene: Scene) -> None:
    model = model_of(scene, CONFIG)
    search, before = popup(model.field, 0.5, 0), model.field.table.detach().clone()
    for _ in fit(scene, CONFIG, model=model, policies=[search]):
        pass
    for name, mask in search.masks.items():
        w = model.field.get_parameter(name).detach()
        assert w.abs().unique().numel() == 2 and bool((w[~mask] == 0).all())
    assert not torch.equal(model.field.table.detach(), before)


def test_the_state_of_a_search_comes_back(training: Training) -> None:
    search = searched(training, jackpot(training.model.field, 0.6))
    other = jackpot(training.model.field, 0.6)
    other.load_state_dict(search.state_dict(), training)
    assert all(torch.equal(other.masks[name], search.masks[name]) for name in search.masks)


def test_the_best_of_many_is_the_best_and_nothing_is_changed(training: Training) -> None:
    before = {name: value.clone() for name, value in training.model.field.state_dict().items()}
    masks, errors = best_of_random(training, 0.5, 5, 0)
    _, fewer = best_of_random(training, 0.5, 3, 0)
    assert fewer == errors[:3] and len(set(errors)) > 1
    assert {int(mask.sum()) for mask in masks.values()} == {8}
    for name, value in training.model.field.state_dict().items():
        assert torch.equal(value, before[name])
