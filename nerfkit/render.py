"""Rays to pixels: the one place where sampler, field and compositing meet."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerfkit.cameras import Cameras
from nerfkit.config import Config
from nerfkit.engines import EngineError, choose_device, resolve, serve
from nerfkit.fields.conv import corrected
from nerfkit.fields.hash import HashField
from nerfkit.kernels import acc, rounds
from nerfkit.kernels.cells import Cells
from nerfkit.kernels.composite import composite, gather, keep_visible
from nerfkit.kernels.launch import parallel
from nerfkit.kernels.march import sample_positions
from nerfkit.kernels.raycast import cast
from nerfkit.kernels.shade import take_rows
from nerfkit.run import Checkpoint, Run, RunError
from nerfkit.sampling import alike
from nerfkit.sampling.learned import LearnedOccupancy
from nerfkit.sampling.occupancy import OccupancyGrid
from nerfkit.sampling.proposal import ProposalSampler
from nerfkit.sampling.settled import Settled
from nerfkit.scene.scene import Box, Frame
from nerfkit.types import Field, Rays, Rendered, Sampler, Samples

EARLY_STOP = 1e-3
"""Transmittance at which a picture's ray ends: what lies behind could change no 8-bit pixel."""
_CHUNK = {"cpu": 1 << 12, "cuda": 1 << 18}
"""Rays that one task renders, about, in whole rows."""
_SIDE, _APRONS = 64, 8
"""Where neighbours take part a task renders a square: its side in pixels, and in those of its apron, at least."""
BACKGROUNDS = {"white": 1.0, "black": 0.0}
SAMPLERS = {"grid": OccupancyGrid, "learned": LearnedOccupancy, "proposal": ProposalSampler}


@runtime_checkable
class Renderer(Protocol):
    """What pictures are taken of: a `Model`, or several of them side by side."""

    device: torch.device

    @property
    def apron(self) -> int:
        """Pixels around one, to each side, whose rays take part in what its own sees; mostly none."""
        ...

    def render(self, rays: Rays, behind: Float[Tensor, "n 3"] | None, width: int = 1) -> Rendered:
        """What rays (scene coordinates) see, lengths in scene units, before a colour each or, for None, the sky.

        Where there is an apron they are those of a rectangle of this width, row after row.
        """
        ...

    def finish(self, seen: Rendered) -> Rendered:
        """A whole picture (h, w, ...) from what its rays gathered."""
        ...


