"""TextMesh (Tsalicoglou et al. 2023): a signed distance under score distillation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from maquette.systems.dreamfusion import DreamFusion
from maquette.systems.shape_losses import VOLUME_LOSSES


class TextMesh(DreamFusion):
    """DreamFusion on a surface that starts as the shape its geometry names."""

    shape_losses: ClassVar[Sequence[str]] = VOLUME_LOSSES

    @dataclass(kw_only=True)
    class Config(DreamFusion.Config):
        """The options of DreamFusion."""

    cfg: Config

    def on_fit_start(self) -> None:
        """Shape the geometry, unless it is already something, and read the prompt."""
        if not self.resumed:
            self.initialize_shape()
        super().on_fit_start()

    def initialize_shape(self) -> None:
        """Fit the geometry to its `shape_init`; not where it was loaded or converted, unless
        `force_shape_init` asks for it.
        """
        begun = self.cfg.weights is not None or self.cfg.geometry_convert_from is not None
        forced = getattr(self.geometry.cfg, "force_shape_init", False)
        if hasattr(self.geometry, "initialize_shape") and (forced or not begun):
            self.geometry.initialize_shape(self.streams.seed)
