from pathlib import Path

from maquette.core.config import load_config
from maquette.training.run import run

MODEL = "maquette/random-tiny?family=multiview"


def recipe(folder: Path, **data):
    return load_config(
        {
            "format": "maquette/1",
            "run_dir": str(folder / "run"),
            "data_type": "random-multiview-camera-datamodule",
            "data": {"n_view": 2, "batch_size": 4, "width": 8, "height": 8, **data},
            "system_type": "dreamfusion-system",
            "system": {
                "geometry_type": "implicit-volume",
                "geometry": {
                    "radius": 1.0, "normal_type": "finite_difference",
                    "pos_encoding_config": {
                        "otype": "HashGrid", "n_levels": 2, "n_features_per_level": 2, "log2_hashmap_size": 8,
                        "base_resolution": 4, "per_level_scale": 2.0,
                    },
                },
                "material_type": "no-material",
                "background_type": "solid-color-background",
                "renderer_type": "nerf-volume-renderer",
                "renderer": {"radius": 1.0, "num_samples_per_ray": 8},
                "guidance_type": "multiview-diffusion-guidance",
                "guidance": {"pretrained_model_name_or_path": MODEL},
                "prompt_processor_type": "stable-diffusion-prompt-processor",
                "prompt_processor": {"prompt": "a house", "pretrained_model_name_or_path": MODEL},
                "loss": {"lambda_sds": 1.0},
                "optimizer": {"name": "Adam", "args": {"lr": 0.05}},
            },
            "trainer": {"max_steps": 2, "num_sanity_val_steps": 0, "limit_val_batches": 0},
            "training": {"loggers": [], "snapshot_code": False, "finish": []},
        }
    )  # fmt: skip


def test_a_model_of_several_views_makes_an_asset(tmp_path, monkeypatch):
    monkeypatch.setenv("MAQUETTE_CACHE", str(tmp_path / "cache"))
    result = run(recipe(tmp_path), "train")
    assert result.global_step == 2 and result.last_loss > 0
