"""Rays to pixels: a medium of which the answer is known, the chain beside its twins, and whole pictures."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from compare import assert_close
from torch import Tensor
from torch.nn import functional as F

from nerfkit import render as rendering
from nerfkit.config import Config, DataConfig, FieldConfig, SamplerConfig
from nerfkit.fields.hash import HashField
from nerfkit.kernels import reference, rounds
from nerfkit.render import (
    EARLY_STOP,
    Model,
    background_color,
    load_model,
    new_model,
    render_image,
    render_in_stages,
    render_rays,
)
from nerfkit.run import Run, RunError
from nerfkit.sampling.occupancy import OccupancyGrid
from nerfkit.scene import load_scene
from nerfkit.scene.scene import Scene
from nerfkit.types import Rays

SMALL = Config(
    field=FieldConfig(n_levels=4, log2_table_size=10, base_resolution=4, finest_resolution=64, width=16),
    sampler=SamplerConfig(resolution=32, n_steps=128),
    engine="cpu",
)
CPU = torch.device("cpu")


class Fog:
    """A field of one density and one colour."""

    def __init__(self, sigma: float, color: tuple[float, float, float] = (0.2, 0.5, 0.9)):
        self.sigma, self.rgb = sigma, torch.tensor(color)

    def density(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full_like(positions[:, 0], self.sigma), positions

    def color(self, features: Tensor, rays_d: Tensor, ray_indices: Tensor) -> Tensor:
        return self.rgb.to(features.device).expand(len(features), 3)


def rays_through(n: int, device: torch.device) -> Rays:
    generator = torch.Generator().manual_seed(0)
    origins = 0.5 + 1.3 * F.normalize(torch.randn(n, 3, generator=generator), dim=1)
    directions = F.normalize(torch.rand(n, 3, generator=generator) - origins, dim=1)
    return Rays(origins, directions, 0.5 + 0.5 * torch.rand(n, generator=generator)).to(device)


def lively(field: HashField) -> HashField:
    """Thick fog of many colours."""
    with torch.no_grad():
        field.table *= 1e4
        field.density_network.weights[-1][0] *= 5.0
    return field


class TestFog:
    @pytest.mark.parametrize("sigma", [0.0, 0.7, 5.0])
    def test_it_is_seen_by_the_law_of_absorption(self, sigma: float, device: torch.device) -> None:
        fog, grid, rays = Fog(sigma), OccupancyGrid(SamplerConfig(resolution=32), 1, device), rays_through(50, device)
        behind = torch.rand(50, 3, generator=torch.Generator().manual_seed(1)).to(device)
        with torch.no_grad():
            rendered = render_rays(fog, grid, rays, behind, torch.full((50,), 0.5, device=device))
        faces = torch.stack([-rays.rays_o, 1.0 - rays.rays_o]) / rays.rays_d
        chord = faces.max(0).values.min(1).values - faces.min(0).values.max(1).values
        trans = torch.exp(-sigma * chord)[:, None]
        step = grid.stepping.min_step
        assert float((rendered.opacity - (1.0 - trans[:, 0])).abs().max()) <= sigma * step
        expected = trans * behind + (1.0 - trans) * fog.rgb.to(device)
        assert float((rendered.rgb - expected).abs().max()) <= sigma * step + EARLY_STOP
        assert sigma > 0.0 or torch.equal(rendered.rgb, behind)

    def test_an_opaque_one_is_met_at_its_face(self, device: torch.device) -> None:
        grid, rays = OccupancyGrid(SamplerConfig(resolution=32), 1, device), rays_through(50, device)
        with torch.no_grad():
            fog = Fog(1e6)
            rendered = render_rays(fog, grid, rays, torch.zeros(50, 3, device=device), torch.zeros(50, device=device))
        entry = (torch.stack([-rays.rays_o, 1.0 - rays.rays_o]) / rays.rays_d).min(0).values.max(1).values
        assert_close(rendered.opacity, torch.ones(50))
        assert_close(rendered.distance, entry + grid.stepping.min_step / 2)
        assert_close(rendered.depth, rendered.distance * rays.cos)
        assert rendered.counts.tolist() == [1] * 50 and rendered.n_samples == 50

    def test_a_ray_that_misses_has_no_distance(self, device: torch.device) -> None:
        rays = Rays(torch.tensor([[2.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 0.0]]), torch.ones(1)).to(device)
        grid, behind = OccupancyGrid(SamplerConfig(resolution=32), 1, device), torch.full((1, 3), 0.3, device=device)
        rendered = render_rays(Fog(9.0), grid, rays, behind, torch.zeros(1, device=device))
        assert torch.equal(rendered.rgb, behind) and rendered.counts.tolist() == [0]
        assert rendered.opacity.tolist() == rendered.distance.tolist() == rendered.depth.tolist() == [0.0]


def test_the_chain_is_that_of_the_twins(device: torch.device) -> None:
    field = lively(HashField(SMALL.field, device))
    field.dtype = torch.float32
    grid, rays = OccupancyGrid(replace(SMALL.sampler, warmup_steps=0), 1, device), rays_through(30, device)
    jitter, behind = torch.full((30,), 0.3, device=device), torch.full((30, 3), 0.7, device=device)
    rendered = render_rays(field, grid, rays, behind, jitter)
    seed = torch.randn(30, 3, generator=torch.Generator().manual_seed(2)).to(device)
    (rendered.rgb * seed).sum().backward()

    samples = grid.sample(rays, jitter)
    g = reference.encode(reference.sample_positions(rays, samples), field.table, field.grid.layout)
    for network, last in ((field.density_network, False), (field.color_network, True)):
        if last:
            owned = samples.ray_indices[: samples.n_owned]
            sigmas = torch.exp(g[:, 0])
            harmonics = reference.spherical_harmonics(rays.rays_d, field.config.sh_degree)
            g = reference.join_directions(g, harmonics, owned)
        for w in network.weights[:-1]:
            g = torch.relu(g @ w.T)
        g = g @ network.weights[-1].T
    owned_samples = replace(
        samples,
        ray_indices=owned,
        t_starts=samples.t_starts[: samples.n_owned],
        t_ends=samples.t_ends[: samples.n_owned],
    )
    rgb, opacity, t_sum, _ = reference.composite(sigmas, torch.sigmoid(g), owned_samples, behind)
    parameters = [*field.network_parameters(), field.table]
    expected = torch.autograd.grad((rgb * seed).sum(), parameters)
    # What lies behind EARLY_STOP is left out by the one and not by the other.
    assert float((rendered.rgb - rgb).detach().abs().max()) < EARLY_STOP
    assert float((rendered.opacity - opacity).detach().abs().max()) < EARLY_STOP
    assert float((rendered.distance * rendered.opacity - t_sum).detach().abs().max()) < 3 * EARLY_STOP
    for parameter, gradient in zip(parameters, expected, strict=True):
        assert float((parameter.grad - gradient).norm() / gradient.norm()) < 20 * EARLY_STOP
    assert float(opacity.detach().max()) > 0.5


@pytest.mark.parametrize("sigma", [0.0, 3.0, 50.0])
def test_steps_twice_as_long_are_half_as_many(sigma: float, device: torch.device) -> None:
    fog, rays, behind = Fog(sigma), rays_through(200, device), torch.zeros(200, 3, device=device)
    configs = [SamplerConfig(resolution=32, n_steps=n_steps) for n_steps in (256, 512)]
    with torch.no_grad():
        few, many = (
            render_rays(fog, OccupancyGrid(c, 1, device), rays, behind, torch.full((200,), 0.5, device=device)).counts
            for c in configs
        )
    # Either end of a ray may fall on the one side of a step or on the other.
    assert int((many - 2 * few).abs().max()) <= 2
    assert few.sum() > 200 and few.dtype == torch.int32


@pytest.mark.parametrize(("n_cubes", "contracted"), [(1, False), (3, False), (3, True)])
def test_both_ways_of_a_cpu_see_alike(n_cubes: int, contracted: bool) -> None:
    field = lively(HashField(replace(SMALL.field, contracted=contracted), CPU, 0, n_cubes))
    field.dtype = torch.float32
    rays, grid = rays_through(60, CPU), OccupancyGrid(SMALL.sampler, n_cubes, CPU)
    jitter, behind = torch.full((60,), 0.5), torch.zeros(60, 3)
    with torch.no_grad():
        whole = render_rays(field, grid, rays, behind, jitter)
        staged = render_in_stages(field, grid, rays, behind, jitter)
    counts = staged.reached.packed_info[:, 1]
    assert whole.n_samples == pytest.approx(staged.reached.n_owned, abs=3)
    assert int((whole.counts - counts).abs().max()) <= 1 and int(whole.counts.max()) > 5
    assert float((whole.rgb - staged.rgb).abs().mean()) < 2e-3


def test_names_of_backgrounds() -> None:
    assert background_color("white").tolist() == [1.0, 1.0, 1.0] == background_color("random").tolist()
    assert background_color("black").tolist() == [0.0, 0.0, 0.0]


class TestPictures:
    @pytest.fixture
    def scene(self, toy_scene: Path) -> Scene:
        return load_scene(toy_scene, DataConfig())

    def test_a_picture_is_in_scene_units_and_has_no_gradient(self, scene: Scene) -> None:
        model = new_model(SMALL, scene.frame)
        lively(model.field)
        picture = render_image(model, scene.cameras, 0)
        assert picture.rgb.shape == (32, 32, 3)
        assert picture.opacity.shape == picture.distance.shape == picture.depth.shape == (32, 32)
        assert not picture.rgb.requires_grad
        assert picture.counts.shape == (32, 32) and picture.n_samples == int(picture.counts.sum()) > 0
        assert (picture.opacity[picture.counts == 0] == 0).all()
        hit = picture.opacity > 0.99
        assert hit.any() and (picture.depth[hit] <= picture.distance[hit]).all()
        reach = math.sqrt(3.0) / 2 / scene.frame.scale
        center = torch.tensor(scene.frame.center)
        middle = float((scene.cameras.c2w[0, :, 3] - center).norm())
        assert (picture.distance[hit] < middle + reach).all() and (picture.distance[hit] > middle - reach).all()

    @pytest.mark.parametrize("engine", ["cuda", "tinycudann", "nerfacc"])
    def test_every_engine_takes_the_same_picture_of_one_checkpoint(self, engine: str, scene: Scene) -> None:
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        pictures = []
        for one in ("cpu", engine):
            try:
                model = new_model(replace(SMALL, engine=one), scene.frame)
                lively(model.field)
                pictures.append(render_image(model, scene.cameras, 0))
            except Exception as error:
                if one in ("tinycudann", "nerfacc"):
                    pytest.skip(f"{one} does not work here: {error}")
                raise
        mine, other = pictures
        assert float(mine.opacity.max()) > 0.5
        assert -10 * math.log10(float((mine.rgb - other.rgb).square().mean())) > 50

    def test_on_cuda_a_picture_is_that_of_the_cpu_s_own_kernel(
        self, scene: Scene, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model = new_model(SMALL, scene.frame)
        lively(model.field)
        wanted = render_image(model, scene.cameras, 0)
        # As on CUDA: in rounds, which a CPU can take too.
        monkeypatch.setattr(rendering, "cast", lambda *seen: rounds.cast(*seen[:6]))
        found = render_image(model, scene.cameras, 0)
        assert float(wanted.opacity.max()) > 0.5
        assert -10 * math.log10(float((found.rgb - wanted.rgb).square().mean())) > 50

    def test_its_pixels_are_those_of_its_rays(self, scene: Scene) -> None:
        model = new_model(SMALL, scene.frame)
        lively(model.field)
        picture = render_image(model, scene.cameras, 2, "black")
        pixels = scene.cameras.pixel_grid(2)[20, 3:9]
        rays = scene.frame.model_rays(scene.cameras.rays(torch.full((6,), 2), pixels))
        with torch.no_grad():
            some = render_rays(model.field, model.sampler, rays, torch.zeros(6, 3), torch.full((6,), 0.5))
        assert_close(picture.rgb[20, 3:9], some.rgb, torch.bfloat16)
        assert_close(picture.depth[20, 3:9] * scene.frame.scale, some.depth, torch.bfloat16)
        assert torch.equal(picture.counts[20, 3:9], some.counts)

    def test_a_saved_model_renders_the_same_picture(self, scene: Scene, tmp_path: Path) -> None:
        model = new_model(SMALL, scene.frame)
        lively(model.field)
        model.sampler.update(SMALL.sampler.update_every, model.field)
        frame = scene.frame.to_dict()
        run = Run.create(tmp_path / "run", SMALL, scene.root, scene.name, frame, scene.fingerprint, {}, ["test"])
        with pytest.raises(RunError, match="no checkpoint"):
            load_model(run)
        run.save_checkpoint(1, dict(model.field.state_dict()), model.sampler.state_dict(), {}, {})
        loaded = load_model(Run.open(run.path))
        assert isinstance(loaded, Model) and loaded.frame == scene.frame
        one, other = (render_image(m, scene.cameras, 1) for m in (model, loaded))
        assert torch.equal(one.rgb, other.rgb) and torch.equal(one.depth, other.depth)

    @pytest.mark.parametrize("part", ["field", "sampler"])
    def test_a_checkpoint_of_another_model_is_one_sentence(self, part: str, scene: Scene, tmp_path: Path) -> None:
        model, frame = new_model(SMALL, scene.frame), scene.frame.to_dict()
        run = Run.create(tmp_path / "run", SMALL, scene.root, scene.name, frame, scene.fingerprint, {}, ["test"])
        parts = {"field": dict(model.field.state_dict()), "sampler": model.sampler.state_dict()}
        parts[part].pop({"field": "sky", "sampler": "values"}[part])
        run.save_checkpoint(1, parts["field"], parts["sampler"], {}, {})
        with pytest.raises(RunError, match=r"step-000000001: does not hold a model of these settings \(.+\); train it"):
            load_model(run)

    def test_cells_that_are_not_allowed_stay_empty(self, scene: Scene) -> None:
        nothing = torch.zeros(scene.frame.n_levels, 32, 32, 32, dtype=torch.bool)
        picture = render_image(new_model(SMALL, scene.frame, nothing), scene.cameras, 0)
        assert (picture.rgb == 1.0).all() and not picture.opacity.any() and not picture.counts.any()
