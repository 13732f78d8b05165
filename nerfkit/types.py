"""What flows through nerfkit, and the page of names.

Data flows one way::

    folder -> load_scene -> Scene -> Rays -> sampler -> Samples (packed) -> field -> composite -> Rendered -> losses

Frames and units
    ``c2w``            camera-to-world, (..., 3, 4), **OpenCV axes**: +x right, +y down, +z forward.
    pixel              (x, y); the centre of the first pixel is (0.5, 0.5).
    scene coordinates  those of the files a scene was read from: exports and camera paths are in them.
    model coordinates  the unit cube that a field lives in; ``Frame`` converts (a similarity, no rotation).
    ``rays_o``         ray origins; ``rays_d`` **unit** directions.
    ``t``              Euclidean distance along the unit ray; ``t_starts``, ``t_ends`` bound a sample.
    ``near_plane``     and ``far_plane`` bound ``t``.
    ``aabb``           (xmin, ymin, zmin, xmax, ymax, zmax).

Samples and pictures
    ``ray_indices``    owner of each sample; ``packed_info`` (start, count) of each ray.
    ``sigmas``         density after activation, per unit of ``t``; ``rgbs`` colour in [0, 1].
    ``alphas``         1 - exp(-sigma * (t_end - t_start)); ``trans`` transmittance before the sample.
    ``weights``        trans * alpha; they sum to ``opacity``.
    ``distance``       expected ``t``, sum of weights * t_mid / opacity; ``depth`` the same as z in the camera.
    ``background``     colour behind a ray, blended by 1 - opacity.

Counts are ``n_*``, callables ``*_fn``, periods in steps ``*_every``, loss weights ``*_weight``. A ``scene`` is a folder
of posed images, a ``split`` one of train/val/test, a ``run`` the folder of one training. Colours are RGB in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerfkit.ranks import Ranks


@dataclass(frozen=True)
class Rays:
    """A bundle of rays in one coordinate frame (scene or model: the holder says which)."""

    rays_o: Float[Tensor, "n_rays 3"]
    """Origins."""
    rays_d: Float[Tensor, "n_rays 3"]
    """Unit directions."""
    cos: Float[Tensor, " n_rays"]
    """Cosine between the ray and its camera's optical axis: ``depth = distance * cos``."""

    def __len__(self) -> int:
        return self.rays_o.shape[0]

    def __getitem__(self, which: slice | Tensor) -> Rays:
        return Rays(self.rays_o[which], self.rays_d[which], self.cos[which])

    def to(self, device: torch.device) -> Rays:
        """The same rays on another device."""
        return Rays(self.rays_o.to(device), self.rays_d.to(device), self.cos.to(device))


@dataclass(frozen=True)
class Samples:
    """Intervals on rays, packed: those of ray r are ``start .. start + count`` of ``packed_info[r]``.

    The arrays may end in rows that no ray owns: they make the shapes of successive steps repeat, which lets the
    machinery below prepare itself once for each shape.
    """

    packed_info: Int[Tensor, "n_rays 2"]
    """(start, count) of each ray, int32."""
    ray_indices: Int[Tensor, " n_samples"]
    """Owner of each sample, int32, ascending; 0 in rows that no ray owns."""
    t_starts: Float[Tensor, " n_samples"]
    t_ends: Float[Tensor, " n_samples"]
    n_owned: int
    """Rows that a ray owns: the sum of the counts."""

    def __len__(self) -> int:
        return self.t_starts.shape[0]


@dataclass(frozen=True)
class Met:
    """What the rays of a training step met."""

    rays: Rays
    """In model coordinates."""
    samples: Samples
    """Those that were offered to the rays, whether they reached them or not."""
    sigmas: Float[Tensor, " n_samples"]
    """Densities per model unit; 0 at samples that their rays did not reach."""
    truth: Float[Tensor, "n_rays 3"]
    """What the rays should have shown."""
    background: Float[Tensor, "n_rays 3"]


@dataclass(frozen=True)
class Rendered:
    """What rays (or a whole image: leading dimensions h, w) look like."""

    rgb: Float[Tensor, "*rays 3"]
    opacity: Float[Tensor, "*rays"]
    distance: Float[Tensor, "*rays"]
    """Expected distance along the ray, scene units; 0 where opacity is 0."""
    depth: Float[Tensor, "*rays"]
    """Expected z in the camera, scene units; 0 where opacity is 0."""
    counts: Int[Tensor, "*rays"]
    """Samples that each ray reached: those of which the picture is made."""
    features: Float[Tensor, "*rays d"]
    """What rays gathered for a head, with which it corrects the colours of a whole picture; mostly nothing, d = 0."""

    @property
    def n_samples(self) -> int:
        """Those of all rays together."""
        return int(self.counts.sum())


@runtime_checkable
class Field(Protocol):
    """What is at a point: density, and colour seen from a direction. Positions are in the unit cube."""

    def density(self, positions: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n c"]]:
        """Density (per model unit, >= 0) and the features that `color` takes."""
        ...

    def color(
        self, features: Float[Tensor, "n c"], rays_d: Float[Tensor, "n_rays 3"], ray_indices: Int[Tensor, " n"]
    ) -> Float[Tensor, "n d"]:
        """RGB in [0, 1] of features seen along the unit directions of the rays that own them; then, in further columns,
        what rays gather beside it."""
        ...


@runtime_checkable
class Sampler(Protocol):
    """Where to look along rays."""

    def sample(self, rays: Rays, jitter: Float[Tensor, " n_rays"]) -> Samples:
        """Intervals worth evaluating; ``jitter`` in [0, 1) shifts each ray's first step."""
        ...

    def steps(self, rays: Rays, jitter: Float[Tensor, " n_rays"]) -> Any:
        """Where a kernel of whole rays steps: `sample`'s intervals, or the `kernels.cells.Cells` that hold them."""
        ...

    def cells(self) -> Any:
        """The `kernels.cells.Cells` outside of which nothing is looked for now."""
        ...


@runtime_checkable
class LearningSampler(Sampler, Protocol):
    """A sampler while a field is trained. ``occupancy`` is the share of its cells that are occupied, in [0, 1]."""

    occupancy: float

    def watches(self) -> bool:
        """Whether it wants to be told what the rays of the coming training step meet."""
        ...

    def update(self, step: int, field: Field, mets: Sequence[Met] = ()) -> None:
        """After training step ``step``: learn from what its rays met, part by part, and from the field as it is now."""
        ...

    def share(self, ranks: Ranks) -> None:
        """Take in what rays of other ranks met and `update` was not told: before it looks, and before a checkpoint."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state_dict`."""
        ...
