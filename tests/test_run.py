"""Laws of the run folder: what was saved comes back, whatever was cut, flipped, killed or moved."""

import json
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import nerfkit.run
from nerfkit.config import Config, FieldConfig, TrainConfig
from nerfkit.provenance import config_hash, plain, versions
from nerfkit.run import PARTS, Run, RunError, RunWarning


def make_run(folder: Path, name: str = "runs/toy/a") -> Run:
    scene = folder / "scenes" / "toy"
    scene.mkdir(parents=True, exist_ok=True)
    config = Config(field=FieldConfig(width=32), train=TrainConfig(seed=7))
    frame = {"scale": 0.25, "centre": np.array([1.0, 2.0, 3.0])}
    splits = {"train": ["a.png"], "test": ["b.png"]}
    return Run.create(folder / name, config, scene, "toy", frame, "f1n9er", splits, ["nerfkit", "train", "scenes/toy"])


def save(run: Run, step: int, size: int = 100) -> None:
    field = {"table": torch.arange(size) + step, "net.0": torch.full((2, 3), 0.1 * step)}
    sampler = {"occupancy": torch.tensor([True, False]), "none": torch.zeros(0, 3)}
    state = {"step": step, "lr": 0.1, "best": float("-inf"), "rng": [1, 2**63]}
    run.save_checkpoint(step, field, sampler, {"m": torch.ones(size, dtype=torch.float16)}, state)


def steps_of(run: Run) -> list[str]:
    return sorted(entry.name for entry in (run.path / "checkpoints").iterdir())


def test_a_run_opens_as_it_was_created(tmp_path):
    made = make_run(tmp_path)
    run = Run.open(made.path)
    assert run == made
    assert run.frame == {"scale": 0.25, "centre": [1.0, 2.0, 3.0]}
    assert run.splits == {"train": ["a.png"], "test": ["b.png"]}
    assert run.provenance["command"] == ["nerfkit", "train", "scenes/toy"]
    assert run.provenance["seed"] == 7
    assert run.provenance["scene"]["fingerprint"] == "f1n9er"
    assert run.provenance["versions"]["torch"] == torch.__version__
    run.note({"finished": "later"})
    assert run.provenance["finished"] == "later" and run.provenance["seed"] == 7


def test_a_run_is_never_written_over(tmp_path):
    make_run(tmp_path)
    with pytest.raises(RunError, match="holds a run already; nerfkit train --resume goes on"):
        make_run(tmp_path)
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "IMG_1.jpg").touch()
    with pytest.raises(RunError, match="IMG_1.jpg"):
        make_run(tmp_path, "photos")
    with pytest.raises(RunError, match="no run can be made here"):
        make_run(tmp_path, "photos/IMG_1.jpg/run")


def test_an_interrupted_creation_can_be_repeated(tmp_path):
    run = make_run(tmp_path)
    (run.path / "config.json").unlink()
    (run.path / ".config.json.1.tmp").touch()
    assert make_run(tmp_path) == run


@pytest.mark.parametrize(
    ("text", "sentence"),
    [(None, "no config.json"), ("{", "config.json"), ('{"schema": 99}', "schema 99"), ("3", "config.json")],
)
def test_what_is_no_run_is_said(tmp_path, text, sentence):
    with pytest.raises(RunError, match="no such run folder"):
        Run.open(tmp_path / "nowhere")
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(RunError, match=sentence) as caught:
        Run.open(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_moved_run_finds_its_scene(tmp_path):
    home = tmp_path / "home"
    run = make_run(home)
    save(run, 5)
    assert run.find_scene() == (home / "scenes" / "toy").resolve()
    for file in run.path.rglob("*.json"):
        if file.name != "provenance.json":
            assert str(tmp_path) not in file.read_text()

    alone = tmp_path / "elsewhere"
    shutil.copytree(run.path, alone)  # the run alone went away: the scene is where it was
    assert Run.open(alone).find_scene() == (home / "scenes" / "toy").resolve()
    assert Run.open(alone).load_checkpoint().step == 5

    home.rename(tmp_path / "moved")  # the project went away as a whole
    assert Run.open(tmp_path / "moved/runs/toy/a").find_scene() == (tmp_path / "moved/scenes/toy").resolve()
    with pytest.raises(RunError, match="its scene toy is not at .*scenes/toy nor .*home/scenes/toy"):
        Run.open(alone).find_scene()


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path):
    run = make_run(tmp_path)
    flat = torch.randn(20)
    field = {"a": flat[:10].view(2, 5).T, "b": flat[5:], "half": flat.to(torch.bfloat16)}  # strided, overlapping
    state = {"lr": 0.1 + 0.2, "rng": [2**64 - 1], "best": float("-inf"), "name": "é"}
    run.save_checkpoint(1234, field, {}, {"mask": torch.tensor([True])}, state)
    assert steps_of(run) == ["step-000001234"]
    back = run.load_checkpoint()
    assert (back.step, back.state, back.sampler) == (1234, state, {})
    assert all(torch.equal(back.field[name], field[name]) for name in field | back.field)
    assert back.optimizer["mask"].dtype == torch.bool
    sizes = [(back.path / f"{part}.safetensors").stat().st_size for part in ("field", "sampler")]
    assert back.model_bytes == sum(sizes)


