"""The folder of one training: what was asked, what came out, and checkpoints that survive a crash.

::

    config.json      every setting, resolved; written last, so a folder that has one is a run
    provenance.json  command, versions, commit, device, seed, the scene and where it lies
    frame.json       {"frame": scene -> model, "splits": names of the views of each split}
    log.jsonl        one JSON record a line
    checkpoints/step-000001234/{field,sampler,optimizer}.safetensors and state.json
    metrics.json  renders/  exports/  report.html

Nothing in the folder refers to its own place, so it can be moved. A file is written beside its place, synced, then
renamed: whoever reads sees the old or the new one. A checkpoint is a folder treated the same way; its ``state.json``
carries the size and the BLAKE2b checksum of each file and of itself, so one that was cut short or altered is known for
what it is. Folders whose name begins with a dot are leftovers of an interrupted write. One process writes a run at a
time; any number may read.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from nerfkit.config import Config, ConfigError, to_dict
from nerfkit.presets import load_resolved
from nerfkit.provenance import device_name, digest, now, plain, provenance, versions

SCHEMA = 1
"""Version of the checkpoint layout."""
KEPT = 2
"""Checkpoints that stay; older ones are removed once a new one is in place."""
PARTS = ("field", "sampler", "optimizer")
_OWN = {"frame.json", "provenance.json", "log.jsonl", "preview.png", "checkpoints", "renders", "exports"}


class RunError(RuntimeError):
    """A run folder that cannot be used: the message names the file, what was found and what to do."""


class RunWarning(UserWarning):
    """A damaged checkpoint was passed over for an older one."""


@dataclass(frozen=True)
class Checkpoint:
    """The whole state of a training after ``step`` optimiser steps; tensors are on the CPU."""

    step: int
    field: dict[str, Tensor]
    sampler: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]
    """Plain numbers and text: schedule, random generators, counters."""
    path: Path
    model_bytes: int
    """Size on disk of what rendering needs: field and sampler."""


@dataclass(frozen=True)
class Run:
    """The folder of one training. Make one with `Run.create`, find one again with `Run.open`."""

    path: Path
    config: Config
    writes: bool = True
    """Whether what is given to it is written; not by whom another process writes the same run for."""

    @classmethod
    def create(
        cls,
        path: Path,
        config: Config,
        scene_root: Path,
        scene_name: str,
        frame: dict[str, Any],
        fingerprint: str,
        splits: dict[str, Any],
        command: list[str],
    ) -> Run:
        """Begin a run in a new or empty folder (or one whose creation was interrupted).

        Args:
            path: the run's folder; parents are made.
            config: all settings.
            scene_root: the scene's folder, or the file in it that is read. Where it lies is kept relative to the run
                and absolute.
            scene_name: what people call it.
            frame: plain data or arrays of the similarity scene -> model, the box, near and far.
            fingerprint: of the scene's files.
            splits: names of the views of each split.
            command: the words of the command line.

        Raises RunError where the folder holds a run, or something else, or cannot be written.
        """
        path = Path(path)
        check_free(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            run = cls(path, config)
            run.write_json("frame.json", {"frame": frame, "splits": splits})
            root = scene_root.resolve()
            relative = Path(os.path.relpath(root, path.resolve())).as_posix()
            scene = {"name": scene_name, "relative": relative, "absolute": str(root), "fingerprint": fingerprint}
            run.write_json("provenance.json", {"scene": scene, **provenance(config, command)})
            run.write_json("config.json", to_dict(config))
        except OSError as error:
            raise RunError(f"{path}: no run can be made here: {error.strerror or error}") from None
        return run

    @classmethod
    def open(cls, path: Path, writes: bool = True) -> Run:
        """Find a run again. Raises RunError where the folder is none or its config cannot be read."""
        path = Path(path)
        if not path.is_dir():
            raise RunError(f"{path}: there is no such run folder")
        if not (path / "config.json").is_file():
            raise RunError(f"{path}: is no run folder, it has no config.json")
        try:
            return cls(path, load_resolved(path / "config.json"), writes)
        except ConfigError as error:
            raise RunError(str(error)) from None

    @property
    def frame(self) -> dict[str, Any]:
        """The frame that `create` was given, as plain data."""
        return self.read_json("frame.json")["frame"]

    @property
    def splits(self) -> dict[str, Any]:
        """The splits that `create` was given."""
        return self.read_json("frame.json")["splits"]

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the run comes from, as ``provenance.json`` has it."""
        return self.read_json("provenance.json")

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint, whole or not: none means that the training has not come that far."""
        return bool(self._checkpoints())

    def find_scene(self) -> Path:
        """The scene's folder, or the file that was read: first where it lies as seen from the run, then where it lay.

        Raises RunError, naming both, where neither exists.
        """
        scene = self.provenance["scene"]
        tried = [Path(os.path.normpath(self.path.resolve() / scene["relative"])), Path(scene["absolute"])]
        for root in tried:
            if root.exists():
                return root
        places = " nor ".join(dict.fromkeys(map(str, tried)))
        raise RunError(f"{self.path}: its scene {scene['name']} is not at {places}; say where it is")

    def write_text(self, name: str, text: str) -> Path:
        """Write the file ``name`` of the run; a reader sees the old file or the new one."""
        path = self.path / name
        if not self.writes:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        _write_synced(aside, text.encode())
        os.replace(aside, path)
        _sync_folder(path.parent)
        return path

    def write_json(self, name: str, data: Any) -> Path:
        """Write plain data (see `plain`) to the file ``name`` of the run, as `write_text` does."""
        return self.write_text(name, json.dumps(plain(data), indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    def read_json(self, name: str) -> Any:
        """Plain data of the file ``name`` of the run. Raises RunError where it is missing or broken."""
        path = self.path / name
        try:
            return json.loads(path.read_bytes())
        except FileNotFoundError:
            raise RunError(f"{path}: there is no such file in the run") from None
        except (OSError, ValueError) as error:
            raise RunError(f"{path}: {error}") from None

    def note(self, changes: dict[str, Any]) -> None:
        """Lay ``changes`` over the provenance: the engine chosen, the time of the end."""
        self.write_json("provenance.json", {**self.provenance, **changes})

    def log(self, record: dict[str, Any], name: str = "log.jsonl") -> None:
        """Append one record (see `plain`) to a file of records."""
        if not self.writes:
            return
        line = json.dumps(plain(record), allow_nan=False).encode() + b"\n"
        with open(self.path / name, "a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a line torn by a crash must not swallow this one
                    line = b"\n" + line
            file.write(line)

    def read_log(self, name: str = "log.jsonl") -> list[dict[str, Any]]:
        """Records in the order written; lines that a crash tore are passed over."""
        records = []
        path = self.path / name
        for line in path.read_bytes().split(b"\n") if path.exists() else []:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                records.append(record)
        return records

    def resume(self, step: int, command: list[str]) -> None:
        """Continue after ``step``: drop checkpoints and records beyond it, clean up, note the command."""
        folder = self.path / "checkpoints"
        _sweep(folder)
        # Checkpoints go first: were the log cut first, a crash between would leave a checkpoint without its records.
        for later, path in self._checkpoints().items():
            if later > step:
                _discard(path)
        kept = [record for record in self.read_log() if record.get("step", 0) <= step]
        self.write_text("log.jsonl", "".join(json.dumps(record) + "\n" for record in kept))
        for leftover in self.path.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)
        session = {"step": step, "command": command, "time": now(), "device": device_name(self.config)}
        self.note({"resumed": [*self.provenance.get("resumed", []), {**session, "versions": versions()}]})

    def save_checkpoint(
        self,
        step: int,
        field: dict[str, Tensor],
        sampler: dict[str, Tensor],
        optimizer: dict[str, Tensor],
        state: dict[str, Any],
    ) -> Path:
        """Keep the state after ``step`` steps; the last two checkpoints stay, and a kill at any moment harms neither.

        Args:
            step: optimiser steps done, >= 0.
            field, sampler, optimizer: named tensors on any device.
            state: what JSON holds exactly (numbers, text, lists, dicts with text keys).

        Raises RunError where the disk refuses; what was there before is still there.
        """
        folder = self.path / "checkpoints"
        final = folder / f"step-{step:09d}"
        if not self.writes:
            return final
        aside, replaced = folder / f".new-{final.name}", folder / f".old-{final.name}"
        try:
            folder.mkdir(exist_ok=True)
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            manifest = {}
            for part, tensors in zip(PARTS, (field, sampler, optimizer), strict=True):
                data = safetensors.torch.save({name: _own_copy(tensor) for name, tensor in tensors.items()})
                _write_synced(aside / f"{part}.safetensors", data)
                manifest[f"{part}.safetensors"] = {"bytes": len(data), "blake2b": digest(data)}
            body = {"schema": SCHEMA, "step": step, "files": manifest, "state": state}
            _write_synced(aside / "state.json", json.dumps({**body, "blake2b": _body_digest(body)}).encode())
            _sync_folder(aside)
            if final.exists():
                shutil.rmtree(replaced, ignore_errors=True)
                os.rename(final, replaced)
            os.rename(aside, final)
            _sync_folder(folder)
        except OSError as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise RunError(f"{final}: this checkpoint was not written: {error.strerror or error}") from None
        _sweep(folder)
        for old in sorted(self._checkpoints().items())[:-KEPT]:
            _discard(old[1])
        return final

    def load_checkpoint(self, step: int | None = None) -> Checkpoint:
        """The checkpoint of ``step``, or else the newest whole one.

        Without ``step``, a damaged checkpoint is passed over for the one before it, with a RunWarning.
        Raises RunError where there is none that is whole.
        """
        folder, found = self.path / "checkpoints", self._checkpoints()
        if not found:
            raise RunError(f"{folder}: there is no checkpoint yet; let the training run longer")
        if step is not None:
            if step not in found:
                raise RunError(f"{folder}: no checkpoint of step {step}; there is {', '.join(map(str, sorted(found)))}")
            return _read_checkpoint(found[step])
        faults: list[str] = []
        for _, path in sorted(found.items(), reverse=True):
            try:
                checkpoint = _read_checkpoint(path)
            except RunError as error:
                faults.append(str(error))
                continue
            for fault in faults:
                warnings.warn(f"{fault}; using step {checkpoint.step} instead", RunWarning, stacklevel=2)
            return checkpoint
        raise RunError(f"no checkpoint is whole: {'; '.join(faults)}")

    def _checkpoints(self) -> dict[int, Path]:
        """Folders that claim to be checkpoints. One that was just being replaced by its like counts until it is."""
        found: dict[int, Path] = {}
        for prefix in (".old-step-", "step-"):
            for path in (self.path / "checkpoints").glob(f"{prefix}*"):
                if (digits := path.name.removeprefix(prefix)).isdecimal():
                    found[int(digits)] = path
        return found


def _read_checkpoint(path: Path) -> Checkpoint:
    file = path / "state.json"
    try:
        body = json.loads(file.read_bytes())
        if body.pop("blake2b") != _body_digest(body):
            raise RunError(f"{file}: damaged, its checksum does not match")
        if body["schema"] != SCHEMA:
            raise RunError(f"{file}: schema {body['schema']!r} is not {SCHEMA}, the one this version reads")
        parts = {}
        for part in PARTS:
            file = path / f"{part}.safetensors"
            data, entry = file.read_bytes(), body["files"][file.name]
            if len(data) != entry["bytes"]:
                raise RunError(f"{file}: cut short or grown, {len(data)} bytes where {entry['bytes']} were written")
            if digest(data) != entry["blake2b"]:
                raise RunError(f"{file}: damaged, its checksum does not match")
            parts[part] = safetensors.torch.load(data)
    except FileNotFoundError:
        raise RunError(f"{file}: missing from the checkpoint") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise RunError(f"{file}: cannot be read as part of a checkpoint: {error}") from None
    size = sum(body["files"][f"{part}.safetensors"]["bytes"] for part in ("field", "sampler"))
    return Checkpoint(step=body["step"], state=body["state"], path=path, model_bytes=size, **parts)


def _own_copy(tensor: Tensor) -> Tensor:
    """On the CPU, contiguous, in storage of its own: safetensors refuses tensors that share one."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def _body_digest(body: dict[str, Any]) -> str:
    """Checksum of what a reader will parse, whatever the order and the spaces of the file."""
    return digest(json.dumps(json.loads(json.dumps(body)), sort_keys=True).encode())


