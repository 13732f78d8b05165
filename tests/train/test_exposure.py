"""Photographs of different exposure: gains are found, and the field is as if there were none."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nerfkit.config import Config, DataConfig, FieldConfig, SamplerConfig, TrainConfig
from nerfkit.evaluate import psnr
from nerfkit.render import render_image
from nerfkit.run import Run
from nerfkit.scene import Scene, load_scene
from nerfkit.train import exposure as module
from nerfkit.train.exposure import Exposure
from nerfkit.train.loop import fit, model_of

CPU = torch.device("cpu")
DARK = 0.7
CONFIG = Config(
    sampler=SamplerConfig(resolution=32, n_steps=64, warmup_steps=64),
    field=FieldConfig(log2_table_size=12, finest_resolution=64),
    train=TrainConfig(steps=350, samples_per_step=4096, report_every=100, exposure=True),
)


def test_gains_are_the_ratio_of_photograph_and_render() -> None:
    found, generator = Exposure(3, CPU), torch.Generator().manual_seed(0)
    true = torch.tensor([[0.8, 0.8, 0.8], [1.0, 1.1, 0.9], [1.5, 1.5, 1.5]])
    for _ in range(100):
        view, rgb = torch.randint(3, (500,), generator=generator), torch.rand(500, 3, generator=generator)
        found.observe(view, true[view] * rgb, rgb)
    gains = found.gains(10_000)
    wanted = true.log() - true.log().mean(0)
    assert torch.allclose(gains.log(), wanted, atol=0.01)
    assert torch.allclose(gains.log().mean(0), torch.zeros(3), atol=1e-6), "no brightness is won or lost"
    assert torch.equal(found.gains(10), torch.ones(3, 3)), "a young field is not asked"


def test_a_field_that_is_taken_up_knows_of_brightness_at_once() -> None:
    young, again = Exposure(2, CPU), Exposure(2, CPU)
    young.observe(torch.tensor([0, 1]).repeat(500), torch.ones(1000, 3), torch.tensor([[0.5], [1.0]]).repeat(500, 3))
    again.take_up(young.sums)
    assert torch.equal(young.gains(0), torch.ones(2, 3)) and torch.equal(again.gains(0), young.gains(10_000))
    assert float(again.gains(0)[0, 0]) > 1.2


def test_gains_stay_within_reason() -> None:
    found = Exposure(2, CPU)
    assert torch.equal(found.gains(10_000), torch.ones(2, 3))
    found.observe(torch.tensor([0] * 200), torch.ones(200, 3), torch.zeros(200, 3))
    assert float(found.gains(10_000).max()) <= 4.0 and torch.isfinite(found.gains(10_000)).all()


@pytest.fixture
def uneven(toy_scene: Path) -> Scene:
    """The ball before white, darker in every other photograph that is trained on."""
    scene, images = load_scene(toy_scene, DataConfig(background="white")), []
    for image in scene.images:
        alpha = image[..., 3:] / 255.0
        images.append(np.rint(image[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8))
    for view in scene.splits["train"][1::2]:
        images[view] = np.rint(DARK * images[view]).astype(np.uint8)
    return replace(scene, images=images)


def quality(scene: Scene, config: Config) -> float:
    """PSNR of held-out views, at the mean exposure of the others."""
    model = model_of(scene, config)
    for _ in fit(scene, config, model=model):
        pass
    mean = math.sqrt(DARK)
    scores = []
    for view in scene.splits["test"]:
        rgb = render_image(model, scene.cameras, view).rgb.clamp(0, 1)
        scores.append(psnr(rgb, torch.from_numpy(scene.images[view] / 255.0 * mean)))
    return sum(scores) / len(scores)


def test_uneven_photographs_make_an_even_field(uneven: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_START", 100)
    without = quality(uneven, replace(CONFIG, train=replace(CONFIG.train, exposure=False)))
    assert quality(uneven, CONFIG) > without + 1.0


def test_a_resumed_training_knows_its_gains(uneven: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_START", 20)
    scene = uneven
    short = replace(CONFIG, train=replace(CONFIG.train, steps=60, report_every=30))
    ends = []
    for name, stops in (("whole", []), ("parts", [30])):
        frame = scene.frame.to_dict()
        run = Run.create(tmp_path / name, short, scene.root, scene.name, frame, scene.fingerprint, {}, ["test"])
        for resumed in [False, *[True] * len(stops)]:
            for report in fit(scene, short, run, resumed):
                if not resumed and report.step in stops:
                    break
        ends.append(run.load_checkpoint())
    assert torch.equal(ends[0].optimizer["exposure"], ends[1].optimizer["exposure"])
    assert torch.equal(ends[0].field["table"], ends[1].field["table"])
    (*_, last) = (record["exposure"] for record in run.read_log() if "exposure" in record)
    assert last["least"] < 0.95 < 1.05 < last["most"]
