"""Encodings of coordinates and small multi-layer perceptrons."""

from maquette.models.networks.encoding import get_encoding
from maquette.models.networks.init import KeyedInit, init_parameters
from maquette.models.networks.mlp import get_mlp

__all__ = ["KeyedInit", "get_encoding", "get_mlp", "init_parameters"]