def test_the_last_two_stay(tmp_path):
    run = make_run(tmp_path)
    for step in (1, 2, 30, 4):
        save(run, step)
    assert steps_of(run) == ["step-000000004", "step-000000030"]
    assert run.load_checkpoint().step == 30
    assert run.load_checkpoint(4).field["table"][0] == 4
    with pytest.raises(RunError, match="no checkpoint of step 2; there is 4, 30"):
        run.load_checkpoint(2)


def test_a_step_can_be_saved_again(tmp_path):
    run = make_run(tmp_path)
    save(run, 3, size=10)
    save(run, 3, size=20)
    assert len(run.load_checkpoint().field["table"]) == 20
    assert steps_of(run) == ["step-000000003"]


def test_no_checkpoint_is_said(tmp_path):
    with pytest.raises(RunError, match="there is no checkpoint yet"):
        make_run(tmp_path).load_checkpoint()


def damage_truncate(file: Path, rng: np.random.Generator) -> None:
    file.write_bytes(file.read_bytes()[: rng.integers(file.stat().st_size)])


def damage_flip(file: Path, rng: np.random.Generator) -> None:
    data = bytearray(file.read_bytes())
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    file.write_bytes(data)


def damage_remove(file: Path, rng: np.random.Generator) -> None:
    file.unlink()


@pytest.mark.parametrize("damage", [damage_truncate, damage_flip, damage_remove])
@pytest.mark.parametrize("name", [f"{part}.safetensors" for part in PARTS] + ["state.json"])
@pytest.mark.parametrize("seed", range(5))
def test_a_damaged_checkpoint_is_known_and_passed_over(tmp_path, damage, name, seed):
    run = make_run(tmp_path)
    save(run, 1)
    save(run, 2)
    file = run.path / "checkpoints" / "step-000000002" / name
    damage(file, np.random.default_rng(seed))
    with pytest.raises(RunError, match=name) as caught:
        run.load_checkpoint(2)
    assert "\n" not in str(caught.value)
    with pytest.warns(RunWarning, match=f"{name}.*using step 1 instead"):
        assert run.load_checkpoint().step == 1
    shutil.rmtree(run.path / "checkpoints" / "step-000000001")
    with pytest.raises(RunError, match="no checkpoint is whole"):
        run.load_checkpoint()


class Crash(BaseException):
    """Stands for the moment of a kill: nothing catches it."""


@pytest.mark.parametrize("again", [False, True], ids=["next step", "same step"])
def test_a_crash_before_any_system_call_loses_nothing(tmp_path, monkeypatch, again):
    """Stop a save before each of its system calls in turn: what loads is whole, and the next save goes through."""
    calls = {"left": -1}

    def counted(module, name):
        original = getattr(module, name)

        def call(*arguments, **options):
            calls["left"] -= 1
            if calls["left"] == 0:
                raise Crash
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, call)

    for module, name in [
        (nerfkit.run.os, "rename"),
        (nerfkit.run.os, "fsync"),
        (nerfkit.run.os, "unlink"),
        (nerfkit.run.os, "rmdir"),
        (nerfkit.run.os, "mkdir"),
        (nerfkit.run, "_write_synced"),
    ]:
        counted(module, name)
    moment, finished = 0, False
    while not finished:
        moment += 1
        run = make_run(tmp_path / str(moment))
        save(run, 1)
        save(run, 2)
        target = 2 if again else 3
        calls["left"] = moment
        try:
            save(run, target, size=50)
            finished = True
        except Crash:
            pass
        calls["left"] = -1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            step = run.load_checkpoint().step
        assert step in ((2,) if again else (2, 3)), moment
        save(run, 4)
        assert len(steps_of(run)) == 2 and run.load_checkpoint().step == 4, moment
    assert moment > 15


