"""Every setting, as plain data. This file imports no torch, so that the command line answers at once."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any, Literal

SCHEMA = 1
"""Version of the config tree, stored with each run."""

MOST_TILES = 64
"""Tiles that a scene may be divided into: each is a model, and all are needed for a picture."""


class ConfigError(ValueError):
    """A setting that is not one: the message names the key and what would do."""


@dataclass(frozen=True)
class DataConfig:
    """How a folder becomes a scene."""

    downscale: int = 1
    """Divide the image size by this whole number (area average)."""
    hold_out_every: int = 8
    """Every n-th view is held out for testing, where the scene names no split of its own; 0 holds out none."""
    background: Literal["auto", "white", "black", "random", "sky"] = "auto"
    """Colour behind images with alpha and behind all that is modelled: auto is random in training (but that of plain
    borders, if all views have them) and white in pictures. Behind opaque captures pictures have a sky instead, learnt
    in passing; under sky the training sees it, too, so that no thing need stand for it."""
    masks: Literal["auto", "cut", "ignore", "off"] = "auto"
    """What masks mean: cut takes what they show for an object on nothing; ignore leaves what they hide out of training
    and scores; off does not read them; auto is cut if they outline one object, else ignore."""
    memory: float = 0.0
    """Gigabytes of memory for pictures, those beyond wait in a temporary file; 0 is half of what is available."""
    aabb_scale: float = 0.0
    """Side of the model's box in units of the region that the cameras look at; 0 decides from the cameras."""


@dataclass(frozen=True)
class FieldConfig:
    """The hash field: a multiresolution table of features, a density network and a colour network."""

    n_levels: int = 8
    """Levels of the table, each finer than the one before."""
    n_features: int = 4
    """Features of one table entry."""
    log2_table_size: int = 17
    """A level has at most 2 ** this many entries."""
    base_resolution: int = 16
    """Cells along one side of the whole box, at the first level."""
    finest_resolution: int = 512
    """Cells along one side of the innermost box, at the last level."""
    contracted: bool = False
    """Draw all that lies outside of the innermost box into a shell about it, so that the table describes far things
    the more coarsely the further they are, in the manner of mip-NeRF 360. An object alone in its box stays as it is."""
    width: int = 64
    """Neurons of a hidden layer."""
    color_width: int = 0
    """Neurons of a hidden layer of the colour network, if those are to be others; 0 gives it as many."""
    density_layers: int = 1
    """Hidden layers of the density network."""
    color_layers: int = 1
    """Hidden layers of the colour network."""
    geo_features: int = 16
    """Outputs of the density network; the first is the log density, all go on to the colour network."""
    head: Literal["none", "deferred", "sample"] = "none"
    """Convolutions over neighbouring rays: deferred ones correct the colours of a picture by what rays gathered, those
    at each sample take the place of the colour network's last layers, behind ``sampler.kind = "proposal"`` alone."""
    head_features: int = 8
    """Numbers that a ray gathers for a deferred head beside its colour, 13 at most."""
    head_width: int = 16
    """Channels between a deferred head's two convolutions."""
    bias_init: float = 0.0
    """Share of the first hidden layers' neurons that is active at first, by inputs that act as a constant bias; 0 has
    none, and about half are."""
    sh_degree: int = 4
    """Degree of the spherical harmonics that encode the direction (degree ** 2 numbers)."""


