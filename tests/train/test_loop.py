"""The loop: it learns, it repeats itself bit for bit, and an interruption leaves no trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nerfkit.config import Config, DataConfig, FieldConfig, SamplerConfig, TrainConfig
from nerfkit.fields.hash import HashField
from nerfkit.kernels import launch as launching
from nerfkit.kernels import stages
from nerfkit.kernels.lesson import Learned
from nerfkit.ranks import Ranks
from nerfkit.render import SAMPLERS, Model, load_model, render_image
from nerfkit.run import Checkpoint, Run
from nerfkit.sampling.occupancy import OccupancyGrid
from nerfkit.scene import load_scene
from nerfkit.scene.scene import Scene
from nerfkit.train import step
from nerfkit.train import training as stepping
from nerfkit.train.loop import fit, model_of
from nerfkit.train.pixels import Pixels
from nerfkit.train.progress import Report
from nerfkit.train.step import Batch, learn_in_stages
from nerfkit.types import Met

CONFIG = Config(
    field=FieldConfig(n_levels=4, log2_table_size=11, base_resolution=8, finest_resolution=64, width=16),
    sampler=SamplerConfig(resolution=32, n_steps=64, update_every=4, warmup_steps=12, observe_every=2, n_probes=1000),
    train=TrainConfig(steps=30, samples_per_step=32768, report_every=5, warmup_steps=5, seed=3),
    engine="cpu",
)


@pytest.fixture
def scene(toy_scene: Path) -> Scene:
    return load_scene(toy_scene, DataConfig())


def new_run(scene: Scene, config: Config, folder: Path) -> Run:
    frame = scene.frame.to_dict()
    return Run.create(folder, config, scene.root, scene.name, frame, scene.fingerprint, scene.splits, ["test"])


def train(scene: Scene, config: Config, folder: Path) -> tuple[Checkpoint, list[Report]]:
    run = new_run(scene, config, folder)
    reports = list(fit(scene, config, run))
    return run.load_checkpoint(), reports


def interrupted(scene: Scene, config: Config, folder: Path, n_reports: int) -> Run:
    """A run whose caller left after some reports."""
    run = new_run(scene, config, folder)
    with closing(fit(scene, config, run)) as reports:
        for number, _ in enumerate(reports, 1):
            if number == n_reports:
                break
    return run


def assert_same(one: Checkpoint, other: Checkpoint) -> None:
    """Every tensor of two checkpoints is the same, bit for bit."""
    assert one.step == other.step
    for part in ("field", "sampler", "optimizer"):
        a, b = getattr(one, part), getattr(other, part)
        assert set(a) == set(b)
        assert not [name for name in a if not torch.equal(a[name], b[name])]


def test_training_lowers_the_loss_and_draws_the_ball(scene: Scene, tmp_path: Path) -> None:
    config = replace(CONFIG, train=replace(CONFIG.train, steps=100, report_every=20))
    run = new_run(scene, config, tmp_path / "run")
    reports = list(fit(scene, config, run))
    losses = [report.loss for report in reports]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.5 * losses[0]
    assert reports[-1].psnr > reports[0].psnr + 4.0
    assert reports[-1].occupancy < 0.5 and reports[-1].progress == 1.0 and reports[-1].eta == 0.0
    view = scene.splits["test"][0]
    picture = render_image(load_model(run), scene.cameras, view)
    alpha = torch.from_numpy(scene.images[view][..., 3] / 255.0)
    assert float((picture.opacity - alpha).abs().mean()) < 0.1


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_training_by_stages_learns_as_much(kind: str, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    train = replace(CONFIG.train, steps=60, samples_per_step=8192, report_every=20)
    config = replace(CONFIG, train=train, sampler=replace(CONFIG.sampler, kind=kind))
    first, *_, whole = fit(scene, config)
    monkeypatch.setitem(step.LEARN, "cpu", stages.learn)
    monkeypatch.setattr("nerfkit.train.training.room_of", lambda *asked: 16384)
    staged = list(fit(scene, config))[-1]
    assert abs(staged.psnr - whole.psnr) < 0.3 and staged.psnr > first.psnr + 0.3
    assert abs(staged.samples_per_ray - whole.samples_per_ray) < 0.1 * whole.samples_per_ray


@pytest.mark.parametrize("n_rays", [64, 4097, 13001])
@pytest.mark.parametrize("n_parts", [1, 2, 3, 8])
def test_on_cuda_a_part_of_the_rays_has_its_share_of_the_room(n_parts: int, n_rays: int) -> None:
    room, cuda = step.room_of(1 << 18, torch.device("cuda")), torch.device("cuda")
    sizes = [n_rays * (i + 1) // n_parts - n_rays * i // n_parts for i in range(n_parts)]
    shares = [step._capacity(room, n, n_rays, n_parts, cuda) for n in sizes]
    assert all(
        n * room / n_rays <= share < n * room / n_rays + room / 16 + 1 for n, share in zip(sizes, shares, strict=True)
    )
    assert len({*shares}) <= 2 and all(share % (room // 16) == 0 for share in shares)


def test_a_step_on_cuda_never_waits(scene: Scene) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    training = stepping.Training.new(scene, model_of(scene, replace(CONFIG, engine="cuda")))
    training.warm_up()
    training.learn(training.n_rays)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            training.learn(training.n_rays)
            training.optimizer.step(1.0)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_seed_gives_the_same_numbers_twice(scene: Scene, tmp_path: Path) -> None:
    (one, first), (other, second) = (train(scene, CONFIG, tmp_path / name) for name in "ab")
    assert_same(one, other)
    assert [report.loss for report in first] == [report.loss for report in second]


def test_another_seed_gives_others(scene: Scene, tmp_path: Path) -> None:
    short = replace(CONFIG, train=replace(CONFIG.train, steps=5))
    other = replace(short, train=replace(short.train, seed=4))
    (one, _), (two, _) = train(scene, short, tmp_path / "a"), train(scene, other, tmp_path / "b")
    assert not torch.equal(one.field["table"], two.field["table"])


def test_the_number_of_threads_changes_nothing(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = replace(CONFIG, train=replace(CONFIG.train, steps=10))
    one, _ = train(scene, short, tmp_path / "a")
    monkeypatch.setattr(launching, "parallel", in_turn)
    monkeypatch.setattr("nerfkit.train.step.parallel", in_turn)
    monkeypatch.setattr("nerfkit.sampling.occupancy.parallel", in_turn)
    two, _ = train(scene, short, tmp_path / "b")
    assert_same(one, two)


def in_turn(fn: Callable[[Any], Any], items: Iterable[Any], device: torch.device) -> list[Any]:
    """`parallel` on one thread, from the last task to the first."""
    numbered, results = list(enumerate(items)), {}
    if launching.current_task() >= 0:
        return [fn(item) for _, item in numbered]
    for number, item in reversed(numbered):
        launching._here.task = number
        try:
            results[number] = fn(item)
        finally:
            launching._here.task = -1
    return [results[number] for number, _ in numbered]


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("n_reports", [1, 2, 4])
def test_an_interruption_leaves_no_trace(n_reports: int, kind: str, scene: Scene, tmp_path: Path) -> None:
    config = replace(CONFIG, sampler=replace(CONFIG.sampler, kind=kind))
    through, reports = train(scene, config, tmp_path / "through")
    run = interrupted(scene, config, tmp_path / "cut", n_reports)
    assert run.load_checkpoint().step == 5 * n_reports
    later = list(fit(scene, config, run, resume=True))
    assert_same(run.load_checkpoint(), through)
    assert [report.step for report in later] == [report.step for report in reports[n_reports:]]
    assert [report.loss for report in later] == [report.loss for report in reports[n_reports:]]
    for name in ("step", "n_rays", "n_samples", "samples_per_ray"):
        assert run.load_checkpoint().state[name] == through.state[name]


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_capture_with_background_is_resumed_alike(kind: str, toy_capture: Path, tmp_path: Path) -> None:
    scene = load_scene(toy_capture, DataConfig())
    short = replace(CONFIG, train=replace(CONFIG.train, steps=20), sampler=replace(CONFIG.sampler, kind=kind))
    through, _ = train(scene, short, tmp_path / "through")
    run = interrupted(scene, short, tmp_path / "cut", 2)
    list(fit(scene, short, run, resume=True))
    assert_same(run.load_checkpoint(), through)


PATCHES = {"patch_share": 0.3, "patch_size": 8, "high_frequency": 0.1}
WITH_NEIGHBOURS = {
    "laid": {"field": {"head": "deferred"}, "train": PATCHES | {"align": 1}},
    "bent": {"train": {"realign": 2}},
    "at samples": {"field": {"head": "sample"}, "sampler": {"kind": "proposal"}, "train": PATCHES},
}


@pytest.mark.parametrize("name", WITH_NEIGHBOURS)
def test_neither_an_interruption_nor_the_threads_leave_a_trace_on_what_neighbours_do(
    name: str, toy_capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = load_scene(toy_capture, DataConfig())
    parts = {part: replace(getattr(CONFIG, part), **more) for part, more in WITH_NEIGHBOURS[name].items()}
    config = replace(CONFIG, **parts)
    through, _ = train(scene, config, tmp_path / "through")
    for module in ("train.step", "sampling.occupancy", "sampling.proposal"):
        monkeypatch.setattr(f"nerfkit.{module}.parallel", in_turn)
    run = interrupted(scene, config, tmp_path / "cut", 3)
    list(fit(scene, config, run, resume=True))
    assert_same(run.load_checkpoint(), through)
    if name == "laid":
        assert int(through.optimizer["alignment.n_rounds"]) > 3 and through.optimizer["alignment.counts"].sum() > 0
        assert not torch.equal(through.optimizer["poses.c2w"], scene.cameras.c2w[scene.splits["train"]])
    if name == "bent":
        assert int(through.optimizer["realign.done"]) == 2
        assert any(flow.abs().max() > 0 for key, flow in through.optimizer.items() if "flow" in key)


def test_a_finished_run_does_not_go_on(scene: Scene, tmp_path: Path) -> None:
    short = replace(CONFIG, train=replace(CONFIG.train, steps=5))
    run = new_run(scene, short, tmp_path / "run")
    list(fit(scene, short, run))
    before = run.load_checkpoint()
    assert list(fit(scene, short, run, resume=True)) == []
    assert_same(run.load_checkpoint(), before)


def test_reports_come_when_they_should_and_are_logged(scene: Scene, tmp_path: Path) -> None:
    config = replace(CONFIG, train=replace(CONFIG.train, steps=12))
    run = new_run(scene, config, tmp_path / "run")
    reports = list(fit(scene, config, run))
    assert [report.step for report in reports] == [5, 10, 12]
    assert [record["step"] for record in run.read_log()] == [5, 10, 12]
    for report in reports:
        assert 0.0 < report.progress <= 1.0 and 0.0 <= report.occupancy <= 1.0
        assert min(report.loss, report.rays_per_second, report.samples_per_second, report.samples_per_ray) > 0.0
    assert [report.seconds for report in reports] == sorted(report.seconds for report in reports)


class Watch:
    """A clock that advances by a hundredth of a second whenever it is asked."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.01
        return self.now


