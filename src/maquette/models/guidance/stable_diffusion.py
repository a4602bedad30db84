"""Score distillation from a latent diffusion model: model, weighting and rule put together."""

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maquette.core.device import autocast_off
from maquette.core.errors import ConfigError, UserError
from maquette.core.random import StepRandom
from maquette.core.registry import register
from maquette.diffusion import distillation, score
from maquette.diffusion.denoiser import Denoiser
from maquette.models.guidance.base import KEY, GuidanceOutput
from maquette.models.guidance.latent import LatentGuidance
from maquette.models.guidance.rules import Distilled, Rule, Sample, parse_rule
from maquette.models.guidance.view_text import ViewCondition, ViewText
from maquette.models.prompt_processors.base import PromptUtils


@register("stable-diffusion-guidance")
class StableDiffusionGuidance(LatentGuidance):
    """Distillation by any rule, with a model of the Stable Diffusion or SDXL family or the embedded prior."""

    @dataclass(kw_only=True)
    class Config(LatentGuidance.Config):
        """The model and the rule."""

        rule: str = "sds"
        """sds, sjc, csd, nfsd, ism, sdi or reconstruction."""
        rule_args: dict[str, Any] = field(default_factory=dict)
        """Options of the rule; `maquette.models.guidance.rules` lists them."""
        use_sjc: bool = False
        """The ecosystem's way to say `rule: sjc`."""
        var_red: bool = True
        """Whether SJC subtracts the noise that was added."""
        use_img_loss: bool = False
        """Whether there is also a loss in pixels (HiFA); costs a decoding each step."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.use_sjc and self.rule not in ("sds", "sjc"):
                raise ConfigError(f"{KEY}.use_sjc", True, f"false, where the rule is {self.rule}")
            rule = self.parsed_rule()
            if self.guidance_rescale and not rule.rescalable:
                raise ConfigError(
                    f"{KEY}.guidance_rescale",
                    self.guidance_rescale,
                    f"0: the rule {self.rule} has no guided noise to rescale",
                    f"{KEY}.rule_args.rescale is that of rule: reconstruction",
                )

        def parsed_rule(self) -> Rule:
            """The rule with its options."""
            if self.use_sjc or self.rule == "sjc":
                return parse_rule("sjc", {"var_red": self.var_red, **self.rule_args})
            return parse_rule(self.rule, dict(self.rule_args))

    loss_name = "sds"
    """The main loss is called `loss_` and this."""

    def configure(self, denoiser: Denoiser | None = None) -> None:
        """Load the model, unless a `denoiser` is given, and choose the rule."""
        super().configure(denoiser)
        self.rule = self.make_rule()

    def make_rule(self) -> Rule:
        """The rule that the config describes."""
        return type(self).Config.parsed_rule(self.cfg)

    def __call__(
        self,
        rgb: Float[Tensor, "B H W C"],
        prompt_utils: PromptUtils | None,
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
            text = self.told(prompt_utils, elevation, azimuth, camera_distances, **kwargs)
            t, noise = self.timesteps(rng), self.noise("guidance/noise", rng, latents)
            sample = Sample(latents=latents.detach(), noise=noise, t=t, text=text)
            found = self.rule(self, sample)
            out = GuidanceOutput(
                grad_norm=found.gradient.norm(), timestep=t, min_step=self.min_step, max_step=self.max_step
            )
            limited = self.limited(found.gradient)
            out[f"loss_{self.loss_name}"] = score.specified_gradient(latents, limited)
            if self.cfg.use_img_loss:
                out[f"loss_{self.loss_name}_img"] = self.image_loss(images, found, t, rgb_as_latents)
            if guidance_eval:
                out.eval = self.evaluate(sample.latents, t, noise, text)
        return out

    def told(
        self,
        prompt_utils: PromptUtils | None,
        elevation: Float[Tensor, "B"],
        azimuth: Float[Tensor, "B"],
        camera_distances: Float[Tensor, "B"],
        **views: Any,
    ) -> ViewCondition:
        """What the model is told about the pictures: the prompt, in the words of their views."""
        return ViewText(prompt_of(prompt_utils), elevation, azimuth, self.cfg.view_dependent_prompting)

    def image_loss(
        self, images: Float[Tensor, "B C H W"], found: Distilled, t: Int[Tensor, "B"], as_latents: bool
    ) -> Float[Tensor, ""]:
        """The distillation loss in pixels (or again in latents, where there are no pixels)."""
        with torch.no_grad():
            denoised = found.x0_hat if as_latents else self.denoiser.decode(found.x0_hat)
            grad = distillation.image_gradient(images, denoised, self.weight(t), self.alpha_bar(t))
        return score.specified_gradient(images, self.limited(grad))


def prompt_of(prompt_utils: PromptUtils | None) -> PromptUtils:
    """The prompt, which must be there.

    Raises:
        UserError: there is none.
    """
    if prompt_utils is None:
        raise UserError(
            "This guidance reads a prompt, and there is none.",
            hint="set system.prompt_processor_type=stable-diffusion-prompt-processor and its prompt",
        )
    return prompt_utils
