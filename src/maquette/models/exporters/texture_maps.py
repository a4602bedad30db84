"""The maps of a material, baked: base colour, metalness and roughness, normals."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from maquette.io.textures import BASE_COLOR, METALLIC_ROUGHNESS, NORMAL, pack_metallic_roughness
from maquette.kernels.raycast import RayMesh
from maquette.models.exporters.baking import Texels, ask_maps, texels
from maquette.models.exporters.surface_colors import BUMP, SurfaceColors
from maquette.ops.mesh import Mesh, bounding_box, vertex_normals
from maquette.ops.tangents import east_of, from_tangent_space, orthogonal_tangent, to_tangent_space

REACH = 0.05
"""How far from the simplified surface the detailed one is looked for, as a fraction of the largest side."""
_LIFT = 1e-5


def bake_maps(
    mesh: Mesh,
    colors: SurfaceColors,
    size: int,
    padding: int,
    detailed: Mesh | None = None,
    frame: Mesh | None = None,
) -> dict[str, Float[Tensor, "S S 3"]]:
    """Textures by their names in `io.textures`: `base_color`, and what else the material has.

    Args:
        mesh: with texture coordinates; its smooth normals are what the normal map is relative to.
        colors: gives the maps of surface points.
        size: side of the textures, texels.
        padding: how far charts grow, texels.
        detailed: the surface before it was simplified, whose normals are kept in the normal map.
        frame: the same faces with the texture coordinates that the material's bumps follow; without it their
            frame points east (`ops.tangents`).
    """
    spots = texels(mesh, size)
    values = ask_maps(colors.maps, spots.points, spots.normals)
    maps = {BASE_COLOR: values["albedo"]}
    if "metallic" in values or "roughness" in values:
        maps[METALLIC_ROUGHNESS] = pack_metallic_roughness(values.get("metallic"), values.get("roughness"))
    if BUMP in values or detailed is not None:
        normals = spots.normals
        if detailed is not None:
            normals = detailed_normals(detailed, spots.points, spots.normals)
        tangents = None if frame is None else spots.tangents_of(frame)
        maps[NORMAL] = normal_values(spots, normals, values.get(BUMP), tangents)
    pictures = spots.picture(torch.cat(list(maps.values()), dim=-1), padding)
    return dict(zip(maps, pictures.split(3, dim=-1), strict=True))


def normal_values(
    spots: Texels,
    normals: Float[Tensor, "N 3"],
    bump: Float[Tensor, "N 3"] | None,
    tangents: Float[Tensor, "N 4"] | None,
) -> Float[Tensor, "N 3"]:
    """Normals of texels in the frame of the texture, as (n + 1) / 2; bumps are relative to `tangents`."""
    if bump is not None and tangents is not None:
        level = orthogonal_tangent(tangents[:, :3], normals)
        tangents = torch.cat([level, tangents[:, 3:]], dim=-1)
        normals = from_tangent_space(2.0 * bump - 1.0, normals, tangents)
    elif bump is not None:
        normals = from_tangent_space(2.0 * bump - 1.0, normals, east_of(normals))
    return (to_tangent_space(normals, spots.normals, spots.tangents) + 1.0) * 0.5


def detailed_normals(
    detailed: Mesh, points: Float[Tensor, "N 3"], normals: Float[Tensor, "N 3"]
) -> Float[Tensor, "N 3"]:
    """Unit normals of the detailed surface straight above or below points of the simplified one.

    The nearer of the two places counts. Where there is none within reach, or it faces away, the normal that
    was given stays.
    """
    low, high = bounding_box(detailed)
    side = float((high - low).max())
    surface, smooth = RayMesh(detailed.vertices, detailed.faces), vertex_normals(detailed)
    found, nearest = normals, torch.full_like(normals[:, 0], REACH * side)
    for sign in (1.0, -1.0):
        hits = surface.cast(points - sign * _LIFT * side * normals, sign * normals)
        there = hits.interpolate(smooth, detailed.faces)
        closer = (hits.t < nearest) & ((there * normals).sum(dim=-1) > 0.0)
        found = torch.where(closer[:, None], there, found)
        nearest = torch.where(closer, hits.t, nearest)
    return F.normalize(found, dim=-1)
