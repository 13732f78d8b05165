"""A record of what was marked when: lines of JSON, each signed and bound to the one before it.

    {"number": 2, "date": UTC, "kind": "copy given", "scene": digest, "secret": commitment, "content": commitment,
     "sealed": base64, "previous": SHA-256 of line 1, "signer": public key, "signature": Ed25519 of all before it}

The file may be shown to anyone: what a copy carries, and for whom it is, stands in it sealed, and the owner's key opens
it. To prove a line to somebody else without the key, its owner tells salt and content, of which the line has the
SHA-256, or the scene's secret, of which it has that, too. A changed, missing or moved line is seen; lines cut off from
the end are not, unless the hash of the last one (the head) was kept elsewhere. The date is what the owner's clock said.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nerfkit.aside import file_aside
from nerfkit.stego.keys import Key, StegoError

FILE = "record.jsonl"
"""In the folder of the unmarked run; not in its mark, which may be made anew."""
REGISTERED, GIVEN = "scene registered", "copy given"
_NONE = hashlib.sha256(b"").hexdigest()
"""What the first line follows."""
_SALT, _NONCE, _ROOM = 32, 12, 64


class RecordError(StegoError):
    """A record that is not whole: the message names the line."""


@dataclass(frozen=True)
class Line:
    """What was done, by whom."""

    number: int
    """From one, as lines of the file."""
    date: str
    kind: str
    """`REGISTERED` or `GIVEN`."""
    scene: str
    """Digest of the unmarked field, and of what carries in it: no other carriers can be read by its secret."""
    secret: str
    """SHA-256 of the scene's secret: who shows that had it then."""
    content: str
    """SHA-256 of a random salt and what the copy carries; empty where there is no copy."""
    sealed: str
    """Both, encrypted for the owner."""
    previous: str
    """SHA-256 of the line before."""
    signer: str
    """Ed25519 public key, hexadecimal."""
    signature: str
    """Of the line as it is with an empty signature."""

    @property
    def text(self) -> str:
        """As the file has it."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @property
    def hash(self) -> str:
        """What the next line holds of this one."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True)
class Content:
    """What a copy carries: one of these."""

    message: str | None = None
    """Hexadecimal."""
    to: str | None = None
    """The recipient."""
    hidden: str | None = None
    """SHA-256 of the file that its renders show, hexadecimal."""


@dataclass(frozen=True)
class Opened:
    """A line's content, and what proves it to others."""

    content: Content
    text: str
    """The content as it was hashed, after the salt."""
    salt: bytes


def read_record(path: Path) -> list[Line]:
    """All lines. Raises RecordError where one was altered, removed, moved or not written to its end."""
    try:
        *whole, rest = path.read_bytes().split(b"\n")
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror or error}") from None
    lines = [_line_of(data, f"{path}: line {number}") for number, data in enumerate(whole, 1)]
    numbers, previous = {line.number for line in lines}, _NONE
    for number, line in enumerate(lines, 1):
        if line.number != number:
            what = f"here stands number {line.number}"
            done = "lines were reordered" if number in numbers else f"line {number} was removed"
            raise RecordError(f"{path}: {done}, {what} in its place")
        if line.previous != previous:
            raise RecordError(f"{path}: line {number} follows another line {number - 1} than the one before it")
        previous = line.hash
    if rest:
        raise RecordError(f"{path}: line {len(whole) + 1} was not written to its end; those before it are whole")
    return lines


def note(path: Path, key: Key, scene: str, content: Content) -> list[Line]:
    """Add a copy to a record, and before it the scene where this key has not registered it; returns all lines.

    Who writes at the same time waits. The file is written beside its place and renamed when it is on the disk, so that
    a crash leaves the old one or the new. Raises RecordError where the record is not whole; it stays as it is then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path):
        lines = read_record(path) if path.exists() else []
        signer = signer_of(key)
        if not any((line.kind, line.scene, line.signer) == (REGISTERED, scene, signer) for line in lines):
            lines.append(_next(lines, key, REGISTERED, scene, "", ""))
        lines.append(_next(lines, key, GIVEN, scene, *_sealed(key, content)))
        with file_aside(path) as aside, open(aside, "wb") as file:
            file.write("".join(f"{line.text}\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())
    return lines


def signer_of(key: Key) -> str:
    """The public key of an owner, hexadecimal."""
    return _signing(key).public_key().public_bytes_raw().hex()


def opened(line: Line, key: Key) -> Opened | None:
    """What the copy of a line carries; None where there is none, or the line is another key's."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    box = base64.b64decode(line.sealed)
    if line.signer != signer_of(key):
        return None
    try:
        plain = ChaCha20Poly1305(key.derived("seal of the record")).decrypt(box[:_NONCE], box[_NONCE:], None)
    except (InvalidTag, ValueError):
        return None
    text = plain[_SALT:].decode().rstrip()
    return Opened(Content(**json.loads(text)), text, plain[:_SALT])


def recipients_of(lines: list[Line], key: Key, scene: str) -> list[str]:
    """Who was given a copy of a scene, each once."""
    boxes = (opened(line, key) for line in lines if line.kind == GIVEN and line.scene == scene)
    names = (box.content.to for box in boxes if box is not None)
    return list(dict.fromkeys(name for name in names if name is not None))


def _next(lines: list[Line], key: Key, kind: str, scene: str, content: str, sealed: str) -> Line:
    secret = hashlib.sha256(key.of_scene(scene).value).hexdigest()
    date = datetime.now(UTC).isoformat(timespec="seconds")
    previous = lines[-1].hash if lines else _NONE
    line = Line(len(lines) + 1, date, kind, scene, secret, content, sealed, previous, signer_of(key), "")
    return replace(line, signature=_signing(key).sign(line.text.encode()).hex())


def _sealed(key: Key, content: Content) -> tuple[str, str]:
    """The commitment to a content, and the content encrypted, with its length hidden."""
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    salt, nonce = secrets.token_bytes(_SALT), secrets.token_bytes(_NONCE)
    text = json.dumps({name: value for name, value in asdict(content).items() if value is not None}).encode()
    padded = salt + text.ljust(-(-len(text) // _ROOM) * _ROOM)
    box = nonce + ChaCha20Poly1305(key.derived("seal of the record")).encrypt(nonce, padded, None)
    return hashlib.sha256(salt + text).hexdigest(), base64.b64encode(box).decode()


def _signing(key: Key) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(key.derived("signature of the record"))


def _line_of(data: bytes, where: str) -> Line:
    """A line as it was written and signed."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    altered = RecordError(f"{where} was altered: it is not what its signer wrote")
    try:
        body = json.loads(data)
        line = Line(**body)
        kinds = {field.name: {"int": int, "str": str}[field.type] for field in fields(Line)}
        if line.text.encode() != data or any(type(body[name]) is not kind for name, kind in kinds.items()):
            raise altered
        unsigned = replace(line, signature="").text.encode()
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(line.signer)).verify(bytes.fromhex(line.signature), unsigned)
        base64.b64decode(line.sealed, validate=True)
    except (ValueError, TypeError, RecursionError, InvalidSignature):
        raise altered from None
    return line


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until nobody else writes a record or a mark beside it, and keep others waiting; who dies lets go."""
    with open(path.with_name(f".{path.name}.lock"), "ab") as file:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
