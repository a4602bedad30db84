"""What a guidance needs of a latent diffusion model: latents of pictures, and the noise in noised ones."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maquette.core.device import is_gpu
from maquette.core.errors import UserError
from maquette.diffusion.load import IMAGE_PARTS, is_random, load_pipeline, model_folder
from maquette.diffusion.score import eps_from_v, eps_from_x0, velocity


class Denoiser(Protocol):
    """The part of a latent diffusion model that score distillation uses; all sizes are the model's own."""

    alphas_cumprod: Float[Tensor, "T"]
    image_size: int
    latent_size: int
    latent_channels: int

    @property
    def num_train_timesteps(self) -> int:
        """T, the number of noise levels."""

    def encode(
        self, images: Float[Tensor, "B 3 H W"], noise: Float[Tensor, "B C h w"] | None = None
    ) -> Float[Tensor, "B C h w"]:
        """Latents of pictures in [0, 1], differentiable; with `noise`, a sample of the posterior."""

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Pictures of latents, values around [0, 1]."""

    def predict_noise(
        self,
        x_t: Float[Tensor, "N C h w"],
        t: Int[Tensor, "N"],
        text: Float[Tensor, "N L D"],
        pooled: Float[Tensor, "N P"] | None = None,
    ) -> Float[Tensor, "N C h w"]:
        """The noise in noised latents, whatever the model itself predicts; without a graph."""


class LatentDenoiser:
    """A UNet with its autoencoder and noise levels, of the Stable Diffusion or the SDXL family.

    Args:
        unet: a diffusers `UNet2DConditionModel`.
        vae: a diffusers `AutoencoderKL`.
        scheduler: gives the noise levels and what the UNet predicts; its steps are not used.

    Raises:
        UserError: the model is of another family.
    """

    def __init__(self, unet: Any, vae: Any, scheduler: Any) -> None:
        _check(unet, vae, scheduler)
        self.unet = unet.eval().requires_grad_(False)
        self.vae = vae.eval().requires_grad_(False)
        self.prediction_type: str = scheduler.config.prediction_type
        self.alphas_cumprod = scheduler.alphas_cumprod.detach().float().to(unet.device)
        self.latent_channels: int = vae.config.latent_channels
        self.latent_size: int = _side(unet.config.sample_size)
        self.image_size: int = self.latent_size * 2 ** (len(vae.config.block_out_channels) - 1)
        self._scale: float = vae.config.scaling_factor
        self._shift: float = getattr(vae.config, "shift_factor", None) or 0.0
        self._sizes = _time_ids(self.image_size) if _takes_sizes(unet) else None
        if self._sizes is not None and vae.dtype == torch.float16 and vae.config.force_upcast:
            self.vae.to(torch.float32)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.unet.device

    @property
    def num_train_timesteps(self) -> int:
        """Number of noise levels."""
        return len(self.alphas_cumprod)

    def to(self, device: torch.device) -> LatentDenoiser:
        """Move everything to a device; returns itself."""
        self.unet.to(device)
        self.vae.to(device)
        self.alphas_cumprod = self.alphas_cumprod.to(device)
        return self

    def encode(
        self, images: Float[Tensor, "B 3 H W"], noise: Float[Tensor, "B C h w"] | None = None
    ) -> Float[Tensor, "B C h w"]:
        """Latents of pictures with values in [0, 1], differentiable with respect to the pictures.

        They are the mean of the posterior, or, with standard normal `noise`, a sample of it.
        """
        posterior = self.vae.encode((images * 2 - 1).to(self.vae.dtype)).latent_dist
        latents = (
            posterior.mean if noise is None else posterior.mean + posterior.std * noise.to(posterior.mean)
        )
        return ((latents - self._shift) * self._scale).to(images.dtype)

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Pictures of latents, values around [0, 1] (not clamped)."""
        images = self.vae.decode((latents / self._scale + self._shift).to(self.vae.dtype)).sample
        return (images / 2 + 0.5).to(latents.dtype)

    @torch.no_grad()
    def predict_noise(
        self,
        x_t: Float[Tensor, "N C h w"],
        t: Int[Tensor, "N"],
        text: Float[Tensor, "N L D"],
        pooled: Float[Tensor, "N P"] | None = None,
    ) -> Float[Tensor, "N C h w"]:
        """The noise in noised latents, whatever the UNet itself predicts; no graph is kept.

        `pooled` is needed by models of the SDXL family only.
        """
        out = self.predict(x_t, t, text, pooled)
        return self.noise_in(out, x_t, t)

    def predict(
        self,
        x_t: Float[Tensor, "N C h w"],
        t: Int[Tensor, "N"],
        text: Float[Tensor, "N L D"],
        pooled: Float[Tensor, "N P"] | None = None,
        class_labels: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
    ) -> Float[Tensor, "N C h w"]:
        """What the UNet itself predicts: noise, velocity or clean latents; with a graph if one is wanted."""
        dtype = self.unet.dtype
        more = {} if self._sizes is None else {"added_cond_kwargs": self._added(pooled, len(x_t), dtype)}
        if class_labels is not None:
            more["class_labels"] = class_labels.to(dtype)
        if cross_attention_kwargs is not None:
            more["cross_attention_kwargs"] = cross_attention_kwargs
        return self.unet(x_t.to(dtype), t, text.to(dtype), return_dict=False, **more)[0].to(x_t.dtype)

    def noise_in(
        self, out: Float[Tensor, "N C h w"], x_t: Float[Tensor, "N C h w"], t: Int[Tensor, "N"]
    ) -> Float[Tensor, "N C h w"]:
        """The noise that a prediction of the UNet implies."""
        if self.prediction_type == "epsilon":
            return out
        convert = eps_from_v if self.prediction_type == "v_prediction" else eps_from_x0
        return convert(out, x_t, self.alphas_cumprod[t])

    def target(
        self, x0: Float[Tensor, "N C h w"], eps: Float[Tensor, "N C h w"], t: Int[Tensor, "N"]
    ) -> Float[Tensor, "N C h w"]:
        """What the UNet should predict for clean latents and the noise that was put on them."""
        if self.prediction_type == "epsilon":
            return eps
        return x0 if self.prediction_type == "sample" else velocity(x0, eps, self.alphas_cumprod[t])

    def _added(self, pooled: Tensor | None, n: int, dtype: torch.dtype) -> dict[str, Tensor]:
        if pooled is None or self._sizes is None:
            raise UserError(
                "This model needs the pooled text beside the text itself.",
                hint="give prompt processor and guidance the same pretrained_model_name_or_path",
            )
        sizes = self._sizes.to(pooled.device, dtype).expand(n, -1)
        return {"text_embeds": pooled.to(dtype), "time_ids": sizes}


