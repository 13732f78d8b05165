"""Structure from motion by pycolmap: from a folder of photographs to their cameras and a cloud of points.

Features, matches and the model lie in a working folder, so that what was interrupted goes on where it was: COLMAP's
database keeps the features of each photo and the matches of each pair as they are found.
"""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nerfkit.poses import SceneError
from nerfkit.scene.photos import Photos, Progress

LEAST = 3
"""Photographs that a scene needs."""
_ALL_PAIRS = 120
"""Photographs up to which every pair is compared."""
_NEAR = 20
"""Neighbours, by place or by order, that a photograph is compared with where all pairs are too many."""
_RICH = 30
"""Photographs from which on a lens gets four numbers for its distortion instead of one."""
_FEW_FEATURES = 200
"""Features below which a photograph counts as blurred or empty."""
_LINE = 0.1
"""Share of the length of a flight that it must be wide, or its places do not tell which way is up."""
_SEED = 0
_PAUSE = 0.5
"""Seconds between two looks at what COLMAP has done."""
_COUNT = """
import sqlite3, sys
opened = sqlite3.connect(sys.argv[1], uri=True)
print(opened.execute(f"SELECT count(*) FROM {sys.argv[2]}").fetchone()[0])
"""


@dataclass(frozen=True)
class Found:
    """What structure from motion found."""

    model: Any
    """pycolmap.Reconstruction."""
    registered: list[str]
    missing: dict[str, str]
    """Photographs without a camera, and why."""
    matching: str
    """Which pairs were compared, and why."""
    n_points: int
    reprojection_error: float
    """Median distance of a point's picture from its feature, pixels."""
    gps_error: float | None
    """Median distance of the cameras from their GPS places, metres, where the model was laid upon those."""


def choose_pairs(photos: Photos) -> tuple[str, str]:
    """Which pairs to compare (``exhaustive``, ``spatial`` or ``sequential``), and a sentence that says why."""
    n = len(photos.names)
    if n <= _ALL_PAIRS:
        return "exhaustive", f"all {n * (n - 1) // 2} pairs of {n} photos"
    if len(photos.positions) >= 0.9 * n:
        return "spatial", f"each of {n} photos with the {_NEAR} nearest by GPS"
    if photos.ordered:
        return "sequential", f"each of {n} frames with the {_NEAR} next, and more sparsely beyond"
    return "exhaustive", f"all {n * (n - 1) // 2} pairs of {n} photos, which know neither order nor place"


def reconstruct(photos: Photos, folder: Path, work: Path, on_progress: Progress) -> Found:
    """Find the cameras of the photographs in ``folder``.

    Raises SceneError where pycolmap is missing, or the photographs are too few or do not overlap.
    """
    colmap = _import()
    n = len(photos.names)
    if n < LEAST:
        raise SceneError(f"{n} photos: a scene needs at least {LEAST} that overlap, better 20 and more")
    work.mkdir(parents=True, exist_ok=True)
    database = work / "database.db"
    reader = colmap.ImageReaderOptions()
    reader.camera_model = "OPENCV" if n >= _RICH else "SIMPLE_RADIAL"
    mode = colmap.CameraMode.SINGLE if photos.alike else colmap.CameraMode.AUTO

    def extract(token: Any) -> None:
        names = photos.names
        colmap.extract_features(
            database, folder, names, camera_mode=mode, reader_options=reader, cancellation_token=token
        )

    def tell(stage: str, table: str, total: int) -> None:
        if (done := _count(database, table)) is not None:
            on_progress(stage, min(done, total), total)

    _watch(extract, lambda: tell("finding features", "images", n))
    kind, why = choose_pairs(photos)
    n_pairs = n * (n - 1) // 2 if kind == "exhaustive" else n * _NEAR
    match = _matcher(colmap, kind, database)
    _watch(match, lambda: tell("comparing photos", "two_view_geometries", n_pairs))
    features, links = _links(colmap, database)
    if not any(len(theirs) for theirs in links.values()):
        raise SceneError(f"the {n} photos do not overlap: no two of them show enough of the same points")
    model = _map(colmap, database, folder, work, n, on_progress)
    if model is None:
        raise SceneError(
            f"no cameras could be found: {sum(map(len, links.values())) // 2} pairs of {n} photos match, but none from "
            "places far enough apart; walk round the subject instead of turning on the spot"
        )
    registered = sorted(model.image(number).name for number in model.reg_image_ids())
    missing = {name: _why_missing(name, features, links, set(registered)) for name in photos.names}
    missing = {name: why for name, why in missing.items() if name not in set(registered)}
    gps_error = _lay_on_gps(colmap, model, photos.positions)
    error = reprojection_error(model)
    return Found(model, registered, missing, why, model.num_points3D(), error, gps_error)


