"""Cases of the triangle rasteriser: a bumpy ball of 100 000 faces at 512 x 512, and smaller pictures.

Twins of the rasteriser work in double precision, as the kernels do inside: in single precision weights in
small faces are wrong in the third digit. They look for the face of a pixel in tiles of 16 x 16, or, faster,
in the box of each face.
"""

import math

import raster_twins as twins
import torch
from measure import Case
from torch import Tensor

from maquette.kernels.rasterize import Fragments, antialias, interpolate, rasterize
from maquette.kernels.texture import texture
from maquette.ops.cameras import look_at, mvp, projection
from maquette.ops.transforms import world_to_clip


def cases(repeats_scale: float) -> list[Case]:
    """The first two are the ones that the target is about."""
    rings = max(8, int(224 * math.sqrt(repeats_scale)))
    side = max(16, int(512 * math.sqrt(repeats_scale)))
    name = f"rasterize, interpolate, antialias, {2 * rings * rings:,} faces, {side} x {side}"
    return [
        drawing(f"{name}, twin in tiles", rings, side, "tiles"),
        drawing(f"{name}, twin in boxes", rings, side, "boxes"),
        drawing("the same, 4 050 faces, 64 x 64, twin in boxes", 45, 64, "boxes"),
        blending("antialias, 4 050 faces, 64 x 64", 45, 64),
        spreading("interpolate, 8 values, 128 x 128", 45, 128),
        looking_up("texture, linear, 128 x 128", 128, "linear"),
        looking_up("texture, mipmaps, 128 x 128", 128, "linear-mipmap-linear"),
    ]


def ball(rings: int) -> tuple[Tensor, Tensor]:
    """2 x rings x rings faces around the origin."""
    polar, around = torch.meshgrid(
        torch.linspace(0, math.pi, rings + 1), torch.linspace(0, 2 * math.pi, rings + 1), indexing="ij"
    )
    radius = 1 + 0.15 * torch.sin(5 * around) * torch.sin(4 * polar)
    unit = [polar.sin() * around.cos(), polar.sin() * around.sin(), polar.cos()]
    first = (torch.arange(rings)[:, None] * (rings + 1) + torch.arange(rings)).reshape(-1)
    next_row = first + rings + 1
    faces = torch.cat(
        [
            torch.stack([first, next_row, next_row + 1], 1),
            torch.stack([first, next_row + 1, first + 1], 1),
        ]
    )
    return (radius[..., None] * torch.stack(unit, -1)).reshape(-1, 3), faces


def scene(rings: int, side: int) -> tuple[Tensor, Tensor]:
    """The ball in clip space, seen so that it nearly fills the picture."""
    vertices, faces = ball(rings)
    position, up = torch.tensor([[3.0, 1.0, 1.2]]), torch.tensor([[0.0, 0.0, 1.0]])
    c2w = look_at(position, torch.zeros(1, 3), up)
    return world_to_clip(vertices[None], mvp(projection(torch.tensor([0.75]), 1.0), c2w)), faces


def drawing(name: str, rings: int, side: int, search: str) -> Case:
    """Everything from vertices to a picture with smooth silhouettes, and back.

    Faces are new in every call, as those of a surface that trains: which of them meet is found anew.
    """
    clip, faces = scene(rings, side)
    values, grad = torch.rand(clip.shape[1], 3), torch.rand(1, side, side, 3)
    ours, theirs = [clip, values], [clip.double(), values.double()]

    def kernel() -> None:
        leaves, new = [one.detach().requires_grad_() for one in ours], faces.clone()
        seen = rasterize(leaves[0], new, side, side)
        out = antialias(interpolate(leaves[1], seen, new), seen, leaves[0], new)
        torch.autograd.grad(out, leaves, grad)

    def twin() -> None:
        leaves = [one.detach().requires_grad_() for one in theirs]
        seen = twins.rasterize(leaves[0], faces, side, side, search)
        out = twins.antialias(twins.interpolate(leaves[1], seen, faces), seen, leaves[0], faces)
        torch.autograd.grad(out, leaves, grad.double())

    return Case(name=name, pairs=pairs_of(clip, faces, side), kernel=kernel, twin=twin)


def pairs_of(clip: Tensor, faces: Tensor, side: int) -> int:
    """Pixels in the boxes of all faces."""
    corners = (clip[0, faces][..., :2] / clip[0, faces][..., 3:] + 1) * 0.5 * side - 0.5
    reach = (corners.amax(1).floor() - corners.amin(1).ceil() + 1).clamp(min=0)
    return int(reach.prod(-1).sum())


def spreading(name: str, rings: int, side: int) -> Case:
    """Values to pixels and back to values and weights."""
    clip, faces = scene(rings, side)
    seen, values = rasterize(clip, faces, side, side), torch.rand(clip.shape[1], 8).requires_grad_()
    weights, grad = seen.barycentric.detach().requires_grad_(), torch.rand(1, side, side, 8)
    seen = Fragments(seen.face, weights, seen.depth, seen.jacobian)

    def train(out: Tensor) -> None:
        torch.autograd.grad(out, [values, weights], grad)

    return Case(
        name=name,
        pairs=side * side,
        kernel=lambda: train(interpolate(values, seen, faces)),
        twin=lambda: train(twins.interpolate(values, seen, faces)),
    )


def blending(name: str, rings: int, side: int) -> Case:
    """Silhouettes, and back to colours and vertices."""
    clip, faces = scene(rings, side)
    seen, color = rasterize(clip, faces, side, side), torch.rand(1, side, side, 3).requires_grad_()
    leaf, grad = clip.detach().requires_grad_(), torch.rand(1, side, side, 3)

    def train(out: Tensor) -> None:
        torch.autograd.grad(out, [color, leaf], grad)

    return Case(
        name=name,
        pairs=side * side,
        kernel=lambda: train(antialias(color, seen, leaf, faces)),
        twin=lambda: train(twins.antialias(color, seen, leaf, faces)),
    )


def looking_up(name: str, side: int, filter: str) -> Case:
    """A texture of 256 x 256, and back to texels and places."""
    image = torch.rand(1, 256, 256, 3).requires_grad_()
    uv, slopes = torch.rand(1, side, side, 2).requires_grad_(), 0.01 * torch.randn(1, side, side, 4)
    grad = torch.rand(1, side, side, 3)

    def train(out: Tensor) -> None:
        torch.autograd.grad(out, [image, uv], grad)

    return Case(
        name=name,
        pairs=side * side,
        kernel=lambda: train(texture(image, uv, slopes, filter)),
        twin=lambda: train(twins.texture(image, uv, slopes, filter)),
    )
