from __future__ import annotations

import json
import stat
from pathlib import Path

import numpy as np
import pytest

from nerfkit.stego.keys import Key, StegoError


def test_a_key_is_its_owners_and_comes_back(tmp_path: Path) -> None:
    key = Key.new()
    key.write(tmp_path / "a" / "owner.key")
    assert stat.S_IMODE((tmp_path / "a" / "owner.key").stat().st_mode) == 0o600
    assert Key.read(tmp_path / "a" / "owner.key") == key
    assert Key.new() != key


def test_a_key_that_is_there_stays(tmp_path: Path) -> None:
    Key.new().write(tmp_path / "k")
    before = (tmp_path / "k").read_bytes()
    with pytest.raises(StegoError, match="already"):
        Key.new().write(tmp_path / "k")
    assert (tmp_path / "k").read_bytes() == before


def test_it_is_shown_nowhere() -> None:
    key = Key.new()
    for text in (repr(key), str(key), repr(key.of_scene("s")), key.name):
        assert key.secret.hex() not in text and repr(key.secret) not in text


@pytest.mark.parametrize("harm", ["secret", "name", "schema", "cut", "json", "none"])
def test_a_damaged_key_is_told(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "k"
    Key(bytes(32)).write(path)
    body = json.loads(path.read_text())
    if harm == "secret":
        body["secret"] = "B" + body["secret"][1:]
    elif harm == "name":
        body["name"] = "0" * 8
    elif harm == "schema":
        body["nerfkit key"] = 2
    text = json.dumps(body)
    path.write_text({"cut": text[:40], "json": "[1]"}.get(harm, text))
    if harm == "none":
        path.unlink()
    with pytest.raises(StegoError, match="k: "):
        Key.read(path)


def test_streams_differ_by_key_scene_and_purpose_and_are_fair() -> None:
    a, b = Key(bytes(32)), Key(bytes(31) + b"1")
    streams = [a.of_scene("s").bits("p", 10000), a.of_scene("t").bits("p", 10000)]
    streams += [b.of_scene("s").bits("p", 10000), a.of_scene("s").bits("q", 10000)]
    for i, one in enumerate(streams):
        assert abs(one.mean() - 0.5) < 0.02
        for other in streams[:i]:
            assert abs((one == other).mean() - 0.5) < 0.02
    assert np.array_equal(streams[0], a.of_scene("s").bits("p", 10000))
    assert sorted(a.of_scene("s").order("p", 1000)) == list(range(1000))


@pytest.mark.parametrize("n", [8, 64, 131])
def test_scrambling_is_undone_by_its_key_alone_and_changes_half_of_all(n: int) -> None:
    secret, other = (Key(bytes([number]) * 32).of_scene("s") for number in range(2))
    plain = np.random.default_rng(0).integers(0, 2, (400, n)).astype(np.uint8)
    scrambled = np.stack([secret.scrambled(bits) for bits in plain])
    assert all(
        np.array_equal(secret.scrambled(there, back=True), bits) for there, bits in zip(scrambled, plain, strict=True)
    )
    flipped = plain.copy()
    flipped[np.arange(400), np.arange(400) % n] ^= 1
    for changed in (
        np.stack([secret.scrambled(bits) for bits in flipped]),
        np.stack([other.scrambled(bits) for bits in plain]),
    ):
        assert (changed != scrambled).mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(400 * n))


def test_the_stream_is_the_same_everywhere() -> None:
    """Marks that were made must be read by later versions, on other machines."""
    assert Key(bytes(range(32))).of_scene("scene").draw("purpose", 8).tobytes().hex() == "b5ae8cb74b374518"
