"""What tests of systems share."""

from typing import Any

import pytest


@pytest.fixture
def tiny_volume() -> dict[str, Any]:
    """The part of a recipe that says what the scene is: a volume that takes milliseconds a step."""
    return {
        "geometry_type": "implicit-volume",
        "geometry": {
            "radius": 1.0,
            "normal_type": "finite_difference",
            "pos_encoding_config": {
                "otype": "HashGrid",
                "n_levels": 2,
                "n_features_per_level": 2,
                "log2_hashmap_size": 8,
                "base_resolution": 4,
                "per_level_scale": 2.0,
            },
        },
        "material_type": "no-material",
        "background_type": "solid-color-background",
        "renderer_type": "nerf-volume-renderer",
        "renderer": {"radius": 1.0, "num_samples_per_ray": 16},
    }
