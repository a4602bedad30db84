"""Triangles of a level set on a regular grid (Lorensen and Cline 1987, marching cubes), on CPU and GPU."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import warp as wp
from jaxtyping import Float, Int
from torch import Tensor

from maquette.kernels.launch import start


@torch.no_grad()
def marching_cubes(
    level: Float[Tensor, "X Y Z"], box: Float[Tensor, "2 3"], close_border: bool = True
) -> tuple[Float[Tensor, "V 3"], Int[Tensor, "F 3"]]:
    """The surface `level = 0`, counter-clockwise seen from outside; without gradient.

    Args:
        level: values at the nodes of a grid of at least 2 nodes an axis, negative inside.
        box: positions of the first and the last node.
        close_border: cut off what sticks out of the box, so that the mesh is closed.

    Returns:
        Vertices (in the frame of `box`) and faces; both empty where nothing is inside.
    """
    start()
    from warp.geometry import IsoSurfaceMarchingCubes  # initialises Warp when imported, so after start()

    field = level.detach().float()
    field = outside_at_border(field) if close_border else field.contiguous()
    lower, upper = box[0].tolist(), box[1].tolist()
    with _torch_stream(field.device):
        vertices, indices = IsoSurfaceMarchingCubes.extract(
            wp.from_torch(field, requires_grad=False), 0.0, lower=wp.vec3(*lower), upper=wp.vec3(*upper)
        )
    if len(indices) == 0:
        return field.new_zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64, device=field.device)
    return wp.to_torch(vertices).clone(), wp.to_torch(indices).long().reshape(-1, 3)


def _torch_stream(device: torch.device) -> AbstractContextManager[Any]:
    """A block in which Warp works in the order of torch's own work on this device."""
    if device.type == "cpu":
        return nullcontext()
    stream: AbstractContextManager[Any] = wp.ScopedStream(wp.stream_from_torch(device))
    return stream


def outside_at_border(level: Float[Tensor, "X Y Z"]) -> Float[Tensor, "X Y Z"]:
    """A copy whose outermost nodes are outside, by as little as the values next to them allow."""
    closed = level.clone()
    barely = 1e-3 * level.detach().abs().amax().clamp(min=1e-20)
    for axis in range(3):
        for end in (0, -1):
            closed.select(axis, end).clamp_(min=float(barely))
    return closed
