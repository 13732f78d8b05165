"""Photographs laid onto what the field shows of them, again and again while it is learnt.

In the manner of AligNeRF (Jiang et al. 2023, section 4.3), which trains and aligns in turns: a round finds the dense
flow from the picture that each training camera takes of the field to its photograph, and the training goes on with the
photograph bent by it. Leaves that the wind has moved, a lens that is known badly and a pose that is off by a pixel all
blur a field, and each other's photographs tell what they have in common.

A flow is trusted where it leads back to where it came from and where there is something to see; from there it spreads
to its surroundings. What the flows of all photographs have in common is taken out: it would carry the field away.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from nerfkit.assess import backdrop, truth
from nerfkit.evaluate import to_bytes
from nerfkit.flow import LEAST, flow_between, reached, warped
from nerfkit.poses import SceneError
from nerfkit.render import Model, render_image
from nerfkit.scene.scene import Scene
from nerfkit.scene.store import Store
from nerfkit.train.pixels import Pixels

_COARSER = 4
"""Pixels that share one number of a flow that is kept: it is smooth."""
_ENOUGH = 1 << 18
"""Pixels of a picture in which a flow is looked for, at most: to a pixel's tenth it is found in smaller ones, too."""
_SHARE = 0.3
"""Rays that a round may render, in units of those that were trained on before: a ray takes a third of the time."""
_SPREAD = 6.0
"""Pixels, sigma of the bell over which a flow is averaged."""
MOST_BENT = 0.01
"""Longest way of a pixel, as a share of the picture's longer side."""
_FLAT = 4.0
"""Squared slope of brightness, in levels of 255, that counts as half something to see."""
_RETURN = 1.0
"""Pixels from where it came at which a flow that leads there and back counts half."""


def trusted_flow(
    shown: UInt8[np.ndarray, "h w 3"], photograph: UInt8[np.ndarray, "h w 3"], usable: Bool[np.ndarray, "h w"] | None
) -> tuple[Float[np.ndarray, "h w 2"], Float[np.ndarray, "h w"]]:
    """The smooth flow from what is shown to the photograph, pixels, and how far each pixel is to be trusted, 0 to 1."""
    there, back = flow_between(shown, photograph), flow_between(photograph, shown)
    astray = ((there + warped(back, there)) ** 2).sum(-1)
    grey = cv2.cvtColor(np.ascontiguousarray(shown), cv2.COLOR_RGB2GRAY).astype(np.float32)
    slope = cv2.Scharr(grey, cv2.CV_32F, 1, 0) ** 2 + cv2.Scharr(grey, cv2.CV_32F, 0, 1) ** 2
    slope = cv2.GaussianBlur(slope / 32**2, (0, 0), 1.0)  # Scharr's weights sum to 32
    trust = slope / (slope + _FLAT) / (1.0 + astray / _RETURN**2)
    counts = np.ones(trust.shape, bool) if usable is None else usable
    trust = trust * reached(counts, there)
    most = MOST_BENT * max(trust.shape)
    length = np.linalg.norm(there, axis=-1, keepdims=True)
    there = there * np.minimum(1.0, most / np.maximum(length, 1e-6))
    # Where nothing is trusted far and wide, a little trust in not moving at all decides.
    total = cv2.GaussianBlur(trust, (0, 0), _SPREAD) + 1e-3
    flow = cv2.GaussianBlur(there * trust[..., None], (0, 0), _SPREAD) / total[..., None]
    return flow.astype(np.float32), trust.astype(np.float32)


def bent(image: UInt8[np.ndarray, "h w c"], flow: Float[np.ndarray, "h w 2"]) -> UInt8[np.ndarray, "h w c"]:
    """A photograph, RGB or RGB and straight alpha, with what stands at x + f(x) at x."""
    values = np.array(image, np.float32)
    values[..., :3] *= values[..., 3:] / 255 if image.shape[2] == 4 else 1.0
    values = warped(values, flow)
    values[..., :3] /= np.maximum(values[..., 3:], 1.0) / 255 if image.shape[2] == 4 else 1.0
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


