"""Entries of a large table that nothing in a scene reaches: how many there are, and that no picture hears of them.

    python tools/bench/dead.py [--fixtures solid lattice glossy fog] [--log2 19] [--resolution 128] [--size 200]

For each scene of `fixtures.py` occupied cells are known from the formula; a table of 16 levels and two features from
16 to 2048 cells holds random numbers. Pictures from eight cameras are taken, the entries that no occupied cell reaches
are set to zero, and the same pictures taken again. One JSON line a scene.
"""

from __future__ import annotations

import argparse

import torch
from fixtures import DISTANCE, FIXTURES, REACH, cameras_about
from record import record

from nerfkit.config import Config, FieldConfig, SamplerConfig
from nerfkit.kernels.cells import Cells
from nerfkit.kernels.reach import reachable
from nerfkit.render import Model, new_model, render_image
from nerfkit.sampling.settled import Settled
from nerfkit.sampling.stepping import places_in, stepping_of
from nerfkit.scene.scene import Frame

N_VIEWS = 8
THICK = 0.02
"""Optical thickness of a cell from which on it is occupied, as the grid has it."""


def cells_of(name: str, resolution: int, frame: Frame) -> Cells:
    """The cells in which a fixture is not empty."""
    config = SamplerConfig(resolution=resolution)
    stepping = stepping_of(config, 1, frame.near_plane * frame.scale, frame.far_plane * frame.scale)
    generator, found = torch.Generator().manual_seed(0), []
    for part in torch.arange(resolution**3).split(1 << 19):
        dense = torch.zeros(len(part))
        for _ in range(8):
            at = places_in(part, torch.rand(len(part), 3, generator=generator), stepping)
            world = (at - 0.5) * 2 * REACH
            dense = torch.maximum(dense, FIXTURES[name](world, torch.zeros_like(world))[0])
        found.append(dense * 2 * REACH / resolution > THICK)
    return Cells.of(torch.cat(found).view(1, *[resolution] * 3), stepping)


def pictures(model: Model, size: int) -> list[torch.Tensor]:
    """What the cameras see."""
    cameras = cameras_about(N_VIEWS, size, 0.7)
    return [render_image(model, cameras, view, "white").rgb for view in range(N_VIEWS)]


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--fixtures", nargs="+", default=[*FIXTURES], choices=FIXTURES)
    parser.add_argument("--log2", type=int, default=19)
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--size", type=int, default=200)
    a = parser.parse_args()
    field = FieldConfig(n_levels=16, n_features=2, log2_table_size=a.log2, finest_resolution=2048)
    config = Config(field=field, sampler=SamplerConfig(resolution=a.resolution), engine="cpu")
    box = (-REACH, -REACH, -REACH, REACH, REACH, REACH)
    frame = Frame((0.0, 0.0, 0.0), 1 / (2 * REACH), box, 0.1, DISTANCE + 2 * REACH)
    for name in a.fixtures:
        cells = cells_of(name, a.resolution, frame)
        model = new_model(config, frame)
        model = Model(model.field, Settled(cells), frame, config, model.device)
        with torch.no_grad():
            model.field.table.copy_(torch.randn(model.field.table.shape, generator=torch.Generator().manual_seed(1)))
        before = pictures(model, a.size)
        layout = model.field.grid.layout
        reached = reachable(cells, layout)
        with torch.no_grad():
            model.field.table[~reached] = 0.0
        same = all(torch.equal(one, other) for one, other in zip(before, pictures(model, a.size), strict=True))
        record(
            "dead",
            scene=name,
            occupied=float(cells.occupied.float().mean()),
            entries=layout.n_entries,
            dead=float((~reached).float().mean()),
            bit_identical=same,
            spread=float(torch.stack(before).std()),
        )


if __name__ == "__main__":
    main()
