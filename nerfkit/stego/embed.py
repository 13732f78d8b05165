"""Mark a run: a copy of it whose every render carries a message, as strong as one says and as it must be to be read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from nerfkit.assess import backdrop
from nerfkit.cameras import Cameras
from nerfkit.render import Model, load_model, render_image
from nerfkit.run import Run
from nerfkit.scene.scene import Scene
from nerfkit.stego.carriers import calibrate
from nerfkit.stego.cost import Picture, against_photographs, picture_of, psnr, worst_psnr
from nerfkit.stego.extract import RATE, fused, hear
from nerfkit.stego.keys import Key, StegoError
from nerfkit.stego.landmarks import look_for_landmarks
from nerfkit.stego.mark import Mark, Terms, marked_digest, read_mark, write_mark
from nerfkit.stego.message import FORMATS, Letter
from nerfkit.stego.reading import N_LOOKS
from nerfkit.stego.recipients import Addresses
from nerfkit.stego.record import FILE, alone
from nerfkit.stego.views import views_between
from nerfkit.stego.weights import moves, swings

PROFILES = {"invisible": 52.0, "balanced": 42.0, "robust": 38.0}
"""PSNR of marked against unmarked renders, at least, dB."""
DEFAULT = "balanced"
LOST = {"invisible": 0.05, "balanced": 0.1, "robust": 0.4}
"""What it costs of the PSNR against held-out photographs, at most, dB."""
_WORST = 1.5
"""How far below the profile's PSNR, or the one asked for, the worst of the views that are measured may be, dB: by the
profile of 42 dB every view is to have 40, and half a decibel is left for views that nobody measured."""
_VIEWS = 8
"""Views in which strength is measured, and read back."""
_SIDE = 512
_SPARSE = 0.5
"""Of these the share of rows and columns on which strength is measured: the same rays, fewer."""
_BETWEEN, _ACROSS, _SEED = 64, 128, 5
"""How many views between the training cameras it is measured in as well, pixels across these, and the seed by which
they are drawn: among a few, the worst of all is not yet, and few rays tell what a view loses."""
_ROUNDS, _WITHIN = 5, 0.05
"""Looks for the strength, at most, and by how much it may be off, dB."""


@dataclass(frozen=True)
class Embedded:
    """What came of it."""

    table: Float[Tensor, "entries features"]
    """Of the copy."""
    n_read: int
    """Of ``n_tried`` views, those that alone tell what the copy carries."""
    n_tried: int


def prepared(
    run: Run, scene_fn: Callable[[], Scene], profile: str | None, target: float | None, n_bits: int
) -> tuple[Model, Mark]:
    """The model of a run and its mark: that which it keeps, or a new one, which it keeps once a message was read.

    Args:
        scene_fn: reads the scene; asked for a new mark alone.
        profile: one of `PROFILES`; None: that by which the run is marked, or the default.
        target: PSNR of marked against unmarked renders, dB, in place of the profile's.
        n_bits: of messages, one of `FORMATS`.

    Raises StegoError for a run that cannot be marked, or other terms than those it was marked by.
    """
    model = markable(run)
    mark = read_mark(run, model)
    if mark is None:
        mark = _made(run, model, scene_fn(), profile or DEFAULT, target, n_bits)
        return model, mark
    if n_bits != mark.terms.n_bits:
        raise StegoError(f"{run.path}: is marked with messages of {mark.terms.n_bits} bits, not {n_bits}")
    asked = mark.terms.psnr if mark.terms.target is None else mark.terms.target
    if target is not None and abs(target - asked) > 1.0:
        raise StegoError(
            f"{run.path}: is marked for {asked:.1f} dB, not {target:.1f}; remove its folder mark to begin anew"
        )
    if target is None and profile not in (None, mark.terms.profile):
        by = f"by the profile {mark.terms.profile}" if mark.terms.profile else f"at {mark.terms.psnr:.1f} dB"
        raise StegoError(f"{run.path}: is marked {by}, not by {profile}; remove its folder mark to begin anew")
    return model, mark


def markable(run: Run) -> Model:
    """The model of a run that can be marked. Raises StegoError for one that cannot."""
    if run.config.train.tiles:
        raise StegoError(f"{run.path}: is in tiles; mark one of them, such as {run.path}/tiles/1")
    if run.config.field.head != "none":
        raise StegoError(f"{run.path}: has a convolutional head, behind which a mark cannot be read; train without")
    return load_model(run)


def target_of(profile: str, photographed: float | None) -> float:
    """PSNR of marked against unmarked renders that a profile asks for, dB, where that against photographs is known.

    What is added to an error that knows nothing of it adds up in squares: to lose L dB, 10^(L/10) - 1 of the error is
    added, which for 0.1 dB lies 16.3 dB below it.
    """
    least = PROFILES[profile]
    below = -10.0 * math.log10(10.0 ** (LOST[profile] / 10.0) - 1.0)
    return least if photographed is None else max(least, photographed + below)


def write_copy(run: Run, changed: dict[str, Tensor], out: Path, command: list[str]) -> Run:
    """A marked copy of a run: the same but for some tensors of its field."""
    checkpoint, scene = run.load_checkpoint(), run.provenance["scene"]
    root = Path(scene["absolute"])
    made = Run.create(out, run.config, root, scene["name"], run.frame, scene["fingerprint"], run.splits, command)
    made.note({"marked": True})
    field = {**checkpoint.field, **changed}
    made.save_checkpoint(checkpoint.step, field, checkpoint.sampler, checkpoint.optimizer, checkpoint.state)
    return made


def embed(run: Run, model: Model, mark: Mark, letter: Letter | Addresses, content: bytes | str) -> Embedded:
    """The table of a marked copy of a run, after what it carries was read from its renders. The run keeps the mark.

    Args:
        content: a message of a letter, or a recipient of addresses.

    Raises StegoError where it cannot be read back; nothing is kept then.
    """
    with moved(model, mark, letter, content):
        pictures = _pictures(model, mark.views, mark.terms.background)
        table = model.field.table.detach().cpu().clone()
    rate = RATE / N_LOOKS
    heard = [one for one in (hear(model, mark, picture) for picture in pictures) if one is not None]
    n_read = sum(letter.tells(fused(mark, letter, [one]), content, rate) for one in heard)
    if not heard or not letter.tells(fused(mark, letter, heard), content, rate):
        raise StegoError(
            f"{run.path}: at {mark.terms.psnr:.1f} dB the mark does not read back from {len(pictures)} renders, "
            f"{len(heard)} of which are found in the scene; nothing was written, try --target-psnr "
            f"{mark.terms.psnr - 4:.0f}"
        )
    with alone(run.path / FILE):
        kept = read_mark(run, model)
        if kept is None:
            write_mark(run, mark)
        elif kept.terms != mark.terms:
            raise StegoError(f"{run.path}: was marked otherwise meanwhile; nothing was written, say it once more")
    return Embedded(table, n_read, len(pictures))


def with_mark(run: Run, scene: Scene) -> Scene:
    """A run's scene as it is to learn on from: of a marked run, with its own renders in place of the photographs.

    Those carry the mark, which the photographs lack: what learnt from them would forget it.
    """
    return shown_by(load_model(run), scene) if run.provenance.get("marked") else scene


def shown_by(model: Model, scene: Scene) -> Scene:
    """A scene of what a model shows its training cameras, in place of the photographs."""
    images = list(scene.images)
    behind = "black" if scene.has_alpha else backdrop(scene)
    for view in scene.splits["train"]:
        seen = render_image(model, scene.cameras, view, behind)
        if scene.has_alpha:  # straight colours, as those of the photographs
            rgb = seen.rgb / seen.opacity.clamp_min(1e-3)[..., None]
            seen_as = torch.cat([rgb, seen.opacity[..., None]], -1)
        else:
            seen_as = seen.rgb
        images[view] = (seen_as.clamp(0, 1) * 255).round().byte().numpy()
    return replace(scene, images=images)


def _made(run: Run, model: Model, scene: Scene, profile: str, target: float | None, n_bits: int) -> Mark:
    """A new mark of a run."""
    background, train = backdrop(scene), scene.splits["train"]
    carriers = calibrate(model, scene.cameras, train)
    landmarks = look_for_landmarks(model, scene.cameras, train, background)
    held_out = scene.splits["test"] or scene.splits["val"]
    unseen = held_out if len(held_out) >= _VIEWS // 2 else train
    views = unseen[:: -(-len(unseen) // _VIEWS)]
    cameras = replace(scene.cameras[views], distortion=torch.zeros(len(views), 8), lens="pinhole")
    cameras = cameras.scaled(min(1.0, _SIDE / max(int(cameras.width.max()), int(cameras.height.max()))))
    by = profile if target is None else None
    terms = Terms(marked_digest(model, carriers), n_bits, 0.0, background, 0.0, 0.0, None, by, target)
    mark = Mark(terms, carriers, landmarks, cameras)
    photographed = against_photographs(model, scene, background)
    between = views_between(scene, _BETWEEN, _ACROSS, _SEED)
    mean, worst = (target_of(profile, photographed), PROFILES[profile]) if target is None else (target, target)
    mark = _as_strong(model, mark, between, mean, worst - _WORST)
    return mark if photographed is None else _as_cheap(model, mark, scene, photographed, LOST[by] if by else None)


def _as_strong(model: Model, mark: Mark, between: Cameras, least: float, least_worst: float) -> Mark:
    """The mark with the most strength at which renders are this far from unmarked ones, and the worst so far, dB.

    Args:
        between: views beside the mark's own, nearer ones, too: what fills more of a picture shows more of the mark.
    """
    views, background = (mark.views.scaled(_SPARSE), between), mark.terms.background
    plain = [picture for some in views for picture in _pictures(model, some, background)]
    strength = 10.0 ** (-least / 20.0)
    for _ in range(_ROUNDS):
        mark = replace(mark, terms=replace(mark.terms, strength=strength))
        with moved(model, mark, *_anyone(mark.terms.n_bits)):
            marked = [picture for some in views for picture in _pictures(model, some, background)]
        pairs = list(zip(marked, plain, strict=True))
        mean, worst = psnr(pairs), worst_psnr(pairs)
        mark = replace(mark, terms=replace(mark.terms, psnr=mean, worst_psnr=worst))
        short = max(least - mean, least_worst - worst)
        if abs(short) < _WITHIN:
            break
        strength *= 10.0 ** (-short / 20.0)
    return mark


def _as_cheap(model: Model, mark: Mark, scene: Scene, photographed: float, most: float | None) -> Mark:
    """The mark, weaker if it takes more than so much of the PSNR against photographs, dB; and what it takes."""
    for _ in range(_ROUNDS):
        with moved(model, mark, *_anyone(mark.terms.n_bits)):
            lost = photographed - against_photographs(model, scene, mark.terms.background)
        mark = replace(mark, terms=replace(mark.terms, photo_loss=lost))
        if most is None or lost <= most:
            break
        mark = mark.scaled(0.99 * math.sqrt(most / lost))  # what is lost grows with the square of the strength
    return mark


def _anyone(n_bits: int) -> tuple[Letter, bytes]:
    """A letter of nobody's, to see what a mark costs: which word it is makes no difference."""
    return Letter(Key(bytes(32)).of_scene("nobody"), FORMATS[n_bits]), bytes(n_bits // 8)


@contextmanager
def moved(model: Model, mark: Mark, letter: Letter | Addresses, content: bytes | str) -> Iterator[None]:
    """The model with both marks in it, for as long as the block lasts."""
    table, strength = model.field.table, mark.terms.strength
    with torch.no_grad():
        original = table.clone()
        table += strength * moves(swings(table, model.field.grid.layout, mark.carriers), letter, content)
        table[mark.carriers.entries] += strength * mark.carriers.moves(letter.secret, letter.write(content))
    try:
        yield
    finally:
        with torch.no_grad():
            table.copy_(original)


def _pictures(model: Model, views: Cameras, background: str) -> list[Picture]:
    """What views show."""
    return [picture_of(model, views, view, background) for view in range(len(views))]