@dataclass(frozen=True)
class SamplerConfig:
    """What says where to look, and how rays step there."""

    kind: Literal["grid", "learned", "proposal"] = "grid"
    """Cells that remember how dense the field was, a network that classifies places, or one that says how dense it
    may be there and gathers samples."""
    resolution: int = 128
    """Cells along one side of each level of the grid."""
    n_steps: int = 384
    """Steps along the diagonal of the inner box: sets the length of a step."""
    cone_angle: float = -1.0
    """Growth of the step with distance; 0 keeps it constant, -1 decides: 0 for an object, 1/256 with a background."""
    occupancy_threshold: float = 0.02
    """Optical thickness of one step under which a cell counts as empty. More hardens surfaces, but loses thin ones."""
    update_every: int = 16
    """Steps between two refreshes of the bits; those of a learned occupancy become rarer with time."""
    warmup_steps: int = 256
    """Until this step all cells are probed in turn, and the steps along a ray are two to four times as long."""
    observe_every: int = 4
    """Steps of which one tells the grid the densities that it met; on a CPU, where that costs little, all do."""
    n_probes: int = 16384
    """Cells probed at each refresh, at least (one in 64 of a large grid), so that empty ones can be occupied again."""
    ema_decay: float = 0.6
    """Share of a cell's value that remains at a refresh if samples met nothing dense there."""
    stale_decay: float = 0.98
    """The same if no sample came there."""
    n_proposed: int = 24
    """Samples that proposals give a ray through something dense, at most."""
    imbalance_weight: float = 0.05
    """Weight of a learned occupancy's loss of the share that it calls occupied; 0 leaves it out."""
    density_weight: float = 1.0
    """The same of densities that it calls empty."""
    render_weight: float = 1.0
    """The same of what a picture loses where it leaves the field out."""


@dataclass(frozen=True)
class TrainConfig:
    """The length and the course of a training."""

    steps: int = 0
    """Stop after this many steps; 0 leaves it to the time budget."""
    time_budget: float = 300.0
    """Seconds of training, used where ``steps`` is 0; the learning rate follows it."""
    detail_share: float = 0.5
    """Share of the single rays that are drawn where photographs show detail, the more the more they vary within eight
    pixels; the others come from everywhere alike."""
    mining: Literal["none", "pruned", "error"] = "none"
    """Of those, draw more where the field and a copy of it without half of its networks disagree, or where it errs."""
    dropped: float = 0.0
    """Share of the photographs, in small blocks, of which nothing is drawn for a while: what was forgotten least."""
    patch_share: float = 0.1
    """Share of the rays that are drawn as square patches, where there is what learns from them: ``field.head``,
    ``train.align`` or ``train.high_frequency``."""
    patch_size: int = 16
    """Pixels along one side of a patch."""
    align: int = 0
    """Lay each rendered patch where it fits in the photograph, up to so many pixels off, before they are compared; what
    all patches of a photograph want alike turns its camera. For poses that are off by a pixel; 0 trusts them."""
    offset_weight: float = 0.05
    """Price of laying a patch ``align`` pixels off, in units of the structural distance, which is 1 at most."""
    realign: int = 0
    """Rounds, evenly over the training, in which photographs are laid onto what the field shows and bent to fit."""
    high_frequency: float = 0.0
    """Weight of the fine detail in which patches differ, beside their pixels; 0.1 or so, 0 leaves it out."""
    high_frequency_by: Literal["filters", "vgg"] = "filters"
    """What sees fine detail: fixed filters, or the first block of VGG-16 where torch's cache has its weights."""
    samples_per_step: int = 32768
    """Samples that the rays of one step reach; the number of rays adapts to that."""
    table_lr: float = 2e-2
    """Learning rate of the table, at the start."""
    network_lr: float = 1e-2
    """Learning rate of the networks, at the start."""
    final_lr: float = 0.03
    """Learning rate at the end, as a share of that at the start."""
    warmup_steps: int = 100
    """Steps in which the learning rate grows to that of the start."""
    loss: Literal["huber", "squared"] = "huber"
    """Of colours: huber counts large errors less than their square."""
    early_stop: float = 0.01
    """Transmittance at which a training ray ends, what lies behind being left to chance: surfaces grow hard, and of
    each less has to be looked at. Pictures look ten times as deep."""
    gradient_reach: float = 20.0
    """Gradients of samples nearer to the camera than this many near planes are damped, against haze before cameras."""
    distortion: float = 0.0
    """Weight of the distortion loss: draws haze and floaters together, 0.03 or so; 0 leaves it out."""
    exposure: bool = False
    """Find how brightly each photograph was exposed, relative to the others; pictures have the mean exposure."""
    poses: bool = False
    """Refine the poses of the views that are trained on, where their pictures then agree better; others keep theirs."""
    weight_decay: float = 1e-6
    """On the networks alone."""
    tiles: str = ""
    """Divide the scene into tiles that are trained one after another, each with a model of its own: a number, or two
    such as 2x2 for the two longest axes of where the cameras are. The time is for all of them together."""
    report_every: int = 50
    """Steps between two reports of how it goes."""
    checkpoint_every: float = 60.0
    """Seconds between checkpoints."""
    seed: int = 0
    """Of all that is drawn by chance."""

    @property
    def moves_cameras(self) -> bool:
        """Whether the poses of training views change."""
        return self.poses or self.align > 0

    @property
    def mines(self) -> bool:
        """Whether the field itself says what is drawn."""
        return self.mining != "none" or self.dropped > 0.0


