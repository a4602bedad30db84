"""The finished asset, looked at: what the exported file shows, not what the optimisation believed."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.io.images import write_image
from maquette.io.mesh import read_mesh, write_glb
from maquette.io.video import write_video
from maquette.kernels.render_mesh import render_mesh
from maquette.ops.camera_batch import CameraBatch, make_camera_batch
from maquette.ops.cameras import look_at, orbit_to_position
from maquette.ops.mesh import Mesh, bounding_box

MESH_SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl")


@dataclass(kw_only=True)
class ShowcaseConfig:
    """Pictures of the exported asset."""

    views: int = 8
    """Columns of the preview."""

    view_size: int = 192
    """Height and width of each of its cells, pixels."""

    frames: int = 48
    """Frames of the turntable."""

    frame_size: int = 320
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
    """Makes ``mesh.glb``, ``turntable.mp4`` and ``preview.png`` from exported files."""

    def __init__(self, cfg: ShowcaseConfig) -> None:
        self.cfg = cfg

    def make(self, exported: Sequence[Path], folder: Path) -> list[Path]:
        """The three files, in ``folder``; none where no mesh was exported."""
        source = next((path for path in exported if path.suffix in MESH_SUFFIXES), None)
        if source is None:
            return []
        asset = _as_glb(source, folder / "mesh.glb")
        mesh = read_mesh(asset)
        return [
            asset,
            self.turntable(mesh, folder / "turntable.mp4"),
            self.preview(mesh, folder / "preview.png"),
        ]

    def turntable(self, mesh: Mesh, path: Path) -> Path:
        """A video of one turn around the vertical axis."""
        frames = [
            render_mesh(mesh, self._camera(mesh, azimuth, self.cfg.frame_size), shading="lambert")["rgb"][0]
            for azimuth in _turn(self.cfg.frames)
        ]
        return write_video(path, torch.stack(frames), fps=self.cfg.fps)

    def preview(self, mesh: Mesh, path: Path) -> Path:
        """One sheet: a column a view, rows for colour, normal and opacity."""
        columns = [self._cells(mesh, azimuth) for azimuth in _turn(self.cfg.views)]
        return write_image(path, torch.cat(columns, dim=1))

    def _cells(self, mesh: Mesh, azimuth: float) -> Float[Tensor, "H W 3"]:
        shown = render_mesh(mesh, self._camera(mesh, azimuth, self.cfg.view_size), shading="albedo")
        opacity = shown["opacity"][0]
        normal = (shown["normal"][0] * 0.5 + 0.5) * opacity
        return torch.cat([shown["rgb"][0], normal, opacity.expand(-1, -1, 3)], dim=0)

    def _camera(self, mesh: Mesh, azimuth_deg: float, size: int) -> CameraBatch:
        """A camera that sees the whole mesh, whichever way it is turned."""
        low, high = bounding_box(mesh)
        fovy = torch.deg2rad(torch.tensor([self.cfg.fovy_deg]))
        distance = ((high - low).norm() / 2 / torch.sin(fovy / 2)).clamp(min=1e-3) * 1.05
        elevation, azimuth = torch.tensor([self.cfg.elevation_deg]), torch.tensor([azimuth_deg])
        center = ((low + high) / 2)[None]
        position = center + orbit_to_position(elevation, azimuth, distance)
        return make_camera_batch(
            look_at(position, center, torch.tensor([[0.0, 0.0, 1.0]])),
            fovy,
            size,
            size,
            light_positions=position,
            elevation=elevation,
            azimuth=azimuth,
            camera_distances=distance,
        )


def _turn(count: int) -> list[float]:
    return [360.0 * n / count for n in range(count)]


def _as_glb(source: Path, target: Path) -> Path:
    if source.suffix == ".glb":
        shutil.copyfile(source, target)
    else:
        write_glb(read_mesh(source), target)
    return target
