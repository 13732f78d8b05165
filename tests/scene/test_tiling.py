"""Scenes in tiles: boxes side by side and between cells, and of each view the pixels that help."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nerfkit.config import ConfigError, DataConfig, tile_counts
from nerfkit.poses import SceneError
from nerfkit.scene import load_scene
from nerfkit.scene.scene import Scene
from nerfkit.scene.tiling import LEAST, Tiling, divide, gaps, part_of, spans
from nerfkit.types import Rays

BOX = (-1.0, 0.0, 2.0, 1.0, 3.0, 2.5)


@pytest.fixture
def room(toy_room: Path) -> Scene:
    return load_scene(toy_room, DataConfig())


def some_rays(n: int) -> Rays:
    generator = torch.Generator().manual_seed(0)
    rays_o = 6 * torch.rand(n, 3, generator=generator) - 3
    return Rays(rays_o, F.normalize(torch.randn(n, 3, generator=generator), dim=1), torch.ones(n))


def holds(box: tuple[float, ...], points: torch.Tensor) -> torch.Tensor:
    return ((points >= torch.tensor(box[:3])) & (points <= torch.tensor(box[3:]))).all(-1)


def test_a_ray_is_in_a_box_between_its_span() -> None:
    rays, t = some_rays(400), torch.linspace(0, 12, 4001)
    enter, leave = spans(rays, BOX)
    inside = holds(BOX, rays.rays_o[:, None] + t[:, None] * rays.rays_d[:, None])
    expected = (t >= enter[:, None]) & (t <= leave[:, None])
    assert 20 < int(inside.any(1).sum()) < 380
    assert float((inside != expected).float().mean()) < 1e-4
    assert (enter[holds(BOX, rays.rays_o)] == 0).all()


def test_gaps_are_distances() -> None:
    points = torch.tensor([[0.0, 1.0, 2.2], [4.0, 1.0, 2.2], [4.0, 7.0, 2.2], [-1.0, -3.0, 6.5]])
    assert gaps(points, (BOX, (0.0,) * 6))[:, 0].tolist() == [0.0, 3.0, 5.0, 5.0]


@pytest.mark.parametrize("tiles", ["2x2", "3x1", "5", "4x3"])
def test_every_face_lies_between_cells_of_every_level_of_every_tile(room: Scene, tiles: str) -> None:
    tiling = divide(room, tiles, 64)
    assert len({frame.scale for frame in tiling.frames}) == 1
    for frame in tiling.frames:
        assert 2 <= frame.n_levels and 1 / frame.scale >= 1 / room.frame.scale * (1 - 1e-6)
        coarsest = 1 / frame.scale / 64
        faces = (np.array([*tiling.boxes, tiling.box]).reshape(-1, 3) - frame.center) / coarsest
        assert np.abs(faces - faces.round()).max() < 1e-6


def test_tiles_fill_their_region_side_by_side(room: Scene) -> None:
    tiling = divide(room, "3x2", 32)
    sides = np.array(tiling.boxes)[:, 3:] - np.array(tiling.boxes)[:, :3]
    whole = np.array(tiling.box[3:]) - np.array(tiling.box[:3])
    assert len(tiling) == 6 and sides.prod(1).sum() == pytest.approx(whole.prod())
    points = torch.rand(2000, 3) * torch.tensor(whole).float() + torch.tensor(tiling.box[:3])
    assert (torch.stack([holds(box, points) for box in tiling.boxes]).sum(0) == 1).float().mean() > 0.999
    # Three along x, where the cameras are 4.8 apart, two along y, where they are 3; all cameras are inside.
    assert len({box[0] for box in tiling.boxes}) == 3 and len({box[1] for box in tiling.boxes}) == 2
    assert (gaps(room.cameras.c2w[:, :, 3], tiling.boxes).amin(1) == 0).all()


def test_each_cube_is_over_its_tile(room: Scene) -> None:
    tiling = divide(room, "2x2", 32)
    for box, frame in zip(tiling.boxes, tiling.frames, strict=True):
        inner = 0.5 ** (frame.n_levels - 1) / frame.scale / 2
        low, high = np.array(box[:3]) - frame.center, np.array(box[3:]) - frame.center
        assert (np.abs(low[:2]) <= inner * 1.001).all() and (np.abs(high[:2]) <= inner * 1.001).all()


def test_one_number_is_divided_so_that_tiles_are_nearly_square(room: Scene) -> None:
    def along(tiles: str) -> list[int]:
        boxes = divide(room, tiles, 64).boxes
        return [len({box[axis] for box in boxes}) for axis in range(2)]

    assert [along("2"), along("4"), along("6")] == [[2, 1], [2, 2], [3, 2]]


@pytest.mark.parametrize("tiles", ["0", "1", "axb", "2x", "2x2x2", "0x4", "-2", "9x9", "1x1"])
def test_a_number_that_is_none_is_told(tiles: str) -> None:
    with pytest.raises(ConfigError, match="train.tiles: expected a number of tiles from 2 to 64, or two such as 2x2"):
        tile_counts(tiles)


def test_cameras_round_a_subject_have_its_cube_divided(toy_capture: Path) -> None:
    scene = load_scene(toy_capture, DataConfig())
    tiling = divide(scene, "2x2", 32)
    side = 0.5 ** (scene.frame.n_levels - 1) / scene.frame.scale
    assert np.array(tiling.box)[3:] - np.array(tiling.box)[:3] == pytest.approx([side] * 3)
    assert (np.array(tiling.box)[3:] + np.array(tiling.box)[:3]) / 2 == pytest.approx(scene.frame.center, abs=1e-5)


def test_what_cannot_be_divided_is_told(room: Scene, toy_scene: Path) -> None:
    with pytest.raises(SceneError, match="is an object alone in its box"):
        divide(load_scene(toy_scene, DataConfig()), "2x2", 32)
    with pytest.raises(SceneError, match=r"cells would have to nest 7 times, which --sampler.resolution 32"):
        divide(room, "8x8", 32)
    blind = dataclasses.replace(room, splits={**room.splits, "train": room.splits["train"][:1]})
    with pytest.raises(SceneError, match="no tile is seen by two of its training cameras"):
        divide(blind, "2x2", 32)


def test_tiles_go_through_json(room: Scene) -> None:
    tiling = divide(room, "2x1", 32)
    assert Tiling.from_dict(json.loads(json.dumps(tiling.to_dict()))) == tiling
    with pytest.raises(SceneError, match="tiles: expected a box and tiles"):
        Tiling.from_dict({"box": []})


class TestParts:
    def test_pixels_are_those_whose_rays_cross_the_tile(self, room: Scene) -> None:
        tiling = divide(room, "2x2", 32)
        home, n_partly = gaps(room.cameras.c2w[:, :, 3], tiling.boxes).argmin(1), 0
        for number, box in enumerate(tiling.boxes):
            part = part_of(room, tiling, number)
            assert part.frame == tiling.frames[number] and part.splits["test"] == room.splits["test"]
            for view in room.splits["train"]:
                pixels = room.cameras.pixel_grid(view)
                rays = room.cameras.rays(torch.full((pixels[..., 0].numel(),), view), pixels.reshape(-1, 2))
                enter, leave = spans(rays, box)
                crossing = (enter < leave).view(pixels.shape[:2]).numpy()
                if home[view] == number:
                    assert view in part.splits["train"] and part.masks[view].all()
                elif view in part.splits["train"]:
                    # Blocks of 8x8 pixels are asked in their middle: their borders are not so exact.
                    assert (part.masks[view] == crossing).mean() > 0.8
                    assert part.masks[view].mean() >= LEAST
                    n_partly += not part.masks[view].all()
                else:
                    assert crossing.mean() < 0.3
        assert n_partly > 5

    def test_every_pixel_helps_some_tile(self, room: Scene) -> None:
        tiling = divide(room, "3x2", 32)
        parts = [part_of(room, tiling, number) for number in range(len(tiling))]
        for view in room.splits["train"]:
            assert any(view in part.splits["train"] and part.masks[view].all() for part in parts)

    def test_masked_pixels_stay_masked(self, room: Scene) -> None:
        mask = np.ones(room.images[0].shape[:2], dtype=bool)
        mask[:5] = False
        masked = dataclasses.replace(room, masks=[mask] * len(room.images))
        part = part_of(masked, divide(room, "2x2", 32), 0)
        assert not any(part.masks[view][:5].any() for view in part.splits["train"])
        assert any(part.masks[view][5:].all() for view in part.splits["train"])
