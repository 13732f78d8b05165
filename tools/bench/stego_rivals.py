"""Other ways to sign a scene, in the harness of `nerfkit stego-bench`: what comes back of their bits.

    python tools/bench/stego_rivals.py RESULTS.jsonl --run RUN --scene SCENE --ways renders [--messages 3] [--views 12]
    python tools/bench/stego_rivals.py RESULTS.jsonl --table

``--ways`` is one or more of

- ``renders``: each render is marked after it was rendered, by RivaGAN (Zhang et al. 2019; 32 bits) and by DWT-DCT-SVD
  (48 bits), both as the package invisible-watermark has them. The scene itself carries nothing;
- ``photographs``: photographs are so marked, with one message, and the scene is trained on them for ``--steps``.

Renders are of held-out cameras, 8-bit, attacked and each read alone. Bits are raw, as none of these ways mends any. One
JSON line for each scene, way, message and attack is appended to RESULTS.jsonl; what stands there already is not run
again.

Both take ``pip install invisible-watermark onnxruntime PyWavelets``.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from record import Rows, record

from nerfkit.assess import backdrop, scene_of, truth
from nerfkit.render import Model, load_model
from nerfkit.run import Run
from nerfkit.scene.scene import Scene
from nerfkit.stego.attacks import attacked
from nerfkit.stego.cost import Picture, against_photographs, as_bytes, picture_of, psnr, worst_psnr
from nerfkit.stego.views import views_between
from nerfkit.train.loop import fit, model_of

NONE = "none"
ATTACKS = (
    NONE,
    "noise:0.05",
    "jpeg:50",
    "jpeg:10",
    "crop:0.4",
    "rotate:30",
    "resize:0.5",
    "brightness:1.5",
    "noise:0.05+crop:0.7+jpeg:50",
)
Bits = np.ndarray
"""Booleans (n,)."""
Reader = Callable[[Picture], Bits]


@dataclass(frozen=True)
class Stamp:
    """A mark of single pictures."""

    n_bits: int
    mark: Callable[[Picture, Bits], Picture]
    read: Reader


def _turned(picture: Picture) -> Picture:
    """RGB to BGR, or back: the package expects the latter."""
    return np.ascontiguousarray(picture[..., ::-1])


def rivagan() -> Stamp:
    """RivaGAN with the package's weights. Pictures below 256x256, which its front door refuses, are read as well."""
    from imwatermark.rivaGan import RivaWatermark

    RivaWatermark.loadModel()
    return Stamp(
        32,
        lambda picture, bits: _turned(RivaWatermark(bits.astype(int).tolist(), 32).encode(_turned(picture))),
        lambda picture: RivaWatermark([], 32).decode(_turned(picture)).astype(bool),
    )


def dwt_dct_svd(n: int = 48) -> Stamp:
    """The package's classical mark of the strength that it comes with."""
    from imwatermark.dwtDctSvd import EmbedDwtDctSvd

    return Stamp(
        n,
        lambda picture, bits: _turned(EmbedDwtDctSvd(bits.astype(int).tolist(), n).encode(_turned(picture))),
        lambda picture: EmbedDwtDctSvd([], n).decode(_turned(picture)),
    )


STAMPS: dict[str, Callable[[], Stamp]] = {"rivagan": rivagan, "dwt-dct-svd": dwt_dct_svd}


def message_of(seed: int, n: int) -> Bits:
    """Bits by chance."""
    return np.random.default_rng(seed).integers(0, 2, n).astype(bool)


def apart(marked: list[Picture], plain: list[Picture]) -> dict[str, float]:
    """How far marked pictures are from unmarked ones, dB."""
    pairs = list(zip(marked, plain, strict=True))
    return {"psnr": round(psnr(pairs), 2), "worst_psnr": round(worst_psnr(pairs), 2)}


