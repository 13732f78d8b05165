"""Whole rays in one kernel, for a CPU core: march, encode, both networks and compositing, sixteen samples at a time.

What `march`, `hashgrid`, `shade` and `composite` do with one launch each, over all samples, is done here for one ray
after the other, with their numerics. A ray ends where it is opaque, so nothing behind is looked up; what a layer writes
the next one reads from the cache; and the interpreter takes no part. The backward pass goes over the rays for the
compositing, then over tiles of samples for the networks.

Kept for the backward pass are, for each sample that a ray reached: a row of activations (`dense.Layer`), its position
as it was looked up, and ``[t, dt, sigma, weight, r, g, b, 0]``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nerfkit.kernels.cells import Cells
from nerfkit.kernels.contraction import CONTRACTION
from nerfkit.kernels.corners import BLOCK, BLOCKS
from nerfkit.kernels.dense import Layer, dense_text, padded
from nerfkit.kernels.hashgrid import HashGrid
from nerfkit.kernels.launch import Native
from nerfkit.kernels.lesson import Judge, Learned, Lesson
from nerfkit.kernels.march import Stepping
from nerfkit.kernels.ray import BACKWARD, ENTER, HARMONICS, LISTED, MARCH, RAYS, STEP, VECTORS
from nerfkit.types import Met, Rays, Samples

Where = Cells | Samples
"""Where rays step: through cells, or at samples that were found for them beforehand."""
_N_VALUES = 8
_MAX_LOG_DENSITY = 15.0


@dataclass(frozen=True)
class Networks:
    """Shapes of a hash field's parts, which a kernel is compiled for."""

    n_levels: int
    n_features: int
    density: tuple[int, ...]
    """Numbers of the density network's layers, from the encoding to the geometry features."""
    color: tuple[int, ...]
    """The same from geometry features and harmonics to the three colours and what else rays gather, 16 at most."""

    @cached_property
    def n_weights(self) -> int:
        """Numbers of all matrices."""
        return sum(a * b for sizes in (self.density, self.color) for a, b in zip(sizes, sizes[1:], strict=False))

    @cached_property
    def layers(self) -> tuple[list[Layer], int, int]:
        """All layers, the density network's first; the numbers of a row; those of all padded matrices."""
        layers: list[Layer] = []
        column = weights = packed = 0
        for sizes in (self.density, self.color):
            for i, (n_in, n_out) in enumerate(zip(sizes, sizes[1:], strict=False)):
                target = column + padded(n_in)
                last = i == len(sizes) - 2
                n_differentiated = self.density[-1] if i == 0 and sizes is self.color else n_in
                layer = Layer(n_in, n_out, column, target, weights, packed, not last, i > 0, n_differentiated)
                layers.append(layer)
                column, weights, packed = target, weights + n_in * n_out, packed + layer.n_packed
        return layers, column + padded(self.color[-1]), packed


def _text(networks: Networks, stored: str, word: str, body: str) -> str:
    """One function's C++ text: the layers of these networks, then ``body`` with its constants."""
    layers, stride, n_packed = networks.layers
    n_density = len(networks.density) - 1

    def forward(numbers: range, n: str) -> str:
        last = numbers[-1]
        return "".join(f"layer_{i}::forward(R, {n}, W, {'raw' if i == last else 'nullptr'});\n" for i in numbers)

    backward, gradient, width = "", f"R + {layers[-1].target}", stride
    for i in reversed(range(len(layers))):
        to = "to" if i == 0 else f"g[{i % 2}]"
        backward += f"layer_{i}::backward(R, n, {gradient}, {width}, W, sums, {to});\n"
        gradient, width = to, padded(layers[i].n_differentiated)
        if i == n_density:
            add = f"{to}[q * {width}] = (word)((float){to}[q * {width}] + g_log_sigmas[at + q])"
            backward += f"for (int q = 0; q < n; ++q) {add};\n"
    constants = {
        "HARMONICS\n": HARMONICS,
        "STEP\n": STEP,
        "DENSITY_LAYERS": forward(range(n_density), "n"),
        "COLOR_LAYERS": forward(range(n_density, len(layers)), "reached"),
        "BACKWARD_LAYERS": backward,
        "N_HARMONICS": networks.color[0] - networks.density[-1],
        "N_GEO": networks.density[-1],
        "SHOWN": networks.color[-1],
        "GEO_PADDED": padded(networks.density[-1]),
        "COLOR_IN": layers[n_density].source,
        "COLOR_PADDED": padded(networks.color[0]),
        "OUTPUT": layers[-1].target,
        "ENCODED": padded(networks.density[0]),
        "LEVELS": networks.n_levels,
        "FEATURES": networks.n_features,
        "STORED": stored,
        "N_PACKED": n_packed,
        "WIDEST_OUT": max(padded(layer.n_out) for layer in layers if not layer.relu),
        "WIDEST": max(padded(layer.n_in) for layer in layers),
        "MAX_LOG": f"{_MAX_LOG_DENSITY}f",
        "BLOCK_": BLOCK,
        "VALUES_": _N_VALUES,
    }
    text = dense_text(layers, stride, word) + BLOCKS + VECTORS + CONTRACTION + body
    before, each, after = text.partition("EACH_LAYER(")
    if each:
        call, _, after = after.partition(";)")
        text = before + "".join(call.replace("INDEX", str(i)) + ";\n" for i in range(len(layers))) + after
    for name, value in constants.items():
        text = text.replace(name, str(value))
    return text


