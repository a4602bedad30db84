"""Features on a surface: an encoding of positions and a small network, and how they are taken over."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from omegaconf import OmegaConf
from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.models.geometry.base import (
    BaseExplicitGeometry,
    BaseGeometry,
    BaseImplicitGeometry,
    GeometryOutput,
)
from maquette.models.geometry.field_fit import fit
from maquette.models.networks import get_encoding, get_mlp
from maquette.models.networks.config import default_encoding, default_network
from maquette.ops.mesh import Mesh
from maquette.ops.point_cloud import sample_surface
from maquette.ops.volume import alpha_composite, contract

log = logging.getLogger(__name__)

SURFACE_POINTS = 2**15
"""Points of a surface from which a fit of features draws."""
POINTS_PER_STEP = 4096
STEPS = 300
NEAR = 0.005
"""Standard deviation of the points around the surface, in radii of the box."""
DEPTH = 0.03
"""How far below its surface a volume is asked, as a part of the longest side."""
SAMPLES = 4


class FeaturedSurface(BaseExplicitGeometry):
    """Triangles with features that are learned at world positions."""

    appearance = ("encoding", "feature_network")

    @dataclass(kw_only=True)
    class Config(BaseExplicitGeometry.Config):
        """Options of everything that is triangles with features."""

        n_input_dims: int = 3
        """Dimensions of a point."""
        n_feature_dims: int = 3
        """Number of features; 0 for none."""
        pos_encoding_config: dict[str, Any] = field(default_factory=default_encoding)
        """Encoding of points."""
        mlp_network_config: dict[str, Any] = field(default_factory=default_network)
        """The network."""

    def configure(self, *args: Any, **kwargs: Any) -> None:
        """Build encoding and network."""
        super().configure()
        if self.has_features:
            cfg = self.cfg
            self.encoding = get_encoding(cfg.n_input_dims, cfg.pos_encoding_config)
            self.feature_network = get_mlp(
                self.encoding.n_output_dims, cfg.n_feature_dims, cfg.mlp_network_config
            )

    @property
    def has_features(self) -> bool:
        """Whether there are features to learn."""
        return self.cfg.n_feature_dims > 0

    def to_unit_cube(self, points: Float[Tensor, "*N 3"]) -> Float[Tensor, "*N 3"]:
        """World points as coordinates for the encoding, in [0, 1]."""
        return contract(points, self.bbox)

    def forward(self, points: Float[Tensor, "*N 3"], output_normal: bool = False) -> GeometryOutput:
        """The features at world points on the surface; normals belong to the mesh."""
        return GeometryOutput(features=self._features(points) if self.has_features else None)

    def export(self, points: Float[Tensor, "*N 3"], **kwargs: Any) -> dict[str, Tensor]:
        """Features of surface points."""
        return {"features": self._features(points)} if self.has_features else {}

    def inherit_features(self, other: BaseGeometry, mesh: Mesh, seed: int = 0) -> None:
        """Take over what gives the features of `other`, as far as both have the same number of them.

        Encoding and network are copied where both geometries have the same; otherwise they are fitted on
        points of `mesh`, which depend on `seed` alone.
        """
        if not self.has_features or self.cfg.n_feature_dims != getattr(
            getattr(other, "cfg", None), "n_feature_dims", 0
        ):
            return
        if same_networks(self, other):
            for part in ("encoding", "feature_network"):
                getattr(self, part).load_state_dict(getattr(other, part).state_dict())
        elif mesh.n_faces > 0:
            fit_features(self, other, mesh, seed)

    def _features(self, points: Tensor) -> Tensor:
        return self.feature_network(self.encoding(self.to_unit_cube(points)))


@torch.no_grad()
def fit_features(new: FeaturedSurface, other: BaseGeometry, mesh: Mesh, seed: int = 0) -> None:
    """Regression of the features of `new`, on and around `mesh`, on those that `other` shows there."""
    cloud = sample_surface(Mesh(mesh.vertices.detach(), mesh.faces), SURFACE_POINTS, seed)
    assert cloud.normals is not None
    depth = DEPTH * float((cloud.points.amax(dim=0) - cloud.points.amin(dim=0)).max())
    rows = zip(cloud.points.split(POINTS_PER_STEP), cloud.normals.split(POINTS_PER_STEP), strict=True)
    wanted = torch.cat([shown_features(other, points, normals, depth) for points, normals in rows])
    jitter = NEAR * float(new.cfg.radius)

    def loss(generator: torch.Generator) -> Tensor:
        chosen = torch.randint(SURFACE_POINTS, (POINTS_PER_STEP,), generator=generator).to(wanted.device)
        offsets = jitter * torch.randn(POINTS_PER_STEP, 3, generator=generator).to(wanted.device)
        return (new.export(cloud.points[chosen] + offsets)["features"] - wanted[chosen]).square().mean()

    fit([*new.encoding.parameters(), *new.feature_network.parameters()], loss, seed, STEPS)


def shown_features(
    other: BaseGeometry, points: Float[Tensor, "N 3"], normals: Float[Tensor, "N 3"], depth: float
) -> Float[Tensor, "N F"]:
    """The features of surface points; of a density, as a ray that enters along the normal would see them.

    A volume is trained where its density stops rays, a little below its isosurface: samples down to `depth`
    below it are composited, their weights made to sum to one.
    """
    below = (torch.arange(SAMPLES, device=points.device) + 0.5) / SAMPLES * depth
    along = points[:, None] - below[:, None] * normals[:, None]
    field = other(along) if isinstance(other, BaseImplicitGeometry) else {}
    if "density" not in field or "features" not in field:
        return other.export(points)["features"]
    density = field["density"][..., 0] + 1e-6
    weights = alpha_composite(density, torch.full_like(density, depth / SAMPLES))
    return (weights[..., None] * field["features"]).sum(dim=1) / weights.sum(dim=1, keepdim=True)


def same_networks(one: BaseGeometry, other: BaseGeometry) -> bool:
    """Whether the encodings and feature networks of two geometries mean the same with the same weights.

    A grid whose levels come in one after the other has the weights of one that has them all.
    """
    if not (hasattr(other, "encoding") and hasattr(other, "feature_network")):
        return False
    if one.cfg.radius != other.cfg.radius or getattr(other, "unbounded", False):
        return False
    same_spec = getattr(one.encoding.encoding, "spec", None) == getattr(other.encoding.encoding, "spec", None)
    same_network = OmegaConf.create(one.cfg.mlp_network_config) == OmegaConf.create(
        other.cfg.mlp_network_config
    )
    return (
        same_spec
        and same_network
        and all(
            _shapes(getattr(one, part)) == _shapes(getattr(other, part))
            for part in ("encoding", "feature_network")
        )
    )


def carry(new: BaseGeometry, other: BaseGeometry, parts: Iterable[str], fits: bool = True) -> None:
    """Copy the parts that both geometries have, and tell which ones only one of them has.

    Args:
        new: takes them.
        other: gives them.
        parts: names of modules.
        fits: whether the parts of both read the same encoding; else none is copied.
    """
    for part in parts:
        ours, theirs = getattr(new, part, None), getattr(other, part, None)
        if fits and ours is not None and theirs is not None:
            ours.load_state_dict(theirs.state_dict())
        elif ours is not None:
            log.warning("%s of the new geometry begins untrained: the old one has none that fits", part)
        elif theirs is not None:
            log.warning("%s of the old geometry is not taken along: the new one has none", part)


def surface_of(other: BaseGeometry, new: type[BaseGeometry]) -> Mesh:
    """The mesh of a geometry (or of anything else that has an `isosurface`) that another one starts from.

    Raises:
        ConfigError: it cannot become a mesh.
        RunFailed: its surface is empty.
    """
    if type(other).isosurface is BaseGeometry.isosurface:
        raise ConfigError(
            "system.geometry_convert_from",
            type(other).__name__,
            f"a geometry that can become a mesh, for {new.__name__} to start from",
        )
    with torch.no_grad():
        return other.isosurface()


def _shapes(module: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in module.state_dict().items()}
