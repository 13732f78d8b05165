"""A field's density on a lattice, and the density at which its surface agrees best with what the field shows.

A radiance field has no surface, it has fog that thickens; which density to call the surface is a choice that guessing
gets wrong by as much as the field's sharpness varies. Here it is found. Rays are sent from training cameras through
the field, and through the lattice: a surface at density s is what a ray meets where the lattice first exceeds s, so
one pass along the rays serves all thresholds, and no mesh is built for any of them. See `find_threshold`.

Densities are kept as natural logarithms: the field is the exponential of a smooth function, so between nodes its
logarithm is what a straight line describes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from nerfkit.cameras import Cameras
from nerfkit.kernels.cells import Cells
from nerfkit.kernels.composite import composite, gather
from nerfkit.kernels.launch import parallel
from nerfkit.kernels.march import sample_positions
from nerfkit.render import Model
from nerfkit.types import Field, Rays

FLOOR = math.log(1e-3)
"""Log density of what is empty: over the whole unit cube it would absorb a thousandth."""
SOLID = 0.5
"""Opacity from which a ray counts as ended by something."""
N_VIEWS, N_RAYS = 16, 32768
"""Training cameras that compare thresholds, and rays of all of them together."""
THRESHOLDS = (1.0, 1.0e4, 9)
"""Lowest and highest optical thickness of the lattice's longest side that is tried, and how many in all at first."""
REFINEMENTS = 3
"""How often the step between thresholds is halved about the best one: to a factor of 1.15."""
CLAMP = 3.0
"""Log densities farther than this from the threshold count as that far: a sudden face is put into the middle of the
cell that it lies in, a gradual one where it is."""
DEPTH_TOLERANCE, LOOSEST = 0.02, 0.08
"""Distance, as a share of the lattice's longest side, from which on two surfaces have nothing in common: in what is
sharp, and in the thickest fog."""
SPREADS = 3.0
"""The same in standard deviations of the places where a ray ends: fog has no depth that a surface could be nearer."""
_CHUNK, _BATCH = 16384, 1 << 19
"""Positions that one task evaluates, and those between two signs of progress."""
_RAY_CHUNK = 2048
MOST_PARTS = 8
"""Places at most where the lattice is read within one sample of the field."""

TrackFn = Callable[[Iterable[int], str], Iterable[int]]
"""Passes items through, one when the one before is done, under the name of the work: the place for a bar."""


class ExportError(ValueError):
    """Nothing to export, or nowhere to put it: one sentence."""


def untracked(items: Iterable[int], text: str) -> Iterable[int]:
    """A `TrackFn` that shows nothing."""
    return items


