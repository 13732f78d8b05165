"""What happens to marked models, and what is read afterwards: of renders of them, and of their numbers.

    float16    the table in half precision
    round:B    each level of the table in 2^B even steps between its least and its greatest number
    zero:S     the share S of the table's numbers that are smallest, made zero
    noise:D    Gaussian noise, in units of each level's deviation, that costs D dB of the PSNR against photographs
    tune:N     N further steps on the photographs, at the learning rates of the run
    distil:N   a new model that learns for N steps from the renders of the marked one

What each costs is the PSNR against held-out photographs that the marked model loses by it: who removes a mark wants to
keep the scene.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from nerfkit.kernels.hashgrid import GridLayout
from nerfkit.packed import open_run
from nerfkit.provenance import digest
from nerfkit.render import Model, load_model
from nerfkit.sparsity.again import take_up
from nerfkit.stego.attacks import Picture
from nerfkit.stego.cost import against_photographs, psnr
from nerfkit.stego.embed import shown_by
from nerfkit.stego.keys import Key, StegoError
from nerfkit.stego.message import Letter
from nerfkit.stego.plan import Plan
from nerfkit.stego.protocol import Bench, Missing, Row, key, strength
from nerfkit.stego.weights import table_of
from nerfkit.tiles import load
from nerfkit.train.loop import fit, model_of
from nerfkit.train.training import Training

Table = Float[Tensor, "entries features"]
_ROUNDS, _WITHIN = 8, 0.1
"""Looks for how much noise costs so much, at most, and by how much it may be off, dB."""


@dataclass(frozen=True)
class Marked:
    """A marked model, before anything happened to it."""

    bench: Bench
    letter: Letter
    message: bytes
    table: Table
    renders: list[Picture]
    photo_psnr: float | None
    """Against held-out photographs, dB."""

    @classmethod
    def of(cls, bench: Bench, by: Key, message: bytes) -> Marked:
        """A copy of the owner's model."""
        with bench.marked(by, message):
            table, photo_psnr = bench.model.field.table.detach().clone(), _photo_psnr(bench, bench.model)
            return cls(bench, bench.letter(by), message, table, bench.renders(), photo_psnr)

    def lost(self, suspect: Model) -> float | None:
        """PSNR against photographs that a model has less, dB; None where no photographs are held out."""
        after = _photo_psnr(self.bench, suspect) if self.photo_psnr is not None else None
        return None if after is None else self.photo_psnr - after

    def row(self, suspect: Model, table: Table | None) -> Row:
        """What a suspect costs, and what is read of it and of its table."""
        pictures = self.bench.renders(suspect)
        row: Row = {"attack_psnr": psnr(list(zip(pictures, self.renders, strict=True)))}
        row["photo_loss"] = self.lost(suspect)
        row |= self.bench.reading(self.bench.heard(pictures), self.letter, self.message)
        same_shape = table is not None and table.shape == self.table.shape
        row["inspected"] = self.bench.inspects(table, self.letter) == self.message if same_shape else None
        return row


def model_rows(bench: Bench, plan: Plan, missing: Missing) -> Iterator[Row]:
    """Attacks on a marked model."""
    what = {"size": plan.size, "views": plan.views, "strength": strength(bench.mark)}
    for by in plan.models:
        if by != "float16" and re.fullmatch(r"(round|zero|noise|tune|distil):\d+(\.\d+)?", by) is None:
            expected = "float16, round:8, zero:0.5, noise:1, tune:100 or distil:1000"
            raise StegoError(f"attack on models {by!r}: expected {expected}")
    left = [by for by in plan.models if missing({**what, "attack": by})]
    if not left:
        return
    marked = Marked.of(bench, key(0), bench.message(0))
    learning = {"tune": _tuned, "distil": _distilled}
    numbers = [by for by in left if by.partition(":")[0] not in learning]
    suspect = load_model(bench.run)
    for by in numbers:
        _set(suspect, _attacked(marked, suspect, by))
        yield {**what, "attack": by, **marked.row(suspect, suspect.field.table.detach())}
    for name, begun in learning.items():
        steps = sorted(int(float(by.partition(":")[2])) for by in left if by.startswith(name))
        for step, suspect in _on_the_way(begun(marked, steps[-1]), steps) if steps else ():
            yield {**what, "attack": f"{name}:{step}", **marked.row(suspect, suspect.field.table.detach())}


