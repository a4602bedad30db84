"""Which face covers each texel of a texture: rays straight through the flattened atlas."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from maquette.kernels.raycast import RayHits, RayMesh


def rasterize_uv(uvs: Float[Tensor, "U 2"], uv_faces: Int[Tensor, "F 3"], height: int, width: int) -> RayHits:
    """The face at the centre of each of the height x width texels, row by row from the top (v = 1).

    Faces of an atlas do not overlap, so a ray along -z through the faces laid into the plane z = 0 meets the
    one that covers the texel. `RayHits.mask` tells the covered texels, `RayHits.interpolate` their values.
    """
    flat = F.pad(uvs, (0, 1))
    u = (torch.arange(width, dtype=uvs.dtype, device=uvs.device) + 0.5) / width
    v = 1.0 - (torch.arange(height, dtype=uvs.dtype, device=uvs.device) + 0.5) / height
    rows, columns = torch.meshgrid(v, u, indexing="ij")
    origins = torch.stack([columns, rows, torch.ones_like(rows)], dim=-1).reshape(-1, 3)
    down = origins.new_tensor([0.0, 0.0, -1.0]).expand_as(origins)
    return RayMesh(flat, uv_faces).cast(origins, down)
