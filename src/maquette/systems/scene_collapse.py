"""An asset that has vanished, or fills the picture, will not come back: the run ends with its cause."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer

from maquette.core.errors import CollapseError
from maquette.training.callbacks.step_callback import StepCallback
from maquette.training.config import CollapseConfig


class SceneCollapse(StepCallback):
    """Reads the mean opacity that a system leaves in ``opacity`` after each step."""

    def __init__(self, cfg: CollapseConfig) -> None:
        self.cfg = cfg
        self._empty_since: int | None = None
        self._full_since: int | None = None

    def on_step_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look every so many steps.

        Raises:
            CollapseError: the picture was empty, or full, for too long.
        """
        opacity = getattr(pl_module, "opacity", None)
        if opacity is not None and self.step % self.cfg.every == 0:
            self.look(self.step, float(opacity))

    def state_dict(self) -> dict[str, Any]:
        """Since when the picture is empty, or full."""
        return {"empty_since": self._empty_since, "full_since": self._full_since}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._empty_since = state_dict.get("empty_since")
        self._full_since = state_dict.get("full_since")

    def look(self, step: int, opacity: float) -> None:
        """Judge the mean opacity of one step."""
        self._empty_since = _since(self._empty_since, step, opacity < self.cfg.empty_below)
        self._full_since = _since(self._full_since, step, opacity > self.cfg.full_above)
        if self._empty_since is not None and step - self._empty_since >= self.cfg.patience:
            raise CollapseError(
                f"the scene is empty since step {self._empty_since}",
                [f"mean opacity = {opacity:.2g}"],
                "lower system.loss.lambda_sparsity, begin with more (density_blob_scale of a volume, "
                "shape_init_params of a surface, both in system.geometry), or change the seed",
            )
        if self._full_since is not None and step - self._full_since >= self.cfg.patience:
            raise CollapseError(
                f"the scene fills every picture since step {self._full_since}",
                [f"mean opacity = {opacity:.3f}"],
                "raise system.loss.lambda_sparsity, begin with less (density_blob_scale of a volume, "
                "shape_init_params of a surface, both in system.geometry), or widen "
                "data.camera_distance_range",
            )


def _since(before: int | None, step: int, now: bool) -> int | None:
    if not now:
        return None
    return step if before is None else before
