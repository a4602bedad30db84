from pathlib import Path

from maquette.core.config import load_config
from maquette.training.run import run

MODEL = "maquette/random-tiny?family=multiview"


def recipe(folder: Path, tiny_volume, **data):
    return load_config(
        {
            "format": "maquette/1",
            "run_dir": str(folder / "run"),
            "data_type": "random-multiview-camera-datamodule",
            "data": {"n_view": 2, "batch_size": 4, "width": 8, "height": 8, **data},
            "system_type": "dreamfusion-system",
            "system": {
                **tiny_volume,
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


def test_a_model_of_several_views_makes_an_asset(tmp_path, monkeypatch, tiny_volume):
    monkeypatch.setenv("MAQUETTE_CACHE", str(tmp_path / "cache"))
    result = run(recipe(tmp_path, tiny_volume), "train")
    assert result.global_step == 2 and result.last_loss > 0
