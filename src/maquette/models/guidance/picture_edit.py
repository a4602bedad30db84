"""What guidances share that look at a second picture of each view: edits, and control pictures."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from maquette.core.device import autocast_off
from maquette.core.errors import ConfigError, UserError
from maquette.core.random import StepRandom
from maquette.diffusion import score
from maquette.models.guidance.base import KEY, GuidanceOutput
from maquette.models.guidance.conditioned import ConditionedGuidance, ConditionedText
from maquette.models.guidance.views import Views


class PictureEditGuidance(ConditionedGuidance):
    """Compares pictures with what a model makes of `cond_rgb`, another picture of the same view.

    With `use_sds` it gives the loss of a rule, as every guidance; without, it gives `edit_images`: the
    pictures noised and denoised again by DDIM, for systems that replace their training pictures by edits.
    """

    @dataclass(kw_only=True)
    class Config(ConditionedGuidance.Config):
        """How strongly the second picture acts, and what is given."""

        guidance_scale: float = 7.5
        """s of the text."""
        condition_scale: float = 1.5
        """How strongly the second picture acts."""
        use_sds: bool = False
        """Whether a loss is given (true), or edited pictures (false)."""
        diffusion_steps: int = 20
        """Denoising steps of an edited picture."""
        fixed_size: int = -1
        """Height and width at which the model sees pictures; -1 for the size that it was made for."""
        ddim_scheduler_name_or_path: str = ""
        """Accepted for older recipes; never read: noise levels are the model's own."""
        cache_dir: str | None = None
        """Accepted for older recipes; never read: models lie in the hub's own cache."""
        view_dependent_prompting: bool = False
        """Whether the prompt has the words of the view."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.diffusion_steps < 1:
                raise ConfigError(f"{KEY}.diffusion_steps", self.diffusion_steps, "an integer above 0")
            if self.fixed_size != -1 and self.fixed_size < 1:
                raise ConfigError(f"{KEY}.fixed_size", self.fixed_size, "pixels, or -1")

    def configure(self, denoiser: Any = None) -> None:
        """Load the model, and let it see pictures in the wanted size."""
        super().configure(denoiser)
        if self.cfg.fixed_size > 0:
            self._see(self.cfg.fixed_size)

    def guide(
        self, rgb: Float[Tensor, "B H W C"], views: Views, rng: StepRandom, as_latents: bool, with_eval: bool
    ) -> GuidanceOutput:
        """A loss of pictures, or their edits."""
        if self.cfg.use_sds:
            return super().guide(rgb, views, rng, as_latents, with_eval)
        return self.edited(rgb, views, rng, as_latents)

    @torch.no_grad()
    def edited(
        self, rgb: Float[Tensor, "B H W C"], views: Views, rng: StepRandom, as_latents: bool = False
    ) -> GuidanceOutput:
        """`edit_images` (B, H, W, 3): pictures noised to this step's levels, and denoised in
        `diffusion_steps` steps; in their own size, or of latents in the model's."""
        with autocast_off(rgb.device):
            _, latents, sample = self.sample(rgb, views, rng, as_latents)
            x_t = score.add_noise(latents, sample.noise, self.alpha_bar(sample.t))
            *_, (_, clean) = self.descend(x_t, sample.t, sample.text, self.cfg.diffusion_steps)
            edits = self._pictures(clean)
        found = {"edit_images": edits if as_latents else _resized(edits, *rgb.shape[1:3])}
        return GuidanceOutput(timestep=sample.t, min_step=self.min_step, max_step=self.max_step, extras=found)

    def condition(self, views: Views) -> ConditionedText:
        """The prompt, and what the model reads of the second pictures.

        Raises:
            UserError: there are none.
        """
        if views.cond_rgb is None:
            raise UserError(
                "This guidance looks at a second picture of each view (cond_rgb), and there is none.",
                ["asked for by system.guidance_type"],
                "the playground takes it from system.cond_image",
            )
        images = views.cond_rgb.to(self.device, torch.promote_types(views.cond_rgb.dtype, torch.float32))
        condition = self.second(images.permute(0, 3, 1, 2))
        return ConditionedText(
            views.prompt,
            views.elevation,
            views.azimuth,
            self.cfg.view_dependent_prompting,
            condition.expand(len(views.azimuth), *condition.shape[1:]),
        )

    @abstractmethod
    def second(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B *S"]:
        """What the model reads of the second pictures, which have values in [0, 1]."""

    def _see(self, size: int) -> None:
        pixels = self.denoiser.image_size // self.denoiser.latent_size
        if size % pixels:
            raise ConfigError(f"{KEY}.fixed_size", size, f"a multiple of {pixels}, or -1")
        self.denoiser.image_size, self.denoiser.latent_size = size, size // pixels


def _resized(images: Float[Tensor, "B h w 3"], height: int, width: int) -> Float[Tensor, "B H W 3"]:
    if images.shape[1:3] == (height, width):
        return images
    wide = F.interpolate(images.permute(0, 3, 1, 2), (height, width), mode="bilinear", align_corners=False)
    return wide.permute(0, 2, 3, 1)
