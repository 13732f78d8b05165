"""A learned sky: what lies behind everything is found, and its gradient is that of the loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from compare import assert_close
from torch import Tensor

from nerfkit.assess import backdrop
from nerfkit.config import Config, DataConfig, FieldConfig, SamplerConfig, TrainConfig
from nerfkit.evaluate import psnr
from nerfkit.poses import SceneError
from nerfkit.render import load_model, render_image, render_in_stages
from nerfkit.run import Run
from nerfkit.scene import Scene, load_scene
from nerfkit.train.loop import fit, model_of
from nerfkit.train.losses import LOSSES
from nerfkit.train.training import Training

SHOWN = ("white", "sky")
CONFIG = Config(
    sampler=SamplerConfig(resolution=32, n_steps=64, warmup_steps=64),
    field=FieldConfig(log2_table_size=12, finest_resolution=64),
    train=TrainConfig(steps=400, samples_per_step=4096, network_lr=3e-2, final_lr=0.3, report_every=100),
)


def dome(rays_d: Tensor) -> Tensor:
    """A colour for each direction (n, 3), light above and dark below."""
    return 0.5 + 0.4 * rays_d * torch.tensor([0.3, 0.6, 1.0])


@pytest.fixture
def outdoors(toy_scene: Path) -> Scene:
    """The ball under the dome, in photographs without alpha: its box is that of the silhouettes."""
    scene, images = load_scene(toy_scene, DataConfig()), []
    for view, image in enumerate(scene.images):
        xy = scene.cameras.pixel_grid(view).view(-1, 2)
        rays = scene.cameras.rays(torch.full((len(xy),), view), xy)
        behind = dome(rays.rays_d).view(*image.shape[:2], 3).numpy() * 255
        alpha = image[..., 3:] / 255.0
        images.append(np.rint(image[..., :3] * alpha + behind * (1 - alpha)).astype(np.uint8))
    return replace(scene, images=images, background="sky")


@pytest.mark.parametrize("background", ["random", "sky"])
def test_what_lies_behind_is_found(outdoors: Scene, background: str, tmp_path: Path) -> None:
    outdoors = replace(outdoors, background=background)
    frame, names = outdoors.frame.to_dict(), outdoors.splits
    place = (outdoors.root, outdoors.name, frame, outdoors.fingerprint)
    run = Run.create(tmp_path / "run", CONFIG, *place, names, ["test"])
    for _ in fit(outdoors, CONFIG, run):
        pass
    model, view = load_model(run), outdoors.splits["test"][0]
    xy = outdoors.cameras.pixel_grid(view)[[0, 0, -1, -1], [0, -1, 0, -1]]
    away = outdoors.cameras.rays(torch.full((4,), view), xy).rays_d
    assert float((model.field.behind(away) - dome(away)).detach().abs().mean()) < 0.06
    truth = torch.from_numpy(outdoors.images[view]) / 255.0
    over = {name: psnr(render_image(model, outdoors.cameras, view, name).rgb.clamp(0, 1), truth) for name in SHOWN}
    assert backdrop(outdoors) == "sky" and over["sky"] > over["white"] + 3.0
    if background == "sky":
        assert over["sky"] > 20.0
        assert float(render_image(model, outdoors.cameras, view).opacity[0, 0]) < 0.2, "no thing stands for the sky"


def test_its_gradient_is_that_of_the_loss(outdoors: Scene) -> None:
    model = model_of(outdoors, CONFIG)
    training = Training.new(outdoors, model)
    with torch.no_grad():
        model.field.sky.normal_(generator=torch.Generator().manual_seed(1))
        model.field.table.mul_(1e4)
    state = training.generator.get_state()
    training.learn(50)
    training.generator.set_state(state)
    picked = training.pixels.draw(50, training.generator, training.model.config.train.detail_share)
    jitter = torch.rand(50, generator=training.generator)
    rays = training.pixels.rays(picked, model.frame)
    behind = model.field.behind(rays.rays_d)
    reach = CONFIG.train.gradient_reach * model.frame.near_plane * model.frame.scale
    staged = render_in_stages(model.field, model.sampler, rays, behind, jitter, reach, CONFIG.train.early_stop)
    assert 0.1 < float(staged.opacity.detach().mean()) < 1 - CONFIG.train.early_stop
    loss = LOSSES["huber"](staged.rgb, training.pixels.colors(picked, behind.detach())) / 150
    (gradient,) = torch.autograd.grad(loss, model.field.sky)
    assert_close(model.field.sky.grad, gradient, torch.bfloat16)


def test_pictures_with_alpha_have_none(toy_scene: Path) -> None:
    assert not load_scene(toy_scene, DataConfig()).has_sky
    with pytest.raises(SceneError, match=r"data\.background = sky is for photographs without alpha"):
        load_scene(toy_scene, DataConfig(background="sky"))


@pytest.mark.parametrize(
    ("asked", "shown"), [("auto", "sky"), ("random", "sky"), ("sky", "sky"), ("white", "white"), ("black", "black")]
)
def test_pictures_of_an_opaque_capture_are_over_it_unless_told(toy_capture: Path, asked: str, shown: str) -> None:
    (toy_capture / "images/000.png").write_bytes((toy_capture / "images/001.png").read_bytes())
    scene = load_scene(toy_capture, DataConfig(background=asked))
    assert backdrop(scene) == shown and scene.has_sky == (shown == "sky")