def _write_synced(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    """Make renames inside a folder last; Windows offers no such call."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _discard(path: Path) -> None:
    """Remove a checkpoint, hidden first: half of one is never taken for one."""
    hidden = path.with_name(f".gone-{path.name}")
    shutil.rmtree(hidden, ignore_errors=True)
    os.rename(path, hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what interrupted writes left; a replaced checkpoint only once its successor is in place."""
    for path in folder.glob(".*"):
        if path.name.startswith(".old-") and not path.with_name(path.name.removeprefix(".old-")).exists():
            os.rename(path, path.with_name(path.name.removeprefix(".old-")))
        else:
            shutil.rmtree(path, ignore_errors=True)


def check_free(path: Path) -> None:
    """Raise RunError where a folder holds a run already, or something else: what takes long asks before it begins."""
    if (path / "config.json").exists():
        raise RunError(f"{path}: holds a run already; nerfkit train --resume goes on with it, or choose another folder")
    try:
        strangers = sorted(entry.name for entry in path.iterdir() if entry.name not in _OWN) if path.is_dir() else []
    except OSError as error:
        raise RunError(f"{path}: no run can be made here: {error.strerror or error}") from None
    strangers = [name for name in strangers if not (name.startswith(".") and name.endswith(".tmp"))]
    if strangers:
        raise RunError(f"{path}: is not empty (it holds {strangers[0]}); choose another folder for the run")
