"""Tells nerfbaselines of nerfkit: ``export NERFBASELINES_REGISTER=/path/to/tools/nerfbaselines/nerfkit_spec.py``.

The method runs in the Python that nerfbaselines runs in (``--backend python``), where nerfkit is installed.
"""

import sys
from pathlib import Path

from nerfbaselines import register

# A file that is named in the environment belongs to no package, in which nerfbaselines could find the method.
sys.path.append(str(Path(__file__).parent))

register(
    {
        "id": "nerfkit",
        "method_class": "nerfkit_method:NerfkitMethod",
        "metadata": {
            "name": "nerfkit",
            "description": "A hash-grid radiance field with occupancy-guided sampling, for CPUs and CUDA.",
        },
        "backends_order": ["python"],
        "presets": {"blender": {"@apply": [{"dataset": "blender"}], "data.background": "white"}},
        "required_features": ["color"],
        "supported_camera_models": ["pinhole", "opencv", "opencv_fisheye", "full_opencv"],
        "supported_outputs": ["color", "depth", "accumulation"],
        "implementation_status": {"blender": "working"},
    }
)
