"""Models side by side: a picture of parts is that of the whole, and each place is shown once, in its order."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nerfkit.cameras import Cameras
from nerfkit.config import Config, FieldConfig, SamplerConfig
from nerfkit.looks import LOOKS, cropped, look
from nerfkit.poses import look_at
from nerfkit.render import EARLY_STOP, Model, Renderer, new_model, render_image
from nerfkit.scene.scene import Box, Frame
from nerfkit.scene.tiling import Tiling, spans
from nerfkit.tiles import BAND, Tiles
from nerfkit.types import Rays

SMALL = Config(
    field=FieldConfig(n_levels=4, log2_table_size=10, base_resolution=4, finest_resolution=32, width=16),
    sampler=SamplerConfig(resolution=32, n_steps=128),
    engine="cpu",
)
SIDE = 8.0
FRAME = Frame((1.0, -2.0, 0.5), 1 / SIDE, (-3.0, -6.0, -3.5, 5.0, 2.0, 4.5), 0.05, 40.0, 3)
CUBE = (0.0, -3.0, -0.5, 2.0, -1.0, 1.5)
PLACES = {
    "inside": (0.3, -1.4, 0.4),
    "at a border": (1.0, -1.4, 0.4),
    "beyond a face": (3.5, -1.1, 0.4),
    "beyond an edge": (3.5, 0.5, 0.4),
    "beyond a corner": (3.0, 0.7, 2.6),
    "outside of the model": (9.0, 4.0, 3.0),
}


def grid(box: Box, counts: tuple[int, int]) -> tuple[Box, ...]:
    """Boxes side by side along x and y."""
    low, high = torch.tensor(box[:3]), torch.tensor(box[3:])
    side = (high - low) / torch.tensor([*counts, 1])
    corners = [low + torch.tensor([i, j, 0]) * side for i, j in itertools.product(*map(range, counts))]
    return tuple((*corner.tolist(), *(corner + side).tolist()) for corner in corners)


def around(place: tuple[float, float, float]) -> Cameras:
    """Views from a place: to the middle of the cube, and to where it is not."""
    eye = torch.tensor(place).expand(3, 3)
    ahead = torch.tensor([[1.0, -2.0, 0.5], [1.2, -3.5, 0.1], [4.0, 9.0, 2.0]])
    return Cameras.pinhole(look_at(eye, ahead, torch.tensor([0.0, 0.0, 1.0])), 20.0, 24, 20)


def lively(frame: Frame = FRAME) -> Model:
    """Fog of many colours, a third of whose cells are empty."""
    model = new_model(SMALL, frame)
    with torch.no_grad():
        model.field.table *= 1e4
        model.field.density_network.weights[-1][0] *= 3.0
        model.field.sky.normal_(generator=torch.Generator().manual_seed(1))
        draw = torch.rand(model.sampler.values.shape, generator=torch.Generator().manual_seed(2))
        model.sampler.values.copy_(torch.where(draw < 0.33, -1.0, 1.0))
        model.sampler._bake()
    return model


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("counts", [(1, 1), (2, 2), (4, 2)])
@pytest.mark.parametrize("background", ["black", "sky"])
def test_a_model_in_parts_is_the_whole(place: str, counts: tuple[int, int], background: str) -> None:
    model, boxes = lively(), grid(CUBE, counts)
    tiles = Tiles((model,) * len(boxes), Tiling(CUBE, boxes, (FRAME,) * len(boxes)), model.device)
    assert isinstance(model, Renderer) and isinstance(tiles, Renderer)
    thickest = 0.0
    for view in range(3):
        whole, parts = (render_image(m, around(PLACES[place]), view, background) for m in (model, tiles))
        # The lattice of steps is the same. Rays end where EARLY_STOP is left: each part may end so once.
        assert float((whole.rgb - parts.rgb).abs().max()) < 2 * EARLY_STOP
        assert float((whole.rgb - parts.rgb).abs().mean()) < 0.1 / 255
        assert float((whole.opacity - parts.opacity).abs().max()) < 2 * EARLY_STOP
        assert float((whole.distance - parts.distance).abs().max()) < 2 * EARLY_STOP * 40.0
        assert ((whole.counts > 0) == (parts.counts > 0)).all()
        thickest = max(thickest, float(whole.opacity.mean()))
    assert thickest > 0.5


class Fog:
    """A field of one density and one colour."""

    def __init__(self, sigma: float, color: tuple[float, float, float]):
        self.sigma, self.rgb = sigma, torch.tensor(color)

    def density(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        return torch.full_like(positions[:, 0], self.sigma), positions

    def color(self, features: Tensor, rays_d: Tensor, ray_indices: Tensor) -> Tensor:
        return self.rgb.expand(len(features), 3)


def foggy(counts: tuple[int, int]) -> Tiles:
    """Fogs of different colours, each with a frame about its own box."""
    boxes, models = grid(CUBE, counts), []
    config = replace(SMALL, sampler=replace(SMALL.sampler, n_steps=256, cone_angle=0.0))
    for number, box in enumerate(boxes):
        center = tuple(((torch.tensor(box[:3]) + torch.tensor(box[3:])) / 2).tolist())
        corners = (*(c - SIDE / 2 for c in center), *(c + SIDE / 2 for c in center))
        model = new_model(config, replace(FRAME, center=center, aabb=corners))
        color = tuple(torch.rand(3, generator=torch.Generator().manual_seed(number)).tolist())
        models.append(replace(model, field=Fog(SIDE * (0.05 + 0.03 * number), color)))
    return Tiles(tuple(models), Tiling(CUBE, boxes, tuple(m.frame for m in models)), torch.device("cpu"))


def integrated(tiles: Tiles, rays: Rays, n: int = 30000) -> tuple[Tensor, Tensor]:
    """Colour and opacity by small steps, each asked to which fog it belongs."""
    step = 22.0 / n
    t = FRAME.near_plane + step * (torch.arange(n) + 0.5)
    enter, leave = spans(rays, tiles.tiling.box)
    colors, opacities = [], []
    for number, (o, d) in enumerate(zip(rays.rays_o, rays.rays_d, strict=True)):
        x, owner = o + t[:, None] * d, torch.full((n,), nearest(tiles, o))
        if enter[number] < leave[number]:
            owner[t > leave[number]] = nearest(tiles, o + leave[number] * d)
        for tile, box in enumerate(tiles.tiling.boxes):
            owner[holds(box, x)] = tile
        sigma, rgb = torch.zeros(n), torch.zeros(n, 3)
        for tile, model in enumerate(tiles.models):
            here = (owner == tile) & holds(model.frame.aabb, x)
            sigma[here], rgb[here] = model.field.sigma / SIDE, model.field.rgb
        through = torch.exp(-torch.cumsum(sigma * step, 0))
        weights = (1 - torch.exp(-sigma * step)) * torch.cat([torch.ones(1), through[:-1]])
        colors.append(weights @ rgb)
        opacities.append(weights.sum())
    return torch.stack(colors), torch.stack(opacities)


def holds(box: Box, places: Tensor) -> Tensor:
    return ((places >= torch.tensor(box[:3])) & (places <= torch.tensor(box[3:]))).all(-1)


def nearest(tiles: Tiles, place: Tensor) -> int:
    """Which box is nearest to a place, by its corners."""
    away = [(place - place.clamp(torch.tensor(box[:3]), torch.tensor(box[3:]))).norm() for box in tiles.tiling.boxes]
    return int(torch.stack(away).argmin())


@pytest.mark.parametrize("place", [place for place in PLACES if place != "at a border"])
@pytest.mark.parametrize("counts", [(2, 2), (4, 2)])
def test_each_place_is_shown_once_and_in_its_order(place: str, counts: tuple[int, int]) -> None:
    tiles, n = replace(foggy(counts), shifts=(0,)), 120
    eye = torch.tensor(PLACES[place])
    ahead = torch.randn(n, 3, generator=torch.Generator().manual_seed(3)) + torch.tensor([1.0, -2.0, 0.5])
    rays = Rays(eye.expand(n, 3), F.normalize(ahead - eye, dim=1), torch.ones(n))
    _, shares = tiles._places_left(rays)
    rays = rays[shares.amax(1) == 1.0]  # those whose end is not mixed of two
    assert len(rays) > 40
    seen = tiles.render(rays, torch.zeros(len(rays), 3))
    rgb, opacity = integrated(tiles, rays)
    # At each of the faces that a ray passes it may be wrong by a step of the thickest fog, besides its end.
    step = math.sqrt(3) / 256 * SIDE / 4
    bound = 4 * step * max(model.field.sigma for model in tiles.models) / SIDE + 2 * EARLY_STOP
    assert float((seen.rgb - rgb).abs().max()) < bound
    assert float((seen.opacity - opacity).abs().max()) < bound
    assert 0.3 < float(seen.opacity.mean()) < 0.95


@pytest.mark.parametrize("place", PLACES)
def test_each_sample_of_the_tiles_is_counted(place: str) -> None:
    model, boxes = lively(), grid(CUBE, (2, 2))
    thin = replace(model, field=Fog(1e-3, (0.2, 0.5, 0.9)))  # no ray ends before it has passed everything
    tiles = Tiles((thin,) * len(boxes), Tiling(CUBE, boxes, (FRAME,) * len(boxes)), model.device)
    for view in range(2):
        whole, once, thrice = (
            render_image(m, around(PLACES[place]), view) for m in (thin, replace(tiles, shifts=(0,)), tiles)
        )
        assert once.n_samples == int(once.counts.sum()) > 0
        # Each sample belongs to one part, give or take one where a ray leaps over what is another's; where parts share
        # the outside it is looked at for each of those.
        assert int((once.counts - whole.counts).min()) >= -1
        inside = thrice.counts - once.counts
        assert (inside >= 0).all() and (inside % 2 == 0).all(), "the boxes are looked at once for each division"
        assert int(inside.max()) > 0


def test_no_line_shows_where_one_model_ends() -> None:
    tiles = foggy((2, 1))
    n, cell = 401, SIDE / 32
    x = torch.linspace(0.2, 1.8, n)
    rays_o = torch.stack([x, torch.full_like(x, -2.0), torch.full_like(x, 8.0)], 1)
    rays = Rays(rays_o, torch.tensor([[0.0, 0.0, -1.0]]).expand(n, 3), torch.ones(n))
    opaque = tuple(replace(m, field=Fog(1e5, tuple(m.field.rgb.tolist()))) for m in tiles.models)
    tiles = replace(tiles, models=opaque)
    shown, hard = (t._inside(rays).rgb[:, 0] for t in (tiles, replace(tiles, shifts=(0,))))
    step = float((opaque[0].field.rgb - opaque[1].field.rgb)[0].abs())
    assert float(hard.diff().abs().max()) == pytest.approx(step, abs=1e-3)
    assert float(shown.diff().abs().max()) == pytest.approx(step / 3, abs=1e-3)
    assert x[:-1][shown.diff().abs() > step / 6].tolist() == pytest.approx([1 - cell, 1.0, 1 + cell], abs=0.01)
    for shift in tiles.shifts:
        boxes = torch.tensor(tiles._boxes(shift))
        assert float((boxes[:, 3:] - boxes[:, :3]).prod(1).sum()) == pytest.approx(8.0)


def test_the_outside_passes_steadily_from_one_tile_to_the_next() -> None:
    tiles = foggy((2, 2))
    inner = SIDE * 0.5 ** (FRAME.n_levels - 1)
    x = torch.linspace(CUBE[0], CUBE[3], 2001)
    shares = tiles._shares(torch.stack([x, torch.full_like(x, -1.4), torch.full_like(x, 0.4)], 1))
    assert torch.allclose(shares.sum(1), torch.ones(2001))
    assert float((shares[1:] - shares[:-1]).abs().max()) < 2 * (x[1] - x[0]) / (BAND * inner)
    assert shares[1000].tolist() == pytest.approx([0.0, 0.5, 0.0, 0.5])
    far = (x - 1.0).abs() > BAND * inner
    assert ((shares[far] == 0) | (shares[far] == 1)).all()


def test_a_crop_holds_for_every_tile() -> None:
    tiles = foggy((2, 2))
    eye = torch.tensor([0.3, -1.4, 0.4])
    rays = Rays(eye.expand(1, 3), torch.tensor([[1.0, 0.0, 0.0]]), torch.ones(1))
    before = tiles.render(rays, torch.zeros(1, 3)).opacity
    # The ray runs from 0.3 to 1 in one tile, to 2 in the next, and then outside; 0.75 to 1.25 is left of it.
    left = cropped(tiles, (0.75, -6.0, -3.0, 1.25, 2.0, 3.0)).render(rays, torch.zeros(1, 3)).opacity
    sigmas = [tiles.models[number].field.sigma / SIDE for number in (1, 3)]
    assert float(left) == pytest.approx(1 - math.exp(-0.25 * sum(sigmas)), abs=0.02)
    assert float(tiles.render(rays, torch.zeros(1, 3)).opacity) == float(before) > float(left)


@pytest.mark.parametrize("kind", LOOKS)
def test_a_viewer_can_look_at_tiles(kind: str) -> None:
    model, boxes = lively(), grid(CUBE, (2, 1))
    tiles = Tiles((model,) * 2, Tiling(CUBE, boxes, (FRAME,) * 2), model.device)
    camera = around(PLACES["inside"])[:1]
    one, other = (look(m, camera, kind).picture.astype(int) for m in (model, tiles))
    assert one.shape == other.shape == (20, 24, 3)
    if kind == "samples":  # tiles take more of them, along the same rays
        one, other = one > 0, other > 0
        assert np.array_equal(one.any(-1), other.any(-1)) and one.any()
    else:
        assert abs(one - other).max() <= 2 + 6 * (kind == "depth")


def test_what_is_met_belongs_to_who_showed_it() -> None:
    tiles = foggy((2, 2))
    eyes = torch.tensor([[0.3, -1.4, 0.4]]).expand(3, 3)
    places = torch.tensor([[0.5, -1.5, 0.0], [1.5, -2.5, 0.0], [0.5, -9.0, 0.4]])
    away = (places - eyes).norm(dim=1)
    inside = Rays(eyes, (places - eyes) / away[:, None], torch.ones(3))
    assert tiles.owners(inside, away).tolist() == [1, 2, 0]
    # From beyond, through the cube: before it, in it, behind it.
    through = Rays(torch.tensor([[5.0, -1.4, 0.4]]).expand(3, 3), torch.tensor([[-1.0, 0, 0]]).expand(3, 3), eyes[:, 0])
    assert tiles.owners(through, torch.tensor([1.0, 4.5, 8.0])).tolist() == [3, 1, 1]


def test_a_surface_on_an_outer_face_is_one_models_on_both_sides() -> None:
    tiles = foggy((2, 2))
    towards = torch.tensor([[0.5, -1.0, 0.4], [1.5, -3.0, 0.4], [1.5, -1.5, 1.5]])
    eyes = torch.tensor([[1.7, -1.4, 0.4]]).expand(3, 3)
    away = (towards - eyes).norm(dim=1)
    rays = Rays(eyes, (towards - eyes) / away[:, None], torch.ones(3))
    before, behind = tiles.owners(rays, away - 1e-3), tiles.owners(rays, away + 1e-3)
    assert before.tolist() == behind.tolist() == [1, 2, 3]
