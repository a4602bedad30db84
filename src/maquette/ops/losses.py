"""Priors on a shape, each a pure function of what a renderer gives: a volume's samples, or a mesh."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.core.collectives import mean_over_processes
from maquette.ops.mesh import Mesh, edges, vertex_normals

OPAQUE_FROM = 0.5
"""Opacity above which a pixel counts as covered."""


def orient(
    weights: Float[Tensor, "*S"],
    normal: Float[Tensor, "S 3"],
    directions: Float[Tensor, "S 3"],
    opacity: Float[Tensor, "*N"],
) -> Float[Tensor, ""]:
    """Penalty for visible normals that face away from the camera, a mean over covered rays.

    `sum w max(0, n . d)^2` (Verbin et al. 2022, Ref-NeRF, eq. 11) with the weights held fixed; `directions`
    point from the camera into the scene, `weights` are (S,) or (S, 1). The sum is divided by the number of
    rays with any opacity.
    """
    facing_away = (normal * directions).sum(dim=-1).clamp(min=0.0)
    total = (weights.detach().reshape(-1) * facing_away.square()).sum()
    return mean_over_processes(total, (opacity > 0).sum())


def sparsity(opacity: Float[Tensor, "*N"]) -> Float[Tensor, ""]:
    """`mean sqrt(o^2 + 0.01)`: prefers empty pixels (Poole et al. 2022, DreamFusion, appendix A.2)."""
    return (opacity.square() + 0.01).sqrt().mean()


def opaque(opacity: Float[Tensor, "*N"], margin: float = 1e-3) -> Float[Tensor, ""]:
    """Binary entropy of the opacity (nats): prefers pixels that are fully covered or fully empty.

    The cross-entropy of o with itself, as in Lombardi et al. 2019 (Neural Volumes) for a beta prior of
    opacity; o is kept `margin` away from 0 and 1, where the gradient would be infinite.
    """
    inside = opacity.float().clamp(margin, 1.0 - margin)
    return -(inside * inside.log() + (1.0 - inside) * torch.log1p(-inside)).mean()


def z_variance(
    variance: Float[Tensor, "*N"], opacity: Float[Tensor, "*N"], threshold: float = OPAQUE_FROM
) -> Float[Tensor, ""]:
    """Mean variance of depth along covered rays: prefers thin surfaces (Zhu and Zhuang 2023, HiFA, section
    3.3).

    Zero where no ray is covered.
    """
    covered = opacity.reshape(-1) > threshold
    return mean_over_processes(variance.reshape(-1)[covered].sum(), covered.sum())


def eikonal(sdf_grad: Float[Tensor, "*N 3"]) -> Float[Tensor, ""]:
    """`mean (|g| - 1)^2` over the gradients of a signed distance, whose length is one everywhere (Gropp et
    al. 2020, IGR, eq. 2).

    Zero where there are no points.
    """
    error = (sdf_grad.square().sum(dim=-1) + 1e-12).sqrt() - 1.0
    return mean_over_processes(error.square().sum(), error.numel())


def normal_consistency(mesh: Mesh) -> Float[Tensor, ""]:
    """`mean (1 - n_i . n_j)` over the edges of a mesh, n its area-weighted vertex normals: prefers a surface
    without creases.

    0 for a plane, 2 at most; zero for a mesh without faces.
    """
    pairs, _ = edges(mesh)
    normals = vertex_normals(mesh)[pairs]
    cosine = (normals[:, 0] * normals[:, 1]).sum(dim=-1)
    return (1.0 - cosine).sum() / max(len(pairs), 1)


def laplacian_smoothness(mesh: Mesh) -> Float[Tensor, ""]:
    """`mean |L v|` over the vertices, L = degree - adjacency: prefers each vertex in the middle of its
    neighbours (Taubin 1995, with uniform weights; in world units).

    Zero for a mesh without faces.
    """
    (first, second), v = edges(mesh)[0].unbind(dim=1), mesh.vertices
    difference = v[first] - v[second]
    pull = torch.zeros_like(v).index_add(0, first, difference).index_add(0, second, -difference)
    return (pull.square().sum(dim=-1) + 1e-24).sqrt().sum() / max(len(v), 1)


def total_variation(picture: Float[Tensor, "B H W C"]) -> Float[Tensor, ""]:
    """Twice the mean squared difference between vertical neighbours plus that between horizontal ones:
    prefers smooth pictures (Mahendran and Vedaldi 2015, with exponent 2).

    Zero for a picture of one pixel.
    """
    down = (picture[:, 1:] - picture[:, :-1]).square()
    right = (picture[:, :, 1:] - picture[:, :, :-1]).square()
    return 2.0 * sum((one.mean() for one in (down, right) if one.numel()), start=picture.new_zeros(()))
