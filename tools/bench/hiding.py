"""Whether renders show what is hidden in them: a picture in a run, drawn from held-out renders, attacked and not.

    python tools/bench/hiding.py RESULTS.jsonl RUN... [--scene FOLDER] [--targets 44] [--alphas 0.5] [--undistorted]
                                 [--views 24] [--size 400] [--attacks none jpeg:75 ...] [--picture FILE]
    python tools/bench/hiding.py RESULTS.jsonl --table

For each strength (PSNR of marked against unmarked renders; by default that of `embed --hide`) and each alpha of the
mask, the astronaut of scikit-image is hidden, and looked for in renders of views that neither training nor hiding has
seen, marked and not. ``--undistorted`` trains without the distortion layer, as StegaNeRF does. One JSON line an attack
is appended to RESULTS.jsonl; what stands there already is not run again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from record import Rows, record
from skimage import data

from nerfkit.assess import backdrop, scene_of
from nerfkit.evaluate import ssim
from nerfkit.render import load_model
from nerfkit.run import Run
from nerfkit.stego.attacks import attacked
from nerfkit.stego.copies import ALPHA
from nerfkit.stego.cost import Picture, against_photographs, picture_of, psnr, worst_psnr
from nerfkit.stego.hidden import target_of, taught
from nerfkit.stego.hide import Plan
from nerfkit.stego.keys import Key
from nerfkit.stego.payload import Payload
from nerfkit.stego.views import views_between
from nerfkit.terminal import finished

NONE = "none"
ATTACKS = (NONE, "jpeg:75", "jpeg:50", "jpeg:20", "noise:0.05", "noise:0.1", "blur:1.5", "resize:0.5", "crop:0.9")
ATTACKS += ("crop:0.7", "rotate:5", "rotate:15", "brightness:1.3", "noise:0.05+crop:0.7+jpeg:50")


def measure(rows: Rows, run: Run, arguments: argparse.Namespace) -> None:
    """All strengths and masks of one run."""
    scene = scene_of(run, arguments.scene)
    logo = arguments.results.with_name("astronaut.png")
    Image.fromarray(data.astronaut()).save(logo)
    payload, wanted = Payload.of(logo), torch.from_numpy(Payload.of(logo).picture)
    for target in arguments.targets or [None]:
        for alpha in arguments.alphas:
            row = {"run": run.path.name, "target": target, "alpha": alpha, "distorted": not arguments.undistorted}
            row |= {"size": arguments.size, "views": arguments.views}
            missing = [by for by in arguments.attacks if not rows.has({**row, "attack": by})]
            if not missing:
                continue
            model = load_model(run)
            views, behind = views_between(scene, arguments.views, arguments.size, 99), backdrop(scene)
            plain = [picture_of(model, views, i, behind) for i in range(len(views))]
            before = against_photographs(model, scene, behind)
            plan, began = Plan(alpha=alpha, distorted=not arguments.undistorted), time.process_time()
            strength = target or target_of("balanced", before)
            steps = taught(model, scene, payload, Key(bytes(32)).of_scene("bench"), strength, plan)
            keeping = finished(steps, f"hiding in {run.path.name}")
            seconds = time.process_time() - began
            marked = [picture_of(model, views, i, behind) for i in range(len(views))]
            pairs = list(zip(marked, plain, strict=True))
            lost = None if before is None else before - against_photographs(model, scene, behind)
            cost = {"psnr": psnr(pairs), "worst_psnr": worst_psnr(pairs), "photo_loss": lost, "cpu_seconds": seconds}
            for by in missing:
                figures = {}
                for name, each in (("marked", marked), ("unmarked", plain)):
                    after = [one if by == NONE else attacked(one, by, i) for i, one in enumerate(each)]
                    seen = [keeping.read([one]) for one in after]
                    figures[f"{name}_found"] = sum(one.found for one in seen)
                    figures[f"{name}_signs"] = fmean(one.agreeing for one in seen)
                    figures[f"{name}_ssim"] = [ssim(torch.from_numpy(one.drawn), wanted) for one in seen]
                rows.add(record("hiding", **row, attack=by, **cost, **figures))
            if arguments.picture is not None:
                drawn = keeping.read([attacked(marked[0], "jpeg:75")]).drawn
                Image.fromarray(side_by_side(plain[0], marked[0], drawn)).save(arguments.picture, quality=92)


def side_by_side(plain: Picture, marked: Picture, drawn: np.ndarray) -> Picture:
    """A render without and with what is hidden, twenty times their difference, and what is drawn of the second."""
    apart = 127.5 + 20.0 * (marked.astype(np.float32) - plain)
    large = cv2.resize(drawn, plain.shape[1::-1], interpolation=cv2.INTER_NEAREST) * 255.0
    return np.hstack([plain, marked, apart, large]).clip(0, 255).round().astype(np.uint8)


def table(rows: list[dict[str, Any]]) -> None:
    """Print rows."""
    print("| run | attack | marked: found | SSIM | least | unmarked: found | SSIM | most |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        name = row["run"] + ("" if row["distorted"] else ", undistorted") + f", alpha {row['alpha']:g}"
        cells = []
        for kind, end in (("marked", min), ("unmarked", max)):
            each = row[f"{kind}_ssim"]
            cells += [f"{row[f'{kind}_found']} of {len(each)}", f"{fmean(each):.3f}", f"{end(each):.3f}"]
        print(f"| {name}, {row['psnr']:.1f} dB | {row['attack']} | {' | '.join(cells)} |")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("runs", type=Path, nargs="*")
    parser.add_argument("--scene", type=Path)
    parser.add_argument("--targets", type=float, nargs="*")
    parser.add_argument("--alphas", type=float, nargs="+", default=[ALPHA])
    parser.add_argument("--undistorted", action="store_true")
    parser.add_argument("--views", type=int, default=24)
    parser.add_argument("--size", type=int, default=400)
    parser.add_argument("--attacks", nargs="+", default=ATTACKS)
    parser.add_argument("--picture", type=Path, help="of the last: unmarked, marked, the difference, what is drawn")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    rows = Rows(arguments.results)
    for run in arguments.runs:
        measure(rows, Run.open(run), arguments)
    if arguments.table:
        table(rows.each)


if __name__ == "__main__":
    main()
