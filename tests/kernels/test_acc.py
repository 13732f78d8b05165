"""nerfacc's marching and compositing beside ours: what it is asked for, and what is made of its answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from compare import assert_close
from targets import N_RAYS, STEPPINGS, cells_of, columns, listed, rays
from torch import Tensor

from nerfkit.kernels import acc, reference
from nerfkit.kernels.check import relative_error, sample_error
from nerfkit.types import Samples

nerfacc = acc.load()


def traverse(rays_o: Tensor, rays_d: Tensor, binaries: Tensor, aabbs: Tensor, **how: Any) -> tuple[Any, Any, None]:
    """As nerfacc describes it: steps on the lattice that begins at the near plane, in occupied cells of the first box
    that holds their middle. A loop over all of them."""
    owners, starts, ends, counts = [], [], [], []
    for r in range(len(rays_o)):
        t, n = float(how["near_planes"][r]), 0
        while t < float(how["far_planes"][r]) and t < 4.0 and n < how["traverse_steps_limit"]:
            dt = max(t * how["cone_angle"], how["step_size"])
            x = rays_o[r] + (t + dt / 2) * rays_d[r]
            for level, box in enumerate(aabbs):
                u = (x - box[:3]) / (box[3:] - box[:3])
                if bool(((u >= 0) & (u < 1)).all()):
                    cell = (u * binaries.shape[1]).long()
                    if bool(binaries[level][tuple(cell)]):
                        owners.append(r), starts.append(t), ends.append(t + dt)
                        n += 1
                    break
            t += dt
        counts.append(n)
    counts_, pairs = torch.tensor(counts), torch.tensor([starts, ends])
    left = torch.tensor([True, False]).repeat(len(starts))
    intervals = SimpleNamespace(vals=pairs.T.reshape(-1), is_left=left, is_right=~left)
    info = torch.stack([counts_.cumsum(0) - counts_, counts_], 1)
    return intervals, SimpleNamespace(packed_info=info, ray_indices=torch.tensor(owners)), None


def weights_of(t_starts: Tensor, t_ends: Tensor, sigmas: Tensor, packed_info: Tensor) -> tuple[Tensor, None, None]:
    """As nerfacc describes it, ray by ray."""
    each = []
    for start, count in packed_info.tolist():
        thickness = (sigmas * (t_ends - t_starts))[start : start + count]
        each.append(torch.exp(thickness - thickness.cumsum(0)) * (1 - torch.exp(-thickness)))
    return torch.cat(each), None, None


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_it_is_asked_for_our_steps(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nerfacc, "traverse_grids", traverse)
    cells = cells_of(STEPPINGS["even"], share)
    found = acc.march(cells, rays(), columns()[0])
    expected = reference.march(rays(), columns()[0], cells.bits, cells.blocks, cells.stepping)
    assert found.n_owned > 500 and sample_error(found, expected) < 0.01


def test_boxes_are_nested_as_ours_are(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Tensor] = {}

    def keep(rays_o: Tensor, rays_d: Tensor, binaries: Tensor, aabbs: Tensor, **how: Any) -> tuple[Any, Any, None]:
        asked.update(binaries=binaries, aabbs=aabbs)
        return traverse(rays_o[:0], rays_d[:0], binaries, aabbs, **how)

    monkeypatch.setattr(nerfacc, "traverse_grids", keep)
    cells = cells_of(STEPPINGS["growing"], 0.5)
    acc.march(cells, rays(), columns()[0])
    assert torch.equal(asked["binaries"], cells.occupied)
    sides = torch.tensor([0.25, 0.5, 1.0])[:, None]
    assert_close(asked["aabbs"], torch.cat([(0.5 - sides / 2).expand(3, 3), (0.5 + sides / 2).expand(3, 3)], 1))


@pytest.mark.parametrize("reach", [0.0, 0.8])
def test_its_pictures_and_gradients_are_ours(reach: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nerfacc, "render_weight_from_density", weights_of)
    samples, generator = listed(), torch.Generator().manual_seed(7)
    n = samples.n_owned
    longer = Samples(
        samples.packed_info, *(torch.cat([x, x.new_zeros(5)]) for x in list(vars(samples).values())[1:4]), n
    )
    sigmas = (8.0 * torch.rand(n + 5, generator=generator)).requires_grad_()
    rgbs = torch.rand(n + 5, 3, generator=generator).requires_grad_()
    background = torch.rand(N_RAYS, 3, generator=generator).requires_grad_()
    seeds = [torch.randn(shape, generator=generator) for shape in ((N_RAYS, 3), (N_RAYS,), (N_RAYS,))]
    found = []
    for op in (acc.composite, reference.composite):
        *outputs, weights = op(sigmas, rgbs, longer, background, reach)
        found.append([*outputs, weights[:n], *torch.autograd.grad(outputs, (sigmas, rgbs, background), seeds)])
    for actual, expected in zip(*found, strict=True):
        assert relative_error(actual, expected) < 1e-4


def test_the_real_one_marches_and_composites_as_we_do() -> None:
    if not torch.cuda.is_available():
        pytest.skip("nerfacc's kernels need a GPU")
    if nerfacc.cuda._backend._C is None:
        pytest.skip("nerfacc's kernels are not built, and there is no nvcc to build them")
    device = torch.device("cuda")
    cells = cells_of(STEPPINGS["even"], 0.4, device=device)
    inputs = rays().to(device), columns()[0].to(device)
    found = acc.march(cells, *inputs)
    assert sample_error(found, cells.sample(*inputs)) < 0.02
    generator = torch.Generator().manual_seed(7)
    sigmas, rgbs = (torch.rand(len(found), *more, generator=generator).to(device) for more in ((), (3,)))
    background = columns()[1].to(device)
    for actual, expected in zip(
        acc.composite(sigmas, rgbs, found, background),
        reference.composite(sigmas, rgbs, found, background),
        strict=True,
    ):
        assert relative_error(actual, expected) < 1e-3
