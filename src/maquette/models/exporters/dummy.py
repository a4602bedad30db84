"""An exporter for runs that shall export nothing."""

from maquette.core.registry import register
from maquette.models.exporters.base import BaseExporter, ExportItem


@register("dummy-exporter")
class DummyExporter(BaseExporter):
    """Exports nothing; the video of `save_video` is still made."""

    def __call__(self) -> list[ExportItem]:
        """No items."""
        return []
