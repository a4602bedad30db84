"""Clouds of Gaussians as pictures, with gradients to all that they are made of.

Kerbl et al. 2023, "3D Gaussian splatting for real-time radiance field rendering"; Zwicker et al. 2002, "EWA
splatting"; Huang et al. 2024, "2D Gaussian splatting for geometrically accurate radiance fields".
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.kernels.gaussian_composite import Plan, blend_splats
from maquette.kernels.gaussian_projection import Cameras, Projected, project_gaussians
from maquette.kernels.gaussian_tiles import Grid, bin_splats
from maquette.kernels.spherical_harmonics import sh_colors
from maquette.ops.gaussians import rotation_matrices

__all__ = ["Primitive", "Splats", "sh_colors", "splat"]

Primitive = Literal["3d", "2d"]


@dataclass(eq=False)
class Splats:
    """N Gaussians drawn on B pictures."""

    color: Float[Tensor, "B H W C"]
    opacity: Float[Tensor, "B H W 1"]
    depth: Float[Tensor, "B H W 1"]
    """Sum of weights times z along the viewing axis, not normalised."""
    normal: Float[Tensor, "B H W 3"] | None
    """Sum of weights times unit normals, world frame, turned to the viewer."""
    means2d: Float[Tensor, "B N 2"]
    """Pixels, x and y. Part of the graph: after `retain_grad()` a backward pass fills its gradient, which
    densification reads."""
    radii: Int[Tensor, "B N"]
    """Three standard deviations in pixels (int32); zero where a Gaussian is not seen."""


def splat(
    means: Float[Tensor, "N 3"],
    rotations: Float[Tensor, "N 4"],
    scales: Float[Tensor, "N 3"],
    opacities: Float[Tensor, " N"],
    colors: Float[Tensor, "N C"] | Float[Tensor, "B N C"],
    w2c: Float[Tensor, "B 4 4"],
    intrinsics: Float[Tensor, "B 3 3"],
    height: int,
    width: int,
    *,
    primitive: Primitive = "3d",
    background: Float[Tensor, " C"] | Float[Tensor, "B C"] | None = None,
    near: float = 0.01,
    normals: bool = False,
) -> Splats:
    """Draw Gaussians; differentiable to the first five arguments and the background.

    A 3D Gaussian is projected with the Jacobian at its centre (Zwicker et al. 2002, eq. 29) and low-passed
    by 0.3 square pixels; a 2D one is met by each pixel's ray (Huang et al. 2024, eq. 8-11). Nearest centres
    first, each weighs its opacity there times what those before it let pass (Kerbl et al. 2023, eq. 3);
    opacities below 1/255 count as nothing, and a pixel is done when less than 1e-4 of the light is left.

    A Gaussian whose centre is nearer than `near`, or that has a value that is not finite (rotation of length
    zero included), is left out: it changes no pixel and its gradients are zero.

    Args:
        means: Centres, world frame.
        rotations: Quaternions w x y z, of any length.
        scales: Standard deviations along the own axes, world units; of "2d" the third is not used.
        opacities: In [0, 1].
        colors: Anything to be blended, for all views or for each.
        w2c: World to camera, OpenCV cameras (x right, y down, z forward).
        intrinsics: Pixels; the centre of the first pixel is at 0.5. Skew is not used.
        height: Rows of the pictures.
        width: Columns of the pictures.
        primitive: "3d" or "2d".
        background: What is seen where light is left; zero by default.
        near: Distance along the viewing axis, world units.
        normals: Whether to draw normals: the shortest axis ("3d") or the third ("2d").

    Raises:
        ConfigError: a shape, the size of the picture, `near` or the primitive cannot be used.
    """
    _check(means, rotations, scales, opacities, colors, w2c, intrinsics)
    if primitive not in ("3d", "2d"):
        raise ConfigError("splat.primitive", primitive, '"3d" or "2d"')
    if background is not None and background.shape not in (colors.shape[-1:], (len(w2c), colors.shape[-1])):
        raise ConfigError("splat.background", tuple(background.shape), "a color, or one for each view")
    if height < 1 or width < 1 or near <= 0.0:
        raise ConfigError("splat.size", (height, width, near), "height and width >= 1, near > 0")
    views, flat = len(w2c), primitive == "2d"
    cameras = Cameras(w2c.detach().float(), intrinsics.detach().float(), height, width, float(near))
    projected = project_gaussians(means.float(), rotations.float(), scales.float(), cameras, flat)
    features = colors.float().expand(views, *colors.shape[-2:])
    if normals:
        facing = normals_of(means.float(), rotations.float(), scales.float(), cameras.w2c, flat)
        features = torch.cat([features, facing], dim=-1)
    rows = pack(projected, opacities.float())
    features = features.flatten(0, 1)
    grid = Grid(views, height, width)
    lists = bin_splats(rows.detach(), features.detach(), projected.radii.flatten(), grid, flat)
    blended, depth, light = blend_splats(rows, features, Plan(grid, lists, flat))
    color, normal = blended.split([colors.shape[-1], 3 if normals else 0], dim=-1)
    if background is not None:
        color = color + light[..., None] * background.float().view(-1, 1, 1, colors.shape[-1])
    reached = lists.first_entries.diff().view(projected.radii.shape) > 0
    return Splats(
        color=color,
        opacity=1.0 - light[..., None],
        depth=depth[..., None],
        normal=normal if normals else None,
        means2d=projected.centres,
        radii=torch.where(reached, projected.radii, 0),
    )


def pack(projected: Projected, opacities: Float[Tensor, " N"]) -> Float[Tensor, "S F"]:
    """Splats as rows: centre (2), frame (4), slant (2), depth, opacity."""
    views = projected.depths.shape[0]
    scalars = [projected.depths[..., None], opacities.expand(views, -1)[..., None]]
    rows = torch.cat([projected.centres, projected.frames, projected.slants, *scalars], dim=-1)
    return rows.flatten(0, 1)


def normals_of(
    means: Float[Tensor, "N 3"],
    rotations: Float[Tensor, "N 4"],
    scales: Float[Tensor, "N 3"],
    w2c: Float[Tensor, "B 4 4"],
    flat: bool,
) -> Float[Tensor, "B N 3"]:
    """Unit normals, world frame, turned to each viewer."""
    usable = rotations.detach().isfinite().all(-1) & (rotations.detach() != 0.0).any(-1)
    rotations = torch.where(usable[:, None], rotations, 0.5)
    axis = torch.full_like(scales[:, 0], 2, dtype=torch.int64) if flat else scales.argmin(-1)
    normal = rotation_matrices(rotations).gather(2, axis[:, None, None].expand(-1, 3, 1))[..., 0]
    eyes = -(w2c[:, :3, :3].mT @ w2c[:, :3, 3:])[..., 0]
    away = ((means.detach() - eyes[:, None]) * normal.detach()).sum(-1, keepdim=True) > 0.0
    return torch.where(away, -normal, normal)


def _check(
    means: Tensor,
    rotations: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    w2c: Tensor,
    k: Tensor,
) -> None:
    n, views = means.shape[0], w2c.shape[0]
    shapes: dict[str, tuple[Tensor, tuple[int, ...]]] = {
        "means": (means, (n, 3)),
        "rotations": (rotations, (n, 4)),
        "scales": (scales, (n, 3)),
        "opacities": (opacities, (n,)),
        "w2c": (w2c, (views, 4, 4)),
        "intrinsics": (k, (views, 3, 3)),
    }
    for name, (tensor, expected) in shapes.items():
        if tensor.shape != expected:
            raise ConfigError(f"splat.{name}", tuple(tensor.shape), f"the shape {expected}")
    if colors.shape[:-1] not in ((n,), (views, n)) or colors.shape[-1] < 1:
        raise ConfigError("splat.colors", tuple(colors.shape), f"the shape ({n}, C) or ({views}, {n}, C)")
