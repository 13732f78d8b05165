"""LPIPS against the package it claims to equal, and what is said where its weights are absent or wrong."""

import sys
from types import ModuleType

import numpy as np
import pytest
import safetensors.torch
import torch

from nerfkit import perceptual
from nerfkit.evaluate import score_images
from nerfkit.perceptual import FirstBlock, Lpips, LpipsError, load_lpips


def pair(seed: int = 0, shape: tuple[int, int, int] = (19, 23, 3), noise: float = 0.1):
    rng = np.random.default_rng(seed)
    truth = rng.random(shape)
    return np.clip(truth + noise * rng.standard_normal(shape), 0, 1), truth


def random_trunk(net: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights named and shaped as torchvision has them, of a magnitude that keeps activations alive."""
    shapes = {
        "alex": [(64, 3, 11), (192, 64, 5), (384, 192, 3), (256, 384, 3), (256, 256, 3)],
        "vgg": [(64, 3, 3), (64, 64, 3), (128, 64, 3), (128, 128, 3), (256, 128, 3), (256, 256, 3), (256, 256, 3)]
        + [(512, 256, 3)]
        + [(512, 512, 3)] * 5,
    }[net]
    numbers = {"alex": [0, 3, 6, 8, 10], "vgg": [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]}[net]
    generator = torch.Generator().manual_seed(seed)
    tensors = {"classifier.6.bias": torch.zeros(1000)}
    for number, (out, into, width) in zip(numbers, shapes, strict=True):
        weight = torch.randn(out, into, width, width, generator=generator) * (2 / (into * width**2)) ** 0.5
        tensors[f"features.{number}.weight"] = weight
        tensors[f"features.{number}.bias"] = 0.1 * torch.randn(out, generator=generator)
    return tensors


def stand_in_torchvision(net: str) -> ModuleType:
    """As much of torchvision as `lpips` asks for, so that the package itself can be the reference."""
    relu, conv = torch.nn.ReLU, torch.nn.Conv2d
    if net == "alex":
        layers = [conv(3, 64, 11, 4, 2), relu(), torch.nn.MaxPool2d(3, 2), conv(64, 192, 5, padding=2), relu()]
        layers += [torch.nn.MaxPool2d(3, 2), conv(192, 384, 3, padding=1), relu(), conv(384, 256, 3, padding=1)]
        layers += [relu(), conv(256, 256, 3, padding=1), relu(), torch.nn.MaxPool2d(3, 2)]
    else:
        layers, into = [], 3
        for out in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
            layers += [conv(into, out, 3, padding=1), relu()] if out else [torch.nn.MaxPool2d(2)]
            into = out or into
    module, models = ModuleType("torchvision"), ModuleType("torchvision.models")
    holder = ModuleType("holder")
    holder.features = torch.nn.Sequential(*layers)
    models.alexnet = models.vgg16 = lambda pretrained: holder
    module.models = models
    return module


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_equals_the_package(tmp_path, monkeypatch, net):
    trunk = random_trunk(net)
    safetensors.torch.save_file(trunk, tmp_path / "trunk.safetensors")
    torch.save(trunk, tmp_path / "trunk.pth")
    a, b = pair(1, (70, 90, 3), 0.2)
    ours = Lpips(net, tmp_path / "trunk.safetensors")
    assert Lpips(net, tmp_path / "trunk.pth")(a, b) == ours(a, b)
    assert ours(a, a) == 0
    assert ours(a, b) == pytest.approx(ours(b, a), rel=1e-4) and ours(a, b) > 0

    stand_in = stand_in_torchvision(net)
    monkeypatch.setitem(sys.modules, "torchvision", stand_in)
    monkeypatch.setitem(sys.modules, "torchvision.models", stand_in.models)
    for name in [name for name in sys.modules if name.split(".")[0] == "lpips"]:
        monkeypatch.delitem(sys.modules, name)
    lpips = pytest.importorskip("lpips")
    theirs = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    features = {key.removeprefix("features."): value for key, value in trunk.items() if key.startswith("features.")}
    stand_in.models.vgg16(pretrained=False).features.load_state_dict(features)
    tensors = [torch.from_numpy(x).float().permute(2, 0, 1)[None] for x in (a, b)]
    with torch.no_grad():
        assert ours(a, b) == pytest.approx(theirs(*tensors, normalize=True).item(), rel=1e-4)
    for name in [name for name in sys.modules if name.split(".")[0] == "lpips"]:
        monkeypatch.delitem(sys.modules, name)


def test_lpips_without_weights_gives_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    load_lpips.cache_clear()
    scores = score_images([("a", *pair())])
    load_lpips.cache_clear()
    assert scores["lpips"] is None
    assert "vgg16-397923af.pth" in scores["lpips_reason"] and str(tmp_path) in scores["lpips_reason"]
    assert not list(tmp_path.iterdir()), "nothing was downloaded"


def test_lpips_with_weights_is_scored(tmp_path):
    file = tmp_path / "trunk.safetensors"
    safetensors.torch.save_file(random_trunk("vgg"), file)
    scores = score_images([("a", *pair(0, (40, 40, 3))), ("b", *pair(1, (40, 40, 3)))], lpips_weights=file)
    assert scores["lpips_reason"] is None
    assert scores["lpips"] == pytest.approx(np.mean([record["lpips"] for record in scores["per_image"]]))
    small = score_images([("a", *pair(0, (40, 40, 3))), ("b", *pair(1, (20, 40, 3)))], lpips_weights=file)
    assert small["lpips"] is None and "b is smaller than the 32 pixels" in small["lpips_reason"]


@pytest.mark.parametrize("content", [b"", b"not weights at all", "alex", "other"])
def test_wrong_weights_are_one_sentence(tmp_path, content):
    file = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(random_trunk("alex") if content == "alex" else {"a": torch.zeros(1)}, file)
    with pytest.raises(LpipsError, match="weights.pth") as caught:
        Lpips("vgg", file)
    assert "\n" not in str(caught.value)


def test_pickled_code_is_not_run(tmp_path):
    import pickle

    class Bad:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    (tmp_path / "weights.pth").write_bytes(pickle.dumps(Bad()))
    with pytest.raises(LpipsError):
        Lpips("vgg", tmp_path / "weights.pth")
    assert not (tmp_path / "touched").exists()


def test_a_missing_package_is_said(monkeypatch):
    monkeypatch.setattr(perceptual.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LpipsError, match="pip install lpips"):
        Lpips("vgg")


@pytest.fixture
def first_block(tmp_path) -> FirstBlock:
    path = tmp_path / "vgg.safetensors"
    safetensors.torch.save_file(random_trunk("vgg"), path)
    return FirstBlock(path)


def test_the_first_block_sees_what_lpips_sees_first(first_block: FirstBlock, tmp_path) -> None:
    whole = Lpips("vgg", tmp_path / "vgg.safetensors")
    pictures = [torch.from_numpy(picture).float() for picture in pair(shape=(35, 35, 3))]
    (a, *_), (b, *_) = (whole.features(picture.numpy().astype(np.float64)) for picture in pictures)
    wanted = first_block.scale * float((a - b)[:, :, 2:-2, 2:-2].square().sum())
    assert float(first_block(*(picture[None] for picture in pictures))) == pytest.approx(wanted, rel=1e-4)


def test_the_first_block_counts_noise_four_times(first_block: FirstBlock) -> None:
    generator = torch.Generator().manual_seed(3)
    truth = torch.rand(20, 16, 16, 3, generator=generator)
    noise = 0.02 * torch.randn(20, 16, 16, 3, generator=generator)
    assert float(first_block(truth, truth)) == 0.0
    per_place = float(first_block(truth + noise, truth)) / (20 * 12 * 12)
    assert per_place == pytest.approx(4 * 3 * 0.02**2, rel=0.2)


def test_the_first_block_has_a_gradient(first_block: FirstBlock) -> None:
    patches = torch.rand(1, 7, 7, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    first_block(patches, torch.zeros(1, 7, 7, 3)).backward()
    assert patches.grad.abs().max() > 0


def test_weights_of_something_else_are_no_first_block(tmp_path) -> None:
    path = tmp_path / "alex.safetensors"
    safetensors.torch.save_file(random_trunk("alex"), path)
    with pytest.raises(LpipsError, match="these are not the vgg weights"):
        FirstBlock(path)
