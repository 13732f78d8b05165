"""Folders of posed images: `load_scene` reads one, whatever format it is in."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from nerfkit.cameras import Cameras
from nerfkit.config import DataConfig
from nerfkit.poses import SceneError
from nerfkit.scene.box import choose_frame
from nerfkit.scene.carve import silhouette
from nerfkit.scene.colmap import MODEL_FOLDERS, read_colmap
from nerfkit.scene.images import Picture, outline_an_object, read_pictures
from nerfkit.scene.listing import View
from nerfkit.scene.llff import read_llff
from nerfkit.scene.scene import Frame, Scene
from nerfkit.scene.store import Store, room_for_pictures
from nerfkit.scene.transforms import SPLITS, read_blender, read_transforms

__all__ = ["READERS", "Frame", "Scene", "SceneError", "load_scene"]


def _find_listing(path: Path) -> tuple[Path, Path]:
    """A scene's folder and the file that says what it holds; ``path`` may be that file itself."""
    if path.is_file() and (path.suffix == ".json" or path.name in READERS):
        return path.parent, path
    if not path.is_dir():
        raise SceneError(f"{path}: there is no such folder")
    for name in READERS:
        for place in MODEL_FOLDERS if name.startswith("images.") else ("",):
            if found := sorted(file for file in path.glob(f"{place}{name}") if file.is_file()):
                return path, found[0]
    if not any(path.iterdir()):
        raise SceneError(f"{path}: the folder is empty")
    *names, last = READERS
    looked = f"{', '.join(names)} or {last}"
    raise SceneError(f"{path}: no {looked} here; photos without camera poses need `nerfkit prepare` first")


def _cameras(views: Sequence[View], pictures: Sequence[Picture], downscale: int) -> tuple[Cameras, list[str]]:
    """Cameras of the pictures as they are in memory, and a note if stated intrinsics were for another size."""
    fitted, rescaled, notes = [], [], []
    for view, picture in zip(views, pictures, strict=True):
        stated = (view.intrinsics.width or picture.size[0], view.intrinsics.height or picture.size[1])
        fitted.append(view.intrinsics.fitted(*picture.size, f"{view.where} ({view.path.name})"))
        if stated != picture.size:
            rescaled.append(f"{view.path.name} is {picture.size[0]}x{picture.size[1]}, not {stated[0]}x{stated[1]}")
    if rescaled:
        notes.append(f"{len(rescaled)} pictures have another size than stated; intrinsics were scaled ({rescaled[0]})")
    try:
        cameras = Cameras.from_intrinsics(torch.stack([view.c2w for view in views]), fitted)
    except SceneError as error:
        raise SceneError(f"{views[0].where.split(': ')[0]}: {error}") from None
    return cameras.scaled(1 / downscale), notes


def _splits(views: Sequence[View], every: int, file: Path) -> tuple[dict[str, list[int]], str]:
    """Indices of each split, and the rule that made them."""
    if any(view.split for view in views):
        splits = {name: [i for i, view in enumerate(views) if view.split == name] for name in SPLITS}
        # A scene that names but one held-out split means it for testing.
        splits["test"] = splits["test"] or splits["val"]
        rule = "files"
    else:
        held = [i for i in range(len(views)) if every and len(views) > 1 and i % every == 0]
        splits = {"train": [i for i in range(len(views)) if i not in set(held)], "val": [], "test": held}
        rule = f"every {_ordinal(every)}" if held else "all train"
    if not splits["train"]:
        why = "data.hold_out_every = 1 holds out all of them" if every == 1 and rule != "files" else "none is listed"
        raise SceneError(f"{file}: no picture is left to train on: {why}")
    return splits, rule


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number % 100 not in (11, 12, 13) else "th"
    return f"{number}{ending}"


def _plain_border(pictures: Sequence[Picture]) -> str | None:
    """``white`` or ``black`` if nearly all border pixels of nearly all pictures are that: rendered on nothing."""
    found = [picture.border for picture in pictures]
    return next((color for color in ("white", "black") if found.count(color) > 0.9 * len(found)), None)


