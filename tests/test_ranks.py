"""Several processes: they make what one makes, bit for bit, stop together, and miss one that is lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Timer

import cv2
import numpy as np
import pytest
import ranked
import torch
from conftest import write_ball
from safetensors.torch import load_file

from nerfkit import engines
from nerfkit.arguments import UsageError, parse_train
from nerfkit.cli import main
from nerfkit.engines import EngineError, choose_device
from nerfkit.ranks import ALONE, Ranks, joined
from nerfkit.session import begin
from nerfkit.torchrun import Place, place

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="this PyTorch has no torch.distributed")

SMALL = (
    "--engine cpu --train.samples-per-step 32768 --train.report-every 10 --field.n-levels 4 "
    "--field.log2-table-size 12 --field.finest-resolution 64 --sampler.resolution 32 --sampler.n-probes 2048 "
    "--steps 60 --seed 3 --train.checkpoint-every 0.1"
).split()
"""A step of these settings has four tasks."""
PATIENCE = 100.0
"""Seconds after which a process that should have ended is taken for one that hangs."""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def torchrun(n: int, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a program as so many processes, to their end."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)]
    command += map(str, words)
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, env=ENVIRONMENT)


@contextmanager
def apart(n: int, *words: object) -> Iterator[list[subprocess.Popen[str]]]:
    """The same processes started one by one, as torchrun does, so that each can be heard and ended by itself."""
    with socket.socket() as free, ExitStack() as started:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        free.close()
        common = {**ENVIRONMENT, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        common |= {"WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(n)}
        processes = []
        for rank in map(str, range(n)):
            command = [sys.executable, "-m", "nerfkit", *map(str, words)]
            own = {**common, "RANK": rank, "LOCAL_RANK": rank}
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            processes.append(started.enter_context(subprocess.Popen(command, env=own, **pipes)))
            started.callback(processes[-1].kill)
        watchdog = Timer(PATIENCE, lambda: [process.kill() for process in processes])
        started.callback(watchdog.cancel)
        watchdog.start()
        yield processes


def rest_of(process: subprocess.Popen[str]) -> str:
    """What it still has to say on standard error until it ends."""
    rest = process.stderr.read()
    process.wait()
    return rest


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    for line in process.stderr:
        if line.startswith(text):
            return
    raise AssertionError(f"{text} was never said")


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    """All of a finished run's numbers."""
    newest = max((folder / "checkpoints").glob("step-*"))
    assert newest.name == "step-000000060"
    parts = {part: load_file(newest / f"{part}.safetensors") for part in ("field", "sampler", "optimizer")}
    return {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not one[name].equal(other[name])] == []


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that one process made, beside its scene; to be read, not written."""
    root = tmp_path_factory.mktemp("alone")
    words = ["train", write_ball(root), "--out", root / "run", *SMALL]
    assert main([str(word) for word in words]) == 0
    return root / "run"


# ---- talking


def test_a_process_is_alone_unless_torchrun_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert place() == Place(0, 1, 0, 1)
    monkeypatch.setenv("WORLD_SIZE", "4")  # not enough to go by: other programs set that, too
    assert place() == Place(0, 1, 0, 1)
    for name, value in (("RANK", "3"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    assert place() == Place(3, 4, 1, 2)


def test_one_alone_waits_for_nobody() -> None:
    here = {"a": torch.ones(2)}
    with joined() as ranks:
        assert ranks is ALONE and ranks.is_first
    (told,) = ALONE.exchange(here)
    assert told is here and ALONE.first(here) is here
    assert list(ALONE.in_turn(lambda i: 2 * i, 3)) == [0, 2, 4] and ALONE.together("abc", 3) == ["a", "b", "c"]
    ALONE.maximum(here["a"])
    ALONE.sum(here["a"])
    assert here["a"].tolist() == [1.0, 1.0]


def test_processes_that_do_different_things_say_so_instead_of_waiting(tmp_path: Path) -> None:
    done = torchrun(2, ranked.__file__, "stray", tmp_path)
    for rank in range(2):
        assert "the others are not where this one is" in (tmp_path / f"strayed-{rank}").read_text(), done.stderr


def test_what_is_told_arrives_and_who_fails_lets_the_others_leave(tmp_path: Path) -> None:
    done = torchrun(3, ranked.__file__, "fail", tmp_path)
    assert len(list(tmp_path.glob("talked-*"))) == 3, done.stderr
    assert done.returncode != 0 and done.stderr.count("RanksError: process 3 of 3: ValueError: no luck here") == 1
    assert [(tmp_path / f"left-{rank}").read_text() for rank in range(2)] == ["1", "1"]


# ---- training


def test_every_rank_ends_with_the_numbers_that_one_process_finds(alone: Path, tmp_path: Path) -> None:
    scene = alone.parent / "ball"
    done = torchrun(2, ranked.__file__, "train", scene, tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "one").mkdir()
    ranked.train(ALONE, str(scene), str(tmp_path / "one"))
    for name in ranked.MORE:
        wanted = load_file(tmp_path / "one" / f"{name}-0.safetensors")
        for rank in range(2):
            assert_same(load_file(tmp_path / f"{name}-{rank}.safetensors"), wanted)


def test_two_processes_make_the_run_of_one(alone: Path, tmp_path: Path) -> None:
    words = ["-m", "nerfkit", "train", alone.parent / "ball", "--out", tmp_path / "run", *SMALL]
    done = torchrun(2, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report.html") == 1 and done.stderr.count("nerfkit: run ") == 1
    assert_same(tensors_of(tmp_path / "run"), tensors_of(alone))
    scores = [json.loads((folder / "metrics.json").read_text()) for folder in (alone, tmp_path / "run")]
    assert scores[0]["psnr"] > 10.0 and abs(scores[0]["psnr"] - scores[1]["psnr"]) < 0.05


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_process_ends_the_other_and_one_goes_on(alone: Path, tmp_path: Path, lost: int) -> None:
    words = ["train", alone.parent / "ball", "--out", tmp_path / "run", *SMALL]
    with apart(2, *words) as processes:
        wait_for(processes[0], "step 10 ")
        processes[lost].kill()
        heard = rest_of(processes[1 - lost])
        assert processes[1 - lost].returncode == 1
    lines = [line for line in heard.splitlines() if line.startswith("nerfkit: process")]
    text = "another process was lost; a training goes on from its last checkpoint with --resume"
    assert lines == [f"nerfkit: process {2 - lost} of 2: {text}"] and "Traceback" not in heard
    assert main(["train", "--resume", str(tmp_path / "run"), "--no-eval"]) == 0
    assert_same(tensors_of(tmp_path / "run"), tensors_of(alone))


def test_one_that_is_stopped_stops_all_and_three_go_on(alone: Path, tmp_path: Path) -> None:
    words = ["train", alone.parent / "ball", "--out", tmp_path / "run", *SMALL]
    with apart(2, *words) as processes:
        wait_for(processes[0], "step 10 ")
        processes[1].send_signal(signal.SIGTERM)
        heard = [rest_of(process) for process in processes]
        assert [process.returncode for process in processes] == [130, 130], heard
    assert "go on with: nerfkit train --resume" in heard[0] and heard[1] == ""
    newest = max((tmp_path / "run" / "checkpoints").glob("step-*"))
    assert 10 <= int(newest.name[5:]) < 60, "the training was over before the signal came"
    done = torchrun(3, "-m", "nerfkit", "train", "--resume", tmp_path / "run", "--no-eval")
    assert done.returncode == 0, done.stderr
    assert_same(tensors_of(tmp_path / "run"), tensors_of(alone))


# ---- filming


def test_two_processes_shoot_the_film_of_one(alone: Path, tmp_path: Path) -> None:
    words = ["render", str(alone), "--frames", "5", "--size", "40", "--depth", "--out"]
    assert main([*words, str(tmp_path / "one")]) == 0
    done = torchrun(2, "-m", "nerfkit", *words, tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / name) for name in ("two", "two-depth")]
    for kind in ("", "-depth"):
        frames = [sorted((tmp_path / f"{name}{kind}").iterdir()) for name in ("one", "two")]
        assert [path.name for path in frames[0]] == [path.name for path in frames[1]] and len(frames[0]) == 5
        pictures = [[cv2.imread(str(path)) for path in paths] for paths in frames]
        assert np.array_equal(pictures[0], pictures[1])
        assert len({picture.tobytes() for picture in pictures[0]}) == 5


# ---- what cannot be done


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["train", "nowhere"], 1, "nowhere: there is no such folder"),
        (["train", "nowhere", "--steps", "0"], 2, "--steps 0: expected at least 1"),
        (["render", "RUN", "--path", "nowhere"], 1, "no path is called nowhere"),
        (["eval", "RUN"], 2, "eval takes one process, and there are 2; torchrun is for train and render"),
    ],
)
def test_what_all_find_wrong_is_told_once(alone: Path, words: list[str], code: int, text: str) -> None:
    with apart(2, *(alone if word == "RUN" else word for word in words)) as processes:
        heard = [rest_of(process) for process in processes]
        assert [process.returncode for process in processes] == [code, code], heard
        assert [process.stdout.read() for process in processes] == ["", ""]
    said = [line for line in heard[0].splitlines() if line.startswith("nerfkit: ") and "engine:" not in line]
    assert len(said) == 1 and text in said[0]
    assert heard[1] == ""


@pytest.mark.parametrize("words", [["--tiles", "2"], ["--view"]])
def test_what_takes_one_process_says_so(words: list[str], tmp_path: Path) -> None:
    arguments, config = parse_train(["scene", "--out", str(tmp_path / "run"), *words])
    with pytest.raises(UsageError, match=f"{words[0]}: goes with one process, not with 2"):
        begin(arguments, config, [], Ranks(0, 2))
    assert not (tmp_path / "run").exists()


# ---- several GPUs


def test_each_process_takes_the_gpu_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    for name, value in (("is_available", True), ("device_count", 2), ("get_device_name", "a GPU")):
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(engines, "place", lambda: Place(0, 1, 0, 1))
    assert choose_device("auto").type == "cuda" and taken == []  # one alone leaves that to others
    monkeypatch.setattr(engines, "place", lambda: Place(3, 4, 1, 2))  # the second one of the second machine
    assert choose_device("auto") == torch.device("cuda") and taken == [1]
    assert engines.explain("cuda") == "engine: CUDA on a GPU, in 4 processes"
    assert choose_device("cpu").type == "cpu" and taken == [1, 1]
    monkeypatch.setattr(engines, "place", lambda: Place(2, 3, 2, 3))
    with pytest.raises(EngineError, match="3 processes and 2 GPUs on this machine"):
        choose_device("auto")
