"""Score distillation via inversion (SDI), under the ecosystem's name and options."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.core.registry import register
from maquette.models.guidance.base import KEY
from maquette.models.guidance.rules import SDI, SDS, Distilled, Predictor, Rule, Sample
from maquette.models.guidance.stable_diffusion import StableDiffusionGuidance


@register("stable-diffusion-sdi-guidance")
class StableDiffusionSDIGuidance(StableDiffusionGuidance):
    """SDI (Lukoianov et al. 2024): `loss_sdi` is half the mean squared distance to the model's picture."""

    @dataclass(kw_only=True)
    class Config(StableDiffusionGuidance.Config):
        """The inversion."""

        guidance_scale: float = 7.5
        """s of the step after the inversion: 7.5, as in the ecosystem's recipe. (Its class says 100, and
        counts from the prediction with the text, so that its s is one less.)"""
        trainer_max_steps: int = 10000
        """The step at which annealing arrives at the lowest level."""
        t_anneal: bool = True
        """Whether the noise level falls from the highest to the lowest, linearly, instead of being drawn."""
        enable_sdi: bool = True
        """Whether the noise comes from an inversion; without, this is SDS with another scale."""
        inversion_guidance_scale: float = -7.5
        """s of the inversion."""
        inversion_n_steps: int = 10
        """Steps of the inversion, evenly from no noise to the level of the step. (The ecosystem's goes up to
        100 levels further, by a random amount, and maps what it finds back.)"""
        inversion_eta: float = 0.3
        """Share of fresh noise, mixed in once, after the inversion, at constant variance."""
        n_ddim_steps: int = 50
        """Accepted for older recipes; `eval_steps` says how finely `guidance_eval` denoises."""

        def __post_init__(self) -> None:
            super().__post_init__()
            for name in ("rule", "rule_args", "use_sjc"):
                if getattr(self, name) not in ("sds", {}, False):
                    wanted = "nothing: the rule of this guidance is SDI"
                    raise ConfigError(f"{KEY}.{name}", getattr(self, name), wanted)
            if self.t_anneal and self.sqrt_anneal:
                raise ConfigError(f"{KEY}.sqrt_anneal", True, "false, where t_anneal is true")

    loss_name = "sdi"

    def make_rule(self) -> Rule:
        """SDI with the options of the config, its gradient that of a mean."""
        if not self.cfg.enable_sdi:
            return SDS()
        cfg = self.cfg
        return _Mean(scale=cfg.inversion_guidance_scale, steps=cfg.inversion_n_steps, eta=cfg.inversion_eta)

    def weight(self, t: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
        """SDI weighs all noise levels the same."""
        return torch.ones_like(self.alpha_bar(t)) if self.cfg.enable_sdi else super().weight(t)

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        """Anneal the noise level."""
        super().update_step(epoch, global_step, on_load_weights)
        if self.cfg.t_anneal:
            left = 1.0 - min(global_step / self.cfg.trainer_max_steps, 1.0)
            level = int(self.min_step + (self.max_step - self.min_step) * left)
            self.min_step = self.max_step = level


class _Mean(SDI):
    """SDI whose gradient is divided by the number of latents of a sample, as a mean's is."""

    def __call__(self, model: Predictor, sample: Sample) -> Distilled:
        """The gradient of half the mean squared distance."""
        found = super().__call__(model, sample)
        return Distilled(gradient=found.gradient / sample.latents[0].numel(), x0_hat=found.x0_hat)
