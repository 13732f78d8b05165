"""A record shows whatever was done to it, and nothing of what it keeps."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nerfkit.cli import main
from nerfkit.stego.keys import Key
from nerfkit.stego.record import (
    GIVEN,
    REGISTERED,
    Content,
    RecordError,
    note,
    opened,
    read_record,
    recipients_of,
    signer_of,
)

KEY, OTHER = Key(bytes(32)), Key(bytes([1]) * 32)


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """Five lines: two scenes and three copies."""
    path = tmp_path / "record.jsonl"
    note(path, KEY, "scene-a", Content(to="Ada"))
    note(path, KEY, "scene-a", Content(message="6f7572730000"))
    note(path, KEY, "scene-b", Content(to="Bob"))
    return path


def test_scenes_are_registered_once_and_copies_follow(record: Path) -> None:
    lines = read_record(record)
    assert [(line.kind, line.scene) for line in lines] == [
        (REGISTERED, "scene-a"),
        (GIVEN, "scene-a"),
        (GIVEN, "scene-a"),
        (REGISTERED, "scene-b"),
        (GIVEN, "scene-b"),
    ]
    assert [line.number for line in lines] == [1, 2, 3, 4, 5]
    assert {line.signer for line in lines} == {signer_of(KEY)}


def test_adding_changes_nothing_that_was_there(record: Path) -> None:
    before = record.read_bytes()
    note(record, OTHER, "scene-a", Content(to="Eve"))
    assert record.read_bytes().startswith(before)
    assert [line.kind for line in read_record(record)[5:]] == [REGISTERED, GIVEN]


def test_its_owner_opens_it_and_others_do_not(record: Path) -> None:
    note(record, OTHER, "scene-a", Content(to="Eve"))
    lines = read_record(record)
    assert recipients_of(lines, KEY, "scene-a") == ["Ada"]
    assert recipients_of(lines, OTHER, "scene-a") == ["Eve"]
    assert opened(lines[2], KEY).content == Content(message="6f7572730000")
    assert opened(lines[2], OTHER) is None and opened(lines[0], KEY) is None


def test_it_says_nothing_and_proves_what_is_told(record: Path) -> None:
    """Who is told salt and content can check them against the line, without the key."""
    data = record.read_bytes()
    for word in (b"Ada", b"6f7572730000", KEY.secret.hex().encode(), KEY.of_scene("scene-a").value.hex().encode()):
        assert word not in data
    line = read_record(record)[1]
    box = opened(line, KEY)
    assert line.content == hashlib.sha256(box.salt + box.text.encode()).hexdigest()
    assert line.secret == hashlib.sha256(KEY.of_scene("scene-a").value).hexdigest()
    assert len({len(one.sealed) for one in read_record(record) if one.sealed}) == 1


def harmed(data: bytes, harm: str) -> bytes:
    lines = data.splitlines(keepends=True)
    if harm == "altered":
        lines[1] = lines[1].replace(b'"date":"2', b'"date":"1')
    elif harm == "respelled":
        lines[1] = lines[1].replace(b'"number":2', b'"number": 2')
    elif harm == "another kind":
        lines[1] = lines[1].replace(b'"number":2', b'"number":true')
    elif harm == "no line":
        lines[1] = b"[1]\n"
    elif harm == "deep":
        lines[1] = b"[" * 100_000 + b"\n"
    elif harm == "removed":
        del lines[1]
    elif harm == "reordered":
        lines[1], lines[2] = lines[2], lines[1]
    elif harm == "torn":
        return data[:-20]
    elif harm == "unended":
        return data[:-1]
    return b"".join(lines)


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        ("altered", "line 2 was altered"),
        ("respelled", "line 2 was altered"),
        ("another kind", "line 2 was altered"),
        ("no line", "line 2 was altered"),
        ("deep", "line 2 was altered"),
        ("removed", "line 2 was removed, here stands number 3"),
        ("reordered", "reordered, here stands number 3"),
        ("torn", "line 5 was not written to its end"),
        ("unended", "line 5 was not written to its end"),
    ],
)
def test_what_was_done_to_it_is_told(
    record: Path, harm: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = harmed(record.read_bytes(), harm)
    assert data != record.read_bytes()
    record.write_bytes(data)
    with pytest.raises(RecordError, match=sentence):
        read_record(record)
    assert main(["record", str(record)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and sentence in err
    with pytest.raises(RecordError):  # and nothing is added to it
        note(record, KEY, "scene-a", Content(to="Cy"))
    assert record.read_bytes() == data


def test_a_line_written_anew_by_its_signer_is_seen_by_the_next(record: Path, tmp_path: Path) -> None:
    other, lines = tmp_path / "other", record.read_text().splitlines(keepends=True)
    other.write_text(lines[0])
    note(other, KEY, "scene-a", Content(to="Cy"))
    lines[1] = other.read_text().splitlines(keepends=True)[1]
    record.write_text("".join(lines[:2]))
    assert len(read_record(record)) == 2
    record.write_text("".join(lines))
    with pytest.raises(RecordError, match="line 3 follows another line 2"):
        read_record(record)


def test_who_writes_at_the_same_time_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    script = (
        "import sys; from pathlib import Path; from nerfkit.stego.keys import Key;"
        "from nerfkit.stego.record import Content, note;"
        "[note(Path(sys.argv[1]), Key(bytes(32)), 'scene', Content(to=sys.argv[2] + str(i))) for i in range(5)]"
    )
    with ThreadPoolExecutor() as pool:
        done = pool.map(lambda who: subprocess.run([sys.executable, "-c", script, path, who], check=True), "abc")
    assert len(list(done)) == 3
    names = recipients_of(read_record(path), KEY, "scene")
    assert sorted(names) == sorted(f"{who}{i}" for who in "abc" for i in range(5))
    assert len(read_record(path)) == 16


def test_an_interrupted_write_leaves_the_old_one(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = record.read_bytes()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nerfkit.stego.record.os.fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        note(record, KEY, "scene-a", Content(to="Cy"))
    assert record.read_bytes() == before
    monkeypatch.undo()
    assert len(note(record, KEY, "scene-a", Content(to="Cy"))) == 6


def test_the_command_prints_it_and_its_head(record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    KEY.write(tmp_path / "owner.key")
    lines = read_record(record)
    assert main(["record", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 6 and out.splitlines()[-1] == f"head  {lines[-1].hash}"
    assert "Ada" not in out and "cut off" in err
    assert main(["record", str(record), "--key", str(tmp_path / "owner.key")]) == 0
    out = capsys.readouterr().out
    assert "for Ada" in out and "for Bob" in out and "ours" in out
    assert main(["record", str(record), "--json", "--head", lines[-1].hash]) == 0
    assert [row["hash"] for row in json.loads(capsys.readouterr().out)] == [line.hash for line in lines]
    record.write_text("".join(f"{line.text}\n" for line in lines[:-1]))
    assert main(["record", str(record)]) == 0
    assert main(["record", str(record), "--head", lines[-1].hash]) == 2
    assert main(["record", str(tmp_path / "none.jsonl")]) == 2
