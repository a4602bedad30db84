"""From one representation to another: the geometry of a finished run as the start of a new one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import Tensor, nn

from maquette.core.base import BaseModule
from maquette.core.device import current_device
from maquette.core.errors import ConfigError, MissingFileError
from maquette.core.log import get_logger
from maquette.core.registry import find, registry
from maquette.models.geometry.base import BaseGeometry
from maquette.models.materials.base import BaseMaterial
from maquette.training.weights import averaged_state, check_fits, latest, run_checkpoint

log = get_logger(__name__)

KEY = "system.geometry_convert_from"
TAKEN_ALONG = ("material", "background")
"""What gives the colors beside the geometry."""


@dataclass(frozen=True)
class Origin:
    """A checkpoint of another run, with the system that wrote it, as far as a new run can begin with it."""

    path: Path
    """The checkpoint."""
    system: Mapping[str, Any]
    """The ``system:`` block of its run."""
    state: Mapping[str, Tensor]
    """Its weights; the running average where the run kept one."""
    epoch: int
    """That its parts have come to."""
    global_step: int
    """Likewise; an edit goes on from the last step of its asset."""

    @classmethod
    def read(cls, path: str) -> "Origin":
        """The run of a checkpoint ``RUN/ckpts/X.ckpt``; a folder that ends in ``@LAST`` is the newest one.

        Raises:
            MissingFileError: the checkpoint, or ``RUN/configs/parsed.yaml``, is not there.
            ConfigError: its recipe names no geometry.
        """
        checkpoint = latest(path)
        content = run_checkpoint(checkpoint)
        recipe = checkpoint.parent.parent / "configs" / "parsed.yaml"
        if not recipe.is_file():
            hint = "a checkpoint is converted with the recipe of its run: keep both in the run folder"
            raise MissingFileError(recipe, "recipe of the run to convert", hint)
        system = OmegaConf.to_container(OmegaConf.load(recipe), resolve=True).get("system") or {}
        if not system.get("geometry_type"):
            raise ConfigError(KEY, path, "a checkpoint of a run with a geometry")
        state = averaged_state(content)
        return cls(checkpoint, system, state, *_reached(content, state, system))

    def geometry(self, override: Mapping[str, Any] | None = None) -> BaseGeometry:
        """The geometry as it was left, on the current device; ``override`` changes its config."""
        settings = {**(self.system.get("geometry") or {}), **(override or {})}
        settings.pop("weights", None)  # the state replaces what they gave
        geometry = find(self.system["geometry_type"], "geometry")(settings)
        load_part(geometry, self.weights_of("geometry"), self.path)
        geometry.do_update_step(self.epoch, self.global_step, on_load_weights=True)
        return geometry.to(current_device())

    def material(self) -> BaseMaterial | None:
        """What gave the colors, as it was left; None where the run had none."""
        name = self.system.get("material_type")
        if not name:
            return None
        settings = {**(self.system.get("material") or {})}
        settings.pop("weights", None)
        material = find(name, "material")(settings)
        load_part(material, self.weights_of("material"), self.path)
        return material.to(current_device())

    def weights_of(self, part: str) -> dict[str, Tensor]:
        """The weights of one part of the system, by their names in it."""
        prefix = f"{part}."
        return {
            name.removeprefix(prefix): value for name, value in self.state.items() if name.startswith(prefix)
        }


def converted_geometry(
    origin: Origin,
    geometry_type: str,
    geometry: Mapping[str, Any],
    inherit_texture: bool = False,
    override: Mapping[str, Any] | None = None,
) -> BaseGeometry:
    """A new geometry of another (or the same) kind that starts as what ``origin`` left.

    Args:
        origin: the run to begin with.
        geometry_type: registered name of the new geometry.
        geometry: its config.
        inherit_texture: also take along what gives the features; a geometry that keeps colors is told the
            old material.
        override: changes to the config of the old geometry, its isosurface threshold, say.

    Raises:
        ConfigError: there is no such conversion; what there is is named.
    """
    target = find(geometry_type, "geometry")
    if not _can_start_from_another(target):
        raise ConfigError(
            KEY, str(origin.path), f"nothing: {geometry_type} starts from no other geometry", _possible()
        )
    old = origin.geometry(override)
    log.info(
        "%s starts as the %s of %s (step %d)",
        geometry_type,
        origin.system["geometry_type"],
        origin.path,
        origin.global_step,
    )
    colors = {"material": origin.material()} if inherit_texture else {}
    return target.create_from(old, dict(geometry), copy_net=inherit_texture, **colors)


def take_along(origin: Origin, parts: Mapping[str, tuple[str, nn.Module]]) -> list[str]:
    """Give the parts that are of the same kind as before the weights they had; returns their names.

    Args:
        origin: the run to begin with.
        parts: for "material" and "background", the registered name and the new module.
    """
    taken = []
    for part, (name, module) in parts.items():
        weights = origin.weights_of(part)
        own = {key: value.shape for key, value in module.state_dict().items()}
        same = own == {key: value.shape for key, value in weights.items()}
        if own and same and name == origin.system.get(f"{part}_type"):
            module.load_state_dict(weights)
            taken.append(part)
    return taken


def load_part(module: BaseModule, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load the weights of one part, all of them.

    Raises:
        UserError: some are missing, or have another shape.
    """
    check_fits(module, weights, path)
    module.load_state_dict(dict(weights), strict=False)


def _reached(
    content: Mapping[str, Any], state: Mapping[str, Tensor], system: Mapping[str, Any]
) -> tuple[int, int]:
    """Epoch and step of the parts of a run; an edit is at those of its asset, or goes on with its shape."""
    epoch, step = int(content.get("epoch", 0)), int(content.get("global_step", 0))
    if "asset_step" not in state:
        return epoch, step
    asset_epoch, asset_step = (int(one) for one in state["asset_step"].tolist())
    return asset_epoch, asset_step if system.get("keep_shape", True) else asset_step + step


def _can_start_from_another(geometry: Any) -> bool:
    own = getattr(geometry, "create_from", BaseGeometry.create_from)  # others register classes of their own
    return getattr(own, "__func__", own) is not BaseGeometry.create_from.__func__


def _possible() -> str:
    able = [name for name in registry.names("geometry") if _can_start_from_another(find(name, "geometry"))]
    return f"these start from another geometry: {', '.join(able)}"