@dataclass(frozen=True)
class Lattice:
    """Log densities at the nodes of a cubic lattice, model coordinates; `FLOOR` where nobody looked."""

    values: Float[Tensor, "nx ny nz"]
    """Natural logarithm of the density per model unit, at least `FLOOR`."""
    low: tuple[float, float, float]
    """The first node."""
    cell: float
    """Distance between neighbours."""

    @property
    def side(self) -> float:
        """The longest side of the whole, model units."""
        return self.cell * (max(self.values.shape) - 1)

    def has_surface(self, threshold: float) -> bool:
        """Whether the surface at a density has an inside, and an outside that reaches the border."""
        faces = [self.values.select(axis, end) for axis in range(3) for end in (0, -1)]
        level = math.log(threshold)
        return min(float(face.min()) for face in faces) < level < float(self.values.max())

    def about(self, threshold: float) -> Lattice:
        """Log densities less that of a threshold, within +-`CLAMP`: the surface is where they pass zero."""
        return replace(self, values=(self.values - math.log(threshold)).clamp(-CLAMP, CLAMP))

    def _nodes(self, positions: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n 3"], Float[Tensor, " 3"]]:
        """Positions in units of cells from the first node, and the last node in the same units."""
        last = torch.tensor(self.values.shape, device=positions.device) - 1.0
        return (positions - positions.new_tensor(self.low)) / self.cell, last

    def holds(self, positions: Float[Tensor, "n 3"]) -> Bool[Tensor, " n"]:
        """Whether positions lie within the lattice."""
        nodes, last = self._nodes(positions)
        return ((nodes >= 0) & (nodes <= last)).all(1)

    def at(self, positions: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Log densities between the nodes (trilinear); `FLOOR` outside."""
        if not len(positions):
            return positions.new_zeros(0)
        nodes, last = self._nodes(positions)
        # grid_sample counts axes from the last, and from -1 to 1.
        grid = (nodes / last * 2 - 1).flip(1).view(1, -1, 1, 1, 3)
        found = F.grid_sample(self.values[None, None], grid, align_corners=True).view(-1)
        return torch.where(self.holds(positions), found, FLOOR)


@dataclass(frozen=True)
class Agreement:
    """How well the surface at a density matches what the field itself shows, over rays from training cameras."""

    threshold: float
    """Density per model unit."""
    iou: float
    """Rays that meet the surface and are opaque in the field, as a share of those for which either holds."""
    depth_error: float
    """Median distance between the surface and the field's expected distance along rays for which both hold, scene
    units."""
    score: float
    """What `find_threshold` maximises, 0 to 1."""


def log_density(field: Field, positions: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """Natural logarithms of the field's densities, at least `FLOOR`, without gradient; positions are clamped."""

    def part(begin: int) -> Tensor:
        with torch.no_grad():
            sigmas = field.density(positions[begin : begin + _CHUNK].clamp(0, 1))[0]
            return sigmas.float().clamp(min=math.exp(FLOOR)).log()

    parts = parallel(part, range(0, len(positions), _CHUNK), positions.device)
    return torch.cat(parts) if parts else positions.new_zeros(0)


def normals_of(field: Field, positions: Float[Tensor, "n 3"], step: float) -> Float[Tensor, "n 3"]:
    """Unit vectors in which the density falls fastest; zero where it does not change.

    Central differences of the log density over ``step`` (model units) to either side.
    """
    offsets = step * torch.eye(3, device=positions.device)
    around = (positions[:, None, None] + torch.stack([-offsets, offsets])).view(-1, 3)
    values = log_density(field, around).view(-1, 2, 3)
    return F.normalize(values[:, 0] - values[:, 1], dim=1)


def nodes_to_evaluate(cells: Cells, axes: list[Float[Tensor, " _"]], cell: float) -> Bool[Tensor, "_ _ _"]:
    """Nodes in or beside a cell that the occupancy grid marks occupied, at any of its levels.

    Args:
        cells: of the grid.
        axes: model coordinates of the lattice's nodes along x, y and z.
        cell: their distance; the border is at least that wide, and one cell of the grid.
    """
    resolution, n_levels = cells.stepping.resolution, cells.stepping.n_levels
    all_occupied = cells.occupied[:, None, None]
    found = torch.zeros([len(axis) for axis in axes], dtype=torch.bool, device=cells.bits.device)
    for level in range(n_levels):
        side = 0.5 ** (n_levels - 1 - level)
        border = max(1, math.ceil(cell * resolution / side - 1e-6))
        near = all_occupied[level].float()
        for axis in range(3):
            kernel, pad = [1, 1, 1], [0, 0, 0]
            kernel[axis], pad[axis] = 2 * border + 1, border
            near = F.max_pool3d(near, kernel, 1, pad)
        part = near[0, 0] > 0
        for axis, places in enumerate(axes):
            index = (((places - 0.5) / side + 0.5) * resolution).floor().long()
            beside = (index >= -border) & (index < resolution + border)
            part = part.index_select(axis, index.clamp(0, resolution - 1))
            part &= beside.view([-1 if a == axis else 1 for a in range(3)])
        found |= part
    return found


def evaluate_lattice(model: Model, resolution: int, levels: int = 1, track_fn: TrackFn = untracked) -> Lattice:
    """The field's density wherever the occupancy grid lets it be seen.

    Args:
        model: field, occupancy grid and frame.
        resolution: cells along the longest side of the box.
        levels: nested boxes of the grid that are looked at: 1 takes the innermost, as large as what the cameras look
            at; an object that its box encloses has no other.
        track_fn: may show how far it is.

    Raises ExportError where the grid holds nothing.
    """
    side = 0.5 ** max(model.frame.n_levels - levels, 0)
    aabb = model.frame.model_aabb
    low = [max(aabb[axis], 0.5 - side / 2) for axis in range(3)]
    high = [min(aabb[axis + 3], 0.5 + side / 2) for axis in range(3)]
    cell = max(top - bottom for bottom, top in zip(low, high, strict=True)) / resolution
    axes = []
    for bottom, top in zip(low, high, strict=True):
        n = max(math.ceil((top - bottom) / cell - 1e-6), 1)
        axes.append((bottom + top) / 2 + (torch.arange(n + 1, device=model.device) - n / 2) * cell)
    nodes = nodes_to_evaluate(model.sampler.cells(), axes, cell)
    if not nodes.any():
        raise ExportError("no surface found: the occupancy grid is empty; train longer")
    for axis in range(3):  # all that lies outside is empty
        seen = nodes.any(dim=[a for a in range(3) if a != axis]).nonzero()
        first, last = max(int(seen.min()) - 1, 0), min(int(seen.max()) + 1, len(axes[axis]) - 1)
        axes[axis] = axes[axis][first : last + 1]
        nodes = nodes.narrow(axis, first, last + 1 - first)
    nodes = nodes.contiguous()
    values = torch.full(nodes.shape, FLOOR, device=model.device)
    flat, where = values.view(-1), nodes.view(-1).nonzero()[:, 0]
    _, ny, nz = nodes.shape
    for begin in track_fn(range(0, len(where), _BATCH), "density"):
        batch = where[begin : begin + _BATCH]
        columns = (axes[0][batch // (ny * nz)], axes[1][batch // nz % ny], axes[2][batch % nz])
        flat[batch] = log_density(model.field, torch.stack(columns, 1))
    return Lattice(values, tuple(float(axis[0]) for axis in axes), cell)


@dataclass(frozen=True)
class _Looks:
    """What rays show of the field within the lattice's box, and the places on their way where the lattice is read."""

    opacity: Float[Tensor, " rays"]
    distance: Float[Tensor, " rays"]
    spread: Float[Tensor, " rays"]
    """Standard deviation of the distance at which light comes from the ray."""
    owner: Int[Tensor, " n"]
    t: Float[Tensor, " n"]
    positions: Float[Tensor, "n 3"]


def _look(lattice: Lattice, model: Model, rays: Rays) -> _Looks:
    """Composite the field within the lattice's box, and divide the samples so that each cell is read."""

    def part(begin: int) -> tuple[Tensor, ...]:
        with torch.no_grad():
            chunk = rays[begin : begin + _RAY_CHUNK]
            samples = model.sampler.sample(chunk, torch.full_like(chunk.cos, 0.5))
            positions = sample_positions(chunk, samples)
            sigmas = model.field.density(positions)[0].float() * lattice.holds(positions)
            colors, background = torch.zeros_like(positions), torch.zeros_like(chunk.rays_o)
            _, opacity, t_sum, weights = composite(sigmas, colors, samples, background)
            distance = t_sum / opacity.clamp(min=1e-6)
            n = samples.n_owned
            start = samples.t_starts[:n, None]
            length = samples.t_ends[:n, None] - start
            n_parts = min(max(math.ceil(float(length.max()) / lattice.cell), 1), MOST_PARTS) if n else 1
            t = (start + length * (torch.arange(n_parts, device=start.device) + 0.5) / n_parts).view(-1)
            rows = samples.ray_indices[:n].long()
            off = (start[:, 0] + length[:, 0] / 2 - distance[rows]) ** 2
            spread = (gather(weights[:n], off[:, None], samples)[:, 0] / opacity.clamp(min=1e-6)).sqrt()
            owner = rows.repeat_interleave(n_parts)
            places = chunk.rays_o[owner] + t[:, None] * chunk.rays_d[owner]
            return opacity, distance, spread, owner + begin, t, places

    parts = parallel(part, range(0, len(rays), _RAY_CHUNK), model.device)
    return _Looks(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _compare(looks: _Looks, lattice: Lattice, threshold: float, scale: float) -> Agreement:
    """How well the surface at one density agrees with the field: not at all where there is none."""
    surface, n = lattice.about(threshold), len(looks.t)

    def part(begin: int) -> Tensor:
        return surface.at(looks.positions[begin : begin + _BATCH]) > 0

    inside = parallel(part, range(0, max(n, 1), _BATCH), looks.t.device)
    met = torch.where(torch.cat(inside), looks.t, torch.inf)
    first = torch.full_like(looks.distance, torch.inf).scatter_reduce_(0, looks.owner, met, "amin")
    hit, solid = first.isfinite(), looks.opacity > SOLID
    both, either = hit & solid, int((hit | solid).sum())
    error = (first - looks.distance)[both].abs()
    tolerance = (SPREADS * looks.spread[both]).clamp(DEPTH_TOLERANCE * lattice.side, LOOSEST * lattice.side)
    score = float((1 - error / tolerance).clamp(min=0).sum()) / max(either, 1)
    score *= lattice.has_surface(threshold)
    median = float(error.median()) / scale if len(error) else math.inf
    return Agreement(threshold, int(both.sum()) / max(either, 1), median, score)


def find_threshold(lattice: Lattice, model: Model, cameras: Cameras, threshold: float | None = None) -> Agreement:
    """The density at which the lattice's surface agrees best with the field's own pictures.

    Over rays through random pixels of `N_VIEWS` cameras, let O be those with an opacity above `SOLID` in the field
    (composited within the lattice's box alone), and H those along which the lattice exceeds the threshold, first at
    distance t. The score is

        sum over H and O of max(0, 1 - |t - distance| / tolerance)  /  |H or O|

    an intersection over union of silhouettes in which a ray that both hit counts the less, the farther apart both
    surfaces are, and nothing at `DEPTH_TOLERANCE`, in fog at `SPREADS`. Silhouettes alone hardly tell one
    threshold from another on thick things, and depths alone ignore what is missing.

    Args:
        lattice: of the model's field.
        model: field, occupancy grid and frame.
        cameras: those trained on, scene coordinates.
        threshold: density per model unit to be judged alone; None tries `THRESHOLDS`, then about the best of them.

    Raises ExportError where no ray is opaque, or no threshold is met by one that is.
    """
    views = torch.linspace(0, len(cameras) - 1, min(N_VIEWS, len(cameras))).round().long()
    generator = torch.Generator().manual_seed(0)
    owner = views[torch.randint(len(views), (N_RAYS,), generator=generator)]
    size = torch.stack([cameras.width, cameras.height], 1)[owner].cpu()
    pixels = (torch.rand(N_RAYS, 2, generator=generator) * size).floor() + 0.5
    rays = model.frame.model_rays(cameras.rays(owner, pixels)).to(model.device)
    looks = _look(lattice, model, rays)
    if not (looks.opacity > SOLID).any():
        raise ExportError(f"no surface found: none of {N_RAYS} rays from the training cameras is opaque; train longer")

    def judged(density: float) -> Agreement:
        return _compare(looks, lattice, density, model.frame.scale)

    low, high, n = THRESHOLDS
    tried = [threshold] if threshold else (torch.logspace(math.log10(low), math.log10(high), n) / lattice.side).tolist()
    best = max(map(judged, tried), key=lambda agreement: agreement.score)
    for halving in range(1, REFINEMENTS + 1) if threshold is None else ():
        step = (high / low) ** (0.5**halving / (n - 1))
        others = judged(best.threshold / step), judged(best.threshold * step)
        best = max(best, *others, key=lambda agreement: agreement.score)
    if best.score == 0:
        raise ExportError("no surface found: no density that the field reaches agrees with its own pictures")
    return best
