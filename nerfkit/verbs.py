"""The verbs of the command: each reads its words, calls what does the work, and says what came of it.

Nothing heavy is imported before a verb needs it: help answers at once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from nerfkit.aside import beside
from nerfkit.filming import render
from nerfkit.lifting import LIFTING
from nerfkit.signing import SIGNING
from nerfkit.terminal import INTERRUPTED, print_record, print_table, say, stages, track, track_named

if TYPE_CHECKING:
    from nerfkit.arguments import Export
    from nerfkit.session import Session

_FOLDERS = ("--out", "--scene")
"""Flags that name a folder."""


def train(words: list[str]) -> int:
    """Train a model of a folder of posed photographs."""
    from nerfkit.arguments import parse_train

    arguments, config = parse_train(words)
    started = time.monotonic()  # what is imported below takes its time, too
    from nerfkit.session import begin, interruptible, page_of, reports_of, train_until_done

    with interruptible(), ExitStack() as page:
        from nerfkit.assess import evaluate_run, refined
        from nerfkit.engines import explain
        from nerfkit.ranks import joined
        from nerfkit.train.tensorboard import with_tensorboard

        def first(preparation: float) -> None:
            say(f"kernels and buffers prepared in {preparation:.1f} s")

        with joined() as ranks:
            say(explain(config.engine, config.field))
            session = begin(arguments, config, ["nerfkit", "train", *words], ranks)
            if session.resumed and session.run.provenance.get("marked"):
                session = _with_mark(session)
            run, scene = session.run, session.scene
            for text in session.remarks:
                say(text)
            spent = time.monotonic() - started
            say(f"run {run.path}: {len(scene.images)} pictures of {scene.name}, loaded in {spent:.1f} s")
            viewer = page.enter_context(page_of(arguments, session, say))
            reports = reports_of(session, viewer)
            curves = arguments.tensorboard and run.writes
            logged = with_tensorboard(reports, run.path / "tensorboard") if curves else reports
            watched = logged if viewer is None else viewer.watch(logged)
            stopped = train_until_done(watched, session.seconds, first, ranks)
        if stopped or (viewer is not None and viewer.stopped):
            say(f"stopped; go on with: nerfkit train --resume {run.path}")
            return INTERRUPTED
        if not run.writes:
            return 0
        if arguments.no_eval or not scene.splits["test"]:
            say("not scored: " + ("as asked" if arguments.no_eval else "the scene holds out no view"))
            print(run.path)
        else:
            print_record(evaluate_run(run, refined(run, scene), "test", track))
            print(run.path / "report.html")
        if viewer is not None and viewer.visited:
            say("close the page to end")
            viewer.stay()
        return 0


def _with_mark(session: Session) -> Session:
    """What learns on from photographs forgets a mark: what was made of a marked copy learns from its own renders."""
    from dataclasses import replace

    from nerfkit.stego.embed import with_mark

    if "begun_with" in session.run.provenance:
        return replace(session, scene=with_mark(session.run, session.scene))
    text = (
        f"{session.run.path}: is a marked copy, and forgets its mark by learning on; train the original, and mark that"
    )
    return replace(session, remarks=[*session.remarks, text])


def view(words: list[str]) -> int:
    """Show a run in the browser, or train on a scene and show that."""
    from nerfkit.arguments import View, parse

    # A folder that is no run is a scene: then all flags of train are known.
    named = zip(["", *words], words, strict=False)
    folder = next((Path(word) for flag, word in named if flag not in _FOLDERS and Path(word).is_dir()), None)
    if folder is not None and not (folder / "config.json").exists():
        return train([*words, "--view"])
    arguments = parse(View, "view", words)
    from nerfkit.assess import backdrop, scene_of
    from nerfkit.packed import open_run
    from nerfkit.tiles import load
    from nerfkit.viewer import Viewer

    run = open_run(arguments.run)
    model, scene = load(run), scene_of(run, arguments.scene)
    viewer = Viewer(scene, model, run, arguments.port, backdrop(scene))
    say(f"look at {viewer.url}; closing the page ends this")
    try:
        viewer.stay()
    finally:
        viewer.close()
    return 0


def eval_(words: list[str]) -> int:
    """Score a run on held-out views."""
    from nerfkit.arguments import Eval, parse

    arguments = parse(Eval, "eval", words)
    from nerfkit.assess import evaluate_run, scene_of
    from nerfkit.packed import open_run
    from nerfkit.tiles import parts_of

    run = open_run(arguments.run)
    for part in parts_of(run):
        part.load_checkpoint()  # a run without one is told at once, not after its scene was read
    scene = scene_of(run, arguments.scene)
    record = evaluate_run(run, scene, arguments.split, track)
    if arguments.json:
        print(json.dumps(record, indent=1))
    else:
        print_record(record)
    return 0


def prune(words: list[str]) -> int:
    """Make the model of a run smaller, and train it on."""
    from nerfkit.arguments import Prune, UsageError, parse

    arguments = parse(Prune, "prune", words)
    if not arguments.neurons and not arguments.fraction:
        raise UsageError("nothing to prune: say --neurons 32, or --fraction 0.8")
    from nerfkit.config import Config, PruneConfig, check

    names = ("fraction", "space", "score", "ratio", "schedule")
    settings = PruneConfig(begin=0.0, **{name: getattr(arguments, name) for name in names})
    check(Config(prune=settings))
    from nerfkit.session import interruptible, train_until_done

    with interruptible():
        from nerfkit.assess import evaluate_run, scene_of
        from nerfkit.run import Run
        from nerfkit.sparsity.again import Smaller, begin_smaller
        from nerfkit.stego.embed import with_mark
        from nerfkit.train.loop import fit

        run = Run.open(arguments.run)
        scene = scene_of(run, arguments.scene)
        out = arguments.out or beside(run.path, "-pruned")
        smaller, scene = Smaller(arguments.neurons, settings, arguments.steps), with_mark(run, scene)
        made, training = begin_smaller(run, scene, smaller, out, ["nerfkit", "prune", *words])
        field = training.model.field
        say(f"run {made.path}: {sum(w.numel() for w in field.network_parameters())} weights in the networks")
        reports = fit(scene, made.config, made, training=training)
        if train_until_done(reports, 0.0, lambda seconds: None):
            say(f"stopped; go on with: nerfkit train --resume {made.path}")
            return INTERRUPTED
        if scene.splits["test"]:
            print_record(evaluate_run(made, scene, "test", track))
        print(made.path)
    return 0


def compress(words: list[str]) -> int:
    """Write a run as one file of so many bytes."""
    from nerfkit.arguments import Compress, UsageError, parse, size_of

    arguments = parse(Compress, "compress", words)
    n_bytes, out = size_of(arguments.bytes), arguments.out or beside(arguments.run, ".nerf")
    if out.suffix != ".nerf":
        raise UsageError(f"--out {out}: expected a name such as x.nerf")
    from nerfkit.session import interruptible, train_until_done

    with interruptible():
        from nerfkit.assess import scene_of
        from nerfkit.packed import forget_scores, open_packed, write_packed
        from nerfkit.run import Run
        from nerfkit.sparsity.compress import begin
        from nerfkit.stego.embed import with_mark

        run = Run.open(arguments.run)
        compression = begin(run, with_mark(run, scene_of(run, arguments.scene)), n_bytes, arguments.steps)
        say(f"rounding at once raises the error of training rays by {100 * compression.lost:.1f} %")
        if train_until_done(compression.learn(), 0.0, lambda seconds: None):
            say("stopped; nothing was written")
            return INTERRUPTED
        write_packed(out, compression.file())
        made = open_packed(out)
        forget_scores(made)  # of what had this name before
        for name, length in made.section_bytes().items():
            say(f"{name:10} {length:>9,} bytes")
        say(f"{out.stat().st_size:,} bytes in all; score it with: nerfkit eval {out} --scene SCENE")
        print(out)
    return 0


def export(words: list[str]) -> int:
    """Write a run as a mesh, a point cloud or cameras."""
    from nerfkit.arguments import Export, parse

    arguments = parse(Export, "export", words)
    _check_export(arguments)
    from dataclasses import replace

    from nerfkit.assess import scene_of
    from nerfkit.export import DEFAULT_NAMES, ExportError, choose_kind, write_cameras, write_mesh, write_points
    from nerfkit.mesh import MeshOptions, check_installed, extract_mesh
    from nerfkit.packed import open_run
    from nerfkit.points import gather_points
    from nerfkit.tiles import load

    run = open_run(arguments.run)
    out = arguments.out or run.path / "exports" / DEFAULT_NAMES[arguments.kind or "mesh"]
    kind = choose_kind(out, arguments.kind)
    if kind == "cameras":  # those of whole pictures, whatever size was trained on
        whole = replace(run.config, data=replace(run.config.data, downscale=1))
        scene = scene_of(replace(run, config=whole), arguments.scene)
        for file in write_cameras(scene, out):
            print(file)
        return 0
    if kind == "mesh":
        check_installed()
        if run.config.train.tiles:
            raise ExportError(f"{run.path}: a mesh is made of one model, this is in tiles: export {run.path}/tiles/1")
    model, scene = load(run), scene_of(run, arguments.scene)
    cameras = scene.cameras[scene.splits["train"]]
    if kind == "points":
        points = gather_points(model, cameras, arguments.points, track_named)
        write_points(points, out)
        say(f"{len(points.positions)} points")
    else:
        names = ("resolution", "levels", "threshold", "parts", "watertight")
        options = MeshOptions(**{name: getattr(arguments, name) for name in names})
        mesh = extract_mesh(model, cameras, options, track_named)
        write_mesh(mesh, out)
        found = mesh.agreement
        say(f"{len(mesh.vertices)} vertices, {len(mesh.faces)} triangles")
        say(
            f"surface at a density of {found.threshold:.3g}: silhouettes agree with the renders to {found.iou:.3f} "
            f"(intersection over union), depths to {found.depth_error:.2g} (median, scene units)"
        )
    print(out)
    return 0


def prepare(words: list[str]) -> int:
    """Find the cameras of a folder of photographs or a video: a scene to train on."""
    from nerfkit.arguments import Prepare, UsageError, parse

    arguments = parse(Prepare, "prepare", words)
    for name, least in (("frames", 3), ("max_size", 0)):
        if getattr(arguments, name) < least:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(arguments, name)}: expected at least {least}")
    from nerfkit.prepare import PICTURE
    from nerfkit.prepare import prepare as make

    photos = arguments.photos if arguments.photos.is_dir() else arguments.photos.with_suffix("")
    out = arguments.out or beside(photos, "-scene")
    with stages() as on_progress:
        record = make(arguments.photos, out, arguments.frames, arguments.max_size, on_progress)
    laid = "" if record["gps_error"] is None else f"; laid on GPS to {record['gps_error']:.2g} m"
    rows = {
        "photos": f"{record['n_registered']} of {record['n_photos']} registered",
        "points": f"{record['n_points']}, median reprojection error {record['reprojection_error']:.2f} pixels{laid}",
        "compared": record["matching"],
        "lens": ", ".join(record["lenses"]),
        "cameras": out / PICTURE,
    }
    print_table(rows.items())
    for name, why in record["missing"].items():
        say(f"{name}: {why}")
    say(f"next: nerfkit train {out}")
    print(out)
    return 0


def compare(words: list[str]) -> int:
    """Put runs side by side on one page."""
    from nerfkit.arguments import Compare, parse

    arguments = parse(Compare, "compare", words)
    from nerfkit.assess import pictures_of
    from nerfkit.compare import compare_runs

    view_fn, truth_fn, reason = pictures_of(arguments.runs)
    if reason:
        say(f"no pictures: {reason}")
    compare_runs(arguments.runs, arguments.out, view_fn, truth_fn, arguments.rows)
    print(arguments.out)
    return 0


def info(words: list[str]) -> int:
    """Say what a folder of posed photographs holds, and what is wrong with it."""
    from nerfkit.arguments import Info, UsageError, parse

    arguments = parse(Info, "info", words)
    if arguments.picture is not None and arguments.picture.suffix != ".html":
        raise UsageError(f"--picture {arguments.picture}: expected a page, such as cameras.html")
    from nerfkit.config import DataConfig
    from nerfkit.scene import load_scene
    from nerfkit.scene.describe import describe

    scene = load_scene(arguments.scene, DataConfig(downscale=arguments.downscale))
    facts = describe(scene)
    if arguments.json:
        print(json.dumps(facts, indent=1, ensure_ascii=False))
    else:
        print_table(facts.items())
    if arguments.picture is not None:
        from nerfkit.assess import rig_of
        from nerfkit.report import write_cameras

        write_cameras(rig_of(scene), scene.name, arguments.picture)
        say(f"cameras drawn in {arguments.picture}")
    return 0


def doctor(words: list[str]) -> int:
    """Say what this machine can compute with."""
    from nerfkit.arguments import Doctor, parse

    arguments = parse(Doctor, "doctor", words)
    from nerfkit.doctor import examine
    from nerfkit.engines import explain

    findings = examine()
    if arguments.json:
        print(json.dumps({"auto": explain("auto"), "findings": [asdict(finding) for finding in findings]}, indent=1))
        return 0
    print(explain("auto"))
    for finding in findings:
        print(f"{'yes' if finding.present else 'no ':3}  {finding.name}: {finding.detail}")
        if finding.install is not None and not finding.present:
            print(f"     to have it: {finding.install}")
    return 0


def _check_export(arguments: Export) -> None:
    from nerfkit.arguments import UsageError

    for name in ("resolution", "levels", "threshold", "points"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < float("inf"):
            raise UsageError(f"--{name} {value}: expected a positive number")
    if not 0 <= arguments.parts <= 1:
        raise UsageError(f"--parts {arguments.parts}: expected a share from 0 to 1")


VERBS: dict[str, Callable[[list[str]], int]] = {
    "prepare": prepare,
    "train": train,
    "eval": eval_,
    "render": render,
    "prune": prune,
    "compress": compress,
    "export": export,
    "view": view,
    "compare": compare,
    "info": info,
    "doctor": doctor,
    **LIFTING,
    **SIGNING,
}
