"""A trained scene in one file: all that pictures are made of, and nothing else.

::

    bytes       what
    8           "NERFKIT" and the version of the format
    4           length of the rest of the header, little-endian
    ...         the header: JSON, deflated: settings, frame, scene, steps of numbers, and the length of each section
    ...         sections, coarse to fine: networks, cells, and the levels of the table, each a stream of `kernels.coder`
    16          BLAKE2b of all before

Numbers are whole multiples of steps that the header holds, entries of the table that no sample in an occupied cell can
reach are left out, and what is decoded is the same to the last bit on every machine. What a file says about itself is
its length: there is nothing beside it.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int16
from torch import Tensor

from nerfkit.aside import file_aside
from nerfkit.config import Config, ConfigError, check, to_dict
from nerfkit.fields.hash import layout_of
from nerfkit.kernels.cells import Cells
from nerfkit.kernels.coder import MOST, Coder
from nerfkit.kernels.hashgrid import GridLayout
from nerfkit.kernels.reach import reachable
from nerfkit.presets import from_dict
from nerfkit.run import Checkpoint, Run, RunError
from nerfkit.sampling.settled import state_of
from nerfkit.sampling.stepping import stepping_of
from nerfkit.scene.scene import Frame

SUFFIX = ".nerf"
_MAGIC, _VERSION = b"NERFKIT", 1
_HASH_BYTES = 16
_MOST_HEADER = 1 << 24


class PackedError(RunError):
    """A file that is no scene of ours, or not whole: one sentence."""


@dataclass(frozen=True)
class Quantised:
    """All numbers of a field, as whole multiples of steps, and the cells that its rays step through."""

    networks: dict[str, tuple[Int16[Tensor, "n_out n_in"], float]]
    """Matrices and what else is small, by their names in the field, each with its step."""
    table: Int16[Tensor, "entries features"]
    steps: list[float]
    """Of each level of the table."""
    cells: Cells

    def state(self, layout: GridLayout) -> dict[str, Tensor]:
        """The field's numbers themselves, float32."""
        table = self.table.float()
        for a, b, step in zip(layout.offsets, layout.offsets[1:], self.steps, strict=False):
            table[a:b] *= torch.tensor(step, dtype=torch.float32)
        small = {name: q.float() * torch.tensor(step, dtype=torch.float32) for name, (q, step) in self.networks.items()}
        return {**small, "table": table}


def as_steps(values: Float[Tensor, "*shape"], step: float) -> Int16[Tensor, "*shape"]:
    """Whole multiples of a step nearest to values, at most 2047."""
    return (values.detach().cpu() / step).round().clamp(-MOST, MOST).to(torch.int16)


def strides_of(layout: GridLayout, level: int) -> tuple[int, int]:
    """How many entries before one its neighbours along y and z are; 0 where the level is hashed."""
    res, size = layout.resolutions[level], layout.offsets[level + 1] - layout.offsets[level]
    return (res, res * res) if res**3 <= size else (0, 0)


def pack(parts: Quantised, header: dict[str, Any], layout: GridLayout, contracted: bool = False) -> bytes:
    """A file of a quantised field. ``header`` is plain data: what `PackedRun` reads, but for the sections."""
    coder, sections = Coder(), []

    def add(name: str, stream: bytes) -> None:
        sections.append((name, stream))

    small = [(name, q, step) for name, (q, step) in parts.networks.items()]
    rows = [q.reshape(-1, 1) for _, q, _ in small]
    everything = torch.cat(rows)
    add("networks", coder.write_numbers(everything, torch.ones(len(everything), dtype=torch.bool)))
    add("cells", Coder().write_cells(parts.cells.occupied.cpu()))
    reached, coder = reachable(parts.cells, layout, contracted), Coder()
    for i, (a, b) in enumerate(zip(layout.offsets, layout.offsets[1:], strict=False)):
        add(f"level {i}", coder.write_numbers(parts.table[a:b].cpu(), reached[a:b], strides_of(layout, i)))
    header = {
        **header,
        "networks": [[name, list(q.shape), step] for name, q, step in small],
        "steps": parts.steps,
        "sections": [[name, len(stream)] for name, stream in sections],
    }
    text = zlib.compress(json.dumps(header, separators=(",", ":"), allow_nan=False).encode(), 9)
    body = _MAGIC + bytes([_VERSION]) + struct.pack("<I", len(text)) + text + b"".join(s for _, s in sections)
    return body + _digest(body)


def write_packed(path: Path, data: bytes) -> None:
    """Write a file of `pack` aside, then rename it."""
    with file_aside(path) as aside:
        aside.write_bytes(data)


def forget_scores(run: PackedRun) -> None:
    """Remove what the folder beside a file says of one that had its name before: scores, and their page."""
    for stale in [*run.path.glob("metrics*.json"), run.path / "report.html"]:
        stale.unlink(missing_ok=True)


