"""Cameras as other programs write them down, and back.

Everything here starts from `c2w`, the camera-to-world matrix of an OpenGL camera (x right, y up, looking
along -z) in our world (z up, an object's front towards +x). OpenCV and COLMAP look along +z with y down;
PyTorch3D looks along +z with x to the left and multiplies row vectors from the left; Blender's cameras are
OpenGL's, but an object that is imported there from a glTF file faces -y.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from maquette.ops.gaussians import rotation_matrices
from maquette.ops.transforms import gl_to_cv, invert_rigid

BLENDER_FROM_WORLD = ((0.0, 1.0, 0.0), (-1.0, 0.0, 0.0), (0.0, 0.0, 1.0))
"""Turns our world into Blender's: the front goes from +x to -y, up stays z."""


def to_opencv(c2w: Float[Tensor, "B 4 4"]) -> Float[Tensor, "B 4 4"]:
    """World-to-camera matrices ("extrinsics") of OpenCV cameras."""
    return invert_rigid(gl_to_cv(c2w))


def from_opencv(w2c: Float[Tensor, "B 4 4"]) -> Float[Tensor, "B 4 4"]:
    """`c2w` of world-to-camera matrices of OpenCV cameras."""
    return gl_to_cv(invert_rigid(w2c))


def to_colmap(c2w: Float[Tensor, "B 4 4"]) -> tuple[Float[Tensor, "B 4"], Float[Tensor, "B 3"]]:
    """Unit quaternions (w, x, y, z), w >= 0, and translations of world-to-camera: COLMAP's `images.txt`.

    Pixel centres are at .5 there as well, so `intrinsics` needs no change.
    """
    w2c = to_opencv(c2w)
    return quaternions(w2c[:, :3, :3]), w2c[:, :3, 3]


def from_colmap(
    quaternion: Float[Tensor, "B 4"], translation: Float[Tensor, "B 3"]
) -> Float[Tensor, "B 4 4"]:
    """`c2w` of a quaternion (w, x, y, z) of any length but zero and a translation of world-to-camera."""
    return from_opencv(_affine(rotation_matrices(quaternion), translation))


def to_blender(c2w: Float[Tensor, "B 4 4"]) -> Float[Tensor, "B 4 4"]:
    """`matrix_world` of Blender cameras that see an asset, imported from our glTF file, as `c2w` sees it."""
    return _blender_from_world(c2w) @ c2w


def from_blender(matrix_world: Float[Tensor, "B 4 4"]) -> Float[Tensor, "B 4 4"]:
    """`c2w` of `matrix_world` of Blender cameras; a scale of the camera object is left out."""
    c2w = _blender_from_world(matrix_world).mT @ matrix_world
    return _affine(F.normalize(c2w[:, :3, :3], dim=1), c2w[:, :3, 3])


def to_pytorch3d(c2w: Float[Tensor, "B 4 4"]) -> tuple[Float[Tensor, "B 3 3"], Float[Tensor, "B 3"]]:
    """`R` and `T` of PyTorch3D cameras: a row of world coordinates becomes `x @ R + T`."""
    axes = c2w[:, :3, :3] * c2w.new_tensor([-1.0, 1.0, -1.0])
    return axes, -(c2w[:, None, :3, 3] @ axes)[:, 0]


def from_pytorch3d(
    rotation: Float[Tensor, "B 3 3"], translation: Float[Tensor, "B 3"]
) -> Float[Tensor, "B 4 4"]:
    """`c2w` of `R` and `T` of PyTorch3D cameras."""
    position = -(rotation @ translation[..., None])[..., 0]
    return _affine(rotation * rotation.new_tensor([-1.0, 1.0, -1.0]), position)


def intrinsics_to_pytorch3d(
    matrix: Float[Tensor, "B 3 3"], height: int, width: int
) -> tuple[Float[Tensor, "B 2"], Float[Tensor, "B 2"]]:
    """`focal_length` and `principal_point` of `PerspectiveCameras` for pinhole matrices in pixels.

    They are in NDC, where the shorter side is [-1, 1], with x to the left and y upwards.
    """
    unit = 2.0 / min(height, width)
    middle = 0.5 * matrix.new_tensor([width, height])
    focal = torch.stack([matrix[:, 0, 0], matrix[:, 1, 1]], dim=-1)
    return unit * focal, -unit * (matrix[:, :2, 2] - middle)


def intrinsics_from_pytorch3d(
    focal_length: Float[Tensor, "B 2"], principal_point: Float[Tensor, "B 2"], height: int, width: int
) -> Float[Tensor, "B 3 3"]:
    """Pinhole matrices in pixels of what `PerspectiveCameras` is given in NDC."""
    unit = 0.5 * min(height, width)
    matrix = torch.diag_embed(F.pad(unit * focal_length, (0, 1), value=1.0))
    matrix[:, :2, 2] = 0.5 * focal_length.new_tensor([width, height]) - unit * principal_point
    return matrix


def quaternions(rotation: Float[Tensor, "B 3 3"]) -> Float[Tensor, "B 4"]:
    """Unit quaternions (w, x, y, z) with w >= 0 of rotation matrices.

    Each of the four products of one component with all of them is read off the matrix, and the one with the
    largest component counts (Shepperd 1978), so that nothing small is divided by.
    """
    m = rotation
    xx, yy, zz = m[:, 0, 0], m[:, 1, 1], m[:, 2, 2]
    wx, wy, wz = m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]
    xy, xz, yz = m[:, 1, 0] + m[:, 0, 1], m[:, 0, 2] + m[:, 2, 0], m[:, 2, 1] + m[:, 1, 2]
    products = torch.stack(
        [
            torch.stack([1 + xx + yy + zz, wx, wy, wz], dim=-1),
            torch.stack([wx, 1 + xx - yy - zz, xy, xz], dim=-1),
            torch.stack([wy, xy, 1 - xx + yy - zz, yz], dim=-1),
            torch.stack([wz, xz, yz, 1 - xx - yy + zz], dim=-1),
        ],
        dim=1,
    )
    largest = torch.diagonal(products, dim1=1, dim2=2).argmax(dim=1)
    unit = F.normalize(products[torch.arange(len(m), device=m.device), largest], dim=-1)
    return torch.where(unit[:, :1] < 0, -unit, unit)


def _blender_from_world(like: Tensor) -> Tensor:
    matrix = torch.eye(4, dtype=like.dtype, device=like.device)
    matrix[:3, :3] = like.new_tensor(BLENDER_FROM_WORLD)
    return matrix


def _affine(rotation: Float[Tensor, "B 3 3"], translation: Float[Tensor, "B 3"]) -> Float[Tensor, "B 4 4"]:
    last = rotation.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(rotation), 1, 4)
    return torch.cat([torch.cat([rotation, translation[..., None]], dim=-1), last], dim=1)
