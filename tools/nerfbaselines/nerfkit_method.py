"""nerfkit as a method of nerfbaselines, so that it is judged by somebody else's evaluation.

Arrays in, arrays out: nothing of nerfbaselines is imported here.
"""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nerfkit.cameras import DISTORTION, Cameras
from nerfkit.config import Config
from nerfkit.kernels.launch import prepare_cpu
from nerfkit.presets import from_dict
from nerfkit.render import load_model, render_image
from nerfkit.run import Run
from nerfkit.scene.box import choose_frame
from nerfkit.scene.carve import silhouette
from nerfkit.scene.listing import Hints
from nerfkit.scene.scene import Scene
from nerfkit.train.loop import fit, model_of

LENSES = ("pinhole", "opencv", "opencv_fisheye", "full_opencv")
"""By the numbers that nerfbaselines gives them."""
STEPS = 30_000


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """``{"train.steps": 5}`` as ``{"train": {"steps": 5}}``; what ``--set`` hands over as text is read as in TOML."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *path, last = key.split(".")
        place = tree
        for part in path:
            place = place.setdefault(part, {})
        place[last] = _number_or_text(value) if isinstance(value, str) else value
    return tree


def _number_or_text(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def cameras_of(given: Any) -> Cameras:
    """nerfbaselines' cameras, one or many: camera to world with OpenCV axes, (fx, fy, cx, cy), OpenCV's distortion."""
    poses, intrinsics, numbers, sizes, bends = (
        np.atleast_2d(np.asarray(values))
        for values in (
            given.poses.reshape(-1, *given.poses.shape[-2:]).reshape(-1, 12),
            given.intrinsics,
            np.asarray(given.camera_models).reshape(-1, 1),
            given.image_sizes,
            given.distortion_parameters,
        )
    )
    lenses = {LENSES[int(number)].removeprefix("full_") for number in numbers[:, 0]}
    if len(lenses - {"pinhole"}) > 1:
        raise ValueError(f"cameras with several kinds of lenses: {', '.join(sorted(lenses))}")
    distortion = np.zeros((len(poses), len(DISTORTION)), np.float32)
    distortion[:, : bends.shape[1]] = bends[:, : len(DISTORTION)]
    columns = (torch.tensor(intrinsics[:, i], dtype=torch.float32) for i in range(4))
    width, height = (torch.tensor(sizes[:, i], dtype=torch.int64) for i in range(2))
    lens = max(lenses, key=("pinhole", "opencv", "opencv_fisheye").index)
    c2w = torch.tensor(poses, dtype=torch.float32).view(-1, 3, 4)
    return Cameras(c2w, *columns, width, height, torch.from_numpy(distortion), lens)


def scene_of(dataset: dict[str, Any], config: Config) -> Scene:
    """A scene in which every picture is for training."""
    cameras = cameras_of(dataset["cameras"])
    images = [np.ascontiguousarray(image) for image in dataset["images"]]
    if images[0].dtype != np.uint8:
        images = [np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8) for image in images]
    masks = dataset.get("masks")
    alphas = [silhouette(image) for image in images] if images[0].shape[2] == 4 else None
    frame, notes = choose_frame(cameras, alphas, Hints(), config.data.aabb_scale, False)
    background = config.data.background if config.data.background != "auto" else "random"
    return Scene(
        name="nerfbaselines",
        root=(root := Path(dataset.get("image_paths_root") or ".")),
        source=root,
        format="nerfbaselines",
        cameras=cameras,
        image_names=[Path(path).name for path in dataset["image_paths"]],
        images=images,
        masks=None if masks is None else [np.asarray(mask) > 0 for mask in masks],
        splits={"train": list(range(len(images))), "val": [], "test": []},
        split_rule="the judge's",
        background=background,
        frame=frame,
        warnings=notes,
        fingerprint="",
    )


class NerfkitMethod:
    """Training step by step, rendering, and a run folder as checkpoint."""

    def __init__(
        self,
        *,
        checkpoint: str | None = None,
        train_dataset: Any = None,
        config_overrides: dict[str, Any] | None = None,
    ):
        if checkpoint is not None:
            self.run = Run.open(Path(checkpoint))
            self.config, self.model = self.run.config, load_model(self.run)
            self.step = self.run.load_checkpoint().step
            prepare_cpu()
            return
        self.run = None
        overrides = {"train.steps": STEPS, "train.report_every": 1, **(config_overrides or {})}
        self.config, self.step = from_dict(Config, nested(overrides)), 0
        self.scene = scene_of(train_dataset, self.config)
        self.model = model_of(self.scene, self.config)
        self._reports = fit(self.scene, self.config, model=self.model)

    @classmethod
    def get_method_info(cls) -> dict[str, Any]:
        """What the judge has to know beforehand."""
        return {
            "method_id": "nerfkit",
            "required_features": frozenset(("color",)),
            "supported_camera_models": frozenset(LENSES),
            "supported_outputs": ("color", "depth", "accumulation"),
            "can_resume_training": False,
        }

    def get_info(self) -> dict[str, Any]:
        """The same, and how long the training is."""
        return {
            **self.get_method_info(),
            "num_iterations": self.config.train.steps,
            "loaded_step": self.step or None,
            "hparams": {},
        }

    def get_train_embedding(self, index: int) -> None:
        """Pictures have no codes of their own."""

    def train_iteration(self, step: int) -> dict[str, float]:
        """One step of the optimiser."""
        report = next(self._reports)
        self.step = report.step
        return {"loss": report.loss, "psnr": report.psnr, "num_rays": report.rays_per_second}

    def render(self, camera: Any, *, options: Any = None) -> dict[str, np.ndarray]:
        """The picture of one camera as float32: colour (over the learnt sky, or the plain colour asked for), distance
        along z, opacity."""
        background = self.config.data.background if self.config.data.background in ("white", "black") else "sky"
        rendered = render_image(self.model, cameras_of(camera), 0, background)
        names = {"color": rendered.rgb.clamp(0, 1), "depth": rendered.depth, "accumulation": rendered.opacity}
        return {name: values.float().numpy() for name, values in names.items()}

    def save(self, path: str) -> None:
        """Write a run folder that `nerfkit render` can use, too; what was loaded is copied."""
        if self.run is not None:
            shutil.copytree(self.run.path, path, dirs_exist_ok=True)
            return
        folder, names = Path(path), {"train": self.scene.image_names}
        frame = self.model.frame.to_dict()
        run = Run.create(folder, self.config, self.scene.root, self.scene.name, frame, "", names, ["nerfbaselines"])
        state = {"train": {"n_steps": self.step}}
        run.save_checkpoint(self.step, dict(self.model.field.state_dict()), self.model.sampler.state_dict(), {}, state)
