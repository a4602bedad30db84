"""Priors on the shape, each found by its weight `lambda_NAME` and computed from what the renderer gave."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from maquette.core.errors import ConfigError
from maquette.ops import losses


@dataclass(frozen=True)
class ShapeLoss:
    """One prior."""

    needs: tuple[str, ...]
    """Entries of the render output that it reads."""

    value: Callable[[Any], Tensor]
    """The loss of a render output that has them."""

    hint: str
    """Where the entries come from."""

    def of(self, name: str, out: Any, weight: Any) -> Tensor:
        """The loss of one render output.

        Raises:
            ConfigError: the renderer, or the geometry, does not give what it reads.
        """
        absent = [key for key in self.needs if key not in out]
        if absent:
            expected = f"0.0, because this renderer and geometry give no {' and no '.join(absent)}"
            raise ConfigError(f"system.loss.lambda_{name}", weight, expected, self.hint)
        return self.value(out)


_VOLUME = "a volume renderer gives it, such as nerf-volume-renderer"
_MESH = "a renderer of meshes gives it, such as mesh-rasterizer"
_ANY = "every renderer of this package gives it"
_NORMAL = (
    "material_type: diffuse-with-point-light-material asks for normals, and a system.geometry.normal_type "
    "makes them"
)

SHAPE_LOSSES: Mapping[str, ShapeLoss] = {
    "orient": ShapeLoss(
        ("weights", "t_dirs", "normal", "opacity"),
        lambda out: losses.orient(out["weights"], out["normal"], out["t_dirs"], out["opacity"]),
        _NORMAL,
    ),
    "sparsity": ShapeLoss(("opacity",), lambda out: losses.sparsity(out["opacity"]), _ANY),
    "opaque": ShapeLoss(("opacity",), lambda out: losses.opaque(out["opacity"]), _ANY),
    "z_variance": ShapeLoss(
        ("z_variance", "opacity"),
        lambda out: losses.z_variance(out["z_variance"], out["opacity"]),
        _VOLUME,
    ),
    "eikonal": ShapeLoss(
        ("sdf_grad",), lambda out: losses.eikonal(out["sdf_grad"]), "geometry_type: implicit-sdf gives it"
    ),
    "normal_consistency": ShapeLoss(("mesh",), lambda out: losses.normal_consistency(out["mesh"]), _MESH),
    "laplacian_smoothness": ShapeLoss(("mesh",), lambda out: losses.laplacian_smoothness(out["mesh"]), _MESH),
}
"""By name: the weight of each is `system.loss.lambda_NAME`."""

VOLUME_LOSSES: Sequence[str] = ("orient", "sparsity", "opaque", "z_variance", "eikonal")
"""Those of a field."""

MESH_LOSSES: Sequence[str] = ("normal_consistency", "laplacian_smoothness")
"""Those of triangles."""
