"""The cameras of one step, as they travel from a datamodule to the system, the renderer and the guidance."""

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maquette.core.output import MappingOutput
from maquette.core.random import StepRandom
from maquette.ops.cameras import mvp, projection, ray_directions, rays


@dataclass(kw_only=True, eq=False)
class CameraBatch(MappingOutput):
    """B cameras with all that is derived from them; also readable like a mapping and spread as `**batch`."""

    c2w: Float[Tensor, "B 4 4"]
    """Camera to world (OpenGL camera, world z up)."""
    proj_mtx: Float[Tensor, "B 4 4"]
    """View to clip."""
    mvp_mtx: Float[Tensor, "B 4 4"]
    """World to clip."""
    rays_o: Float[Tensor, "B H W 3"]
    """Origins of the rays through pixel centres, world frame."""
    rays_d: Float[Tensor, "B H W 3"]
    """Directions of the rays, world frame."""
    camera_positions: Float[Tensor, "B 3"]
    light_positions: Float[Tensor, "B 3"]
    elevation: Float[Tensor, "B"]
    """Degrees, of the orbit before any perturbation."""
    azimuth: Float[Tensor, "B"]
    """Degrees, of the orbit before any perturbation; 0 is the front."""
    camera_distances: Float[Tensor, "B"]
    """Distance of the orbit from the origin, before any perturbation."""
    fovy: Float[Tensor, "B"]
    """Vertical field of view, radians."""
    height: int
    """Rows of the pictures."""
    width: int
    """Columns of the pictures."""
    index: Int[Tensor, "B"] | None = None
    """Number of each view (evaluation) or of each sample within the whole run (training)."""
    rng: StepRandom | None = None
    """Source of every random draw of this step; None where nothing is random."""
    step: int = 0
    """Optimiser step that this batch is for."""

    @property
    def batch_size(self) -> int:
        """Number of cameras."""
        return len(self.c2w)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The same batch with all its tensors on `device`."""
        moved: dict[str, Any] = {
            one.name: value.to(device, non_blocking=non_blocking)
            for one in fields(self)
            if isinstance(value := getattr(self, one.name), Tensor)
        }
        return replace(self, **moved)

    def pin_memory(self) -> Self:
        """The same batch in page-locked memory, for faster copies to a GPU."""
        pinned: dict[str, Any] = {
            one.name: value.pin_memory()
            for one in fields(self)
            if isinstance(value := getattr(self, one.name), Tensor)
        }
        return replace(self, **pinned)


def make_camera_batch(
    c2w: Float[Tensor, "B 4 4"],
    fovy: Float[Tensor, "B"],
    height: int,
    width: int,
    *,
    light_positions: Float[Tensor, "B 3"],
    elevation: Float[Tensor, "B"],
    azimuth: Float[Tensor, "B"],
    camera_distances: Float[Tensor, "B"],
    index: Int[Tensor, "B"] | None = None,
    rng: StepRandom | None = None,
    step: int = 0,
    normalize_rays: bool = True,
) -> CameraBatch:
    """Rays and matrices for cameras given by pose and field of view; `fovy` in radians, angles in degrees."""
    rays_o, rays_d = rays(ray_directions(height, width, fovy), c2w, normalize=normalize_rays)
    proj_mtx = projection(fovy, width / height)
    return CameraBatch(
        c2w=c2w,
        proj_mtx=proj_mtx,
        mvp_mtx=mvp(proj_mtx, c2w),
        rays_o=rays_o,
        rays_d=rays_d,
        camera_positions=c2w[:, :3, 3],
        light_positions=light_positions,
        elevation=elevation,
        azimuth=azimuth,
        camera_distances=camera_distances,
        fovy=fovy,
        height=height,
        width=width,
        index=index,
        rng=rng,
        step=step,
    )