def undistort(found: Found, folder: Path, work: Path, max_size: int, on_progress: Progress) -> Path:
    """Write the photographs without their lens's distortion, and their model; returns the folder with both."""
    colmap = _import()
    models, target = work / "model", work / "undistorted"
    models.mkdir(parents=True, exist_ok=True)
    found.model.write_binary(models)
    options = colmap.UndistortCameraOptions()
    options.max_image_size = max_size or -1

    def write(token: Any) -> None:
        colmap.undistort_images(
            target, models, folder, undistort_options=options, jpeg_quality=95, cancellation_token=token
        )

    n = len(found.registered)
    _watch(write, lambda: on_progress("straightening photos", sum(1 for _ in target.glob("images/**/*.*")), n))
    return target


def reprojection_error(model: Any) -> float:
    """Median distance, in pixels, of a model's points from their features, over all features of all photographs."""
    errors = []
    for number in model.reg_image_ids():
        image = model.image(number)
        pairs = [(p.xy, p.point3D_id) for p in image.points2D if p.has_point3D()]
        if not pairs:
            continue
        points = np.stack([model.point3D(point).xyz for _, point in pairs])
        pose = image.cam_from_world().matrix()
        local = points @ pose[:, :3].T + pose[:, 3]
        pixels = model.camera(image.camera_id).img_from_cam(local)
        errors.append(np.linalg.norm(pixels - np.stack([xy for xy, _ in pairs]), axis=1))
    return float(np.median(np.concatenate(errors))) if errors else math.nan


def _import() -> Any:
    try:
        import pycolmap
    except ImportError:
        raise SceneError("structure from motion needs pycolmap: pip install 'nerfkit[sfm]'") from None
    pycolmap.logging.minloglevel = pycolmap.logging.FATAL.value
    return pycolmap


def _watch(work: Callable[[Any], None], look: Callable[[], None]) -> None:
    """Run a long call of compiled code in a thread; look at what it has done meanwhile, and cancel it on Ctrl-C."""
    token, errors = _import().CancellationToken(), []

    def run() -> None:
        try:
            work(token)
        except Exception as error:  # raised again below, in the thread that asked
            errors.append(error)

    thread = threading.Thread(target=run, name="nerfkit structure from motion", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_PAUSE)
            look()
        look()
    except BaseException:
        token.cancel()
        thread.join()
        raise
    if errors:
        raise SceneError(f"COLMAP stopped: {' '.join(str(errors[0]).split())}")


def _count(database: Path, table: str) -> int | None:
    """Rows of a table of COLMAP's database while it is written; None where it cannot be read at this moment.

    Another process looks, and only reads. In this one a second copy of SQLite would drop the locks of COLMAP's, and the
    file would be lost; COLMAP's own opens it to write, and one of its threads that then finds it locked ends all.
    """
    words = [sys.executable, "-I", "-c", _COUNT, f"{database.resolve().as_uri()}?mode=ro", table]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    return int(found.stdout) if found.returncode == 0 else None


