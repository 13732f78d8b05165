"""A scanned toy that SyncDreamer's authors rendered from 16 sides, as an object of `nerfkit lift-bench`.

    PYTHONPATH=tools python -m lift_prior.make_chicken ../shared/data/chicken OUT

The folder has cameras.json and views/*.png with depth beside (see its SOURCE.md). The first view is lifted, the others
are what is scored. OUT gets a folder `chicken`.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import cv2
import numpy as np

_NEAR, _SPAN, _NOTHING = 0.6, 1.8, 65535
"""z = v / 65535 * 1.8 + 0.6 in the scan's units; the last value is ground."""


def main() -> None:
    """Write the object."""
    source, out = Path(sys.argv[1]), Path(sys.argv[2]) / "chicken"
    about = json.loads((source / "cameras.json").read_text())
    half = math.atan(about["w"] / 2 / about["fl_x"])
    (out / "views").mkdir(parents=True, exist_ok=True)
    frames = about["frames"]
    poses = []
    for frame in frames:
        turn = math.degrees(frame["azimuth_rad"] - frames[0]["azimuth_rad"]) % 360
        pose = {"azimuth": turn, "elevation": math.degrees(frame["elevation_rad"]), "fov": 2 * math.degrees(half)}
        poses.append({**pose, "radius": 1 / math.sin(half)})
    scale = frames[0]["distance"] * math.sin(half)  # of the ball that just fills the picture
    depth = cv2.imread(str(source / frames[0]["depth_path"]), cv2.IMREAD_UNCHANGED)
    z = (depth.astype(float) / 65535 * _SPAN + _NEAR) / scale
    near, far = poses[0]["radius"] - 1, poses[0]["radius"] + 1
    kept = np.where(depth < _NOTHING, 1 + 65534 * (z - near) / (far - near), 0)
    cv2.imwrite(str(out / "input_depth.png"), np.round(kept).clip(0, 65535).astype(np.uint16))
    for i, frame in enumerate(frames):
        picture = cv2.imread(str(source / frame["file_path"]), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(out / ("input.png" if i == 0 else f"views/{i - 1:03d}.png")), picture)
    known = {"title": "scanned toy", "near": near, "far": far, "input": poses[0], "views": poses[1:]}
    (out / "cameras.json").write_text(json.dumps(known, indent=1))


if __name__ == "__main__":
    main()