def test_a_time_budget_ends(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nerfkit.train.loop.time.perf_counter", Watch())
    config = replace(CONFIG, train=replace(CONFIG.train, steps=0, time_budget=0.2))
    reports = list(fit(scene, config))
    assert 0.2 <= reports[-1].seconds < 0.25 and reports[-1].progress == 1.0
    assert 15 <= reports[-1].step <= 20
    assert reports[-1].learning_rate < 0.2 * config.train.table_lr


def test_the_callers_time_is_not_counted(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch()
    monkeypatch.setattr("nerfkit.train.loop.time.perf_counter", watch)
    seconds = []
    for report in fit(scene, replace(CONFIG, train=replace(CONFIG.train, steps=10))):
        seconds.append(report.seconds)
        watch.now += 1000.0
    assert len(seconds) == 2 and max(seconds) < 1.0


def test_leaving_without_a_run_writes_nothing(scene: Scene, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    with closing(fit(scene, CONFIG)) as reports:
        assert next(reports).step == 5
    assert sorted(tmp_path.rglob("*")) == before


def lesson_of(scene: Scene, config: Config) -> tuple[stepping.Step, list[torch.Tensor]]:
    """One step through a fog that thickens from place to place, and its gradients."""
    training = stepping.Training.new(scene, model_of(scene, config))
    field = training.model.field
    with torch.no_grad():
        field.table.normal_(generator=torch.Generator().manual_seed(1))
        field.density_network.weights[-1][0].abs_()
    step = training.learn(300)
    return step, [field.table.grad, *(weight.grad for weight in field.network_parameters())]


def in_stages(model: Model, batch: Batch, ranks: Ranks) -> list[Learned]:
    """A step as other devices take it: all rays at once, one stage after the other."""
    return [learn_in_stages(model, batch.rays, batch.jitter, batch.background, batch.lesson, None)]


@pytest.mark.parametrize("distortion", [0.0, 0.1])
def test_a_step_in_stages_is_that_of_whole_rays(
    distortion: float, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, train=replace(CONFIG.train, distortion=distortion))
    whole, gradients = lesson_of(scene, config)
    monkeypatch.setattr(stepping, "learn_batch", in_stages)
    staged, others = lesson_of(scene, config)
    # Where a ray ends may hang on the rounding of half-precision networks.
    assert abs(whole.n_samples - staged.n_samples) <= whole.n_samples // 100
    for gradient, other in zip(gradients, others, strict=True):
        assert float((gradient - other).norm() / other.norm()) < 0.05


def test_stages_tell_a_sampler_that_watches_what_rays_met(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepping, "learn_batch", in_stages)
    monkeypatch.setattr(OccupancyGrid, "watches", lambda grid: True)
    densities: list[torch.Tensor] = []
    density = HashField.density

    def listen(field: HashField, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = density(field, positions)
        densities.append(found[0].detach())
        return found

    monkeypatch.setattr(HashField, "density", listen)
    step, _ = lesson_of(scene, replace(CONFIG, train=replace(CONFIG.train, early_stop=0.5)))
    (met,) = step.mets
    owned = met.samples.n_owned
    reached = met.sigmas > 0.0
    assert int(reached[:owned].sum()) == step.n_samples < 0.9 * owned and not reached[owned:].any()
    assert torch.equal(met.sigmas[reached], densities[-1][reached])
    for start, count in met.samples.packed_info.tolist():
        own = reached[start : start + count]
        assert own[: int(own.sum())].all()  # a ray reaches its first samples


def test_whole_rays_tell_the_same_as_stages_of_what_they_met(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OccupancyGrid, "watches", lambda grid: True)
    config = replace(CONFIG, train=replace(CONFIG.train, early_stop=0.05))
    whole = lesson_of(scene, config)[0].mets
    monkeypatch.setattr(stepping, "learn_batch", in_stages)
    (staged,) = lesson_of(scene, config)[0].mets

    def densities(met: Met) -> list[torch.Tensor]:
        starts, counts = met.samples.packed_info[:, 0].tolist(), met.samples.packed_info[:, 1].tolist()
        each = (met.sigmas[start : start + count] for start, count in zip(starts, counts, strict=True))
        return [own[own > 0.0] for own in each]

    pairs = list(zip([d for met in whole for d in densities(met)], densities(staged), strict=True))
    same = [(a, b) for a, b in pairs if len(a) == len(b)]  # where a ray ends may hang on rounding
    assert len(same) > 0.95 * len(pairs) and sum(len(a) for a, _ in same) > 300
    for a, b in same:
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.05)
    assert torch.equal(torch.cat([met.rays.rays_o for met in whole]), staged.rays.rays_o)


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("staged", [False, True])
def test_warming_up_leaves_the_sampler_as_it_was(
    staged: bool, kind: str, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    if staged:
        monkeypatch.setattr(stepping, "learn_batch", in_stages)
    model = model_of(scene, replace(CONFIG, sampler=replace(CONFIG.sampler, kind=kind)))
    before = {name: value.clone() for name, value in model.sampler.state_dict().items()}
    training = stepping.Training.new(scene, model)
    state = training.generator.get_state()
    training.warm_up()
    assert torch.equal(training.generator.get_state(), state)
    for name, value in model.sampler.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("staged", [False, True])
def test_training_rays_end_where_they_are_told_to(staged: bool, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    if staged:
        monkeypatch.setattr(stepping, "learn_batch", in_stages)
    ends = (replace(CONFIG, train=replace(CONFIG.train, early_stop=stop)) for stop in (0.5, 1e-3))
    few, many = (lesson_of(scene, config)[0].n_samples for config in ends)
    assert 0 < few < 0.6 * many


@pytest.mark.parametrize("patches", [{}, PATCHES, PATCHES | {"align": 1}])
def test_masked_pixels_teach_nothing(patches: dict[str, Any], scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = [np.zeros(image.shape[:2], bool) for image in scene.images]
    for mask in masks:
        mask[8:24, 8:24] = True
    drawn: list[torch.Tensor] = []
    colors = Pixels.colors

    def listen(self: Pixels, picked: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
        drawn.append(picked)
        return colors(self, picked, background)

    monkeypatch.setattr(Pixels, "colors", listen)
    config = replace(CONFIG, train=replace(CONFIG.train, steps=9, **patches))
    list(fit(replace(scene, masks=masks), config))
    usable = np.concatenate([masks[i].reshape(-1) for i in scene.splits["train"]])
    assert len(drawn) >= 5 and all(usable[picked.numpy()].all() for picked in drawn)
