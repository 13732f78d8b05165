"""What the README tells people to type exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import nerfkit
from nerfkit.arguments import Compare, Doctor, Eval, Export, Info, Prepare, Render, View, parse, parse_train
from nerfkit.cli import VERBS
from nerfkit.lift_flags import Lift
from nerfkit.signing_flags import Embed, Extract, Keygen

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
KINDS = {"prepare": Prepare, "eval": Eval, "render": Render, "export": Export, "compare": Compare}
KINDS |= {"info": Info, "view": View, "doctor": Doctor, "keygen": Keygen, "embed": Embed, "extract": Extract}
KINDS |= {"lift": Lift}

BLOCKS = re.findall(r"```(?:sh|bash)\n(.*?)```", README, re.DOTALL)
LINES = [line.split("  #")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]
COMMANDS = [line for line in LINES if line.startswith("nerfkit ")]


def test_there_is_something_to_check() -> None:
    assert len(COMMANDS) >= 5 and any(line.startswith("make ") for line in LINES)


@pytest.mark.parametrize("target", sorted({line.split()[1] for line in LINES if line.startswith("make ")}))
def test_make_knows_the_targets(target: str) -> None:
    assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_can_be_parsed(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    verb, *words = shlex.split(command)[1:]
    assert verb in VERBS
    if verb == "train":
        parse_train(words)
    else:
        parse(KINDS[verb], verb, words)


def test_every_verb_is_told_of() -> None:
    assert [verb for verb in VERBS if f"nerfkit {verb}" not in README] == []


def test_continuous_integration_runs_the_same_tests() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "make test" in LINES
    assert "make test" in script.splitlines()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", README))))
def test_what_is_linked_is_there(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:nerfkit|configs|tools|scenes)/[\w./-]+)`", README))))
def test_the_files_named_are_there(name: str) -> None:
    assert (ROOT / name).exists()


def test_public_names_can_be_loaded() -> None:
    for name in nerfkit.__all__:
        assert getattr(nerfkit, name) is not None
    assert set(nerfkit.__all__) <= set(dir(nerfkit))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = nerfkit.nothing
