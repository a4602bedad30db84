from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from maquette.core.base import BaseObject
from maquette.core.config import load_config
from maquette.core.errors import ConfigError
from maquette.core.registry import registry
from maquette.models.geometry.implicit_sdf import ImplicitSDF
from maquette.models.guidance.base import GuidanceOutput
from maquette.training.run import run


class Nothing(BaseObject):
    """Asks for no change."""

    kind = "guidance"

    @dataclass(kw_only=True)
    class Config(BaseObject.Config):
        pass

    def __call__(self, rgb: Tensor, *args: Any, **kwargs: Any) -> GuidanceOutput:
        return GuidanceOutput(loss_sds=0.0 * rgb.sum())


class NoPrompt(BaseObject):
    kind = "prompt-processor"

    def __call__(self) -> str:
        return ""


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    registry.register("no-change", "guidance")(Nothing)
    registry.register("no-prompt", "prompt-processor")(NoPrompt)
    grid = {"otype": "HashGrid", "n_levels": 2, "n_features_per_level": 2, "log2_hashmap_size": 8}
    recipe = {
        "format": "maquette/1",
        "run_dir": str(tmp_path / "run"),
        "data_type": "random-camera-datamodule",
        "data": {"width": 8, "height": 8, "camera_distance_range": [2.0, 2.0]},
        "system_type": "textmesh-system",
        "system": {
            "geometry_type": "implicit-sdf",
            "geometry": {
                "pos_encoding_config": {**grid, "base_resolution": 4, "per_level_scale": 2.0},
                "mlp_network_config": {"n_neurons": 16},
                "shape_init": "sphere",
                "shape_init_params": 0.5,
                "isosurface_resolution": 16,
            },
            "material_type": "no-material",
            "background_type": "solid-color-background",
            "renderer_type": "neus-volume-renderer",
            "renderer": {"num_samples_per_ray": 16},
            "guidance_type": "no-change",
            "prompt_processor_type": "no-prompt",
            "loss": {"lambda_sds": 1.0, "lambda_eikonal": 0.1},
            "optimizer": {"name": "Adam", "args": {"lr": 1e-4}},
        },
        "trainer": {"max_steps": 2, "num_sanity_val_steps": 0, "limit_val_batches": 0},
        "training": {"loggers": [], "snapshot_code": False, "finish": []},
    }
    return lambda *overrides: load_config(recipe, [*overrides])


def counted(monkeypatch):
    calls = []
    original = ImplicitSDF.initialize_shape
    monkeypatch.setattr(
        ImplicitSDF, "initialize_shape", lambda self, seed=0: (calls.append(seed), original(self, seed))
    )
    return calls


def test_the_surface_starts_as_its_shape_and_a_resumed_run_goes_on_with_its_own(config, monkeypatch):
    calls = counted(monkeypatch)
    last = run(config("seed=5"), mode="train").trial_dir / "ckpts" / "last.ckpt"
    assert calls == [5]
    state = torch.load(last, weights_only=True)["state_dict"]
    geometry = ImplicitSDF(config().system["geometry"])
    geometry.load_state_dict({k[9:]: v for k, v in state.items() if k.startswith("geometry.")})
    run(config("seed=5", "trainer.max_steps=3"), mode="train", resume=last)
    assert calls == [5]
    inside_outside = torch.tensor([[0.1, 0.0, 0.0], [0.8, 0.0, 0.0]])
    assert geometry.forward_sdf(inside_outside)[:, 0].tolist() == pytest.approx([-0.4, 0.3], abs=0.1)


def test_weights_are_kept_unless_the_shape_is_forced(config, monkeypatch, tmp_path):
    last = run(config(), mode="train").trial_dir / "ckpts" / "last.ckpt"
    calls = counted(monkeypatch)
    changes = [f"system.weights={last}", f"run_dir={tmp_path / 'again'}"]
    run(config(*changes), mode="train")
    assert calls == []
    run(config(*changes, "system.geometry.force_shape_init=true"), mode="train", overwrite=True)
    assert len(calls) == 1


def test_the_eikonal_loss_needs_the_gradient(config):
    with pytest.raises(ConfigError, match="lambda_eikonal"):
        run(config("system.geometry.normal_type=pred"), mode="train")
