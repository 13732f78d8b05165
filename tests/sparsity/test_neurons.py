"""Neurons taken out: those that do nothing change nothing, worth is a slope, and the verb writes a whole run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nerfkit.assess import scene_of
from nerfkit.cli import main
from nerfkit.render import load_model, render_image
from nerfkit.run import Run
from nerfkit.sparsity.again import take_up
from nerfkit.sparsity.criteria import exactly
from nerfkit.sparsity.neurons import NETWORKS, narrowed, neuron_scores
from nerfkit.sparsity.ratios import PruneError
from nerfkit.train.training import Training


@pytest.fixture
def training(small_run: Path) -> Training:
    run = Run.open(small_run)
    return take_up(run, scene_of(run))


def prune(*words: object) -> int:
    return main(["prune", *map(str, words)])


def test_neurons_that_do_nothing_are_worth_nothing_and_not_missed(training: Training) -> None:
    model = training.model
    with torch.no_grad():
        for name in NETWORKS:
            getattr(model.field, name).weights[0][1::2] = 0.0
    scores = neuron_scores(training, 1)
    for name in NETWORKS:
        (score,) = scores[name]
        assert not bool(score[1::2].any()) and bool((score[::2] > 0).any())
    smaller = narrowed(training, scores, 8).model
    assert smaller.field.config.width == smaller.config.field.width == 8
    cameras = training.pixels.scene.cameras
    one, other = (render_image(each, cameras, 0).rgb for each in (model, smaller))
    torch.testing.assert_close(one, other, atol=2e-3, rtol=0)
    assert float(one.std()) > 0.05


def test_worth_is_the_square_of_the_slope_along_a_neuron(training: Training) -> None:
    config = training.model.config  # whose gradients are damped near cameras, and so are no slopes
    config = replace(config, train=replace(config.train, gradient_reach=0.0))
    training = replace(training, model=replace(training.model, config=config))
    field, row, h = training.model.field, 3, 1e-2
    with exactly(field):
        for name in NETWORKS:
            (scores,) = neuron_scores(training, 1)[name]
            w = getattr(field, name).weights[0]
            before, losses = w.detach().clone(), []
            for sign in (1.0, -1.0):
                with torch.no_grad():
                    w.copy_(before)
                    w[row] *= 1.0 + sign * h
                apart = replace(training, generator=torch.Generator().manual_seed(0))
                losses.append(apart.learn(training.n_rays).loss)
            with torch.no_grad():
                w.copy_(before)
            slope = (losses[0] - losses[1]) / (2 * h)
            assert slope**2 == pytest.approx(float(scores[row]), rel=0.05) and slope != 0


@pytest.mark.parametrize(("width", "text"), [(16, "not fewer"), (12, "expected one of"), (0, "expected one of")])
def test_widths_that_cannot_be_are_refused(training: Training, width: int, text: str) -> None:
    scores = {name: [torch.rand(16)] for name in NETWORKS}
    with pytest.raises(PruneError, match=text):
        narrowed(training, scores, width)


def test_the_verb_writes_a_run_with_fewer_neurons(small_run: Path, tmp_path: Path) -> None:
    assert prune(small_run, "--neurons", 8, "-o", tmp_path / "narrow") == 0
    made = Run.open(tmp_path / "narrow")
    assert made.config.field.width == 8 and made.config.train.steps == 30
    assert load_model(made).field.density_network.sizes == (16, 8, 16)
    before, after = (Run.open(folder) for folder in (small_run, tmp_path / "narrow"))
    assert made.provenance["begun_with"] == {"run": "run", "step": 150}
    assert before.provenance["scene"]["fingerprint"] == after.provenance["scene"]["fingerprint"]
    assert json.loads((tmp_path / "narrow" / "metrics.json").read_text())["psnr"] > 14.0


def test_the_verb_holds_weights_at_zero(small_run: Path, tmp_path: Path) -> None:
    assert prune(small_run, "--fraction", 0.75, "-o", tmp_path / "sparse") == 0
    field = load_model(Run.open(tmp_path / "sparse")).field
    weights = torch.cat([w.detach().view(-1) for w in field.network_parameters()])
    assert int((weights != 0).sum()) == len(weights) - round(0.75 * len(weights))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "nothing to prune"),
        (["--fraction", 1], "prune.fraction"),
        (["--neurons", 12], "12 neurons"),
        (["--neurons", 64], "not fewer"),
        (["--fraction", 0.5, "--steps", 0], "of the run's steps"),
        (["--fraction", 0.5, "--space", "kernels"], "no kernels"),
        (["--fraction", 0.999, "--ratio", "uniform", "--schedule", "once"], "prune less"),
    ],
)
def test_what_cannot_be_pruned_is_told_and_writes_nothing(
    small_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[object], text: str
) -> None:
    assert prune(small_run, "-o", tmp_path / "new", *words) in (1, 2)
    assert text in capsys.readouterr().err
    assert text == "prune less" or not (tmp_path / "new").exists()
