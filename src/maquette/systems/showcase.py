"""The finished asset, looked at: what the exported file shows, not what the optimisation believed."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from maquette.core.errors import ConfigError
from maquette.io.images import write_image
from maquette.io.mesh import MESH_SUFFIXES, read_mesh, write_glb
from maquette.io.mesh_report import write_report
from maquette.io.video import write_video
from maquette.io.writing import whole_file
from maquette.kernels.render_mesh import orbit_batch, render_mesh, turntable
from maquette.ops.mesh import Mesh
from maquette.ops.shading import normal_to_color

BACKDROP = (0.66, 0.69, 0.74)
"""Behind the asset: a grey before which white parts and black ones both stand out."""


@dataclass(kw_only=True)
class ShowcaseConfig:
    """Pictures of the exported asset."""

    views: int = 8
    """Columns of the preview."""

    view_size: int = 192
    """Height and width of each of its cells, pixels."""

    frames: int = 40
    """Frames of the turntable."""

    frame_size: int = 256
    """Height and width of a frame, pixels."""

    fps: int = 24
    """Frames a second."""

    elevation_deg: float = 15.0
    """How far above the equator the camera stands."""

    fovy_deg: float = 35.0
    """Vertical field of view."""

    def __post_init__(self) -> None:
        if min(self.views, self.view_size, self.frames, self.frame_size, self.fps) < 1:
            raise ConfigError("system.showcase", "a number below 1", "whole numbers >= 1")


class Showcase:
    """Makes ``mesh.glb`` with its report, ``turntable.mp4`` and ``preview.png`` from exported files."""

    def __init__(self, cfg: ShowcaseConfig) -> None:
        self.cfg = cfg

    def make(self, exported: Sequence[Path], folder: Path, up: str = "z", units: str = "m") -> list[Path]:
        """The files, in ``folder``; none where no mesh was exported.

        Args:
            exported: files of the exporter; the first mesh counts.
            folder: where to.
            up: axis of that file that points up, where its format does not say so itself.
            units: of its coordinates, likewise.
        """
        source = next((path for path in exported if path.suffix in MESH_SUFFIXES), None)
        if source is None:
            return []
        asset = _as_glb(source, folder / "mesh.glb", up, units)
        mesh = read_mesh(asset)
        return [
            asset,
            self.turntable(mesh, folder / "turntable.mp4"),
            self.preview(mesh, folder / "preview.png"),
            write_report(mesh, asset),
        ]

    def turntable(self, mesh: Mesh, path: Path) -> Path:
        """A video of one turn around the vertical axis."""
        cfg = self.cfg
        frames = turntable(
            mesh, cfg.frames, cfg.frame_size, cfg.elevation_deg, fovy_deg=cfg.fovy_deg, background=BACKDROP
        )
        return write_video(path, frames, fps=cfg.fps)

    def preview(self, mesh: Mesh, path: Path) -> Path:
        """One sheet: a column a view, rows for colour, normal and opacity."""
        cfg = self.cfg
        azimuth = torch.arange(cfg.views) * (360.0 / cfg.views)
        batch = orbit_batch(mesh, azimuth, cfg.view_size, cfg.elevation_deg, fovy_deg=cfg.fovy_deg)
        shown = render_mesh(mesh, batch, shading="albedo", background=BACKDROP)
        opacity = shown["opacity"].expand(-1, -1, -1, 3)
        normal = normal_to_color(shown["normal"]) * opacity
        columns = torch.cat([shown["rgb"], normal, opacity], dim=1)
        return write_image(path, torch.cat(list(columns), dim=1))


def _as_glb(source: Path, target: Path, up: str, units: str) -> Path:
    if source.suffix == ".glb":
        with whole_file(target) as temporary:
            shutil.copyfile(source, temporary)
    else:
        write_glb(read_mesh(source, up=up, units=units), target)
    return target
