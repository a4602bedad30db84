"""A mesh that is given and stays; only the features on it are learned."""

import logging
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from maquette.core.errors import ConfigError, UserError
from maquette.core.registry import register
from maquette.models.geometry.base import BaseGeometry
from maquette.models.geometry.features import FeaturedSurface, surface_of
from maquette.models.geometry.shape_init import MESH_PREFIX, check_shape_init, shape_mesh
from maquette.ops.mesh import Mesh

log = logging.getLogger(__name__)

BUFFERS = ("v_buffer", "t_buffer")
"""Vertices and faces, as older checkpoints call them; a checkpoint decides how many there are."""
UV_BUFFERS = ("uv_buffer", "uv_faces_buffer")
"""Texture coordinates of the same mesh; older checkpoints have none."""


@register("custom-mesh")
class CustomMesh(FeaturedSurface):
    """The mesh of a file, or of another geometry, with features."""

    @dataclass(kw_only=True)
    class Config(FeaturedSurface.Config):
        """Options."""

        shape_init: str = ""
        """mesh:PATH; empty where the mesh comes from another geometry."""
        shape_init_params: Any = None
        """Largest coordinate of the mesh."""
        shape_init_mesh_up: str = "+z"
        """Axis of the file that points up."""
        shape_init_mesh_front: str = "+x"
        """Axis of the file that points to the front."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.shape_init and not self.shape_init.startswith(MESH_PREFIX):
                raise ConfigError("system.geometry.shape_init", self.shape_init, "mesh:PATH")
            check_shape_init(
                self.shape_init, self.shape_init_params, self.shape_init_mesh_up, self.shape_init_mesh_front
            )

    v_buffer: Tensor
    t_buffer: Tensor
    uv_buffer: Tensor
    uv_faces_buffer: Tensor
    free_rows = (*BUFFERS, *UV_BUFFERS)
    may_be_missing = UV_BUFFERS

    def configure(self, *args: Any, **kwargs: Any) -> None:
        """Read the mesh and build the features."""
        super().configure()
        self.register_buffer("v_buffer", torch.zeros(0, 3))
        self.register_buffer("t_buffer", torch.zeros(0, 3, dtype=torch.int64))
        self.register_buffer("uv_buffer", torch.zeros(0, 2))
        self.register_buffer("uv_faces_buffer", torch.zeros(0, 3, dtype=torch.int64))
        self.register_load_state_dict_pre_hook(_make_room)
        cfg = self.cfg
        if cfg.shape_init:
            up, front = cfg.shape_init_mesh_up, cfg.shape_init_mesh_front
            self.set_mesh(shape_mesh(cfg.shape_init, cfg.shape_init_params, up, front))

    def set_mesh(self, mesh: Mesh) -> None:
        """Exchange the mesh (world frame); texture coordinates that it has are kept beside it.

        Raises:
            UserError: it has no faces, or positions that are not finite.
        """
        if mesh.n_faces == 0 or not bool(torch.isfinite(mesh.vertices).all()):
            raise UserError(
                "A custom-mesh needs faces and finite positions.",
                [f"faces: {mesh.n_faces}", f"vertices: {mesh.n_vertices}"],
            )
        largest = float(mesh.vertices.abs().max())
        if largest > self.cfg.radius * 1.0001:
            log.warning(
                "the mesh reaches %.3g, beyond system.geometry.radius=%.3g: features are poor there",
                largest,
                self.cfg.radius,
            )
        self.v_buffer = mesh.vertices.detach().clone()
        self.t_buffer = mesh.faces.clone()
        if mesh.uvs is not None and mesh.uv_faces is not None:
            self.uv_buffer, self.uv_faces_buffer = mesh.uvs.detach().clone(), mesh.uv_faces.clone()
        else:
            self.uv_buffer, self.uv_faces_buffer = self.uv_buffer[:0], self.uv_faces_buffer[:0]

    def isosurface(self) -> Mesh:
        """The mesh, with the texture coordinates of its file if that has any; without gradient.

        Raises:
            ConfigError: there is none yet.
        """
        if len(self.t_buffer) == 0:
            raise ConfigError("system.geometry.shape_init", self.cfg.shape_init, "mesh:PATH")
        mesh = Mesh(self.v_buffer, self.t_buffer)
        if len(self.uv_faces_buffer) != mesh.n_faces:  # none
            return mesh
        return mesh.replace(uvs=self.uv_buffer, uv_faces=self.uv_faces_buffer)

    @classmethod
    @torch.no_grad()
    def create_from(
        cls, other: BaseGeometry, cfg: Any = None, copy_net: bool = True, **kwargs: Any
    ) -> "CustomMesh":
        """The mesh of whatever has an `isosurface`, open or closed.

        Raises:
            ConfigError: `other` cannot become a mesh.
            RunFailed: its surface is empty.
        """
        mesh = surface_of(other, cls)
        instance = cls(cfg).to(mesh.vertices.device)
        instance.set_mesh(mesh)
        if copy_net:
            instance.inherit_features(other, mesh)
        return instance


def _make_room(module: CustomMesh, state: MutableMapping[str, Tensor], prefix: str, *_: Any) -> None:
    """A checkpoint may hold another mesh than the recipe names: the buffers take its size, and a mesh without
    texture coordinates does not get those of the one before.
    """
    if any(prefix + name in state for name in BUFFERS):
        for name in UV_BUFFERS:
            state.setdefault(prefix + name, getattr(module, name)[:0])
    for name in module.free_rows:
        saved = state.get(prefix + name)
        if saved is not None:
            setattr(module, name, torch.zeros_like(saved, device=module.bbox.device))