@dataclass(frozen=True)
class Model:
    """All that renders: a field, where to look, and where in the scene its unit cube lies."""

    field: HashField | Field
    """A hash field, but for drawings of something else in its place."""
    sampler: OccupancyGrid | LearnedOccupancy | ProposalSampler | Settled | Cells
    frame: Frame
    config: Config
    device: torch.device
    by_nerfacc: bool = False
    """Whether nerfacc marches and composites."""

    @property
    def apron(self) -> int:
        """See `Renderer`: convolutions at each sample, and the samples that they ask for, look at neighbouring rays."""
        neighbours = getattr(self.field, "neighbours", None)
        patchy = neighbours is not None and isinstance(self.sampler, ProposalSampler)
        return neighbours.apron + alike.APRON if patchy else 0

    def render(self, rays: Rays, behind: Float[Tensor, "n 3"] | None, width: int = 1) -> Rendered:
        """What rays (scene coordinates) see, lengths in scene units, before a colour each or, for None, the sky.

        Without gradient. See `Renderer` about the ``width``; of 1, each ray is seen as if its neighbours were like it.
        """
        with torch.no_grad():
            inside = self.frame.model_rays(rays).to(self.device)
            background = self.field.behind(inside.rays_d) if behind is None else behind.to(self.device)
            jitter = torch.full((len(rays),), 0.5, device=self.device)
            if self.apron and width > 1:
                shape = (1, len(rays) // width, width)
                staged = render_patches(self.field, self.sampler, inside, shape, background, jitter)
                seen = staged.rendered(inside)
            else:
                seen = render_rays(self.field, self.sampler, inside, background, jitter, by_nerfacc=self.by_nerfacc)
        scale = self.frame.scale
        return replace(seen, distance=seen.distance / scale, depth=seen.depth / scale)

    def finish(self, seen: Rendered) -> Rendered:
        """What the rays of a whole picture (h, w, ...) gathered, with the colours that the field's head makes of it."""
        head = getattr(self.field, "head", None)
        if head is None:
            return seen
        gathered = torch.cat([seen.rgb, seen.features], -1)
        return replace(seen, rgb=corrected(head, gathered), features=seen.features[..., :0])

    def within(self, box: Box) -> Model:
        """The same without the cells whose middle lies outside of a box; what is left learns nothing more."""
        lower, upper = (self.frame.to_model(torch.tensor(corner)) for corner in (box[:3], box[3:]))
        with torch.no_grad():
            return replace(self, sampler=self.sampler.cells().within(lower, upper))


def background_color(name: str) -> Float[Tensor, " 3"]:
    """The colour of a background's name; white in pictures where that names none."""
    return torch.full((3,), BACKGROUNDS.get(name, 1.0))


def render_rays(
    field: Field,
    sampler: Sampler,
    rays: Rays,
    background: Float[Tensor, "n_rays 3"],
    jitter: Float[Tensor, " n_rays"],
    reach: float = 0.0,
    capacity: int = 0,
    by_nerfacc: bool = False,
) -> Rendered:
    """Render rays (model coordinates) over a background; differentiable in the field and the background.

    ``jitter`` in [0, 1) shifts each ray's lattice of steps: random in training, 0.5 in pictures. A ray ends behind a
    transmittance of `EARLY_STOP`. ``reach`` damps gradients near the camera, see `composite`. ``distance`` and
    ``depth`` are in model units. With a ``capacity``, which bounds the samples of all rays together, or without
    gradients, a CPU takes each ray through all stages at once (`raycast.cast`: the same numbers in a third of the
    time); without gradients, CUDA takes all rays on together, round by round (`rounds.cast`).
    """
    learning, on_cpu = torch.is_grad_enabled(), rays.rays_o.device.type == "cpu"
    whole = isinstance(field, HashField) and not (field.tcnn or by_nerfacc or background.requires_grad)
    if whole and (not learning or (on_cpu and capacity > 0)):
        seen = field.target(), sampler.steps(rays, jitter), rays, jitter, background, EARLY_STOP
        gathered = cast(*seen, reach, capacity if learning else 0) if on_cpu else rounds.cast(*seen)
        return _rendered(rays, *gathered)
    return render_in_stages(field, sampler, rays, background, jitter, reach, by_nerfacc=by_nerfacc).rendered(rays)


@dataclass(frozen=True)
class Staged:
    """What `render_in_stages` found on its way."""

    rgb: Float[Tensor, "n_rays c"]
    """And what else rays gathered."""
    opacity: Float[Tensor, " n_rays"]
    t_sum: Float[Tensor, " n_rays"]
    """Sum of weights * t."""
    weights: Float[Tensor, " n_reached"]
    reached: Samples
    """Those of the samples that rays reached."""
    samples: Samples
    sigmas: Float[Tensor, " n_samples"]
    rows: Int[Tensor, " n_reached"]
    """Where the reached samples are among all."""

    def rendered(self, rays: Rays) -> Rendered:
        """What these rays see."""
        return _rendered(rays, self.rgb, self.opacity, self.t_sum, self.reached.packed_info)


def _rendered(rays: Rays, rgb: Tensor, opacity: Tensor, t_sum: Tensor, packed_info: Tensor) -> Rendered:
    distance = t_sum / opacity.clamp(min=1e-6)
    return Rendered(rgb[:, :3], opacity, distance, distance * rays.cos, packed_info[:, 1], rgb[:, 3:])


def render_in_stages(
    field: Field,
    sampler: Sampler,
    rays: Rays,
    background: Float[Tensor, "n_rays 3"],
    jitter: Float[Tensor, " n_rays"],
    reach: float = 0.0,
    early_stop: float = EARLY_STOP,
    by_nerfacc: bool = False,
) -> Staged:
    """`render_rays`, one stage after the other over all samples, for who wants to see these."""
    samples = acc.march(sampler.cells(), rays, jitter) if by_nerfacc else sampler.sample(rays, jitter)
    sigmas, features = field.density(sample_positions(rays, samples))
    reached, rows = keep_visible(samples, sigmas.detach(), early_stop)
    seen = take_rows(sigmas[:, None], rows, reached.n_owned)[:, 0]
    rgbs = field.color(take_rows(features, rows, reached.n_owned), rays.rays_d, reached.ray_indices)
    put_together = acc.composite if by_nerfacc else composite
    rgb, opacity, t_sum, weights = put_together(seen, rgbs[:, :3], reached, background, reach)
    if rgbs.shape[1] > 3:
        rgb = torch.cat([rgb, gather(weights, rgbs[:, 3:], reached, reach)], 1)
    return Staged(rgb, opacity, t_sum, weights, reached, samples, sigmas, rows)


def render_patches(
    field: HashField,
    sampler: ProposalSampler,
    rays: Rays,
    shape: tuple[int, int, int],
    background: Float[Tensor, "n_rays 3"],
    jitter: Float[Tensor, " n_rays"],
    reach: float = 0.0,
) -> Staged:
    """`render_in_stages` for a field that asks neighbouring rays: ``shape`` is (patches, height, width) of the rays.

    ``jitter`` is alike within a patch. All rays have as many samples, and are asked about all of them.
    """
    samples, there = sampler.sample_alike(rays, shape, jitter)
    sigmas, features = field.density(sample_positions(rays, samples))
    sigmas, features = sigmas * there, features * there[:, None]  # of places that do not exist neighbours hear nothing
    rgbs = field.color_of_patches(features.view(*shape, -1, features.shape[1]), rays.rays_d)
    rgb, opacity, t_sum, weights = composite(sigmas, rgbs.reshape(-1, 3), samples, background, reach)
    rows = torch.arange(len(samples), device=sigmas.device)
    return Staged(rgb, opacity, t_sum, weights, samples, samples, sigmas, rows)


def render_image(model: Renderer, cameras: Cameras, index: int, background: str = "white") -> Rendered:
    """The picture that camera ``index`` takes, (height, width, ...), lengths in scene units, without gradient.

    ``background`` is one of `BACKGROUNDS`, or ``sky``: the field's own.
    """
    if cameras.lens == "pinhole":  # whose rays are found faster than they are sent
        cameras, index = cameras[[index]].to(model.device), 0
    pixels = cameras.pixel_grid(index)
    height, width = pixels.shape[:2]
    color, chunk = background_color(background).to(model.device), _CHUNK[model.device.type]
    apron, side = model.apron, max(_SIDE, _APRONS * model.apron)
    rows, columns = (side, side) if apron else (max(chunk // width, 1), width)

    def piece(corner: tuple[int, int]) -> Rendered:
        y, x = corner
        top, left = max(y - apron, 0), max(x - apron, 0)
        xy = pixels[top : y + rows + apron, left : x + columns + apron]
        h, w = xy.shape[:2]
        behind = None if background == "sky" else color.expand(h * w, 3)
        rays = cameras.rays(torch.full((h * w,), index, device=xy.device), xy.reshape(-1, 2))
        seen, kept = (
            model.render(rays, behind, w),
            (slice(y - top, y - top + rows), slice(x - left, x - left + columns)),
        )
        return Rendered(**{name: values.unflatten(0, (h, w))[kept] for name, values in vars(seen).items()})

    pieces = parallel(piece, list(product(range(0, height, rows), range(0, width, columns))), model.device)
    n_across = math.ceil(width / columns)

    def whole(name: str) -> Tensor:
        each = [getattr(one, name) for one in pieces]
        return torch.cat([torch.cat(each[i : i + n_across], 1) for i in range(0, len(each), n_across)])

    seen = model.finish(Rendered(**{field.name: whole(field.name) for field in fields(Rendered)}))
    return Rendered(**{name: values.cpu() for name, values in vars(seen).items()})


def new_model(config: Config, frame: Frame, allowed: Tensor | None = None) -> Model:
    """An untrained model; ``allowed`` (levels, r, r, r) bool marks the cells that may be occupied.

    Raises EngineError where the engine that the config asks for cannot serve it.
    """
    device, engine = choose_device(config.engine), resolve(config.engine, config.field)
    if "nerfacc" in engine and config.sampler.kind == "proposal":
        raise EngineError(f"engine {engine}: nerfacc marches through cells, which proposals have none of")
    field = HashField(config.field, device, config.train.seed, frame.n_levels)
    serve(field, engine)
    near, far = frame.near_plane * frame.scale, frame.far_plane * frame.scale
    sampler = SAMPLERS[config.sampler.kind](config.sampler, frame.n_levels, device, allowed, near, far)
    return Model(field, sampler, frame, config, device, "nerfacc" in engine)


def load_model(run: Run) -> Model:
    """The model of a run's newest whole checkpoint, on the engine that it was trained with, or where that does not work
    here, by what does. Raises RunError if there is none that fits."""
    checkpoint, frame = run.load_checkpoint(), Frame.from_dict(run.frame)
    try:
        model = new_model(run.config, frame)
    except EngineError:
        model = new_model(replace(run.config, engine="auto"), frame)
    restore_model(model, checkpoint)
    return model


def restore_model(model: Model, checkpoint: Checkpoint) -> None:
    """Give a model the numbers of a checkpoint. Raises RunError where they are not those of such a model."""
    try:
        model.field.load_state_dict(checkpoint.field)
        model.sampler.load_state_dict(checkpoint.sampler)
    except (KeyError, RuntimeError) as error:
        why = str(error).strip().splitlines()[-1].strip().rstrip(".")
        raise RunError(f"{checkpoint.path}: does not hold a model of these settings ({why}); train it anew") from None
