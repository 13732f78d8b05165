"""Whether messages come back: renders of marked copies from held-out cameras, attacked as pictures are, and read.

    python tools/bench/signing.py RESULTS.jsonl RUN... [--scene FOLDER] [--keys 3] [--messages 3] [--views 12]
                                  [--size 400] [--attacks none jpeg:50 ...] [--profile balanced]
    python tools/bench/signing.py RESULTS.jsonl --table

Views lie between the training cameras and, about an object, 0.75 to 1.5 times as far from it; none of them was seen in
training or marking. Each is rendered with and without the mark, kept as 8-bit picture, attacked and read alone, and
with three and seven others. One JSON line for each run, key, message and attack is appended to RESULTS.jsonl; what
stands there already is not run again. The mark is that which the run keeps, or a new one.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from record import Rows, record
from scipy.spatial.transform import Rotation, Slerp
from scipy.stats import beta

from nerfkit.assess import scene_of
from nerfkit.cameras import Cameras
from nerfkit.render import Model, render_image
from nerfkit.run import Run
from nerfkit.scene.scene import Scene
from nerfkit.stego.attacks import attacked
from nerfkit.stego.embed import moved, prepared
from nerfkit.stego.extract import fused, hear
from nerfkit.stego.keys import Key
from nerfkit.stego.mark import Mark
from nerfkit.stego.message import FORMATS, Letter

NONE = "none"
ATTACKS = (
    NONE,
    "noise:0.01",
    "noise:0.05",
    "noise:0.1",
    "blur:0.8",
    "blur:1.5",
    "jpeg:50",
    "jpeg:10",
    "rotate:30",
    "crop:0.8",
    "crop:0.4",
    "resize:0.5",
    "resize:0.75",
    "brightness:0.5",
    "brightness:1.5",
    "contrast:0.5",
    "contrast:1.5",
    "noise:0.05+crop:0.7+jpeg:50",
)
"""What happens to pictures, of strengths from mild to brutal; see `nerfkit.stego.attacks`."""


def held_out(scene: Scene, n: int, size: int, seed: int) -> Cameras:
    """Pinholes between training cameras; about an object, nearer and further."""
    chance, train = np.random.default_rng(seed), scene.splits["train"]
    poses = scene.cameras.c2w[train].double().numpy()
    focal = float((scene.cameras.fl_x[train] / scene.cameras.width[train]).median())
    aspect = float((scene.cameras.height[train] / scene.cameras.width[train]).median())
    center, found = np.array(scene.frame.center), []
    for _ in range(n):
        first = int(chance.integers(len(poses)))
        near = np.argsort(np.linalg.norm(poses[:, :, 3] - poses[first, :, 3], axis=1))[1:4]
        second, share = int(chance.choice(near)), chance.uniform(0.2, 0.8)
        turn = Slerp([0, 1], Rotation.from_matrix(poses[[first, second], :, :3]))(share).as_matrix()
        place = (1 - share) * poses[first, :, 3] + share * poses[second, :, 3]
        if scene.frame.n_levels == 1:
            place = center + (place - center) * chance.uniform(0.75, 1.5)
        found.append(np.concatenate([turn, place[:, None]], 1))
    c2w = torch.from_numpy(np.stack(found)).float()
    return Cameras.pinhole(c2w, focal * size, size, round(aspect * size))


def rendered(model: Model, cameras: Cameras, background: str) -> list[np.ndarray]:
    each = (render_image(model, cameras, view, background).rgb for view in range(len(cameras)))
    return [(rgb.clamp(0, 1) * 255).round().byte().numpy() for rgb in each]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(max(np.square(a / 255.0 - b / 255.0).mean(), 1e-10)))


def groups(n: int, k: int) -> list[list[int]]:
    """n things in groups of k."""
    return [list(range(i, i + k)) for i in range(0, n - k + 1, k)]


def read_all(mark: Mark, letter: Letter, heard: list[Any], message: bytes, k: int) -> list[bool]:
    """Whether the message comes back of each group of k pictures."""
    out = []
    for group in groups(len(heard), k):
        shown = [heard[i] for i in group if heard[i] is not None]
        reading = letter.read(fused(mark, letter, shown)) if shown else None
        out.append(reading is not None and reading.message == message and reading.p_value <= 1e-6)
    return out


def measure(rows: Rows, run: Run, arguments: argparse.Namespace) -> None:
    """All keys, messages and attacks of one run."""
    scene = scene_of(run, arguments.scene)
    model, mark = prepared(run, lambda: scene, arguments.profile, None, 48)
    cameras = held_out(scene, arguments.views, arguments.size, 0)
    plain = rendered(model, cameras, mark.terms.background)
    for k in range(arguments.keys):
        for m in range(arguments.messages):
            letter = Letter(Key(bytes([k]) * 32).of_scene(mark.terms.scene), FORMATS[48])
            message = np.random.default_rng(m).bytes(6)
            row = {"run": run.path.name, "size": arguments.size, "views": arguments.views, "key": k, "message": m}
            row |= {"profile": arguments.profile, "target": round(mark.terms.psnr, 2)}
            missing = [by for by in arguments.attacks if not rows.has({**row, "attack": by})]
            if not missing:
                continue
            with moved(model, mark, letter, message):
                marked = rendered(model, cameras, mark.terms.background)
            apart = [psnr(a, b) for a, b in zip(marked, plain, strict=True)]
            for by in missing:
                pictures = [one if by == NONE else attacked(one, by, i) for i, one in enumerate(marked)]
                began = time.perf_counter()
                heard = [hear(model, mark, picture) for picture in pictures]
                seconds = (time.perf_counter() - began) / len(heard)
                right = [letter.verify(fused(mark, letter, [one]), message)[0] for one in heard if one is not None]
                found: dict[str, Any] = {
                    "psnr": fmean(apart),
                    "worst_psnr": min(apart),
                    "photo_loss": mark.terms.photo_loss,
                    "found": len(right),
                    "raw": fmean(right) / 127 if right else None,
                    "seconds": seconds,
                }
                for n in (1, 4, 8):
                    found[f"exact_{n}"] = read_all(mark, letter, heard, message, n)
                rows.add(record("signing", **row, attack=by, **found))


def interval(good: int, n: int) -> str:
    """Clopper and Pearson's, 95 %."""
    low = 0.0 if good == 0 else beta.ppf(0.025, good, n - good + 1)
    return f"{100 * good / n:.1f} % (>= {100 * low:.1f})"


