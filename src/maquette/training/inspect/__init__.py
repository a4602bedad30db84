"""Looking into models, and changing them: hooks, pictures of activations, layers, weights that half fit."""

from maquette.training.inspect.counting import count_parameters
from maquette.training.inspect.hooks import (
    Capture,
    capture_features,
    capture_gradients,
    capture_inputs,
    retain_gradients,
)
from maquette.training.inspect.layers import change_last_layer, last_layer, remove_last_layer
from maquette.training.inspect.partial_loading import LoadReport, load_partially
from maquette.training.inspect.pictures import activation_picture, activation_pictures

__all__ = [
    "Capture",
    "LoadReport",
    "activation_picture",
    "activation_pictures",
    "capture_features",
    "capture_gradients",
    "capture_inputs",
    "change_last_layer",
    "count_parameters",
    "last_layer",
    "load_partially",
    "remove_last_layer",
    "retain_gradients",
]
