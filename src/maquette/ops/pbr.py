"""Physically based shading under light from all directions: the split-sum approximation.

Karis 2013, "Real Shading in Unreal Engine 4" (SIGGRAPH course notes): light reflected by a microfacet surface
is about the prefiltered light of the mirror direction times F0 A + B, where A and B only depend on n . v and
the roughness.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

DIELECTRIC = 0.04
"""Reflectance of plastics, glass and the like, seen straight on."""
TABLE_SIZE = 64
TABLE_SAMPLES = 1024
"""Half vectors for each entry: errors stay below 0.005 from n . v = 0.03 on."""
_SMALLEST = 1e-3
"""Lowest n . v and roughness of the table."""


def reflect(viewdirs: Float[Tensor, "*N 3"], normal: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
    """Where the light that leaves towards the eye came from, on a mirror; `viewdirs` from eye to surface."""
    return viewdirs - 2.0 * (viewdirs * normal).sum(dim=-1, keepdim=True) * normal


def base_reflectance(albedo: Float[Tensor, "*N 3"], metallic: Float[Tensor, "*N 1"]) -> Float[Tensor, "*N 3"]:
    """Reflectance seen straight on (F0): 0.04 for dielectrics, the albedo for metals."""
    return DIELECTRIC * (1.0 - metallic) + albedo * metallic


def hammersley(n: int) -> Float[Tensor, "n 2"]:
    """n points that cover the unit square evenly: i / n and the bits of i mirrored at the binary point."""
    index = torch.arange(n, dtype=torch.int64)
    mirrored = torch.zeros(n, dtype=torch.float64)
    for bit in range(n.bit_length()):
        mirrored += ((index >> bit) & 1) * 0.5 ** (bit + 1)
    return torch.stack([(index + 0.5) / n, mirrored], dim=-1).float()


def integrate_brdf(
    n_dot_v: Float[Tensor, "*N"], roughness: Float[Tensor, "*N"], samples: int = TABLE_SAMPLES
) -> Float[Tensor, "*N 2"]:
    """Scale A and offset B of the reflectance: the integral of GGX over the hemisphere is F0 A + B.

    Half vectors are drawn in proportion to D (n . h) (Walter et al. 2007, eq. 35 and 36, alpha =
    roughness^2); visibility is Smith's in Schlick's form with k = alpha / 2, Fresnel is Schlick's (Karis
    2013).
    """
    first, second = hammersley(samples).to(n_dot_v).unbind(dim=-1)
    alpha = roughness.square()[..., None]
    n_dot_h = ((1.0 - second) / (1.0 + (alpha.square() - 1.0) * second)).sqrt()
    sine = (1.0 - n_dot_h.square()).clamp(min=0.0).sqrt()
    cosine = n_dot_v[..., None]
    v_dot_h = (1.0 - cosine.square()).clamp(min=0.0).sqrt() * sine * torch.cos(2.0 * math.pi * first)
    v_dot_h = v_dot_h + cosine * n_dot_h
    n_dot_l = 2.0 * v_dot_h * n_dot_h - cosine
    seen = (n_dot_l > 0.0) & (v_dot_h > 0.0)
    k = 0.5 * alpha
    visible = schlick_smith(cosine, k) * schlick_smith(n_dot_l.clamp(min=0.0), k)
    weight = torch.where(seen, visible * v_dot_h / (n_dot_h * cosine).clamp(min=1e-9), 0.0)
    fresnel = (1.0 - v_dot_h).clamp(0.0, 1.0) ** 5
    return torch.stack([((1.0 - fresnel) * weight).mean(dim=-1), (fresnel * weight).mean(dim=-1)], dim=-1)


def schlick_smith(cosine: Float[Tensor, "..."], k: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Share of microfacets that are not hidden, for one direction (Schlick 1994); shapes broadcast."""
    return cosine / (cosine * (1.0 - k) + k).clamp(min=1e-9)


@lru_cache(maxsize=2)
def brdf_table(size: int = TABLE_SIZE) -> Float[Tensor, "R V 2"]:
    """`integrate_brdf` at nodes: rows are roughness 0 to 1, columns the square root of n . v, 0 to 1.

    The root puts more columns where the surface is seen from the side, where the values change fast.
    """
    nodes = torch.linspace(0.0, 1.0, size)
    roughness, root = torch.meshgrid(nodes, nodes, indexing="ij")
    return integrate_brdf(root.square().clamp(min=_SMALLEST), roughness.clamp(min=_SMALLEST))


def lookup_brdf(
    table: Float[Tensor, "R V 2"], n_dot_v: Float[Tensor, "*N 1"], roughness: Float[Tensor, "*N 1"]
) -> Float[Tensor, "*N 2"]:
    """Bilinear values of `brdf_table`; differentiable to both coordinates."""
    root = n_dot_v.clamp(min=_SMALLEST, max=1.0).sqrt()
    grid = torch.cat([2.0 * root - 1.0, 2.0 * roughness - 1.0], dim=-1)
    grid = grid.reshape(1, 1, n_dot_v.numel(), 2).to(table.dtype)
    values = F.grid_sample(table.permute(2, 0, 1)[None], grid, padding_mode="border", align_corners=True)
    return values[0, :, 0].T.reshape(*n_dot_v.shape[:-1], 2)


def split_sum(
    albedo: Float[Tensor, "*N 3"],
    metallic: Float[Tensor, "*N 1"],
    diffuse_light: Float[Tensor, "*N 3"],
    specular_light: Float[Tensor, "*N 3"],
    brdf: Float[Tensor, "*N 2"],
) -> Float[Tensor, "*N 3"]:
    """Light that a surface sends to the eye, linear like its inputs.

    What is not reflected at the surface goes on to the diffuse part, as in the material model of glTF 2.0
    (appendix B): a white dielectric under even light gives back exactly that light.

    Args:
        albedo: base colour.
        metallic: 0 (dielectric) to 1.
        diffuse_light: irradiance of the normal, over pi.
        specular_light: prefiltered light of the mirror direction.
        brdf: A and B for n . v and the roughness.
    """
    reflected = base_reflectance(albedo, metallic) * brdf[..., :1] + brdf[..., 1:]
    body = DIELECTRIC * brdf[..., :1] + brdf[..., 1:]
    return albedo * (1.0 - metallic) * (1.0 - body) * diffuse_light + reflected * specular_light
