"""Objects that are placed in each other: frames, their parents, and the way from any one to any other.

Matrices act on column vectors, `matrix @ point`; the last one in a product acts first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from maquette.core.errors import UserError


@dataclass(frozen=True, eq=False)
class Frame:
    """The coordinates in which an object is modelled, placed in those of its parent.

    A frame without a parent is the world, or stands in it directly: its `to_parent` leads to the world.
    """

    name: str
    to_parent: Float[Tensor, "4 4"] = field(default_factory=lambda: torch.eye(4))
    """Maps the frame's coordinates to the parent's."""
    parent: Frame | None = None
    """What it moves with."""

    @property
    def to_world(self) -> Float[Tensor, "4 4"]:
        """Maps the frame's coordinates to the world's."""
        matrix = self.to_parent
        for frame in self._ancestors():
            matrix = frame.to_parent @ matrix
        return matrix

    def to(self, other: Frame) -> Float[Tensor, "4 4"]:
        """Maps the frame's coordinates to those of another frame of the same world.

        Raises:
            UserError: the other frame is flat (a scale of zero), so there is no way into it.
        """
        into, flat = torch.linalg.inv_ex(other.to_world)
        if bool(flat):
            raise UserError(
                f"Nothing can be expressed in the frame {other.name!r}: its matrix has no inverse."
            )
        matrix: Tensor = into @ self.to_world
        return matrix

    def child(self, name: str, to_parent: Float[Tensor, "4 4"]) -> Frame:
        """A frame that moves with this one."""
        return Frame(name, to_parent, self)

    def _ancestors(self) -> Iterator[Frame]:
        frame = self.parent
        while frame is not None:
            yield frame
            frame = frame.parent


def placed(
    translation: tuple[float, float, float] = (0.0, 0.0, 0.0),
    axis: tuple[float, float, float] = (0.0, 0.0, 1.0),
    angle_deg: float = 0.0,
    scale: float = 1.0,
) -> Float[Tensor, "4 4"]:
    """The matrix that scales, then turns by `angle_deg` around `axis`, then moves.

    A turn is counter-clockwise, seen from the tip of the axis.

    Raises:
        UserError: the axis has no direction.
    """
    direction = torch.tensor(axis)
    if not float(direction.norm()) > 0.0:
        raise UserError(f"An axis to turn around needs a direction, not {axis}.")
    matrix = torch.eye(4)
    matrix[:3, :3] = scale * rotation_about(direction, torch.deg2rad(torch.tensor(angle_deg)))
    matrix[:3, 3] = torch.tensor(translation)
    return matrix


def rotation_about(axis: Float[Tensor, "*N 3"], angle: Float[Tensor, "*N"]) -> Float[Tensor, "*N 3 3"]:
    """Rotations by angles in radians around axes, which need not be unit vectors (Rodrigues' formula)."""
    x, y, z = torch.nn.functional.normalize(axis, dim=-1).unbind(dim=-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).reshape(*x.shape, 3, 3)
    sine, cosine = torch.sin(angle)[..., None, None], torch.cos(angle)[..., None, None]
    identity = torch.eye(3, dtype=axis.dtype, device=axis.device)
    rotation: Tensor = identity + sine * cross + (1.0 - cosine) * (cross @ cross)
    return rotation
