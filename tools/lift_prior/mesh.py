"""Meshes with textures, and where they come from."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import trimesh
from PIL import Image

_TEXTURE = 256
"""Pixels of a texture, at most: pictures of objects are 128 wide."""


@dataclass(frozen=True)
class Mesh:
    """Triangles, each with a texture; what has one colour has a texture of one pixel."""

    vertices: np.ndarray
    """(n, 3)."""
    faces: np.ndarray
    """(m, 3)."""
    uvs: np.ndarray
    """(m, 3, 2), of the corners of each triangle."""
    texture: np.ndarray
    """(m,), index into textures."""
    textures: list[np.ndarray]
    """(h, w, 3) uint8 each."""

    def moved(self, vertices: np.ndarray) -> Mesh:
        """The same with its vertices elsewhere."""
        return replace(self, vertices=vertices)

    def normalised(self) -> Mesh:
        """In the unit sphere about the middle of its box."""
        used = self.vertices[np.unique(self.faces)]
        middle = (used.min(0) + used.max(0)) / 2
        return self.moved((self.vertices - middle) / np.linalg.norm(used - middle, axis=1).max())


def joined(meshes: list[Mesh]) -> Mesh:
    """All of them as one."""
    n_vertices = np.cumsum([0, *[len(one.vertices) for one in meshes]])
    n_textures = np.cumsum([0, *[len(one.textures) for one in meshes]])
    return Mesh(
        np.concatenate([one.vertices for one in meshes]),
        np.concatenate([one.faces + n for one, n in zip(meshes, n_vertices, strict=False)]),
        np.concatenate([one.uvs for one in meshes]),
        np.concatenate([one.texture + n for one, n in zip(meshes, n_textures, strict=False)]),
        [texture for one in meshes for texture in one.textures],
    )


def of_one_paint(mesh: trimesh.Trimesh, texture: np.ndarray, uvs: np.ndarray | None = None) -> Mesh:
    """A mesh of trimesh with one texture; ``uvs`` (n, 2) of its vertices."""
    faces = np.asarray(mesh.faces)
    uvs = np.zeros((len(mesh.vertices), 2)) if uvs is None else uvs
    return Mesh(np.asarray(mesh.vertices), faces, uvs[faces], np.zeros(len(faces), np.int64), [texture])


class _Archived(trimesh.resolvers.Resolver):
    """Files that lie beside one in an archive."""

    def __init__(self, archive: zipfile.ZipFile, folder: PurePosixPath):
        self.archive, self.folder = archive, folder

    def get(self, name: str) -> bytes:
        """Its bytes."""
        return self.archive.read(str(self.folder / name))

    def keys(self) -> list[str]:
        """What there is."""
        return self.archive.namelist()

    def write(self, name: str, data: bytes) -> None:
        """Archives stay as they are."""
        raise PermissionError(name)

    def namespaced(self, namespace: str) -> _Archived:
        """The same one folder down."""
        return _Archived(self.archive, self.folder / namespace)


def read_obj(library: Path, name: str) -> Mesh:
    """An OBJ of an archive, with its materials."""
    with zipfile.ZipFile(library) as archive:
        resolver = _Archived(archive, PurePosixPath(name).parent)
        scene = trimesh.load(io.BytesIO(archive.read(name)), file_type="obj", resolver=resolver, process=False)
    parts = [scene] if isinstance(scene, trimesh.Trimesh) else list(scene.geometry.values())
    return joined([_painted(part) for part in parts if len(part.faces)])


def _painted(part: trimesh.Trimesh) -> Mesh:
    material = getattr(part.visual, "material", None)
    image = getattr(material, "image", None)
    uvs = getattr(part.visual, "uv", None)
    if image is not None and uvs is not None:
        return of_one_paint(part, _pixels(image), np.asarray(uvs))
    diffuse = getattr(material, "diffuse", None)
    color = np.full(3, 160, np.uint8) if diffuse is None else np.asarray(diffuse)[:3].astype(np.uint8)
    return of_one_paint(part, color.reshape(1, 1, 3))


def _pixels(image: Image.Image) -> np.ndarray:
    image = image.convert("RGB")
    image.thumbnail((_TEXTURE, _TEXTURE), Image.Resampling.BOX)
    return np.asarray(image)
