"""What every guidance by a latent diffusion model shares: the model, its sizes, text, and a look inside."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from maquette.core.errors import ConfigError
from maquette.core.random import StepRandom
from maquette.diffusion import score
from maquette.diffusion.denoiser import own_denoiser, shared_denoiser, weights_dtype
from maquette.diffusion.lora import LoRAFile, load_adapters
from maquette.diffusion.memory import apply_memory
from maquette.diffusion.noise_predictor import NoisePredictor
from maquette.models.guidance.base import KEY, BaseGuidance, GuidanceEval, one_of
from maquette.models.guidance.memory_options import MemoryOptions, memory_settings
from maquette.models.guidance.predictions import Predictions
from maquette.models.guidance.rules import Sample
from maquette.models.guidance.view_text import ViewCondition, ViewText
from maquette.models.guidance.views import Views
from maquette.models.prompt_processors.base import TextEncoding


class LatentGuidance(BaseGuidance):
    """A guidance with any model of the Stable Diffusion or SDXL family, or the embedded prior.

    All sizes are the model's: pictures are resized to what it was made for, if they differ.
    """

    @dataclass(kw_only=True)
    class Config(MemoryOptions, BaseGuidance.Config):
        """The model and how it is asked."""

        pretrained_model_name_or_path: str = "stable-diffusion-v1-5/stable-diffusion-v1-5"
        """maquette/toyworld, a folder, or an id of the hub; the same as the prompt processor's."""
        guidance_scale: float = 100.0
        """s of eps_uncond + s (eps_text - eps_uncond)."""
        guidance_rescale: float = 0.0
        """Share of the plain prediction's spread that the guided one takes on (Lin et al. 2024), 0 to 1."""
        weighting_strategy: str = "sds"
        """w(t): sds or dreamfusion (1 - alpha_bar), uniform (1), or fantasia3d (sqrt(alpha_bar) (1 -
        alpha_bar))."""
        encode_mode: str = "mean"
        """Latents are the "mean" of the posterior (no noise of its own), or a "sample" of it."""
        view_dependent_prompting: bool = True
        """Whether the prompt has the words of the view."""
        max_items_eval: int = 4
        """How many pictures of a batch `guidance_eval` looks at."""
        eval_steps: int = 10
        """Denoising steps of `guidance_eval`."""
        lora: list[Any] = field(default_factory=list)
        """Adapters of the UNet: paths, or {path, scale}; files, folders or ids of the hub."""
        half_precision_weights: bool = True
        """float16 weights on a GPU; on a CPU they are float32 always."""
        token_merging: bool = False
        """Not implemented; True is refused."""
        token_merging_params: dict[str, Any] | None = field(default_factory=dict)
        """Read only by token merging."""

        def __post_init__(self) -> None:
            super().__post_init__()
            _refuse(self.token_merging, "token_merging")
            _refuse(bool(self.token_merging_params), "token_merging_params")
            for name in ("max_items_eval", "eval_steps"):
                if getattr(self, name) < 1:
                    raise ConfigError(f"{KEY}.{name}", getattr(self, name), "an integer above 0")
            if not 0.0 <= self.guidance_rescale <= 1.0:
                raise ConfigError(f"{KEY}.guidance_rescale", self.guidance_rescale, "a number from 0 to 1")
            one_of("weighting_strategy", self.weighting_strategy, tuple(score.WEIGHTINGS))
            one_of("encode_mode", self.encode_mode, ("mean", "sample"))
            LoRAFile.parse(self.lora, f"{KEY}.lora")

    denoiser: NoisePredictor

    def configure(self, denoiser: Any = None) -> None:
        """Load the model; a `denoiser` that is given is used in its place."""
        self.denoiser = self._load() if denoiser is None else denoiser
        self.weighting = score.WEIGHTINGS[self.cfg.weighting_strategy]
        self.max_items_eval: int = self.cfg.max_items_eval
        self.set_noise_levels(self.denoiser.num_train_timesteps)

    @property
    def alphas_cumprod(self) -> Float[Tensor, "T"]:
        """The cumulated product of 1 - beta of every noise level."""
        return self.denoiser.alphas_cumprod

    @property
    def scale(self) -> float:
        """The guidance scale."""
        return float(self.cfg.guidance_scale)

    def alpha_bar(self, t: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
        """The cumulated product of 1 - beta at levels t."""
        return self.denoiser.alphas_cumprod[t]

    def weight(self, t: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
        """w(t), as the weighting strategy has it."""
        return self.weighting(self.alpha_bar(t))

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

    def latents(
        self, images: Float[Tensor, "B _ H W"], rng: StepRandom, as_latents: bool
    ) -> Float[Tensor, "B C h w"]:
        """Latents of prepared pictures, differentiable; prepared latents are returned as they are."""
        return images if as_latents else self.encode(images, rng)

    def noise(self, name: str, rng: StepRandom, like: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Standard normal noise, each sample's own."""
        return rng.normal(name, *like.shape[1:]).to(like)

    def sample(
        self, rgb: Float[Tensor, "B H W _"], views: Views, rng: StepRandom, as_latents: bool
    ) -> tuple[Float[Tensor, "B _ _ _"], Float[Tensor, "B C h w"], Sample]:
        """Pictures in the model's size and their latents, both differentiable, and the sample to be judged.

        Each sample has a noise level and a noise of its own, keyed by `rng`: a batch equals its samples one
        by one.
        """
        images = self.prepare(rgb, as_latents)
        latents = self.latents(images, rng, as_latents)
        sample = Sample(
            latents=latents.detach(),
            noise=self.noise("guidance/noise", rng, latents),
            t=self.timesteps(rng),
            text=self.condition(views),
        )
        return images, latents, sample

    def condition(self, views: Views) -> ViewCondition:
        """What the model reads about the pictures: the prompt, in the words of their views."""
        return ViewText(views.prompt, views.elevation, views.azimuth, self.cfg.view_dependent_prompting)

    @torch.no_grad()
    def guided_noise(
        self,
        x_t: Float[Tensor, "B C h w"],
        t: Int[Tensor, "B"],
        text: ViewCondition,
        scale: float | None = None,
    ) -> Float[Tensor, "B C h w"]:
        """Classifier-free guidance, with Perp-Neg where the prompt asks for it; no graph is kept.

        `scale` takes the place of `guidance_scale`.
        """
        found = self.predictions(x_t, t, text)
        return self._rescaled(found.guided(self.scale if scale is None else scale), found.plain)

    @torch.no_grad()
    def predictions(
        self, x_t: Float[Tensor, "B C h w"], t: Int[Tensor, "B"], text: ViewCondition
    ) -> Predictions:
        """What the model says with and without the text, with Perp-Neg where the prompt asks for it."""
        if text.perp_neg:
            return self._perp_neg_predictions(x_t, t, text)
        eps_text, eps_uncond = self.pair(x_t, t, text)
        return Predictions(eps_text, eps_uncond, eps_text)

    @torch.no_grad()
    def pair(
        self, x_t: Float[Tensor, "B C h w"], t: Int[Tensor, "B"], text: ViewCondition
    ) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, "B C h w"]]:
        """Predictions with the text and with the negative prompt, in one call of the model."""
        eps = self._denoise(x_t.repeat(2, 1, 1, 1), t.repeat(2), text.encoding())
        eps_text, eps_uncond = eps.chunk(2)
        return eps_text, eps_uncond

    @torch.no_grad()
    def null_noise(
        self, x_t: Float[Tensor, "B C h w"], t: Int[Tensor, "B"], text: ViewCondition
    ) -> Float[Tensor, "B C h w"]:
        """The prediction without any text."""
        return self._denoise(x_t, t, text.null())

    @torch.no_grad()
    def evaluate(self, sample: Sample) -> GuidanceEval:
        """What the model makes of the first few latents when it may denoise them to the end (DDIM)."""
        n = min(self.max_items_eval, len(sample.t))
        text, t = sample.text.first(n), sample.t[:n]
        noisy = score.add_noise(sample.latents[:n], sample.noise[:n], self.alpha_bar(t))
        passed = list(self.descend(noisy, t, text, self.cfg.eval_steps))
        (x, x0), (_, final) = passed[0], passed[-1]
        return GuidanceEval(
            timesteps=t,
            texts=text.prompts(),
            imgs_noisy=self._pictures(noisy),
            imgs_1step=self._pictures(x),
            imgs_1orig=self._pictures(x0),
            imgs_final=self._pictures(final),
        )

    def descend(
        self, x_t: Float[Tensor, "B C h w"], t: Int[Tensor, "B"], text: ViewCondition, steps: int
    ) -> Iterator[tuple[Float[Tensor, "B C h w"], Float[Tensor, "B C h w"]]]:
        """DDIM from levels t to the end: after each step the latents, and the clean ones implied by it."""
        levels = [t * (steps - i) // steps for i in range(steps + 1)]
        for level, following in pairwise(levels):
            eps = self.guided_noise(x_t, level, text)
            x0, eps = self.parted(x_t, eps, self.alpha_bar(level))
            x_t = score.ddim_step(x_t, eps, self.alpha_bar(level), self.alpha_bar(following))
            yield x_t, x0

    def parted(
        self, x_t: Float[Tensor, "B C h w"], eps: Float[Tensor, "B C h w"], alpha_bar: Float[Tensor, "B"]
    ) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, "B C h w"]]:
        """The clean latents that a predicted noise implies, and the noise that a DDIM step goes on with."""
        return score.predicted_x0(x_t, eps, alpha_bar), eps

    def _perp_neg_predictions(self, x_t: Tensor, t: Tensor, text: ViewCondition) -> Predictions:
        """The negatives of a sample stand together: its noised latents are repeated for them, not tiled."""
        encoding, weights = text.encoding_perp_neg()
        batch, count = weights.shape
        x = torch.cat([x_t, x_t, x_t.repeat_interleave(count, 0)])
        eps = self._denoise(x, torch.cat([t, t, t.repeat_interleave(count)]), encoding)
        eps_text, eps_uncond, negatives = eps.split([batch, batch, batch * count])
        negatives = negatives.unflatten(0, (batch, count))
        steered = score.perp_neg(eps_uncond, eps_text, negatives, weights.to(eps), scale=1.0)
        return Predictions(steered, eps_uncond, eps_text)

    def _rescaled(self, guided: Tensor, plain: Tensor) -> Tensor:
        amount: float = self.cfg.guidance_rescale
        return guided if amount == 0.0 else score.rescaled(guided, plain, amount)

    def _denoise(self, x_t: Tensor, t: Tensor, text: TextEncoding) -> Tensor:
        return self.denoiser.predict_noise(x_t, t, text.hidden, text.pooled, **self._beside(text))

    def _beside(self, text: TextEncoding) -> dict[str, Tensor]:
        """What the model reads beside the text, by the names of its arguments."""
        return {}

    def _pictures(self, latents: Float[Tensor, "E C h w"]) -> Float[Tensor, "E H W 3"]:
        return self.denoiser.decode(latents).clamp(0, 1).permute(0, 2, 3, 1)

    def _load(self, own: bool = False) -> Any:
        """The model with the adapters of the recipe; in one of its own they become part of the weights."""
        name: str = self.cfg.pretrained_model_name_or_path
        dtype = weights_dtype(self.device, self.cfg.half_precision_weights)
        memory = memory_settings(self.cfg)
        memory.check(self.device)
        adapters = LoRAFile.parse(self.cfg.lora, f"{KEY}.lora")
        if not adapters:
            return self._open(name, dtype, own, memory=memory)
        denoiser = self._open(name, dtype, own=True)
        load_adapters(denoiser.unet, adapters, fuse=own)
        apply_memory(denoiser, memory, self.device)  # an offloaded network could not take the adapters
        return denoiser

    def _open(self, name: str, dtype: torch.dtype, own: bool, **switches: Any) -> Any:
        """The model, one of its own where its weights will be changed."""
        return (own_denoiser if own else shared_denoiser)(name, dtype, self.device, **switches)


def _refuse(wanted: bool, name: str) -> None:
    if wanted:
        raise ConfigError(f"{KEY}.{name}", True, "the default: this option is not implemented here")
