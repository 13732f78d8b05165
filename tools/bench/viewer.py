"""Pictures a second in a real page: a headless Chromium opens the viewer of a run, orbits, switches looks, films.

    python tools/bench/viewer.py RUN [--browser chromium] [--out FOLDER] [--size 256]

Needs playwright (its Python package alone) and a Chromium. Prints one JSON line; screenshots go to --out.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from record import record

from nerfkit.assess import backdrop, scene_of
from nerfkit.render import load_model
from nerfkit.run import Run
from nerfkit.viewer import Viewer


class Counted(Viewer):
    """A viewer that notes when it drew how many rows."""

    drawn: list[tuple[float, int]]

    def _draw(self, page: Any, rows: int) -> None:
        super()._draw(page, rows)
        self.drawn.append((time.monotonic(), rows))


def drive(viewer: Counted, browser: str, size: int, out: Path) -> dict[str, object]:
    """Open, orbit for five seconds, look at depth, occupancy and samples, make a film; returns the measurements."""
    from playwright.sync_api import sync_playwright

    found: dict[str, object] = {}
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=browser, args=["--no-sandbox", "--use-gl=swiftshader"])
        page = chromium.new_page(viewport={"width": 3 * size, "height": 2 * size})
        begun = time.monotonic()
        page.goto(viewer.url)
        while not viewer.drawn:
            page.wait_for_timeout(50)
        found["seconds_to_first_picture"] = time.monotonic() - begun
        page.wait_for_timeout(3000)
        page.screenshot(path=out / "colour.png")
        viewer._size.value = size
        page.mouse.move(1.2 * size, size)
        page.mouse.down()
        viewer.drawn.clear()
        begun = time.monotonic()
        for step in range(100):
            page.mouse.move(1.2 * size + 3 * step % size, size + 20 * (step % 5))
            page.wait_for_timeout(50)
        moving = [rows for at, rows in viewer.drawn if at - begun < 5.0]
        page.mouse.up()
        found |= {"pictures_per_second": len(moving) / 5.0, "rows_while_moving": sum(moving) / max(len(moving), 1)}
        for look in ("depth", "occupancy", "samples"):
            page.locator("input[role=combobox]:visible").first.click()
            page.get_by_role("option", name=look).click()
            page.wait_for_timeout(3000)
            page.screenshot(path=out / f"{look}.png")
        page.get_by_text("Film", exact=True).click()
        for turn in (0, 1):
            page.get_by_role("button", name="Add key frame").click()
            page.mouse.move(1.2 * size, size)
            page.mouse.down()
            page.mouse.move(1.2 * size + (1 - turn) * 150, size)
            page.mouse.up()
            page.wait_for_timeout(500)
        page.get_by_role("button", name="Make film").click()
        while "keyframes.mp4" not in viewer._said.content:
            page.wait_for_timeout(200)
        page.screenshot(path=out / "film.png")
        chromium.close()
    return found


def main() -> None:
    """Serve the run, drive a browser, print the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--browser", default="/usr/bin/chromium")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--port", type=int, default=7071)
    options = parser.parse_args()
    run = Run.open(options.run)
    scene = scene_of(run)
    Counted.drawn = []
    viewer = Counted(scene, load_model(run), run, options.port, backdrop(scene))
    options.out.mkdir(parents=True, exist_ok=True)
    found = drive(viewer, options.browser, options.size, options.out)
    begun = time.monotonic()
    viewer.stay()
    found["seconds_from_closing_to_end"] = time.monotonic() - begun
    viewer.close()
    left = [thread.name for thread in threading.enumerate() if "viewer" in thread.name]
    record("viewer", run=str(options.run), size=options.size, threads_left=left, **found)


if __name__ == "__main__":
    main()
