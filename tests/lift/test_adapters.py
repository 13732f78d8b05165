"""Priors of others, from tiny models that are made here in their real formats."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from nerfkit.lift.adapters import (
    StableDiffusion,
    Zero123,
    depth_of,
    features_of,
    hide_torchvision_if_broken,
    is_zero123,
    words_for,
)
from nerfkit.lift.framing import Framing
from nerfkit.lift.guidance import Turn
from nerfkit.lift.photo import LiftError

hide_torchvision_if_broken()
pytest.importorskip("diffusers", reason="diffusers is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

WIDE = 16


def tiny_unet(folder: Path, channels: int) -> None:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(1)
    UNet2DConditionModel(
        sample_size=8,
        in_channels=channels,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDE,
        attention_head_dim=4,
        norm_num_groups=4,
    ).save_pretrained(folder / "unet")


def tiny_latents(folder: Path, prediction: str = "epsilon") -> None:
    from diffusers import AutoencoderKL, DDPMScheduler

    torch.manual_seed(0)
    AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
    ).save_pretrained(folder / "vae")
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    DDPMScheduler(**schedule, prediction_type=prediction).save_pretrained(folder / "scheduler")


def tiny_clip_vision(folder: Path) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(2)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPVisionConfig(**shape, projection_dim=WIDE, image_size=32, patch_size=8)
    CLIPVisionModelWithProjection(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def words_prior(tmp_path_factory) -> Path:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("sd")
    tiny_unet(folder, 4)
    tiny_latents(folder)
    letters = [*"abcdefghijklmnopqrstuvwxyz,"]
    tokens = [*letters, *[f"{letter}</w>" for letter in letters], "<|startoftext|>", "<|endoftext|>"]
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(
        str(folder / "tokenizer" / "vocab.json"), str(folder / "tokenizer" / "merges.txt"), model_max_length=32
    ).save_pretrained(folder / "tokenizer")
    torch.manual_seed(3)
    shape = {"hidden_size": WIDE, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = CLIPTextConfig(
        **shape,
        vocab_size=len(tokens),
        max_position_embeddings=32,
        eos_token_id=len(tokens) - 1,
        bos_token_id=len(tokens) - 2,
    )
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    return folder


@pytest.fixture(scope="module")
def turn_prior(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("turns")
    tiny_unet(folder, 8)
    tiny_latents(folder)
    tiny_clip_vision(folder / "image_encoder")
    (folder / "cc_projection").mkdir()
    torch.manual_seed(4)
    weights = {"projection.weight": torch.randn(WIDE, WIDE + 4), "projection.bias": torch.randn(WIDE)}
    save_file(weights, folder / "cc_projection" / "diffusion_pytorch_model.safetensors")
    return folder


@pytest.fixture
def photo() -> Framing:
    rgba = np.zeros((40, 40, 4), np.uint8)
    rgba[8:32, 12:28] = (200, 90, 30, 255)
    return Framing(rgba, 20.0, 40.0, 2.924)


def test_words_change_what_is_taken_for_noise(words_prior):
    prior = StableDiffusion(words_prior, "a lamp")
    latents = prior.encode(torch.rand(1, 3, 64, 64))
    assert latents.shape == (1, 4, 8, 8)
    with_words, without = prior.noise(latents, 500, Turn(0.0, 20.0, 0.0))
    from_behind, again = prior.noise(latents, 500, Turn(180.0, 20.0, 0.0))
    assert torch.equal(without, again)
    assert not torch.allclose(with_words, without)
    assert not torch.allclose(with_words, from_behind)


def test_latents_go_there_and_back_as_the_library_has_them(words_prior):
    prior = StableDiffusion(words_prior, "a lamp")
    rgb = torch.rand(1, 3, prior.side, prior.side)
    with torch.no_grad():
        own = prior.vae.encode(2 * rgb - 1).latent_dist.mean
        assert torch.allclose(prior.encode(rgb), own * prior.vae.config.scaling_factor)
        assert torch.allclose(prior.decode(prior.encode(rgb)), (prior.vae.decode(own).sample / 2 + 0.5).clamp(0, 1))


def test_gradients_pass_the_encoder_alone(words_prior):
    prior = StableDiffusion(words_prior, "a lamp")
    rgb = torch.rand(1, 3, 32, 32, requires_grad=True)
    prior.encode(rgb).sum().backward()
    assert float(rgb.grad.abs().max()) > 0
    assert not any(parameter.requires_grad for parameter in prior.unet.parameters())


def test_velocities_are_turned_into_noise(words_prior, tmp_path):
    import shutil

    folder = tmp_path / "v"
    shutil.copytree(words_prior, folder)
    tiny_latents(folder, "v_prediction")
    plain, velocity = StableDiffusion(words_prior, "a lamp"), StableDiffusion(folder, "a lamp")
    latents, view = torch.randn(1, 4, 8, 8), Turn(0.0, 20.0, 0.0)
    a = plain.alphas[300]
    expected = a.sqrt() * plain.noise(latents, 300, view)[0] + (1 - a).sqrt() * latents
    assert torch.allclose(velocity.noise(latents, 300, view)[0], expected, atol=1e-5)


def test_turns_are_the_layer_s_last_four_inputs(turn_prior, photo):
    prior = Zero123(turn_prior, photo)
    latents = torch.randn(1, 4, 8, 8)
    turned, without = prior.noise(latents, 400, Turn(90.0, 50.0, 30.0))
    features = torch.cat([prior.features[0, 0], torch.tensor([-np.pi / 6, 1.0, 0.0, 0.0], dtype=torch.float32)])
    told = (prior.weight @ features + prior.bias)[None, None]
    with torch.no_grad():
        by_hand = prior.unet(torch.cat([latents, prior.beside], 1), 400, encoder_hidden_states=told).sample
        none = torch.zeros_like(told)
        plain = prior.unet(torch.cat([latents, 0 * prior.beside], 1), 400, encoder_hidden_states=none).sample
    assert torch.allclose(turned, by_hand, atol=1e-4)
    assert torch.allclose(without, plain, atol=1e-4)


def test_which_prior_a_folder_is(words_prior, turn_prior):
    assert is_zero123(turn_prior)
    assert not is_zero123(words_prior)


@pytest.mark.parametrize(
    ("azimuth", "elevation", "words"),
    [(0, 20, "front view"), (350, 20, "front view"), (90, 20, "side view"), (180, 20, "back view"),
     (0, 55, "overhead view"),
     (0, -20, "bottom view")],
)  # fmt: skip
def test_sides_have_words(azimuth, elevation, words):
    assert words_for(Turn(float(azimuth), float(elevation), 0.0)) == words


def test_features_see_as_the_library_does(tmp_path):
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

    tiny_clip_vision(tmp_path)
    rgb = torch.rand(1, 3, 32, 32)
    found = features_of(tmp_path)(rgb)
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32, do_resize=False, do_rescale=False)
    net = CLIPVisionModelWithProjection.from_pretrained(tmp_path)
    expected = net(**processor(rgb[0], return_tensors="pt")).image_embeds
    assert torch.allclose(found, expected, atol=1e-4)


def test_disparity_is_turned_round_and_metres_are_not(tmp_path, photo):
    from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessor

    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2}
    config = DPTConfig(
        **shape, image_size=32, patch_size=8, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8] * 4,
        fusion_hidden_size=8, is_hybrid=False,
    )  # fmt: skip
    torch.manual_seed(0)
    net = DPTForDepthEstimation(config)
    net.save_pretrained(tmp_path)
    processor = DPTImageProcessor(size={"height": 32, "width": 32})
    processor.save_pretrained(tmp_path)
    rgba = photo.rgba.astype(np.float32) / 255
    rgb = (255 * (rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:])).round().astype(np.uint8)
    with torch.no_grad():
        own = net.eval()(**processor(images=rgb, return_tensors="pt")).predicted_depth[0]
    assert torch.allclose(depth_of(tmp_path)(photo), -own, atol=1e-3)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"depth_estimation_type": "metric"}))
    assert torch.allclose(depth_of(tmp_path)(photo), own, atol=1e-3)


def test_a_kind_of_network_that_always_says_metres_is_taken_at_its_word(tmp_path, photo):
    from transformers import GLPNConfig, GLPNForDepthEstimation, GLPNImageProcessor

    config = GLPNConfig(depths=[1] * 4, hidden_sizes=[8] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=8)
    torch.manual_seed(0)
    net = GLPNForDepthEstimation(config)
    net.save_pretrained(tmp_path)
    processor = GLPNImageProcessor()
    processor.save_pretrained(tmp_path)
    rgba = photo.rgba.astype(np.float32) / 255
    rgb = (255 * (rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:])).round().astype(np.uint8)
    with torch.no_grad():
        own = net.eval()(**processor(images=rgb, return_tensors="pt")).predicted_depth[0]
    found = depth_of(tmp_path)(photo)
    assert float(found.min()) > 0 and torch.allclose(found, own, atol=1e-3)


@pytest.mark.parametrize("load", [features_of, depth_of, lambda name: StableDiffusion(name, "x")])
def test_a_name_without_the_network_is_a_sentence(load, monkeypatch):
    def no(*arguments):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", no)
    with pytest.raises(LiftError, match="--hub"):
        load("somebody/some-model")


def test_a_folder_that_holds_something_else_is_a_sentence(tmp_path):
    with pytest.raises(LiftError, match="cannot be loaded"):
        StableDiffusion(tmp_path, "x")
    with pytest.raises(LiftError, match="no such file"):
        depth_of(tmp_path / "x.onnx")
