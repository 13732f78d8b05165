"""The documentation is true: every command of each page runs, in the order of the page, on photographs of our own."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import cv2
import pytest
from conftest import ball_cameras, draw_ball
from test_prepare import photograph_all

from nerfkit.cli import main

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
QUICK = "--train.samples-per-step 2048 --sampler.resolution 32 --field.log2-table-size 12 --downscale 4".split()

SHARP = "--train.samples-per-step 8192 --sampler.resolution 64".split()


def commands(page: Path) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("nerfkit ")]


def shortened(verb: str, words: list[str]) -> list[str]:
    """The same with few steps, small pictures and coarse meshes."""
    training = verb == "train" or (verb == "view" and "my-scene" in words)
    replaced = {
        "render": {"--size": "24"},
        "export": {"--resolution": "32"},
        "stego-bench": {"--parts": "overwrite", "--views": "1"},
    }.get(verb, {})
    if verb == "render" and "test" not in words:
        replaced["--frames"] = "2"
    if "runs/marked" in words:  # what is read is larger, and seen from where photographs were taken
        replaced = {"--path": "interpolate", "--frames": "4"} if verb == "render" else {}
    if verb == "lift":
        words = [*words, "--fast", "--no-film", "--no-mesh"]
    if training and "--resume" not in words:
        replaced["--steps"] = "400"
    for flag in (*replaced, "--time-budget", "--downscale"):
        if flag in words:
            words = words[: words.index(flag)] + words[words.index(flag) + 2 :]
    return [*words, *(word for pair in replaced.items() for word in pair), *(QUICK if "--steps" in replaced else [])]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pycolmap", reason="structure from motion needs pycolmap")
    from nerfkit.viewer import Viewer

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Viewer, "stay", lambda self: None)
    photograph_all(tmp_path / "photos")
    ball = draw_ball(ball_cameras(1, size=96), 0)
    cv2.imwrite(str(tmp_path / "mug.png"), cv2.cvtColor(ball, cv2.COLOR_RGBA2BGRA))
    for command in commands(page):
        verb, *words = shlex.split(command)[1:]
        words = shortened(verb, words)
        if verb == "compare":  # with another run, which the page does not make
            assert main(["train", "my-scene", "--out", "runs/other", "--steps", "20", *QUICK]) == 0
        # The first time, of a run in whose renders there is something to be seen.
        if verb == "embed" and not Path("runs/mine/mark").exists():
            shutil.rmtree("runs/mine")
            assert main(["train", "my-scene", "--out", "runs/mine", "--steps", "1000", *SHARP]) == 0
        assert main([verb, *words]) == 0, command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_is_linked_is_there(page: Path) -> None:
    for path in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
        assert (page.parent / path).exists(), path


def test_each_verb_has_its_part() -> None:
    from nerfkit.verbs import VERBS

    headings = re.findall(r"^## ([\w-]+)$", (DOCS / "verbs.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(VERBS)
