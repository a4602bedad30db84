"""DreamFusion (Poole et al. 2022): a representation under score distillation."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from maquette.systems.base import BaseLift3DSystem
from maquette.systems.guided import check_freq
from maquette.systems.shape_losses import SHAPE_LOSSES


class DreamFusion(BaseLift3DSystem):
    """Each step renders views, asks the guidance how they should change, and adds priors on the shape.

    A subclass changes what the guidance sees (`guidance_input`), which priors may be asked for
    (`shape_losses`), or the whole step.
    """

    shape_losses: ClassVar[Sequence[str]] = tuple(SHAPE_LOSSES)
    """Names of the priors that the system knows; each is used where its `lambda_NAME` is above zero."""

    @dataclass(kw_only=True)
    class Config(BaseLift3DSystem.Config):
        """The options of every system that lifts 2D to 3D."""

        freq: dict[str, Any] = field(default_factory=dict)
        """How often, in steps: ``guidance_eval``, sheets of what the guiding model sees (0 for none)."""

        def __post_init__(self) -> None:
            check_freq(self.freq)

    cfg: Config

    def forward(self, batch: Any) -> Any:
        """Render the views of a batch."""
        with self.timed("render"):
            return self.renderer(**batch)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """The weighted sum of the guidance's losses and the priors."""
        out = self(batch)
        self.opacity = out["opacity"].detach().mean()
        self.set_guidance_losses(batch, out)
        self.set_shape_losses(out)
        return {"loss": self.total_loss()}

    def guidance_input(self, out: Any) -> Tensor:
        """The pictures (B, H, W, C) that the guidance judges."""
        return out["comp_rgb"]

    def set_guidance_losses(self, batch: Any, out: Any) -> None:
        """Ask the guidance; each `loss_NAME` of its answer counts `lambda_NAME`, single numbers are logged.

        Raises:
            ConfigError: the recipe has no weight for a loss of the guidance.
        """
        self.ask_guidance(self.guidance_input(out), batch)

    def set_shape_losses(self, out: Any) -> None:
        """Add every prior of `shape_losses` whose weight is above zero at this step.

        Raises:
            ConfigError: a prior needs something that the renderer did not give.
        """
        for name in self.shape_losses:
            key = f"lambda_{name}"
            if key in self.loss_weights and self.loss_weight(name) > 0:
                self.set_loss(name, SHAPE_LOSSES[name].of(name, out, self.cfg.loss[key]))
