"""Radiance fields from a folder of photographs, on a plain CPU or on CUDA.

::

    import nerfkit

    scene = nerfkit.load_scene(Path("scenes/armillary"), nerfkit.Config().data)
    for report in nerfkit.fit(scene, nerfkit.Config()):
        print(report.psnr)

The names below are loaded when they are first used, so that ``import nerfkit`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Cameras": "cameras",
    "Config": "config",
    "Field": "types",
    "Rays": "types",
    "Rendered": "types",
    "Report": "train.progress",
    "Run": "run",
    "Sampler": "types",
    "Samples": "types",
    "Scene": "scene",
    "evaluate_run": "assess",
    "fit": "train.loop",
    "load_model": "render",
    "load_scene": "scene",
    "open_run": "packed",
    "render_image": "render",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
