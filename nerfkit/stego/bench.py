"""All that is tried on an owner's mark, part by part. Its run keeps the rows; what stands there is not done again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from nerfkit.provenance import commit, cpu_name, now, versions
from nerfkit.run import Run
from nerfkit.stego.forgery import forgery_rows, overwrite_rows
from nerfkit.stego.model_attacks import model_rows
from nerfkit.stego.nulls import null_rows
from nerfkit.stego.plan import Plan
from nerfkit.stego.protocol import Bench, Missing, Row, attack_rows
from nerfkit.stego.steganalysis import steganalysis_rows

ROWS, PAGE = "mark/bench.jsonl", "mark/bench.html"
PROTOCOL = 4
"""What rows mean: raised when views, attacks or readers change, so that older rows are neither taken for new ones nor
shown beside them."""
RowsFn = Callable[[Missing], Iterator[Row]]


def rows_of(run: Run) -> list[Row]:
    """All that a run has of its mark by the protocol of today."""
    return [row for row in run.read_log(ROWS) if row.get("protocol") == PROTOCOL]


def measured(run: Run, part: str, rows_fn: RowsFn) -> Iterator[Row]:
    """The rows of a part that its run has not yet, written down one by one."""
    there = [row for row in rows_of(run) if row["part"] == part]

    def missing(what: Row) -> bool:
        return not any(what.items() <= row.items() for row in there)

    machine = {"protocol": PROTOCOL, "cpu": cpu_name(), "versions": versions(), "commit": commit()}
    for row in rows_fn(missing):
        row = {"part": part, "time": now(), **row, **machine}
        run.log(row, ROWS)
        yield row


def parts_of(bench: Bench, plan: Plan, other: Bench | None, names: Sequence[str]) -> dict[str, RowsFn]:
    """The parts of these names, in the order in which they are told of; ``other`` is a bench of another scene."""
    known: dict[str, RowsFn] = {
        "attacks": lambda missing: attack_rows(bench, plan, missing),
        "nulls": lambda missing: null_rows(bench, plan, missing),
        "forgery": lambda missing: forgery_rows(bench, plan, missing, other),
        "overwrite": lambda missing: overwrite_rows(bench, plan, missing),
        "models": lambda missing: model_rows(bench, plan, missing),
        "steganalysis": lambda missing: steganalysis_rows(bench, plan, missing, other),
    }
    return {name: part for name, part in known.items() if name in names}