_STORED = {torch.float16: "_Float16", torch.float32: "float"}


@lru_cache
def _forward(networks: Networks, stored: torch.dtype, word: str, listed: bool) -> Native:
    tensors = {"rays_o": "float", "rays_d": "float", "jitter": "float", "background": "float"}
    tensors |= {"listed": "const int", "listed_starts": "const float", "listed_ends": "const float"}
    tensors |= {
        "bits": "int",
        "clear": "const unsigned char",
        "scales": "float",
        "resolutions": "unsigned",
        "offsets": "int",
    }
    tensors |= {"table": "stored", "weights": "float", "packed": "word", "rows": "word", "positions": "float"}
    tensors |= {"values": "float", "window": "float", "packed_info": "int"}
    tensors |= {"rgb": "float", "opacity": "float", "t_sum": "float"}
    tensors |= {"truth": "const float", "g_rgb": "float", "totals": "double"}
    numbers = {"n_rays": "int", "capacity": "int", "keep": "bool", "noting": "bool", "early_stop": "float"}
    numbers |= {"learning": "bool", "delta": "float", "factor": "float"}
    numbers |= {"n_levels": "int", "res": "int", "cone_angle": "float", "min_step": "float", "max_step": "float"}
    numbers |= {"near_plane": "float", "far_plane": "float", "max_samples": "int"}
    numbers |= {"half_side": "float"}
    rays = (
        RAYS.replace("ENTER\n", ENTER)
        .replace("STEPS\n", LISTED if listed else MARCH)
        .replace("FIRST", "listed[2 * r]" if listed else "0")
    )
    head, _, body = _text(networks, _STORED[stored], word, "//BODY" + rays).partition("//BODY")
    return Native(head, body, tensors, numbers)


@lru_cache
def _backward(networks: Networks, word: str) -> Native:
    tensors = {"packed_info": "int", "background": "float", "opacity": "float", "g_rgb": "float"}
    tensors |= {"g_opacity": "float", "g_t_sum": "float", "packed": "word", "rows": "word", "values": "float"}
    tensors |= {"g_log_sigmas": "float", "sums": "float", "g_encoded": "word", "g_weights": "float"}
    numbers = {"n_rays": "int", "n_samples": "int", "reach": "float"}
    numbers |= {"distortion": "float", "halfway": "float"}
    head, _, body = _text(networks, "float", word, "//BODY" + BACKWARD).partition("//BODY")
    return Native(head, body, tensors, numbers)


@dataclass(frozen=True)
class Target:
    """What rays are cast into: a hash field's parts."""

    networks: Networks
    grid: HashGrid
    table: Float[Tensor, "entries features"]
    rounded: Float[Tensor, "entries features"]
    """The table as it is looked up: itself, or a copy in half precision."""
    weights: Float[Tensor, " n_weights"]
    word: str
    """Format of the networks' numbers."""


@dataclass(frozen=True)
class _Room:
    """Where the samples of one call are kept until its backward pass.

    Rooms are used again: a training asks for one some hundred times a second, and memory that is handed back so often
    goes to pieces.
    """

    rows: Tensor
    positions: Float[Tensor, "room 3"]
    values: Float[Tensor, "room n_values"]


