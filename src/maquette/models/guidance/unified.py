"""SDS and VSD in one guidance, in latents and in pixels, under the ecosystem's name and options."""

from dataclasses import dataclass
from typing import ClassVar

from maquette.core.errors import ConfigError
from maquette.core.random import StepRandom
from maquette.core.registry import register
from maquette.diffusion import score
from maquette.diffusion.lora import RANK
from maquette.models.guidance.base import KEY, GuidanceOutput, one_of
from maquette.models.guidance.rules import Distilled, Sample
from maquette.models.guidance.variational import (
    CAMERAS,
    Phi,
    VariationalGuidance,
    check_training,
)


@register("stable-diffusion-unified-guidance")
class StableDiffusionUnifiedGuidance(VariationalGuidance):
    """`loss_sd` moves the pictures, `loss_sd_img` does so in pixels, `loss_train_phi` trains the adapter.

    The answer also holds `latents`, `timesteps`, `lambdas` (sigma / alpha) and, where asked for, the model's
    pictures `rgb_1step_orig` and `rgb_multistep_orig` (B H W 3).
    """

    @dataclass(kw_only=True)
    class Config(VariationalGuidance.Config):
        """The models; what begins with `vsd_` is read only by guidance_type=vsd."""

        guidance_type: str = "sds"
        """sds or vsd."""
        weighting_strategy: str = "dreamfusion"
        """w(t): dreamfusion (1 - alpha_bar), uniform (1), or fantasia3d (sqrt(alpha_bar) (1 - alpha_bar))."""
        use_img_loss: bool = True
        """Whether there is also a loss in pixels (HiFA); costs decodings each step."""
        return_rgb_1step_orig: bool = False
        """Whether the answer holds the clean pictures that the guided prediction implies."""
        return_rgb_multistep_orig: bool = False
        """Whether the answer holds the pictures that some steps of denoising lead to."""
        n_rgb_multistep_orig_steps: int = 4
        """How many steps."""
        lora_model_name_or_path: str | None = None
        """One more adapter beside those of `lora`: a file, a folder or an id of the hub."""
        controlnet_model_name_or_path: str | None = None
        """Only null: there is a guidance for ControlNets."""
        preprocessor: str | None = None
        """Only null: it made control pictures."""
        control_scale: float = 1.0
        """Read only with a ControlNet."""
        vsd_phi_model_name_or_path: str | None = None
        """Model that the adapter is put on; null for the guiding one itself, which halves the memory."""
        vsd_guidance_scale_phi: float = 1.0
        """s of the adapted model."""
        vsd_use_lora: bool = True
        """Only true: no whole second model is trained here."""
        vsd_lora_rank: int = RANK
        """Rank of the adapter."""
        vsd_lora_cfg_training: bool = False
        """Whether the adapted model sometimes trains without its camera."""
        vsd_lora_n_timestamp_samples: int = 1
        """Noise levels on which the adapter trains, a picture and step."""
        vsd_use_camera_condition: bool = True
        """Whether the adapted model is told the camera."""
        vsd_camera_condition_type: str | None = "extrinsics"
        """How: extrinsics (camera to world), mvp (world to clip), or spherical (angles and distance)."""

        def __post_init__(self) -> None:
            if self.lora_model_name_or_path is not None and self.lora_model_name_or_path not in self.lora:
                self.lora = [*self.lora, self.lora_model_name_or_path]
            super().__post_init__()
            one_of("guidance_type", self.guidance_type, ("sds", "vsd"))
            if self.n_rgb_multistep_orig_steps < 1:
                steps = self.n_rgb_multistep_orig_steps
                raise ConfigError(f"{KEY}.n_rgb_multistep_orig_steps", steps, "an integer above 0")
            for name in ("controlnet_model_name_or_path", "preprocessor"):
                if getattr(self, name) is not None:
                    hint = "system.guidance_type=stable-diffusion-controlnet-guidance has a ControlNet"
                    raise ConfigError(f"{KEY}.{name}", getattr(self, name), "null", hint)
            if self.guidance_type == "vsd":
                self._check_vsd()

        def _check_vsd(self) -> None:
            if not self.vsd_use_lora:
                raise ConfigError(f"{KEY}.vsd_use_lora", False, "true: no whole second model is trained here")
            if self.vsd_use_camera_condition:
                one_of("vsd_camera_condition_type", str(self.vsd_camera_condition_type), tuple(CAMERAS))
            check_training(self, "vsd_lora_n_timestamp_samples", "vsd_lora_rank")

    loss_name: ClassVar[str] = "sd"
    adapter_loss_name: ClassVar[str] = "train_phi"

    def parse_phi(self) -> Phi | None:
        """The adapted model of VSD."""
        cfg = self.cfg
        if cfg.guidance_type == "sds":
            return None
        return Phi(
            model=cfg.vsd_phi_model_name_or_path,
            model_key="vsd_phi_model_name_or_path",
            rank=cfg.vsd_lora_rank,
            scale=cfg.vsd_guidance_scale_phi,
            camera=cfg.vsd_camera_condition_type if cfg.vsd_use_camera_condition else "none",
            levels=cfg.vsd_lora_n_timestamp_samples,
            forget_camera=cfg.vsd_lora_cfg_training,
        )

    def complete(self, out: GuidanceOutput, sample: Sample, found: Distilled, rng: StepRandom) -> None:
        """Add the loss of the adapter, the latents, the noise levels, and the model's pictures."""
        super().complete(out, sample, found, rng)
        alpha_bar = self.alpha_bar(sample.t)
        out["latents"], out["timesteps"] = sample.latents, sample.t
        out["lambdas"] = ((1 - alpha_bar) / alpha_bar).sqrt()
        if self.cfg.return_rgb_1step_orig:
            out["rgb_1step_orig"] = self._pictures(found.x0_hat)
        if self.cfg.return_rgb_multistep_orig:
            x_t = score.add_noise(sample.latents, sample.noise, alpha_bar)
            steps: int = self.cfg.n_rgb_multistep_orig_steps
            *_, (final, _) = self.descend(x_t, sample.t, sample.text, steps)
            out["rgb_multistep_orig"] = self._pictures(final)
