"""What every guidance has in common: its output, its noise levels, and its limits on the gradient."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from maquette.core.base import BaseObject
from maquette.core.errors import ConfigError
from maquette.core.output import MappingOutput
from maquette.core.random import RandomStreams, StepRandom
from maquette.core.schedule import Schedule
from maquette.diffusion.score import clean_gradient, sample_timesteps
from maquette.models.guidance.views import Views
from maquette.models.prompt_processors.base import PromptUtils

KEY = "system.guidance"


@dataclass(kw_only=True)
class GuidanceEval(MappingOutput):
    """What the model sees in the first few pictures; pictures (E, H, W, 3) in [0, 1] of the model's size."""

    timesteps: Int[Tensor, "E"]
    """The noise level of each picture."""
    texts: list[str]
    """The prompt of each picture, in the words of its view."""
    imgs_noisy: Float[Tensor, "E H W 3"]
    """The noised latents, decoded."""
    imgs_1step: Float[Tensor, "E H W 3"]
    """After one step of denoising."""
    imgs_1orig: Float[Tensor, "E H W 3"]
    """The clean picture implied by that step."""
    imgs_final: Float[Tensor, "E H W 3"]
    """Denoised to the end."""


@dataclass(kw_only=True)
class GuidanceOutput(MappingOutput):
    """One answer of a guidance; the system weighs each `loss_x` with the schedule `lambda_x`."""

    loss_sds: Float[Tensor, ""] | None = None
    """Its gradient with respect to the latents is the distillation gradient / B; its value is |gradient|^2 /
    (2 B)."""
    loss_sds_img: Float[Tensor, ""] | None = None
    """The same in pixels."""
    grad_norm: Float[Tensor, ""] | None = None
    """Norm of the gradient before NaN were replaced and clipping; not finite where the model was not."""
    timestep: Int[Tensor, "B"] | None = None
    """The noise level of each sample."""
    min_step: int = 0
    """Lowest noise level drawn from now."""
    max_step: int = 0
    """Highest noise level drawn from now, included."""
    eval: GuidanceEval | None = None
    """Only where it was asked for."""


class BaseGuidance(BaseObject):
    """A critic of pictures: sees pictures and camera angles, never geometry."""

    kind: ClassVar[str] = "guidance"

    @dataclass(kw_only=True)
    class Config(BaseObject.Config):
        """Noise levels and limits; the fields that are annotated Any take a number or a schedule."""

        min_step_percent: Any = 0.02
        """Lowest noise level, as a share of all levels."""
        max_step_percent: Any = 0.98
        """Highest noise level, as a share of all levels, included."""
        sqrt_anneal: bool = False
        """Instead of drawing, go from the highest to the lowest level with the square root of the step
        (HiFA)."""
        trainer_max_steps: int = 25000
        """The step at which `sqrt_anneal` arrives at the lowest level."""
        grad_clip: Any = None
        """Largest absolute value of an element of the gradient; none by default."""

        def __post_init__(self) -> None:
            for name in ("min_step_percent", "max_step_percent"):
                share = Schedule.parse(getattr(self, name), key=f"{KEY}.{name}")
                if min(share.values) < 0.0 or share.maximum > 1.0:
                    raise ConfigError(f"{KEY}.{name}", getattr(self, name), "values between 0 and 1")
            if self.trainer_max_steps < 1:
                raise ConfigError(
                    f"{KEY}.trainer_max_steps", self.trainer_max_steps, "a whole number above 0"
                )
            if (
                self.grad_clip is not None
                and min(Schedule.parse(self.grad_clip, key=f"{KEY}.grad_clip").values) <= 0
            ):
                raise ConfigError(f"{KEY}.grad_clip", self.grad_clip, "values above 0, or null")

    num_train_timesteps: int
    """Number of noise levels; set by `set_noise_levels`."""

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
        c2w: Float[Tensor, "B 4 4"] | None = None,
        mvp_mtx: Float[Tensor, "B 4 4"] | None = None,
        cond_rgb: Float[Tensor, "#B h w 3"] | None = None,
        source_rgb: Float[Tensor, "B H W C"] | None = None,
        source_utils: PromptUtils | None = None,
        **kwargs: Any,
    ) -> GuidanceOutput:
        """Judge B pictures; what is not explained here is a field of `Views`.

        Args:
            rgb: values in [0, 1], or latents.
            rng: the draws; without, those of seed 0 at this step.
            rgb_as_latents: whether `rgb` are latents.
            guidance_eval: whether the answer shall show what the model sees.
            kwargs: whatever else the caller knows; ignored.
        """
        views = Views(
            prompt_utils=prompt_utils,
            elevation=elevation,
            azimuth=azimuth,
            camera_distances=camera_distances,
            c2w=c2w,
            mvp_mtx=mvp_mtx,
            cond_rgb=cond_rgb,
            source_rgb=source_rgb,
            source_utils=source_utils,
        )
        if rng is None:
            rng = RandomStreams(0).at(self.step, range(len(rgb)))
        return self.guide(rgb, views, rng, rgb_as_latents, guidance_eval)

    @abstractmethod
    def guide(
        self, rgb: Float[Tensor, "B H W C"], views: Views, rng: StepRandom, as_latents: bool, with_eval: bool
    ) -> GuidanceOutput:
        """Judge B pictures with values in [0, 1], or latents, that show `views`."""

    def set_noise_levels(self, count: int) -> None:
        """Tell how many noise levels the model has; to be called when configured."""
        self.num_train_timesteps = count
        self._shares = (Schedule.parse(self.cfg.min_step_percent), Schedule.parse(self.cfg.max_step_percent))
        self._clip = None if self.cfg.grad_clip is None else Schedule.parse(self.cfg.grad_clip)
        self.update_step(0, 0)

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        """Follow the schedules of the noise levels and of the clipping."""
        self.step = global_step
        low, high = (self._level(share.at(step=global_step, epoch=epoch)) for share in self._shares)
        if self.cfg.sqrt_anneal:
            passed = math.sqrt(min(global_step / self.cfg.trainer_max_steps, 1.0))
            low = high = int(low + (high - low) * (1.0 - passed))
        self.min_step, self.max_step = min(low, high), high
        self.grad_clip_val = None if self._clip is None else self._clip.at(step=global_step, epoch=epoch)

    def timesteps(self, rng: StepRandom) -> Int[Tensor, "B"]:
        """A noise level for each sample, on the device of the guidance."""
        return sample_timesteps(rng, self.min_step, self.max_step).to(self.device)

    def limited(self, grad: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        """The gradient with NaN as zero, clipped as far as the schedule says now."""
        return clean_gradient(grad, self.grad_clip_val)

    def _level(self, share: float) -> int:
        return min(int(self.num_train_timesteps * share), self.num_train_timesteps - 1)


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value of an option that is none of the choices.

    Raises:
        ConfigError: it is none.
    """
    if value not in choices:
        raise ConfigError(f"{KEY}.{name}", value, f"one of {', '.join(choices)}")