_free_rooms: dict[tuple[int, int, torch.dtype], list[_Room]] = {}


def _take_room(n: int, stride: int, dtype: torch.dtype) -> _Room:
    free = _free_rooms.setdefault((n, stride, dtype), [])
    try:
        return free.pop()
    except IndexError:
        return _Room(torch.empty(n, stride, dtype=dtype), torch.empty(n, 3), torch.empty(n, _N_VALUES))


def _give_back(room: _Room) -> None:
    _free_rooms[len(room.rows), room.rows.shape[1], room.rows.dtype].append(room)


@dataclass(frozen=True)
class _Pass:
    """What a forward pass made of rays."""

    rgb: Float[Tensor, "n_rays c"]
    """And what else rays gathered."""
    opacity: Float[Tensor, " n_rays"]
    t_sum: Float[Tensor, " n_rays"]
    packed_info: Int[Tensor, "n_rays 2"]
    g_rgb: Float[Tensor, "n c"]
    """The loss's gradient, where there was a lesson."""
    totals: Float[Tensor, " 2"]
    """Number of samples, loss."""
    packed: Tensor
    room: _Room


_NOTHING = torch.empty(0)
_AS_LISTED = Cells(_NOTHING.int(), _NOTHING.int(), _NOTHING.byte(), Stepping(1, 32, 0.0, 0.0, 0.0), _NOTHING)
"""In place of cells where the samples are listed; only the most samples of a ray are looked at."""


def _forth(
    target: Target, where: Where, rays: Rays, jitter: Tensor, background: Tensor, lesson: Lesson, learning: bool
) -> _Pass:
    """The forward pass: pictures of rays, and where ``learning`` also their loss and its gradient."""
    _, stride, n_packed = target.networks.layers
    n, keep = len(rays), lesson.capacity > 0
    dtype = getattr(torch, target.word)
    room = _take_room((lesson.capacity if keep else 0) + BLOCK, stride, dtype)
    shown = target.networks.color[-1]
    numbers = torch.empty(n, shown), torch.empty(n), torch.empty(n), torch.empty(n, 2, dtype=torch.int32)
    g_rgb, totals = torch.empty(n if learning else 0, shown), torch.empty(2, dtype=torch.float64)
    done = _Pass(*numbers, g_rgb, totals, torch.empty(2 * n_packed, dtype=dtype), room)
    listed = isinstance(where, Samples)
    cells = _AS_LISTED if listed else where
    steps = [where.packed_info, where.t_starts, where.t_ends] if listed else [_NOTHING] * 3
    tensors = [rays.rays_o, rays.rays_d, jitter, background, *steps, cells.bits, cells.clear, *target.grid.levels]
    tensors += [target.rounded, target.weights, done.packed, room.rows, room.positions, room.values, cells.window]
    tensors += [done.packed_info, done.rgb, done.opacity, done.t_sum, lesson.truth, g_rgb, totals]
    s = cells.stepping
    values = [n, lesson.capacity if keep else BLOCK, keep, len(cells.window), lesson.early_stop, learning]
    values += [lesson.delta, lesson.factor, s.n_levels, s.resolution]
    values += [s.cone_angle, s.min_step, s.max_step, s.near_plane, s.far_plane, s.max_samples]
    values += [target.grid.half]
    _forward(target.networks, target.rounded.dtype, target.word, listed)(tensors, values)
    return done


def _back(target: Target, background: Tensor, lesson: Lesson, done: _Pass, gradients: Sequence[Tensor]) -> Tensor:
    """Gradient of the weights from those of colour, opacity and t_sum; that of the table goes to the grid."""
    networks, room = target.networks, done.room
    n = int(done.packed_info[-1].sum()) if len(done.packed_info) else 0
    g_weights, g_log_sigmas = torch.zeros(networks.n_weights), torch.empty(n)
    g_encoded = torch.empty(n, padded(networks.density[0]), dtype=room.rows.dtype)
    tensors = [done.packed_info, background, done.opacity, *gradients, done.packed, room.rows, room.values]
    tensors += [g_log_sigmas, torch.zeros(networks.layers[2]), g_encoded, g_weights]
    numbers = [len(done.packed_info), n, max(lesson.reach, 1e-9), lesson.distortion, lesson.halfway]
    _backward(networks, target.word)(tensors, numbers)
    target.grid.backward(room.positions[:n].clone(), g_encoded[:, : networks.density[0]], target.table)
    return g_weights


