"""What a run keeps of its mark, in its folder ``mark``: the carriers and the landmarks, nothing that is secret.

    mark.json            the scene's digest, how strong the mark is and what that costs
    carriers.safetensors entries, steps, points, descriptors, a few views

The run stays as it was: copies of it are marked, and pictures of these are read with its help. Whoever has it and the
key reads all of them; whoever has a copy has neither.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError

from nerfkit.aside import file_aside
from nerfkit.cameras import Cameras
from nerfkit.provenance import digest
from nerfkit.render import Model
from nerfkit.run import Run, RunError
from nerfkit.stego.carriers import Carriers
from nerfkit.stego.keys import StegoError
from nerfkit.stego.landmarks import Landmarks

SCHEMA = 3
"""Version of ``mark.json``."""
_FOLDER, _FILE = "mark", "carriers.safetensors"
_OF_VIEWS = ("c2w", "fl_x", "fl_y", "cx", "cy", "width", "height", "distortion")


@dataclass(frozen=True)
class Terms:
    """What was agreed on when a scene was first marked: all its copies are marked alike."""

    scene: str
    """Digest of the original field and of the carriers in it: the secret of a scene, by which a record knows it, is
    that of these carriers in this order."""
    n_bits: int
    """Of a message."""
    strength: float
    """Luminance by which carriers lift what is seen of them."""
    background: str
    """Behind the pictures that it was measured on."""
    psnr: float
    """Of marked against unmarked renders, mean, dB."""
    worst_psnr: float
    """Of the worst of these views."""
    photo_loss: float | None
    """What the mark costs of the PSNR against held-out photographs, dB; None where none are held out."""
    profile: str | None = None
    """By which its strength was chosen; None where that was told, or before it was kept."""
    target: float | None = None
    """The PSNR that was asked for, dB; None where a profile was, or before it was kept."""


@dataclass(frozen=True)
class Mark:
    """All that marking and reading a scene needs, but the key."""

    terms: Terms
    carriers: Carriers
    landmarks: Landmarks
    views: Cameras
    """Pinholes, from which marked copies are looked at to see whether they can be read."""

    def scaled(self, by: float) -> Mark:
        """The mark so many times as strong; what differs in renders differs by as much."""
        terms, further = self.terms, 20.0 * math.log10(by)
        strength, psnr, worst = terms.strength * by, terms.psnr - further, terms.worst_psnr - further
        return replace(self, terms=replace(terms, strength=strength, psnr=psnr, worst_psnr=worst))


def scene_digest(model: Model) -> str:
    """Of the numbers of a field: a model that learnt anything since is another scene."""
    parts = [tensor.detach().cpu().contiguous().numpy().tobytes() for tensor in model.field.state_dict().values()]
    return digest(b"".join(parts))


def marked_digest(model: Model, carriers: Carriers) -> str:
    """Of the numbers of a field, and of what carries in it, in its order."""
    parts = carriers.entries.cpu().to(torch.int32), carriers.steps.cpu().float()
    return digest(b"".join([scene_digest(model).encode(), *(part.numpy().tobytes() for part in parts)]))


def has_mark(run: Run) -> bool:
    """Whether a run keeps a mark."""
    return (run.path / _FOLDER / "mark.json").exists()


def write_mark(run: Run, mark: Mark) -> None:
    """Keep a mark with its run."""
    tensors = {
        "entries": mark.carriers.entries.to("cpu", torch.int32),
        "steps": mark.carriers.steps.cpu().float(),
        "points": torch.from_numpy(mark.landmarks.points),
        "descriptors": torch.from_numpy(mark.landmarks.descriptors),
        "views": torch.from_numpy(mark.landmarks.views),
        "focal": torch.tensor(mark.landmarks.focal, dtype=torch.float64),
        **{f"views.{name}": getattr(mark.views, name).cpu().contiguous() for name in _OF_VIEWS},
    }
    with file_aside(run.path / _FOLDER / _FILE) as aside:
        safetensors.torch.save_file(tensors, aside)
    run.write_json(f"{_FOLDER}/mark.json", {"schema": SCHEMA, **asdict(mark.terms)})


def read_mark(run: Run, model: Model) -> Mark | None:
    """The mark that a run keeps; None where it was never marked. Raises StegoError where it is not of this model."""
    path = run.path / _FOLDER / _FILE
    if not has_mark(run):
        return None
    try:
        body = run.read_json(f"{_FOLDER}/mark.json")
        if body.pop("schema") != SCHEMA:
            raise StegoError(f"{run.path}/{_FOLDER}/mark.json: is not of version {SCHEMA}, which this version reads")
        terms = Terms(**body)
        tensors = safetensors.torch.load(Path(path).read_bytes())
        carriers = Carriers(tensors["entries"].long().to(model.device), tensors["steps"].to(model.device))
        seen = [tensors[name].numpy() for name in ("points", "descriptors", "views")]
        views = Cameras(**{name: tensors[f"views.{name}"] for name in _OF_VIEWS})
    except (OSError, KeyError, TypeError, ValueError, SafetensorError, RunError) as error:
        why = str(error) or type(error).__name__
        raise StegoError(f"{path}: the mark cannot be read ({why}); nerfkit embed makes it anew without it") from None
    if terms.scene != marked_digest(model, carriers):
        raise StegoError(
            f"{run.path}: has learnt on since it was marked, or its mark was changed; remove its folder {_FOLDER} to "
            "mark it anew"
        )
    return Mark(terms, carriers, Landmarks(*seen, float(tensors["focal"])), views)
