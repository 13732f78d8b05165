"""The viewer: what it shows of a model, when it draws, and when it ends; its pages are stood in for."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nerfkit.charts import si
from nerfkit.config import Config, DataConfig, FieldConfig, SamplerConfig
from nerfkit.looks import LOOKS, cropped, look
from nerfkit.paths import read_path
from nerfkit.poses import quaternion
from nerfkit.render import Model, new_model, render_image
from nerfkit.run import Run
from nerfkit.scene import load_scene
from nerfkit.scene.scene import Scene
from nerfkit.train.progress import Report
from nerfkit.viewer import HOST, Viewer, ViewerError

pytest.importorskip("viser", reason="the viewer's extra is not installed")

SMALL = Config(
    field=FieldConfig(n_levels=4, log2_table_size=10, base_resolution=4, finest_resolution=64, width=16),
    sampler=SamplerConfig(resolution=32, n_steps=128),
    engine="cpu",
)


@pytest.fixture
def scene(toy_scene: Path) -> Scene:
    return load_scene(toy_scene, DataConfig())


@pytest.fixture
def model(scene: Scene) -> Model:
    """Thick fog of many colours in the whole box."""
    model = new_model(SMALL, scene.frame)
    with torch.no_grad():
        model.field.table *= 1e4
        model.field.density_network.weights[-1][0] *= 5.0
    return model


@pytest.fixture
def viewer(scene: Scene, model: Model, tmp_path: Path) -> Iterator[Viewer]:
    frame = scene.frame.to_dict()
    run = Run.create(tmp_path / "run", SMALL, scene.root, scene.name, frame, scene.fingerprint, {}, ["test"])
    viewer = Viewer(scene, model, run, free_port())
    yield viewer
    viewer.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


class Page:
    """What viser tells of an open page, and what it is sent."""

    client_id = 3

    def __init__(self, scene: Scene):
        self.pictures: list[np.ndarray] = []
        send = lambda picture, **_: self.pictures.append(picture)  # noqa: E731
        self.scene = SimpleNamespace(set_background_image=send)
        c2w = scene.cameras.c2w[0]
        wxyz = quaternion(c2w[None, :, :3])[0].numpy()
        self.camera = SimpleNamespace(wxyz=wxyz, position=c2w[:, 3].numpy(), fov=0.8, aspect=1.5)
        self.camera.on_update = lambda told: setattr(self, "moved", told)

    def wait(self, rows: int | None = None) -> np.ndarray:
        """The next picture, or the next of so many rows."""
        seen = len(self.pictures)
        for _ in range(400):
            fresh = [picture for picture in self.pictures[seen:] if rows in (None, len(picture))]
            if fresh:
                return fresh[-1]
            time.sleep(0.02)
        raise AssertionError(f"no picture of {rows} rows came; there were {[len(p) for p in self.pictures]}")


class TestLooks:
    @pytest.mark.parametrize("kind", LOOKS)
    def test_each_shows_the_model_in_its_own_way(self, model: Model, scene: Scene, kind: str) -> None:
        pictures = {each: look(model, scene.cameras[:1], each).picture for each in LOOKS}
        assert pictures[kind].shape == (32, 32, 3) and pictures[kind].dtype == np.uint8
        assert all((pictures[kind] != pictures[other]).any() for other in LOOKS if other != kind)

    def test_an_empty_model_is_its_background(self, model: Model, scene: Scene) -> None:
        nothing = cropped(model, (90.0, 90.0, 90.0, 91.0, 91.0, 91.0))
        assert (look(nothing, scene.cameras[:1], "colour", "white").picture == 255).all()
        assert (look(nothing, scene.cameras[:1], "opacity").picture == 0).all()
        assert look(nothing, scene.cameras[:1], "depth").picture.shape == (32, 32, 3)

    def test_a_crop_leaves_what_is_inside_and_the_model_as_it_was(self, model: Model, scene: Scene) -> None:
        before = look(model, scene.cameras[:1], "opacity").picture
        x0, y0, z0, x1, y1, z1 = scene.frame.aabb
        everything = look(
            cropped(model, (x0 - 1, y0 - 1, z0 - 1, x1 + 1, y1 + 1, z1 + 1)), scene.cameras[:1], "opacity"
        ).picture
        half = look(cropped(model, (x0, y0, z0, x1, y1, (z0 + z1) / 2)), scene.cameras[:1], "opacity").picture
        assert (
            (everything == before).all()
            and (half.astype(int) <= before.astype(int) + 1).all()
            and half.sum() < 0.95 * before.sum()
        )
        assert (look(model, scene.cameras[:1], "opacity").picture == before).all()

    def test_occupancy_shows_occupied_cells_alone(self, model: Model, scene: Scene) -> None:
        assert (look(model, scene.cameras[:1], "occupancy").picture < 250).any()
        model.sampler.values.fill_(-1.0)
        model.sampler._bake()
        assert (look(model, scene.cameras[:1], "occupancy").picture == 255).all()

    def test_samples_are_black_where_a_ray_meets_nothing(self, model: Model, scene: Scene) -> None:
        camera, full = scene.cameras[:1], look(model, scene.cameras[:1], "samples")
        counts = render_image(model, camera, 0).counts
        assert np.array_equal((full.picture > 0).any(-1), counts.numpy() > 0)
        assert f"{si(float(counts.float().mean()))} samples a ray" in full.caption
        nothing = look(cropped(model, (90.0, 90.0, 90.0, 91.0, 91.0, 91.0)), camera, "samples")
        assert not nothing.picture.any() and nothing.caption.startswith("0 samples a ray")

    def test_a_depth_is_told_in_scene_units(self, model: Model, scene: Scene) -> None:
        words = look(model, scene.cameras[:1], "depth").caption.split()
        assert 0.0 < float(words[1]) < float(words[4]) and words[-2:] == ["scene", "units"]


class TestPages:
    def test_pictures_are_full_when_the_camera_rests(self, viewer: Viewer, scene: Scene) -> None:
        page = Page(scene)
        viewer._speed = 1e3
        viewer._size.value = 128
        viewer._arrive(page)
        assert page.wait().shape[1] == round(1.5 * len(page.pictures[0]))
        assert page.wait(128).shape == (128, 192, 3)
        seen = len(page.pictures)
        time.sleep(0.3)
        assert len(page.pictures) == seen, "nothing changed, so nothing is drawn"

    def test_a_moving_camera_gets_small_pictures_at_once(self, viewer: Viewer, scene: Scene) -> None:
        page = Page(scene)
        viewer._size.value = 256
        viewer._arrive(page)
        page.wait(256)
        viewer._speed = 1e3
        page.moved(None)
        assert len(page.wait()) < 256
        page.wait(256)

    def test_another_look_is_drawn_and_told_apart(self, viewer: Viewer, scene: Scene) -> None:
        page = Page(scene)
        viewer._size.value = 96
        viewer._arrive(page)
        colour = page.wait(96)
        viewer._kind.value = "depth"
        viewer._stale()
        assert (page.wait(96) != colour).any() and "scene units" in viewer._caption.content

    def test_it_is_deserted_when_the_last_page_has_gone(self, viewer: Viewer, scene: Scene, patch_gone: None) -> None:
        assert not viewer.deserted, "nobody came yet"
        page = Page(scene)
        viewer._arrive(page)
        assert not viewer.deserted
        viewer._leave(page)
        time.sleep(0.1)
        assert viewer.deserted
        viewer.stay()

    def test_key_frames_become_a_film_and_a_path(self, viewer: Viewer, scene: Scene) -> None:
        page = Page(scene)
        viewer._size.value = 96
        viewer._seconds.value = 0.5
        viewer.run = Run(viewer.run.path / "not-made-yet", viewer.run.config)  # as that of a packed file
        viewer._want_film()
        assert "two key frames" in viewer._said.content
        for shift in (0.0, 0.3):
            page.camera.position = page.camera.position + shift
            viewer._add_key(SimpleNamespace(client=page))
        viewer._want_film()
        for _ in range(500):
            if "keyframes.mp4" in viewer._said.content:
                break
            time.sleep(0.02)
        assert (viewer.run.path / "renders" / "keyframes.mp4").stat().st_size > 1000
        cameras, fps = read_path(viewer.run.path / "renders" / "keyframes.json")
        assert len(cameras) == 12 and fps == 24.0 and int(cameras.height[0]) == 96

    def test_a_taken_port_is_told(self, viewer: Viewer, scene: Scene, model: Model) -> None:
        with pytest.raises(ViewerError, match=f"port {viewer.port} is taken"):
            Viewer(scene, model, viewer.run, viewer.port)

    def test_what_stops_the_drawing_is_told(
        self, viewer: Viewer, scene: Scene, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: object) -> None:
            raise RuntimeError("the pencil broke")

        monkeypatch.setattr("nerfkit.viewer.look", broken)
        viewer._arrive(Page(scene))
        with pytest.raises(RuntimeError, match="pencil"):
            viewer.stay()


@pytest.fixture
def patch_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nerfkit.viewer._GONE", 0.05)


def report(step: int, progress: float = 0.5) -> Report:
    numbers = {name: 1.0 for name in Report.__dataclass_fields__}
    return Report(**{**numbers, "step": step, "progress": progress, "test_psnr": None})


class TestTraining:
    def test_reports_pass_through_and_are_told(self, viewer: Viewer) -> None:
        assert [each.step for each in viewer.watch(report(step) for step in range(5))] == [0, 1, 2, 3, 4]
        assert "step 4" in viewer._status.content

    def test_a_pause_holds_the_training(self, viewer: Viewer) -> None:
        passed = viewer.watch(report(step) for step in range(3))
        next(passed)
        viewer._toggle()
        begun = time.monotonic()
        import threading

        threading.Timer(0.3, viewer._toggle).start()
        assert next(passed).step == 1 and time.monotonic() - begun >= 0.25

    def test_closing_the_page_ends_it_between_two_steps(self, viewer: Viewer, scene: Scene, patch_gone: None) -> None:
        closed = []

        def reports() -> Iterator[Report]:
            try:
                for step in range(1000):
                    time.sleep(0.01)
                    yield report(step)
            finally:
                closed.append(step)

        page = Page(scene)
        viewer._arrive(page)
        seen = 0
        for each in viewer.watch(reports()):
            seen = each.step
            if seen == 3:
                viewer._leave(page)
        assert 3 < seen < 900 and closed == [seen] and viewer.stopped

    def test_a_page_closed_at_the_very_end_stops_nothing(self, viewer: Viewer, scene: Scene, patch_gone: None) -> None:
        page = Page(scene)
        viewer._arrive(page)
        for _ in viewer.watch(report(7, 1.0) for _ in range(1)):
            viewer._leave(page)
            time.sleep(0.1)
        assert viewer.deserted and not viewer.stopped
