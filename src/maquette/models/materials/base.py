"""What every material is."""

from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from maquette.core.base import BaseModule
from maquette.core.errors import ConfigError
from maquette.core.random import StepRandom


class BaseMaterial(BaseModule):
    """Turns features of points into colours seen from a direction."""

    kind: ClassVar[str] = "material"

    @dataclass(kw_only=True)
    class Config(BaseModule.Config):
        """Options that every material has."""

    requires_normal: bool = False
    """Whether `forward` needs shading normals."""
    requires_tangent: bool = False
    """Whether `forward` takes unit tangents, as the argument `tangent` (*N, 3 or 4; the fourth component is
    the sign of the bitangent, see `ops.tangents`), from renderers whose surface has texture coordinates of
    its own."""

    def forward(
        self,
        features: Float[Tensor, "*N F"],
        viewdirs: Float[Tensor, "*N 3"],
        positions: Float[Tensor, "*N 3"],
        shading_normal: Float[Tensor, "*N 3"] | None = None,
        light_positions: Float[Tensor, "*N 3"] | None = None,
        rng: StepRandom | None = None,
        **kwargs: Any,
    ) -> Float[Tensor, "*N 3"]:
        """Colours in [0, 1] of points at `positions` seen along unit `viewdirs`, all in the world frame.

        Args:
            features: what the geometry gives for each point.
            viewdirs: from the camera to the point.
            positions: the points.
            shading_normal: unit normals, where the material requires them.
            light_positions: a light for each point.
            rng: source of random choices; without it the material makes none.
            kwargs: whatever else the renderer knows; ignored.
        """
        raise NotImplementedError

    def export(self, features: Float[Tensor, "*N F"], **kwargs: Any) -> dict[str, Float[Tensor, "*N C"]]:
        """Texture values by name, in [0, 1]; empty if the material has none.

        Args:
            features: what the geometry gives for each point.
            kwargs: what the exporter knows: `viewdirs`, unit directions from which a colour that changes with
                the direction shall be taken.

        Returns:
            Of `albedo` (*N, 3), `metallic` (*N, 1), `roughness` (*N, 1) and `bump` (*N, 3) what there is;
            `bump` is the normal in the frame of the surface as (n + 1) / 2.
        """
        return {}

    def check_features(self, features: Float[Tensor, "*N F"], option: str) -> None:
        """Refuse features that are not as many as an option of the config says.

        Raises:
            ConfigError: they are fewer, or more.
        """
        wanted: int = getattr(self.cfg, option)
        if features.shape[-1] != wanted:
            raise ConfigError(
                f"system.material.{option}",
                wanted,
                f"{features.shape[-1]}, the number of features of the geometry (n_feature_dims)",
            )
