"""Multiresolution hash grids (Muller et al. 2022, Instant Neural Graphics Primitives)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maquette.core.base import Updateable
from maquette.core.errors import ConfigError
from maquette.core.random import named_generator
from maquette.kernels.hash_grid import HashGridSpec, hash_encode

INITIAL_RANGE = 1e-4
"""Table entries start uniform in plus or minus this (Muller et al. 2022, section 4)."""


class HashGrid(nn.Module):
    """Trilinear features of points in [0, 1]^3 from a table a level, all levels side by side.

    With `normals_only` points get a gradient only under `create_graph=True`; the backward pass of the loss is
    faster then.
    """

    def __init__(
        self,
        n_input_dims: int,
        n_levels: int,
        n_features_per_level: int,
        log2_hashmap_size: int,
        base_resolution: int,
        per_level_scale: float,
    ) -> None:
        super().__init__()
        if n_input_dims != 3:
            raise ConfigError("encoding.otype", "HashGrid", f"an encoding of {n_input_dims} dimensions")
        self.spec = HashGridSpec(
            n_levels=n_levels,
            n_features=n_features_per_level,
            log2_hashmap_size=log2_hashmap_size,
            base_resolution=base_resolution,
            per_level_scale=per_level_scale,
        )
        self.n_output_dims = self.spec.output_dim
        self.active_levels: int | None = None
        self.normals_only = False
        self.table = nn.Parameter(torch.empty(self.spec.n_rows, n_features_per_level))
        self.init_from(named_generator(None, "hash grid"))

    @torch.no_grad()
    def init_from(self, generator: torch.Generator) -> None:
        """Draw the table."""
        self.table.uniform_(-INITIAL_RANGE, INITIAL_RANGE, generator=generator)

    def forward(self, x: Float[Tensor, "N 3"]) -> Float[Tensor, "N F"]:
        """Features of points; levels that are not active are zero."""
        return hash_encode(x, self.table, self.spec, self.active_levels, self.normals_only)


class ProgressiveBandHashGrid(Updateable, HashGrid):
    """A hash grid whose finer levels come in one after the other (Li et al. 2023, Neuralangelo, 3.2)."""

    def __init__(
        self, n_input_dims: int, *, start_level: int, start_step: int, update_steps: int, **grid: float
    ) -> None:
        super().__init__(n_input_dims, **grid)  # type: ignore[arg-type]
        self.start_level, self.start_step, self.update_steps = start_level, start_step, update_steps
        self.active_levels = min(start_level, self.spec.n_levels)

    def update_step(self, epoch: int, global_step: int, on_load_weights: bool = False) -> None:
        """Activate the levels that are due."""
        more = max(global_step - self.start_step, 0) // self.update_steps
        self.active_levels = min(self.start_level + more, self.spec.n_levels)
