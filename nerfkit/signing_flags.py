"""The flags of the verbs that sign and read. No torch here: help answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from nerfkit.stego.plan import Plan


@dataclass(frozen=True)
class Keygen:
    """Make a key: a file that its owner alone may read. Without it nothing that it marked can be read."""

    out: Annotated[Path, arg(metavar="FILE", aliases=["-o"])] = Path("owner.key")
    """Where; a file that is there stays."""


@dataclass(frozen=True)
class Embed:
    """Mark a run: write a copy of it whose every render carries a message, or tells whose copy it is.

    The run stays as it is, unmarked; keep it, as pictures are read with its help, and give copies away. A further
    copy takes a second. Each is noted in the record, RUN/record.jsonl.
    """

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of the run, unmarked."""
    key: Annotated[Path, arg(metavar="FILE")]
    """Of nerfkit keygen."""
    message: str | None = None
    """Text of up to 6 bytes, or as many bytes in hexadecimal digits after 0x; 8 and 12 bytes with --bits 64 and 96."""
    to: Annotated[str | None, arg(metavar="NAME")] = None
    """Whom the copy is for, instead of a message: it is told also from pictures that several recipients mixed."""
    hide: Annotated[Path | None, arg(metavar="FILE")] = None
    """A picture that renders shall show to who has the key, or any file of up to 780 bytes, instead of a message:
    the colours of the model learn it, which takes a few minutes."""
    out: Annotated[Path | None, arg(metavar="FOLDER", aliases=["-o"])] = None
    """Folder of the marked run. By default RUN-marked beside it."""
    bits: Literal[48, 64, 96] = 48
    """Of a message: 48 are read from one picture, longer ones want a few."""
    profile: Literal["invisible", "balanced", "robust"] | None = None
    """How near marked renders stay to unmarked ones: 52, 42 (by default) or 38 dB at least, and nearer where that would
    cost more than 0.05, 0.1 or 0.4 dB against the photographs. All copies of a run are marked alike."""
    target_psnr: Annotated[float | None, arg(metavar="DB")] = None
    """How near, in the mean, instead; nearer where the worst view would lie more than 1.5 dB below that."""
    scene: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Where the scene is, if it was moved since."""


@dataclass(frozen=True)
class Extract:
    """Read the message of pictures, and whose copies they are of: exit code 0 if there is one, or somebody, 1 if there
    is none, 2 if it cannot be told."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of the run, unmarked."""
    pictures: Annotated[Positional[tuple[Path, ...]], arg(metavar="PICTURE ...")]
    """Pictures of it, films, or folders of them, of any size, whole or in part; together they are one reading."""
    key: Annotated[Path, arg(metavar="FILE")]
    """Of nerfkit keygen."""
    fpr: Annotated[float, arg(metavar="RATE")] = 1e-6
    """How often pictures without a message may be said to have one, at most, and as often anyone innocent be named."""
    record: Annotated[Path | None, arg(metavar="FILE")] = None
    """Of the copies, for their recipients. By default RUN/record.jsonl."""
    hidden: Annotated[Path | None, arg(metavar="OUT")] = None
    """Write the picture or the file that they show, of embed --hide, instead of reading a message."""
    c2pa: Annotated[Path | None, arg(metavar="OUT")] = None
    """Write a copy of the one picture with a signed manifest of its message: content credentials."""
    c2pa_by: Annotated[tuple[Path, Path] | None, arg(metavar="CHAIN PRIVATE")] = None
    """Who signs that, instead of the key: PEM files of a certificate chain and its private key."""
    json: bool = False
    """Print the record as JSON."""


@dataclass(frozen=True)
class Verify:
    """Say whether pictures carry one message: exit code 0 if they do, 1 if they do not, 2 if it cannot be told."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of the run, unmarked."""
    pictures: Annotated[Positional[tuple[Path, ...]], arg(metavar="PICTURE ...")]
    """Pictures of it, films, or folders of them."""
    key: Annotated[Path, arg(metavar="FILE")]
    """Of nerfkit keygen."""
    message: str
    """As embed was told it."""
    fpr: Annotated[float, arg(metavar="RATE")] = 1e-8
    """How often pictures without it may be said to have it, at most."""
    json: bool = False
    """Print the record as JSON."""


