"""Everything a system writes, by the names this ecosystem knows; the work is done in ``io``."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor

from maquette.core.errors import ConfigError, MissingFileError, UserError
from maquette.core.loading import load_checkpoint
from maquette.core.optional import require
from maquette.io.data import write_json, write_npy, write_npz, write_safetensors
from maquette.io.images import read_image
from maquette.io.mesh import read_mesh, write_mesh, write_obj
from maquette.io.mesh_report import write_report
from maquette.io.splats import write_splats
from maquette.io.video import write_video
from maquette.io.writing import whole_file
from maquette.ops.gaussians import Gaussians
from maquette.ops.mesh import Mesh
from maquette.training.loggers.media import loggers_of, logging_of, show_mesh, show_video
from maquette.training.saving.mesh_parts import mesh_of, texture_maps
from maquette.training.saving.picture_files import PictureSaver

SEQUENCE_FORMATS = ("mp4", "gif")

_NOT_IN_NUMPY = (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)


class SaverMixin(PictureSaver):
    """Saves below one folder; every method takes a file name relative to it and returns the path written.

    Raises:
        UserError: the folder was not set, or cannot be written to.
        RunFailed: the disk is full, or a file does not read back as it was written.
    """

    _save_dir: Path | None = None

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
        """The path of a file; its folder is made.

        Raises:
            UserError: the folder cannot be made.
        """
        path = self.get_save_dir() / filename
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise UserError(f"The folder {path.parent} cannot be made: {err.strerror}.") from err
        return path

    def create_loggers(self, config: Mapping[str, Any]) -> None:
        """Check ``system.loggers``; what it enables is opened with the run, as one of ``training.loggers``.

        Raises:
            ConfigError: an unknown logger.
            MissingBackendError: its package is not installed.
        """
        for name, settings in config.items():
            if name != "wandb":
                raise ConfigError(
                    f"system.loggers.{name}", name, "wandb; csv and tensorboard: training.loggers"
                )
            if not isinstance(settings, Mapping):
                raise ConfigError("system.loggers.wandb", settings, "a block {enable, project, name}")
            if settings.get("enable", False):
                require("wandb", "wandb")

    @property
    def _wandb_logger(self) -> Any:
        """The run's logger of Weights & Biases, by the name that modules of this ecosystem use, or None."""
        return next((one for one in loggers_of(self) if isinstance(one, WandbLogger)), None)

    def get_loggers(self) -> list[Any]:
        """Lightning loggers that a system adds to those of its recipe; none."""
        return []

    def convert_data(self, data: Any) -> Any:
        """Tensors, also inside lists and mappings, as numpy arrays; anything else, None too, as it is."""
        if isinstance(data, Tensor):
            data = data.detach().cpu()
            return (data.float() if data.dtype in _NOT_IN_NUMPY else data).numpy()
        if isinstance(data, Mapping):
            return {key: self.convert_data(value) for key, value in data.items()}
        if isinstance(data, list | tuple):
            return [self.convert_data(value) for value in data]
        return data

    def save_data(self, filename: str | Path, data: Any) -> Path:
        """A mapping of arrays as ``.npz``, one array (or a list of numbers) as ``.npy``.

        Raises:
            UserError: something in it is no array of numbers or texts.
        """
        data = self.convert_data(data)
        named = isinstance(data, Mapping)
        path = _with_suffix(self.get_save_path(filename), ".npz" if named else ".npy")
        if not self.writes():
            return path
        if named:
            return write_npz(path, {str(name): _array(value) for name, value in data.items()})
        return write_npy(path, _array(data))

    def save_state_dict(self, filename: str | Path, data: Mapping[str, Any]) -> Path:
        """Tensors and plain values, to be read with ``weights_only=True``; ``.safetensors`` takes tensors.

        Raises:
            UserError: it holds something else, which nobody could load safely.
        """
        path = self.get_save_path(filename)
        if not self.writes():
            return path
        if path.suffix == ".safetensors":
            return write_safetensors(path, _tensors_only(data, path))
        with whole_file(path) as temporary:
            torch.save(dict(data), temporary)
            try:
                load_checkpoint(temporary, mapped=True)
            except UserError as err:
                raise UserError(
                    f"{path.name} was not saved: nobody could load it safely.",
                    hint="keep tensors, numbers, texts, lists and mappings in it",
                ) from err
        return path

    def save_json(self, filename: str | Path, payload: Any) -> Path:
        """Plain values and arrays as JSON."""
        path = self.get_save_path(filename)
        return write_json(path, payload) if self.writes() else path

    def save_file(self, filename: str | Path, src_path: str | Path) -> Path:
        """A copy of a file."""
        source = Path(src_path)
        if not source.is_file():
            raise MissingFileError(source, "file to save")
        path = self.get_save_path(filename)
        if self.writes():
            with whole_file(path) as temporary:
                shutil.copyfile(source, temporary)
        return path

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

        Raises:
            UserError: another format, a matcher without a number, or pictures of several sizes.
            MissingFileError: no picture matches.
        """
        if save_format not in SEQUENCE_FORMATS:
            raise UserError(f"A sequence is saved as {' or '.join(SEQUENCE_FORMATS)}, not {save_format}.")
        path = _with_suffix(self.get_save_path(filename), f".{save_format}")
        if not self.writes():
            return path
        frames = numbered_files(self.get_save_dir() / img_dir, matcher)
        written = write_video(path, (read_image(frame) for frame in frames), fps=fps)
        self.log_video(name, written, step, fps)
        return written

    def save_mesh(
        self,
        filename: str | Path,
        v_pos: Any,
        t_pos_idx: Any = None,
        v_tex: Any = None,
        t_tex_idx: Any = None,
        options: Mapping[str, Any] | None = None,
        **attributes: Any,
    ) -> Path:
        """A mesh in the format that the suffix names; either a :class:`Mesh`, or positions and faces.

        A report of what was written lies beside it, as ``NAME.report.json``.

        Args:
            filename: .glb, .obj, .ply, .stl, .usd, .usda, .usdc or .usdz.
            v_pos: the mesh, or its vertices (V, 3), world frame.
            t_pos_idx: faces (F, 3), unless a mesh is given.
            v_tex: texture coordinates (U, 2).
            t_tex_idx: the index of one for each corner of a face (F, 3).
            options: of the format, see :func:`maquette.io.mesh.write_mesh`.
            **attributes: further fields of :class:`Mesh`.

        Raises:
            UserError: arrays of other shapes, corners that do not exist, or another format.
        """
        path = self.get_save_path(filename)
        if not self.writes():
            return path
        given = (self.convert_data(one) for one in (t_pos_idx, v_tex, t_tex_idx))
        mesh = v_pos if isinstance(v_pos, Mesh) else mesh_of(self.convert_data(v_pos), *given, **attributes)
        options = options or {}
        path = write_mesh(mesh, path, **options)[0]
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
        map_Ks: Tensor | None = None,
        map_Bump: Tensor | None = None,
        map_Pm: Tensor | None = None,
        map_Pr: Tensor | None = None,
        map_format: str = "jpg",
    ) -> list[Path]:
        """An OBJ, with its material library and textures if ``save_mat``; all files, the OBJ first.

        A report of the mesh lies beside them, as ``NAME.report.json``. Maps are (H, W, C) in [0, 1]; those
        that are not given are the mesh's own.

        Args:
            filename: with or without ``.obj``.
            mesh: the mesh.
            save_mat: also write the material; it needs texture coordinates to hold maps.
            save_normal: also write smooth normals.
            save_uv: also write texture coordinates; a material brings them along.
            save_vertex_color: also write the colours of vertices.
            map_Kd: colours, display.
            map_Ks: colours of reflections.
            map_Bump: normals in tangent space.
            map_Pm: metalness.
            map_Pr: roughness.
            map_format: jpg or png.
        """
        path = _with_suffix(self.get_save_path(filename), ".obj")
        if not self.writes():
            return [path]
        maps = {
            "color": map_Kd,
            "specular": map_Ks,
            "bump": map_Bump,
            "metallic": map_Pm,
            "roughness": map_Pr,
        }
        texture = texture_maps(mesh, **maps) if save_mat else {}
        if texture and not mesh.has_uvs:
            raise UserError(f"The maps of {path.name} have no place: the mesh has no texture coordinates.")
        written = mesh.replace(
            texture=texture,
            uvs=mesh.uvs if save_uv or save_mat else None,
            uv_faces=mesh.uv_faces if save_uv or save_mat else None,
            vertex_colors=mesh.vertex_colors if save_vertex_color else None,
        )
        files = write_obj(
            written,
            path,
            material=save_mat,
            normals=save_normal,
            texture_format=map_format,
        )
        write_report(written, files[0])
        self.log_mesh(filename, written)
        return files

    def save_splats(self, filename: str | Path, gaussians: Gaussians) -> Path:
        """A cloud of Gaussians as ``.ply``, see :func:`maquette.io.splats.write_splats`."""
        path = self.get_save_path(filename)
        return write_splats(gaussians, path) if self.writes() else path

    def log_video(self, name: str | None, path: Path, step: int | None, fps: int = 30) -> None:
        """Show a video in the logs that can."""
        if name is not None and logging_of(self).pictures:
            show_video(loggers_of(self), name, path, step, fps)

    def log_mesh(self, filename: str | Path, mesh: Mesh) -> None:
        """Show a saved mesh in the logs that can, unless it is very large."""
        if logging_of(self).meshes and mesh.n_faces <= logging_of(self).max_faces:
            show_mesh(loggers_of(self), Path(filename).stem, mesh, getattr(self, "true_global_step", 0))


def numbered_files(folder: Path, matcher: str) -> list[Path]:
    """The files whose names match, in the order of the number that is the first group of ``matcher``.

    Raises:
        UserError: it is no regular expression, or its first group is no number.
        MissingFileError: no name matches.
    """
    try:
        pattern = re.compile(matcher)
    except re.error as err:
        raise UserError(f"{matcher!r} is no regular expression: {err}.") from err
    found = {path: match for path in folder.glob("*") if (match := pattern.search(path.name))}
    if not found:
        raise MissingFileError(folder, f"folder with pictures called like {matcher}")
    try:
        return sorted(found, key=lambda path: int(found[path][1]))
    except (IndexError, TypeError, ValueError) as err:
        raise UserError(
            f"The first group of {matcher!r} is to be the number of a frame.", hint=r"as in (\d+)\.png"
        ) from err


def _with_suffix(path: Path, suffix: str) -> Path:
    return path if path.suffix.lower() == suffix else path.with_name(path.name + suffix)


def _array(value: Any) -> np.ndarray[Any, Any]:
    """The value as an array of numbers or texts."""
    try:
        array = np.asarray(value)
    except ValueError as err:
        raise UserError("Rows of different lengths are no array.", [str(err)]) from err
    if array.dtype.hasobject:
        raise UserError(
            f"Arrays hold numbers and texts, not {type(value).__name__}.",
            hint="give every part of a nested mapping a name of its own, or save JSON",
        )
    return array


def _tensors_only(data: Mapping[str, Any], path: Path) -> Mapping[str, Tensor]:
    others = [name for name, value in data.items() if not isinstance(value, Tensor)]
    if others:
        raise UserError(
            f"{path.name} holds tensors only, not {', '.join(others)}.", hint="use .pth for those"
        )
    return data
