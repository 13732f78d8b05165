"""The command as people meet it: what it prints, what it writes, and what it says of input that is none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from nerfkit import cli, verbs
from nerfkit.cli import main

SMALL = (
    "--engine cpu --train.samples-per-step 4096 --train.report-every 10 --field.n-levels 4 "
    "--field.log2-table-size 12 --field.finest-resolution 64 --sampler.resolution 32 --sampler.n-probes 2048"
).split()
COMMAND = [sys.executable, "-m", "nerfkit"]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the command in this process: exit code, standard output, standard error."""

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a toy scene after a short training; to be read, not written."""
    from conftest import write_ball

    root = tmp_path_factory.mktemp("trained")
    scene = write_ball(root)
    words = ["train", scene, "--out", root / "run", "--steps", 60, "--seed", 3, *SMALL]
    assert main([str(word) for word in words]) == 0
    return root / "run"


def sentence(err: str) -> str:
    """The one line that says what went wrong."""
    lines = [line for line in err.splitlines() if not line.startswith(("nerfkit: engine", "Warp "))]
    assert len(lines) == 1, err
    assert lines[0].startswith("nerfkit: ") and "Traceback" not in err
    return lines[0].removeprefix("nerfkit: ")


# ---- help


def test_help_needs_nothing_heavy() -> None:
    program = (
        "import sys\nfrom nerfkit.cli import main\nmain(sys.argv[1:2])\n"
        "try: main(['train', '--help'])\nexcept SystemExit as error: assert error.code == 0\n"
        "assert not {'torch', 'numpy', 'warp', 'cv2'} & set(sys.modules), 'heavy'"
    )
    done = subprocess.run([sys.executable, "-c", program, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for word in ("train", "eval", "render", "info", "doctor", "--field.width", "--time-budget"):
        assert word in done.stdout


def test_the_module_is_the_command() -> None:
    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()[0]) == (0, "nerfkit")


@pytest.mark.parametrize("verb", ["train", "eval", "render", "info", "doctor"])
def test_every_verb_has_help(run: Run, verb: str) -> None:
    code, out, _ = run(verb, "--help")
    assert code == 0 and f"usage: nerfkit {verb}" in out


def test_help_shows_the_values_of_the_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("[field]\nwidth = 48\n")
    code, out, _ = run("train", "--config", tmp_path / "x.toml", "--help")
    assert code == 0
    assert "(default: 48)" in out


# ---- command lines that make no sense: code 2


def test_a_verb_that_is_none_is_told(run: Run) -> None:
    code, _, err = run("trian", "scene")
    assert code == 2 and sentence(err) == "there is no verb trian; did you mean train?"


def test_a_flag_that_is_none_is_told_with_its_neighbour(run: Run, tmp_path: Path) -> None:
    code, _, err = run("train", tmp_path, "--field.widht", 3)
    assert code == 2 and "--field.width" in err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--train.early_stop", "2"], "train.early_stop: expected a share between 0 and 1, found 2.0"),
        (["--train.early_stop", "0"], "train.early_stop: expected a share between 0 and 1, found 0.0"),
        (["--train.samples_per_step", "0"], "train.samples_per_step: expected more than 0, found 0"),
        (["--sampler.resolution", "100"], "sampler.resolution: expected a multiple of 32, found 100"),
        (["--field.width", "nan"], "--field.width"),
    ],
)
def test_a_setting_out_of_its_range_is_told(run: Run, tmp_path: Path, words: list[str], text: str) -> None:
    code, _, err = run("train", tmp_path, "--out", tmp_path / "run", *words)
    assert code != 0 and text in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--steps", "5", "--time-budget", "5s"], "--steps and --time-budget"),
        (["--steps", "0"], "--steps 0: expected at least 1"),
        (["--time-budget", "soon"], "--time-budget soon: expected a time such as 60s"),
        (["--time-budget", "0s"], "--time-budget 0s: expected a time"),
    ],
)
def test_a_budget_that_is_none_is_told(run: Run, tmp_path: Path, words: list[str], text: str) -> None:
    code, _, err = run("train", tmp_path, "--out", tmp_path / "run", *words)
    assert code == 2 and text in sentence(err)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--frames", "0"], "--frames 0: expected a positive number"),
        (["--fps", "-1"], "--fps -1.0: expected a positive number"),
        (["--size", "64", "--downscale", "2"], "--size and --downscale"),
        (["--path", "test", "--frames", "3"], "--frames goes with orbit, spiral and interpolate"),
    ],
)
def test_a_film_that_makes_no_sense_is_told(run: Run, words: list[str], text: str) -> None:
    code, _, err = run("render", "nowhere", *words)
    assert code == 2 and text in sentence(err)


# ---- input that cannot be used: code 1, one sentence, nothing written


def edit(scene: Path, change: Callable[[dict], object]) -> None:
    file = scene / "transforms_train.json"
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def shear(data: dict) -> None:
    data["frames"][2]["transform_matrix"][0][0] += 0.5


def hide_all(data: dict) -> None:
    for frame in data["frames"]:
        frame["file_path"] = "./train/missing"


def resize(scene: Path) -> None:
    import cv2
    import numpy as np

    cv2.imwrite(str(scene / "train" / "r_1.png"), np.zeros((20, 50, 4), np.uint8))
    edit(scene, lambda data: data.update(w=32, h=32))


DAMAGE = {
    "broken JSON": (lambda scene: cut(scene / "transforms_train.json"), "transforms_train.json: not a JSON file"),
    "no frames": (lambda scene: edit(scene, lambda data: data.pop("frames")), "transforms_train.json: no key frames"),
    "no rigid pose": (lambda scene: edit(scene, shear), "frames[2].transform_matrix: not a rigid transform"),
    "cut picture": (lambda scene: cut(scene / "train" / "r_1.png"), "r_1.png: not a complete picture"),
    "another size": (resize, "r_1.png): the picture is 50x20"),
    "no picture": (lambda scene: edit(scene, hide_all), "no picture is left to train on"),
    "no lens": (lambda scene: edit(scene, lambda data: data.pop("camera_angle_x")), "no focal length"),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("verb", ["train", "info"])
def test_a_damaged_scene_is_told_by_file_and_key(run: Run, toy_scene: Path, verb: str, kind: str) -> None:
    damage, text = DAMAGE[kind]
    damage(toy_scene)
    out = toy_scene.parent / "run"
    code, printed, err = run(verb, toy_scene, *(["--out", out] if verb == "train" else []))
    assert (code, printed) == (1, "")
    assert text in sentence(err)
    assert not out.exists()


def test_a_missing_or_empty_folder_is_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for verb in ("train", "info"):
        code, _, err = run(verb, tmp_path / "nowhere")
        assert code == 1 and sentence(err) == f"{tmp_path / 'nowhere'}: there is no such folder"
        code, _, err = run(verb, tmp_path / "empty")
        assert code == 1 and "the folder is empty" in sentence(err)


def test_an_unknown_key_of_a_config_file_is_told(run: Run, toy_scene: Path, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("[field]\nwitdh = 48\n")
    code, _, err = run("train", toy_scene, "--config", tmp_path / "x.toml")
    assert code == 1
    assert sentence(err) == f"{tmp_path / 'x.toml'}: unknown setting field.witdh; did you mean width?"


@pytest.mark.parametrize("verb", ["eval", "render"])
def test_a_folder_that_is_no_run_is_told(run: Run, tmp_path: Path, verb: str) -> None:
    code, _, err = run(verb, tmp_path)
    assert code == 1 and sentence(err) == f"{tmp_path}: is no run folder, it has no config.json"
    code, _, err = run(verb, tmp_path / "nowhere")
    assert code == 1 and "there is no such run folder" in sentence(err)


def test_a_run_in_use_is_not_written_over(run: Run, trained: Path) -> None:
    scene = trained.parent / "ball"
    before = sorted((path, path.stat().st_mtime_ns) for path in trained.rglob("*"))
    code, _, err = run("train", scene, "--out", trained, *SMALL)
    assert code == 1 and "holds a run already; nerfkit train --resume goes on" in sentence(err)
    assert sorted((path, path.stat().st_mtime_ns) for path in trained.rglob("*")) == before


def test_frames_that_do_not_exist_are_counted_once(run: Run, toy_scene: Path) -> None:
    (toy_scene / "train" / "r_1.png").unlink()
    (toy_scene / "train" / "r_5.png").unlink()
    code, out, _ = run("info", toy_scene)
    assert code == 0
    assert out.count("2 of 8 listed pictures do not exist and are skipped") == 1


def test_an_error_that_nobody_foresaw_is_one_sentence_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(words: list[str]) -> int:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setitem(cli.VERBS, "info", fail)
    code, _, err = run("info", "x")
    assert code == 1 and sentence(err) == "unexpected ZeroDivisionError: division by zero; --debug shows where"
    code, _, err = run("info", "x", "--debug")
    assert code == 1 and err.startswith("Traceback") and ", in fail\n" in err


# ---- what works


def test_a_scene_is_described(run: Run, toy_scene: Path) -> None:
    code, out, err = run("info", toy_scene, "--json")
    facts = json.loads(out)
    assert (code, err) == (0, "")
    assert facts["images"].startswith("12 with alpha") and facts["splits"].startswith("8 train")


def test_the_cameras_of_a_scene_are_drawn(run: Run, toy_scene: Path, tmp_path: Path) -> None:
    code, out, err = run("info", toy_scene, "--picture", tmp_path / "cameras.html")
    page = (tmp_path / "cameras.html").read_text()
    assert code == 0 and "fingerprint" in out and "cameras.html" in err
    assert page.count('class="camera a"') == 2 * 8 and page.count('class="camera b"') == 2 * 4
    assert page.count('class="box"') == 2 and "<title>ball</title>" in page
    code, out, err = run("info", toy_scene, "--picture", tmp_path / "cameras.png")
    assert (code, out) == (2, "") and "cameras.png: expected a page, such as cameras.html" in sentence(err)
    code, _, err = run("info", toy_scene, "--picture", tmp_path / "no" / "cameras.html")
    assert code == 1 and "no/cameras.html: No such file or directory" in sentence(err)


def test_a_training_leaves_a_whole_run(trained: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert {"config.json", "provenance.json", "frame.json", "log.jsonl", "metrics.json", "report.html"} <= names
    metrics = json.loads((trained / "metrics.json").read_text())
    wanted = "protocol psnr ssim lpips n_images train_seconds n_steps rays_per_second samples_per_ray"
    wanted += " peak_memory_bytes model_bytes device"
    assert set(wanted.split()) <= set(metrics)
    assert (metrics["n_steps"], metrics["n_images"], metrics["background"]) == (60, 4, "white")
    assert 0 < metrics["train_seconds"] < 600
    config = json.loads((trained / "config.json").read_text())
    assert (config["train"]["seed"], config["train"]["steps"], config["field"]["n_levels"]) == (3, 60, 4)
    page = (trained / "report.html").read_text()
    assert "Held-out views" in page and "Cameras" in page


def test_an_evaluation_can_be_repeated(run: Run, trained: Path) -> None:
    before = json.loads((trained / "metrics.json").read_text())
    code, out, _ = run("eval", trained, "--json")
    assert code == 0
    assert json.loads(out)["per_image"] == before["per_image"]
    code, out, _ = run("eval", trained, "--split", "train")
    assert code == 0 and "8 train views" in out
    assert json.loads((trained / "metrics-train.json").read_text())["split"] == "train"
    assert json.loads((trained / "metrics.json").read_text())["split"] == "test"


def test_an_empty_split_is_told(run: Run, trained: Path) -> None:
    code, _, err = run("eval", trained, "--split", "val")
    assert code == 1 and "its scene has no val views" in sentence(err)


def test_films_and_frames_are_written(run: Run, trained: Path, tmp_path: Path) -> None:
    code, out, _ = run("render", trained, "--frames", 3, "--depth", "--out", tmp_path / "a.mp4")
    assert code == 0 and out.split() == [str(tmp_path / "a.mp4"), str(tmp_path / "a-depth.mp4")]
    assert all(Path(name).stat().st_size > 500 for name in out.split())
    code, out, _ = run("render", trained, "--path", "test", "--size", 20, "--out", tmp_path / "frames")
    assert code == 0 and len(list((tmp_path / "frames").iterdir())) == 4


def test_a_scene_that_was_changed_is_told(run: Run, trained: Path, tmp_path: Path) -> None:
    from conftest import write_ball

    other = write_ball(tmp_path)
    edit(other, lambda data: data.update(camera_angle_x=0.7))
    code, _, err = run("eval", trained, "--scene", other)
    assert code == 1 and "is not its scene, or was changed since" in sentence(err)


def test_a_run_without_a_name_gets_the_next_number(
    run: Run, toy_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in ("001", "002"):
        code, out, _ = run("train", toy_scene, "--steps", 2, "--no-eval", *SMALL)
        assert (code, out.strip()) == (0, f"runs/ball/{number}")
        assert not (tmp_path / out.strip() / "metrics.json").exists()


def test_a_resumed_run_keeps_its_settings(run: Run, trained: Path) -> None:
    for flag, value, text in (("--steps", 900, "train.steps is 60"), ("--field.width", 32, "field.width is 64")):
        code, _, err = run("train", "--resume", trained, flag, value)
        assert code == 2 and text in sentence(err)


def test_a_damaged_checkpoint_is_told(run: Run, toy_scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert run("train", toy_scene, "--out", out, "--steps", 2, "--no-eval", *SMALL)[0] == 0
    cut(out / "checkpoints" / "step-000000002" / "field.safetensors")
    for words in (["eval", out], ["render", out], ["train", "--resume", out]):
        code, _, err = run(*words)
        assert code == 1 and "no checkpoint is whole" in sentence(err)
        assert "field.safetensors: cut short" in err


# ---- interruption


def start(*words: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*COMMAND, "train", *map(str, words)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment)


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    for line in process.stderr:
        if line.startswith(text):
            return
    raise AssertionError(f"{text} was never said")


def final_tensors(run_folder: Path, step: int) -> dict:
    folder = run_folder / "checkpoints" / f"step-{step:09d}"
    parts = ("field", "sampler", "optimizer")
    return {
        f"{part}.{name}": tensor for part in parts for name, tensor in load_file(folder / f"{part}.safetensors").items()
    }


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupted_training_ends_as_one_that_was_not(
    run: Run, trained: Path, toy_scene: Path, tmp_path: Path, kind: int
) -> None:
    words = [toy_scene, "--out", tmp_path / "run", "--steps", 60, "--seed", 3, *SMALL]
    with start(*words) as process:
        wait_for(process, "step 10 ")
        process.send_signal(kind)
        rest = process.stderr.read()
    assert process.returncode == 130, rest
    assert "go on with: nerfkit train --resume" in rest
    steps = sorted(int(path.name[5:]) for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert 10 <= steps[-1] < 60, "the training was over before the signal came"
    assert run("train", "--resume", tmp_path / "run")[0] == 0
    whole, resumed = final_tensors(trained, 60), final_tensors(tmp_path / "run", 60)
    assert whole.keys() == resumed.keys()
    assert [name for name in whole if not whole[name].equal(resumed[name])] == []
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (trained, tmp_path / "run")]
    assert metrics[0]["per_image"] == metrics[1]["per_image"]


@pytest.mark.parametrize("delay", [0.0, 0.4])
def test_a_killed_training_goes_on(run: Run, trained: Path, toy_scene: Path, tmp_path: Path, delay: float) -> None:
    words = [toy_scene, "--out", tmp_path / "run", "--steps", 60, "--seed", 3, "--train.checkpoint-every", 0.1, *SMALL]
    with start(*words) as process:
        wait_for(process, "step 10 ")
        time.sleep(delay)
        process.kill()
        process.stderr.read()
    assert process.returncode in (-signal.SIGKILL, 0)
    code, _, err = run("train", *words, "--resume", "--no-eval")
    assert code == 0, err
    whole, resumed = final_tensors(trained, 60), final_tensors(tmp_path / "run", 60)
    assert [name for name in whole if not whole[name].equal(resumed[name])] == []


def test_a_run_killed_before_its_first_checkpoint_begins_again(run: Run, toy_scene: Path, tmp_path: Path) -> None:
    words = ["train", toy_scene, "--out", tmp_path / "run", "--steps", 2, "--no-eval", *SMALL]
    assert run(*words)[0] == 0
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    checkpoint.rename(tmp_path / "away")
    code, _, err = run(*words, "--resume")
    assert code == 0 and "going on from step 0" in err
    code, _, err = run(*words[:2], "--out", tmp_path / "new", *words[4:], "--resume")
    assert code == 0 and "no run here to resume" in err


# ---- quality


def test_the_model_learns_the_ball(run: Run, toy_scene: Path, tmp_path: Path) -> None:
    words = ["--steps", 300, "--train.samples-per-step", 16384, "--field.log2-table-size", 12, "--engine", "cpu"]
    more = ["--sampler.resolution", 32, "--field.finest-resolution", 128]
    code, _, err = run("train", toy_scene, "--out", tmp_path / "run", *words, *more)
    assert code == 0, err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    # Eight views of 32x32 pixels: a white picture scores 7.6 dB, this training about 18.
    assert metrics["psnr"] > 15


@pytest.mark.parametrize("order", ["port first", "out first", "folder first"])
def test_view_of_a_scene_is_a_training_with_a_page(
    order: str, toy_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[list[str]] = []
    monkeypatch.setattr(verbs, "train", lambda words: heard.append(words) or 0)
    (tmp_path / "run").mkdir()
    parts = [[str(toy_scene)], ["--port", "7001"], ["--out", str(tmp_path / "run")]]
    first = ["folder first", "port first", "out first"].index(order)
    words = [word for part in parts[first:] + parts[:first] for word in part]
    assert cli.main(["view", *words]) == 0
    assert heard == [[*words, "--view"]]
