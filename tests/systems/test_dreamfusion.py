from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from maquette.core.base import BaseObject
from maquette.core.config import ExperimentConfig, load_config
from maquette.core.errors import CollapseError, ConfigError, UnknownNameError
from maquette.core.output import MappingOutput
from maquette.core.registry import find, registry
from maquette.data.random_camera import RandomCameraDataModule
from maquette.io.images import read_image
from maquette.models.guidance.base import GuidanceEval, GuidanceOutput
from maquette.systems.dreamfusion import DreamFusion
from maquette.systems.guided import CELL, COLUMNS
from maquette.training.run import run

PRIORS = ("orient", "sparsity", "opaque", "z_variance")


class TowardsRed(BaseObject):
    """Asks for red pictures; takes what a guidance takes."""

    kind = "guidance"
    calls: list[dict[str, Any]] = []

    @dataclass(kw_only=True)
    class Config(BaseObject.Config):
        pass

    def __call__(self, rgb: Tensor, prompt_utils: Any, rng: Any, **kwargs: Any) -> GuidanceOutput:
        self.calls.append({"rgb": rgb.shape, "rng": rng, "prompt": prompt_utils, **kwargs})
        loss = (rgb - torch.tensor([1.0, 0.0, 0.0])).square().mean()
        return GuidanceOutput(loss_sds=loss, grad_norm=torch.tensor(1.0))


class Prompt(BaseObject):
    kind = "prompt-processor"

    @dataclass(kw_only=True)
    class Config(BaseObject.Config):
        prompt: str = ""

    def __call__(self) -> str:
        return str(self.cfg.prompt)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_volume: dict[str, Any]) -> Any:
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    registry.register("towards-red", "guidance")(TowardsRed)
    registry.register("plain-prompt", "prompt-processor")(Prompt)
    TowardsRed.calls = []

    def make(*overrides: str) -> ExperimentConfig:
        recipe = {
            "format": "maquette/1",
            "run_dir": str(tmp_path / "run"),
            "data_type": "random-camera-datamodule",
            "data": {"width": 12, "height": 12, "camera_distance_range": [2.0, 2.0]},
            "system_type": "dreamfusion-system",
            "system": {
                **tiny_volume,
                "guidance_type": "towards-red",
                "prompt_processor_type": "plain-prompt",
                "prompt_processor": {"prompt": "a red ball"},
                "loss": {"lambda_sds": 1.0} | {f"lambda_{name}": 0.0 for name in PRIORS},
                "optimizer": {"name": "Adam", "args": {"lr": 0.05}},
            },
            "trainer": {"max_steps": 2, "num_sanity_val_steps": 0, "limit_val_batches": 0},
            "training": {"loggers": [], "snapshot_code": False, "finish": []},
        }  # fmt: skip
        return load_config(recipe, list(overrides))

    return make


def built(config: ExperimentConfig, seed: int = 0) -> DreamFusion:
    return DreamFusion(config.system, seed=seed)


def losses_of(system: DreamFusion, config: ExperimentConfig) -> dict[str, float]:
    """One training step without a Trainer: weighted losses by name."""
    logged: dict[str, float] = {}
    system.log = lambda name, value, **kwargs: logged.update({name: float(value)})  # type: ignore[method-assign]
    data = RandomCameraDataModule(config.data, streams=system.streams)
    system.prepare_prompt()
    batch = next(iter(data.train_dataloader()))
    system.do_update_step(0, 0)
    system.training_step(batch, 0)["loss"].backward()
    return logged


def test_step_moves_the_picture_towards_what_the_guidance_wants(config: Any) -> None:
    result = run(config("trainer.max_steps=30"), "train")
    first, last = TowardsRed.calls[0], TowardsRed.calls[-1]
    assert result.global_step == 30 and result.last_loss < 0.25
    assert first["prompt"] == "a red ball" and tuple(first["rgb"]) == (1, 12, 12, 3)
    assert first["rng"].step == 0 and last["rng"].step == 29 and "c2w" in last


def test_empty_scene_ends_the_run_with_its_cause(config: Any, tmp_path: Path) -> None:
    collapse = ("training.collapse.every=2", "training.collapse.patience=4")
    with pytest.raises(CollapseError, match="empty since step 2") as caught:
        run(config("system.geometry.density_bias=-1000.0", "trainer.max_steps=30", *collapse), "train")
    assert caught.value.exit_code == 1 and len(TowardsRed.calls) == 6
    off = "training.collapse.enabled=false"
    result = run(config("system.geometry.density_bias=-1000.0", off, f"run_dir={tmp_path / 'off'}"), "train")
    assert result.global_step == 2


