"""What is made smaller keeps what was known: its frame, its poses, its mark; and goes on after it was killed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nerfkit.assess import scene_of
from nerfkit.cli import main
from nerfkit.config import PruneConfig
from nerfkit.render import load_model
from nerfkit.run import Run
from nerfkit.sparsity.again import Smaller, begin_smaller
from nerfkit.sparsity.compress import begin
from nerfkit.sparsity.ratios import PruneError

SMALLER = Smaller(width=8, prune=PruneConfig(begin=0.0), steps=0.1)


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Run:
    shutil.copytree(small_run, tmp_path / "run")
    return Run.open(tmp_path / "run")


def test_one_that_was_killed_before_its_first_checkpoint_goes_on(small_run: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    words = ["prune", str(small_run), "--neurons", "8", "--steps", "0.1", "-o", str(whole)]
    assert main(words) == 0
    began = Run.open(small_run)
    begin_smaller(began, scene_of(began), SMALLER, killed, ["nerfkit"])
    assert main(["train", "--resume", str(killed), "--no-eval"]) == 0
    one, other = (Run.open(folder).load_checkpoint() for folder in (whole, killed))
    assert one.step == other.step == 15
    assert all(torch.equal(value, other.field[name]) for name, value in one.field.items())


def test_of_a_tile_the_frame_is_its_own(run: Run, tmp_path: Path) -> None:
    scene = scene_of(run)
    whole = replace(scene, frame=replace(scene.frame, n_levels=scene.frame.n_levels + 2))
    made, training = begin_smaller(run, whole, SMALLER, tmp_path / "made", ["nerfkit"])
    assert made.frame == run.frame != whole.frame.to_dict()
    model = load_model(made)
    assert model.frame == training.model.frame and torch.equal(model.field.table, training.model.field.table)


def test_refined_poses_and_the_mark_go_along(run: Run, tmp_path: Path) -> None:
    found, train = scene_of(run), scene_of(run).splits["train"]
    moved = found.cameras.c2w[train] + 0.01
    run.note({"poses": moved.tolist(), "marked": True})
    scene = scene_of(run)
    assert torch.equal(scene.cameras.c2w[train], moved)
    made, _ = begin_smaller(run, scene, SMALLER, tmp_path / "made", ["nerfkit"])
    assert torch.equal(scene_of(made).cameras.c2w[train], moved)
    assert made.provenance["marked"] and made.provenance["begun_with"]["step"] == 150


def test_what_was_made_of_a_marked_copy_does_not_learn_from_photographs(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr("nerfkit.stego.embed.with_mark", lambda run, scene: asked.append(run.path.name) or scene)
    run.note({"marked": True})
    made, _ = begin_smaller(run, scene_of(run), SMALLER, tmp_path / "made", ["nerfkit"])
    assert main(["train", "--resume", str(made.path), "--no-eval"]) == 0
    assert asked == ["made"] and "marked copy" not in capsys.readouterr().err
    assert main(["train", "--resume", str(run.path), "--no-eval"]) == 0
    assert asked == ["made"] and "forgets its mark" in capsys.readouterr().err


def test_what_no_file_can_hold_is_refused_at_once(run: Run) -> None:
    config = replace(
        run.config,
        field=replace(run.config.field, head="sample"),
        sampler=replace(run.config.sampler, kind="proposal"),
    )
    with pytest.raises(PruneError, match="cannot be compressed.*field.head"):
        begin(replace(run, config=config), scene_of(run), 12_000, 0.1)


def test_a_run_in_tiles_is_told_which_to_take(run: Run, tmp_path: Path) -> None:
    tiled = replace(run, config=replace(run.config, train=replace(run.config.train, tiles="2")))
    with pytest.raises(PruneError, match="take one of them, such as .*tiles/1"):
        begin_smaller(tiled, scene_of(run), SMALLER, tmp_path / "made", ["nerfkit"])
    with pytest.raises(PruneError, match="take one of them"):
        begin(tiled, scene_of(run), 12_000, 0.1)
