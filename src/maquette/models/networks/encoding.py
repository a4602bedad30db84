"""Encodings by the names that recipes use."""

from __future__ import annotations

import difflib
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from maquette.core.base import Updateable
from maquette.core.errors import ConfigError, UnknownNameError, asked_for_by
from maquette.models.networks.config import NetworkConfig, plain, take
from maquette.models.networks.frequency import Frequency, ProgressiveBandFrequency
from maquette.models.networks.hash_grid import HashGrid, ProgressiveBandHashGrid
from maquette.models.networks.spherical_harmonics import SphericalHarmonics

_GRID = {
    "n_levels": 16,
    "n_features_per_level": 2,
    "log2_hashmap_size": 19,
    "base_resolution": 16,
    "per_level_scale": 1.447269237440378,
}
_BAND = {"start_level": 1, "start_step": 0, "update_steps": 1000}

_FIXED = {"type": "Hash", "interpolation": "Linear"}
"""Options that recipes for a GPU library spell out, and the only value that they have here."""

ENCODINGS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "HashGrid": (HashGrid, _GRID),
    "ProgressiveBandHashGrid": (ProgressiveBandHashGrid, {**_GRID, **_BAND}),
    "Frequency": (Frequency, {"n_frequencies": 12}),
    "ProgressiveBandFrequency": (ProgressiveBandFrequency, {"n_frequencies": 12, "n_masking_step": 0}),
    "SphericalHarmonics": (SphericalHarmonics, {"degree": 4}),
    "Identity": (nn.Identity, {}),
}
"""Name to class and its options with their defaults."""


class Encoding(Updateable, nn.Module):
    """An encoding of coordinates in [0, 1], with the coordinates themselves (as 2x - 1) in front if asked."""

    def __init__(
        self, n_input_dims: int, encoding: nn.Module, n_encoded_dims: int, include_xyz: bool
    ) -> None:
        super().__init__()
        self.encoding = encoding
        self.include_xyz = include_xyz
        self.n_input_dims = n_input_dims
        self.n_output_dims = n_encoded_dims + (n_input_dims if include_xyz else 0)

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N F"]:
        """Encoded coordinates; leading dimensions are kept."""
        flat = x.reshape(-1, self.n_input_dims)
        encoded = self.encoding(flat)
        if self.include_xyz:
            encoded = torch.cat([flat * 2.0 - 1.0, encoded], dim=-1)
        return encoded.reshape(*x.shape[:-1], self.n_output_dims)


def get_encoding(n_input_dims: int, cfg: NetworkConfig, field: str = "pos_encoding_config") -> Encoding:
    """The encoding that `cfg` describes: `otype`, `include_xyz` (default false) and the options of that type.

    Args:
        n_input_dims: coordinates of a point.
        cfg: the description.
        field: where it stands in the recipe, for the messages.

    Raises:
        UnknownNameError: no such `otype`.
        UnknownKeyError: an option that this type does not have.
        ConfigError: another type of table or interpolation than the one there is.
    """
    config = plain(cfg)
    name = str(config.pop("otype", "HashGrid"))
    include_xyz = bool(config.pop("include_xyz", False))
    if name not in ENCODINGS:
        with asked_for_by("otype"):
            raise UnknownNameError("encoding", name, difflib.get_close_matches(name, ENCODINGS, n=3))
    cls, allowed = ENCODINGS[name]
    for option, only in _FIXED.items():
        if config.pop(option, only) != only:
            raise ConfigError(f"{field}.{option}", cfg[option], f"{only}: there is no other here")
    options = take(config, allowed, field)
    if cls is nn.Identity:
        return Encoding(n_input_dims, cls(), n_input_dims, include_xyz)
    encoding = cls(n_input_dims, **options)
    width = int(encoding.n_output_dims)  # type: ignore[arg-type]
    return Encoding(n_input_dims, encoding, width, include_xyz)
