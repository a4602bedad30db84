"""Variational score distillation: a second model, trained along, says what the renderings look like now."""

from dataclasses import dataclass
from typing import ClassVar

from maquette.core.registry import register
from maquette.diffusion.lora import RANK
from maquette.models.guidance.base import one_of
from maquette.models.guidance.variational import CAMERAS, Phi, VariationalGuidance, check_training


@register("stable-diffusion-vsd-guidance")
class StableDiffusionVSDGuidance(VariationalGuidance):
    """VSD (ProlificDreamer, Wang et al. 2023): an adapter of the guiding model learns the renderings.

    `loss_vsd` moves the pictures, `loss_lora` trains the adapter; `lambda_vsd` and `lambda_lora` weigh them.
    """

    @dataclass(kw_only=True)
    class Config(VariationalGuidance.Config):
        """The two models."""

        guidance_scale: float = 7.5
        """s of the pretrained model."""
        pretrained_model_name_or_path_lora: str | None = None
        """Model that the adapter is put on; null for the guiding one itself, which halves the memory."""
        guidance_scale_lora: float = 1.0
        """s of the adapted model."""
        lora_rank: int = RANK
        """Rank of the adapter."""
        lora_cfg_training: bool = True
        """Whether the adapted model sometimes trains without its camera."""
        lora_n_timestamp_samples: int = 1
        """Noise levels on which the adapter trains, a picture and step."""
        camera_condition_type: str = "extrinsics"
        """What the adapted model is told: extrinsics (camera to world), mvp (world to clip), spherical
        (angles and distance), or none."""

        def __post_init__(self) -> None:
            super().__post_init__()
            one_of("camera_condition_type", self.camera_condition_type, tuple(CAMERAS))
            check_training(self, "lora_n_timestamp_samples", "lora_rank")

    loss_name: ClassVar[str] = "vsd"
    adapter_loss_name: ClassVar[str] = "lora"

    def parse_phi(self) -> Phi:
        """The adapted model."""
        return Phi(
            model=self.cfg.pretrained_model_name_or_path_lora,
            model_key="pretrained_model_name_or_path_lora",
            rank=self.cfg.lora_rank,
            scale=self.cfg.guidance_scale_lora,
            camera=self.cfg.camera_condition_type,
            levels=self.cfg.lora_n_timestamp_samples,
            forget_camera=self.cfg.lora_cfg_training,
        )