KILLED = """
import os, random, signal, sys, time, torch, warnings
from pathlib import Path
from nerfkit.run import Run
torch.set_num_threads(1)
warnings.simplefilter("error")
run, random_ = Run.open(Path(sys.argv[1])), random.Random(0)
tensors = {f"w{i}": torch.ones(1000) for i in range(8)}
start = time.perf_counter()
run.save_checkpoint(0, tensors, tensors, tensors, {})
once = time.perf_counter() - start
before = reached = 0
for attempt in range(20):
    child = os.fork()
    if child == 0:
        while True:
            before += 1
            run.save_checkpoint(before, tensors, tensors, tensors, {"n": before})
    time.sleep(once * random_.uniform(0.1, 5))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = run.load_checkpoint()
    assert found.step >= before and found.state.get("n", 0) == found.step, (before, found.step)
    reached += found.step > before
    before = found.step
print(before, reached, once)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
def test_kill_9_at_any_moment(tmp_path):
    run = make_run(tmp_path)
    done = subprocess.run([sys.executable, "-c", KILLED, str(run.path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) >= 3, "the kills came too early to say anything"


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    save(run, 1)

    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nerfkit.run, "_write_synced", full)
    with pytest.raises(RunError, match="step-000000002: this checkpoint was not written: No space left"):
        save(run, 2)
    assert steps_of(run) == ["step-000000001"]
    assert run.load_checkpoint().step == 1


def test_a_torn_log_line_harms_no_other(tmp_path):
    run = make_run(tmp_path)
    assert run.read_log() == []
    run.log({"step": 1, "loss": torch.tensor(0.5)})
    with open(run.path / "log.jsonl", "ab") as file:
        file.write(b'{"step": 2, "lo\xc3')
    assert run.read_log() == [{"step": 1, "loss": 0.5}]
    run.log({"step": 3, "loss": float("nan")})
    assert run.read_log() == [{"step": 1, "loss": 0.5}, {"step": 3, "loss": None}]


def test_resuming_forgets_what_came_after(tmp_path):
    run = make_run(tmp_path)
    for step in range(1, 7):
        run.log({"step": step})
    run.log({"note": "kept"})
    save(run, 3)
    save(run, 6)
    (run.path / "checkpoints" / ".new-step-000000009").mkdir()
    (run.path / ".metrics.json.77.tmp").touch()
    run.resume(3, ["nerfkit", "train", "--resume"])
    assert run.read_log() == [{"step": 1}, {"step": 2}, {"step": 3}, {"note": "kept"}]
    assert steps_of(run) == ["step-000000003"]
    assert not list(run.path.glob(".*"))
    assert [session["step"] for session in run.provenance["resumed"]] == [3]


def test_json_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    run = make_run(tmp_path)
    run.write_json("metrics.json", {"psnr": np.float32(30), "worst": float("inf"), "path": Path("a/b")})
    assert run.read_json("metrics.json") == {"psnr": 30.0, "worst": None, "path": "a/b"}

    def crash(*arguments):
        raise Crash

    monkeypatch.setattr(nerfkit.run.os, "replace", crash)
    with pytest.raises(Crash):
        run.write_json("metrics.json", {"psnr": 0})
    assert run.read_json("metrics.json")["psnr"] == 30.0
    with pytest.raises(RunError, match="nothing.json"):
        run.read_json("nothing.json")
    (run.path / "metrics.json").write_text("{")
    with pytest.raises(RunError, match="metrics.json"):
        run.read_json("metrics.json")
    with pytest.raises(TypeError, match="object"):
        plain({"a": [object()]})


def test_a_checkpoint_is_quick(tmp_path):
    """20 MB, saved and loaded: a coarse bound, far above what it takes."""
    run = make_run(tmp_path)
    tensors = {"table": torch.randn(5_000_000)}
    start = time.perf_counter()
    run.save_checkpoint(1, tensors, {}, {}, {})
    run.load_checkpoint()
    assert time.perf_counter() - start < 3


def test_provenance_is_plain_data():
    config = Config()
    assert config_hash(config) == config_hash(Config())
    assert config_hash(config) != config_hash(Config(train=TrainConfig(seed=1)))
    assert json.loads(json.dumps(versions()))["python"].count(".") == 2