def test_every_prior_is_weighted_and_logged(config: Any) -> None:
    material = "system.material_type=diffuse-with-point-light-material"
    settings = [material, *(f"system.loss.lambda_{name}=0.5" for name in PRIORS)]
    logged = losses_of(built(config(*settings)), config(*settings))
    names = ("sds", "orient", "sparsity", "opaque", "z_variance")
    weights = {"sds": 1.0, "orient": 0.5, "sparsity": 0.5, "opaque": 0.5, "z_variance": 0.5}
    assert logged["train/loss"] == pytest.approx(
        sum(weights[n] * logged[f"train/loss_{n}"] for n in names), rel=1e-5
    )
    assert all(logged[f"train_params/lambda_{name}"] == weight for name, weight in weights.items())
    assert logged["train/grad_norm"] == 1.0


def test_weight_of_a_loss_of_the_guidance_must_be_there(config: Any) -> None:
    one = config()
    del one.system["loss"]["lambda_sds"]
    with pytest.raises(ConfigError, match=r"system\.loss\.lambda_sds"):
        losses_of(built(one), one)


def test_orient_needs_normals(config: Any) -> None:
    one = config("system.loss.lambda_orient=1.0", "system.geometry.normal_type=null")
    with pytest.raises(ConfigError, match=r"lambda_orient"):
        losses_of(built(one), one)


def test_initial_weights_depend_on_the_seed_and_on_no_sibling(config: Any) -> None:
    one = built(config()).geometry.state_dict()
    other = built(config("system.background_type=neural-environment-map-background")).geometry.state_dict()
    third = built(config(), seed=1).geometry.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert any(not torch.equal(one[name], third[name]) for name in one)


def test_guidance_is_built_with_the_system_and_only_for_training(config: Any) -> None:
    assert isinstance(built(config()).guidance, TowardsRed)
    assert DreamFusion(config().system, mode="export").guidance is None


def test_missing_and_unknown_parts(config: Any) -> None:
    with pytest.raises(ConfigError, match=r"system\.geometry_type"):
        built(config("system.geometry_type=''"))
    one = config()
    one.system["geometry_type"] = "implicit-volum"
    with pytest.raises(UnknownNameError, match="implicit-volume"):
        built(one)


def test_saved_row_has_colour_normal_and_opacity(config: Any, tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    system = built(config())
    system.set_save_dir(tmp_path)
    out = MappingOutput(
        extras={
            "comp_rgb": torch.full((1, 4, 4, 3), 0.2),
            "comp_normal": torch.full((1, 4, 4, 3), 0.4),
            "opacity": torch.full((1, 4, 4, 1), 0.6),
        }
    )
    stored = np.asarray(Image.open(system.save_views("row.png", out, "validation_step")))
    assert stored.shape == (4, 12, 3) and [stored[0, x, 0] for x in (0, 4, 8)] == [51, 102, 153]


def test_sheets_of_what_the_guidance_sees_are_saved_as_often_as_asked(config: Any, tmp_path: Path) -> None:
    class Shows(TowardsRed):
        def __call__(self, rgb: Tensor, prompt_utils: Any, rng: Any, **kwargs: Any) -> GuidanceOutput:
            out = super().__call__(rgb, prompt_utils, rng, **kwargs)
            if kwargs["guidance_eval"]:
                shades = {name: torch.full((1, 8, 8, 3), 0.2 * n) for n, name in enumerate(COLUMNS, start=1)}
                out.eval = GuidanceEval(timesteps=torch.tensor([7]), texts=["a red ball"], **shades)
            return out

    registry.register("shows-what-it-sees", "guidance")(Shows)
    run(
        config(
            "trainer.max_steps=5", "system.guidance_type=shows-what-it-sees", "system.freq.guidance_eval=2"
        ),
        "train",
    )
    sheets = sorted(path.name for path in (tmp_path / "run" / "save").glob("*-train.png"))
    assert sheets == ["it0-train.png", "it2-train.png", "it4-train.png"]
    stored = read_image(tmp_path / "run" / "save" / "it4-train.png")
    assert stored.shape == (CELL, 5 * CELL, 3)
    corners = [float(stored[-1, (n + 1) * CELL - 1, 0]) for n in range(1, 5)]
    assert corners == pytest.approx([0.2, 0.4, 0.6, 0.8], abs=0.01)


def test_frequency_of_sheets_is_checked(config: Any) -> None:
    with pytest.raises(ConfigError, match=r"freq\.guidance_eval"):
        built(config("system.freq.guidance_eval=often"))


def test_registered_name_leads_here() -> None:
    assert find("dreamfusion-system", "system") is DreamFusion