class _Cast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, table: Tensor, call: tuple[Any, ...]) -> tuple[Tensor, ...]:
        target, where, rays, jitter, background, lesson = call
        done = _forth(target, where, rays, jitter, background, lesson, learning=False)
        if lesson.capacity > 0:
            ctx.call = target, background, lesson
            ctx.done = done
        else:
            _give_back(done.room)
        ctx.mark_non_differentiable(done.packed_info)
        ctx.set_materialize_grads(True)
        return done.rgb, done.opacity, done.t_sum, done.packed_info

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        g_weights = _back(*ctx.call, ctx.done, [g.contiguous() for g in gradients[:3]])
        _give_back(ctx.done.room)
        del ctx.done  # a second backward pass has nothing left to go through
        return g_weights, None, None


def cast(
    target: Target,
    where: Where,
    rays: Rays,
    jitter: Float[Tensor, " n_rays"],
    background: Float[Tensor, "n_rays 3"],
    early_stop: float,
    reach: float = 0.0,
    capacity: int = 0,
) -> tuple[Float[Tensor, "n_rays c"], Float[Tensor, " n_rays"], Float[Tensor, " n_rays"], Int[Tensor, "n_rays 2"]]:
    """Colour, opacity and sum of weights * t of rays (model coordinates); (start, count) of the samples each reached.

    Behind the colour stands what else the colour network says of a sample, summed over the ray by the same weights and
    without a background. Differentiable in the weights and the table of ``target`` where ``capacity`` is positive: room
    for that many samples is kept, and rays end where it is used up. ``jitter`` is `march`'s, ``reach`` `composite`'s.
    """
    lesson = Lesson(background.new_empty(0, 3), 0.0, 0.0, early_stop, reach, capacity)
    return _Cast.apply(target.weights, target.table, (target, where, rays, jitter, background.contiguous(), lesson))


def learn(
    target: Target,
    where: Where,
    rays: Rays,
    jitter: Float[Tensor, " n_rays"],
    background: Float[Tensor, "n_rays 3"],
    lesson: Lesson,
    meeting: bool = False,
    judge: Judge | None = None,
) -> Learned:
    """`cast`, a loss and its backward pass at once: a training step's share, in two calls of compiled code.

    Each operation on tensors finds its own code gone from the cache after such a call, and takes ten times as long as
    usual; a loss and its graph would cost a fifth of a step. With ``meeting`` it also tells what the rays met. A
    ``judge`` brings a loss of its own between the two calls, in place of the lesson's, which may compare all that the
    rays gathered with what it likes.
    """
    done = _forth(target, where, rays, jitter, background, lesson, learning=judge is None)
    n_samples, loss = done.totals.tolist()
    if judge is None:
        rgb, g_gathered, g_more = done.rgb[:, :3], done.g_rgb, ()
    else:
        verdict = judge(done.rgb)
        loss, rgb, g_gathered, g_more = verdict.loss, verdict.rgb, verdict.g_gathered.contiguous(), verdict.g_more
    nothing = torch.zeros(len(rays))
    g_weights = _back(target, background, lesson, done, [g_gathered, nothing, nothing])
    met = _met(where, rays, done, lesson.truth, background) if meeting else None
    _give_back(done.room)
    return Learned(g_weights, rgb, done.opacity, int(n_samples), len(rays), loss, met, g_more)


def _met(where: Where, rays: Rays, done: _Pass, truth: Tensor, background: Tensor) -> Met:
    """What the rays met: of listed samples all, of those in cells the ones that were reached."""
    counts, n = done.packed_info[:, 1].long(), int(done.packed_info[-1].sum())
    values, owners = done.room.values[:n], torch.repeat_interleave(counts)
    if isinstance(where, Samples):
        samples = where
        rows = (where.packed_info[:, 0] - done.packed_info[:, 0])[owners] + torch.arange(n)
    else:
        start, length = values[:, 0] - 0.5 * values[:, 1], values[:, 1]
        samples, rows = Samples(done.packed_info, owners.int(), start, start + length, n), torch.arange(n)
    return Met(rays, samples, torch.zeros(len(samples)).index_copy_(0, rows, values[:, 2]), truth, background)
