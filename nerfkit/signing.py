"""The verbs that sign and read; nothing heavy is imported before one needs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nerfkit.terminal import print_table, say

if TYPE_CHECKING:
    from nerfkit.render import Model
    from nerfkit.stego.extract import Found
    from nerfkit.stego.keys import Key
    from nerfkit.stego.mark import Mark
    from nerfkit.stego.message import Reading

ABSENT = 1
UNTOLD = 2


def keygen(words: list[str]) -> int:
    """Make a key, with which renders are marked and read."""
    from nerfkit.arguments import parse
    from nerfkit.signing_flags import Keygen
    from nerfkit.stego.keys import Key

    arguments = parse(Keygen, "keygen", words)
    key = Key.new()
    key.write(arguments.out)
    say(f"key {key.name}: keep a copy where nobody else comes; what it marks cannot be read without it")
    print(arguments.out)
    return 0


def embed(words: list[str]) -> int:
    """Mark a run: a copy whose every render carries a message."""
    from nerfkit.arguments import parse
    from nerfkit.signing_flags import Embed
    from nerfkit.stego.keys import Key

    arguments = parse(Embed, "embed", words)
    key, message = Key.read(arguments.key), message_of(arguments.message, arguments.bits)
    from nerfkit.assess import scene_of
    from nerfkit.run import Run
    from nerfkit.stego.embed import embed as put
    from nerfkit.stego.embed import prepared
    from nerfkit.stego.mark import has_mark

    run = Run.open(arguments.run)
    out = arguments.out or run.path.with_name(f"{run.path.name}-marked")
    if not has_mark(run):
        say("looking for what can carry a message; this is done once")
    model, mark = prepared(
        run, lambda: scene_of(run, arguments.scene), arguments.profile, arguments.target_psnr, arguments.bits
    )
    done = put(run, model, mark, key, message, out, ["nerfkit", "embed", str(arguments.run)])
    terms = mark.terms
    lost = "" if terms.photo_loss is None else f"; against the photographs {terms.photo_loss:.2f} dB lost"
    rows = {
        "message": shown(message),
        "marked": f"{terms.psnr:.1f} dB from unmarked, the worst view {terms.worst_psnr:.1f} dB{lost}",
        "read back": f"from {done.n_read} of {done.n_tried} views alone, and from all together",
    }
    print_table(rows.items())
    say(f"give {out} away, and keep {run.path} and the key")
    print(out)
    return 0


def _or_untold(verb: Callable[[list[str]], int]) -> Callable[[list[str]], int]:
    """A verb whose failures are told apart from the answer that nothing was found."""

    @wraps(verb)
    def told(words: list[str]) -> int:
        try:
            return verb(words)
        except Exception as error:
            error.exit_code = UNTOLD
            raise

    return told


@_or_untold
def extract(words: list[str]) -> int:
    """Read the message of pictures of a run, with its error rate."""
    from nerfkit.arguments import parse
    from nerfkit.signing_flags import Extract

    arguments = parse(Extract, "extract", words)
    mark, names, found = _read(arguments.run, arguments.pictures, arguments.key, arguments.fpr, None)
    reading = found.reading
    record: dict[str, Any] = {
        **_told(reading),
        "false_positive_rate": arguments.fpr,
        **_pictures(names, found, mark),
    }
    if arguments.json:
        print(json.dumps(record, indent=1))
    elif reading is None:
        print("absent")
        say(f"{found.n_shown} of {len(names)} pictures show the scene, and none of its messages is in them")
    else:
        print(record["message"])
        say(
            f"from {found.n_shown} of {len(names)} pictures, {reading.corrected} wrong bits put right; a picture "
            f"without a message says so with a chance of {reading.p_value:.1e} at most"
        )
    return 0 if reading is not None else ABSENT


@_or_untold
def verify(words: list[str]) -> int:
    """Say whether pictures of a run carry one message."""
    from nerfkit.arguments import parse
    from nerfkit.signing_flags import Verify

    arguments = parse(Verify, "verify", words)
    mark, names, found = _read(arguments.run, arguments.pictures, arguments.key, arguments.fpr, arguments.message)
    agreeing, p = found.verified or (0, 1.0)
    there = p <= arguments.fpr
    record = {
        "found": there,
        "agreeing": agreeing,
        "p_value": p,
        "false_positive_rate": arguments.fpr,
        **_pictures(names, found, mark),
    }
    if arguments.json:
        print(json.dumps(record, indent=1))
    else:
        print("present" if there else "absent")
        say(f"{agreeing} of {record['n_bits']} bits agree, as many do by chance with {p:.1e}")
    return 0 if there else ABSENT


@_or_untold
def inspect(words: list[str]) -> int:
    """Read the message of models from their numbers, with its error rate."""
    from nerfkit.arguments import parse
    from nerfkit.signing_flags import Inspect
    from nerfkit.stego.keys import StegoError

    arguments = parse(Inspect, "inspect", words)
    if not arguments.models:
        raise StegoError("no model to inspect")
    key, model, mark = _owned(arguments.run, arguments.key, arguments.fpr)
    from nerfkit.stego.weights import inspected

    each = [(path, *inspected(model, mark, key, path, arguments.fpr)) for path in arguments.models]
    there = any(reading is not None for _, reading, _ in each)
    if arguments.json:
        models = [{"name": str(path), **_told(reading), "agreeing": agreeing} for path, reading, agreeing in each]
        record = {"found": there, "false_positive_rate": arguments.fpr, "n_bits": _n_bits(mark), "models": models}
        print(json.dumps(record, indent=1))
        return 0 if there else ABSENT
    for path, reading, agreeing in each:
        name = "" if len(each) == 1 else f"{path}: "
        print(f"{name}{'absent' if reading is None else shown(reading.message)}")
        if reading is not None:
            marks = ", ".join(f"{n} of its {what}" for what, n in agreeing.items())
            say(
                f"{name}{reading.corrected} of {_n_bits(mark)} bits wrong and put right ({marks} agree); a model "
                f"without a message says so with a chance of {reading.p_value:.1e} at most"
            )
    return 0 if there else ABSENT


def attack(words: list[str]) -> int:
    """Do to a picture what may happen to it on its way."""
    from nerfkit.arguments import parse
    from nerfkit.signing_flags import Attack

    arguments = parse(Attack, "attack", words)
    from PIL import Image

    from nerfkit.aside import file_aside
    from nerfkit.stego.attacks import attacked
    from nerfkit.stego.pictures import pictures_of

    _, picture = next(pictures_of([arguments.picture]))
    out = arguments.out or arguments.picture.with_name(f"{arguments.picture.stem}-attacked.png")
    result = attacked(picture, arguments.by, arguments.seed)
    with file_aside(out) as aside:
        Image.fromarray(result).save(aside)
    print(out)
    return 0


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


def shown(message: bytes) -> str:
    """A message as people read it.

    >>> shown(b"ab\\0\\0"), shown(b"\\xff\\0")
    ('ab', '0xff00')
    """
    try:
        text = message.rstrip(b"\0").decode()
        if text and text.isprintable():
            return text
    except UnicodeDecodeError:
        pass
    return f"0x{message.hex()}"


def _owned(folder: Path, key_file: Path, rate: float) -> tuple[Key, Model, Mark]:
    """What only the owner has: the key, and the unmarked run with its mark."""
    from nerfkit.stego.keys import Key, StegoError

    if not 0.0 < rate < 1.0:
        raise StegoError(f"--fpr {rate:g}: expected a rate between 0 and 1")
    key = Key.read(key_file)
    from nerfkit.render import load_model
    from nerfkit.run import Run
    from nerfkit.stego.mark import read_mark

    run = Run.open(folder)
    model = load_model(run)
    mark = read_mark(run, model)
    if mark is None:
        raise StegoError(f"{folder}: was never marked; give the run that nerfkit embed was given, not a copy")
    return key, model, mark


def _told(reading: Reading | None) -> dict[str, Any]:
    """A reading as a record has it."""
    return {
        "found": reading is not None,
        "message": None if reading is None else shown(reading.message),
        "hex": None if reading is None else reading.message.hex(),
        "corrected": None if reading is None else reading.corrected,
        "p_value": 1.0 if reading is None else reading.p_value,
    }


def _n_bits(mark: Mark) -> int:
    """Of a word."""
    from nerfkit.stego.message import FORMATS

    return FORMATS[mark.terms.n_bits].code.n


def _read(
    folder: Path, paths: tuple[Path, ...], key_file: Path, rate: float, expected: str | None
) -> tuple[Mark, list[str], Found]:
    from nerfkit.stego.keys import StegoError

    if not paths:
        raise StegoError("no picture to read")
    key, model, mark = _owned(folder, key_file, rate)
    from nerfkit.stego.extract import extract as read
    from nerfkit.stego.extract import hear
    from nerfkit.stego.pictures import pictures_of

    message = None if expected is None else message_of(expected, mark.terms.n_bits)
    names, heard = [], []
    for name, picture in pictures_of(list(paths)):
        names.append(name)
        heard.append(hear(model, mark, picture))
    return mark, names, read(mark, key, heard, rate, message)


def _pictures(names: list[str], found: Found, mark: Mark) -> dict[str, Any]:
    """What each picture has to do with it."""
    each = [{"name": name, "agreeing": agreeing} for name, agreeing in zip(names, found.agreeing, strict=True)]
    return {"n_bits": _n_bits(mark), "n_shown": found.n_shown, "pictures": each}


SIGNING: dict[str, Callable[[list[str]], int]] = {
    "keygen": keygen,
    "embed": embed,
    "extract": extract,
    "verify": verify,
    "inspect": inspect,
    "attack": attack,
}
