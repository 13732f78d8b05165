"""The command ``nerfkit``: picks the verb, and turns every failure into a sentence and a code.

Results go to standard output; progress, remarks and errors to standard error. A failure is one sentence there and a
code: 1 if something could not be done, 2 if the command line makes no sense, 130 after an interruption.
"""

from __future__ import annotations

import difflib
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from typing import Any

from nerfkit import __version__
from nerfkit.terminal import INTERRUPTED, say
from nerfkit.torchrun import place
from nerfkit.verbs import VERBS

_SHARED = ("train", "render")
"""Verbs that several processes can do together."""


def main(words: list[str] | None = None) -> int:
    """Run the verb that the command line begins with. Returns the exit code; wrong flags raise SystemExit.

    Of several processes the first speaks for all; of others only an error is heard that it does not tell itself.
    """
    words = sys.argv[1:] if words is None else words
    if place().size == 1:
        return _main(words)
    try:
        code = _main(words) if place().is_first else _unheard(words)
    except SystemExit as leave:
        code = leave.code
    if code:
        # Who leaves others by an error takes no leave of them, and the threads that talk to them abort the process
        # now and then when it is taken down in order.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)
    return 0


def _unheard(words: list[str]) -> int:
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        return _main(words)


def _main(words: list[str]) -> int:
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if words[0] == "--version":
        print(f"nerfkit {__version__}")
        return 0
    verb, *rest = words
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        say(f"there is no verb {verb}; " + (f"did you mean {near[0]}?" if near else f"known are {', '.join(VERBS)}"))
        return 2
    if place().size > 1 and verb not in _SHARED:
        say(f"{verb} takes one process, and there are {place().size}; torchrun is for {' and '.join(_SHARED)}")
        return 2
    try:
        with _remarks():
            return VERBS[verb](rest)
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except Exception as error:  # the one place where errors become sentences
        with redirect_stderr(sys.__stderr__) if getattr(error, "of_any_rank", False) else nullcontext():
            if debug:
                traceback.print_exc()
            say(_sentence(error))
        return getattr(error, "exit_code", 1)


def _help() -> str:
    verbs = "\n".join(f"  {name:12} {verb.__doc__}" for name, verb in VERBS.items())
    return (
        f"nerfkit {__version__}: radiance fields from photographs\n\n"
        f"usage: nerfkit VERB [OPTIONS]\n\n{verbs}\n\n"
        "nerfkit VERB --help lists the options of a verb; --debug shows the traceback of an error; --version.\n\n"
        "  nerfkit train scenes/armillary --out runs/first --time-budget 60s\n"
        "  nerfkit render runs/first --path orbit --out orbit.mp4"
    )


def _sentence(error: Exception) -> str:
    """What to say about an error. Those of our own classes carry a sentence; others were not foreseen."""
    text = " ".join(str(error).split())
    if type(error).__module__.startswith("nerfkit."):
        return text
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, ImportError):
        return f"{text}; this installation is not complete, see nerfkit doctor"
    return f"unexpected {type(error).__name__}: {text or 'no message'}; --debug shows where"


@contextmanager
def _remarks() -> Iterator[None]:
    """Show our own warnings as sentences, and not those of other packages."""

    def show(message: Warning | str, category: type[Warning], *_: Any) -> None:
        if category.__module__.startswith("nerfkit."):
            say(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
