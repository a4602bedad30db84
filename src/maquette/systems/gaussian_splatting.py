"""Text to 3D with Gaussian splatting (Chen et al. 2023, GSGEN; Tang et al. 2023, DreamGaussian)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from maquette.core.errors import ConfigError
from maquette.core.processes import check_alone
from maquette.core.registry import find
from maquette.ops import losses
from maquette.ops.gaussians import Gaussians
from maquette.systems.dreamfusion import DreamFusion
from maquette.training.callbacks.ema import EMA
from maquette.training.optimization.optimizers import parse_optimizer, plain

UNLIT = "no-material"
"""The material that exports the colours of Gaussians as they are."""
DEFAULT_OPTIMIZER = {"name": "Adam", "args": {"lr": 0.001, "eps": 1e-15}}
CLOUD_LOSSES: Mapping[str, Callable[[Gaussians], Tensor]] = {
    "position": lambda cloud: cloud.means.norm(dim=-1).mean(),
    "opacity": lambda cloud: (cloud.scales.detach().norm(dim=-1) * cloud.opacities).sum(),
    "scales": lambda cloud: cloud.scales.sum(),
}
"""Priors on the Gaussians themselves: near the origin, transparent (the large ones first), small."""


class GaussianSplattingSystem(DreamFusion):
    """The steps of `dreamfusion-system` on a cloud of Gaussians, which changes after each of them.

    One optimizer has a group for each parameter of the Gaussians, with the learning rate that the geometry
    gives for the step, and the groups of `optimizer.params` (or else every other trained part) with theirs.
    When rows come and go, the optimizer's moments and the average of the weights follow.
    """

    shape_losses: Sequence[str] = ("sparsity", "opaque")

    @dataclass(kw_only=True)
    class Config(DreamFusion.Config):
        """The options of every system that lifts 2D to 3D."""

        visualize_samples: bool = False
        """Read from older recipes and ignored: samples of the diffusion model are not shown."""

    cfg: Config

    def configure(self) -> None:
        """Build the parts.

        Raises:
            ConfigError: the geometry is no cloud of Gaussians, or there are several processes, whose copies
                of it would change differently.
        """
        if self.mode == "train":
            check_alone("a cloud that grows is held by one process")
        super().configure()
        if not hasattr(self.geometry, "evolve"):
            raise ConfigError("system.geometry_type", self.cfg.geometry_type, "gaussian-splatting")
        self._screen: tuple[Tensor, Tensor, int, int] | None = None

    def build(self, part: str, **parts: Any) -> Any:
        """As everywhere; but what is exported are the colours of the Gaussians, unchanged by any light."""
        if part == "exporter":
            parts["material"] = find(UNLIT, "material")()
        return super().build(part, **parts)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """The weighted sum of the guidance's losses and the priors; the screen is remembered."""
        step = super().training_step(batch, batch_idx)
        self.log("train/gaussians", float(self.geometry.n))
        return step

    def set_shape_losses(self, out: Any) -> None:
        """Add the priors on pictures and on the Gaussians that have a weight above zero."""
        if self.geometry.observes(self.true_global_step):
            points = out["viewspace_points"]
            self._screen = (points, out["radii"], *out["comp_rgb"].shape[1:3])
        super().set_shape_losses(out)
        gaussians = None
        for name, loss in CLOUD_LOSSES.items():
            if self._weighs(name):
                gaussians = gaussians or self.geometry.gaussians()
                self.set_loss(name, loss(gaussians))
        if self._weighs("tv_loss"):
            self.set_loss("tv_loss", losses.total_variation(out["comp_rgb"]))
        if self._weighs("depth_tv_loss"):
            shapes = [out[key] for key in ("depth", "comp_normal") if key in out]
            self.set_loss("depth_tv_loss", sum(losses.total_variation(one) for one in shapes))

    def on_after_backward(self) -> None:
        """Tell the geometry what the screen showed."""
        if self._screen is not None:
            points, radii, height, width = self._screen
            self._screen = None
            if points.grad is not None:
                self.geometry.observe(points.grad, radii, height, width)

    def configure_optimizers(self) -> dict[str, Any]:
        """One optimizer for the Gaussians and everything else; the scheduler moves only the others' rates."""
        config = plain(self.cfg.optimizer) or DEFAULT_OPTIMIZER
        return self.with_scheduler(parse_optimizer({**config, "params": self._groups(config)}, self))

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Any,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Set the rates of this step, make it, and let the Gaussians change."""
        inner = getattr(optimizer, "optimizer", optimizer)
        now, step = self.true_current_epoch, self.true_global_step
        rates = {f"geometry.{name}": rate for name, rate in self.geometry.learning_rates(now, step).items()}
        for group in inner.param_groups:
            group["lr"] = rates.get(group.get("name"), group["lr"])
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        change = self.geometry.evolve(now, step, self.streams.at(step, [0]))
        if change is not None:
            self._follow(inner, change)

    def _weighs(self, name: str) -> bool:
        return f"lambda_{name}" in self.loss_weights and self.loss_weight(name) > 0

    def _groups(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Options of each group, by the path of its parameters."""
        rates = self.geometry.learning_rates(0, 0)
        groups: dict[str, Any] = {f"geometry.{name}": {"lr": rate} for name, rate in rates.items()}
        given = config.get("params")
        if given:
            return groups | {path: options for path, options in given.items() if path != "geometry"}
        others = {name: part for name, part in self.named_children() if name != "geometry"}
        trained = [name for name, part in others.items() if any(p.requires_grad for p in part.parameters())]
        return groups | {name: {} for name in trained}

    def _follow(self, optimizer: Optimizer, change: Any) -> None:
        """Give the optimizer's moments and the average of the weights the rows that there are now."""
        averages = [one.weights for one in self.trainer.callbacks if isinstance(one, EMA) and one.weights]
        for name, parameter in self.geometry.row_parameters.items():
            forget = torch.ones_like(change.fresh) if name in change.reset else change.fresh
            follow_rows(optimizer, parameter, change.source, forget)
            for average in averages:
                average.follow(f"geometry.{name}", parameter, change.source, change.fresh)


def follow_rows(optimizer: Optimizer, parameter: Tensor, source: Tensor, fresh: Tensor) -> None:
    """Let what an optimizer remembers of a parameter follow its rows; fresh ones begin with zero."""
    state = optimizer.state.get(parameter, {})
    for name, value in state.items():
        if isinstance(value, Tensor) and value.ndim > 0:
            moved = value[source]
            moved[fresh] = 0.0
            state[name] = moved
