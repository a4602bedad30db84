"""Guidance by a model of several views at once, which agree with each other (MVDream, Shi et al. 2023)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maquette.core.errors import ConfigError, UserError
from maquette.core.random import StepRandom
from maquette.core.registry import register
from maquette.diffusion.families.multiview import MultiViewDenoiser
from maquette.diffusion.families.multiview_unet import view_cameras
from maquette.models.guidance.base import KEY
from maquette.models.guidance.conditioned import ConditionedGuidance, ConditionedText
from maquette.models.guidance.rules import Reconstruction, Rule
from maquette.models.guidance.views import Views


@register("multiview-diffusion-guidance")
class MultiViewGuidance(ConditionedGuidance):
    """A batch is made of objects; the views of each stand side by side, and share a noise level."""

    family: ClassVar[str] = "multiview"
    reads: ClassVar[str] = "cameras"

    @dataclass(kw_only=True)
    class Config(ConditionedGuidance.Config):
        """The model, and the loss of its paper."""

        pretrained_model_name_or_path: str = ""
        """A folder or an id of the hub whose UNet is a `MultiViewUNet`; there is no default."""
        n_view: int = 0
        """Views of an object; 0 for as many as the model was made for."""
        guidance_scale: float = 50.0
        """s of eps_uncond + s (eps_text - eps_uncond)."""
        view_dependent_prompting: bool = False
        """Whether the prompt has the words of the view; the model knows the cameras."""
        recon_loss: bool = True
        """Whether the loss is the distance to the model's clean latents (section 3.3 of the paper), all noise
        levels weighing the same; false for `rule`."""
        recon_std_rescale: float = 0.5
        """How much of the plain prediction's spread the clean latents take on, 0 to 1."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.n_view < 0:
                raise ConfigError(f"{KEY}.n_view", self.n_view, "a whole number; 0 for the model's")
            for name in ("rule", "use_sjc"):
                if self.recon_loss and getattr(self, name) not in ("sds", False):
                    wanted = "nothing, where recon_loss is true"
                    raise ConfigError(f"{KEY}.{name}", getattr(self, name), wanted)
            if self.recon_loss and self.guidance_rescale:
                wanted = "0, where recon_loss is true: it has recon_std_rescale"
                raise ConfigError(f"{KEY}.guidance_rescale", self.guidance_rescale, wanted)

    denoiser: MultiViewDenoiser

    def configure(self, denoiser: Any = None) -> None:
        """Load the model; whole objects are looked at by `guidance_eval`."""
        if denoiser is None and not self.cfg.pretrained_model_name_or_path:
            raise ConfigError(
                f"{KEY}.pretrained_model_name_or_path",
                "",
                "a folder or an id of the hub",
                "docs/guidances.md says what the model has to look like",
            )
        super().configure(denoiser)
        self.n_view: int = self.denoiser.n_views
        if self.cfg.n_view not in (0, self.n_view):
            raise ConfigError(f"{KEY}.n_view", self.cfg.n_view, f"{self.n_view}, as the model has it")
        self.max_items_eval += -self.max_items_eval % self.n_view

    def make_rule(self) -> Rule:
        """That of the paper, unless the config wants another."""
        if not self.cfg.recon_loss:
            return super().make_rule()
        return Reconstruction(rescale=self.cfg.recon_std_rescale)

    def weight(self, t: Int[Tensor, "B"]) -> Float[Tensor, "B"]:
        """One for the loss of the paper, else as the weighting strategy has it."""
        return torch.ones_like(self.alpha_bar(t)) if self.cfg.recon_loss else super().weight(t)

    def timesteps(self, rng: StepRandom) -> Int[Tensor, "B"]:
        """A noise level for each object: its first view's."""
        return super().timesteps(rng)[:: self.n_view].repeat_interleave(self.n_view)

    def condition(self, views: Views) -> ConditionedText:
        """The prompt, and the cameras as the model reads them.

        Raises:
            UserError: there are no matrices of cameras, or the batch is not one of whole objects.
            ConfigError: the prompt asks for Perp-Neg, which looks at one view at a time.
        """
        if views.c2w is None:
            raise UserError("A guidance of several views needs the matrices of their cameras (c2w).")
        if len(views.c2w) % self.n_view:
            raise UserError(
                f"The model sees {self.n_view} views of an object together, and the batch has "
                f"{len(views.c2w)}.",
                hint="in 3D use data_type=random-multiview-camera-datamodule "
                f"data.n_view={self.n_view} data.batch_size={self.n_view}",
            )
        worded: bool = self.cfg.view_dependent_prompting
        if views.prompt.use_perp_neg and worded:
            raise ConfigError("system.prompt_processor.use_perp_neg", True, "false: views are seen together")
        cameras = view_cameras(views.c2w.to(self.device))
        return ConditionedText(views.prompt, views.elevation, views.azimuth, worded, cameras)
