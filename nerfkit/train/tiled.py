"""The tiles of a scene, trained one after another, each as `fit` trains a whole scene and in a run of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace

import torch

from nerfkit.config import Config
from nerfkit.kernels.launch import hand_back_memory
from nerfkit.run import Run
from nerfkit.scene.scene import Scene
from nerfkit.scene.tiling import Tiling, divide, part_of
from nerfkit.tiles import LISTING, folder_of, tiling_of
from nerfkit.train.loop import fit
from nerfkit.train.progress import Report


@dataclass(frozen=True)
class Standing:
    """How far a training has come by its checkpoints."""

    step: int = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, run: Run) -> Standing:
        """Of a run, with all of its tiles. Raises RunError where no checkpoint is whole."""
        if run.config.train.tiles:
            begun = [part for part in (_begun(run, number) for number in range(_n_tiles(run))) if part is not None]
            each = [cls.of(part) for part in begun]
            return cls(sum(one.step for one in each), sum((one.seconds for one in each), 0.0))
        if not run.has_checkpoint:
            return cls()
        checkpoint = run.load_checkpoint()
        return cls(checkpoint.step, checkpoint.state["train"]["seconds"])

    def done(self, config: Config) -> bool:
        """Whether that is all that was asked for."""
        steps = config.train.steps
        return self.step >= steps if steps else self.seconds >= config.train.time_budget


def share_of(config: Config, number: int, n_tiles: int) -> Config:
    """The settings of one tile (counted from 0): an even share of the time, or of the steps, at least one."""
    steps, train = config.train.steps, config.train
    share = max(1, steps // n_tiles + (number < steps % n_tiles)) if steps else 0
    return replace(config, train=replace(train, tiles="", steps=share, time_budget=train.time_budget / n_tiles))


def begin_tiles(run: Run, tiling: Tiling) -> None:
    """Note where the tiles of a run are."""
    run.write_json(LISTING, tiling.to_dict())


def fit_tiles(scene: Scene, run: Run) -> Iterator[Report]:
    """Train the tiles of a scene, one after another; yields `Report`s of the whole as `fit` does, and logs them.

    Only one tile's model, optimiser and pixels are in memory at a time. Tiles that are done stay as they are, and one
    that was interrupted goes on from its checkpoint. Steps and seconds are counted through all tiles in their order.
    """
    config = run.config
    if not (run.path / LISTING).exists():  # it was killed when it had hardly begun
        begin_tiles(run, divide(scene, config.train.tiles, config.sampler.resolution))
    tiling, before = tiling_of(run), Standing()
    for number in range(len(tiling)):
        own = share_of(config, number, len(tiling))
        part = _begun(run, number)
        standing = Standing() if part is None else Standing.of(part)
        if not standing.done(own):
            learnt = part_of(scene, tiling, number)
            if part is None:
                part = _new_part(run, number, own, learnt)
            else:
                part.resume(standing.step, _command(run))
            with closing(fit(learnt, own, part, part.has_checkpoint)) as reports:
                for report in reports:
                    standing = Standing(report.step, report.seconds)
                    whole = _of_all(report, before, number, len(tiling))
                    run.log({**vars(whole), "tile": number + 1})
                    yield whole
            del learnt, reports
            hand_back_memory()
            torch.cuda.empty_cache()  # else the pictures of the next tile find no room beside what this one left
        before = Standing(before.step + standing.step, before.seconds + standing.seconds)


def _of_all(report: Report, before: Standing, number: int, n_tiles: int) -> Report:
    """A tile's report as one of the whole."""
    progress = (number + report.progress) / n_tiles
    seconds = before.seconds + report.seconds
    left = report.eta + (n_tiles - number - 1) * (report.seconds + report.eta)
    return replace(report, step=before.step + report.step, seconds=seconds, progress=progress, eta=left)


def _n_tiles(run: Run) -> int:
    return len(tiling_of(run)) if (run.path / LISTING).exists() else 0


def _begun(run: Run, number: int) -> Run | None:
    """The run of a tile, if there is one already."""
    folder = folder_of(run, number)
    return Run.open(folder) if (folder / "config.json").exists() else None


def _command(run: Run) -> list[str]:
    """The words that began a run, or took it up again."""
    provenance = run.provenance
    return provenance["resumed"][-1]["command"] if provenance.get("resumed") else provenance["command"]


def _new_part(run: Run, number: int, config: Config, scene: Scene) -> Run:
    splits = {name: [scene.image_names[view] for view in views] for name, views in scene.splits.items()}
    folder, frame = folder_of(run, number), scene.frame.to_dict()
    return Run.create(folder, config, scene.source, scene.name, frame, scene.fingerprint, splits, _command(run))
