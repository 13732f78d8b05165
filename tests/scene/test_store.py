"""Pictures that do not fit in memory: equal in every way, in a file that nobody sees; of a full disk, one sentence."""

from __future__ import annotations

import errno
import gc
import io
import json
import os
import tempfile
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import SIZE

from nerfkit.config import Config, DataConfig, SamplerConfig, TrainConfig
from nerfkit.poses import SceneError
from nerfkit.scene import load_scene, store
from nerfkit.scene.scene import Scene
from nerfkit.scene.store import Store, available_memory, read_at_random, room_for_pictures
from nerfkit.train.loop import fit, model_of

NOTHING = 1e-9
"""A setting of data.memory that has room for no picture."""


def some(generator: np.random.Generator, n: int) -> list[np.ndarray]:
    sizes = generator.integers(1, 60, (n, 2))
    return [generator.integers(0, 256, (*size, 3 + i % 2), np.uint8) for i, size in enumerate(sizes)]


@pytest.mark.parametrize("piece", [1, 5000, 1 << 20])
@pytest.mark.parametrize("room", [0, 20000, 1 << 30])
def test_arrays_are_kept_as_they_are(room: int, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PIECE", piece)
    arrays = some(np.random.default_rng(0), 40)
    arrays[3] = arrays[3][::2, ::2] > 100
    with Store(room) as here:
        kept = [here.keep(array) for array in arrays]
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(kept, arrays, strict=True))
    in_memory = sum(a.nbytes for a, b in zip(kept, arrays, strict=True) if a is b)
    assert in_memory <= room and in_memory + here.n_spilled == sum(array.nbytes for array in arrays)
    assert (here.n_spilled == 0) == (room == 1 << 30) and (in_memory == 0) == (room == 0)
    for array in kept:
        read_at_random(array)
    kept[0][0, 0] = 7
    assert (kept[0][0, 0] == 7).all() and np.array_equal(kept[1], arrays[1])


def train(scene: Scene) -> dict[str, torch.Tensor]:
    config = Config(sampler=SamplerConfig(resolution=32), train=TrainConfig(steps=12, samples_per_step=4096))
    model = model_of(scene, config)
    for _ in fit(scene, config, model=model):
        pass
    return dict(model.field.state_dict())


def hide_a_corner(root: Path) -> None:
    mask = np.full((SIZE, SIZE), 255, np.uint8)
    mask[:9, :9] = 0
    cv2.imwrite(str(root / "mask.png"), mask)
    data = json.loads((root / "transforms.json").read_text())
    for frame in data["frames"][::2]:
        frame["mask_path"] = "mask.png"
    (root / "transforms.json").write_text(json.dumps(data))


@pytest.mark.parametrize("kind", ["object", "capture", "masked"])
@pytest.mark.parametrize("memory", [NOTHING, 2e-5])
def test_training_from_a_file_gives_the_same_numbers(
    kind: str, memory: float, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = request.getfixturevalue("toy_scene" if kind == "object" else "toy_capture")
    if kind == "masked":
        hide_a_corner(root)
    plain, streamed = load_scene(root, DataConfig()), load_scene(root, DataConfig(memory=memory))
    assert plain.warnings == [] and "GB of pictures do not fit in memory" in streamed.warnings[0]
    assert streamed.frame == plain.frame and streamed.fingerprint == plain.fingerprint
    assert all(np.array_equal(a, b) for a, b in zip(streamed.images, plain.images, strict=True))
    expected = train(plain)
    assert all(torch.equal(values, expected[name]) for name, values in train(streamed).items())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc")
def test_nothing_is_left_of_the_file(toy_capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "big disk"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    scene = load_scene(toy_capture, DataConfig(memory=NOTHING))
    assert str(folder) in Path("/proc/self/maps").read_text(), "it is there"
    assert list(folder.iterdir()) == [], "but without a name, so that no crash leaves it behind"
    del scene
    gc.collect()
    assert str(folder) not in Path("/proc/self/maps").read_text(), "the disk has its room back"


def test_small_scenes_have_no_file(toy_capture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object, **keys: object) -> None:
        raise AssertionError("no file is wanted")

    monkeypatch.setattr(tempfile, "TemporaryFile", never)
    assert load_scene(toy_capture, DataConfig()).warnings == []


class FullDisk(io.FileIO):
    """A file on a disk that has room for 5000 bytes more."""

    room = 5000

    def write(self, data: memoryview) -> int:
        """What there is room for, and then nothing, as a disk does it."""
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        n = super().write(data[: self.room])
        self.room -= n
        return n


def test_a_full_disk_is_one_sentence(toy_capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []

    def temporary_file(dir: Path, prefix: str, buffering: int) -> io.FileIO:
        opened.append(FullDisk(tmp_path / "file", "w+b"))
        return opened[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", temporary_file)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    said = rf"{tmp_path}: .* GB of pictures .* no more can be \(No space left on device\); set TMPDIR .*data.downscale"
    with pytest.raises(SceneError, match=said) as caught:
        load_scene(toy_capture, DataConfig(memory=NOTHING))
    assert "\n" not in str(caught.value) and len(opened) == 1 and opened[0].closed


def test_a_folder_that_cannot_be_written_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(store, "spill_folder", lambda: tmp_path / "gone")
    with pytest.raises(SceneError, match=r"gone: 0 GB .*\(No such file or directory\); set TMPDIR"):
        Store(0).keep(np.ones(5, np.uint8))


def test_room_is_the_settings_or_half_of_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1e7 < available_memory() < 1e15
    monkeypatch.setattr(store, "available_memory", lambda: 8e9)
    assert room_for_pictures(0.0) == 4e9 and room_for_pictures(1.5) == 1.5e9


@pytest.mark.parametrize(
    "names", [("max", "current", "inactive_file"), ("limit_in_bytes", "usage_in_bytes", "total_inactive_file")]
)
def test_a_container_has_less_than_the_machine(names: tuple[str, str, str], tmp_path: Path) -> None:
    assert store._left_to_the_group(tmp_path) == float("inf")
    limit, used, droppable = names
    place = tmp_path if limit == "max" else tmp_path / "memory"
    place.mkdir(exist_ok=True)
    for name, text in {limit: "1000\n", used: "700\n", "stat": f"anon 500\n{droppable} 150\n"}.items():
        (place / f"memory.{name}").write_text(text)
    assert store._left_to_the_group(tmp_path) == 450
    (place / f"memory.{limit}").write_text("max\n" if limit == "max" else f"{2**63 - 4096}\n")
    assert store._left_to_the_group(tmp_path) > 1e18, "no limit"


def peak_of_loading(root: Path, memory: float) -> int:
    """Most bytes that NumPy and Python had at once meanwhile; what is mapped from a file does not count."""
    tracemalloc.start()
    scene = load_scene(root, DataConfig(memory=memory))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(scene.images) == 300
    return peak


def test_a_streamed_scene_does_not_fill_the_memory(toy_capture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8).repeat(10, 0).repeat(10, 1)
    cv2.imwrite(str(toy_capture / "images/000.jpg"), image)
    data = json.loads((toy_capture / "transforms.json").read_text())
    frame = {**data["frames"][0], "file_path": "images/000.jpg"}
    data.update(frames=[frame] * 300, w=300, h=200)
    (toy_capture / "transforms.json").write_text(json.dumps(data))
    size = 300 * image.nbytes
    assert peak_of_loading(toy_capture, 0.1 * size / 1e9) < 0.3 * size, "a tenth, and what is being decoded"
    assert peak_of_loading(toy_capture, 0.0) > size
