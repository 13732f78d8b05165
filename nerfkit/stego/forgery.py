"""What somebody without the key may do who has marked pictures, or a marked copy: forge, and mark over the mark.

Forging: what marked pictures have in common beyond their scene is pasted on pictures that the owner never marked, as
strongly as marks are. A forger who has an unmarked twin of each picture (nobody but the owner should) takes the
differences, others take what a denoiser takes away. The mark lies on surfaces, and their mean is no mark: what is
measured is how often it passes for one. A residual pasted on the same view of the scene is no forgery of that kind: it
is the mark itself, taken from one picture and laid on another of the same things, and is a row of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import Float

from nerfkit.stego.attacks import Picture
from nerfkit.stego.carriers import calibrate
from nerfkit.stego.cost import psnr
from nerfkit.stego.keys import StegoError
from nerfkit.stego.mark import marked_digest
from nerfkit.stego.plan import Plan
from nerfkit.stego.protocol import Bench, Missing, Row, key, strength
from nerfkit.stego.views import views_between

_STRENGTH = 3.0
"""Of the denoiser: what is fainter than a few of 255 steps goes."""
OTHERS, SAME = "other views", "same views"


def forgery_rows(bench: Bench, plan: Plan, missing: Missing, other: Bench | None = None) -> Iterator[Row]:
    """Forged pictures read by the owner: of other views, of the same views, and of the ``other`` scene."""
    what = {"size": plan.size, "views": plan.views, "strength": strength(bench.mark), "pictures": plan.forged_from}
    targets = {OTHERS: bench, SAME: bench} | ({} if other is None else {other.run.path.name: other})
    left = [
        (by, onto)
        for onto in targets
        for by in ("difference", "denoiser")
        if (by, onto) != ("difference", SAME) and missing({**what, "by": by, "onto": onto})
    ]
    if not left:
        return
    cameras = views_between(bench.scene, plan.forged_from, plan.size, 1)
    with bench.marked(key(0), bench.message(0)):
        marked, seen = bench.renders(cameras=cameras), bench.renders()
    plain = bench.renders()
    twins = {"difference": bench.renders(cameras=cameras), "denoiser": [denoised(one) for one in marked]}
    target = psnr(list(zip(seen, plain, strict=True)))
    for by, onto in left:
        owner = targets[onto]
        if onto == SAME:
            residuals = [one.astype(np.float64) - denoised(one) for one in seen]
        else:
            residuals = [residual(marked, twins[by])] * plan.views
        onto_pictures = plain if owner is bench else owner.renders()
        forged = [pasted(one, left_over, target) for one, left_over in zip(onto_pictures, residuals, strict=False)]
        read = owner.reading(owner.heard(forged), owner.letter(key(0)), owner.message(0))
        yield {
            **what,
            "by": by,
            "onto": onto,
            "forged_psnr": psnr(list(zip(forged, onto_pictures, strict=False))),
            **read,
        }


def denoised(picture: Picture) -> Picture:
    """A picture without what is faint and fine (non-local means, Buades et al. 2005)."""
    return cv2.fastNlMeansDenoisingColored(picture, None, _STRENGTH, _STRENGTH)


def residual(pictures: Sequence[Picture], twins: Sequence[Picture]) -> Float[np.ndarray, "h w 3"]:
    """What pictures have beyond their twins, in the mean, of 255 steps."""
    return np.mean([a.astype(np.float64) - b for a, b in zip(pictures, twins, strict=True)], axis=0)


def pasted(picture: Picture, added: Float[np.ndarray, "h w 3"], target: float) -> Picture:
    """A picture with something added, so strongly that before rounding it is ``target`` dB from what it was."""
    added = cv2.resize(added, (picture.shape[1], picture.shape[0]), interpolation=cv2.INTER_LINEAR)
    size = np.sqrt(np.square(added / 255.0).mean())
    scaled = added * (10.0 ** (-target / 20.0) / max(size, 1e-12))
    return (picture + scaled).clip(0.0, 255.0).round().astype(np.uint8)


def overwrite_rows(bench: Bench, plan: Plan, missing: Missing) -> Iterator[Row]:
    """A marked copy marked once more, with another key, carriers looked for anew and the same strength: what the first
    owner reads of it, and what its numbers say."""
    what = {"size": plan.size, "views": plan.views, "strength": strength(bench.mark)}
    train, model = bench.scene.splits["train"], bench.model
    for k in range(plan.keys):
        if not missing({**what, "key": k}):
            continue
        letter, message = bench.letter(key(k)), bench.message(k)
        plain = bench.renders()
        with bench.marked(key(k), message):
            try:
                theirs = replace(bench.mark, carriers=calibrate(model, bench.scene.cameras, train))
            except StegoError:
                continue
            theirs = replace(theirs, terms=replace(theirs.terms, scene=marked_digest(model, theirs.carriers)))
            second = replace(bench, mark=theirs)
            with second.marked(key(1000 + k), bench.message(1000 + k)):
                pictures, suspect = bench.renders(), model.field.table.detach().clone()
        read = bench.reading(bench.heard(pictures), letter, message)
        read["inspected"] = bench.inspects(suspect, letter) == message
        yield {**what, "key": k, "psnr": psnr(list(zip(pictures, plain, strict=True))), **read}
