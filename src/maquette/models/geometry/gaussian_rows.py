"""The parameters of a cloud of Gaussians: rows that come and go while they are optimised."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from maquette.core.base import BaseModule
from maquette.ops.gaussians import FLAT, Gaussians

PARAMETERS = ("_xyz", "_features_dc", "_features_rest", "_scaling", "_rotation", "_opacity")
"""As they are called in the ecosystem's checkpoints; scales are logarithms, opacities logits."""
NORMALS = "_normal"
"""The parameter that is there with `pred_normal` only."""
STATISTICS = ("gradient_sum", "times_seen", "largest_radius")
"""Buffers with one number a row."""
FULL = 1e-4
"""Opacities begin so far from 0 and 1 that their logits can still be optimised."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Which old row each new one is a copy of, and which of them begin anew (their moments are zero)."""

    source: Int[Tensor, " M"]
    """Index of an old row for each new row."""
    fresh: Bool[Tensor, " M"]
    """Whether an optimizer should forget what it knows of the old row."""
    reset: frozenset[str] = frozenset()
    """Parameters that were set anew: of these an optimizer should forget every row."""

    def then(self, later: "Rows | None") -> "Rows":
        """Both changes as one."""
        if later is None:
            return self
        fresh = self.fresh[later.source] | later.fresh
        return Rows(self.source[later.source], fresh, self.reset | later.reset)


def kept(keep: Bool[Tensor, " N"]) -> Rows:
    """Only the rows that are marked."""
    source = keep.nonzero()[:, 0]
    return Rows(source, torch.zeros_like(source, dtype=torch.bool))


class GaussianRows(BaseModule):
    """One row a Gaussian; every parameter keeps its identity when the number of rows changes, so that
    optimizers and averages refer to it as before.
    """

    free_rows: ClassVar[tuple[str, ...]] = (*PARAMETERS, NORMALS, *STATISTICS)
    """Weights whose number of rows a checkpoint decides."""

    flat: bool = False
    """Whether these are drawn as flat ones (`flatten`): the third of their `scales` is `FLAT`."""

    _xyz: nn.Parameter
    _features_dc: nn.Parameter
    _features_rest: nn.Parameter
    _scaling: nn.Parameter
    _rotation: nn.Parameter
    _opacity: nn.Parameter
    _normal: nn.Parameter
    gradient_sum: Tensor
    times_seen: Tensor
    largest_radius: Tensor

    @property
    def n(self) -> int:
        """Number of Gaussians."""
        return len(self._xyz)

    @property
    def row_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters, by name."""
        return {name: getattr(self, name) for name in (*PARAMETERS, NORMALS) if hasattr(self, name)}

    def make_rows(self, gaussians: Gaussians, normals: bool) -> None:
        """Create parameters and statistics with the values of `gaussians`."""
        for name, values in raw_values(gaussians).items():
            if normals or name != NORMALS:
                self.register_parameter(name, nn.Parameter(values))
        for name in STATISTICS:
            self.register_buffer(name, torch.zeros(gaussians.n, device=gaussians.means.device))

    @torch.no_grad()
    def set_rows(self, gaussians: Gaussians) -> None:
        """Give the existing parameters the values, and the number of rows, of `gaussians`."""
        for name, values in raw_values(gaussians).items():
            if hasattr(self, name):
                getattr(self, name).data = values.to(self._xyz.device)
        self._press()
        self.forget_statistics()

    def flatten(self) -> None:
        """From now on these are flat (Huang et al. 2024): their third scale is `FLAT` and never learned."""
        self.flat = True
        self._press()

    @property
    def scales(self) -> Float[Tensor, "N 3"]:
        """Standard deviation along each axis, world units, with gradients to those that are learned."""
        scales = self._scaling.exp()
        if not self.flat:
            return scales
        return torch.cat([scales[:, :2], torch.full_like(scales[:, 2:], FLAT)], dim=-1)

    @torch.no_grad()
    def _press(self) -> None:
        """Make the weights flat too: who reads a checkpoint does not know of `flat`."""
        if self.flat:
            self._scaling[:, 2] = math.log(FLAT)

    @torch.no_grad()
    def take(self, rows: Rows) -> None:
        """Become the rows that `rows` describes; gradients are dropped, statistics of fresh rows zero."""
        for parameter in self.row_parameters.values():
            parameter.grad = None
            parameter.data = parameter.data[rows.source]
        for name in STATISTICS:
            setattr(self, name, getattr(self, name)[rows.source].masked_fill(rows.fresh, 0.0))

    def forget_statistics(self) -> None:
        """Begin to count anew."""
        for name in STATISTICS:
            setattr(self, name, torch.zeros(self.n, device=self._xyz.device))

    @torch.no_grad()
    def observe(
        self, gradient: Float[Tensor, "B N 2"], radii: Int[Tensor, "B N"], height: int, width: int
    ) -> None:
        """Take note of the gradient at the screen positions (per pixel) and of the radii (pixels) of views.

        Lengths of gradients are kept per unit of NDC, for which the thresholds of the ecosystem are meant.
        """
        half = torch.tensor([0.5 * width, 0.5 * height], device=gradient.device)
        seen = radii > 0
        self.gradient_sum += ((gradient * half).norm(dim=-1) * seen).sum(dim=0)
        self.times_seen += seen.sum(dim=0)
        self.largest_radius = torch.maximum(self.largest_radius, radii.amax(dim=0).float())

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Take the number of rows of the checkpoint; statistics that it lacks begin anew."""
        stored = state_dict.get(f"{prefix}_xyz")
        if stored is not None and stored.ndim == 2:
            for one in (*self.row_parameters.values(), *(getattr(self, name) for name in STATISTICS)):
                one.data = one.data.new_zeros(len(stored), *one.shape[1:])
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        self._press()


def raw_values(gaussians: Gaussians) -> dict[str, Tensor]:
    """Gaussians as they are optimised; normals point away from the middle of the cloud."""
    outwards = gaussians.means - gaussians.means.mean(dim=0)
    values = {
        "_xyz": gaussians.means,
        "_features_dc": gaussians.sh[:, :1],
        "_features_rest": gaussians.sh[:, 1:],
        "_scaling": gaussians.scales.log(),
        "_rotation": gaussians.rotations,
        "_opacity": torch.logit(gaussians.opacities, eps=FULL)[:, None],
        NORMALS: nn.functional.normalize(outwards, dim=-1),
    }
    return {name: value.detach().clone().contiguous() for name, value in values.items()}


def activated(raw: Mapping[str, Tensor]) -> Gaussians:
    """The Gaussians of raw values; differentiable."""
    return Gaussians(
        means=raw["_xyz"],
        rotations=nn.functional.normalize(raw["_rotation"], dim=-1),
        scales=raw["_scaling"].exp(),
        opacities=torch.sigmoid(raw["_opacity"])[:, 0],
        sh=torch.cat([raw["_features_dc"], raw["_features_rest"]], dim=1),
    )