@dataclass(frozen=True)
class PruneConfig:
    """What of the field goes while it is trained: its numbers are held at zero. A fraction of 0 prunes nothing."""

    fraction: float = 0.0
    """Share of all units that goes, below 1."""
    space: Literal["weights", "neurons", "kernels", "entries", "levels", "features"] = "weights"
    """Units: weights of the networks, all that comes into a hidden neuron, kernels of the head, entries of the table,
    its levels, or its features."""
    score: Literal["random", "magnitude", "snip", "grasp", "synflow"] = "random"
    """Which units stay: those that a criterion values most; snip and grasp ask gradients of rendered rays."""
    ratio: Literal["uniform", "uniform+", "er", "erk", "erk+", "score"] = "erk"
    """How much of each layer stays: by its shape, or as many as are among the best of all."""
    shuffle: bool = False
    """Of each layer as many as the criterion says, but any."""
    schedule: Literal["once", "gradual", "exchange"] = "once"
    """All at the beginning, little by little, or at once and then units that went in exchange for ones that stayed."""
    begin: float = 0.02
    """Share of the training after which it begins; 0 prunes before the first step."""
    end: float = 0.75
    """Share of the training after which the masks stay as they are."""
    every: int = 100
    """Steps between two changes of the masks."""


@dataclass(frozen=True)
class Config:
    """All settings of a run."""

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    field: FieldConfig = dataclasses.field(default_factory=FieldConfig)
    sampler: SamplerConfig = dataclasses.field(default_factory=SamplerConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    prune: PruneConfig = dataclasses.field(default_factory=PruneConfig)
    engine: Literal["auto", "cpu", "cuda", "tinycudann", "nerfacc", "tinycudann+nerfacc"] = "auto"
    """Where and by whom to compute; auto takes CUDA where it works."""

    @property
    def has_patches(self) -> bool:
        """Whether anything learns from patches."""
        return self.field.head != "none" or self.train.align > 0 or self.train.high_frequency > 0.0


_POSITIVE = """
    field.n_levels field.n_features field.log2_table_size field.base_resolution field.finest_resolution field.width
    field.geo_features field.sh_degree sampler.n_steps sampler.update_every sampler.observe_every sampler.n_probes
    field.head_width sampler.n_proposed train.time_budget train.samples_per_step train.final_lr train.report_every
    train.checkpoint_every prune.every
""".split()

_NOT_NEGATIVE = """
    sampler.imbalance_weight sampler.density_weight sampler.render_weight train.align train.offset_weight train.realign
    train.high_frequency field.color_width
""".split()

_SHARES = "field.bias_init train.detail_share train.dropped prune.fraction".split()


def check(config: Config) -> Config:
    """The config, if its numbers can be trained with. Raises ConfigError, naming the first key whose number cannot."""
    values = flat(dataclasses.asdict(config))
    for key in _POSITIVE:
        if not values[key] > 0:
            raise ConfigError(f"{key}: expected more than 0, found {values[key]!r}")
    if not 0.0 < config.train.early_stop < 1.0:
        raise ConfigError(f"train.early_stop: expected a share between 0 and 1, found {config.train.early_stop!r}")
    if config.sampler.resolution < 32 or config.sampler.resolution % 32:
        raise ConfigError(f"sampler.resolution: expected a multiple of 32, found {config.sampler.resolution!r}")
    for key in _NOT_NEGATIVE:
        if not values[key] >= 0:
            raise ConfigError(f"{key}: expected 0 or more, found {values[key]!r}")
    for key in _SHARES:
        if not 0.0 <= values[key] < 1.0:
            raise ConfigError(f"{key}: expected a share of 0 or more, below 1, found {values[key]!r}")
    _check_patches(config)
    _check_pruning(config)
    if config.train.tiles:
        tile_counts(config.train.tiles)
        if config.sampler.kind == "proposal":
            raise ConfigError(
                "sampler.kind: tiles are cut from cells, which proposals have none of; take grid or learned"
            )
        for key in ("train.poses", "train.exposure", "train.align", "train.realign"):
            if values[key]:
                raise ConfigError(f"{key}: each tile would find its own, and they would not fit; leave out one")
        if config.prune.fraction:
            raise ConfigError("prune.fraction: tiles are pruned one by one, once they are trained; leave out one")
        if config.train.mines:
            raise ConfigError("train.mining, train.dropped: tiles share their pictures; leave out one")
        if config.field.head != "none":
            raise ConfigError("field.head: tiles are put together from colours, which heads change; leave out one")
    return config


def _check_patches(config: Config) -> None:
    """Whether heads and the losses on patches have what they need. Raises ConfigError."""
    field, train = config.field, config.train
    if not 0.0 < train.patch_share <= 1.0:
        raise ConfigError(f"train.patch_share: expected a share above 0, 1 at most, found {train.patch_share!r}")
    if train.patch_size < _SMALLEST_PATCH:
        raise ConfigError(f"train.patch_size: expected at least {_SMALLEST_PATCH}, found {train.patch_size!r}")
    if not 1 <= field.head_features <= 13:
        raise ConfigError(f"field.head_features: expected 1 to 13, found {field.head_features!r}")
    if field.head == "sample" and config.sampler.kind != "proposal":
        raise ConfigError("field.head: sample needs samples alike on neighbouring rays; set sampler.kind to proposal")
    if field.head == "sample" and field.color_layers < 1:
        raise ConfigError("field.color_layers: 0 leaves no layer for field.head sample to convolve; take 1 or more")


def _check_pruning(config: Config) -> None:
    """Whether the numbers of `PruneConfig` are shares, in their order. Raises ConfigError."""
    prune = config.prune
    if not 0.0 <= prune.begin <= prune.end < 1.0:
        found = f"{prune.begin!r} and {prune.end!r}"
        raise ConfigError(f"prune.begin, prune.end: expected shares below 1 in this order, found {found}")


_SMALLEST_PATCH = 5
"""Pixels along one side: a trained network's eye for detail sees the 5x5 surroundings of a pixel."""


def tile_counts(tiles: str) -> tuple[int, ...]:
    """The numbers of ``train.tiles``: one, or one for each of two axes. Raises ConfigError.

    >>> tile_counts("2x3"), tile_counts("4")
    ((2, 3), (4,))
    """
    found = re.fullmatch(r"(\d+)(?:x(\d+))?", tiles.strip())
    counts = tuple(int(number) for number in found.groups() if number is not None) if found else ()
    if not 2 <= math.prod(counts) <= MOST_TILES:
        raise ConfigError(
            f"train.tiles: expected a number of tiles from 2 to {MOST_TILES}, or two such as 2x2, found {tiles!r}"
        )
    return counts


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested plain data with dotted keys.

    >>> flat({"train": {"steps": 5}, "engine": "auto"})
    {'train.steps': 5, 'engine': 'auto'}
    """
    out: dict[str, Any] = {}
    for key, value in tree.items():
        out |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return out


def to_dict(config: Config) -> dict[str, Any]:
    """The whole tree as plain data, with its schema number."""
    return {"schema": SCHEMA, **dataclasses.asdict(config)}
