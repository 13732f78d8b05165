"""Patches: where they lie, what they lose, and that a step with them is the same on every way."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from compare import assert_close
from torch import Tensor

from nerfkit import render as rendering
from nerfkit.config import Config, ConfigError, DataConfig, FieldConfig, SamplerConfig, TrainConfig
from nerfkit.fields.conv import DeferredHead
from nerfkit.kernels import launch as launching
from nerfkit.kernels.check import relative_error
from nerfkit.kernels.lesson import Lesson
from nerfkit.poses import SceneError
from nerfkit.render import Model, render_image, render_patches
from nerfkit.scene import load_scene
from nerfkit.scene.scene import Scene
from nerfkit.train import step as stepping
from nerfkit.train.loop import fit, model_of
from nerfkit.train.losses import LOSSES, high_frequency
from nerfkit.train.patches import PatchJudge, PatchLoss, detail_of, draw, share_at
from nerfkit.train.pixels import Pixels
from nerfkit.train.step import learn_in_stages
from nerfkit.train.training import Training

CPU = torch.device("cpu")


@pytest.fixture
def scene(toy_scene: Path) -> Scene:
    return load_scene(toy_scene, DataConfig())


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_patches_are_squares_of_one_view(scene: Scene) -> None:
    pixels = Pixels(scene, CPU)
    patches = pixels.patches(50, 6, generator())
    height, width = scene.images[0].shape[:2]
    places = patches.pixels().view(50, 6, 6)
    view, y, x = places // (height * width), places % (height * width) // width, places % width
    assert torch.equal(view, patches.views[:, None, None].expand_as(view))
    assert torch.equal(y - y[:, :1, :1], torch.arange(6)[:, None].expand(50, 6, 6))
    assert torch.equal(x - x[:, :1, :1], torch.arange(6).expand(50, 6, 6))
    assert torch.equal(patches[3:5].pixels(), places[3:5].flatten())


def test_every_pixel_is_in_some_patch_and_about_as_often(scene: Scene) -> None:
    pixels = Pixels(scene, CPU)
    counts = pixels.patches(8000, 5, generator()).pixels().bincount(minlength=len(pixels)).float()
    height, width = scene.images[0].shape[:2]
    counts = counts.view(-1, height, width).mean(0)
    inner = counts[5:-5, 5:-5]
    assert counts.min() > 0 and inner.std() < 0.1 * inner.mean()


def test_windows_reach_over_the_border_by_its_own_pixels(scene: Scene) -> None:
    pixels = Pixels(scene, CPU)
    patches = pixels.patches(400, 6, generator())
    height, width = scene.images[0].shape[:2]
    windows = patches.pixels(margin=2).view(400, 10, 10)
    assert torch.equal(windows[:, 2:-2, 2:-2], patches.pixels().view(400, 6, 6))
    y, x = windows % (height * width) // width, windows % width
    for at, last, corner in ((y[:, :, 0], height, patches.corner[:, 0]), (x[:, 0], width, patches.corner[:, 1])):
        assert torch.equal(at, (corner[:, None] + torch.arange(-2, 8)).clamp(0, last - 1))
    inside = patches.inside(2)
    assert inside[:, 2, 2].all() and not inside.all()
    for i, (dy, dx) in enumerate(((-2, 0), (0, 1), (2, -1))):
        cornered = patches.corner + torch.tensor([dy, dx])
        fits = ((cornered >= 0) & (cornered + 6 <= torch.tensor([height, width]))).all(1)
        assert torch.equal(inside[:, 2 + dy, 2 + dx], fits), i


def test_patches_keep_clear_of_masks_and_of_what_hides_beside_them(scene: Scene) -> None:
    height, width = scene.images[0].shape[:2]
    masks = [np.ones((height, width), bool) for _ in scene.images]
    for mask in masks:
        mask[14:18, 10:] = False
    pixels, size, margin = Pixels(replace(scene, masks=masks), CPU), 6, 2
    patches = pixels.patches(4000, size, generator(), margin)
    y, x = patches.corner.unbind(1)
    found = torch.zeros(height, width, dtype=torch.bool)
    found[y, x] = True
    for top in range(height):
        for left in range(width):
            fits = top + size <= height and left + size <= width
            around = masks[0][max(top - margin, 0) : top + size + margin, max(left - margin, 0) : left + size + margin]
            assert found[top, left] == (fits and around.all()), (top, left)
    places = patches.pixels() % (height * width)
    assert torch.from_numpy(masks[0]).flatten()[places].all()


def test_where_no_patch_fits_it_is_said(scene: Scene) -> None:
    height, width = scene.images[0].shape[:2]
    with pytest.raises(SceneError, match=f"picture of {width}x{height} pixels has no patch of 33x33"):
        Pixels(scene, CPU).patches(1, 33, generator())
    hidden = np.ones((height, width), bool)
    hidden[::8] = hidden[-1] = False
    pixels = Pixels(replace(scene, masks=[hidden] * len(scene.images)), CPU)
    assert len(pixels.patches(5, 5, generator(), 1)) == 5
    with pytest.raises(SceneError, match="masks leave no patch of 9x9 pixels whole"):
        pixels.patches(1, 5, generator(), 2)


def test_a_draw_is_single_pixels_and_patches_in_their_shares(scene: Scene) -> None:
    pixels, config = Pixels(scene, CPU), TrainConfig(patch_size=8)
    drawn = draw(pixels, 1024, 0.5, config, generator())
    assert len(drawn.singles) == 512 and len(drawn.patches) == 8 and len(drawn.picked) == 1024
    rows = drawn.each(torch.arange(drawn.n_draws)[:, None].float())[:, 0].long()
    assert Counter(Counter(rows.tolist()).values()) == {1: 512, 64: 8}
    assert len(draw(pixels, 1024, 0.0, config, generator()).picked) == 1024
    alone = draw(pixels, 10, 1.0, config, generator())
    assert len(alone.singles) == 0 and len(alone.patches) == 1


def test_patches_wait_and_where_they_are_few_come_every_fourth_step() -> None:
    few, many = (Config(train=TrainConfig(patch_share=share, high_frequency=0.1)) for share in (0.125, 0.5))
    assert [share_at(step, 0.19, few) for step in range(4)] == [0.0] * 4
    assert [share_at(step, 0.2, few) for step in range(8)] == [0.5, 0.0, 0.0, 0.0] * 2
    assert [share_at(step, 0.2, many) for step in range(4)] == [0.5] * 4
    assert share_at(0, 1.0, Config()) == 0.0, "nothing learns from patches"


SQUARED = PatchLoss(LOSSES["squared"], high_frequency, 0.0, 1.0)


def judged(head: DeferredHead | None) -> tuple[Tensor, Tensor, PatchJudge]:
    gathered = torch.rand(2 * 36, 3 + 4, generator=generator()) if head else torch.rand(72, 3, generator=generator())
    truth = torch.rand(72, 3, generator=generator(1))
    return gathered, truth, PatchJudge(SQUARED, truth, 6, head, None)


def lively_head() -> DeferredHead:
    head = DeferredHead(4, 6, generator())
    with torch.no_grad():
        for i, weights in enumerate(head.sides):
            weights.normal_(generator=generator(2 + i))
    return head


def test_a_judge_loses_what_the_corrected_colours_lose() -> None:
    head = lively_head()
    gathered, truth, judge = judged(head)
    verdict = judge(gathered)
    leaf = gathered.clone().requires_grad_()
    shown = head(leaf.view(2, 6, 6, 7)).reshape(72, 3)
    loss = ((shown - truth) ** 2).sum()
    g_gathered, *g_more = torch.autograd.grad(loss, [leaf, *head.parameters()])
    assert verdict.loss == pytest.approx(loss.item(), rel=1e-5)
    assert_close(verdict.g_gathered, g_gathered)
    assert torch.equal(verdict.rgb, shown.detach())
    for actual, wanted in zip(verdict.g_more, g_more, strict=True):
        assert_close(actual, wanted)


def test_the_colour_by_which_a_whole_patch_is_off_counts_by_the_share_of_patches() -> None:
    shown, truth = torch.rand(2, 6, 6, 3, generator=generator()), torch.rand(2, 1, 1, 3, generator=generator(1))
    even = truth.expand(2, 6, 6, 3)
    off = (shown - even).mean((1, 2), keepdim=True)
    leaf = shown.clone().requires_grad_()
    loss = PatchLoss(LOSSES["squared"], high_frequency, 0.0, 0.25)(leaf, even)
    assert loss.item() == pytest.approx(float(((shown - even - off) ** 2).sum() + 0.25 * 36 * (off**2).sum()), rel=1e-5)
    (pull,) = torch.autograd.grad(loss, leaf)
    assert_close(pull.mean((1, 2), keepdim=True), 0.25 * 2 * off)


def test_fine_detail_is_added_by_its_weight() -> None:
    shown, truth = (torch.rand(2, 6, 6, 3, generator=generator(i)) for i in range(2))
    loss = PatchLoss(LOSSES["squared"], high_frequency, 0.3, 1.0)(shown, truth)
    wanted = float(((shown - truth) ** 2).sum() + 0.3 * high_frequency(shown, truth))
    assert float(loss) == pytest.approx(wanted, rel=1e-5)


def test_weights_that_are_missing_are_asked_for_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="train.high_frequency_by: no vgg16 weights: there is no vgg16-397923af.pth"):
        detail_of(TrainConfig(high_frequency_by="vgg", high_frequency=0.1))
    assert detail_of(TrainConfig(high_frequency_by="vgg")) is high_frequency, "nothing is loaded that nothing asks"


def test_without_a_head_patches_lose_as_pixels_do() -> None:
    gathered, truth, judge = judged(None)
    verdict = judge(gathered)
    assert verdict.loss == pytest.approx(float(((gathered - truth) ** 2).sum()), rel=1e-5)
    assert_close(verdict.g_gathered, 2 * (gathered - truth))
    assert verdict.g_more == ()


CONFIG = Config(
    field=FieldConfig(
        n_levels=4,
        log2_table_size=11,
        base_resolution=8,
        finest_resolution=64,
        width=16,
        head="deferred",
        head_features=5,
    ),
    sampler=SamplerConfig(resolution=32, n_steps=64, update_every=4, warmup_steps=12, observe_every=2, n_probes=1000),
    train=TrainConfig(steps=30, samples_per_step=32768, patch_share=0.4, patch_size=8, seed=3),
    engine="cpu",
)


def gradients(scene: Scene, monkeypatch: pytest.MonkeyPatch, staged: bool) -> tuple[list[Tensor], float]:
    """Of one step from lively numbers, by whole rays or one stage after the other."""
    model = model_of(scene, CONFIG)
    model.field.dtype = torch.float32
    with torch.no_grad():
        model.field.table.copy_((1e3 * model.field.table).half())  # whole rays look up a copy in half precision
        model.field.head.sides[1].normal_(generator=generator(4))
    if staged:
        learn = stepping.learn_in_stages
        monkeypatch.setitem(stepping.LEARN, "cpu", lambda target, where, *call: learn(model, *call[:-2], call[-1]))
    training = Training.new(scene, model)
    training.clock.step = 12  # late enough for patches
    step = training.learn(600)
    return [p.grad.clone() for p in [*model.field.small_parameters()[:-4], model.field.table]] + [
        p.grad.clone() for p in model.field.head_parameters()
    ], step.loss


def test_a_step_is_the_same_by_whole_rays_and_in_stages(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    (whole, loss), (staged, other) = (gradients(scene, monkeypatch, staged) for staged in (False, True))
    assert math.isclose(loss, other, rel_tol=1e-4)
    for actual, wanted in zip(whole, staged, strict=True):
        assert wanted.abs().max() > 0
        # Those of the head are sums of what neighbours differ in, which all but cancel.
        assert relative_error(actual, wanted) < 1e-4


def test_the_samples_of_a_large_patch_have_room(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CONFIG, train=replace(CONFIG.train, patch_size=30))
    monkeypatch.setattr("nerfkit.train.training.room_of", lambda *asked: 1024)  # of four tasks, were they alike

    def n_samples(staged: bool) -> int:
        training = Training.new(scene, model_of(scene, config))
        training.clock.step = 12
        if staged:
            learn = stepping.learn_in_stages
            model = training.model
            monkeypatch.setitem(stepping.LEARN, "cpu", lambda target, where, *call: learn(model, *call[:-2], call[-1]))
        return training.learn(64).n_samples

    whole = n_samples(False)
    assert whole > 1024 and whole == n_samples(True)


def test_a_step_does_not_depend_on_the_number_of_threads(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    many, _ = gradients(scene, monkeypatch, False)
    monkeypatch.setattr(stepping, "parallel", lambda fn, items, device: [fn(item) for item in items])
    assert launching.current_task() == -1
    one, _ = gradients(scene, monkeypatch, False)
    assert all(torch.equal(a, b) for a, b in zip(many, one, strict=True))


SAMPLED = replace(
    CONFIG,
    field=replace(CONFIG.field, head="sample"),
    sampler=SamplerConfig(kind="proposal", resolution=32, n_steps=64, warmup_steps=12, n_proposed=6),
)


def sampled_model(scene: Scene) -> Model:
    """A lively one whose convolutions do something."""
    model = model_of(scene, SAMPLED)
    model.field.dtype = torch.float32
    with torch.no_grad():
        model.field.table.copy_((1e3 * model.field.table).half())
        for i, sides in enumerate(model.field.neighbour_parameters()):
            sides.normal_(std=0.3, generator=generator(i))
    return model


def test_convolutions_at_samples_learn_what_autograd_says(scene: Scene) -> None:
    model, size = sampled_model(scene), 6
    pixels = Pixels(scene, CPU)
    picked = pixels.patches(3, size, generator()).pixels()
    rays, n = pixels.rays(picked, model.frame), 3 * size**2
    jitter = torch.rand(3, generator=generator(1)).repeat_interleave(size**2)
    white, truth = torch.ones(n, 3), torch.rand(n, 3, generator=generator(2))
    judge = PatchJudge(SQUARED, truth, size, None, None)
    learned = learn_in_stages(model, rays, jitter, white, Lesson(truth, math.inf, 2.0, 1e-3, 0.0, 0), judge)
    model.field.grid.collect(model.field.table)
    by_table = model.field.table.grad.clone()
    model.field.table.grad = None
    seen = render_patches(model.field, model.sampler, rays, (3, size, size), white, jitter)
    loss = ((seen.rgb - truth) ** 2).sum()
    loss.backward()
    assert learned.loss == pytest.approx(loss.item(), rel=1e-5)
    assert_close(learned.g_weights, torch.cat([p.grad.view(-1) for p in model.field.network_parameters()]))
    for actual, p in zip(learned.g_more, model.field.neighbour_parameters(), strict=True):
        assert p.grad.abs().max() > 0
        assert_close(actual, p.grad)
    model.field.grid.collect(model.field.table)
    assert_close(by_table, model.field.table.grad)


def test_convolutions_at_samples_are_trained(scene: Scene) -> None:
    config = replace(SAMPLED, train=replace(SAMPLED.train, steps=60, warmup_steps=5, report_every=10))
    model = model_of(scene, config)
    reports = list(fit(scene, config, model=model))
    assert reports[-1].loss < reports[0].loss
    assert all(sides.abs().max() > 0 for sides in model.field.neighbour_parameters())


@pytest.mark.parametrize("side", [3, 7, 100])
def test_pieces_of_a_picture_with_convolutions_at_samples_are_the_picture(
    side: int, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = sampled_model(scene)
    pixels = scene.cameras.pixel_grid(0)
    height, width = pixels.shape[:2]
    xy = pixels.reshape(-1, 2)
    white = torch.ones(len(xy), 3)
    whole = model.render(scene.cameras.rays(torch.zeros(len(xy), dtype=torch.long), xy), white, width)
    alone = model.render(scene.cameras.rays(torch.zeros(len(xy), dtype=torch.long), xy), white)
    monkeypatch.setattr(rendering, "_SIDE", side)
    monkeypatch.setattr(rendering, "_APRONS", 0)
    picture = render_image(model, scene.cameras, 0)
    assert (picture.rgb.view(-1, 3) - whole.rgb).abs().max() < 1 / 255 / 8
    assert (picture.rgb.view(-1, 3) - alone.rgb).abs().max() > 1 / 255, "neighbours do take part"
    assert torch.equal(picture.counts, torch.full_like(picture.counts, 6))
