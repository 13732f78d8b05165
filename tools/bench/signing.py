"""The tables of docs/signing.md, of what `nerfkit stego-bench` found on several scenes.

    python tools/bench/signing.py RESULTS.jsonl RUN      # rows of a run that RESULTS.jsonl has not yet are appended
    python tools/bench/signing.py RESULTS.jsonl ... --table

A cell says how many raw bits are right of pictures that were found, from how many single pictures the message was exact
and, where not all were, how many were found. Beside models stands what was done to them, and what it costs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean

from record import Rows

from nerfkit.run import Run
from nerfkit.stego.bench import rows_of
from nerfkit.stego.bench_page import added
from nerfkit.stego.protocol import Row


def take(rows: Rows, run: Run) -> None:
    """Append what a run has and the file has not."""
    for row in rows_of(run):
        if not rows.has(row):
            rows.add(row)


def cell(row: Row) -> str:
    """What was read after an attack."""
    good, n = row["exact_1"]
    found = "" if row["found"][0] == n else f" ({row['found'][0]} found)"
    return ("–" if row["raw"] is None else f"{100 * row['raw']:.2f} %") + f", {good}{found}"


def attacks(scenes: dict[str, list[Row]]) -> None:
    """Attacks down, marks of scenes across; a table for each number of views."""
    marks: dict[tuple[str, float], list[Row]] = {}
    for name, rows in scenes.items():
        for row in rows:
            if row["part"] == "attacks":
                marks.setdefault((name, row["strength"]), []).append(row)
    tables: dict[int, list[str]] = {}
    columns: dict[str, dict[str, str]] = {}
    for (name, _), rows in marks.items():
        tried = dict.fromkeys(row["attack"] for row in rows)
        by_attack = {by: added(row for row in rows if row["attack"] == by) for by in tried}
        psnr, worst = fmean(row["psnr"] for row in rows), min(row["worst_psnr"] for row in rows)
        head = f"{name} {psnr:.1f} dB, worst {worst:.1f}"
        tables.setdefault(max(row["exact_1"][1] for row in by_attack.values()), []).append(head)
        columns[head] = {by: cell(row) for by, row in by_attack.items()}
    for n, heads in tables.items():
        print(f"| attack, {n} views | {' | '.join(heads)} |\n{'|---' * (1 + len(heads))}|")
        for by in dict.fromkeys(by for head in heads for by in columns[head]):
            print(f"| `{by}` | {' | '.join(columns[head].get(by, '') for head in heads)} |")
        print()
    every = added(row for rows in marks.values() for row in rows)
    print(f"exact from four {every['exact_4']}, from eight {every['exact_8']}\n")


def models(scenes: dict[str, list[Row]]) -> None:
    """What was done to models."""
    print("| scene | done to the model | dB lost | bits right, exact of single views | four | eight | `inspect` |")
    print("|---|---|---|---|---|---|---|")
    for name, rows in scenes.items():
        for row in (row for row in rows if row["part"] in ("models", "suspects")):
            groups = " | ".join("{} of {}".format(*row[k]) for k in ("exact_4", "exact_8"))
            done, n = row.get("attack") or row["suspect"], row["exact_1"][1]
            lost, seen = f"{round(row['photo_loss'], 2) + 0.0:.2f}", f"{cell(row)} of {n}"
            cells = [name, f"`{done}`", lost, seen, groups, str(row["inspected"])]
            print(f"| {' | '.join(cells)} |")


def main() -> None:
    """Take rows over, or print tables of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path, nargs="+", help="files of rows; with a run behind one, it takes its rows")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if not arguments.table:
        file, run = arguments.results
        take(Rows(file), Run.open(run))
        return
    scenes = {path.stem.removeprefix("signing-"): Rows(path).each for path in arguments.results}
    attacks(scenes)
    models(scenes)


if __name__ == "__main__":
    main()
