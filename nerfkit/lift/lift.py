"""One picture to a field: the prior's volume first, which is there at once, then a field that learns from the picture
and from what the prior thinks of the other sides."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import max_pool3d

from nerfkit.config import Config
from nerfkit.lift.framing import Framing
from nerfkit.lift.guidance import Alike, Diffusion, Features
from nerfkit.lift.guide import Depth, Guide, Guided, Term
from nerfkit.lift.prior import Lifted
from nerfkit.lift.scene import Given, write_scene
from nerfkit.lift.settings import ALIKE, GUIDANCE, RANKING, Sizes
from nerfkit.lift.volume import Volume
from nerfkit.render import Model
from nerfkit.run import Run, check_free
from nerfkit.sampling.occupancy import OccupancyGrid
from nerfkit.sampling.stepping import places_in
from nerfkit.scene import load_scene
from nerfkit.scene.scene import Scene
from nerfkit.train.loop import fit, model_of
from nerfkit.train.progress import Report

SCENE = "scene"
"""Where in its run a picture's scene lies."""


def begin(
    photo: Framing, lifted: Lifted, given: Sequence[Given], sizes: Sizes, config: Config, out: Path, command: list[str]
) -> tuple[Run, Scene]:
    """Begin the run of a picture, its scene within. Raises RunError where the folder cannot be used."""
    check_free(out)
    aside = out.with_name(f".{out.name}.{SCENE}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        others = [replace(one, framing=one.framing.scaled(_within(one.framing, sizes))) for one in given]
        write_scene(aside, photo.scaled(_within(photo, sizes)), lifted.volume, sizes.asked, others)
        scene = load_scene(aside, config.data)
        splits = {name: [scene.image_names[view] for view in views] for name, views in scene.splits.items()}
        frame = scene.frame.to_dict()
        run = Run.create(out, config, out / SCENE, out.name, frame, scene.fingerprint, splits, command)
        aside.rename(out / SCENE)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return run, replace(scene, root=out / SCENE, source=out / SCENE, name=out.name)


def _within(photo: Framing, sizes: Sizes) -> int:
    """Pixels a side as which a given picture is learnt."""
    return min(max(photo.rgba.shape[0], sizes.photo[0]), sizes.photo[1])


def warm_model(scene: Scene, config: Config, volume: Volume) -> Model:
    """An untrained model whose occupancy grid knows from the first step where the prior sees anything, or beside it.

    What is empty for the prior is probed as any empty cell is, so that the picture can say otherwise.
    """
    model = model_of(scene, config)
    grid = model.sampler
    if not isinstance(grid, OccupancyGrid):
        return model
    values = grid.values.clone()
    may_be = (values >= 0).nonzero(as_tuple=True)
    places = model.frame.to_scene(places_in(may_be[1].int(), 0.5, grid.stepping))
    around = max_pool3d(volume.sigmas[:, None], 3, stride=1, padding=1)
    near = Volume(around[:, 0].to(values), volume.rgbs.to(values))
    values[may_be] = near.at(places[None])[0][0] / model.frame.scale
    threshold = torch.tensor(config.sampler.occupancy_threshold / grid.stepping.min_step, dtype=torch.float64)
    grid.load_state_dict({**grid.state_dict(), "values": values, "threshold": threshold})
    return model


def terms_of(
    photo: Framing,
    depth: Float[Tensor, "h w"] | None = None,
    prior: Diffusion | None = None,
    features: Features | None = None,
) -> list[Term]:
    """What the field should be like beside its pixels.

    Args:
        photo: the picture.
        depth: of the picture's pixels, up to scale and shift, larger is farther, whose order is then kept. Our own
            network's are in its volume already: their order wins 0.03 dB and takes as long again as all else.
        prior: guides views from anywhere.
        features: to whose eye what the prior draws shall be like the picture.
    """
    terms: list[Term] = [] if depth is None else [Depth.of(photo, depth, RANKING)]
    if prior is not None:
        seen = photo.seen(photo.rgba.shape[0])
        reference = seen[:, :3] * seen[:, 3:] + 1 - seen[:, 3:]
        alike = None
        if features is not None:
            with torch.no_grad():
                alike = Alike(features, features(reference), ALIKE)
        terms.append(Guided(prior, photo, GUIDANCE, alike=alike))
    return terms


def lift(run: Run, scene: Scene, model: Model, terms: Sequence[Term]) -> Iterator[Report]:
    """Teach a field the scene of a picture."""
    policies = [Guide(terms, run.config.train.seed)] if terms else []
    yield from fit(scene, run.config, run, model=model, policies=policies)
