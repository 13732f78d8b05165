"""A page in the browser: a model seen from where one likes, while it trains or afterwards.

One thread draws, from a model that may be in training meanwhile: it only reads, and a picture between two steps is as
good as one after either. The page's events leave notes for it. While a camera moves, pictures are as small as they must
be to come quickly; when it rests, one in full follows.
"""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch

from nerfkit.assess import truth
from nerfkit.cameras import Cameras
from nerfkit.looks import LOOKS, cropped, look
from nerfkit.paths import focus, orbit, write_path
from nerfkit.poses import interpolate_poses, mean_up, quaternion, rotation_of
from nerfkit.render import Model
from nerfkit.run import Run
from nerfkit.scene import Scene
from nerfkit.tiles import Tiles
from nerfkit.train.progress import Report
from nerfkit.video import film, shoot

HOST = "127.0.0.1"
_QUICK = 0.12
"""Seconds that a picture may take while its camera moves."""
_REST = 0.25
"""Seconds after which a camera counts as resting."""
_LEAST = 96
"""Rows of the smallest picture."""
_GONE = 3.0
"""Seconds without any page, after there was one, that end the viewer: reloading takes less."""
_SHARE = 4.0
"""Times what a resting picture took that pass before the next, while a training goes on."""


class ViewerError(RuntimeError):
    """A page that cannot be shown: one sentence."""


@dataclass
class _Page:
    """One open page, and the last that it was shown."""

    client: Any
    moved: float = 0.0
    drawn: float = -1.0
    rows: int = 0
    seconds: float = 0.0
    """What the last picture took."""


@dataclass
class _Keys:
    """The key frames of a film."""

    cameras: list[Cameras] = field(default_factory=list)
    wanted: bool = False
    """Whether the film is to be made."""


