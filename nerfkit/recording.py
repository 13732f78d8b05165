"""The verb that shows the record of marked copies; nothing heavy is imported before it needs it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from nerfkit.terminal import say

if TYPE_CHECKING:
    from nerfkit.stego.record import Content


def record(words: list[str]) -> int:
    """Say whether the record of marked copies is whole, and print it."""
    from nerfkit.arguments import parse
    from nerfkit.signing_flags import Record
    from nerfkit.stego.keys import Key
    from nerfkit.stego.record import FILE, RecordError, opened, read_record, signer_of

    arguments = parse(Record, "record", words)
    path = arguments.record / FILE if arguments.record.is_dir() else arguments.record
    lines = read_record(path)
    if arguments.head is not None and arguments.head not in {line.hash for line in lines}:
        raise RecordError(f"{path}: no line is that of --head; it was cut off from the end, or the record replaced")
    key = None if arguments.key is None else Key.read(arguments.key)
    boxes = [None if key is None else opened(line, key) for line in lines]
    if arguments.json:
        rows = [{**asdict(line), "hash": line.hash} for line in lines]
        for row, box in zip(rows, boxes, strict=True):
            row |= {} if box is None else {"opened": box.text, "salt": box.salt.hex()}
        print(json.dumps(rows, indent=1))
        return 0
    for line, box in zip(lines, boxes, strict=True):
        kept = ("sealed" if line.sealed else "") if box is None else _carried(box.content)
        print(f"{line.number:4}  {line.date}  {line.kind:16}  {line.scene[:12]}  {line.signer[:12]}  {kept}".rstrip())
    mine = "" if key is None else f", {sum(line.signer == signer_of(key) for line in lines)} of them by this key"
    say(f"{len(lines)} lines are whole{mine}; were any cut off from the end, only a head that is kept elsewhere tells")
    print(f"head  {lines[-1].hash if lines else 'none'}")
    return 0


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


def _carried(content: Content) -> str:
    """What a copy carries, for people."""
    if content.hidden is not None:
        return f"shows {content.hidden[:12]}"
    return shown(bytes.fromhex(content.message)) if content.to is None else f"for {content.to}"
