"""How long a mark takes: to be read from a picture, and to carry another message.

    python tools/bench/reading.py RUN... [--size 512] [--views 12] [--scene FOLDER]

Each run was marked (`nerfkit embed`); copies are marked in memory, with a key of no use. A picture's time is that of
`look_for`, from pixels to the message and its chance, with all cores; the run is open, and a first picture does not
count. One JSON line a run: seconds, messages that were right, and bytes of what reading takes beside run and key.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from record import record

from nerfkit.assess import scene_of
from nerfkit.render import load_model
from nerfkit.run import Run
from nerfkit.stego.embed import moved
from nerfkit.stego.extract import look_for
from nerfkit.stego.mark import read_mark
from nerfkit.stego.plan import Plan
from nerfkit.stego.protocol import Bench, key


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--views", type=int, default=12)
    parser.add_argument("--scene", type=Path)
    a = parser.parse_args()
    for run in map(Run.open, a.runs):
        model = load_model(run)
        mark = read_mark(run, model)
        bench = Bench.of(run, model, mark, scene_of(run, a.scene), Plan(views=a.views + 1, size=a.size))
        letter, message = bench.letter(key(0)), bench.message(0)
        started = time.perf_counter()
        with moved(model, mark, letter, message):
            changed = time.perf_counter() - started
            pictures = bench.renders()
        seconds, right = [], 0
        for picture in pictures:
            started = time.perf_counter()
            found = look_for(model, mark, key(0), lambda picture=picture: [picture])
            seconds.append(time.perf_counter() - started)
            right += found.reading is not None and found.reading.message == message
        kept = (run.path / "mark" / "carriers.safetensors").stat().st_size
        times = {"median": statistics.median(seconds[1:]), "max": max(seconds[1:]), "another_message": changed}
        record(
            "reading", run=run.path.name, size=pictures[0].shape[:2], right=[right, len(pictures)], **times, kept=kept
        )


if __name__ == "__main__":
    main()
