"""What is hidden in renders: a picture, or any small file, drawn as a picture of coloured blocks.

A file's bytes go into words of the code (255, 131), whose bits lie interleaved over the picture: each is a block of 2x2
pixels in one colour channel, dark or bright. So a picture that is drawn with faults still gives the file, bit for bit.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float

from nerfkit.provenance import digest
from nerfkit.stego.code import Code
from nerfkit.stego.decoder import SIDE
from nerfkit.stego.keys import StegoError
from nerfkit.stego.pictures import is_picture, pictures_of

_CODE, _BLOCK = Code(255, 131), 2
_ROWS = SIDE // _BLOCK
_N_WORDS = 3 * _ROWS * _ROWS // _CODE.n
_N_CHECK = 4
"""Bytes of a digest, which tell whether all was read as it was written."""
MOST_BYTES = _N_WORDS * _CODE.k // 8 - 2 - _N_CHECK
"""Of a file."""


@dataclass(frozen=True)
class Payload:
    """What is hidden, as the picture that is drawn."""

    name: str
    """Of the file, without its folder."""
    picture: Float[np.ndarray, "s s 3"]
    aspect: float
    """Height over width of a picture; 0: the blocks of a file."""

    @classmethod
    def of(cls, path: Path) -> Payload:
        """The payload of a picture or a file. Raises StegoError for one that is too long, empty or not to be read."""
        if is_picture(path):
            picture = next(pictures_of([path]))[1]
            small = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
            return cls(path.name, small.astype(np.float32) / 255, picture.shape[0] / picture.shape[1])
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StegoError(f"{path}: {error.strerror or error}") from None
        if not 0 < len(data) <= MOST_BYTES:
            raise StegoError(f"{path}: is of {len(data)} bytes, of which 1 to {MOST_BYTES} can be hidden")
        return cls(path.name, _blocks(data), 0.0)

    @property
    def digest(self) -> str:
        """Of what is drawn."""
        return digest(self.picture.tobytes())

    def contents(self, drawn: Float[np.ndarray, "s s 3"]) -> bytes:
        """The file that a drawn picture shows: a PNG of a picture. Raises StegoError where a file cannot be mended."""
        if not self.aspect:
            return _bytes(drawn)
        height, width = (SIDE, SIDE / self.aspect) if self.aspect > 1 else (SIDE * self.aspect, SIDE)
        size = max(round(width), 1), max(round(height), 1)
        shown = cv2.resize((drawn.clip(0, 1) * 255).round().astype(np.uint8), size, interpolation=cv2.INTER_AREA)
        return cv2.imencode(".png", shown[..., ::-1])[1].tobytes()


def _blocks(data: bytes) -> Float[np.ndarray, "s s 3"]:
    """Bytes as blocks."""
    check = hashlib.sha256(data).digest()[:_N_CHECK]
    whole = len(data).to_bytes(2, "big") + check + data
    bits = np.unpackbits(np.frombuffer(whole.ljust(MOST_BYTES + 2 + _N_CHECK, b"\0"), np.uint8))
    bits = np.pad(bits, (0, _N_WORDS * _CODE.k - len(bits))).reshape(_N_WORDS, _CODE.k)
    words = np.stack([_CODE.encode(row) for row in bits])
    cells = np.zeros(3 * _ROWS * _ROWS, np.float32)
    cells[: words.size] = words.T.ravel()
    return cells.reshape(_ROWS, _ROWS, 3).repeat(_BLOCK, 0).repeat(_BLOCK, 1)


def _bytes(drawn: Float[np.ndarray, "s s 3"]) -> bytes:
    """What blocks say."""
    cells = drawn.reshape(_ROWS, _BLOCK, _ROWS, _BLOCK, 3).mean((1, 3)).ravel() - 0.5
    words = cells[: _N_WORDS * _CODE.n].reshape(_CODE.n, _N_WORDS).T
    bits = np.concatenate([_CODE.decode(word.astype(np.float64)) for word in words])
    whole = np.packbits(bits[: bits.size // 8 * 8]).tobytes()
    length, check = int.from_bytes(whole[:2], "big"), whole[2 : 2 + _N_CHECK]
    data = whole[2 + _N_CHECK :][:length]
    if hashlib.sha256(data).digest()[:_N_CHECK] != check:
        raise StegoError("what is drawn has more faults than can be mended; more pictures may help")
    return data
