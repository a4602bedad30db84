"""Variational score distillation: a second model, trained along, says what the renderings look like now."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from maquette.core.device import autocast_off
from maquette.core.errors import ConfigError
from maquette.core.random import StepRandom
from maquette.core.registry import register
from maquette.diffusion import distillation, score
from maquette.diffusion.denoiser import LatentDenoiser, own_denoiser, weights_dtype
from maquette.diffusion.lora import RANK, LoRAFile, load_adapters
from maquette.diffusion.memory import apply_memory
from maquette.diffusion.variational import VariationalDenoiser
from maquette.models.guidance.base import KEY, GuidanceOutput
from maquette.models.guidance.latent import LatentGuidance, one_of
from maquette.models.guidance.memory_options import memory_settings
from maquette.models.guidance.view_text import ViewText
from maquette.models.prompt_processors.base import PromptUtils

CAMERAS = ("extrinsics", "mvp", "none")
FORGET_CAMERA = 0.1
"""How often the camera is withheld in training, where `lora_cfg_training` asks for it."""


@register("stable-diffusion-vsd-guidance")
class StableDiffusionVSDGuidance(LatentGuidance, nn.Module):
    """VSD (ProlificDreamer, Wang et al. 2023): an adapter of the guiding model learns the renderings.

    `loss_vsd` moves the pictures, `loss_lora` trains the adapter; `lambda_vsd` and `lambda_lora` weigh them.
    Batches may hold views of several assets (particles): the adapter learns them all.
    """

    @dataclass(kw_only=True)
    class Config(LatentGuidance.Config):
        """The two models."""

        guidance_scale: float = 7.5
        """s of the pretrained model."""
        pretrained_model_name_or_path_lora: str | None = None
        """Model that the adapter is put on; null for the guiding one itself, which halves the memory."""
        guidance_scale_lora: float = 1.0
        """s of the adapted model."""
        lora_rank: int = RANK
        """Rank of the adapter."""
        lora_cfg_training: bool = True
        """Whether the adapted model sometimes trains without its camera."""
        lora_n_timestamp_samples: int = 1
        """Noise levels on which the adapter trains, a picture and step."""
        camera_condition_type: str = "extrinsics"
        """What the adapted model is told: extrinsics (camera to world), mvp (world to clip), or none."""
        use_img_loss: bool = False
        """Whether there is also a loss in pixels (HiFA); costs a decoding each step."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if memory_settings(self).offload != "none":
                raise ConfigError(
                    f"{KEY}.memory", "offload", "none or slicing: the adapter trains all the time"
                )
            one_of("camera_condition_type", self.camera_condition_type, CAMERAS)
            for name in ("lora_n_timestamp_samples", "lora_rank"):
                if getattr(self, name) < 1:
                    raise ConfigError(f"{KEY}.{name}", getattr(self, name), "an integer above 0")

    def configure(self, denoiser: LatentDenoiser | None = None) -> None:
        """Load the models, and put a fresh adapter on one of them."""
        own = self._load_guiding() if denoiser is None else denoiser
        other = self.cfg.pretrained_model_name_or_path_lora
        shared = other in (None, self.cfg.pretrained_model_name_or_path)
        adapted = own if shared else self._load_own(other)
        if adapted.latent_channels != own.latent_channels:  # their sizes may differ: the UNet is convolutional
            expected = f"a model whose latents have {own.latent_channels} channels"
            raise ConfigError(f"{KEY}.pretrained_model_name_or_path_lora", other, expected)
        camera = self.cfg.camera_condition_type != "none"
        self.variational = VariationalDenoiser(adapted, self.cfg.lora_rank, camera)
        self._shared = shared
        super().configure(own)

    def __call__(
        self,
        rgb: Float[Tensor, "B H W C"],
        prompt_utils: PromptUtils,
        elevation: Float[Tensor, "B"],
        azimuth: Float[Tensor, "B"],
        camera_distances: Float[Tensor, "B"],
        rng: StepRandom | None = None,
        rgb_as_latents: bool = False,
        guidance_eval: bool = False,
        c2w: Float[Tensor, "B 4 4"] | None = None,
        mvp_mtx: Float[Tensor, "B 4 4"] | None = None,
        **kwargs: Any,
    ) -> GuidanceOutput:
        """Both losses of pictures with values in [0, 1], or of latents; B samples, angles in degrees."""
        rng = self.draws(rng, len(rgb))
        with autocast_off(rgb.device):
            images = self.prepare(rgb, rgb_as_latents)
            latents = images if rgb_as_latents else self.encode(images, rng)
            text = ViewText(prompt_utils, elevation, azimuth, self.cfg.view_dependent_prompting)
            camera = self._camera(c2w, mvp_mtx)
            t, noise = self.timesteps(rng), self.noise("guidance/noise", rng, latents)
            grad, x0_hat = self.gradient(latents.detach(), noise, t, text, camera)
            out = GuidanceOutput(
                grad_norm=grad.norm(), timestep=t, min_step=self.min_step, max_step=self.max_step
            )
            out["loss_vsd"] = score.specified_gradient(latents, self.limited(grad))
            out["loss_lora"] = self.adapter_loss(latents.detach(), text, camera, rng)
            if self.cfg.use_img_loss:
                out["loss_vsd_img"] = self._image_loss(images, x0_hat, t, rgb_as_latents)
            if guidance_eval:
                out.eval = self.evaluate(latents.detach(), t, noise, text)
        return out

    @torch.no_grad()
    def gradient(
        self,
        latents: Float[Tensor, "B C h w"],
        noise: Float[Tensor, "B C h w"],
        t: Int[Tensor, "B"],
        text: ViewText,
        camera: Float[Tensor, "B 16"] | None,
    ) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, "B C h w"]]:
        """w (eps_hat - eps_phi), and the clean latents that it points to."""
        alpha_bar = self.alpha_bar(t)
        x_t = score.add_noise(latents, noise, alpha_bar)
        eps_hat = self.guided_noise(x_t, t, text)
        eps_phi = self.particle_noise(x_t, t, text, camera)
        grad = distillation.vsd_gradient(eps_hat, eps_phi, self.weight(t))
        towards = score.predicted_x0(x_t, noise + eps_hat - eps_phi, alpha_bar)
        return grad, towards

    def particle_noise(
        self, x_t: Tensor, t: Tensor, text: ViewText, camera: Tensor | None
    ) -> Float[Tensor, "B C h w"]:
        """The adapted model's prediction: it reads the plain prompt, and the camera instead of view words."""
        words = self._plain(text).encoding()
        batch = len(x_t)
        cond, uncond = words[:batch], words[batch:]
        eps_text = self.variational.adapted_noise(x_t, t, cond.hidden, cond.pooled, camera)
        scale: float = self.cfg.guidance_scale_lora
        if scale == 1.0:
            return eps_text
        eps_uncond = self.variational.adapted_noise(x_t, t, uncond.hidden, uncond.pooled)
        return score.classifier_free(eps_uncond, eps_text, scale)

    def adapter_loss(
        self, latents: Float[Tensor, "B C h w"], text: ViewText, camera: Tensor | None, rng: StepRandom
    ) -> Float[Tensor, ""]:
        """The adapter's denoising loss on the pictures of this step, at levels of its own."""
        n: int = self.cfg.lora_n_timestamp_samples
        batch = len(latents)
        levels = rng.integers("guidance/lora_timestep", 0, self.num_train_timesteps - 1, n)
        noise = rng.normal("guidance/lora_noise", n, *latents.shape[1:]).to(latents)
        words = self._plain(text).encoding()[:batch]
        rows = torch.arange(batch, device=latents.device).repeat_interleave(n)
        camera = self._sometimes_without(camera, rng)
        return self.variational.loss(
            latents[rows],
            noise.flatten(0, 1),
            levels.flatten().to(latents.device),
            words.hidden[rows],
            None if words.pooled is None else words.pooled[rows],
            None if camera is None else camera[rows],
        )

    def _denoise(self, x_t: Tensor, t: Tensor, text: Any) -> Tensor:
        if not self._shared:
            return super()._denoise(x_t, t, text)
        return self.variational.pretrained_noise(x_t, t, text.hidden, text.pooled)

    def _plain(self, text: ViewText) -> ViewText:
        return ViewText(text.utils, text.elevation, text.azimuth, False)

    def _camera(self, c2w: Tensor | None, mvp_mtx: Tensor | None) -> Float[Tensor, "B 16"] | None:
        kind: str = self.cfg.camera_condition_type
        if kind == "none":
            return None
        matrix = c2w if kind == "extrinsics" else mvp_mtx
        if matrix is None:
            raise ValueError(f"a camera condition of type {kind!r} needs the matrices of the views")
        return matrix.flatten(1).to(self.device)

    def _sometimes_without(self, camera: Tensor | None, rng: StepRandom) -> Tensor | None:
        if camera is None or not self.cfg.lora_cfg_training:
            return camera
        kept = rng.uniform("guidance/lora_camera").to(camera) >= FORGET_CAMERA
        return camera * kept[:, None]

    def _image_loss(self, images: Tensor, x0_hat: Tensor, t: Tensor, as_latents: bool) -> Float[Tensor, ""]:
        with torch.no_grad():
            denoised = x0_hat if as_latents else self.denoiser.decode(x0_hat)
            pixels = distillation.image_gradient(images, denoised, self.weight(t), self.alpha_bar(t))
        return score.specified_gradient(images, self.limited(pixels))

    def _load_guiding(self) -> LatentDenoiser:
        """The model that guides; adapters of the recipe become part of it, beneath the one that trains."""
        name: str = self.cfg.pretrained_model_name_or_path
        adapters = LoRAFile.parse(self.cfg.lora, f"{KEY}.lora")
        if not adapters:
            return self._load_own(name)
        denoiser = own_denoiser(
            name, weights_dtype(self.device, self.cfg.half_precision_weights), self.device
        )
        load_adapters(denoiser.unet, adapters, fuse=True)
        apply_memory(denoiser, memory_settings(self.cfg), self.device)
        return denoiser

    def _load_own(self, name: str) -> LatentDenoiser:
        dtype = weights_dtype(self.device, self.cfg.half_precision_weights)
        return own_denoiser(name, dtype, self.device, memory=memory_settings(self.cfg))
