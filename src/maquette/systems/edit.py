"""A finished asset, changed by words: what they do not name stays."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from maquette.core.base import update_if_possible
from maquette.core.errors import ConfigError
from maquette.core.registry import find
from maquette.systems.conversion import Origin, load_part
from maquette.systems.dreamfusion import DreamFusion
from maquette.systems.gaussian_splatting import UNLIT
from maquette.training.optimization.optimizers import parse_optimizer, plain

SCENE = ("geometry", "material", "background", "renderer")
"""The parts that are taken from the asset's run, and that there are twice: edited, and as they were."""


class Edit(DreamFusion):
    """Each step renders the same views of the asset as it is and as it was, and asks an edit guidance how the
    one should differ from the other. Only geometry and material are trained; of the geometry only what gives
    the features where the shape is to be kept, which it then is exactly.
    """

    @dataclass(kw_only=True)
    class Config(DreamFusion.Config):
        """The parts, which are those of the asset's run, and what to change."""

        asset: str | None = None
        """The checkpoint to begin with, beside the recipe of its run."""

        source_prompt: str = ""
        """What the asset was made from, or what it shows."""

        keep_shape: bool = True
        """Whether only its looks may change."""

    cfg: Config

    def configure(self) -> None:
        """Build the parts; for training, also the asset as it was and its words."""
        super().configure()
        self.asset_step: Tensor
        self.register_buffer("asset_step", torch.zeros(2, dtype=torch.int64))
        if self.mode != "train":
            return
        self.original = nn.ModuleDict({name: self.build(name) for name in SCENE[:3]})
        self.original["renderer"] = self.build("renderer", **dict(self.original.items()))
        settings = {**self.cfg.prompt_processor, "prompt": self.cfg.source_prompt}
        self.source_processor = find(self.cfg.prompt_processor_type, "prompt-processor")(settings)
        self.source_utils: Any = None

    def build(self, part: str, **parts: Any) -> Any:
        """As everywhere; but clouds are exported with their own colours, as their own system does."""
        if part == "exporter" and hasattr(self.geometry, "evolve"):
            parts["material"] = find(UNLIT, "material")()
        return super().build(part, **parts)

    def post_configure(self) -> None:
        """Take the asset's weights, unless a checkpoint of this run follows, and freeze what stays.

        Raises:
            ConfigError: no asset was given, or its shape and its looks are the same weights.
            UserError: the weights are those of other parts.
        """
        if self.mode != "train":
            return
        if not self.resumed:
            if self.cfg.asset is None:
                raise ConfigError("system.asset", None, "RUN/ckpts/last.ckpt of a finished run")
            self._begin_with(Origin.read(self.cfg.asset))
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.startswith(tuple(self._trained())))

    def on_fit_start(self) -> None:
        """Read both prompts."""
        super().on_fit_start()
        self.source_utils = self.source_processor()

    def do_update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        """The asset goes on from its own last step, or stays at it with its shape; the rest counts from 0."""
        asset_epoch, asset_step = self.asset_step.tolist()
        gone = 0 if self.cfg.keep_shape else global_step
        for name in SCENE:
            getattr(self, name).do_update_step(asset_epoch, asset_step + gone, on_load_weights)
        if self.mode == "train":
            for part in self.original.values():
                part.do_update_step(asset_epoch, asset_step, on_load_weights)
            update_if_possible(self.guidance, epoch, global_step)

    def set_guidance_losses(self, batch: Any, out: Any) -> None:
        """The delta denoising score, and how far the asset has moved where the changed words are not."""
        with torch.no_grad():
            before = self.original["renderer"](**batch)
        found = self.ask_guidance(
            self.guidance_input(out),
            batch,
            source_rgb=self.guidance_input(before),
            source_utils=self.source_utils,
        )
        elsewhere = 1.0 - found.mask
        self.set_loss("keep", (elsewhere * (out.comp_rgb - before.comp_rgb).square()).mean())
        if not self.cfg.keep_shape:
            self.set_loss("keep_shape", (elsewhere * (out.opacity - before.opacity).square()).mean())
        self.log("train/mask", found.mask.mean())

    def configure_optimizers(self) -> dict[str, Any]:
        """The optimizer of the config; Gaussians have the rates with which their own training ended."""
        if not hasattr(self.geometry, "learning_rates"):
            return super().configure_optimizers()
        trained = [name for name, one in self.geometry.named_parameters() if one.requires_grad]
        rates = self.geometry.learning_rates(*self.asset_step.tolist())
        groups = {f"geometry.{name}": {"lr": rate} for name, rate in rates.items() if name in trained}
        return {"optimizer": parse_optimizer({**plain(self.cfg.optimizer), "params": groups}, self)}

    def _begin_with(self, origin: Origin) -> None:
        for name in SCENE:
            for part in (getattr(self, name), self.original[name]):
                load_part(part, origin.weights_of(name), origin.path)
        self.asset_step.copy_(torch.tensor([origin.epoch, origin.global_step]))
        self.do_update_step(0, 0, on_load_weights=True)

    def _trained(self) -> list[str]:
        """Beginnings of the names of the weights that change."""
        if not self.cfg.keep_shape:
            return ["geometry.", "material."]
        if not self.geometry.appearance:
            raise ConfigError(
                "system.keep_shape",
                True,
                f"false for {self.cfg.geometry_type}, whose weights give shape and looks together",
            )
        return ["material.", *(f"geometry.{name}" for name in self.geometry.appearance)]
