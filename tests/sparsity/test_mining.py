"""Rays sent where there is most to learn: to what a pruned copy forgets, and none for a while to what nobody does."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small import CONFIG

from nerfkit.assess import scene_of
from nerfkit.config import ConfigError, DataConfig, TrainConfig, check
from nerfkit.render import render_rays
from nerfkit.run import Run
from nerfkit.scene import load_scene
from nerfkit.scene.scene import Scene
from nerfkit.sparsity.again import take_up
from nerfkit.sparsity.mining import Mining
from nerfkit.sparsity.pruning import policies_of
from nerfkit.train.loop import fit, model_of
from nerfkit.train.training import Training


@pytest.fixture
def scene(toy_scene: Path) -> Scene:
    return load_scene(toy_scene, DataConfig())


@pytest.fixture
def training(small_run: Path) -> Training:
    run = Run.open(small_run)
    taken = take_up(run, scene_of(run))
    taken.clock.n_rays = 10**6
    return taken


def looked(training: Training, times: int = 1, **settings: object) -> Mining:
    """A policy that has looked at all blocks so many times."""
    mining = Mining(TrainConfig(**settings))
    assert mining._begin(training)
    for _ in range(times):
        mining.n_rays = 0
        mining.look(training)
    return mining


def mean_square(training: Training, other: torch.Tensor, picked: torch.Tensor) -> torch.Tensor:
    model = training.model
    rays = training.pixels.rays(picked, model.frame)
    grey, jitter = torch.full((len(picked), 3), 0.5), torch.full((len(picked),), 0.5)
    with torch.no_grad():
        seen = render_rays(model.field, model.sampler, rays, grey, jitter).rgb
    return (seen - other).square().mean(1)


def test_hardness_is_what_a_field_without_its_smallest_weights_shows_otherwise(training: Training) -> None:
    model, picked = training.model, torch.arange(0, len(training.pixels), 7)
    with torch.no_grad():
        rays = training.pixels.rays(picked, model.frame)
        grey, jitter = torch.full((len(picked), 3), 0.5), torch.full((len(picked),), 0.5)
        whole = render_rays(model.field, model.sampler, rays, grey, jitter).rgb
    found = Mining(TrainConfig(mining="pruned"))._differences(training, picked)
    weights = [*model.field.density_network.weights, *model.field.color_network.weights]
    sizes = torch.cat([w.detach().abs().reshape(-1) for w in weights]).sort().values
    with torch.no_grad():
        for w in weights:
            w.mul_(w.abs() >= sizes[len(sizes) - round(0.5 * len(sizes))])
    torch.testing.assert_close(found, mean_square(training, whole, picked), rtol=0.05, atol=1e-5)
    assert float(found.max()) > 1e-4


def test_hardness_by_error_is_the_distance_to_the_photograph(training: Training) -> None:
    picked = torch.arange(0, len(training.pixels), 5)
    grey = torch.full((len(picked), 3), 0.5)
    found = Mining(TrainConfig(mining="error"))._differences(training, picked)
    torch.testing.assert_close(found, mean_square(training, training.pixels.colors(picked, grey), picked))


def test_a_look_changes_nothing_of_the_field(training: Training) -> None:
    before = {name: value.clone() for name, value in training.model.field.state_dict().items()}
    looked(training, mining="pruned")
    assert all(torch.equal(value, before[name]) for name, value in training.model.field.state_dict().items())


def test_harder_blocks_are_drawn_more_often(training: Training) -> None:
    photographed = training.pixels.detail.weights.clone()
    mining = looked(training, mining="error")
    factor = training.pixels.detail.weights / photographed
    there = photographed > 0
    order = mining.hardness[there].argsort()
    factor = factor[there][order]
    assert (factor.diff() >= -1e-12).all() and float(factor[-1]) > 2 * float(factor[0])
    mining.look(training)  # weights follow from the photographs, not from the weights before
    assert float((training.pixels.detail.weights[there] / photographed[there]).max()) <= 4.0 + 1e-6


def test_nothing_is_drawn_from_what_is_left_out_and_some_of_it_comes_back(training: Training) -> None:
    mining = looked(training, dropped=0.25)
    n, first = len(mining.hardness), mining.left_out.clone()
    assert int(first.sum()) == round(0.25 * n)
    generator = torch.Generator().manual_seed(0)
    blocks = training.pixels.detail.blocks_of(training.pixels.draw(20000, generator, 0.5))
    # Of a draw from everywhere one in 4 ** 9 is of them after all.
    assert int(first[blocks].sum()) <= 3
    assert float(mining.hardness[first].max()) <= float(mining.hardness.median())
    mining.look(training)
    assert int(mining.left_out.sum()) == round(0.25 * n)
    assert int((first & ~mining.left_out).sum()) == -(-round(0.25 * n) // 4)


def test_what_is_forgotten_counts_once_it_was_known(training: Training) -> None:
    mining = looked(training, times=2, mining="error")
    assert int(mining.forgotten.sum()) > 0
    once = looked(training, times=1, mining="error")
    assert int(once.forgotten.sum()) == 0


def test_a_look_is_at_a_small_part_of_the_rays_that_were_learned_from(training: Training) -> None:
    mining = Mining(TrainConfig(mining="pruned"))
    assert mining._begin(training)
    training.clock.n_rays = 400
    mining.look(training)
    assert int((mining.hardness >= 0).sum()) == 20
    training.clock.n_rays = 600
    mining.look(training)
    assert 20 <= int((mining.hardness >= 0).sum()) <= 30


def test_an_interrupted_training_draws_as_one_that_was_not(scene: Scene, tmp_path: Path) -> None:
    config = replace(CONFIG, train=replace(CONFIG.train, mining="pruned", dropped=0.1))

    def run_of(name: str) -> Run:
        frame = scene.frame.to_dict()
        return Run.create(tmp_path / name, config, scene.root, name, frame, scene.fingerprint, scene.splits, ["test"])

    def reports(run: Run, resume: bool = False):  # noqa: ANN202
        model = model_of(scene, config, resume)
        return fit(scene, config, run, resume, model, policies_of(config, model.field))

    whole, halved = run_of("whole"), run_of("halved")
    list(reports(whole))
    with closing(reports(halved)) as some:
        for report in some:
            if report.step == 7:
                break
    list(reports(halved, resume=True))
    one, other = whole.load_checkpoint(), halved.load_checkpoint()
    assert any(name == "policy.0.hardness" for name in one.optimizer)
    for part in ("field", "optimizer"):
        a, b = getattr(one, part), getattr(other, part)
        assert set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_photographs_that_are_alike_all_over_are_left_alone(scene: Scene) -> None:
    for image in scene.images:
        image[:] = 200
    config = replace(CONFIG, train=replace(CONFIG.train, mining="pruned"))
    model = model_of(scene, config)
    (policy,) = policies_of(config, model.field)
    assert [report.step for report in fit(scene, config, model=model, policies=[policy])][-1] == 12
    assert policy.state_dict() == {} and policy.n_looks == 0


def test_what_cannot_be_is_said(scene: Scene) -> None:
    with pytest.raises(ConfigError, match=r"train\.mining.*tiles"):
        check(replace(CONFIG, train=replace(CONFIG.train, mining="error", tiles="2")))
    with pytest.raises(ConfigError, match=r"train\.dropped: expected a share"):
        check(replace(CONFIG, train=replace(CONFIG.train, dropped=1.0)))
    with pytest.raises(ConfigError, match="policies_of"):
        next(fit(scene, replace(CONFIG, train=replace(CONFIG.train, mining="error"))))
