"""Pruning in a training: what is pruned stays zero, schedules do as they say, criteria are what their formulas say."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small import CONFIG as SMALL
from torch import Tensor

from nerfkit.config import Config, ConfigError, DataConfig, PruneConfig, check
from nerfkit.run import Run
from nerfkit.scene import load_scene
from nerfkit.scene.scene import Scene
from nerfkit.sparsity import criteria
from nerfkit.sparsity.pruning import Pruning, draw_masks, policies_of, sparsity_of
from nerfkit.sparsity.ratios import PruneError, n_kept
from nerfkit.sparsity.spaces import SPACES, parts_of
from nerfkit.train.loop import fit, model_of
from nerfkit.train.training import Training

CONFIG = replace(SMALL, prune=PruneConfig(fraction=0.8, begin=0.25, every=2, end=0.7))


@pytest.fixture
def scene(toy_scene: Path) -> Scene:
    return load_scene(toy_scene, DataConfig())


def pruning(**changes: object) -> Config:
    return replace(CONFIG, prune=replace(CONFIG.prune, **changes))


def seen_while_training(scene: Scene, config: Config, see: Callable[[Pruning], object]) -> list[object]:
    """What there was to see after each step."""
    model = model_of(scene, config)
    (policy,) = policies_of(config, model.field)
    return [see(policy) for _ in fit(scene, config, model=model, policies=[policy])]


def n_on(policy: Pruning) -> int | None:
    return None if policy.masks is None else sum(int(mask.sum()) for mask in policy.masks.values())


def trained_a_little(scene: Scene) -> Training:
    training = Training.new(scene, model_of(scene, CONFIG))
    training.warm_up()
    for _ in range(3):
        training.learn(training.n_rays)
        training.optimizer.step(1.0)
    training.learn(training.n_rays)
    return training


def test_what_stays_of_a_young_network_is_lengthened_and_of_one_that_knows_something_is_not(scene: Scene) -> None:
    """A neuron hears, in the mean over inputs of one size, as much as before."""
    for begin, young in ((0.0, True), (0.5, False)):
        config = pruning(begin=begin, schedule="once")
        training = Training.new(scene, model_of(scene, config))
        field, policy = training.model.field, Pruning(config.prune, training.model.field, 0)
        training.clock.step = training.optimizer.n_steps = round(begin * config.train.steps)
        before = {name: field.get_parameter(name).detach().clone() for name in sparsity_of(field)}
        policy.before_step(training)
        for name, mask in policy.masks.items():
            n_left = mask.sum(1, keepdim=True)
            factor = (mask.shape[1] / n_left.clamp(min=1)).sqrt() if young else 1.0
            torch.testing.assert_close(field.get_parameter(name).detach(), before[name] * mask * factor)
        again = Training.new(scene, model_of(scene, config))
        again.optimizer.n_steps = 100  # a run that is taken up
        policy, w = Pruning(config.prune, again.model.field, 0), again.model.field.density_network.weights[0]
        own = w.detach().clone()
        again.clock.step = training.clock.step
        policy.before_step(again)
        torch.testing.assert_close(w.detach(), own * policy.masks["density_network.weights.0"])


@pytest.mark.parametrize("space", sorted(SPACES))
def test_what_is_pruned_is_zero_and_stays_so(scene: Scene, space: str) -> None:
    field = replace(CONFIG.field, head="deferred", head_width=8)
    config = replace(pruning(space=space, ratio="uniform", fraction=0.5), field=field)
    model = model_of(scene, config)
    (policy,) = policies_of(config, model.field)
    before = {name: p.detach().clone() for name, p in model.field.named_parameters()}
    for _ in fit(scene, config, model=model, policies=[policy]):
        pass
    sizes = [mask.numel() for mask in policy.masks.values()]
    found = sparsity_of(model.field, space)
    assert n_on(policy) == n_kept(sum(sizes), 0.5)
    for name, mask in policy.masks.items():
        assert found[name][0] <= int(mask.sum()) and found[name][1] == mask.numel()
    if space == "weights":
        assert sum(n for n, _ in found.values()) == n_on(policy)
        for part in policy.parts:
            moved = model.field.get_parameter(part.parameter).detach() != before[part.parameter]
            assert bool(moved[policy.masks[part.name]].any())


def test_masks_come_when_they_should(scene: Scene) -> None:
    counts = seen_while_training(scene, CONFIG, n_on)
    first = counts.index(next(count for count in counts if count is not None))
    assert counts[:first] == [None] * 3 and len(set(counts[first:])) == 1
    assert seen_while_training(scene, pruning(begin=0.0), n_on)[0] == counts[-1]


def test_gradual_pruning_goes_little_by_little_to_its_end(scene: Scene) -> None:
    counts = [count for count in seen_while_training(scene, pruning(schedule="gradual", score="magnitude"), n_on)]
    counts = [count for count in counts if count is not None]
    total = sum(size for _, size in sparsity_of(model_of(scene, CONFIG).field).values())
    assert counts == sorted(counts, reverse=True) and len(set(counts)) > 3
    assert counts[0] == total and counts[-1] == n_kept(total, 0.8)


def test_an_exchange_keeps_the_numbers_and_moves_the_masks(scene: Scene) -> None:
    def see(policy: Pruning) -> dict[str, Tensor] | None:
        return None if policy.masks is None else {name: mask.clone() for name, mask in policy.masks.items()}

    masks = [one for one in seen_while_training(scene, pruning(schedule="exchange", begin=0.0), see) if one]
    for name in masks[0]:
        assert len({int(one[name].sum()) for one in masks}) == 1
    assert any(not torch.equal(masks[0][name], masks[-1][name]) for name in masks[0])
    assert all(torch.equal(masks[-1][name], masks[-2][name]) for name in masks[0])


def test_an_interrupted_training_prunes_as_one_that_was_not(scene: Scene, tmp_path: Path) -> None:
    config = pruning(schedule="exchange")

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
    for part in ("field", "optimizer"):
        a, b = getattr(one, part), getattr(other, part)
        assert set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)
    assert any(name.startswith("policy.0.") for name in one.optimizer)


def test_same_seed_same_masks_and_another_seed_others(scene: Scene) -> None:
    training = trained_a_little(scene)
    parts = parts_of(training.model.field, "weights")
    one, again, other = (draw_masks(training, parts, CONFIG.prune, seed) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("score", sorted(criteria.CRITERIA))
@pytest.mark.parametrize("shuffle", [False, True])
def test_criteria_decide_the_layers_and_a_shuffle_the_rest(scene: Scene, score: str, shuffle: bool) -> None:
    training = trained_a_little(scene)
    parts = parts_of(training.model.field, "weights")
    config = replace(CONFIG.prune, score=score, ratio="score", shuffle=shuffle, fraction=0.6)
    straight = draw_masks(training, parts, replace(config, shuffle=False), 1)
    masks = draw_masks(training, parts, config, 1)
    assert {n: int(mask.sum()) for n, mask in masks.items()} == {n: int(mask.sum()) for n, mask in straight.items()}
    same = all(torch.equal(masks[name], straight[name]) for name in masks)
    assert same is not shuffle


def test_asking_for_gradients_leaves_the_training_as_it_was(scene: Scene) -> None:
    training = trained_a_little(scene)
    field = training.model.field
    before = {name: (p.detach().clone(), p.grad.clone()) for name, p in field.named_parameters() if p.grad is not None}
    state = training.generator.get_state()
    first, again = criteria.gradients(training, 2), criteria.gradients(training, 2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    for name, (value, gradient) in before.items():
        assert torch.equal(field.get_parameter(name), value) and torch.equal(field.get_parameter(name).grad, gradient)
    assert torch.equal(training.generator.get_state(), state)
    assert float(first["table"].abs().max()) > 0 and not torch.equal(first["table"], before["table"][1])


def test_grasp_is_the_hessian_times_the_gradient(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the loss w A w / 2 with a diagonal A, H g is A^2 w."""
    training = trained_a_little(scene)
    field = training.model.field
    names = [name for chain in criteria.chains_of(field) for name in chain]
    curve = {name: torch.rand_like(field.get_parameter(name)) + 0.1 for name in names}

    def slope(_: Training) -> dict[str, Tensor]:
        return {name: curve[name] * field.get_parameter(name).detach() for name in names}

    monkeypatch.setattr(criteria, "gradients", slope)
    scores = criteria.grasp(training, 0.5)
    for name in names:
        w = field.get_parameter(name).detach()
        torch.testing.assert_close(scores[name], curve[name] ** 2 * w * w, rtol=2e-3, atol=1e-5)


