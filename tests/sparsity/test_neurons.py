"""Neurons taken out: what others say as well is not missed, and the verb writes a whole run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nerfkit.assess import scene_of
from nerfkit.cli import main
from nerfkit.fields.hash import HashField
from nerfkit.render import load_model, render_image
from nerfkit.run import Run
from nerfkit.sparsity.again import take_up
from nerfkit.sparsity.criteria import exactly
from nerfkit.sparsity.neurons import NETWORKS, left_after, narrowed
from nerfkit.sparsity.ratios import PruneError
from nerfkit.train.training import Training


@pytest.fixture
def training(small_run: Path) -> Training:
    run = Run.open(small_run)
    return take_up(run, scene_of(run))


def prune(*words: object) -> int:
    return main(["prune", *map(str, words)])


def test_what_others_say_as_well_is_not_missed(training: Training) -> None:
    """Every second neuron says twice what the one before says, or nothing: without them the pictures are the same."""
    model = training.model
    with torch.no_grad():
        for name in NETWORKS:
            first = getattr(model.field, name).weights[0]
            first[1::2] = 2.0 * first[::2]
            first[3] = 0.0
    smaller = narrowed(training, 8).model
    assert smaller.field.config.width == smaller.config.field.width == 8
    cameras = training.pixels.scene.cameras
    with exactly(model.field), exactly(smaller.field):
        one, other = (render_image(each, cameras, 0).rgb for each in (model, smaller))
    torch.testing.assert_close(one, other, atol=1e-3, rtol=0)
    assert float(one.std()) > 0.05


def test_sums_are_those_of_linear_regression_and_the_neuron_that_goes_is_the_best_of_all() -> None:
    """Beside least squares over the samples themselves, for every neuron that might go."""
    generator = torch.Generator().manual_seed(4)
    h = torch.rand(500, 6, generator=generator, dtype=torch.float64)
    h[:, 4] += 0.5 * h[:, 0]
    outgoing = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    stay, sums = left_after(h.t() @ h, outgoing, 5)
    errors = {}
    for gone in range(6):
        others = [j for j in range(6) if j != gone]
        told = torch.linalg.lstsq(h[:, others], h).solution
        errors[gone] = float(((h - h[:, others] @ told) @ outgoing.t()).square().sum())
        if others == stay.tolist():
            torch.testing.assert_close(sums, told.float(), atol=1e-4, rtol=0)
    (gone,) = set(range(6)) - set(stay.tolist())
    assert errors[gone] == min(errors.values()) < 0.9 * sorted(errors.values())[1]
    loud = torch.tensor([1.0, 50.0, 1e-3, 7.0, 0.2, 300.0], dtype=torch.float64)
    again, _ = left_after((loud * h).t() @ (loud * h), outgoing / loud, 5)
    assert again.tolist() == stay.tolist(), "how loud a neuron is says nothing: the weights behind it undo that"


def test_layers_are_narrowed_one_behind_another(training: Training) -> None:
    """Of two hidden layers both lose the copies that were put into them."""
    model = training.model
    config = replace(model.config, field=replace(model.config.field, color_layers=2))
    deep = replace(model, field=HashField(config.field, model.device, 0, model.frame.n_levels), config=config)
    with torch.no_grad():
        deep.field.table.copy_(model.field.table)
        for name in NETWORKS:
            for w in list(getattr(deep.field, name).weights)[:-1]:
                w[1::2] = w[::2]
    narrow = narrowed(Training.new(training.pixels.scene, deep), 8).model
    generator = torch.Generator().manual_seed(6)
    x = torch.rand(64, 3, generator=generator)
    d = torch.nn.functional.normalize(torch.randn(64, 3, generator=generator), dim=1)
    with torch.no_grad():
        one, other = (each.field.layer_by_layer(x, d) for each in (deep, narrow))
    assert [layer.shape[1] for layer in other[1]] == [8, 8, 3]
    for said, again in zip(one, other, strict=True):
        assert float((said[-1] - again[-1]).norm()) < 0.02 * float(said[-1].norm())


@pytest.mark.parametrize(("width", "text"), [(16, "not fewer"), (12, "expected one of"), (0, "expected one of")])
def test_widths_that_cannot_be_are_refused(training: Training, width: int, text: str) -> None:
    with pytest.raises(PruneError, match=text):
        narrowed(training, width)


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
