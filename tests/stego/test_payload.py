"""What is hidden comes back: files bit for bit, pictures as they were but for size."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nerfkit.stego.decoder import SIDE
from nerfkit.stego.keys import Key, StegoError
from nerfkit.stego.payload import MOST_BYTES, Payload


@pytest.mark.parametrize("n", [1, 100, MOST_BYTES])
def test_a_file_comes_back_though_drawn_with_faults(tmp_path: Path, n: int) -> None:
    chance = np.random.default_rng(n)
    path = tmp_path / "note.bin"
    path.write_bytes(chance.bytes(n))
    payload = Payload.of(path)
    drawn = payload.picture * 0.6 + 0.2 + chance.normal(0.0, 0.35, payload.picture.shape)
    wrong = ((drawn > 0.5) != (payload.picture > 0.5)).mean()
    assert wrong > 0.15  # of single pixels
    assert payload.contents(drawn) == path.read_bytes()


def test_what_cannot_be_mended_is_said_to_be_so(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    path.write_text("ours")
    payload = Payload.of(path)
    with pytest.raises(StegoError, match="more faults than can be mended"):
        payload.contents(np.random.default_rng(0).uniform(0, 1, payload.picture.shape))


@pytest.mark.parametrize(("width", "height"), [(200, 100), (60, 90), (128, 128)])
def test_a_picture_keeps_its_shape(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "logo.png"
    ramp = np.linspace(0, 255, width)[None, :, None] * np.ones((height, 1, 3))
    Image.fromarray(ramp.astype(np.uint8)).save(path)
    payload = Payload.of(path)
    shown = np.array(Image.open(io.BytesIO(payload.contents(payload.picture))))
    assert max(shown.shape[:2]) == SIDE
    assert shown.shape[0] / shown.shape[1] == pytest.approx(height / width, rel=0.02)
    expected = np.linspace(0, 255, shown.shape[1])[None, :, None]
    assert np.abs(shown - expected).mean() < 4.0


@pytest.mark.parametrize(("size", "said"), [(0, "of 0 bytes"), (MOST_BYTES + 1, "can be hidden")])
def test_a_file_of_a_length_that_does_not_fit_is_refused(tmp_path: Path, size: int, said: str) -> None:
    path = tmp_path / "long.bin"
    path.write_bytes(bytes(size))
    with pytest.raises(StegoError, match=said):
        Payload.of(path)
    with pytest.raises(StegoError, match="nowhere.bin"):
        Payload.of(tmp_path / "nowhere.bin")


def test_what_is_sealed_opens_by_its_key_and_purpose_alone() -> None:
    secret = Key(bytes(32)).of_scene("a")
    sealed = secret.sealed("one", b"data")
    assert b"data" not in sealed
    assert sealed != secret.sealed("one", b"data")
    assert secret.unsealed("one", sealed) == b"data"
    assert secret.unsealed("two", sealed) is None
    assert Key(bytes(32)).of_scene("b").unsealed("one", sealed) is None
    assert Key(b"x" * 32).of_scene("a").unsealed("one", sealed) is None
    for i in range(len(sealed)):
        assert secret.unsealed("one", sealed[:i] + bytes([sealed[i] ^ 1]) + sealed[i + 1 :]) is None
    assert secret.unsealed("one", b"short") is None