def suspect_rows(
    bench: Bench, plan: Plan, missing: Missing, suspects: Sequence[Path], by: Key, message: bytes
) -> Iterator[Row]:
    """Marked copies that something was done to by other means: runs, or files of `nerfkit compress`."""
    # A message is told by a number that only the key's owner can find for a given one.
    told = by.of_scene(bench.mark.terms.scene).draw(f"row of {message.hex()}", 8).tobytes().hex()
    what = {"size": plan.size, "views": plan.views, "strength": strength(bench.mark), "key": by.name, "told": told}
    marked = None
    for path in suspects:
        table = table_of(path)
        own = {**what, "suspect": path.name, "table": digest(table.contiguous().numpy().tobytes())}
        if missing(own):
            marked = marked or Marked.of(bench, by, message)
            yield {**own, **marked.row(load(open_run(path)), table)}


def rounded(table: Table, layout: GridLayout, n_bits: int) -> Table:
    """Each level in 2^n_bits even steps between its least and its greatest number."""
    out = table.clone()
    for a, b in zip(layout.offsets, layout.offsets[1:], strict=False):
        low, high = table[a:b].min(), table[a:b].max()
        step = ((high - low) / (2**n_bits - 1)).clamp_min(1e-30)
        out[a:b] = ((table[a:b] - low) / step).round() * step + low
    return out


def zeroed(table: Table, share: float) -> Table:
    """The smallest of all numbers made zero."""
    n = round(share * table.numel())
    out = table.flatten().clone()
    out[out.abs().argsort()[:n]] = 0.0
    return out.view_as(table)


def noisy(table: Table, layout: GridLayout, share: float) -> Table:
    """Gaussian noise of this share of the deviation of each level."""
    noise = torch.randn(table.shape, generator=torch.Generator().manual_seed(0)).to(table.device)
    out = table.clone()
    for a, b in zip(layout.offsets, layout.offsets[1:], strict=False):
        out[a:b] += share * table[a:b].std() * noise[a:b]
    return out


def _attacked(marked: Marked, suspect: Model, by: str) -> Table:
    """The marked table after one of the attacks on numbers."""
    name, _, how = by.partition(":")
    layout = suspect.field.grid.layout
    attacks: dict[str, Callable[[], Table]] = {
        "float16": lambda: marked.table.half().float(),
        "round": lambda: rounded(marked.table, layout, int(float(how))),
        "zero": lambda: zeroed(marked.table, float(how)),
        "noise": lambda: _noise_that_costs(marked, suspect, float(how)),
    }
    return attacks[name]()


def _noise_that_costs(marked: Marked, suspect: Model, decibels: float) -> Table:
    """The table with so much noise: the loss grows about as the square of the noise."""
    if marked.photo_psnr is None:
        raise StegoError("noise is measured against photographs, and none is held out; leave noise out of --models")
    layout, share = suspect.field.grid.layout, 0.1
    for _ in range(_ROUNDS):
        table = noisy(marked.table, layout, share)
        _set(suspect, table)
        lost = marked.lost(suspect)
        if abs(lost - decibels) < _WITHIN:
            break
        share *= min(max((decibels / max(lost, 1e-3)) ** 0.5, 0.25), 4.0)
    return table


def _tuned(marked: Marked, n_steps: int) -> Training:
    """The marked model, to learn on from the photographs."""
    training = take_up(marked.bench.run, marked.bench.scene, n_steps, 1.0)
    _set(training.model, marked.table)
    return training


def _distilled(marked: Marked, n_steps: int) -> Training:
    """A new model, to learn from what the marked one shows where the photographs were taken.

    It begins from other numbers than the owner's did: from the same ones it would come to like ones.
    """
    run, teacher = marked.bench.run, load_model(marked.bench.run)
    _set(teacher, marked.table)
    scene = shown_by(teacher, marked.bench.scene)
    train = replace(run.config.train, steps=n_steps, seed=run.config.train.seed + 1, poses=False, align=0, realign=0)
    return Training.new(scene, model_of(scene, replace(run.config, train=train)))


def _on_the_way(training: Training, steps: list[int]) -> Iterator[tuple[int, Model]]:
    """A model after these numbers of steps, of which the last is that of its training."""
    config = training.model.config
    config = replace(config, train=replace(config.train, report_every=math.gcd(*steps)))
    for report in fit(training.pixels.scene, config, training=training):
        if report.step in steps:
            yield report.step, training.model


def _set(model: Model, table: Table) -> None:
    with torch.no_grad():
        model.field.table.copy_(table)


def _photo_psnr(bench: Bench, model: Model) -> float | None:
    return against_photographs(model, bench.scene, bench.mark.terms.background)
