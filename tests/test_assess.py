"""Judging a run: what is compared with what."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from nerfkit.arguments import parse_train
from nerfkit.assess import active_neurons, backdrop, cost_of, evaluate_run, rig_of, scene_of, truth
from nerfkit.charts import si
from nerfkit.config import Config, DataConfig, FieldConfig, SamplerConfig
from nerfkit.looks import look
from nerfkit.poses import SceneError
from nerfkit.ranks import ALONE
from nerfkit.render import load_model, new_model, render_image
from nerfkit.run import Run, RunError
from nerfkit.scene import Scene, load_scene
from nerfkit.session import begin
from nerfkit.terminal import print_record

SMALL = Config(
    field=FieldConfig(n_levels=2, log2_table_size=8, finest_resolution=32),
    sampler=SamplerConfig(resolution=32),
    engine="cpu",
)
TRAINED = {"seconds": 4.0, "n_steps": 20, "n_rays": 1000, "n_samples": 9000, "peak_memory_bytes": 12345}


def make_run(folder: Path, scene: Scene, config: Config = SMALL) -> Run:
    """A run that was never trained, with a checkpoint that says it was."""
    frame = scene.frame.to_dict()
    run = Run.create(folder, config, scene.root, scene.name, frame, scene.fingerprint, scene.splits, ["nerfkit"])
    model = new_model(config, scene.frame)
    parts = dict(model.field.state_dict()), model.sampler.state_dict()
    run.save_checkpoint(20, *parts, {}, {"train": TRAINED})
    return run


def test_transparent_pixels_show_the_background(toy_scene: Path) -> None:
    scene = load_scene(toy_scene, DataConfig())
    image = scene.images[0]
    clear = torch.from_numpy(image[..., 3] == 0)
    solid = torch.from_numpy(image[..., 3] == 255)
    colours = torch.from_numpy(image[..., :3].astype(np.float32)) / 255
    for name, value in (("white", 1.0), ("black", 0.0)):
        picture = truth(scene, 0, name)
        assert bool((picture[clear] == value).all())
        assert torch.allclose(picture[solid], colours[solid])


def test_a_run_finds_the_file_again_that_lists_its_scene(toy_capture: Path, tmp_path: Path) -> None:
    listing = json.loads((toy_capture / "transforms.json").read_text())
    few = toy_capture / "few.json"
    few.write_text(json.dumps({**listing, "frames": listing["frames"][:5]}))
    words = ["--engine", "cpu", "--field.log2-table-size", "8", "--sampler.resolution", "32"]
    arguments, config = parse_train([str(few), "--out", str(tmp_path / "run"), *words])
    run = begin(arguments, config, [], ALONE).run
    assert len(scene_of(run).images) == 5
    with pytest.raises(RunError, match="its fingerprint is another"):
        scene_of(run, toy_capture)


def test_a_photograph_is_taken_as_it_is(toy_capture: Path) -> None:
    scene = load_scene(toy_capture, DataConfig())
    assert torch.equal(truth(scene, 0, "white"), truth(scene, 0, "black"))


@pytest.mark.parametrize(
    ("asked", "shown"), [("auto", "white"), ("random", "white"), ("white", "white"), ("black", "black")]
)
def test_pictures_of_an_object_are_over_white_unless_told(toy_scene: Path, asked: str, shown: str) -> None:
    assert backdrop(load_scene(toy_scene, DataConfig(background=asked))) == shown


def test_the_cost_is_that_of_the_training(toy_scene: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", load_scene(toy_scene, DataConfig()))
    cost = cost_of(run, run.load_checkpoint())
    assert (cost.train_seconds, cost.n_steps, cost.rays_per_second, cost.train_samples_per_ray) == (4.0, 20, 250.0, 9.0)
    assert cost.peak_memory_bytes == 12345
    assert cost.model_bytes == run.load_checkpoint().model_bytes > 0


def test_the_record_and_the_report_are_written(toy_scene: Path, tmp_path: Path) -> None:
    scene = load_scene(toy_scene, DataConfig())
    run = make_run(tmp_path / "run", scene)
    seen: list[int] = []

    def listen(views: list[int]) -> list[int]:
        seen.extend(views)
        return views

    record = evaluate_run(run, scene, views_fn=listen)
    assert seen == scene.splits["test"]
    assert [one["name"] for one in record["per_image"]] == [scene.image_names[view] for view in seen]
    assert json.loads((run.path / "metrics.json").read_text())["psnr"] == record["psnr"]
    assert (run.path / "report.html").exists()


def test_samples_are_those_of_the_held_out_rays(toy_scene: Path, tmp_path: Path) -> None:
    scene = load_scene(toy_scene, DataConfig())
    run = make_run(tmp_path / "run", scene)
    record, model = evaluate_run(run, scene), load_model(run)
    seen = {scene.image_names[view]: render_image(model, scene.cameras, view) for view in scene.splits["test"]}
    for one in record["per_image"]:
        assert one["samples_per_ray"] == pytest.approx(float(seen[one["name"]].counts.double().mean()))
    everything = sum(picture.n_samples for picture in seen.values())
    assert record["samples_per_ray"] == pytest.approx(everything / (len(seen) * 32 * 32)) and everything > 0
    assert record["train_samples_per_ray"] == 9.0
    wanted = {"kind": "grid", "resolution": 32, "n_levels": 1, "bytes": 32**3 // 8}
    assert wanted.items() <= record["cells"].items()
    assert record["cells"]["occupied"] == pytest.approx(model.sampler.occupancy)


def test_the_report_shows_where_the_sampler_looks(toy_scene: Path, tmp_path: Path) -> None:
    scene = load_scene(toy_scene, DataConfig())
    run = make_run(tmp_path / "run", scene)
    record = evaluate_run(run, scene)
    page = (run.path / "report.html").read_text()
    assert "Where the sampler looks" in page and f"{si(record['samples_per_ray'])}<" in page
    for label, name in run.read_json("renders/report/views.json")["names"].items():
        view = scene.image_names.index(name)
        shown = {kind: run.path / "renders" / "report" / f"{label.lower()}-{kind}.jpg" for kind in ("cells", "samples")}
        assert all(f"renders/report/{path.name}" in page for path in shown.values())
        cells = look(load_model(run), scene.cameras[[view]], "occupancy").picture
        assert np.abs(cv2.imread(str(shown["cells"]))[..., ::-1].astype(int) - cells).mean() < 8


def test_another_split_leaves_the_record_alone(toy_scene: Path, tmp_path: Path) -> None:
    scene = load_scene(toy_scene, DataConfig())
    run = make_run(tmp_path / "run", scene)
    record = evaluate_run(run, scene, "train")
    assert record["n_images"] == 8
    assert {path.name for path in run.path.glob("*metrics*")} == {"metrics-train.json"}
    with pytest.raises(RunError, match="no val views .it has train, test."):
        evaluate_run(run, scene, "val")


def test_the_scene_of_a_run_is_found_in_the_size_it_saw(toy_scene: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, data=DataConfig(downscale=2))
    run = make_run(tmp_path / "run", load_scene(toy_scene, config.data), config)
    assert scene_of(run).images[0].shape[:2] == (16, 16)
    moved = toy_scene.rename(tmp_path / "moved")
    with pytest.raises(RunError, match="say where it is"):
        scene_of(run)
    assert scene_of(run, moved).name == "moved"
    with pytest.raises(SceneError, match="no such folder"):
        scene_of(run, tmp_path / "nowhere")


def test_a_changed_scene_is_refused(toy_scene: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", load_scene(toy_scene, DataConfig()))
    (toy_scene / "train" / "r_0.png").write_bytes((toy_scene / "train" / "r_1.png").read_bytes())
    with pytest.raises(RunError, match="was changed since"):
        scene_of(run)


def test_the_rig_shows_each_camera_once(toy_capture: Path) -> None:
    scene = load_scene(toy_capture, DataConfig())
    rig = rig_of(scene)
    assert len(rig.c2w) == len(rig.splits) == 12
    assert [number for number, split in enumerate(rig.splits) if split == "test"] == scene.splits["test"]
    assert rig.fov_x == pytest.approx(np.degrees(0.8), abs=1e-3) and rig.aspect == 1.0


def test_active_neurons_are_told_where_a_share_was_asked_for(
    toy_scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before and after are alike in a run that was never trained, and are the share that was asked for."""
    scene = load_scene(toy_scene, DataConfig())
    config = dataclasses.replace(SMALL, field=dataclasses.replace(SMALL.field, bias_init=0.2, log2_table_size=12))
    model = new_model(config, scene.frame)
    model.sampler.load_state_dict({**model.sampler.state_dict(), "values": torch.ones_like(model.sampler.values)})
    found = active_neurons(model)
    assert found["start"] == found["end"]
    for shares in found["start"].values():
        assert shares[0] == pytest.approx(0.2, abs=0.08)
    assert "active_neurons" not in evaluate_run(make_run(tmp_path / "plain", scene), scene)
    record = evaluate_run(make_run(tmp_path / "sparse", scene, config), scene)
    print_record(record)
    assert "active       start density 2" in capsys.readouterr().out
    assert record["active_neurons"]["start"] == record["active_neurons"]["end"]
