"""What a picture sees of a mesh, pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(eq=False)
class Fragments:
    """The nearest face at the centre of each pixel, and the place on it."""

    face: Int[Tensor, "B H W"]
    """Index of the face (int32), -1 where nothing is."""
    barycentric: Float[Tensor, "B H W 2"]
    """Perspective-correct weights of the face's corners 0 and 1; corner 2 has the rest. Differentiable."""
    depth: Float[Tensor, "B H W 1"]
    """z / w, from -1 at the near plane to 1 at the far plane; 1 where nothing is. Differentiable."""
    jacobian: Float[Tensor, "B H W 4"]
    """Change of the weights per pixel: du/dx, du/dy, dv/dx, dv/dy. Not differentiable."""

    @property
    def mask(self) -> Bool[Tensor, "B H W"]:
        """Where a face is."""
        return self.face >= 0