class Viewer:
    """Pages on ``http://127.0.0.1:port`` that show one model of one scene.

    Raises ViewerError where viser is not installed or the port is taken.
    """

    def __init__(self, scene: Scene, model: Model | Tiles, run: Run, port: int = 7007, background: str = "white"):
        try:
            import viser
        except ImportError:
            raise ViewerError("the viewer needs viser: pip install 'nerfkit[view]'") from None
        _check_free(port)
        self.scene, self.model, self.run, self.background = scene, model, run, background
        self.port = port
        self.paused = self.stopped = False
        self._pages: dict[int, _Page] = {}
        self._visited = False
        self._changed = time.monotonic()
        self._alone_since = time.monotonic()
        self._speed = 1e5
        """Pixels a second, from the pictures drawn so far."""
        self._keys = _Keys()
        self._wake = threading.Event()
        self._error: Exception | None = None
        self._closed = False
        self._server = viser.ViserServer(host=HOST, port=port, label="nerfkit", verbose=False)
        self._furnish()
        self._server.on_client_connect(self._arrive)
        self._server.on_client_disconnect(self._leave)
        self._drawer = threading.Thread(target=self._keep_drawing, name="nerfkit viewer", daemon=True)
        self._drawer.start()

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.port}"

    def close(self) -> None:
        """Close all pages and the port."""
        self._closed = True
        self._wake.set()
        self._drawer.join()
        self._server.stop()

    @property
    def visited(self) -> bool:
        """Whether there has been a page."""
        return self._visited

    @property
    def deserted(self) -> bool:
        """Whether there was a page and all have been closed for a while."""
        return self._visited and not self._pages and time.monotonic() - self._alone_since > _GONE

    def stay(self) -> None:
        """Wait until every page is closed."""
        while not self.deserted:
            self._check()
            time.sleep(0.05)

    def watch(self, reports: Iterator[Report]) -> Iterator[Report]:
        """Pass the reports of a training through, held up while it is paused; ends where every page has been closed.

        ``reports`` is closed then, so that the training leaves a checkpoint, and ``stopped`` is set.
        """
        with closing(reports):
            for report in reports:
                self._tell(report)
                self._changed = time.monotonic()
                self._wake.set()
                yield report
                while self.paused and not self.deserted:
                    self._check()
                    time.sleep(0.05)
                self._check()
                if self.deserted and report.progress < 1.0:
                    self.stopped = True
                    return

    def _check(self) -> None:
        """Raise what stopped the drawing."""
        if self._error is not None:
            raise self._error

    def _keep_drawing(self) -> None:
        try:
            while not self._closed:
                if not self.draw():
                    self._wake.wait(0.05)
                    self._wake.clear()
        except Exception as error:  # told to whoever waits in another thread
            self._error = error

    def draw(self) -> bool:
        """Draw the picture that is most wanted, or make the film asked for; False if there is nothing to do."""
        if self._keys.wanted:
            self._keys.wanted = False
            self._film()
            return True
        for page in sorted(self._pages.values(), key=lambda page: page.drawn):
            rows = self._rows_wanted(page)
            if rows:
                self._draw(page, rows)
                return True
        return False

    def _rows_wanted(self, page: _Page) -> int:
        """Rows of the picture that a page should have now; 0 if what it has will do."""
        camera, now = page.client.camera, time.monotonic()
        full = int(self._size.value)
        quick = int(math.sqrt(self._speed * _QUICK / max(camera.aspect, 0.1)))
        quick = min(max(quick, _LEAST), full)
        if page.drawn < page.moved:
            return quick if now - page.moved < _REST else full
        if page.rows < full and now - page.moved >= _REST:
            return full
        return full if page.drawn < self._changed and now - page.drawn > _SHARE * page.seconds else 0

    def _draw(self, page: _Page, rows: int) -> None:
        begun = time.monotonic()
        camera = _camera_of(page.client.camera, rows)
        box = self._box()
        background = self.background if box is None else "white"
        seen = look(cropped(self.model, box), camera, self._kind.value, background)
        self._caption.content = seen.caption
        quality = 90 if rows == int(self._size.value) else 70
        page.client.scene.set_background_image(seen.picture, format="jpeg", jpeg_quality=quality)
        page.seconds = time.monotonic() - begun
        page.drawn, page.rows = begun, rows
        self._speed = 0.7 * self._speed + 0.3 * seen.picture[..., 0].size / max(page.seconds, 1e-3)

    def _box(self) -> tuple[float, ...] | None:
        return (*self._lower.value, *self._upper.value) if self._crop.value else None

    def _film(self) -> None:
        """Through the key frames on a smooth path, into the run's renders."""
        keys = self._keys.cameras
        rows = int(self._size.value) // 2 * 2
        poses = torch.cat([key.c2w for key in keys])
        n_frames = max(2, round((len(keys) - 1) * self._seconds.value * 24))
        times = torch.linspace(0, len(keys) - 1, n_frames)
        c2w = interpolate_poses(poses, torch.arange(len(keys)).float(), times)
        height, width = int(keys[0].height[0]), int(keys[0].width[0])
        cameras = Cameras.pinhole(c2w, float(keys[0].fl_y[0]), width, height).scaled(rows / height)
        folder = self.run.path / "renders"
        folder.mkdir(parents=True, exist_ok=True)
        write_path(cameras, folder / "keyframes.json")
        model = cropped(self.model, self._box())
        with film(folder / "keyframes.mp4") as add:
            for number, rendered in enumerate(shoot(model, cameras, self.background)):
                add((rendered.rgb.clamp(0, 1) * 255).round().byte().numpy())
                self._said.content = f"film: frame {number + 1} of {n_frames}"
        self._said.content = f"film: {folder / 'keyframes.mp4'}"

    def _furnish(self) -> None:
        """The page's controls and the cameras in its space."""
        gui, frame = self._server.gui, self.scene.frame
        self._status = gui.add_markdown("")
        self._pause = gui.add_button("Pause training", visible=False)
        self._pause.on_click(lambda _: self._toggle())
        self._kind = gui.add_dropdown("Show", LOOKS)
        self._caption = gui.add_markdown("")
        self._size = gui.add_slider(
            "Rows when still", _LEAST, 1080, 8, max(_LEAST, min(512, self._rows_of_photographs()))
        )
        shown = gui.add_checkbox("Cameras", True)
        with gui.add_folder("Crop", expand_by_default=False):
            self._crop = gui.add_checkbox("Crop", False)
            self._lower = gui.add_vector3("From", frame.aabb[:3], step=0.01)
            self._upper = gui.add_vector3("To", frame.aabb[3:], step=0.01)
        with gui.add_folder("Film", expand_by_default=False):
            add, drop = gui.add_button("Add key frame"), gui.add_button("Drop last key frame")
            self._seconds = gui.add_slider("Seconds between", 0.5, 10.0, 0.5, 2.0)
            make = gui.add_button("Make film")
            self._said = gui.add_markdown("no key frames")
        for control in (self._kind, self._size, self._crop, self._lower, self._upper):
            control.on_update(lambda _: self._stale())
        add.on_click(self._add_key)
        drop.on_click(lambda _: self._drop_key())
        make.on_click(lambda _: self._want_film())
        self._add_cameras(shown)

    def _rows_of_photographs(self) -> int:
        return int(self.scene.cameras.height.max()) // 8 * 8

    def _add_cameras(self, shown: Any) -> None:
        """A frustum for each training photograph, with the photograph in it; a click goes there and hides them."""
        cameras = self.scene.cameras
        up, (point, distance) = mean_up(cameras.c2w), focus(cameras)
        self._server.scene.set_up_direction(tuple(up.tolist()))
        first = self.scene.splits["train"][0]
        # Between the cameras, or a photograph would stand before the eye.
        self._server.initial_camera.position = tuple(orbit(cameras, 7).c2w[1, :, 3].tolist())
        self._server.initial_camera.look_at = tuple(point.tolist())
        self._server.initial_camera.fov = _fov(cameras, first)
        turned = quaternion(cameras.c2w[:, :, :3])
        frusta = []
        for view in self.scene.splits["train"]:
            photograph = (truth(self.scene, view, self.background) * 255).byte().numpy()
            height, width = photograph.shape[:2]
            small = cv2.resize(photograph, (64, max(1, round(64 * height / width))), interpolation=cv2.INTER_AREA)
            frustum = self._server.scene.add_camera_frustum(
                f"/cameras/{view}",
                fov=_fov(cameras, view),
                aspect=float(cameras.width[view] / cameras.height[view]),
                scale=0.04 * distance,
                thickness=0.0008 * distance,
                image=small,
                wxyz=turned[view].numpy(),
                position=cameras.c2w[view, :, 3].numpy(),
            )
            frustum.on_click(self._jump_to(view, turned[view].numpy(), shown))
            frusta.append(frustum)
        shown.on_update(lambda _: [setattr(frustum, "visible", shown.value) for frustum in frusta])

    def _jump_to(self, view: int, wxyz: np.ndarray, shown: Any) -> Callable[[Any], None]:
        def jump(event: Any) -> None:
            shown.value = False
            with event.client.atomic():
                event.client.camera.wxyz = wxyz
                event.client.camera.position = self.scene.cameras.c2w[view, :, 3].numpy()

        return jump

    def _arrive(self, client: Any) -> None:
        page = _Page(client, time.monotonic())

        def moved(_: Any) -> None:
            page.moved = time.monotonic()
            self._wake.set()

        client.camera.on_update(moved)
        self._pages[client.client_id] = page
        self._visited = True
        self._wake.set()

    def _leave(self, client: Any) -> None:
        self._pages.pop(client.client_id, None)
        self._alone_since = time.monotonic()
        self._wake.set()

    def _stale(self) -> None:
        for page in list(self._pages.values()):
            page.moved = time.monotonic()
        self._wake.set()

    def _toggle(self) -> None:
        self.paused = not self.paused
        self._pause.label = "Go on training" if self.paused else "Pause training"
        self._wake.set()

    def _tell(self, report: Report) -> None:
        self._pause.visible = True
        left = f"{report.eta:.0f} s left" if report.progress < 1.0 else "done"
        self._status.content = f"step {report.step}, {report.psnr:.2f} dB, {left}"

    def _add_key(self, event: Any) -> None:
        self._keys.cameras.append(_camera_of(event.client.camera, 512))
        self._said.content = f"{len(self._keys.cameras)} key frames"

    def _drop_key(self) -> None:
        del self._keys.cameras[-1:]
        self._said.content = f"{len(self._keys.cameras)} key frames"

    def _want_film(self) -> None:
        if len(self._keys.cameras) < 2:
            self._said.content = "a film needs two key frames"
            return
        self._keys.wanted = True
        self._wake.set()


def _fov(cameras: Cameras, view: int) -> float:
    """Vertical field of view, radians."""
    return 2.0 * math.atan(float(cameras.height[view]) / 2.0 / float(cameras.fl_y[view]))


def _camera_of(camera: Any, rows: int) -> Cameras:
    """The pinhole of a page, scene coordinates, with so many rows."""
    wxyz = torch.tensor(np.asarray(camera.wxyz), dtype=torch.float32)
    rotation = rotation_of(torch.nn.functional.normalize(wxyz, dim=0)[None])[0]
    position = torch.tensor(np.asarray(camera.position), dtype=torch.float32)
    c2w = torch.cat([rotation, position[:, None]], 1)[None]
    columns = max(2, round(rows * camera.aspect))
    return Cameras.pinhole(c2w, rows / 2.0 / math.tan(camera.fov / 2.0), columns, rows)


def _check_free(port: int) -> None:
    """Raise ViewerError where something listens already: viser would quietly take the next port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            raise ViewerError(f"port {port} is taken, by another viewer perhaps; choose one with --port") from None
