"""The owner's key, and all that is drawn from it: what is not in the key file, nobody else can draw.

A key is 32 secret bytes. Each scene has a secret of its own, derived by HKDF (RFC 5869), so that what is learnt of one
scene's mark says nothing of another's; from that, a stream of ChaCha20 for each purpose, the same on every machine.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int, UInt8

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

SCHEMA = 1
"""Version of the key file."""


class StegoError(RuntimeError):
    """What cannot be marked or read: the message names the file and what to do."""

    exit_code = 2
    """1 is the answer that no message was found."""


@dataclass(frozen=True)
class Key:
    """32 secret bytes, which are shown nowhere."""

    secret: bytes = field(repr=False)

    @classmethod
    def new(cls) -> Key:
        """A key that nobody had before."""
        return cls(secrets.token_bytes(32))

    @property
    def name(self) -> str:
        """Eight letters that tell keys apart and say nothing of the secret."""
        return hashlib.sha256(b"nerfkit key " + self.secret).hexdigest()[:8]

    def of_scene(self, scene: str) -> Secret:
        """The secret of one scene, of its digest."""
        return Secret(_hkdf(self.secret, scene.encode(), b"nerfkit mark"))

    def derived(self, purpose: str) -> bytes:
        """32 bytes for a purpose, which say nothing of the key nor of what is derived for another."""
        return _hkdf(self.secret, b"", f"nerfkit {purpose}".encode())

    def write(self, path: Path) -> None:
        """Write the key file, which its owner alone may read. Raises StegoError where there is a file already."""
        body = {"nerfkit key": SCHEMA, "name": self.name, "secret": base64.b64encode(self.secret).decode()}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise StegoError(f"{path}: is there already; a key that is lost cannot be had again, so it stays") from None
        except OSError as error:
            raise StegoError(f"{path}: no key can be written here: {error.strerror or error}") from None
        with os.fdopen(handle, "w") as file:
            file.write(json.dumps(body, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())

    @classmethod
    def read(cls, path: Path) -> Key:
        """The key of a file. Raises StegoError where it is none, or not as it was written."""
        try:
            body = json.loads(path.read_bytes())
            if body["nerfkit key"] != SCHEMA:
                raise StegoError(f"{path}: key file {body['nerfkit key']!r} is not {SCHEMA}, which this version reads")
            key = cls(base64.b64decode(body["secret"], validate=True))
            if len(key.secret) != 32 or body["name"] != key.name:
                raise StegoError(f"{path}: is damaged: the secret is not that of key {str(body['name'])[:8]}")
            return key
        except OSError as error:
            raise StegoError(f"{path}: {error.strerror or error}; nerfkit keygen makes a key") from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise StegoError(f"{path}: is no key file; nerfkit keygen makes one") from None


@dataclass(frozen=True)
class Secret:
    """What a key is for one scene."""

    value: bytes = field(repr=False)

    def draw(self, purpose: str, n: int) -> UInt8[np.ndarray, " n"]:
        """The first n bytes of this purpose's stream, uniform."""
        _check_installed()
        from cryptography.hazmat.primitives.ciphers import Cipher
        from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

        stream = Cipher(ChaCha20(_hkdf(self.value, b"", purpose.encode()), bytes(16)), mode=None).encryptor()
        return np.frombuffer(stream.update(bytes(n)), np.uint8)

    def bits(self, purpose: str, n: int) -> UInt8[np.ndarray, " n"]:
        """n fair bits of this purpose's stream."""
        return np.unpackbits(self.draw(purpose, -(-n // 8)))[:n]

    def order(self, purpose: str, n: int) -> Int[np.ndarray, " n"]:
        """A permutation of n things, by which any order is as likely as any other."""
        return np.argsort(self.draw(purpose, 8 * n).view(np.uint64), kind="stable")

    def sealed(self, purpose: str, data: bytes) -> bytes:
        """Data that nobody can read or change who has not the key (ChaCha20-Poly1305, RFC 8439)."""
        nonce = secrets.token_bytes(12)
        return nonce + self._lock(purpose).encrypt(nonce, data, None)

    def unsealed(self, purpose: str, sealed: bytes) -> bytes | None:
        """What was sealed by this key for this purpose; None where it was by another, or is not as it was."""
        from cryptography.exceptions import InvalidTag

        try:
            return self._lock(purpose).decrypt(sealed[:12], sealed[12:], None)
        except (InvalidTag, ValueError):
            return None

    def _lock(self, purpose: str) -> ChaCha20Poly1305:
        _check_installed()
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        return ChaCha20Poly1305(_hkdf(self.value, b"", purpose.encode()))

    def scrambled(self, bits: UInt8[np.ndarray, " n"], back: bool = False) -> UInt8[np.ndarray, " n"]:
        """Bits as the key says them: a permutation of all bits of this length, 512 at most, which nobody can tell from
        one that was drawn by chance who has not the key; ``back``, its inverse.

        Four rounds of Luby and Rackoff (1988), their functions the first bits of HMAC-SHA256.
        """
        key, halves = _hkdf(self.value, b"", b"scramble"), np.split(bits, [len(bits) // 2])
        for number in range(3, -1, -1) if back else range(4):
            changed, other = halves[1 - number % 2], halves[number % 2]
            found = hmac.digest(key, bytes([number]) + np.packbits(other).tobytes(), "sha256")
            halves[1 - number % 2] = changed ^ np.unpackbits(np.frombuffer(found, np.uint8))[: len(changed)]
        return np.concatenate(halves)


def _check_installed() -> None:
    if find_spec("cryptography") is None:
        raise StegoError("signing needs the package cryptography: pip install 'nerfkit[sign]'")


def _hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    _check_installed()
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), 32, salt, info).derive(secret)