def test_scores_are_found_before_a_sky(toy_capture: Path) -> None:
    """The sky has a gradient of its own, whichever weights are asked about."""
    training = trained_a_little(load_scene(toy_capture, DataConfig()))
    assert training.pixels.scene.has_sky
    for score in (criteria.snip, criteria.grasp):
        scores = score(training, 0.5)
        assert all(bool(torch.isfinite(one).all()) for one in scores.values())
        assert max(float(one.abs().max()) for one in scores.values()) > 0


def test_synflow_is_conserved_and_cuts_off_no_layer(scene: Scene) -> None:
    """What flows into a layer flows out of it (Tanaka et al. 2020, theorem 2)."""
    training = trained_a_little(scene)
    field = training.model.field
    color = next(chain for chain, n in criteria.chains_of(field).items() if n == 3)
    sums = [float(criteria.synflow(training, 0.0)[name].sum()) for name in color]
    assert sums == pytest.approx([sums[0]] * len(sums))
    config = replace(CONFIG.prune, score="synflow", ratio="score", fraction=0.97)
    masks = draw_masks(training, parts_of(field, "weights"), config, 0)
    assert min(int(mask.sum()) for mask in masks.values()) >= 1


def test_snip_is_weight_times_slope(scene: Scene) -> None:
    training = trained_a_little(scene)
    slopes, scores = criteria.gradients(training), criteria.snip(training, 0.5)
    name = "density_network.weights.0"
    expected = (training.model.field.get_parameter(name).detach() * slopes[name]).abs()
    assert torch.equal(scores[name], expected) and float(expected.max()) > 0


def test_a_criterion_that_says_nothing_about_a_space_is_refused(scene: Scene) -> None:
    training = trained_a_little(scene)
    config = replace(CONFIG.prune, score="synflow", space="entries")
    with pytest.raises(PruneError, match="synflow says nothing about table"):
        draw_masks(training, parts_of(training.model.field, "entries"), config, 0)


def test_pruning_is_never_left_out_in_silence(scene: Scene) -> None:
    with pytest.raises(ConfigError, match="policies_of"):
        next(fit(scene, CONFIG))


@pytest.mark.parametrize(
    ("key", "value"), [("fraction", 1.0), ("fraction", -0.1), ("begin", 0.9), ("end", 1.0), ("every", 0)]
)
def test_settings_that_make_no_sense_are_refused(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"prune.{key}"):
        check(pruning(**{key: value}))
