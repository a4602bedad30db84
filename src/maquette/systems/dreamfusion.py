"""DreamFusion (Poole et al. 2022): a radiance field under score distillation."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.ops import losses
from maquette.systems.base import BaseLift3DSystem


class DreamFusion(BaseLift3DSystem):
    """Each step renders views, asks the guidance how they should change, and adds priors on the shape."""

    @dataclass(kw_only=True)
    class Config(BaseLift3DSystem.Config):
        """The options of every system that lifts 2D to 3D."""

    cfg: Config

    def forward(self, batch: Any) -> Any:
        """Render the views of a batch."""
        return self.renderer(**batch)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """The weighted sum of the guidance's losses and the priors."""
        out = self(batch)
        self.opacity = out["opacity"].detach().mean()
        self._set_guidance_losses(batch, out)
        self._set_shape_losses(out)
        return {"loss": self.total_loss()}

    def _set_guidance_losses(self, batch: Any, out: Any) -> None:
        guided = self.guidance(out["comp_rgb"], self.prompt_utils, **batch, rgb_as_latents=False)
        for name, value in guided.items():
            if name.startswith("loss_"):
                self.set_loss(name.removeprefix("loss_"), value)
            elif isinstance(value, int | float) or (isinstance(value, Tensor) and value.numel() == 1):
                self.log(f"train/{name}", float(value))

    def _set_shape_losses(self, out: Any) -> None:
        if self.loss_weight("orient") > 0:
            if "normal" not in out:
                raise ConfigError(
                    "system.loss.lambda_orient",
                    self.cfg.loss["lambda_orient"],
                    "0.0, because this material asks for no normals, or the geometry gives none",
                    "material_type: diffuse-with-point-light-material, and a system.geometry.normal_type",
                )
            self.set_loss(
                "orient", losses.orient(out["weights"], out["normal"], out["t_dirs"], out["opacity"])
            )
        if self.loss_weight("sparsity") > 0:
            self.set_loss("sparsity", losses.sparsity(out["opacity"]))
        if self.loss_weight("opaque") > 0:
            self.set_loss("opaque", losses.opaque(out["opacity"]))
        if "lambda_z_variance" in self.loss_weights and self.loss_weight("z_variance") > 0:
            self.set_loss("z_variance", losses.z_variance(out["z_variance"], out["opacity"]))
