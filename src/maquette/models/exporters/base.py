"""What every exporter is."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from maquette.core.base import BaseObject
from maquette.models.geometry.base import BaseGeometry
from maquette.models.materials.base import BaseMaterial


@dataclass(kw_only=True)
class ExportItem:
    """One thing to be saved: the system calls `save_{save_type}(save_name, **params)`."""

    save_name: str
    """File name with its suffix."""
    save_type: str
    """Which of the saver's methods writes it: "mesh" or "obj"."""
    params: dict[str, Any] = field(default_factory=dict)
    """Its keyword arguments."""


class BaseExporter(BaseObject):
    """Turns a geometry and its material into a list of `ExportItem`; writing them is the saver's part."""

    kind: ClassVar[str] = "exporter"

    @dataclass(kw_only=True)
    class Config(BaseObject.Config):
        """Options that every exporter has."""

        save_video: bool = False
        """Also render the test views of the representation itself and save them as a video."""

    def configure(self, geometry: BaseGeometry, material: BaseMaterial, background: Any = None) -> None:
        """Keep what will be exported."""
        self.geometry = geometry
        self.material = material
        self.background = background

    def __call__(self) -> list[ExportItem]:
        """Everything to be saved, the main file first."""
        raise NotImplementedError