def own_denoiser(
    name: str,
    dtype: torch.dtype,
    device: torch.device,
    *,
    attention_slicing: bool = False,
    channels_last: bool = False,
) -> LatentDenoiser:
    """The denoiser of a model, loaded for one caller, who may change it.

    Args:
        name: as for `load_pipeline`.
        dtype: of the weights.
        device: where they are.
        attention_slicing: compute attention in slices: less memory, slower.
        channels_last: store the UNet's weights channels last.

    Raises:
        ModelUnavailableError, UserError: as `load_pipeline`.
    """
    pipeline = load_pipeline(name, dtype=dtype, parts=IMAGE_PARTS)
    if attention_slicing:
        pipeline.unet.set_attention_slice("auto")
    if channels_last:
        pipeline.unet.to(memory_format=torch.channels_last)
    return LatentDenoiser(pipeline.unet, pipeline.vae, pipeline.scheduler).to(device)


def shared_denoiser(
    name: str,
    dtype: torch.dtype,
    device: torch.device,
    *,
    attention_slicing: bool = False,
    channels_last: bool = False,
) -> LatentDenoiser:
    """`own_denoiser`, loaded once a process for all who ask alike; the last one asked for is kept.

    Nobody may change its weights or settings.
    """
    newest = 0
    if not is_random(name):
        files = model_folder(name, IMAGE_PARTS).glob("*/*.safetensors")
        newest = max((path.stat().st_mtime_ns for path in files), default=0)
    return _shared(name, dtype, device, newest, attention_slicing, channels_last)


@lru_cache(maxsize=1)
def _shared(
    name: str, dtype: torch.dtype, device: torch.device, newest: int, slicing: bool, channels_last: bool
) -> LatentDenoiser:
    del newest  # Only part of the key: a folder that was written again is read again.
    return own_denoiser(name, dtype, device, attention_slicing=slicing, channels_last=channels_last)


def weights_dtype(device: torch.device, half: bool) -> torch.dtype:
    """float16 where half precision was asked for and is fast, on a GPU; float32 elsewhere."""
    return torch.float16 if half and is_gpu(device) else torch.float32


def _check(unet: Any, vae: Any, scheduler: Any) -> None:
    if not hasattr(scheduler, "alphas_cumprod") or not hasattr(scheduler.config, "prediction_type"):
        raise UserError(
            f"A model with a {type(scheduler).__name__} cannot guide here: it has no DDPM noise levels.",
            hint="use a model of the Stable Diffusion 1, 2 or SDXL family",
        )
    if scheduler.config.prediction_type not in ("epsilon", "v_prediction", "sample"):
        raise UserError(
            f"The prediction type {scheduler.config.prediction_type!r} of the model is not known."
        )
    if unet.config.in_channels != vae.config.latent_channels:
        raise UserError(
            f"The UNet reads {unet.config.in_channels} channels, latents have {vae.config.latent_channels}.",
            hint="this is an inpainting or editing model; use a plain text-to-image model",
        )
    if unet.config.addition_embed_type not in (None, "text", "text_time"):
        raise UserError(
            f"A UNet that is conditioned on {unet.config.addition_embed_type!r} cannot be driven by text."
        )


def _takes_sizes(unet: Any) -> bool:
    return unet.config.addition_embed_type == "text_time"


def _time_ids(size: int) -> Float[Tensor, "1 6"]:
    """Original size, crop corner and target size, as SDXL wants them: an uncropped picture."""
    return torch.tensor([[size, size, 0, 0, size, size]], dtype=torch.float32)


def _side(sample_size: int | tuple[int, int] | list[int]) -> int:
    return sample_size if isinstance(sample_size, int) else int(sample_size[0])
