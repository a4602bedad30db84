"""Cameras on an orbit, their rays and their projection.

World: right-handed, z up; azimuth 0 is +x, the front of an object, azimuth 90 is +y; elevation 90 is
straight above.
Camera: OpenGL, x right, y up, looking along -z. Angles are degrees where a name says so, `fovy` is in
radians and vertical.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from maquette.ops.transforms import invert_rigid

NEAR = 0.01
"""Default near plane of the projection, in world units."""
FAR = 100.0
"""Default far plane of the projection, in world units."""


def orbit_to_position(
    elevation_deg: Float[Tensor, "B"], azimuth_deg: Float[Tensor, "B"], distance: Float[Tensor, "B"]
) -> Float[Tensor, "B 3"]:
    """World position of a camera on an orbit around the origin."""
    elevation, azimuth = torch.deg2rad(elevation_deg), torch.deg2rad(azimuth_deg)
    level = torch.cos(elevation)
    unit = torch.stack([level * torch.cos(azimuth), level * torch.sin(azimuth), torch.sin(elevation)], dim=-1)
    return distance[:, None] * unit


def look_at(
    position: Float[Tensor, "B 3"], center: Float[Tensor, "B 3"], up: Float[Tensor, "B 3"]
) -> Float[Tensor, "B 4 4"]:
    """Camera-to-world matrices with columns right, up, backward, position.

    Looking straight along `up` leaves the roll open: the picture's top then points away from the front (-x
    from above, +x from below), the limit of an orbit at azimuth 0.
    """
    forward = F.normalize(center - position, dim=-1)
    right = torch.linalg.cross(forward, up, dim=-1)
    polar = torch.zeros_like(up)
    polar[:, 0] = torch.where(forward[:, 2] < 0, -1.0, 1.0)
    straight = right.norm(dim=-1, keepdim=True) < 1e-5 * up.norm(dim=-1, keepdim=True)
    right = F.normalize(torch.where(straight, torch.linalg.cross(forward, polar, dim=-1), right), dim=-1)
    upward = F.normalize(torch.linalg.cross(right, forward, dim=-1), dim=-1)
    columns = torch.stack([right, upward, -forward, position], dim=-1)
    last_row = columns.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(columns), 1, 4)
    return torch.cat([columns, last_row], dim=1)


def ray_directions(height: int, width: int, fovy: Float[Tensor, "B"]) -> Float[Tensor, "B H W 3"]:
    """Camera-frame directions through pixel centres, with z = -1 (so a length along them is a depth)."""
    focal = 0.5 * height / torch.tan(0.5 * fovy)
    x = torch.arange(width, dtype=fovy.dtype, device=fovy.device) + 0.5 - width / 2
    y = torch.arange(height, dtype=fovy.dtype, device=fovy.device) + 0.5 - height / 2
    grid_y, grid_x = torch.meshgrid(-y, x, indexing="ij")
    plane = torch.stack([grid_x, grid_y], dim=-1)[None] / focal[:, None, None, None]
    return torch.cat([plane, -torch.ones_like(plane[..., :1])], dim=-1)


def rays(
    directions: Float[Tensor, "B H W 3"], c2w: Float[Tensor, "B 4 4"], normalize: bool = True
) -> tuple[Float[Tensor, "B H W 3"], Float[Tensor, "B H W 3"]]:
    """World-frame origins and directions of camera-frame directions; unit length if `normalize`."""
    rays_d = torch.einsum("bij,bhwj->bhwi", c2w[:, :3, :3], directions)
    rays_o = c2w[:, None, None, :3, 3].expand_as(rays_d).contiguous()
    return rays_o, F.normalize(rays_d, dim=-1) if normalize else rays_d


def projection(
    fovy: Float[Tensor, "B"], aspect: float, near: float = NEAR, far: float = FAR
) -> Float[Tensor, "B 4 4"]:
    """Perspective projection, view to clip; `aspect` is width / height.

    OpenGL's matrix with the y row negated, so that rows run downwards as in a picture.
    """
    cotangent = 1.0 / torch.tan(0.5 * fovy)
    matrix = fovy.new_zeros(len(fovy), 4, 4)
    matrix[:, 0, 0] = cotangent / aspect
    matrix[:, 1, 1] = -cotangent
    matrix[:, 2, 2] = -(far + near) / (far - near)
    matrix[:, 2, 3] = -2.0 * far * near / (far - near)
    matrix[:, 3, 2] = -1.0
    return matrix


def mvp(proj_mtx: Float[Tensor, "B 4 4"], c2w: Float[Tensor, "B 4 4"]) -> Float[Tensor, "B 4 4"]:
    """World-to-clip matrices."""
    return proj_mtx @ invert_rigid(c2w)
