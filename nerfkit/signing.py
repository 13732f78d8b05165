"""The verbs that sign and read; nothing heavy is imported before one needs it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nerfkit.benching import stego_bench
from nerfkit.hiding import hide, show
from nerfkit.recording import record, shown
from nerfkit.terminal import print_table, say, track

if TYPE_CHECKING:
    from nerfkit.render import Model
    from nerfkit.signing_flags import Embed, Extract
    from nerfkit.stego.attacks import Picture
    from nerfkit.stego.extract import Found
    from nerfkit.stego.keys import Key
    from nerfkit.stego.mark import Mark
    from nerfkit.stego.message import Reading
    from nerfkit.stego.recipients import Named
    from nerfkit.stego.record import Line

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
    """Mark a run: a copy whose every render carries a message, or tells whose it is."""
    from nerfkit.arguments import parse
    from nerfkit.aside import beside
    from nerfkit.signing_flags import Embed
    from nerfkit.stego.keys import Key

    arguments = parse(Embed, "embed", words)
    key = Key.read(arguments.key)
    content = _content(arguments)
    out = arguments.out or beside(arguments.run, "-marked")
    if isinstance(content, Path):
        return hide(arguments, key, content, out)
    from nerfkit.assess import scene_of
    from nerfkit.run import Run, check_free
    from nerfkit.stego.embed import embed as put
    from nerfkit.stego.embed import prepared, write_copy
    from nerfkit.stego.mark import has_mark
    from nerfkit.stego.message import FORMATS, Letter
    from nerfkit.stego.recipients import Addresses
    from nerfkit.stego.record import FILE, Content, note, read_record

    run = Run.open(arguments.run)
    check_free(out)
    record = run.path / FILE
    if record.exists():  # what cannot be noted is not made
        read_record(record)
    if run.provenance.get("marked"):
        say(f"{run.path} is a marked copy: its mark stays; for one alone, mark the run that it was made from")
    if not has_mark(run):
        say("looking for what can carry a message; this is done once")
    model, mark = prepared(
        run, lambda: scene_of(run, arguments.scene), arguments.profile, arguments.target_psnr, arguments.bits
    )
    terms, to = mark.terms, isinstance(content, str)
    letter = (Addresses if to else Letter)(key.of_scene(terms.scene), FORMATS[terms.n_bits])
    done = put(run, model, mark, letter, content)
    # First: a line too many does no harm, a copy that no line knows can never be told.
    lines = note(record, key, terms.scene, Content(to=content) if to else Content(content.hex()))
    write_copy(run, {"table": done.table}, out, ["nerfkit", "embed", str(arguments.run)])
    lost = "" if terms.photo_loss is None else f"; against the photographs {terms.photo_loss:.2f} dB lost"
    rows = {
        **({"to": content} if to else {"message": shown(content)}),
        "marked": f"{terms.psnr:.1f} dB from unmarked, the worst view {terms.worst_psnr:.1f} dB{lost}",
        "read back": f"from {done.n_read} of {done.n_tried} views alone, and from all together",
        "recorded": f"line {len(lines)} of {record}, {lines[-1].hash}",
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
    from nerfkit.stego.keys import Key

    arguments = parse(Extract, "extract", words)
    _check_pictures(arguments.pictures)
    _check_credentials(arguments)
    if arguments.hidden is not None:
        return 0 if show(arguments, Key.read(arguments.key), arguments.hidden) else ABSENT
    lines = _recorded(arguments.run, arguments.record)
    mark, names, found = _read(arguments.run, arguments.pictures, arguments.key, arguments.fpr, None, lines)
    reading = found.reading
    record: dict[str, Any] = {
        **_told(reading, found.recipients),
        "false_positive_rate": arguments.fpr,
        **_pictures(names, found, mark),
    }
    if arguments.json:
        print(json.dumps(record, indent=1))
    elif not found.n_shown:
        print("absent")
        say(_unseen(names))
    else:
        _tell(record, "", f"{found.n_shown} of {len(names)} pictures, which show the scene")
    if arguments.c2pa is not None:
        _give_credentials(arguments, mark, reading)
    return 0 if record["found"] else ABSENT


def _tell(record: dict[str, Any], name: str, source: str) -> None:
    """What was read, for people: the message and those whose copies it is of, each in a line of its own."""
    if not record["found"]:
        print(f"{name}absent")
        say(f"{name}no message and no recipient of a copy is in {source}")
    if record["message"] is not None:
        print(f"{name}{record['message']}")
        say(
            f"{name}from {source}, {record['corrected']} wrong bits put right; what has no message says so with a "
            f"chance of {record['p_value']:.1e} at most"
        )
    for one in record["recipients"]:
        print(f"{name}copy of {one['name']}")
        say(f"{name}from {source}; anybody innocent is named with a chance of {one['p_value']:.1e} at most")


@_or_untold
def verify(words: list[str]) -> int:
    """Say whether pictures of a run carry one message."""
    from nerfkit.arguments import parse
    from nerfkit.signing_flags import Verify

    arguments = parse(Verify, "verify", words)
    _check_pictures(arguments.pictures)
    mark, names, found = _read(arguments.run, arguments.pictures, arguments.key, arguments.fpr, arguments.message, [])
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
        told = f"{agreeing} of {record['n_bits']} bits agree, as many do by chance with {p:.1e}"
        say(told if found.n_shown else _unseen(names))
    return 0 if there else ABSENT


def _unseen(names: list[str]) -> str:
    return f"none of {len(names)} pictures shows the scene, or enough of it"


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
    from nerfkit.stego.record import recipients_of
    from nerfkit.stego.weights import inspected

    names = recipients_of(_recorded(arguments.run, None), key, mark.terms.scene)
    models = []
    for path in arguments.models:
        found = inspected(model, mark, key, path, arguments.fpr, names)
        models.append({"name": str(path), **_told(found.reading, found.recipients), "agreeing": found.agreeing})
    there = any(one["found"] for one in models)
    if arguments.json:
        record = {"found": there, "false_positive_rate": arguments.fpr, "n_bits": _n_bits(mark), "models": models}
        print(json.dumps(record, indent=1))
        return 0 if there else ABSENT
    for one in models:
        _tell(one, "" if len(models) == 1 else f"{one['name']}: ", "its numbers")
    return 0 if there else ABSENT


def attack(words: list[str]) -> int:
    """Do to a picture what may happen to it on its way."""
    from nerfkit.arguments import parse
    from nerfkit.signing_flags import Attack

    arguments = parse(Attack, "attack", words)
    from PIL import Image

    from nerfkit.aside import file_aside
    from nerfkit.stego.attacks import attacked
    from nerfkit.stego.keys import StegoError
    from nerfkit.stego.pictures import pictures_of

    _, picture = next(pictures_of([arguments.picture]))
    out = arguments.out or arguments.picture.with_name(f"{arguments.picture.stem}-attacked.png")
    if out.suffix.lower() not in Image.registered_extensions():
        raise StegoError(f"--out {out}: expected a name such as x.png")
    result = attacked(picture, arguments.by, arguments.seed)
    with file_aside(out) as aside:
        Image.fromarray(result).save(aside)
    print(out)
    return 0


def _check_pictures(paths: tuple[Path, ...]) -> None:
    from nerfkit.stego.keys import StegoError

    if not paths:
        raise StegoError("no picture to read")


def _check_credentials(arguments: Extract) -> None:
    from nerfkit.stego.keys import StegoError

    if arguments.c2pa is not None and arguments.hidden is not None:
        raise StegoError("--c2pa: names a message, and with --hidden none is read; give one of them")
    if arguments.c2pa is not None and not (len(arguments.pictures) == 1 and arguments.pictures[0].is_file()):
        raise StegoError("--c2pa: is for one picture, in a file")


def _give_credentials(arguments: Extract, mark: Mark, reading: Reading | None) -> None:
    from nerfkit.stego.c2pa import binding, with_manifest
    from nerfkit.stego.keys import Key

    if reading is None:
        say(f"{arguments.c2pa}: not written, as there is no message that a manifest could name")
        return
    signer = arguments.c2pa_by or Key.read(arguments.key)
    with_manifest(arguments.pictures[0], arguments.c2pa, binding(mark.terms.scene, reading.message), signer)
    say(f"{arguments.c2pa}: the picture with a manifest of its message")


def _content(arguments: Embed) -> bytes | str | Path:
    """The message or the recipient of a copy, or the file that it hides."""
    from nerfkit.signing_flags import message_of
    from nerfkit.stego.keys import StegoError
    from nerfkit.stego.recipients import recipient_of

    if sum(one is not None for one in (arguments.message, arguments.to, arguments.hide)) != 1:
        raise StegoError("--message, --to, --hide: a copy carries a message, is somebody's or hides a file: give one")
    if arguments.hide is not None:
        return arguments.hide
    return message_of(arguments.message, arguments.bits) if arguments.to is None else recipient_of(arguments.to)


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


def _recorded(run: Path, file: Path | None) -> list[Line]:
    """The lines of a record: that of the run if none is named, and none where it has none."""
    from nerfkit.stego.record import FILE, read_record

    return read_record(file or run / FILE) if file or (run / FILE).exists() else []


def _told(reading: Reading | None, recipients: list[Named]) -> dict[str, Any]:
    """What was read, as a record has it."""
    return {
        "found": reading is not None or bool(recipients),
        "message": None if reading is None else shown(reading.message),
        "hex": None if reading is None else reading.message.hex(),
        "corrected": None if reading is None else reading.corrected,
        "p_value": 1.0 if reading is None else reading.p_value,
        "recipients": [{"name": one.name, "p_value": one.p_value} for one in recipients],
    }


def _n_bits(mark: Mark) -> int:
    """Of a word."""
    from nerfkit.stego.message import FORMATS

    return FORMATS[mark.terms.n_bits].code.n


def _read(
    folder: Path, paths: tuple[Path, ...], key_file: Path, rate: float, expected: str | None, lines: list[Line]
) -> tuple[Mark, list[str], Found]:
    from nerfkit.signing_flags import message_of

    key, model, mark = _owned(folder, key_file, rate)
    from nerfkit.stego.extract import look_for
    from nerfkit.stego.pictures import pictures_of
    from nerfkit.stego.record import recipients_of

    message = None if expected is None else message_of(expected, mark.terms.n_bits)
    names = []

    def pictures() -> Iterator[Picture]:
        names.clear()
        for name, picture in track(pictures_of(list(paths)), text="reading pictures"):
            names.append(name)
            yield picture

    found = look_for(model, mark, key, pictures, rate, message, recipients_of(lines, key, mark.terms.scene))
    return mark, names, found


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
    "record": record,
    "attack": attack,
    "stego-bench": stego_bench,
}
