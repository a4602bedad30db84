"""Which face covers each texel of a texture."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maquette.kernels.rasterize import rasterize
from maquette.kernels.raycast import RayHits


@torch.no_grad()
def rasterize_uv(uvs: Float[Tensor, "U 2"], uv_faces: Int[Tensor, "F 3"], height: int, width: int) -> RayHits:
    """The face at the centre of each of the height x width texels, row by row from the top (v = 1).

    The atlas is drawn like a picture, so that a texel on the edge between two faces has one of them; where
    faces overlap the first one is taken. The answer is that of rays which start one unit above the atlas:
    `RayHits.mask` tells the covered texels, `RayHits.interpolate` their values.

    Raises:
        UserError: a face names a texture coordinate that is not there.
    """
    u, v = uvs.float().unbind(dim=-1)
    flat = torch.stack([2.0 * u - 1.0, 1.0 - 2.0 * v, torch.zeros_like(u), torch.ones_like(u)], dim=-1)
    seen = rasterize(flat[None], uv_faces, height, width)
    face, covered = seen.face.reshape(-1), seen.mask.reshape(-1)
    return RayHits(
        t=torch.where(covered, 1.0, torch.inf),
        face=face,
        barycentric=seen.barycentric.reshape(-1, 2),
        normal=covered[:, None] * flat.new_tensor([0.0, 0.0, 1.0]),
    )
