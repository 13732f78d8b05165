"""Pictures and small files that renders show through a decoder: how they are put into a run, kept and read.

    hidden/<digest>.sealed    decoder, word and what else reading takes, sealed by the key of its owner

One such file lies with the run for each payload. It and the key suffice to read renders; the marked copy holds neither.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor

from nerfkit.aside import file_aside
from nerfkit.assess import backdrop, truth
from nerfkit.cameras import Cameras
from nerfkit.evaluate import ssim
from nerfkit.provenance import digest
from nerfkit.render import Model
from nerfkit.run import Run
from nerfkit.scene.scene import Scene
from nerfkit.stego import embed
from nerfkit.stego.copies import Copy
from nerfkit.stego.cost import Picture, against_photographs, as_bytes, picture_of, psnr, worst_psnr
from nerfkit.stego.decoder import N_SIGNS, SIDE, Decoder, as_seen
from nerfkit.stego.hide import Lesson, Plan, hide, learn_to_draw
from nerfkit.stego.keys import Key, Secret, StegoError
from nerfkit.stego.mark import scene_digest
from nerfkit.stego.payload import Payload
from nerfkit.stego.views import views_between

SCHEMA = 1
"""Version of the sealed file."""
N_CHECKED = 16
"""Views in which it is read back, and cost is measured."""
_FOLDER, _PURPOSE = "hidden", "hidden picture"
_N_VIEWS = 150
"""Views that it learns from, others."""
_LEAST = 28
"""Signs that have to agree."""
_NEARER = 2.0
"""dB by which renders stay nearer to unmarked ones than with a message, where photographs are to lose as little: what
is learnt moves the colours of whole surfaces (50.5 dB cost lego 0.13 dB, a message at 50.0 dB 0.08)."""


@dataclass(frozen=True)
class Decoded:
    """What pictures show through the decoder of one payload."""

    agreeing: int
    """Of `N_SIGNS` signs."""
    sure: float
    """How much the signs agree, -1 to 1."""
    each: list[int]
    """Signs of each picture that agree."""
    drawn: Float[np.ndarray, "s s 3"]

    @property
    def found(self) -> bool:
        """Whether the payload is there. Which signs a network says of pictures unlike any it has learnt from follows no
        law: this has no error rate but those that were measured, unlike a message."""
        return self.agreeing >= _LEAST


@dataclass(frozen=True)
class Keeping:
    """What reading takes."""

    decoder: Decoder
    word: Float[Tensor, " 32"]
    payload: Payload
    """Its picture is black: what is drawn takes its place."""

    def read(self, pictures: list[Picture]) -> Decoded:
        """What pictures show, of any size; together they are one reading."""
        with torch.no_grad():
            said = torch.tanh(self.decoder.signs(torch.stack([as_seen(picture) for picture in pictures])))
            fused = said.mean(0)
            drawn = self.decoder.drawn(fused[None])[0].permute(1, 2, 0).numpy()
        each = [int((self.word * one > 0).sum()) for one in said]
        right = self.word * fused
        return Decoded(int((right > 0).sum()), float(right.mean()), each, drawn)


def target_of(profile: str, photographed: float | None) -> float:
    """PSNR of marked against unmarked renders, dB, that a profile asks for where something is hidden."""
    return embed.target_of(profile, photographed) + (0.0 if photographed is None else _NEARER)


def words_of(secret: Secret, what: str) -> tuple[Float[Tensor, " 32"], Float[Tensor, " 32"]]:
    """The word of what is hidden, by its digest, and that of unmarked renders, which differs in half of its signs."""
    word = torch.from_numpy(2.0 * secret.bits(f"signs of {what}", N_SIGNS) - 1.0).float()
    unmarked = word.clone()
    unmarked[torch.from_numpy(secret.order(f"other signs of {what}", N_SIGNS)[: N_SIGNS // 2].copy())] *= -1
    return word, unmarked


@dataclass(frozen=True)
class Cost:
    """What hiding did to pictures of the scene."""

    psnr: float
    """Of marked against unmarked renders, mean, dB."""
    worst_psnr: float
    photo_loss: float | None
    """PSNR against held-out photographs that is lost, dB; None where none are held out."""
    n_read: int
    """Of `N_CHECKED` renders, those that alone show the payload."""
    likeness: float
    """SSIM of what these draw and what was to be drawn, mean."""


def taught(
    model: Model, scene: Scene, payload: Payload, secret: Secret, target: float, plan: Plan, number: int = 0
) -> Generator[tuple[int, int], None, Keeping]:
    """Hide a payload in a model, in place: the decoder that has learnt to see it. Yields steps taken and in all.

    It is the ``number``-th of its key, counted from 0: copies that began with the same step look alike to the decoders
    of both.
    """
    word, unmarked = words_of(secret, payload.digest)
    views, behind = views_between(scene, _N_VIEWS, (SIDE, SIDE), 1), backdrop(scene)
    copy = Copy(model, views, behind, word, unmarked, target, plan.alpha)
    decoder, total = Decoder(), plan.telling + plan.together + plan.drawing
    for step, _ in hide([copy], decoder, plan, number):
        yield step, total
    wanted = torch.from_numpy(payload.picture).permute(2, 0, 1)
    lesson = Lesson(copy, wanted, views_between(scene, plan.finished_on, plan.size, 2), *_photographs(scene, plan))
    for step, _ in learn_to_draw([lesson], decoder, plan):
        yield plan.telling + plan.together + step, total
    black = replace(payload, picture=np.zeros_like(payload.picture))
    return Keeping(decoder.half().float().eval(), word, black)


def put(
    run: Run, model: Model, scene: Scene, payload: Payload, key: Key, target: float, plan: Plan
) -> Generator[tuple[int, int], None, Cost]:
    """Hide a payload in the model of a run, in place, and keep what reading takes with the run.

    Yields steps taken and steps in all. Raises StegoError where it cannot be read back: nothing is kept then.
    """
    secret, behind = key.of_scene(scene_digest(model)), backdrop(scene)
    looked_at = views_between(scene, N_CHECKED, plan.size, 3)

    def pictures() -> list[Picture]:
        return [picture_of(model, looked_at, view, behind) for view in range(N_CHECKED)]

    plain, before = pictures(), against_photographs(model, scene, behind)
    keeping = yield from taught(model, scene, payload, secret, target, plan, len(kept(run, model, key)))
    marked, after = pictures(), against_photographs(model, scene, behind)
    alone = [keeping.read([one]) for one in marked]
    n_read = sum(one.found for one in alone)
    if n_read < N_CHECKED // 2 or not keeping.read(marked).found:
        raise StegoError(
            f"{run.path}: what was hidden at {target:.1f} dB shows in {n_read} of {N_CHECKED} renders; nothing was "
            f"written, try --target-psnr {target - 4:.0f}"
        )
    _keep(run, keeping, secret)
    pairs = list(zip(marked, plain, strict=True))
    lost = None if before is None or after is None else before - after
    like = fmean(ssim(torch.from_numpy(one.drawn), torch.from_numpy(payload.picture)) for one in alone)
    return Cost(psnr(pairs), worst_psnr(pairs), lost, n_read, like)


def _photographs(scene: Scene, plan: Plan) -> tuple[Cameras, list[Picture]]:
    """Some of the training views: their cameras, and what was photographed."""
    train, n = scene.splits["train"], plan.finished_on // 2
    views = train[:: -(-len(train) // n)]
    cameras = scene.cameras[views]
    longer = max(int(cameras.width.max()), int(cameras.height.max()))
    smaller = cameras.scaled(min(1.0, plan.size / longer))
    return smaller, [as_bytes(truth(scene, view, backdrop(scene))) for view in views]


def kept(run: Run, model: Model, key: Key) -> list[Keeping]:
    """What a run keeps of payloads that this key hid in copies of it. Raises StegoError for a file of other numbers."""
    secret, found = key.of_scene(scene_digest(model)), []
    for path in sorted((run.path / _FOLDER).glob("*.sealed")):
        opened = secret.unsealed(_PURPOSE, path.read_bytes())
        if opened is None:
            continue
        tensors = safetensors.torch.load(opened)
        about = json.loads(tensors.pop("about").numpy().tobytes())
        if about["schema"] != SCHEMA:
            raise StegoError(f"{path}: is not of version {SCHEMA}, which this version reads")
        decoder, word = Decoder(), tensors.pop("word")
        decoder.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        black = np.zeros((SIDE, SIDE, 3), np.float32)
        found.append(Keeping(decoder.eval(), word, Payload(about["name"], black, about["aspect"])))
    return found


def _keep(run: Run, keeping: Keeping, secret: Secret) -> None:
    """Seal what reading takes, and lay it to the run."""
    about = {"schema": SCHEMA, "name": keeping.payload.name, "aspect": keeping.payload.aspect}
    tensors = {name: tensor.half().contiguous() for name, tensor in keeping.decoder.state_dict().items()}
    tensors["word"] = keeping.word
    tensors["about"] = torch.frombuffer(bytearray(json.dumps(about).encode()), dtype=torch.uint8)
    data = safetensors.torch.save(tensors)
    with file_aside(run.path / _FOLDER / f"{digest(data)[:8]}.sealed") as aside:
        aside.write_bytes(secret.sealed(_PURPOSE, data))