@dataclass(frozen=True)
class Bench:
    """A scene's run, what was asked, and where figures go."""

    rows: Rows
    run: Run
    scene: Scene
    asked: argparse.Namespace

    def of(self, way: str, rival: str, message: int = 0, **settings: Any) -> dict[str, Any]:
        """What a row says of what it measures."""
        return {"scene": self.scene.name, "way": way, "rival": rival, "message": message, **settings}

    def missing(self, row: dict[str, Any]) -> list[str]:
        """Attacks of which there is no row yet."""
        return [by for by in ATTACKS if not self.rows.has({**row, "attack": by})]

    def tell(self, row: dict[str, Any], read: Reader, pictures: Sequence[Picture], bits: Bits, cost: dict) -> None:
        """Measure what is missing: shares of bits that are right, and of pictures of which all are."""
        for by in self.missing(row):
            after = [one if by == NONE else attacked(one, by, i) for i, one in enumerate(pictures)]
            right = [float((read(one) == bits).mean()) for one in after]
            found = {"raw": fmean(right), "exact": fmean(share == 1.0 for share in right)}
            self.rows.add(record("stego_rivals", **row, attack=by, n_bits=len(bits), n=len(right), **cost, **found))

    def renders(self, model: Model, size: int) -> list[Picture]:
        """Pictures from held-out cameras."""
        cameras = views_between(self.scene, self.asked.views, size, 0)
        return [picture_of(model, cameras, view, backdrop(self.scene)) for view in range(len(cameras))]


def on_renders(bench: Bench) -> None:
    """Renders that are marked one by one."""
    plain: list[Picture] = []
    for m in range(bench.asked.messages):
        for name in bench.asked.stamps:
            row = bench.of("renders", name, m, size=bench.asked.size)
            if bench.missing(row):
                plain = plain or bench.renders(load_model(bench.run), bench.asked.size)
                stamp = STAMPS[name]()
                bits = message_of(m, stamp.n_bits)
                marked = [stamp.mark(one, bits) for one in plain]
                bench.tell(row, stamp.read, marked, bits, apart(marked, plain))


def on_photographs(bench: Bench) -> None:
    """A scene that is trained on marked photographs; and one on unmarked ones, for what that costs."""
    background, scene = backdrop(bench.scene), bench.scene
    config = dataclasses.replace(bench.run.config, train=dataclasses.replace(bench.run.config.train, time_budget=0.0))
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=bench.asked.steps))
    for name in bench.asked.stamps:
        row = bench.of("photographs", name, size=bench.asked.size, steps=bench.asked.steps)
        if not bench.missing(row):
            continue
        stamp, images = STAMPS[name](), list(scene.images)
        bits = message_of(0, stamp.n_bits)
        train = scene.splits["train"]
        for view in train:
            images[view] = stamp.mark(as_bytes(truth(scene, view, background)), bits)
        heard = fmean(float((stamp.read(images[view]) == bits).mean()) for view in train[::8])
        model = model_of(scene, config)
        for _ in fit(dataclasses.replace(scene, images=images, background=background), config, model=model):
            pass
        known = [picture_of(model, scene.cameras, view, background) for view in train[::8]]
        at_training = fmean(float((stamp.read(one) == bits).mean()) for one in known)
        cost = {"photographs_raw": heard, "at_training_cameras": at_training}
        cost["photo_psnr"] = against_photographs(model, scene, background)
        cost["unmarked_photo_psnr"] = against_photographs(load_model(bench.run), scene, background)
        bench.tell(row, stamp.read, bench.renders(model, bench.asked.size), bits, cost)


WAYS = {"renders": on_renders, "photographs": on_photographs}


def table(rows: list[dict[str, Any]]) -> None:
    """Print rows, all messages together."""
    print("| scene | way | rival | dB | attack | raw bits | wholly right |\n|---|---|---|---|---|---|---|")
    for key in dict.fromkeys((row["scene"], row["way"], row["rival"], row["attack"]) for row in rows):
        some = [row for row in rows if (row["scene"], row["way"], row["rival"], row["attack"]) == key]
        raw, n = fmean(row["raw"] for row in some), sum(row["n"] for row in some)
        exact = round(sum(row["exact"] * row["n"] for row in some))
        decibels = f"{fmean(row['psnr'] for row in some):.1f}" if "psnr" in some[0] else "-"
        scene, way, rival, by = key
        print(f"| {scene} | {way} | {rival} | {decibels} | `{by}` | {100 * raw:.1f} % | {exact} of {n} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--scene", type=Path)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[])
    parser.add_argument("--stamps", nargs="+", choices=STAMPS, default=list(STAMPS))
    parser.add_argument("--messages", type=int, default=3)
    parser.add_argument("--views", type=int, default=12)
    parser.add_argument("--size", type=int, default=400)
    parser.add_argument("--steps", type=int, default=1500, help="of training on marked photographs")
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    rows = Rows(asked.results)
    if asked.ways:
        run = Run.open(asked.run)
        bench = Bench(rows, run, scene_of(run, asked.scene), asked)
        for way in asked.ways:
            WAYS[way](bench)
    if asked.table:
        table(rows.each)


if __name__ == "__main__":
    main()
