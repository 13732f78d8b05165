"""Seconds to render a held-out view of a run.

python tools/bench/rendering.py RUN [--views 5]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from record import record, seconds

from nerfkit.assess import backdrop, scene_of
from nerfkit.kernels.launch import prepare_cpu
from nerfkit.render import load_model, render_image
from nerfkit.run import Run


def main() -> None:
    """Measure and print one JSON line a view."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--views", type=int, default=5)
    options = parser.parse_args()
    prepare_cpu()
    run = Run.open(options.run)
    scene, model = scene_of(run), load_model(run)
    views = scene.splits["test"]
    for view in views[:: max(1, len(views) // options.views)][: options.views]:
        timing = seconds(lambda view=view: render_image(model, scene.cameras, view, backdrop(scene)), n_runs=3)
        height, width = scene.images[view].shape[:2]
        record("rendering", view=scene.image_names[view], width=width, height=height, seconds=timing)


if __name__ == "__main__":
    main()
