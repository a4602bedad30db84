"""ProlificDreamer (Wang et al. 2023): a field, its shape, its texture, under variational distillation."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.systems.dreamfusion import DreamFusion
from maquette.systems.shape_losses import MESH_LOSSES, VOLUME_LOSSES

STAGES = {"coarse": VOLUME_LOSSES, "geometry": MESH_LOSSES, "texture": ()}
"""Stage to the priors that may be asked for."""


class ProlificDreamer(DreamFusion):
    """One of the three stages; each later one begins with ``geometry_convert_from``."""

    @dataclass(kw_only=True)
    class Config(DreamFusion.Config):
        """The options of DreamFusion, and which of the stages this is."""

        stage: str = "coarse"
        """coarse (a field), geometry (a mesh judged by its normals) or texture (a fixed mesh)."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.stage not in STAGES:
                raise ConfigError("system.stage", self.stage, f"one of: {', '.join(STAGES)}")

    cfg: Config

    def configure(self) -> None:
        """Choose the priors."""
        super().configure()
        self.shape_losses = STAGES[self.cfg.stage]

    def forward(self, batch: Any) -> Any:
        """Render the views of a batch; the geometry stage needs no colours."""
        if self.cfg.stage == "geometry":
            return self.renderer(**batch, render_rgb=False)
        return super().forward(batch)

    def guidance_input(self, out: Any) -> Tensor:
        """The normals in the geometry stage, the picture in the others."""
        return out["comp_normal"] if self.cfg.stage == "geometry" else out["comp_rgb"]