@dataclass(frozen=True)
class Inspect:
    """Read the message of models from their numbers, without rendering: exit code 0 if one of them has a message, 1 if
    none has, 2 if it cannot be told."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of the run, unmarked."""
    models: Annotated[Positional[tuple[Path, ...]], arg(metavar="MODEL ...")]
    """Runs, checkpoints of runs, or files of nerfkit compress; each is a reading of its own."""
    key: Annotated[Path, arg(metavar="FILE")]
    """Of nerfkit keygen."""
    fpr: Annotated[float, arg(metavar="RATE")] = 1e-6
    """How often a model without a message may be said to have one, at most."""
    json: bool = False
    """Print the record as JSON."""


@dataclass(frozen=True)
class Record:
    """Say whether a record is whole, and what stands in it: exit code 0 if it is, 2 if it is not."""

    record: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of the run, unmarked, or the file."""
    key: Annotated[Path | None, arg(metavar="FILE")] = None
    """Opens what it sealed: messages and recipients."""
    head: Annotated[str | None, arg(metavar="HASH")] = None
    """Of a line, as it was printed once: it must be there still. Without it nobody sees that lines were cut off."""
    json: bool = False
    """Print the lines as JSON; with a key, also what proves each to others."""


@dataclass(frozen=True)
class Attack:
    """Do to a picture what may happen to it, to see whether it can still be read."""

    picture: Annotated[Positional[Path], arg(metavar="PICTURE")]
    """A file."""
    by: Annotated[str, arg(metavar="ATTACK")]
    """noise:0.05, blur:1.5, jpeg:50, resize:0.5, crop:0.4, rotate:30, brightness:1.5, contrast:0.5, or several joined
    by +."""
    out: Annotated[Path | None, arg(metavar="FILE", aliases=["-o"])] = None
    """x.png. By default PICTURE-attacked.png beside it."""
    seed: int = 0
    """Of what is random."""


@dataclass(frozen=True)
class StegoBench:
    """Try what a run's mark stands: attacks on pictures and models, wrong keys, pictures without a message, forgery, a
    second mark over it, and whether it can be seen. Rows are appended to RUN/mark/bench.jsonl, and what stands there is
    not done again; RUN/mark/bench.html shows them. Copies are marked in memory, with keys of no use."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Folder of the run, unmarked, with the mark that nerfkit embed left there."""
    parts: tuple[Literal["attacks", "nulls", "forgery", "overwrite", "models", "steganalysis"], ...] = (
        "attacks",
        "nulls",
        "forgery",
        "overwrite",
        "models",
        "steganalysis",
    )
    """What to try."""
    config: Annotated[Path | None, arg(metavar="FILE")] = None
    """A TOML file of how much to try, such as configs/stego.toml; flags win over it."""
    scene: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Where the scene is, if it was moved since."""
    other: Annotated[Path | None, arg(metavar="RUN")] = None
    """A run of another scene, with its mark: forgeries are pasted on it, and detectors learn there."""
    suspect: Annotated[tuple[Path, ...], arg(metavar="MODEL ...")] = ()
    """Marked copies that something was done to, to be scored as well: runs, or files of nerfkit compress."""
    key: Annotated[Path | None, arg(metavar="FILE")] = None
    """Of nerfkit keygen: with which suspects were marked."""
    message: Annotated[str | None, arg(metavar="TEXT")] = None
    """Of suspects."""
    plan: Annotated[Plan, arg(name="")] = Plan()
    """How much of it."""


def message_of(text: str, n_bits: int) -> bytes:
    """A message of so many bits: UTF-8, or hexadecimal after 0x. Raises StegoError.

    >>> message_of("0x0102030405ff", 48).hex(), message_of("ab", 48)
    ('0102030405ff', b'ab\\x00\\x00\\x00\\x00')
    """
    from nerfkit.stego.keys import StegoError

    n = n_bits // 8
    try:
        message = bytes.fromhex(text[2:]) if text.startswith("0x") else text.encode()
    except ValueError:
        raise StegoError(f"--message {text}: expected {2 * n} hexadecimal digits after 0x") from None
    if not message or len(message) > n or (text.startswith("0x") and len(message) != n):
        raise StegoError(
            f"--message {text}: is of {len(message)} bytes, expected text of 1 to {n}, or 0x and {n} bytes"
        )
    return message.ljust(n, b"\0")