def _fingerprint(names: Sequence[str], views: Sequence[View], pictures: Sequence[Picture]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, view, picture in zip(names, views, pictures, strict=True):
        digest.update(f"{name} {view.split} {picture.size} {picture.digest} {view.intrinsics}".encode())
        digest.update(view.c2w.numpy().tobytes())
    return digest.hexdigest()


def _read(views: Sequence[View], config: DataConfig) -> tuple[list[Picture], list[str]]:
    """The pictures of all views, in memory or in a file, and what to tell the user about them."""
    paths = [(view.path, None if config.masks == "off" else view.mask_path) for view in views]
    cut, notes = config.masks == "cut", []
    if config.masks == "auto" and (cut := outline_an_object([mask for _, mask in paths])):
        notes.append("the masks outline an object, so what they hide counts as empty (--data.masks ignore: as unknown)")
    pictures = []
    with Store(room_for_pictures(config.memory)) as store:
        for picture in read_pictures(paths, config.downscale, cut):
            mask = None if picture.mask is None else store.keep(picture.mask)
            pictures.append(replace(picture, pixels=store.keep(picture.pixels), mask=mask))
    if store.n_spilled:
        size, smaller = f"{store.n_spilled / 1e9:.3g} GB of pictures", f"--data.downscale {2 * config.downscale}"
        notes.append(f"{size} do not fit in memory and are read from a file, which is slow; {smaller} needs a quarter")
    return pictures, notes


def _masks(pictures: Sequence[Picture]) -> list[np.ndarray] | None:
    """A mask for every picture, None if none has one; those without one share masks that hide nothing."""
    if all(picture.mask is None for picture in pictures):
        return None
    shapes = {picture.pixels.shape[:2] for picture in pictures if picture.mask is None}
    nothing = {shape: np.ones(shape, bool) for shape in shapes}
    return [nothing[p.pixels.shape[:2]] if p.mask is None else p.mask for p in pictures]


def load_scene(path: Path, config: DataConfig) -> Scene:
    """Read a folder of posed images, or the file that lists them.

    Raises SceneError: one sentence that names the file and the key, for every input that cannot be used.
    """
    if config.downscale < 1 or min(config.hold_out_every, config.aabb_scale, config.memory) < 0:
        raise SceneError("data: downscale must be at least 1, hold_out_every, memory and aabb_scale at least 0")
    root, file = _find_listing(path)
    listing = READERS.get(file.name, read_transforms)(file)
    views = listing.views
    splits, rule = _splits(views, config.hold_out_every, file)
    pictures, picture_notes = _read(views, config)
    cameras, notes = _cameras(views, pictures, config.downscale)

    train = splits["train"]
    images = [picture.pixels for picture in pictures]
    with_alpha = sum(images[i].shape[2] == 4 for i in train)
    # A few pictures with a hole do not make an object on nothing.
    alphas = None
    if 2 * with_alpha > len(train):
        known = [pictures[i].silhouette for i in train]
        alphas = [silhouette(images[i]) if one is None else one for i, one in zip(train, known, strict=True)]
    plain = None if with_alpha else _plain_border([pictures[i] for i in train])
    frame, frame_notes = choose_frame(cameras[train], alphas, listing.hints, config.aabb_scale, plain is not None)
    background = config.background
    if background == "auto":
        background = "random" if with_alpha else plain or "random"
    if background == "sky" and any(image.shape[2] == 4 for image in images):
        raise SceneError(f"{root}: data.background = sky is for photographs without alpha; here some are transparent")

    names = [Path(os.path.relpath(view.path, root)).as_posix() for view in views]
    return Scene(
        name=root.resolve().name,
        root=root,
        source=path,
        format=file.name,
        cameras=cameras,
        image_names=names,
        images=images,
        masks=_masks(pictures),
        splits=splits,
        split_rule=rule,
        background=background,
        frame=frame,
        warnings=[*listing.warnings, *notes, *picture_notes, *frame_notes],
        fingerprint=_fingerprint(names, views, pictures),
    )


READERS = {
    "transforms_train.json": read_blender,
    "transforms.json": read_transforms,
    "images.bin": read_colmap,
    "images.txt": read_colmap,
    "poses_bounds.npy": read_llff,
}
"""Reader of each format, by the file that reveals it; the first that is there counts. COLMAP's are in MODEL_FOLDERS."""