def _matcher(colmap: Any, kind: str, database: Path) -> Callable[[Any], None]:
    options = {}
    if kind == "spatial":
        options["pairing_options"] = colmap.SpatialPairingOptions()
        options["pairing_options"].max_num_neighbors = _NEAR
        options["pairing_options"].max_distance = 1e6
    elif kind == "sequential":
        options["pairing_options"] = colmap.SequentialPairingOptions()
        options["pairing_options"].overlap = _NEAR
    compare = {
        "exhaustive": colmap.match_exhaustive,
        "spatial": colmap.match_spatial,
        "sequential": colmap.match_sequential,
    }[kind]
    return lambda token: compare(database, cancellation_token=token, **options)


def _links(colmap: Any, database: Path) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """Features of each photograph, and with which others it shares how many points."""
    with colmap.Database.open(database) as opened:
        images = {image.image_id: image.name for image in opened.read_all_images()}
        features = {name: opened.num_keypoints_for_image(number) for number, name in images.items()}
        links: dict[str, dict[str, int]] = {name: {} for name in images.values()}
        pairs, counts = opened.read_two_view_geometry_num_inliers()
        for pair, count in zip(pairs, counts, strict=True):
            one, other = (images[number] for number in colmap.pair_id_to_image_pair(pair))
            if count > 0:
                links[one][other] = links[other][one] = int(count)
    return features, links


def _map(colmap: Any, database: Path, folder: Path, work: Path, n: int, on_progress: Progress) -> Any:
    """The largest model that incremental mapping makes of the matches; None if it makes none."""
    models, placed = {}, [0]
    options = colmap.IncrementalPipelineOptions()
    options.min_model_size = LEAST
    options.random_seed = _SEED

    def count() -> None:
        placed[0] += 1

    def solve(token: Any) -> None:
        target = work / "sparse"
        target.mkdir(exist_ok=True)
        models.update(
            colmap.incremental_mapping(
                database, folder, target, options, next_image_callback=count, cancellation_token=token
            )
        )

    _watch(solve, lambda: on_progress("placing cameras", min(placed[0] + 2, n) if placed[0] else 0, n))
    return max(models.values(), key=lambda model: model.num_reg_images(), default=None)


def _why_missing(name: str, features: dict[str, int], links: dict[str, dict[str, int]], registered: set[str]) -> str:
    if features.get(name, 0) < _FEW_FEATURES:
        return f"has {features.get(name, 0)} features: blurred, dark, or nothing to hold on to"
    near = {other: count for other, count in links.get(name, {}).items() if other in registered}
    if near:
        best = max(near, key=near.__getitem__)
        return f"shares {near[best]} points with {best} at most: too few, or seen from the same place"
    if links.get(name):
        return f"overlaps only with others that are left out, such as {next(iter(links[name]))}"
    return "overlaps with no other photo"


def _lay_on_gps(colmap: Any, model: Any, positions: dict[str, tuple[float, float, float]]) -> float | None:
    """Turn, shift and scale a model so that its cameras are where GPS says: metres, x east, y north, z up.

    Places along a straight line do not tell which way is up, so a model on such is left as it is. Returns the median
    distance that is left, metres; None where nothing was done.
    """
    images = {model.image(number).name: model.image(number) for number in model.reg_image_ids()}
    names = [name for name in images if name in positions]
    if len(names) < LEAST:
        return None
    places = np.array([positions[name] for name in names], dtype=np.float64)
    origin = places.mean(0)
    metres = colmap.GPSTransform().ellipsoid_to_enu(places, origin[0], origin[1], origin[2])
    widths = np.linalg.svd(metres - metres.mean(0), compute_uv=False)
    if widths[1] < _LINE * widths[0]:
        return None
    robust = colmap.RANSACOptions()
    robust.max_error = 0.1 * float(np.linalg.norm(np.ptp(metres, axis=0)))
    laid = colmap.align_reconstruction_to_locations(model, names, metres, LEAST, robust)
    if laid is None:
        return None
    model.transform(laid)
    centers = np.stack([images[name].projection_center() for name in names])
    return float(np.median(np.linalg.norm(centers - metres, axis=1)))