class Realignment:
    """How each training photograph is bent, and when that is found anew."""

    def __init__(self, scene: Scene, n_rounds: int, room: float = math.inf):
        """``room``: bytes of memory that bent photographs may take; the others wait in a file."""
        self._scene, self._n_rounds, self._room = scene, n_rounds, room
        self._done = torch.tensor(0)
        sizes = [scene.images[view].shape[:2] for view in scene.splits["train"]]
        smallest = min(sizes, key=min)
        if min(smallest) < LEAST:
            found = f"a picture of {smallest[1]}x{smallest[0]} pixels"
            raise SceneError(f"{scene.root}: {found} is too small for train.realign, which takes {LEAST} a side")
        self._flows = [torch.zeros(*(-(-n // _COARSER) for n in size), 2, dtype=torch.float16) for size in sizes]

    def state_dict(self) -> dict[str, Tensor]:
        """All that changes, to be saved with a checkpoint."""
        flows = {f"realign.flow.{i}": flow for i, flow in enumerate(self._flows)}
        return {"realign.done": self._done, **flows}

    def load_state_dict(self, state: dict[str, Tensor], pixels: Pixels) -> None:
        """Go back to a saved state, and let ``pixels`` show the photographs as they were bent then."""
        self._done, *self._flows = state.values()
        if int(self._done):
            self._bend(pixels)

    def update(self, progress: float, n_rays: int, model: Model, pixels: Pixels) -> dict[str, Any] | None:
        """Bend the photographs anew if a round is due, N of which divide a training into N + 1 equal parts.

        The fewer rays (``n_rays``) were trained on so far, the smaller the pictures in which it looks.

        Returns how far, in pixels, for the log; None if there was no round.
        """
        done = int(self._done)
        if done == self._n_rounds or progress < (done + 1) / (self._n_rounds + 1):
            return None
        flows, trusts, views = [], [], pixels.scene.splits["train"]
        enough = min(_SHARE * n_rays / len(views), float(_ENOUGH))
        for view in views:
            flow, trust = self._look(view, enough, model, pixels.scene)
            flows.append(flow)
            trusts.append(trust)
        means = np.stack([flow.mean((0, 1)) for flow in flows])
        common = (means * np.array(trusts)[:, None]).sum(0) / max(sum(trusts), 1e-9)
        # How coarsely each is kept its size says already.
        sizes = [flow.shape[1::-1] for flow in self._flows]
        kept = [cv2.resize(flow - common.astype(np.float32), size) for flow, size in zip(flows, sizes, strict=True)]
        self._flows = [torch.from_numpy(flow).half() for flow in kept]
        self._done += 1
        self._bend(pixels)
        lengths = torch.cat([flow.float().norm(dim=-1).flatten() for flow in self._flows])
        root = math.sqrt(float(lengths.square().mean()))
        return {"round": done + 1, "root_mean_square": root, "most": float(lengths.max())}

    def _look(self, view: int, enough: float, model: Model, scene: Scene) -> tuple[Float[np.ndarray, "h w 2"], float]:
        """The flow of one photograph, in its own pixels, of a picture of about so many; how far it is trusted."""
        background, photograph = backdrop(scene), truth(self._scene, view, backdrop(scene)).numpy()
        height, width = photograph.shape[:2]
        by = min(math.ceil(math.sqrt(height * width / max(enough, 1.0))), max(min(height, width) // LEAST, 1))
        height, width = height // by, width // by

        def smaller(picture: np.ndarray) -> np.ndarray:
            return cv2.resize(picture[: by * height, : by * width], (width, height), interpolation=cv2.INTER_AREA)

        shown = to_bytes(render_image(model, scene.cameras[[view]].scaled(1 / by), 0, background).rgb)
        usable = None if scene.masks is None else smaller(scene.masks[view].astype(np.float32)) > 0.99
        flow, trust = trusted_flow(shown, to_bytes(torch.from_numpy(smaller(photograph))), usable)
        return by * flow, float(by**2 * trust.sum())

    def _bend(self, pixels: Pixels) -> None:
        """Show the photographs bent by the flows as they are kept."""
        shown = []
        with Store(self._room) as store:
            for view, kept in zip(self._scene.splits["train"], self._flows, strict=True):
                image = self._scene.images[view]
                flow = cv2.resize(kept.float().numpy(), image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
                shown.append(store.keep(bent(np.ascontiguousarray(image), flow)))
        pixels.show(shown)
