"""The system of an asset: geometry, material, background, renderer, guidance and exporter put together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch import Callback
from omegaconf import OmegaConf

from maquette.core.errors import ConfigError, asked_for_by
from maquette.core.log import get_logger
from maquette.core.registry import find
from maquette.models.networks.init import init_parameters
from maquette.systems.conversion import TAKEN_ALONG, Origin, converted_geometry, take_along
from maquette.systems.guided import Guided
from maquette.systems.scene_collapse import SceneCollapse
from maquette.systems.showcase import Showcase, ShowcaseConfig
from maquette.training.base_system import BaseSystem

log = get_logger(__name__)


class BaseLift3DSystem(Guided, BaseSystem):
    """A 3D representation lifted from what a 2D model knows.

    All parts are built in ``configure``, so that the optimizer and the device moves reach every one of
    them; the exporter is built when something is exported.
    """

    @dataclass(kw_only=True)
    class Config(BaseSystem.Config):
        """The parts, each as a registered name and its config."""

        geometry_type: str = ""
        """Registered name of the geometry."""

        geometry: dict[str, Any] = field(default_factory=dict)
        """Its config."""

        geometry_convert_from: str | None = None
        """A checkpoint whose geometry is converted into this one and begun with; it needs the recipe of its
        run beside it, and counts only when the run is neither resumed nor given ``weights``. A run folder
        ``tag@LAST`` is the newest of its tag."""

        geometry_convert_inherit_texture: bool = False
        """Whether the colors are taken along: what gives the features, and material and background where they
        are of the same kind."""

        geometry_convert_override: dict[str, Any] = field(default_factory=dict)
        """Changes to the config of the geometry that is converted, such as ``isosurface_threshold``."""

        material_type: str = ""
        """Registered name of the material."""

        material: dict[str, Any] = field(default_factory=dict)
        """Its config."""

        background_type: str = ""
        """Registered name of the background."""

        background: dict[str, Any] = field(default_factory=dict)
        """Its config."""

        renderer_type: str = ""
        """Registered name of the renderer."""

        renderer: dict[str, Any] = field(default_factory=dict)
        """Its config."""

        guidance_type: str = ""
        """Registered name of the guidance."""

        guidance: dict[str, Any] = field(default_factory=dict)
        """Its config."""

        prompt_processor_type: str = ""
        """Registered name of the prompt processor."""

        prompt_processor: dict[str, Any] = field(default_factory=dict)
        """Its config."""

        exporter_type: str = "mesh-exporter"
        """Registered name of the exporter."""

        exporter: dict[str, Any] = field(default_factory=dict)
        """Its config."""

        showcase: ShowcaseConfig = field(default_factory=ShowcaseConfig)
        """The pictures and the video made of the finished asset."""

    cfg: Config

    skips_parameters: ClassVar[bool] = True
    """A background that is drawn at random is not computed; a proposal learns from a loss of its own."""

    def configure(self) -> None:
        """Build everything but the exporter, in the order in which the parts need each other."""
        origin = self._origin()
        self.geometry = self._converted(origin) if origin else self.build("geometry")
        self.material = self.build("material")
        self.background = self.build("background")
        self.renderer = self.build(
            "renderer", geometry=self.geometry, material=self.material, background=self.background
        )
        training = self.mode == "train"
        self.guidance = self.build("guidance") if training and self.cfg.guidance_type else None
        self.prompt_processor = (
            self.build("prompt_processor") if training and self.cfg.prompt_processor_type else None
        )
        self._init_parameters(origin)
        self.add_updateable(self.guidance, self.prompt_processor)
        self.prompt_utils: Any = None
        self.exported: list[Path] = []

    def build(self, part: str, **parts: Any) -> Any:
        """The part that ``{part}_type`` and ``{part}`` of the config describe.

        Raises:
            ConfigError: ``{part}_type`` is empty.
            UnknownNameError: no such name is registered for this kind.
        """
        name = self.cfg[f"{part}_type"]
        if not name:
            raise ConfigError(
                f"system.{part}_type", name, f"the registered name of a {part.replace('_', ' ')}"
            )
        with asked_for_by(f"system.{part}_type"):
            make = find(name, part.replace("_", "-"))
        with asked_for_by(f"system.{part}_type", unless=f"system.{part}."):
            return make(self.cfg[part], **parts)

    def configure_callbacks(self) -> Sequence[Callback]:
        """Watch the scene for collapse; the thresholds come from the engine's settings."""
        return [SceneCollapse(self.engine.collapse)] if self.engine.collapse.enabled else []

    def on_fit_start(self) -> None:
        """Read the prompt."""
        self.prepare_prompt()

    def prepare_prompt(self) -> None:
        """Encode the prompt, once."""
        if self.prompt_utils is None and self.prompt_processor is not None:
            self.prompt_utils = self.prompt_processor()

    # evaluation ---------------------------------------------------------------------------------------------

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Save one row [colour | normal | opacity]."""
        self.save_views(
            f"it{self.true_global_step}-{int(batch['index'][0])}.png", self(batch), "validation_step"
        )

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Save one frame of the turntable."""
        self.save_views(
            f"it{self.true_global_step}-test/{int(batch['index'][0])}.png", self(batch), "test_step"
        )

    def on_test_epoch_end(self) -> None:
        """Make the frames a video."""
        step = self.true_global_step
        self.save_img_sequence(
            f"it{step}-test",
            f"it{step}-test",
            r"(\d+)\.png",
            save_format="mp4",
            fps=30,
            name="test",
            step=step,
        )

    def save_views(self, filename: str, out: Any, name: str) -> Path:
        """One row [colour | normal | opacity] of the first picture of a batch; absent ones are left out."""
        kwargs = {"data_format": "HWC"}
        cells = [{"type": "rgb", "img": out["comp_rgb"][0], "kwargs": kwargs}] if "comp_rgb" in out else []
        if "comp_normal" in out:
            cells.append(
                {"type": "rgb", "img": out["comp_normal"][0], "kwargs": {**kwargs, "data_range": (0, 1)}}
            )
        cells.append(
            {
                "type": "grayscale",
                "img": out["opacity"][0, :, :, 0],
                "kwargs": {"data_range": (0, 1), "cmap": None},
            }
        )
        return self.save_image_grid(filename, cells, name=name, step=self.true_global_step)

    # export -------------------------------------------------------------------------------------------------

    def on_predict_start(self) -> None:
        """Build the exporter."""
        self.exporter = self.build(
            "exporter", geometry=self.geometry, material=self.material, background=self.background
        )

    def predict_step(self, batch: Any, batch_idx: int) -> None:
        """Render the view if the exporter wants a video of the model."""
        if self.exporter.cfg.save_video:
            self.test_step(batch, batch_idx)

    def on_predict_epoch_end(self) -> None:
        """Write what the exporter gives, each file read back before it counts."""
        if self.exporter.cfg.save_video:
            self.on_test_epoch_end()
        self.exported = []
        for item in self.exporter():
            save = getattr(self, f"save_{item.save_type}")
            saved = save(f"it{self.true_global_step}-export/{item.save_name}", **item.params)
            self.exported += saved if isinstance(saved, list) else [saved]

    def finish(self, folder: Path) -> list[Path]:
        """The asset as ``mesh.glb`` with its report, ``turntable.mp4`` and ``preview.png``."""
        written = self.exporter.cfg if self.exported else {}
        up, units = written.get("up_axis", "z"), written.get("units", "m")
        return Showcase(OmegaConf.to_object(self.cfg.showcase)).make(self.exported, folder, up, units)

    @classmethod
    def following(cls, cfg: Mapping[str, Any], checkpoint: Path) -> dict[str, Any]:
        """A stage begins with the geometry of the one before, unless the recipe says with what."""
        given = cfg.get("geometry_convert_from") or cfg.get("weights")
        return {} if given else {"geometry_convert_from": str(checkpoint)}

    # conversion ---------------------------------------------------------------------------------------------

    def _origin(self) -> Origin | None:
        """What the geometry is converted from, if it is."""
        path = self.cfg.geometry_convert_from
        if not path or self.cfg.weights is not None or self.resumed:
            return None
        with asked_for_by("system.geometry_convert_from"):
            return Origin.read(path)

    def _converted(self, origin: Origin) -> Any:
        cfg = self.cfg
        if not cfg.geometry_type:
            return self.build("geometry")
        return converted_geometry(
            origin,
            cfg.geometry_type,
            OmegaConf.to_container(cfg.geometry, resolve=True),
            cfg.geometry_convert_inherit_texture,
            OmegaConf.to_container(cfg.geometry_convert_override, resolve=True),
        )

    def _init_parameters(self, origin: Origin | None) -> None:
        """Draw what is not taken from elsewhere, each parameter by its name."""
        if origin is None:
            init_parameters(self, self.streams.seed)
            return
        self._mark_taken("geometry")
        for name, part in self.named_children():
            if name != "geometry":
                init_parameters(part, self.streams.seed, name)
        if self.cfg.geometry_convert_inherit_texture:
            parts = {part: (self.cfg[f"{part}_type"], getattr(self, part)) for part in TAKEN_ALONG}
            taken = take_along(origin, parts)
            self._mark_taken(*taken)
            log.info("taken along besides: %s", ", ".join(taken) or "nothing")

    def _mark_taken(self, *parts: str) -> None:
        """Remember that the parameters of parts have their values from elsewhere."""
        self.taken |= {
            f"{part}.{name}" for part in parts for name, _ in getattr(self, part).named_parameters()
        }
