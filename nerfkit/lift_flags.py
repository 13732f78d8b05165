"""The flags of the verbs that lift. No torch here: help answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Lift:
    """Make one picture an object that can be looked at from all sides.

    What the picture does not show is guessed, by a network that comes with nerfkit: nothing is fetched from the
    internet, no other file is needed. The result is a run as any other, for render, view, export, embed and compress;
    with it come a film all around, a mesh, and a map of what was seen and what was guessed. Ctrl-C keeps what is there.
    """

    photo: Annotated[Positional[Path], arg(metavar="PHOTO")]
    """A picture of an object. What is transparent in it is background; of an opaque one the object is told
    from its background."""
    out: Annotated[Path | None, arg(metavar="RUN", aliases=["-o"])] = None
    """Folder of the run. By default runs/PHOTO."""
    fast: bool = False
    """Learn for a sixth of the time."""
    elevation: Annotated[float | None, arg(metavar="DEGREES")] = None
    """Of the camera above the horizon, as seen from the object; guessed."""
    fov: Annotated[float | None, arg(metavar="DEGREES")] = None
    """Angle that the object's surroundings, one and a fifth times as wide as it is, fill in the camera; guessed."""
    mask: Annotated[Path | None, arg(metavar="FILE")] = None
    """A picture that is white, or opaque, where the object is."""
    matte: Annotated[Path | None, arg(metavar="FILE.onnx")] = None
    """A network that tells objects from their background, instead of GrabCut."""
    view: Annotated[tuple[str, ...], arg(metavar="FILE:AZIMUTH ...")] = ()
    """Further pictures of the object, from as many degrees to the right: back.png:180."""
    prior: Annotated[Path | None, arg(metavar="FILE")] = None
    """Other weights of the network that guesses (tools/lift_prior/train.py)."""
    diffusion: Annotated[str | None, arg(metavar="FOLDER")] = None
    """A diffusion prior that guides what is guessed, in the format of diffusers: Stable Diffusion, or one that takes a
    picture and a turn (Zero-1-to-3, with a folder cc_projection)."""
    prompt: str = "a photo of an object"
    """What the picture shows, for a prior of words."""
    depth: Annotated[str | None, arg(metavar="FOLDER")] = None
    """A network of monocular depth, in the format of transformers, or an ONNX file, instead of ours."""
    clip: Annotated[str | None, arg(metavar="FOLDER")] = None
    """A CLIP vision model, in the format of transformers, to whose eye what --diffusion draws shall be like the
    photo."""
    hub: bool = False
    """Let these be names on a hub, and fetched over the network. Without it nothing is."""
    config: Annotated[Path | None, arg(metavar="FILE")] = None
    """Settings of the field and its training, such as configs/lift.toml."""
    seed: int | None = None
    """Of all that is drawn by chance: 0, or what --config says."""
    no_film: bool = False
    """Leave out the film all around."""
    no_mesh: bool = False
    """Leave out the mesh."""


@dataclass(frozen=True)
class LiftBench:
    """Lift objects whose shape is known, and say how like the truth the other sides are.

    Objects are made by tools/lift_prior/make_bench.py. Rows that need no method (white, copy, billboard, what true
    depth would give) always stand beside it. One JSON line an object and method is appended to --rows, and what stands
    there is not done again.
    """

    objects: Annotated[Positional[Path], arg(metavar="FOLDER")]
    """Of objects, a folder each."""
    rows: Annotated[Path, arg(metavar="FILE")] = Path("lift-bench.jsonl")
    """Where results are kept."""
    fast: bool = False
    """Lift as with nerfkit lift --fast."""
    only_prior: bool = False
    """Score the network's volume itself, which no field learns."""
    every: Annotated[int, arg(metavar="N")] = 1
    """Lift each N-th object."""
    seeds: tuple[int, ...] = (0,)
    """Lift each object once with each of these."""
    unknown: bool = False
    """Do not tell the camera's elevation and angle."""
    framed: bool = False
    """Cut the object out as nerfkit lift does, which takes its outline to fill the frame; otherwise it is told how
    large the object is in its frame, and where its middle lies."""
    prior: Annotated[Path | None, arg(metavar="FILE")] = None
    """Other weights of the network that guesses."""
    config: Annotated[Path | None, arg(metavar="FILE")] = None
    """Settings of the field and its training, as of nerfkit lift."""
    answers: Annotated[tuple[str, ...], arg(metavar="NAME=FOLDER ...")] = ()
    """Pictures of another method, scored in place of ours: FOLDER/OBJECT/000.png and on."""
    perceptual: Annotated[Path | None, arg(metavar="FILE")] = None
    """Weights of a VGG-16 for a perceptual distance, as torchvision names them."""
    features: Annotated[Path | None, arg(metavar="FILE.onnx")] = None
    """A network whose output are features of a picture, by whose cosine views are compared."""
    meshes: bool = False
    """Export a mesh of each object, and compare renders of it with the field's."""
