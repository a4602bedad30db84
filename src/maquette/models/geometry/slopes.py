"""Gradients of a field with respect to points, for its normals."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.models.geometry.base import GeometryOutput

NORMAL_TYPES = ("analytic", "finite_difference", "finite_difference_laplacian", "pred")
"""Ways to a normal; "pred" asks a network for it."""
Field = Callable[[Tensor], Tensor]
"""(*N, 3) world points to values (*N, 1)."""


def difference_slope(
    field: Field,
    points: Float[Tensor, "*N 3"],
    value: Float[Tensor, "*N 1"],
    eps: float,
    radius: float,
    central: bool,
) -> Float[Tensor, "*N 3"]:
    """The gradient of a field from its values at points `eps` away along each axis.

    Forward differences take 3 evaluations, central ones 6. For points in the cube of half-width `radius` the
    field is evaluated nowhere outside: within `eps` of a face a forward difference looks inwards, and a
    central one is as wide as there is room. For points outside (of an unbounded field) both look inwards.

    Args:
        field: the field.
        points: where, world frame.
        value: the field there.
        eps: the step, world units.
        radius: half the width of the cube.
        central: look in both directions.
    """
    where, here = points.detach(), points[..., None, :]
    if not central:
        step = torch.full_like(where, eps).where(where + eps <= radius, -eps)
        return (field(here + step.diag_embed())[..., 0] - value) / step
    above, below = (radius - where).clamp(0.0, eps), (radius + where).clamp(0.0, eps)
    ahead, behind = field(here + above.diag_embed()), field(here - below.diag_embed())
    return (ahead - behind)[..., 0] / (above + below)


def analytic_slope(value: Float[Tensor, "*N 1"], points: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
    """The gradient of values with respect to the points they were computed from, itself differentiable."""
    slope: Tensor = torch.autograd.grad(value.sum(), points, create_graph=True)[0]
    return slope


def with_point_gradient(
    evaluate: Callable[[Tensor], GeometryOutput], points: Float[Tensor, "*N 3"]
) -> GeometryOutput:
    """`evaluate` at points that have a gradient, whatever the mode; nothing of that is left behind.

    Where gradients are switched off (`no_grad`, `inference_mode`) the results carry none.
    """
    if torch.is_grad_enabled():
        return evaluate(points if points.requires_grad else points.detach().requires_grad_(True))
    with torch.inference_mode(False), torch.enable_grad():
        out = evaluate(points.clone().requires_grad_(True))
    plain = GeometryOutput()
    plain.update({name: value.detach() for name, value in out.items()})
    return plain
