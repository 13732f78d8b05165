"""Training pixels: whose they are, where their rays go, and which are never drawn."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from compare import assert_close

from nerfkit import cameras
from nerfkit.config import DataConfig
from nerfkit.kernels import pixels as kernel
from nerfkit.kernels.launch import parallel
from nerfkit.kernels.pixels import Masks, usable_pixels
from nerfkit.poses import SceneError
from nerfkit.scene import load_scene
from nerfkit.scene.scene import Scene
from nerfkit.train import pixels as training_pixels
from nerfkit.train.pixels import Pixels
from nerfkit.types import Rays

CPU = torch.device("cpu")
BENDS = {
    "pinhole": [0.0] * 8,
    "opencv": [-0.12, 0.05, 0.001, -0.0008, 0.002, 0.01, 0.0, 0.0],
    "opencv_fisheye": [0.05, -0.01, 0.0, 0.0, 0.003, -0.0005, 0.0, 0.0],
}


@pytest.fixture
def scene(toy_scene: Path) -> Scene:
    return load_scene(toy_scene, DataConfig())


def draw(pixels: Pixels, n: int = 20000) -> torch.Tensor:
    return pixels.draw(n, torch.Generator().manual_seed(0))


def through(scene: Scene, lens: str, mixed: bool = False) -> Scene:
    """The scene with another lens, a little different for each view, and if ``mixed`` with a smaller first picture."""
    first, n = scene.splits["train"][0], len(scene.cameras)
    bend = torch.tensor(BENDS[lens]) * torch.linspace(0.9, 1.1, n)[:, None]
    width, height = scene.cameras.width.clone(), scene.cameras.height.clone()
    if mixed:
        width[first], height[first] = 24, 20
    old, shift = scene.cameras, torch.linspace(-2.0, 3.0, n)
    other = replace(old, lens=lens, distortion=bend, width=width, height=height)
    other = replace(other, fl_x=old.fl_x + shift, fl_y=1.1 * old.fl_y, cx=old.cx + shift, cy=old.cy - 1.0)
    changed = replace(scene, cameras=other, images=list(scene.images))
    # Put in afterwards: the checker holds the pictures of a new scene to one size.
    changed.images[first] = changed.images[first][: height[first], : width[first]]
    return changed


def rays_one_by_one(scene: Scene) -> Rays:
    """The rays of all training pixels by the cameras themselves, without a table."""
    each = []
    for view in scene.splits["train"]:
        height, width = scene.images[view].shape[:2]
        y, x = np.divmod(np.arange(height * width), width)
        xy = torch.from_numpy(np.stack([x, y], 1) + 0.5).float()
        which = torch.full((len(xy),), view)
        local = scene.cameras._solve(which, xy)
        c2w = scene.cameras.c2w[view]
        each.append((scene.frame.to_model(c2w[:, 3].expand(len(xy), 3)), local @ c2w[:, :3].T, local[:, 2]))
    return Rays(*(torch.cat(columns) for columns in zip(*each, strict=True)))


def assert_rays(actual: Rays, expected: Rays) -> None:
    for field in fields(Rays):
        assert_close(getattr(actual, field.name), getattr(expected, field.name))


def test_all_training_pixels_are_drawn_alike(scene: Scene) -> None:
    pixels = Pixels(scene, CPU)
    assert len(pixels) == sum(scene.images[i][..., 0].size for i in scene.splits["train"])
    counts = draw(pixels, 50 * len(pixels)).bincount(minlength=len(pixels)).float()
    assert counts.mean() == 50.0 and counts.min() > 15 and counts.max() < 100


def test_rays_and_colours_are_those_of_the_pixel(scene: Scene) -> None:
    pixels, views = Pixels(scene, CPU), scene.splits["train"]
    picked = draw(pixels, 200)
    rays, black = pixels.rays(picked, scene.frame), torch.zeros(200, 3)
    colors = pixels.colors(picked, black)
    for k, index in enumerate(picked.tolist()):
        place = index
        for view in views:  # pixels lie row by row, view after view
            height, width = scene.images[view].shape[:2]
            if place < height * width:
                break
            place -= height * width
        y, x = divmod(place, width)
        own = scene.cameras.rays(torch.tensor([view]), torch.tensor([[x + 0.5, y + 0.5]]))
        expected = scene.frame.model_rays(own)
        assert torch.allclose(rays.rays_o[k], expected.rays_o[0], atol=1e-6)
        assert torch.allclose(rays.rays_d[k], expected.rays_d[0], atol=1e-6)
        rgba = scene.images[view][y, x].astype(np.float32) / 255.0
        assert colors[k].tolist() == pytest.approx((rgba[:3] * rgba[3]).tolist(), abs=1e-6)


def test_the_background_shows_where_alpha_lets_it(scene: Scene) -> None:
    pixels = Pixels(scene, CPU)
    picked = draw(pixels, 500)
    behind = torch.rand(500, 3)
    alphas = np.concatenate([scene.images[i][..., 3].reshape(-1) for i in scene.splits["train"]])
    clear = torch.from_numpy(alphas)[picked] == 0
    assert clear.any() and not clear.all()
    colors = pixels.colors(picked, behind)
    assert torch.equal(colors[clear], behind[clear])
    assert float(colors.min()) >= 0.0 and float(colors.max()) <= 1.0


def test_opaque_images_ignore_the_background(toy_capture: Path) -> None:
    pixels = Pixels(load_scene(toy_capture, DataConfig()), CPU)
    picked = draw(pixels, 100)
    assert torch.equal(pixels.colors(picked, torch.zeros(100, 3)), pixels.colors(picked, torch.ones(100, 3)))


def test_images_of_both_kinds_share_a_row(scene: Scene, device: torch.device) -> None:
    views = scene.splits["train"]
    for view in views[::2]:
        scene.images[view] = np.ascontiguousarray(scene.images[view][..., :3])
    pixels = Pixels(scene, device)
    behind = torch.full((len(pixels), 3), 0.5)
    rows = [np.dstack([scene.images[i], np.full((32, 32, 4 - scene.images[i].shape[2]), 255)]) for i in views]
    rgba = np.concatenate([row.reshape(-1, 4) for row in rows]) / 255.0
    colors = pixels.colors(torch.arange(len(pixels)), behind.to(device))
    assert_close(colors, torch.from_numpy(rgba[:, :3] * rgba[:, 3:] + 0.5 * (1.0 - rgba[:, 3:])))


def test_pictures_are_not_copied(scene: Scene) -> None:
    pixels, views = Pixels(scene, CPU), scene.splits["train"]
    assert [picture.data_ptr() for picture in pixels.pictures.each] == [scene.images[i].ctypes.data for i in views]
    scene.images[views[1]][0, 0] = [255, 0, 51, 255]
    assert_close(pixels.colors(torch.tensor([32 * 32]), torch.zeros(1, 3)), torch.tensor([[1.0, 0.0, 0.2]]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_what_a_device_has_no_room_for_stays_on_the_host(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda")
    there, picked = Pixels(scene, device), torch.arange(8 * 32 * 32)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4096, 1 << 30))
    here, behind = Pixels(scene, device), torch.rand(len(picked), 3, device=device)
    assert {picture.device.type for picture in here.pictures.each} == {"cpu"}
    assert_close(here.colors(picked, behind), there.colors(picked, behind))
    assert here.colors(picked, behind).device.type == here.rays(picked, scene.frame).cos.device.type == "cuda"


def test_images_of_several_sizes(scene: Scene) -> None:
    views = scene.splits["train"]
    scene.images[views[0]] = scene.images[views[0]][:20, :24]
    pixels = Pixels(scene, CPU)
    first_of_second = torch.tensor([20 * 24])
    expected = scene.cameras.rays(torch.tensor([views[1]]), torch.tensor([[0.5, 0.5]]))
    ray = pixels.rays(first_of_second, scene.frame)
    assert torch.allclose(ray.rays_d, expected.rays_d, atol=1e-6)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("lens", BENDS)
def test_every_lens_looks_as_its_cameras_say(scene: Scene, lens: str, mixed: bool, device: torch.device) -> None:
    other = through(scene, lens, mixed)
    pixels = Pixels(other, device)
    rays = pixels.rays(torch.arange(len(pixels)), other.frame)
    assert {rays.rays_o.device.type, rays.rays_d.device.type, rays.cos.device.type} == {device.type}
    assert_rays(rays, rays_one_by_one(other))


def never(*inputs: object) -> None:
    raise AssertionError("not to be called")


@pytest.mark.parametrize("lens", BENDS)
def test_a_call_asks_no_camera(scene: Scene, lens: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, picked = Pixels(through(scene, lens), CPU), torch.arange(300)
    first = pixels.rays(picked, scene.frame)
    monkeypatch.setattr(cameras.Cameras, "rays", never)
    monkeypatch.setattr(cameras.Cameras, "__getitem__", never)
    assert_rays(pixels.rays(picked, scene.frame), first)


@pytest.mark.parametrize("lens", ["opencv", "opencv_fisheye"])
def test_without_room_for_a_table_directions_are_solved_for(
    scene: Scene, lens: str, monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    monkeypatch.setattr(cameras, "TABLE_BYTES", 0)
    monkeypatch.setattr(training_pixels, "pixel_rays", never)
    other = through(scene, lens, mixed=True)
    pixels = Pixels(other, device)
    assert_rays(pixels.rays(torch.arange(len(pixels)), other.frame), rays_one_by_one(other))


def test_a_picture_of_another_size_than_its_cameras_does_not_use_their_table(scene: Scene) -> None:
    other = through(scene, "opencv")
    other.images[other.splits["train"][1]] = other.images[other.splits["train"][1]][:20, :24]
    pixels = Pixels(other, CPU)
    assert_rays(pixels.rays(torch.arange(len(pixels)), other.frame), rays_one_by_one(other))


def test_each_frame_has_its_own_coordinates(scene: Scene) -> None:
    pixels, picked = Pixels(scene, CPU), torch.arange(300)
    wider = replace(scene.frame, scale=scene.frame.scale / 3.0, center=(0.1, 0.2, 0.3))
    for frame in (scene.frame, wider, scene.frame):
        expected = rays_one_by_one(replace(scene, frame=frame))[:300]
        assert_rays(pixels.rays(picked, frame), expected)


@pytest.mark.parametrize("lens", BENDS)
def test_tasks_at_once_see_what_one_sees(scene: Scene, lens: str) -> None:
    pixels, other = (Pixels(through(scene, lens), CPU) for _ in range(2))
    picked = draw(pixels, 4000)
    background = torch.rand(4000, 3, generator=torch.Generator().manual_seed(2))

    def task(start: int) -> tuple[torch.Tensor, ...]:
        part = slice(start, start + 100)
        rays = pixels.rays(picked[part], scene.frame)
        return rays.rays_o, rays.rays_d, rays.cos, pixels.colors(picked[part], background[part])

    parts = [torch.cat(columns) for columns in zip(*parallel(task, range(0, 4000, 100), CPU), strict=True)]
    rays = other.rays(picked, scene.frame)
    whole = (rays.rays_o, rays.rays_d, rays.cos, other.colors(picked, background))
    assert all(torch.equal(a, b) for a, b in zip(parts, whole, strict=True))


@pytest.mark.parametrize("opaque", [False, True])
def test_colours_of_every_byte(scene: Scene, opaque: bool, device: torch.device) -> None:
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (*image.shape[:2], 3 if opaque else 4), np.uint8) for image in scene.images]
    pixels = Pixels(replace(scene, images=images), device)
    rgba = np.concatenate([images[i].reshape(-1, images[i].shape[2]) for i in scene.splits["train"]]) / 255.0
    behind = generator.random((len(rgba), 3)).astype(np.float32)
    alpha = np.ones((len(rgba), 1)) if opaque else rgba[:, 3:]
    colors = pixels.colors(torch.arange(len(rgba)), torch.from_numpy(behind).to(device))
    assert_close(colors, torch.from_numpy(rgba[:, :3] * alpha + behind * (1.0 - alpha)))


def test_masked_pixels_are_never_drawn(scene: Scene) -> None:
    generator = np.random.default_rng(0)
    masks = [generator.random(image.shape[:2]) < 0.3 for image in scene.images]
    pixels = Pixels(replace(scene, masks=masks), CPU)
    usable = np.concatenate([masks[i].reshape(-1) for i in scene.splits["train"]])
    picked = draw(pixels, 20 * int(usable.sum()))
    assert usable[picked.numpy()].all()
    assert len(picked.unique()) == int(usable.sum())


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (16, 24), (301, 203)])
@pytest.mark.parametrize("share", [0.0, 0.003, 0.5, 1.0])
@pytest.mark.parametrize("listed", [1 << 30, 0])
def test_usable_pixels_are_listed_or_counted_off(
    size: tuple[int, int], share: float, listed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "LIST_BYTES", listed)
    generator = np.random.default_rng(0)
    each = [
        generator.random(size) < share,
        np.ones((2, 3), bool),
        np.zeros((5, 5), bool),
        generator.random((9, 99)) < share,
    ]
    masks = Masks([torch.from_numpy(mask) for mask in each])
    usable = np.flatnonzero(np.concatenate([mask.reshape(-1) for mask in each]))
    assert masks.n_usable == len(usable)
    assert usable_pixels(torch.arange(len(usable)), masks).tolist() == usable.tolist()


def test_the_seed_decides(scene: Scene) -> None:
    pixels = Pixels(scene, CPU)
    assert torch.equal(draw(pixels), draw(pixels))
    assert not torch.equal(draw(pixels), pixels.draw(20000, torch.Generator().manual_seed(1)))


def test_masks_that_leave_no_pixel_are_refused(toy_capture: Path) -> None:
    scene = load_scene(toy_capture, DataConfig())
    nothing = [np.zeros(image.shape[:2], bool) for image in scene.images]
    with pytest.raises(SceneError, match="the masks leave no pixel"):
        Pixels(replace(scene, masks=nothing), torch.device("cpu"))


def test_a_views_own_pixels_are_drawn_and_no_masked_ones(scene: Scene) -> None:
    views = scene.splits["train"]
    masks = [np.ones(image.shape[:2], bool) for image in scene.images]
    masks[views[2]][:, 3:], masks[views[5]][:] = False, False
    generator = torch.Generator().manual_seed(0)
    for pixels in (Pixels(scene, CPU), Pixels(replace(scene, masks=masks), CPU)):
        picked = pixels.of_view(2, 2000, generator)
        assert len(picked) == 2000 and (pixels.views(picked) == 2).all()
    assert len(picked.unique()) == 3 * scene.images[views[2]].shape[0]
    assert not len(pixels.of_view(5, 2000, generator))


@pytest.mark.parametrize("lens", BENDS)
def test_rays_begin_where_the_views_are_moved_to(scene: Scene, lens: str) -> None:
    other = through(scene, lens)
    pixels, every = Pixels(other, CPU), torch.arange(300, 2500)
    before = pixels.rays(every, scene.frame)
    c2w = other.cameras.c2w[other.splits["train"]].flip(0)
    pixels.look_from(c2w)
    moved = other.with_poses(c2w)
    assert_rays(pixels.rays(every, scene.frame), rays_one_by_one(moved)[300:2500])
    assert not torch.equal(pixels.rays(every, scene.frame).rays_o, before.rays_o)
    held_out = scene.splits["test"]
    assert torch.equal(moved.cameras.c2w[held_out], scene.cameras.c2w[held_out])
    if lens != "pinhole":
        assert pixels.scene.cameras.table is other.cameras.table, "the lens is not solved for again"