def table(rows: list[dict[str, Any]]) -> None:
    """Print rows, all keys and messages together."""
    print("| run | attack | found | raw bits | exact from 1 | from 4 | from 8 |\n|---|---|---|---|---|---|---|")
    for name in dict.fromkeys(row["run"] for row in rows):
        for by in dict.fromkeys(row["attack"] for row in rows):
            some = [row for row in rows if row["run"] == name and row["attack"] == by]
            if not some:
                continue
            n_seen, n = sum(row["found"] for row in some), sum(row["views"] for row in some)
            raw = sum(row["raw"] * row["found"] for row in some if row["found"]) / max(n_seen, 1)
            exact = []
            for k in (1, 4, 8):
                each = [good for row in some for good in row[f"exact_{k}"]]
                exact.append(interval(sum(each), len(each)) if each else "-")
            print(f"| {name} | {by} | {n_seen} of {n} | {100 * raw:.2f} % | {' | '.join(exact)} |")
        some = [row for row in rows if row["run"] == name]
        print(f"{name}: {fmean(r['psnr'] for r in some):.2f} dB, worst view {min(r['worst_psnr'] for r in some):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("runs", type=Path, nargs="*")
    parser.add_argument("--scene", type=Path)
    parser.add_argument("--keys", type=int, default=3)
    parser.add_argument("--messages", type=int, default=3)
    parser.add_argument("--views", type=int, default=12)
    parser.add_argument("--size", type=int, default=400)
    parser.add_argument("--attacks", nargs="+", default=ATTACKS)
    parser.add_argument("--profile", default="balanced")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    rows = Rows(arguments.results)
    for run in arguments.runs:
        measure(rows, Run.open(run), arguments)
    if arguments.table:
        table(rows.each)


if __name__ == "__main__":
    main()
