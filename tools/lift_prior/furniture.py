"""The furniture that Debian's package sweethome3d-furniture carries: 820 textured objects under clear terms.

Objects are split by maker and family (`bed1` and `bed2` are one), never by file: the families of BlendSwap's
public-domain objects, in the order of a hash of their names, are those of the test until these are 60, then of
validation until these are 20. All others are to be learnt from.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lift_prior.mesh import Mesh, read_obj

LIBRARIES = ("BlendSwap-CC-0", "BlendSwap-CC-BY", "KatorLegaz", "Reallusion", "Scopia")
N_TEST, N_VALIDATION = 60, 20
_FLAT = 0.04
"""Depth over width of what is rather a picture than an object (posters, rugs), which is left out."""


@dataclass(frozen=True)
class Entry:
    """A line of a catalogue."""

    name: str
    """Unique, fit for a file."""
    title: str
    library: str
    family: str
    creator: str
    license: str
    path: str
    """Of the OBJ, in its library."""
    size: tuple[float, float, float]
    """Width, height, depth, cm: along x, y (up) and z, to which it looks."""
    rotation: np.ndarray
    """(3, 3), of the file."""


def catalogue(folder: Path) -> list[Entry]:
    """All objects of the libraries in a folder."""
    entries = []
    for library in LIBRARIES:
        path = folder / f"{library}.sh3f"
        with zipfile.ZipFile(path) as archive:
            text = archive.read("PluginFurnitureCatalog.properties").decode("latin-1")
        lines = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
        lines = {key.strip(): value.strip() for key, value in lines.items()}
        for i in sorted(int(key[3:]) for key in lines if re.fullmatch(r"id#\d+", key)):
            entries.append(_entry(library, lines, i))
    return entries


def _entry(library: str, lines: dict[str, str], i: int) -> Entry:
    stem = Path(lines[f"model#{i}"]).stem
    size = tuple(float(lines[f"{side}#{i}"]) for side in ("width", "height", "depth"))
    turned = lines.get(f"modelRotation#{i}", "1 0 0 0 1 0 0 0 1")
    return Entry(
        name=f"{library}-{stem}-{i}",
        title=lines.get(f"name#{i}", stem),
        library=library,
        family=re.sub(r"[\d_]+$", "", re.sub(r"(?<=[a-z])[A-Z].*$", "", stem)).lower() or stem,
        creator=lines.get(f"creator#{i}", ""),
        license=lines.get(f"license#{i}", lines.get("license", "")),
        path=lines[f"model#{i}"].lstrip("/"),
        size=size,
        rotation=np.array([float(x) for x in turned.split()]).reshape(3, 3),
    )


def split(entries: list[Entry]) -> dict[str, list[Entry]]:
    """Which objects are tested on, looked at while learning, and learnt from."""
    entries = [one for one in entries if min(one.size) > _FLAT * max(one.size)]
    free = [one for one in entries if one.library == "BlendSwap-CC-0"]
    families = sorted({one.family for one in free}, key=lambda name: hashlib.sha256(name.encode()).digest())
    parts: dict[str, list[Entry]] = {"test": [], "validation": [], "train": []}
    for family in families:
        mine = [one for one in free if one.family == family]
        if len(parts["test"]) + len(mine) <= N_TEST:
            parts["test"] += mine
        elif len(parts["validation"]) + len(mine) <= N_VALIDATION:
            parts["validation"] += mine
        else:
            parts["train"] += mine
    return {**parts, "train": parts["train"] + [one for one in entries if one.library != "BlendSwap-CC-0"]}


def load(folder: Path, entry: Entry) -> Mesh:
    """An object, upright (+y up), looking along +z, in the unit sphere about the middle of its box."""
    mesh = read_obj(folder / f"{entry.library}.sh3f", entry.path)
    vertices = mesh.vertices @ entry.rotation.T
    span = np.ptp(vertices, axis=0)
    vertices = vertices / np.maximum(span, 1e-9) * np.array(entry.size)
    return mesh.moved(vertices).normalised()
