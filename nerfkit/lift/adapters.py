"""Priors that others trained, from a folder in the format of `diffusers` or `transformers`, or by their name on a hub.

    stable_diffusion   words to pictures: vae, unet, text_encoder, tokenizer, scheduler
    zero123            a picture and a turn of the camera to a picture: vae, unet (8 channels), image_encoder,
    scheduler,
                       and cc_projection, one linear layer of the features of the picture and the turn
    depth_of           monocular depth, any that transformers loads
    features_of        CLIP's, of a vision model with projection

Nothing is asked of a network unless the user says that it may be.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate, linear

from nerfkit.lift.framing import Framing
from nerfkit.lift.guidance import Features, Turn
from nerfkit.lift.onnx import PictureNet
from nerfkit.lift.photo import LiftError

_METRIC = ("glpn", "zoedepth")
"""Models of depth that say how far away things are, not how near."""
_CLIP_MEAN, _CLIP_DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_FRONT, _ABOVE, _BELOW = 60.0, 45.0, 0.0
"""Degrees within which a view counts as front or back, above which as overhead, below which as from below."""


@contextmanager
def _loading(what: str, name: str | Path) -> Iterator[None]:
    """Turn whatever the libraries raise into a sentence."""
    hide_torchvision_if_broken()
    try:
        yield
    except ImportError as error:
        raise LiftError(
            f'{what} {name}: needs diffusers and transformers; pip install "nerfkit[lift]" ({error})'
        ) from None
    except LiftError:
        raise
    except Exception as error:  # of any class: folders are anybody's, and each library has its own
        why = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        hint = "" if Path(name).is_dir() else "; it is no folder here, and --hub lets it be fetched by name"
        raise LiftError(f"{what} {name}: cannot be loaded ({why}){hint}") from None


def hide_torchvision_if_broken() -> None:
    """transformers imports torchvision if it finds it, and the registry's cannot be imported beside a torch without
    CUDA: it must not be found, then."""
    if importlib.util.find_spec("torchvision") is not None:
        try:
            importlib.import_module("torchvision")
        except Exception:  # of any class: its operators are missing
            sys.modules["torchvision"] = None


def _where(name: str | Path, hub: bool) -> dict[str, Any]:
    """Where to look for a model: a folder, or a hub where that is allowed."""
    if not Path(name).is_dir() and not hub:
        raise FileNotFoundError("no such folder")
    return {"pretrained_model_name_or_path": str(name), "local_files_only": not hub}


def words_for(view: Turn) -> str:
    """How NeuralLift-360 and DreamFusion name a view's side.

    >>> words_for(Turn(10.0, 20.0, 0.0)), words_for(Turn(-170.0, 20.0, 0.0)), words_for(Turn(90.0, 70.0, 50.0))
    ('front view', 'back view', 'overhead view')
    """
    azimuth = (view.azimuth + 180) % 360 - 180
    if view.elevation > _ABOVE:
        return "overhead view"
    if view.elevation < _BELOW:
        return "bottom view"
    if abs(azimuth) < _FRONT / 2:
        return "front view"
    return "back view" if abs(azimuth) > 180 - _FRONT / 2 else "side view"


class _Latent:
    """A variational autoencoder's latents, and a schedule."""

    def __init__(self, vae: Any, unet: Any, scheduler: Any):
        self.vae, self.unet = vae.eval().requires_grad_(False), unet.eval().requires_grad_(False)
        self.alphas: Float[Tensor, " n"] = scheduler.alphas_cumprod
        self.side = unet.config.sample_size * 2 ** (len(vae.config.block_out_channels) - 1)
        self.device = next(unet.parameters()).device
        self.velocity = scheduler.config.prediction_type == "v_prediction"

    def encode(self, rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h2 w2"]:
        """Means of latents, scaled."""
        fine = interpolate(rgb.to(self.device), size=(self.side, self.side), mode="bilinear", align_corners=False)
        return self.vae.encode(2 * fine - 1).latent_dist.mean * self.vae.config.scaling_factor

    def decode(self, latents: Float[Tensor, "b c h2 w2"]) -> Float[Tensor, "b 3 h w"]:
        """Pictures in [0, 1]."""
        return (self.vae.decode(latents / self.vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)

    def _both(
        self, latents: Tensor, step: int, condition: Tensor, none: Tensor, beside: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Noise with a condition and without, in one pass."""
        x = torch.cat([latents, latents])
        if beside is not None:
            x = torch.cat([x, torch.cat(beside)], 1)
        found = self.unet(x, step, encoder_hidden_states=torch.cat([condition, none])).sample
        if self.velocity:  # v = sqrt(a) e - sqrt(1 - a) z
            a = self.alphas[step].to(latents)
            found = a.sqrt() * found + (1 - a).sqrt() * torch.cat([latents, latents])
        conditional, plain = found.chunk(2)
        return conditional, plain


class StableDiffusion(_Latent):
    """A prior of words, to which the side that is looked at is added."""

    def __init__(self, name: str | Path, prompt: str, hub: bool = False, device: str = "cpu"):
        """Raises LiftError where ``name`` holds no such model."""
        with _loading("--diffusion", name):
            from diffusers import AutoencoderKL, UNet2DConditionModel
            from transformers import CLIPTextModel, CLIPTokenizer

            where = _where(name, hub)
            parts = [
                kind.from_pretrained(**where, subfolder=folder).to(device)
                for kind, folder in (
                    (AutoencoderKL, "vae"),
                    (UNet2DConditionModel, "unet"),
                    (CLIPTextModel, "text_encoder"),
                )
            ]
            self.text, self.tokenizer = parts[2].eval(), CLIPTokenizer.from_pretrained(**where, subfolder="tokenizer")
            super().__init__(parts[0], parts[1], _schedule(where))
        self.prompt, self._told = prompt, {}

    def _embedded(self, words: str) -> Float[Tensor, "1 n d"]:
        if words not in self._told:
            length = min(self.tokenizer.model_max_length, self.text.config.max_position_embeddings)
            tokens = self.tokenizer(
                words, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
            )
            with torch.no_grad():
                self._told[words] = self.text(tokens.input_ids.to(self.device))[0]
        return self._told[words]

    @torch.no_grad()
    def noise(self, latents: Float[Tensor, "b c h w"], step: int, view: Turn) -> tuple[Tensor, Tensor]:
        """With the prompt and the side, and with no words."""
        n = len(latents)
        told = self._embedded(f"{self.prompt}, {words_for(view)}").expand(n, -1, -1)
        return self._both(latents, step, told, self._embedded("").expand(n, -1, -1))


class Zero123(_Latent):
    """A prior of one picture and a turn of the camera."""

    def __init__(self, name: str | Path, photo: Framing, hub: bool = False, device: str = "cpu"):
        """Raises LiftError where ``name`` holds no such model."""
        with _loading("--diffusion", name):
            from diffusers import AutoencoderKL, UNet2DConditionModel
            from transformers import CLIPVisionModelWithProjection

            where = _where(name, hub)
            vae = AutoencoderKL.from_pretrained(**where, subfolder="vae").to(device)
            unet = UNet2DConditionModel.from_pretrained(**where, subfolder="unet").to(device)
            super().__init__(vae, unet, _schedule(where))
            encoder = (
                CLIPVisionModelWithProjection.from_pretrained(**where, subfolder="image_encoder").to(device).eval()
            )
            self.weight, self.bias = (x.to(device) for x in _projection(where))
            rgb = _over_white(photo.seen(self.side)).to(device)
            with torch.no_grad():
                self.features = encoder(_for_clip(rgb, encoder.config.image_size)).image_embeds[:, None]
                self.beside = vae.encode(2 * rgb - 1).latent_dist.mode()

    @torch.no_grad()
    def noise(self, latents: Float[Tensor, "b c h w"], step: int, view: Turn) -> tuple[Tensor, Tensor]:
        """With the picture and the turn, and with neither."""
        azimuth, n = math.radians(view.azimuth), len(latents)
        turn = [-math.radians(view.above), math.sin(azimuth), math.cos(azimuth), 0.0]
        turned = torch.cat([self.features, torch.tensor([[turn]]).to(self.features)], -1)
        told = linear(turned, self.weight, self.bias).expand(n, -1, -1)
        beside = self.beside.expand(n, -1, -1, -1)
        return self._both(latents, step, told, torch.zeros_like(told), (beside, torch.zeros_like(beside)))


def _schedule(where: dict[str, Any]) -> Any:
    from diffusers import DDPMScheduler

    return DDPMScheduler.from_pretrained(**where, subfolder="scheduler")


def _projection(where: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The linear layer of a folder cc_projection. No pickle is loaded: weights are safetensors."""
    name = Path(where["pretrained_model_name_or_path"])
    file = "cc_projection/diffusion_pytorch_model.safetensors"
    if name.is_dir():
        path = name / file
    else:
        from huggingface_hub import hf_hub_download

        path = Path(hf_hub_download(str(name), file, local_files_only=where["local_files_only"]))
    tensors = safetensors.torch.load_file(path)
    return tensors["projection.weight"], tensors["projection.bias"]


def is_zero123(name: str | Path) -> bool:
    """Whether a folder, or a name, is of a prior that takes a picture."""
    return (Path(name) / "cc_projection").is_dir() or "zero123" in str(name).lower() or "zero1to3" in str(name).lower()


def _over_white(rgba: Float[Tensor, "b 4 h w"]) -> Float[Tensor, "b 3 h w"]:
    return rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:]


def _for_clip(rgb: Float[Tensor, "b 3 h w"], side: int) -> Float[Tensor, "b 3 side side"]:
    fine = interpolate(rgb, size=(side, side), mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
    mean, deviation = (torch.tensor(x, device=rgb.device).view(1, 3, 1, 1) for x in (_CLIP_MEAN, _CLIP_DEVIATION))
    return (fine - mean) / deviation


def features_of(name: str | Path, hub: bool = False, device: str = "cpu") -> Features:
    """CLIP's features of pictures; differentiable. Raises LiftError."""
    with _loading("--clip", name):
        from transformers import CLIPVisionModelWithProjection

        net = CLIPVisionModelWithProjection.from_pretrained(**_where(name, hub)).to(device).eval().requires_grad_(False)
    side = net.config.image_size
    return lambda rgb: net(_for_clip(rgb.to(device), side)).image_embeds


def depth_of(name: str | Path, hub: bool = False, device: str = "cpu") -> Callable[[Framing], Float[Tensor, "h w"]]:
    """How far away a network takes each pixel of a picture to be: larger is farther. Raises LiftError.

    An ONNX file has one input (1, 3, s, s), ImageNet's normalisation, and says disparity, as MiDaS does; a model of
    transformers says disparity too, unless its configuration says that it is metric, or its kind always is.
    """
    if str(name).endswith(".onnx"):
        return _onnx_depth(Path(name))
    with _loading("--depth", name):
        from transformers import AutoImageProcessor, AutoModelForDepthEstimation

        where = _where(name, hub)
        net = AutoModelForDepthEstimation.from_pretrained(**where).to(device).eval()
        processor = AutoImageProcessor.from_pretrained(**where)
        metric = net.config.model_type in _METRIC
        metric = metric or getattr(net.config, "depth_estimation_type", "relative") == "metric"

    @torch.no_grad()
    def depth(photo: Framing) -> Float[Tensor, "h w"]:
        rgb = (255 * _over_white(photo.seen(photo.rgba.shape[0]))).round().byte()
        found = net(**processor(images=rgb, return_tensors="pt").to(device)).predicted_depth[0].float().cpu()
        return found if metric else -found

    return depth


def _onnx_depth(path: Path) -> Callable[[Framing], Float[Tensor, "h w"]]:
    net = PictureNet("--depth", path, 256)

    def depth(photo: Framing) -> Float[Tensor, "h w"]:
        found = net(_over_white(photo.seen(net.side))[0].permute(1, 2, 0).numpy())
        if found.ndim != 2:
            raise LiftError(f"--depth {path}: gives {found.ndim} dimensions, expected a picture")
        return -torch.from_numpy(found).float()

    return depth
