"""Everything a system writes, by the names this ecosystem knows; the work is done in ``io``."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maquette.core.errors import ConfigError, MissingFileError, UserError
from maquette.core.optional import require
from maquette.core.paths import atomic_path
from maquette.io.data import write_json, write_npy, write_npz
from maquette.io.images import read_image
from maquette.io.mesh import read_mesh, write_mesh, write_obj
from maquette.io.mesh_report import write_report
from maquette.io.splats import write_splats
from maquette.io.textures import pack_metallic_roughness
from maquette.io.video import write_video
from maquette.ops.gaussians import Gaussians
from maquette.ops.mesh import Mesh
from maquette.training.loggers.media import loggers_of, logging_of, show_mesh, show_video
from maquette.training.picture_saving import PictureSaver

SEQUENCE_FORMATS = ("mp4", "gif")


class SaverMixin(PictureSaver):
    """Saves below one folder; every method takes a file name relative to it and returns the path written.

    Raises:
        UserError: the folder was not set, or cannot be written to.
        RunFailed: the disk is full, or a file does not read back as it was written.
    """

    _save_dir: Path | None = None
    _wandb: Any = None

    def set_save_dir(self, save_dir: str | Path) -> None:
        """Save below this folder from now on."""
        self._save_dir = Path(save_dir)

    def get_save_dir(self) -> Path:
        """The folder.

        Raises:
            UserError: it was not set.
        """
        if self._save_dir is None:
            raise UserError("Nothing can be saved before set_save_dir was called.")
        return self._save_dir

    def get_save_path(self, filename: str | Path) -> Path:
        """The path of a file; its folder is made."""
        path = self.get_save_dir() / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def create_loggers(self, config: Mapping[str, Any]) -> None:
        """Open the loggers of ``system.loggers`` that are enabled.

        Raises:
            ConfigError: an unknown logger.
            MissingBackendError: its package is not installed.
        """
        for name, settings in config.items():
            if name != "wandb":
                raise ConfigError(
                    f"system.loggers.{name}", name, "wandb; csv and tensorboard: training.loggers"
                )
            if settings.get("enable", False):
                require("wandb", "wandb")
                from lightning.pytorch.loggers import WandbLogger

                self._wandb = WandbLogger(project=settings.get("project"), name=settings.get("name"))

    def get_loggers(self) -> list[Any]:
        """The Lightning loggers that :meth:`create_loggers` opened."""
        return [] if self._wandb is None else [self._wandb]

    def convert_data(self, data: Any) -> Any:
        """Tensors, also inside lists and mappings, as numpy arrays."""
        if isinstance(data, Tensor):
            return data.detach().cpu().numpy()
        if isinstance(data, Mapping):
            return {key: self.convert_data(value) for key, value in data.items()}
        if isinstance(data, list | tuple):
            return [self.convert_data(value) for value in data]
        return data

    def save_data(self, filename: str | Path, data: Any) -> Path:
        """A mapping of arrays as ``.npz``, one array as ``.npy``."""
        data = self.convert_data(data)
        suffix, write = (".npz", write_npz) if isinstance(data, Mapping) else (".npy", write_npy)
        path = self.get_save_path(filename)
        return write(path if path.suffix == suffix else path.with_name(path.name + suffix), data)

    def save_state_dict(self, filename: str | Path, data: Mapping[str, Any]) -> Path:
        """Tensors and plain values, to be read with ``weights_only=True``."""
        path = self.get_save_path(filename)
        with atomic_path(path) as temporary:
            torch.save(dict(data), temporary)
        return path

    def save_json(self, filename: str | Path, payload: Any) -> Path:
        """Plain values and arrays as JSON."""
        return write_json(self.get_save_path(filename), payload)

    def save_file(self, filename: str | Path, src_path: str | Path) -> Path:
        """A copy of a file."""
        source = Path(src_path)
        if not source.is_file():
            raise MissingFileError(source, "file to save")
        with atomic_path(self.get_save_path(filename)) as temporary:
            shutil.copyfile(source, temporary)
        return self.get_save_path(filename)

    def save_img_sequence(
        self,
        filename: str | Path,
        img_dir: str | Path,
        matcher: str,
        save_format: str = "mp4",
        fps: int = 30,
        name: str | None = None,
        step: int | None = None,
    ) -> Path:
        """A video of the pictures in ``img_dir`` (relative to the save folder) whose names match.

        Args:
            filename: without suffix, or with that of ``save_format``.
            img_dir: folder of the frames.
            matcher: regular expression whose first group is the number of the frame.
            save_format: mp4 or gif.
            fps: frames a second.
            name: title in the logs.
            step: step in the logs.
        """
        if save_format not in SEQUENCE_FORMATS:
            raise UserError(f"A sequence is saved as {' or '.join(SEQUENCE_FORMATS)}, not {save_format}.")
        frames = self._frames(self.get_save_dir() / img_dir, matcher)
        path = self.get_save_path(filename)
        path = path if path.suffix == f".{save_format}" else path.with_name(f"{path.name}.{save_format}")
        written = write_video(path, (read_image(frame) for frame in frames), fps=fps)
        self.log_video(name, written, step, fps)
        return written

    def save_mesh(
        self,
        filename: str | Path,
        v_pos: Tensor | Mesh,
        t_pos_idx: Tensor | None = None,
        options: Mapping[str, Any] | None = None,
        **attributes: Any,
    ) -> Path:
        """A mesh in the format that the suffix names; either a :class:`Mesh`, or positions and faces.

        A report of what was written lies beside it, as ``NAME.report.json``.

        Args:
            filename: .glb, .obj, .ply, .stl, .usd, .usda, .usdc or .usdz.
            v_pos: the mesh, or its vertices (V, 3), world frame.
            t_pos_idx: faces (F, 3), unless a mesh is given.
            options: of the format, see :func:`maquette.io.mesh.write_mesh`.
            **attributes: further fields of :class:`Mesh`.
        """
        if isinstance(v_pos, Mesh):
            mesh = v_pos
        else:
            vertices = torch.as_tensor(np.asarray(self.convert_data(v_pos)), dtype=torch.float32)
            faces = torch.as_tensor(np.asarray(self.convert_data(t_pos_idx)), dtype=torch.int64)
            mesh = Mesh(vertices, faces, **attributes)
        options = options or {}
        path = write_mesh(mesh, self.get_save_path(filename), **options)[0]
        # an STL is closed before it is written, where that is asked for
        if path.suffix == ".stl":
            mesh = read_mesh(path, up=options.get("up"), units=options.get("units"))
        write_report(mesh, path)
        self.log_mesh(filename, mesh)
        return path

    def save_obj(
        self,
        filename: str | Path,
        mesh: Mesh,
        save_mat: bool = False,
        save_normal: bool = False,
        save_uv: bool = False,
        save_vertex_color: bool = False,
        map_Kd: Tensor | None = None,
        map_Bump: Tensor | None = None,
        map_Pm: Tensor | None = None,
        map_Pr: Tensor | None = None,
        map_format: str = "jpg",
    ) -> list[Path]:
        """An OBJ, with its material library and textures if ``save_mat``; all files, the OBJ first.

        A report of the mesh lies beside them, as ``NAME.report.json``.
        """
        texture = texture_maps(mesh, map_Kd, map_Bump, map_Pm, map_Pr) if save_mat else {}
        written = mesh.replace(
            texture=texture,
            uvs=mesh.uvs if save_uv or save_mat else None,
            uv_faces=mesh.uv_faces if save_uv or save_mat else None,
            vertex_colors=mesh.vertex_colors if save_vertex_color else None,
        )
        files = write_obj(
            written,
            self.get_save_path(filename),
            material=save_mat,
            normals=save_normal,
            texture_format=map_format,
        )
        write_report(written, files[0])
        self.log_mesh(filename, written)
        return files

    def save_splats(self, filename: str | Path, gaussians: Gaussians) -> Path:
        """A cloud of Gaussians as ``.ply``, see :func:`maquette.io.splats.write_splats`."""
        return write_splats(gaussians, self.get_save_path(filename))

    def log_video(self, name: str | None, path: Path, step: int | None, fps: int = 30) -> None:
        """Show a video in the logs that can."""
        if name is not None and logging_of(self).pictures:
            show_video(loggers_of(self), name, path, step, fps)

    def log_mesh(self, filename: str | Path, mesh: Mesh) -> None:
        """Show a saved mesh in the logs that can, unless it is very large."""
        if logging_of(self).meshes and mesh.n_faces <= logging_of(self).max_faces:
            show_mesh(loggers_of(self), Path(filename).stem, mesh, getattr(self, "true_global_step", 0))

    def _frames(self, folder: Path, matcher: str) -> list[Path]:
        pattern = re.compile(matcher)
        found = {path: match for path in folder.glob("*") if (match := pattern.search(path.name))}
        if not found:
            raise MissingFileError(folder, f"folder with pictures called like {matcher}")
        return sorted(found, key=lambda path: int(found[path].groups()[0]))


def texture_maps(
    mesh: Mesh,
    color: Tensor | None = None,
    bump: Tensor | None = None,
    metallic: Tensor | None = None,
    roughness: Tensor | None = None,
) -> dict[str, Tensor]:
    """The mesh's textures and the given ones, packed as glTF does (green roughness, blue metallic)."""
    maps = dict(mesh.texture)
    if color is not None:
        maps["base_color"] = color
    if bump is not None:
        maps["normal"] = bump
    if metallic is not None or roughness is not None:
        metal, rough = (
            None if one is None else one.reshape(*one.shape[:2], -1)[..., :1] for one in (metallic, roughness)
        )
        maps["metallic_roughness"] = pack_metallic_roughness(metal, rough)
    return maps
