"""What guidances share that turn a gradient of latents into losses, in latents and in pixels."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maquette.core.device import autocast_off
from maquette.core.random import StepRandom
from maquette.diffusion import distillation, score
from maquette.models.guidance.base import GuidanceOutput
from maquette.models.guidance.latent import LatentGuidance
from maquette.models.guidance.rules import Distilled, Sample
from maquette.models.guidance.views import Views


class ScoreDistillation(LatentGuidance):
    """A guidance whose losses have a distillation gradient, which subclasses find."""

    @dataclass(kw_only=True)
    class Config(LatentGuidance.Config):
        """The losses."""

        use_img_loss: bool = False
        """Whether there is also a loss in pixels (HiFA); costs decodings each step."""

    loss_name: ClassVar[str] = "sds"
    """The main loss is called `loss_` and this; that in pixels has `_img` behind it."""

    @abstractmethod
    def distill(self, sample: Sample) -> Distilled:
        """The gradient for a batch, each sample by itself."""

    def guide(
        self, rgb: Float[Tensor, "B H W C"], views: Views, rng: StepRandom, as_latents: bool, with_eval: bool
    ) -> GuidanceOutput:
        """Noise the latents, distill, and make losses of what is found."""
        with autocast_off(rgb.device):
            images, latents, sample = self.sample(rgb, views, rng, as_latents)
            found = self.distill(sample)
            out = GuidanceOutput(
                grad_norm=found.gradient.norm(),
                timestep=sample.t,
                min_step=self.min_step,
                max_step=self.max_step,
            )
            out[f"loss_{self.loss_name}"] = score.specified_gradient(latents, self.limited(found.gradient))
            self.complete(out, sample, found, rng)
            if self.cfg.use_img_loss:
                out[f"loss_{self.loss_name}_img"] = self.image_loss(images, found, sample.t, as_latents)
            if with_eval:
                out.eval = self.evaluate(sample)
        return out

    def complete(self, out: GuidanceOutput, sample: Sample, found: Distilled, rng: StepRandom) -> None:
        """Add what else the answer should hold; nothing by default."""

    def image_loss(
        self, images: Float[Tensor, "B C H W"], found: Distilled, t: Int[Tensor, "B"], as_latents: bool
    ) -> Float[Tensor, ""]:
        """The distillation loss in pixels (or again in latents, where there are no pixels).

        What the picture is compared with is the guided model's; in VSD that of the model of the renderings
        takes the picture's place, which for a perfect autoencoder is the same as moving both by the noise.
        """
        with torch.no_grad():
            mine = images if found.x0_phi is None else self._decoded(found.x0_phi, as_latents)
            theirs = self._decoded(found.x0_hat, as_latents)
            grad = distillation.image_gradient(mine, theirs, self.weight(t), self.alpha_bar(t))
        return score.specified_gradient(images, self.limited(grad))

    def _decoded(self, latents: Tensor, as_latents: bool) -> Tensor:
        return latents if as_latents else self.denoiser.decode(latents)
