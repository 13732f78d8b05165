"""Rays and samples a second of nerfstudio's nerfacto on a CPU (its torch implementation) beside ours, in one run.

    python tools/bench/peer_nerfstudio.py SCENE --peer-python /path/to/venv/bin/python [--seconds 60]

The peer is a Python with nerfstudio 1.1.5; SCENE is a transforms.json or Blender folder. Both train on the scene for
the same time, one after the other, on all cores. Without --peer-python only ours is timed and the line says so.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

from record import record

from nerfkit.config import Config, DataConfig, TrainConfig
from nerfkit.scene import load_scene
from nerfkit.train.loop import fit

PEER = """
import json, multiprocessing, os, sys, time
from pathlib import Path
import torch

# The registry's torchvision lacks its operators beside a CPU build of torch; nerfacto needs none of them.
register = torch.library.register_fake
torch.library.register_fake = lambda name, *a, **k: (
    (lambda f: f) if str(name).startswith("torchvision::") else register(name, *a, **k)
)
import torchmetrics.image.lpip

# Its evaluation alone uses LPIPS, whose weights would be downloaded here.
torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity = lambda **k: torch.nn.Identity()
from nerfstudio.configs.method_configs import method_configs
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig


scene, seconds = Path(sys.argv[1]), float(sys.argv[2])
config = method_configs["nerfacto"]
parser = BlenderDataParserConfig if (scene / "transforms_train.json").exists() else NerfstudioDataParserConfig
config.pipeline.datamanager.dataparser = parser(data=scene)
config.pipeline.model.implementation = "torch"
config.machine.device_type = "cpu"
config.vis = "tensorboard"
config.output_dir = Path(sys.argv[3])
config.logging.local_writer.enable = False
trainer = config.setup(local_rank=0, world_size=1)
config.save_config()
trainer.setup()
trainer.pipeline.train()
trainer.train_iteration(0)
start, steps = time.perf_counter(), 0
while time.perf_counter() - start < seconds:
    steps += 1
    trainer.train_iteration(steps)
elapsed = time.perf_counter() - start
rays = steps * trainer.pipeline.datamanager.get_train_rays_per_batch()
print(json.dumps({"steps": steps, "seconds": elapsed, "rays_per_second": rays / elapsed}), flush=True)
for loader in multiprocessing.active_children():
    loader.kill()  # or the pipe that the line above went into stays open
os._exit(0)  # its own clean-up stumbles over loaders that were never started
"""


def ours(scene_path: Path, seconds: float) -> dict[str, float]:
    """Train with the defaults; rays and samples a second over the whole time."""
    config = Config(data=DataConfig(), train=TrainConfig(time_budget=seconds))
    rays = samples = last = 0.0
    for report in fit(load_scene(scene_path, config.data), config):
        passed = report.seconds - last
        rays += report.rays_per_second * passed
        samples += report.samples_per_second * passed
        last = report.seconds
    return {"steps": report.step, "seconds": last, "rays_per_second": rays / last, "samples_per_second": samples / last}


def main() -> None:
    """Time both; print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scene", type=Path)
    parser.add_argument("--peer-python")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--peer-out", default="runs/peer")
    options = parser.parse_args()
    mine = ours(options.scene, options.seconds)
    if options.peer_python is None:
        record("peer", scene=options.scene.name, nerfkit=mine, nerfstudio=None, reason="no --peer-python given")
        return
    words = [options.peer_python, "-c", PEER, str(options.scene.resolve()), str(options.seconds), options.peer_out]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        record("peer", scene=options.scene.name, nerfkit=mine, nerfstudio=None, reason=done.stderr[-2000:])
        return
    peer = json.loads(done.stdout.strip().splitlines()[-1])
    ratio = mine["rays_per_second"] / peer["rays_per_second"]
    record("peer", scene=options.scene.name, nerfkit=mine, nerfstudio=peer, ratio=ratio)


if __name__ == "__main__":
    main()
