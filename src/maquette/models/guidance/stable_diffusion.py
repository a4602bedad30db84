"""Score distillation from a latent diffusion model: model, weighting and gradient rule put together."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from maquette.core.device import autocast_off
from maquette.core.errors import ConfigError
from maquette.core.random import StepRandom
from maquette.core.registry import register
from maquette.diffusion import score
from maquette.diffusion.denoiser import Denoiser, shared_denoiser, weights_dtype
from maquette.models.guidance.base import KEY, BaseGuidance, GuidanceEval, GuidanceOutput
from maquette.models.prompt_processors.base import PromptUtils, TextEncoding


@register("stable-diffusion-guidance")
class StableDiffusionGuidance(BaseGuidance):
    """SDS (DreamFusion) or SJC with any model of the Stable Diffusion or SDXL family, or the embedded prior.

    All sizes are the model's: pictures are resized to what it was made for, if they differ.
    """

    @dataclass(kw_only=True)
    class Config(BaseGuidance.Config):
        """The model and the rule."""

        pretrained_model_name_or_path: str = "stable-diffusion-v1-5/stable-diffusion-v1-5"
        """maquette/toyworld, a folder, or an id of the hub; the same as the prompt processor's."""
        guidance_scale: float = 100.0
        """s of eps_uncond + s (eps_text - eps_uncond)."""
        weighting_strategy: str = "sds"
        """w(t): sds (1 - alpha_bar), uniform (1), or fantasia3d (sqrt(alpha_bar) (1 - alpha_bar))."""
        use_sjc: bool = False
        """Whether the gradient is that of SJC, which has no weighting."""
        var_red: bool = True
        """Whether SJC subtracts the noise that was added."""
        use_img_loss: bool = False
        """Whether there is also a loss in pixels; costs a decoding each step."""
        encode_mode: str = "mean"
        """Latents are the "mean" of the posterior (no noise of its own), or a "sample" of it."""
        view_dependent_prompting: bool = True
        """Whether the prompt has the words of the view."""
        max_items_eval: int = 4
        """How many pictures of a batch `guidance_eval` looks at."""
        eval_steps: int = 10
        """Denoising steps of `guidance_eval`."""
        half_precision_weights: bool = True
        """float16 weights on a GPU; on a CPU they are float32 always."""
        enable_memory_efficient_attention: bool = False
        """Accepted for older recipes: attention is memory-efficient always."""
        enable_attention_slicing: bool = False
        """Whether attention is computed in slices: less memory, slower."""
        enable_channels_last_format: bool = False
        """Whether the UNet's weights are stored channels last."""
        enable_sequential_cpu_offload: bool = False
        """Not implemented; True is refused."""
        token_merging: bool = False
        """Not implemented; True is refused."""
        token_merging_params: dict[str, Any] | None = field(default_factory=dict)
        """Read only by token merging."""

        def __post_init__(self) -> None:
            super().__post_init__()
            _refuse(self.enable_sequential_cpu_offload, "enable_sequential_cpu_offload")
            _refuse(self.token_merging, "token_merging")
            _refuse(bool(self.token_merging_params), "token_merging_params")
            for name in ("max_items_eval", "eval_steps"):
                if getattr(self, name) < 1:
                    raise ConfigError(f"{KEY}.{name}", getattr(self, name), "an integer above 0")
            _one_of("weighting_strategy", self.weighting_strategy, tuple(score.WEIGHTINGS))
            _one_of("encode_mode", self.encode_mode, ("mean", "sample"))

    denoiser: Denoiser

    def configure(self, denoiser: Denoiser | None = None) -> None:
        """Load the model; a `denoiser` that is given is used in its place."""
        self.denoiser = self._load() if denoiser is None else denoiser
        self.weighting = score.WEIGHTINGS[self.cfg.weighting_strategy]
        self.set_noise_levels(self.denoiser.num_train_timesteps)

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
        **kwargs: Any,
    ) -> GuidanceOutput:
        """Distillation losses of pictures with values in [0, 1], or of latents; B samples, angles in degrees.

        Each sample has a noise level and a noise of its own, keyed by `rng`: a batch equals its samples one
        by one.
        """
        rng = self.draws(rng, len(rgb))
        with autocast_off(rgb.device):
            images = self.prepare(rgb, rgb_as_latents)
            latents = images if rgb_as_latents else self.encode(images, rng)
            t = self.timesteps(rng)
            noise = self.noise("guidance/noise", rng, latents)
            text = _Text(prompt_utils, elevation, azimuth, self.cfg.view_dependent_prompting)
            eps_hat = self.predict(latents.detach(), t, noise, text)
            grad = self.gradient(eps_hat, noise, t)
            out = GuidanceOutput(
                loss_sds=score.specified_gradient(latents, self.limited(grad)),
                grad_norm=grad.norm(),
                timestep=t,
                min_step=self.min_step,
                max_step=self.max_step,
            )
            if self.cfg.use_img_loss:
                out.loss_sds_img = self.image_loss(
                    images, latents.detach(), eps_hat, noise, t, rgb_as_latents
                )
            if guidance_eval:
                out.eval = self.evaluate(latents.detach(), t, noise, text)
        return out

    def prepare(self, rgb: Float[Tensor, "B H W C"], as_latents: bool) -> Float[Tensor, "B C h w"]:
        """Channels first, at least float32, in the model's size for pictures or for latents."""
        side = self.denoiser.latent_size if as_latents else self.denoiser.image_size
        channels = self.denoiser.latent_channels if as_latents else 3
        if rgb.shape[-1] != channels:
            what = "latents" if as_latents else "pictures"
            raise ValueError(f"{what} of this model have {channels} channels, got {tuple(rgb.shape)}")
        images = rgb.permute(0, 3, 1, 2).to(torch.promote_types(rgb.dtype, torch.float32))
        if images.shape[-2:] == (side, side):
            return images
        return F.interpolate(images, (side, side), mode="bilinear", align_corners=False)

    def encode(self, images: Float[Tensor, "B 3 H W"], rng: StepRandom) -> Float[Tensor, "B C h w"]:
        """Latents, differentiable; the posterior's mean or a sample of it."""
        if self.cfg.encode_mode == "mean":
            return self.denoiser.encode(images)
        side = self.denoiser.latent_size
        noise = rng.normal("guidance/encode", self.denoiser.latent_channels, side, side)
        return self.denoiser.encode(images, noise.to(images))

    def noise(self, name: str, rng: StepRandom, like: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Standard normal noise, each sample's own."""
        return rng.normal(name, *like.shape[1:]).to(like)

    def predict(
        self,
        latents: Float[Tensor, "B C h w"],
        t: Int[Tensor, "B"],
        noise: Float[Tensor, "B C h w"],
        text: "_Text",
    ) -> Float[Tensor, "B C h w"]:
        """The guided noise prediction for latents that are noised to levels t."""
        return self.guided_noise(score.add_noise(latents, noise, self.alpha_bar(t)), t, text)

    @torch.no_grad()
    def guided_noise(
        self, x_t: Float[Tensor, "B C h w"], t: Int[Tensor, "B"], text: "_Text"
    ) -> Float[Tensor, "B C h w"]:
        """Classifier-free guidance, with Perp-Neg where the prompt asks for it; no graph is kept."""
        if text.utils.use_perp_neg and self.cfg.view_dependent_prompting:
            return self._perp_neg_noise(x_t, t, text)
        eps_text, eps_uncond = self._denoise(x_t.repeat(2, 1, 1, 1), t.repeat(2), text.encoding()).chunk(2)
        return score.classifier_free(eps_uncond, eps_text, self.cfg.guidance_scale)

    def gradient(
        self, eps_hat: Float[Tensor, "B C h w"], noise: Float[Tensor, "B C h w"], t: Int[Tensor, "B"]
    ) -> Float[Tensor, "B C h w"]:
        """The gradient rule: how the latents should change."""
        if self.cfg.use_sjc:
            return score.sjc_gradient(eps_hat, noise, self.cfg.var_red)
        return score.sds_gradient(eps_hat, noise, self.weighting(self.alpha_bar(t)))

    def image_loss(
        self,
        images: Float[Tensor, "B C H W"],
        latents: Float[Tensor, "B C h w"],
        eps_hat: Float[Tensor, "B C h w"],
        noise: Float[Tensor, "B C h w"],
        t: Int[Tensor, "B"],
        as_latents: bool,
    ) -> Float[Tensor, ""]:
        """The distillation loss in pixels (or again in latents, where there are no pixels)."""
        alpha_bar = self.alpha_bar(t)
        with torch.no_grad():
            x0 = score.predicted_x0(score.add_noise(latents, noise, alpha_bar), eps_hat, alpha_bar)
            denoised = x0 if as_latents else self.denoiser.decode(x0)
            grad = score.image_gradient(images, denoised, self.weighting(alpha_bar), alpha_bar)
        return score.specified_gradient(images, self.limited(grad))

    @torch.no_grad()
    def evaluate(
        self,
        latents: Float[Tensor, "B C h w"],
        t: Int[Tensor, "B"],
        noise: Float[Tensor, "B C h w"],
        text: "_Text",
    ) -> GuidanceEval:
        """What the model makes of the first few samples when it may denoise them to the end (DDIM)."""
        n = min(self.cfg.max_items_eval, len(latents))
        text, t = text.first(n), t[:n]
        levels = [
            t * (self.cfg.eval_steps - i) // self.cfg.eval_steps for i in range(self.cfg.eval_steps + 1)
        ]
        x = noisy = score.add_noise(latents[:n], noise[:n], self.alpha_bar(t))
        first: dict[str, Tensor] = {}
        for level, following in pairwise(levels):
            eps = self.guided_noise(x, level, text)
            x0 = score.predicted_x0(x, eps, self.alpha_bar(level))
            x = score.ddim_step(x, eps, self.alpha_bar(level), self.alpha_bar(following))
            first = first or {"imgs_1step": x, "imgs_1orig": x0}
        pictures = {"imgs_noisy": noisy, **first, "imgs_final": x0}
        return GuidanceEval(
            timesteps=t, texts=text.prompts(), **{name: self._pictures(one) for name, one in pictures.items()}
        )

    def alpha_bar(self, t: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
        """The cumulated product of 1 - beta at levels t."""
        return self.denoiser.alphas_cumprod[t]

    def _perp_neg_noise(self, x_t: Tensor, t: Tensor, text: "_Text") -> Tensor:
        """The negatives of a sample stand together: its noised latents are repeated for them, not tiled."""
        encoding, weights = text.encoding_perp_neg()
        batch, count = weights.shape
        x = torch.cat([x_t, x_t, x_t.repeat_interleave(count, 0)])
        eps = self._denoise(x, torch.cat([t, t, t.repeat_interleave(count)]), encoding)
        eps_text, eps_uncond, negatives = eps.split([batch, batch, batch * count])
        negatives = negatives.unflatten(0, (batch, count))
        return score.perp_neg(eps_uncond, eps_text, negatives, weights.to(eps), self.cfg.guidance_scale)

    def _denoise(self, x_t: Tensor, t: Tensor, text: TextEncoding) -> Tensor:
        return self.denoiser.predict_noise(x_t, t, text.hidden, text.pooled)

    def _pictures(self, latents: Float[Tensor, "E C h w"]) -> Float[Tensor, "E H W 3"]:
        return self.denoiser.decode(latents).clamp(0, 1).permute(0, 2, 3, 1)

    def _load(self) -> Denoiser:
        dtype = weights_dtype(self.device, self.cfg.half_precision_weights)
        return shared_denoiser(
            self.cfg.pretrained_model_name_or_path,
            dtype,
            self.device,
            attention_slicing=self.cfg.enable_attention_slicing,
            channels_last=self.cfg.enable_channels_last_format,
        )


@dataclass(frozen=True)
class _Text:
    """A prompt together with the cameras that ask for it."""

    utils: PromptUtils
    elevation: Float[Tensor, "B"]
    azimuth: Float[Tensor, "B"]
    view_dependent: bool

    def first(self, n: int) -> "_Text":
        return _Text(self.utils, self.elevation[:n], self.azimuth[:n], self.view_dependent)

    def encoding(self) -> TextEncoding:
        return self.utils.encoding(self.elevation, self.azimuth, self.view_dependent)

    def encoding_perp_neg(self) -> tuple[TextEncoding, Tensor]:
        return self.utils.encoding_perp_neg(self.elevation, self.azimuth)

    def prompts(self) -> list[str]:
        if not self.view_dependent:
            return [self.utils.prompt] * len(self.azimuth)
        rows = self.utils.directions.index(self.elevation, self.azimuth).tolist()
        return [self.utils.prompts_vd[row] for row in rows]


def _refuse(wanted: bool, name: str) -> None:
    if wanted:
        raise ConfigError(f"{KEY}.{name}", True, "the default: this option is not implemented here")


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{KEY}.{name}", value, f"one of {', '.join(choices)}")