@dataclass(frozen=True)
class PackedRun(Run):
    """A file, as the run that it was packed from: what verbs ask of a run. ``path`` is where they write to, a folder
    beside the file that is made when there is something to write."""

    file: Path = Path()
    header: dict[str, Any] | None = None
    sections: dict[str, bytes] | None = None
    n_bytes: int = 0

    @property
    def frame(self) -> dict[str, Any]:
        """See `Run`."""
        return self.header["frame"]

    @property
    def splits(self) -> dict[str, Any]:
        """None: those of the scene, which is needed to score anything."""
        return {}

    @property
    def provenance(self) -> dict[str, Any]:
        """See `Run`."""
        return self.header["provenance"]

    @property
    def has_checkpoint(self) -> bool:
        """The file itself is one."""
        return True

    def find_scene(self) -> Path:
        """Nowhere: a file does not know. Raises RunError."""
        raise RunError(f"{self.file}: does not know where its scene {self.provenance['scene']['name']} is; say --scene")

    def read_log(self, name: str = "log.jsonl") -> list[dict[str, Any]]:
        """A file has no log."""
        return []

    def load_checkpoint(self, step: int | None = None) -> Checkpoint:
        """The model, as a checkpoint of a run whose sampler is a grid. ``step`` is not looked at: there is one."""
        field, sampler = self._decoded
        train = self.header["train"]
        state = {"samples_per_ray": train["samples_per_ray"], "train": train}
        return Checkpoint(train["n_steps"], field, sampler, {}, state, self.file, self.n_bytes)

    @cached_property
    def _decoded(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        try:
            return _decode(self)
        except (KeyError, ValueError, TypeError, RuntimeError, IndexError) as error:
            raise PackedError(f"{self.file}: cannot be read as a scene: {error}") from None

    def section_bytes(self) -> dict[str, int]:
        """Length of the header, of each section, and of the checksum: together that of the file."""
        own = {name: len(stream) for name, stream in self.sections.items()}
        return {"header": self.n_bytes - sum(own.values()) - _HASH_BYTES, **own, "checksum": _HASH_BYTES}


def _decode(run: PackedRun) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The field's and the sampler's state."""
    header, sections, frame = run.header, run.sections, Frame.from_dict(run.frame)
    layout, contracted = layout_of(run.config.field, frame.n_levels), run.config.field.contracted
    coder, small = Coder(), header["networks"]
    sizes = [torch.Size(shape).numel() for _, shape, _ in small]
    everything = coder.read_numbers(sections["networks"], torch.ones(sum(sizes), dtype=torch.bool), 1)
    networks = {
        name: (q.view(shape), step) for (name, shape, step), q in zip(small, everything[:, 0].split(sizes), strict=True)
    }
    near, far = frame.near_plane * frame.scale, frame.far_plane * frame.scale
    stepping = stepping_of(run.config.sampler, frame.n_levels, near, far)
    cells = Cells.of(Coder().read_cells(sections["cells"], frame.n_levels, run.config.sampler.resolution), stepping)
    reached, coder, levels = reachable(cells, layout, contracted), Coder(), []
    for i, (a, b) in enumerate(zip(layout.offsets, layout.offsets[1:], strict=False)):
        own = sections[f"level {i}"]
        levels.append(coder.read_numbers(own, reached[a:b], layout.n_features, strides_of(layout, i)))
    return Quantised(networks, torch.cat(levels), header["steps"], cells).state(layout), state_of(cells)


def open_run(path: Path) -> Run:
    """A run's folder, or the file of one. Raises RunError where it is neither or damaged."""
    return open_packed(path) if path.suffix == SUFFIX and not path.is_dir() else Run.open(path)


def open_packed(path: Path) -> PackedRun:
    """A scene in one file. Raises PackedError where it is none, of another version, cut short or damaged."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise PackedError(f"{path}: there is no such file") from None
    except OSError as error:
        raise PackedError(f"{path}: {error.strerror or error}") from None
    if data[:7] != _MAGIC:
        raise PackedError(f"{path}: is no scene of nerfkit compress")
    if len(data) > 7 and data[7] != _VERSION:
        raise PackedError(f"{path}: is of version {data[7]} of the format, this nerfkit reads version {_VERSION}")
    if len(data) < 12 + _HASH_BYTES or _digest(data[:-_HASH_BYTES]) != data[-_HASH_BYTES:]:
        raise PackedError(f"{path}: is damaged or cut short, its checksum does not match; compress the run again")
    try:
        header, at = _header(data)
        sections = {}
        for name, length in header["sections"]:
            sections[name] = data[at : at + length]
            at += length
        if at != len(data) - _HASH_BYTES:
            raise ValueError(f"its sections end at {at} of {len(data) - _HASH_BYTES} bytes")
        config = check(from_dict(Config, header["config"]))
        beside = path.with_name(f"{path.stem}-nerf")
        return PackedRun(beside, config, file=path, header=header, sections=sections, n_bytes=len(data))
    except (ConfigError, KeyError, ValueError, TypeError, struct.error, zlib.error) as error:
        raise PackedError(f"{path}: cannot be read as a scene: {error}") from None


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    (length,) = struct.unpack("<I", data[8:12])
    inflate = zlib.decompressobj()
    text = inflate.decompress(data[12 : 12 + length], _MOST_HEADER)
    return json.loads(text), 12 + length


def header_of(run: Run, config: Config, checkpoint: Checkpoint) -> dict[str, Any]:
    """What a file keeps of the run that it is made of."""
    settings = {name: value for name, value in to_dict(config).items() if name != "schema"}
    # What the run says about itself, but for where things lay on somebody's disk.
    scene = {key: run.provenance["scene"][key] for key in ("name", "fingerprint")}
    known = {key: value for key, value in run.provenance.items() if key != "resumed"}
    provenance = {**known, "scene": scene, "command": []}
    return {
        "config": settings,
        "frame": run.frame,
        "provenance": provenance,
        "train": {**checkpoint.state["train"], "samples_per_ray": checkpoint.state["samples_per_ray"]},
    }


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_HASH_BYTES).digest()
