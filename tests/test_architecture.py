"""The shape of the house: layers, ceilings, names. What is checked by a machine, holds."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "nerfkit"
FILES = sorted(ROOT.rglob("*.py"))

# A file imports only from lower layers, from earlier names of its own row, or from its own folder.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("config", "presets", "defaults", "aside", "torchrun", "ranks", "types"),
    ("poses", "cameras", "paths", "kernels"),
    ("scene", "fields", "sampling"),
    ("engines", "doctor", "provenance", "run", "packed", "render", "tiles"),
    (
        "foreign",
        "flow",
        "perceptual",
        "evaluate",
        "charts",
        "page",
        "video",
        "looks",
        "pictures",
        "report",
        "compare",
        "assess",
        "lattice",
        "mesh",
        "points",
        "export",
        "prepare",
    ),
    ("train",),
    ("sparsity", "stego", "lift", "viewer"),
    (
        "terminal",
        "arguments",
        "signing_flags",
        "lift_flags",
        "benching",
        "recording",
        "hiding",
        "signing",
        "session",
        "lifting",
        "filming",
        "verbs",
        "cli",
        "__main__",
    ),
)
PLACE = {name: (layer, spot) for layer, names in enumerate(LAYERS) for spot, name in enumerate(names)}
MAX_FILE, MAX_FUNCTION, MAX_ARGUMENTS = 400, 60, 8
MAY_PRINT = {
    "cli.py",
    "verbs.py",
    "recording.py",
    "hiding.py",
    "signing.py",
    "lifting.py",
    "filming.py",
    "terminal.py",
    "train/progress.py",
    "benching.py",
}
LIGHT = {
    "__init__.py",
    "__main__.py",
    "config.py",
    "presets.py",
    "torchrun.py",
    "terminal.py",
    "arguments.py",
    "signing_flags.py",
    "lift_flags.py",
    "lifting.py",
    "recording.py",
    "hiding.py",
    "benching.py",
    "signing.py",
    "filming.py",
    "verbs.py",
    "cli.py",
}
HEAVY = {"torch", "numpy", "warp", "cv2", "jaxtyping", "safetensors", "imageio"}
FORBIDDEN = {"utils", "util", "misc", "common", "helpers"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def home_of(path: Path) -> str:
    """First part of a module's name within the package: a row's entry."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names of what is imported, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def functions(tree: ast.AST) -> Iterator[tuple[Function, bool]]:
    """All functions, and whether each is a method."""
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Function):
                yield child, isinstance(node, ast.ClassDef)


def length(function: Function) -> int:
    """Lines of a function, without its decorators, its docstring and the functions in it, which are counted apart."""
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        lines -= first.end_lineno - first.lineno + 1
    inner = (node for node in function.body if isinstance(node, Function))
    return lines - sum(node.end_lineno - node.lineno + 1 for node in inner)


def is_kernel(function: Function) -> bool:
    """Whether a function is Warp's: it takes every array that it reads, for a kernel knows no objects."""
    return any(ast.unparse(decorator).startswith("wp.") for decorator in function.decorator_list)


def imported_at_start(tree: ast.Module) -> Iterator[str]:
    """Modules imported when the file is, without those for type checkers alone."""
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imports(ast.Module([node], []))


def faults(path: Path, text: str) -> list[str]:
    """Everything in which a file of the package breaks the rules."""
    tree, where, found = ast.parse(text), name_of(path), []
    if path.name != "__init__.py" or len(path.relative_to(ROOT).parts) > 1:
        found += [f"{where} imports {other}" for other in imports(tree) if not may_import(path, other)]
    if (lines := len(text.splitlines())) > MAX_FILE:
        found.append(f"{where} has {lines} lines")
    if FORBIDDEN & set(path.relative_to(ROOT).with_suffix("").parts):
        found.append(f"{where}: that name says nothing")
    for function, is_method in functions(tree):
        spot = f"{where}: {function.name}"
        if (lines := length(function)) > MAX_FUNCTION:
            found.append(f"{spot} has {lines} lines")
        if function.name.startswith("_") or is_kernel(function):
            continue
        arguments = function.args
        named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in function.decorator_list)
        if len(named) - (is_method and not static) > MAX_ARGUMENTS:
            found.append(f"{spot} has {len(named)} arguments")
        if arguments.kwarg is not None:
            found.append(f"{spot} takes **{arguments.kwarg.arg}")
    if where not in MAY_PRINT:
        calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
        found += [f"{where}:{call.lineno} prints" for call in calls if ast.unparse(call.func) == "print"]
    if where in LIGHT:
        heavy = {name.split(".")[0] for name in imported_at_start(tree)} & HEAVY
        found += [f"{where} imports {name} before it needs it" for name in sorted(heavy)]
    return found


def may_import(path: Path, other: str) -> bool:
    parts = other.split(".")
    if parts[0] != "nerfkit" or parts[1:2] in ([], ["__version__"]):
        return True
    own, target = home_of(path), parts[1]
    return own == target or PLACE[target] < PLACE[own]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_rules_hold(path: Path) -> None:
    assert faults(path, path.read_text()) == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_module_has_a_place_and_says_what_it_is(path: Path) -> None:
    assert path == ROOT / "__init__.py" or home_of(path) in PLACE
    text = path.read_text()
    assert not text.strip() or ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize(
    ("where", "text", "fault"),
    [
        ("poses.py", "from nerfkit.cameras import Cameras", "poses.py imports nerfkit.cameras.Cameras"),
        ("render.py", "def f():\n    import nerfkit.train.loop", "render.py imports nerfkit.train.loop"),
        ("run.py", "x = 1\n" * 401, "run.py has 401 lines"),
        ("run.py", "def _f():\n    '''Doc.\n\n    '''\n" + "    x = 1\n" * 60, "run.py: _f has 61 lines"),
        ("run.py", "class A:\n    def f(self, a, b, c, d, e, f, g, h, i): ...", "run.py: f has 10 arguments"),
        ("run.py", "def f(**kwargs): ...", "run.py: f takes **kwargs"),
        ("run.py", "print(1)", "run.py:1 prints"),
        ("scene/utils.py", "", "scene/utils.py: that name says nothing"),
        ("cli.py", "import torch.nn", "cli.py imports torch before it needs it"),
    ],
)
def test_a_broken_rule_is_found(where: str, text: str, fault: str) -> None:
    assert fault in faults(ROOT / where, text)


def test_what_is_allowed_passes() -> None:
    lazy = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\ndef f():\n    import torch"
    assert faults(ROOT / "cli.py", lazy) == []
    assert faults(ROOT / "run.py", "def f(a, b, c, d, e, f, g, h): ...\ndef _g(**kwargs): ...") == []
    assert faults(ROOT / "run.py", "class A:\n    def f(self, a, b, c, d, e, f, g, h): ...") == []
