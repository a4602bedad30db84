"""Magic3D (Lin et al. 2023): a coarse field first, then a mesh taken from it and refined in detail."""

from dataclasses import dataclass

from maquette.systems.dreamfusion import DreamFusion
from maquette.systems.shape_losses import MESH_LOSSES, VOLUME_LOSSES


class Magic3D(DreamFusion):
    """Score distillation in two runs (or two stages of one); the second begins with
    ``geometry_convert_from``.
    """

    @dataclass(kw_only=True)
    class Config(DreamFusion.Config):
        """The options of DreamFusion, and which of the two runs this is."""

        refinement: bool = False
        """Whether a mesh is refined, under priors of meshes; without, a field under priors of volumes."""

    cfg: Config

    def configure(self) -> None:
        """Choose the priors."""
        super().configure()
        self.shape_losses = MESH_LOSSES if self.cfg.refinement else VOLUME_LOSSES
