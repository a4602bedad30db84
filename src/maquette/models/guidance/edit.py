"""Editing by words: the delta denoising score of two pictures, under Prompt-to-Prompt attention control."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from maquette.core.device import autocast_off
from maquette.core.errors import ConfigError, UserError
from maquette.core.random import StepRandom
from maquette.core.registry import register
from maquette.diffusion import distillation, score
from maquette.diffusion.adapted_text import adapt_text
from maquette.diffusion.attention import AttentionCapture, AttentionControl
from maquette.diffusion.load import TEXT_PARTS, load_pipeline
from maquette.diffusion.lora import LoRAFile
from maquette.diffusion.prompt_to_prompt import EditOptions, PromptToPrompt
from maquette.diffusion.word_alignment import Alignment, align_prompts
from maquette.models.guidance.base import KEY, GuidanceOutput
from maquette.models.guidance.latent import LatentGuidance
from maquette.models.guidance.rules import Sample
from maquette.models.guidance.view_text import ViewCondition
from maquette.models.guidance.views import Views
from maquette.models.prompt_processors.base import PromptUtils, TextEncoding

STEEPNESS = 10.0
"""How fast a place comes to count as that of the changed words, as their attention grows."""


@dataclass(kw_only=True)
class EditOutput(GuidanceOutput):
    """What an edit asks for, and where."""

    loss_dds: Float[Tensor, ""]
    """Its gradient with respect to the latents is the delta denoising score / B."""
    mask: Float[Tensor, "B H W 1"]
    """Where the words that changed are looked for, 0 to 1, in the size of the pictures."""


@register("edit-guidance")
class EditGuidance(LatentGuidance):
    """Compares what the model says about a picture and the new words with what it says about the picture
    before the edit and its words (DDS, Hertz et al. 2023).

    Both are noised alike and predicted in one call, in which the edited picture looks where the other one
    looks (Prompt-to-Prompt, Hertz et al. 2022). The same pictures and the same words give exactly nothing.
    """

    @dataclass(kw_only=True)
    class Config(LatentGuidance.Config):
        """The model, and how much of the source's attention is carried over."""

        guidance_scale: float = 4.0
        """s of eps_uncond + s (eps_text - eps_uncond), for both pictures; higher ones oversaturate colors."""
        min_step_percent: Any = 0.2
        """Lowest noise level, as a share of all levels."""
        max_step_percent: Any = 0.8
        """Highest noise level, as a share of all levels, included."""
        cross_until: float = 1.0
        """Cross-attention is carried over at noise levels above 1 minus this share of all levels."""
        self_until: float = 1.0
        """Self-attention likewise; it holds the layout."""
        mask_level: float = 0.3
        """Attention to the changed words (0 and 1 are its smallest and largest in the view) at which a place
        counts half as theirs; 0 for no mask: the edit may change everything."""

        def __post_init__(self) -> None:
            super().__post_init__()
            self.edit_options()
            if not 0.0 <= self.mask_level < 1.0:
                raise ConfigError(f"{KEY}.mask_level", self.mask_level, "a number from 0, below 1")

        def edit_options(self) -> EditOptions:
            """The options of the attention control."""
            return EditOptions(cross_until=self.cross_until, self_until=self.self_until, self_max_side=4096)

    def configure(self, denoiser: Any = None, tokenizer: Any = None) -> None:
        """Load the model and its tokenizer.

        Raises:
            UserError: the model has no UNet.
            ConfigError: the attention of its UNet cannot be controlled.
        """
        super().configure(denoiser)
        name: str = self.cfg.pretrained_model_name_or_path
        self.unet: Any = getattr(self.denoiser, "unet", None)
        if self.unet is None:
            raise UserError(
                f"The model {name} cannot edit: it has no UNet whose attention could be carried over.",
                hint="use a model of the Stable Diffusion 1, 2 or SDXL family",
            )
        self.watched = self._last_cross_attention(name)
        self.options = type(self).Config.edit_options(self.cfg)
        tokenizer = tokenizer or self._tokenizer(name)
        self.alignment = lru_cache(maxsize=None)(partial(align_prompts, tokenizer))
        self.longest: int = tokenizer.model_max_length

    def guide(
        self, rgb: Float[Tensor, "B H W C"], views: Views, rng: StepRandom, as_latents: bool, with_eval: bool
    ) -> EditOutput:
        """The delta denoising score.

        Raises:
            UserError: nothing is known of the pictures before the edit, or a prompt is longer than the text
                encoder.
            ConfigError: a prompt asks for Perp-Neg.
        """
        if views.source_rgb is None or views.source_utils is None:
            raise UserError(
                "An edit compares pictures with those before it, and there are none.",
                ["asked for by system.guidance_type"],
                "use system_type=edit-system",
            )
        source = self.condition(replace(views, prompt_utils=views.source_utils))
        self._check_prompts(views.prompt, views.source_utils)
        with autocast_off(rgb.device):
            _, latents, sample = self.sample(rgb, views, rng, as_latents)
            with torch.no_grad():
                before = self.latents(self.prepare(views.source_rgb, as_latents), rng, as_latents)
            gradient, mask = self.difference(sample, before, source)
        return EditOutput(
            loss_dds=score.specified_gradient(latents, self.limited(gradient * mask)),
            mask=_resized(mask, *rgb.shape[1:3]),
            grad_norm=gradient.norm(),
            timestep=sample.t,
            min_step=self.min_step,
            max_step=self.max_step,
        )

    @torch.no_grad()
    def difference(
        self, sample: Sample, before: Float[Tensor, "B C h w"], source: ViewCondition
    ) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, "B 1 h w"]]:
        """The score with respect to the latents, and where the words that changed are; `before` are the
        latents before the edit, `source` their words.
        """
        latents, noise, t, target = sample.latents, sample.noise, sample.t, sample.text
        batch, alpha_bar = len(t), self.alpha_bar(t)
        alignments = [self.alignment(*pair) for pair in zip(source.prompts(), target.prompts(), strict=True)]
        x_t, x_before = score.add_noise(latents, noise, alpha_bar), score.add_noise(before, noise, alpha_bar)
        with ExitStack() as stack:
            pairs = [(row, batch + row) for row in range(batch)]
            control = stack.enter_context(PromptToPrompt(self.unet, alignments, pairs, self.options))
            control.progress = 1.0 - t.cpu() / self.num_train_timesteps
            watch = AttentionCapture(
                self.unet, where=self.watched, mean_heads=True, rows=slice(2 * batch), device=None
            )
            seen = stack.enter_context(watch)
            eps = self._denoise(
                torch.cat([x_before, x_t, x_before, x_t]), t.repeat(4), _interleaved(source, target)
            )
        text_before, text_after, none_before, none_after = eps.chunk(4)
        gradient = distillation.dds_gradient(
            self._rescaled(score.classifier_free(none_after, text_after, self.scale), text_after),
            self._rescaled(score.classifier_free(none_before, text_before, self.scale), text_before),
            self.weight(t),
        )
        return gradient, self._mask(seen.average(latents.shape[-1]), alignments)

    def _check_prompts(self, *prompts: PromptUtils) -> None:
        if self.cfg.view_dependent_prompting and any(one.use_perp_neg for one in prompts):
            wanted = "false: the words of a view are aligned with those before the edit, not mixed"
            raise ConfigError("system.prompt_processor.use_perp_neg", True, wanted)
        if max(one.text.hidden.shape[1] for one in prompts) > self.longest:
            raise UserError(
                f"An edit aligns prompts that the text encoder reads at once: {self.longest} tokens.",
                hint="shorten the prompts, or set system.prompt_processor.long_prompts=false to cut them",
            )

    def _last_cross_attention(self, name: str) -> str:
        try:
            control = AttentionControl(self.unet, lambda maps: maps.probabilities)
        except UserError as err:
            expected = f"a model whose attention can be carried over ({err.summary})"
            raise ConfigError(f"{KEY}.pretrained_model_name_or_path", name, expected) from err
        cross = [site.name for site in control.sites if site.kind == "cross"]
        if not cross:
            expected = "a model that reads its text by cross-attention: Stable Diffusion 1, 2 or SDXL"
            raise ConfigError(f"{KEY}.pretrained_model_name_or_path", name, expected)
        return cross[-1]

    def _tokenizer(self, name: str) -> Any:
        """The model's, with the words that adapters brought."""
        adapters = LoRAFile.parse(self.cfg.lora, f"{KEY}.lora")
        pipeline = load_pipeline(name, parts=TEXT_PARTS if adapters else ("tokenizer",))
        adapt_text(pipeline, adapters)
        return pipeline.tokenizer

    def _mask(self, maps: Float[Tensor, "N K h w"], alignments: list[Alignment]) -> Float[Tensor, "B 1 h w"]:
        """Where either picture looks at words that the other does not have."""
        if self.cfg.mask_level == 0.0:
            return maps.new_ones(len(alignments), 1, *maps.shape[-2:])
        batch = len(alignments)
        masks = []
        for row, one in enumerate(alignments):
            looks = [maps[row, one.removed].sum(0)] * bool(one.removed)
            looks += [maps[batch + row, one.added].sum(0)] * bool(one.added)
            masks.append(self._membership(torch.stack(looks)) if looks else torch.zeros_like(maps[0, 0]))
        return torch.stack(masks)[:, None]

    def _membership(self, looks: Float[Tensor, "W h w"]) -> Float[Tensor, "h w"]:
        low, high = looks.amin(dim=(1, 2), keepdim=True), looks.amax(dim=(1, 2), keepdim=True)
        share = (looks - low) / (high - low).clamp_min(1e-12)
        return torch.sigmoid(STEEPNESS * (share.amax(0) - self.cfg.mask_level))


def _interleaved(source: ViewCondition, target: ViewCondition) -> TextEncoding:
    """4B rows: words of the source, of the target, then no words for either."""
    (words, none), (new_words, new_none) = (
        (one[: len(one.hidden) // 2], one[len(one.hidden) // 2 :])
        for one in (source.encoding(), target.encoding())
    )
    return TextEncoding.cat([words, new_words, none, new_none])


def _resized(mask: Float[Tensor, "B 1 h w"], height: int, width: int) -> Float[Tensor, "B H W 1"]:
    large = F.interpolate(mask, (height, width), mode="bilinear", align_corners=False)
    return large.permute(0, 2, 3, 1)
