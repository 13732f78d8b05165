"""Lift pictures, and show all of them on one sheet: each beside views of what it was lifted to. How like each picture
its own view came out is printed, a line of JSON each.

    PYTHONPATH=tools python -m lift_prior.gallery RUNS SHEET.jpg PHOTO[:MASK] ... [--fast]

Runs that are there are not made again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

from nerfkit.cli import main as nerfkit
from nerfkit.lift.looks import view_of
from nerfkit.lift.photo import over_white
from nerfkit.render import load_model
from nerfkit.run import Run

_SIDE, _COLUMNS = 144, 3
_AZIMUTHS = (0.0, 60.0, 180.0, 300.0)


def strip(run: Run) -> np.ndarray:
    """The picture as it was learnt, and what it was lifted to."""
    photo = cv2.cvtColor(cv2.imread(str(run.path / "scene" / "photo.png"), cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)
    model, elevation = load_model(run), run.read_json("lift.json")["elevation"]
    views = [view_of(model, azimuth, elevation, _SIDE) for azimuth in _AZIMUTHS]
    small = cv2.resize(255 * over_white(photo), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return np.concatenate([small, *[255 * over_white(view) for view in views]], 1)


def main() -> None:
    """Make the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("sheet", type=Path)
    parser.add_argument("photos", nargs="+")
    parser.add_argument("--fast", action="store_true")
    args = parser.parse_args()
    strips = []
    for text in args.photos:
        photo, _, mask = text.partition(":")
        name = Path(photo).stem if Path(photo).stem != "image" else Path(photo).parent.name
        out = args.runs / name
        if not (out / "lift.json").exists():
            words = ["lift", photo, "-o", str(out), "--no-film", "--no-mesh", *(["--mask", mask] if mask else [])]
            if nerfkit([*words, *(["--fast"] if args.fast else [])]):
                raise SystemExit(f"{photo}: was not lifted")
        run = Run.open(out)
        print(json.dumps({"photo": name, **run.read_json("lift.json")}))
        strips.append(strip(run))
    blank = np.full_like(strips[0], 255)
    strips += [blank] * (-len(strips) % _COLUMNS)
    rows = [np.concatenate(strips[i : i + _COLUMNS], 1) for i in range(0, len(strips), _COLUMNS)]
    sheet = np.concatenate(rows, 0).round().astype(np.uint8)
    cv2.imwrite(str(args.sheet), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()
