"""What each part of `nerfkit lift` is worth: objects whose shape is known, lifted without it, or with one more.

    python tools/bench/lifting.py OBJECTS [--parts NAME ...] [--every 3] [--steps 400] [--perceptual vgg.safetensors]

OBJECTS are made by tools/lift_prior/make_bench.py; look at the part validation, the test is for the end. A JSON line a
part and object: PSNR and outline of every fourth view of the ring, and of the picture itself.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from record import record

from nerfkit.lift.bench import Object, objects_in, rows_of, scored
from nerfkit.lift.distances import distance_of
from nerfkit.lift.framing import Framing
from nerfkit.lift.guide import Depth, Regular, Term
from nerfkit.lift.measure import c2w_of, learnt, model_picture
from nerfkit.lift.photo import Rgba
from nerfkit.lift.prior import Lifted
from nerfkit.lift.settings import CONFIG, Sizes
from nerfkit.lift.understand import WEIGHTS, load_prior, understood
from nerfkit.provenance import digest
from nerfkit.render import Model

Terms = Callable[[Framing, Lifted], list[Term]]


@dataclass(frozen=True)
class Part:
    """What is done otherwise."""

    understand: dict[str, Any] = dataclasses.field(default_factory=dict)
    train: dict[str, Any] = dataclasses.field(default_factory=dict)
    field: dict[str, int] = dataclasses.field(default_factory=dict)
    sizes: Sizes = Sizes()
    warm: bool = True
    terms: Terms = lambda photo, made: []


def _depth(kind: str, weight: float) -> Terms:
    return lambda photo, made: [Depth.of(photo, made.depth[0] + photo.radius, weight, kind)]


def _regular(**weights: float) -> Terms:
    return lambda photo, made: [Regular(**weights)]


PARTS = {
    "as it is": Part(),
    "fog left as it is": Part({"contrast": 1.0, "threshold": 0.5}),
    "fog more decided": Part({"contrast": 2.0, "threshold": 0.21}),
    "no mirror image": Part({"mirrored": False}),
    "no warm grid": Part(warm=False),
    "no distortion": Part(train={"distortion": 0.0}),
    "photo at 128": Part(sizes=Sizes(photo=(128, 128))),
    "photo at 512": Part(sizes=Sizes(photo=(512, 512))),
    "photo at 768": Part(sizes=Sizes(photo=(768, 768))),
    "views at 96": Part(sizes=Sizes(asked=96)),
    "coarser field": Part(field={"log2_table_size": 15, "finest_resolution": 256}),
    "ranking of depths": Part(terms=_depth("ranking", 0.05)),
    "pearson depths": Part(terms=_depth("pearson", 0.01)),
    "scale-shift depths": Part(terms=_depth("scale-shift", 0.1)),
    "opacity": Part(terms=_regular(opacity=0.003)),
    "orientation": Part(terms=_regular(orientation=0.01)),
    "smoothness": Part(terms=_regular(smoothness=0.01)),
}


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("objects", type=Path)
    parser.add_argument("--parts", nargs="+", default=[*PARTS], choices=PARTS)
    parser.add_argument("--every", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--prior", type=Path, default=WEIGHTS)
    parser.add_argument("--perceptual", type=Path)
    a = parser.parse_args()
    net, more = load_prior(a.prior), distance_of(a.perceptual, None)
    for name in a.parts:
        for one in objects_in(a.objects)[:: a.every]:
            photo = Framing(one.picture(), one.input.elevation, one.input.fov, one.input.radius)
            part, started = PARTS[name], time.perf_counter()
            made = understood(net, photo, **part.understand)
            config = replace(CONFIG, train=replace(CONFIG.train, steps=a.steps, **part.train))
            config = replace(config, field=replace(CONFIG.field, **part.field))
            model = learnt(photo, made, part.sizes, config, part.terms(photo, made), part.warm)
            seconds = time.perf_counter() - started

            def answer(one: Object, view: int, model: Model = model) -> Rgba:
                return model_picture(model, c2w_of(one.views[view]), one.views[view].fov, one.truth(view).shape[0])

            found = rows_of(one, answer, one.ring[1::4], more)
            mine = model_picture(model, c2w_of(one.input), one.input.fov, one.picture().shape[0])
            mine = scored(mine, one.picture())
            found |= {"photo_psnr": mine["psnr"], "photo_iou": mine["iou"], "seconds": seconds}
            record("lifting", part=name, object=one.name, steps=a.steps, weights=digest(a.prior.read_bytes()), **found)


if __name__ == "__main__":
    main()
