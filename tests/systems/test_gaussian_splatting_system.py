from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from maquette.core.base import BaseObject
from maquette.core.config import ExperimentConfig, load_config
from maquette.core.errors import ConfigError
from maquette.core.loading import load_checkpoint
from maquette.core.output import MappingOutput
from maquette.core.registry import find, registry
from maquette.io.mesh import read_mesh
from maquette.io.splats import read_splats
from maquette.io.video import read_video
from maquette.models.geometry.gaussian_densify import Densification
from maquette.models.guidance.base import GuidanceOutput
from maquette.ops.gaussians import FLAT
from maquette.ops.losses import total_variation
from maquette.ops.mesh import triangles
from maquette.systems.gaussian_splatting import GaussianSplattingSystem, follow_rows
from maquette.training.run import run

SMALL_SHOWCASE = (
    "training.finish=[export]", "system.showcase.frames=1", "system.showcase.frame_size=48",
    "system.showcase.views=1", "system.showcase.view_size=16",
)  # fmt: skip


class TowardsRed(BaseObject):
    """Asks for red pictures; takes what a guidance takes."""

    kind = "guidance"

    @dataclass(kw_only=True)
    class Config(BaseObject.Config):
        pass

    def __call__(self, rgb: Tensor, prompt_utils: Any, rng: Any, **kwargs: Any) -> GuidanceOutput:
        return GuidanceOutput(loss_sds=(rgb - torch.tensor([1.0, 0.0, 0.0])).square().mean())


class Prompt(BaseObject):
    kind = "prompt-processor"

    @dataclass(kw_only=True)
    class Config(BaseObject.Config):
        prompt: str = ""

    def __call__(self) -> str:
        return str(self.cfg.prompt)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    registry.register("towards-red", "guidance")(TowardsRed)
    registry.register("plain-prompt", "prompt-processor")(Prompt)

    def make(*overrides: str) -> ExperimentConfig:
        recipe = {
            "format": "maquette/1",
            "run_dir": str(tmp_path / "run"),
            "data_type": "random-camera-datamodule",
            "data": {"width": 16, "height": 12, "batch_size": 2, "camera_distance_range": [2.0, 2.0]},
            "system_type": "gaussian-splatting-system",
            "system": {
                "geometry_type": "gaussian-splatting",
                "geometry": {
                    "init_num_pts": 60, "pc_init_radius": 0.4, "opacity_init": 0.5,
                    "isosurface_resolution": 16,
                    "position_lr": [0, 0.02, 0.002, 20], "feature_lr": 0.1, "prune_interval": 3,
                    "densification_interval": 2, "densify_from_iter": 1, "prune_from_iter": 1, "max_num": 100,
                    "densify_grad_threshold": 1.0e-6, "split_thresh": 0.15, "min_opac_prune": 0.45,
                },
                "material_type": "no-material",
                "background_type": "solid-color-background",
                "background": {"learned": True},
                "renderer_type": "diff-gaussian-rasterizer-background",
                "guidance_type": "towards-red",
                "prompt_processor_type": "plain-prompt",
                "exporter_type": "gaussian-mesh-exporter",
                "exporter": {"fmt": "glb", "save_video": False, "texture_size": 32},
                "loss": {"lambda_sds": 1.0},
                "optimizer": {"name": "Adam", "args": {"lr": 0.05, "eps": 1.0e-15}},
            },
            "trainer": {"max_steps": 6, "num_sanity_val_steps": 0, "limit_val_batches": 0},
            "training": {"loggers": [], "snapshot_code": False, "finish": [], "checkpoint_every": 3},
        }  # fmt: skip
        return load_config(recipe, list(overrides))

    return make


def built(config: ExperimentConfig) -> GaussianSplattingSystem:
    return GaussianSplattingSystem(config.system, seed=0)


def content(folder: Path) -> dict[str, Any]:
    return load_checkpoint(folder / "ckpts" / "last.ckpt")


def assert_equal_trees(first: Any, second: Any) -> None:
    if isinstance(first, Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert list(first) == list(second)
        for key in first:
            assert_equal_trees(first[key], second[key])
    elif isinstance(first, list | tuple):
        for one, other in zip(first, second, strict=True):
            assert_equal_trees(one, other)
    else:
        assert first == second


def test_steps_move_the_picture_and_change_the_number(config: Any, tmp_path: Path) -> None:
    result = run(config("trainer.max_steps=20", "system.background.learned=false"), "train")
    state = content(tmp_path / "run")["state_dict"]
    colors = state["geometry._features_dc"][:, 0]
    assert len(colors) == 100 and len(state["geometry.times_seen"]) == 100
    assert result.last_loss < 0.6 and colors.mean(dim=0)[0] > 0.8 > -0.8 > colors.mean(dim=0)[1]


@pytest.mark.parametrize("strategy", ["default", "mcmc"])
def test_resumed_run_ends_as_the_undisturbed_one(config: Any, tmp_path: Path, strategy: str) -> None:
    """Positions, moments, statistics, the average of the weights: every number."""
    settings = [
        f"system.geometry.strategy={strategy}",
        "training.ema.enabled=true",
        "training.ema.decay=0.9",
        "system.scheduler.name=ExponentialLR",
        "system.scheduler.interval=step",
        "system.scheduler.args.gamma=0.9",
    ]
    run(config(*settings, "trainer.max_steps=7", f"run_dir={tmp_path / 'whole'}"), "train")
    run(config(*settings, "trainer.max_steps=5", f"run_dir={tmp_path / 'first'}"), "train")
    rest = config(*settings, "trainer.max_steps=7", f"run_dir={tmp_path / 'second'}")
    run(rest, "train", resume=tmp_path / "first" / "ckpts" / "last.ckpt")
    whole, resumed = content(tmp_path / "whole"), content(tmp_path / "second")
    assert len(whole["state_dict"]["geometry._xyz"]) > 60
    for key in ("state_dict", "optimizer_states"):
        assert_equal_trees(whole[key], resumed[key])
    assert_equal_trees(whole["callbacks"]["EMA"], resumed["callbacks"]["EMA"])


def test_moments_and_average_follow_the_rows(config: Any, tmp_path: Path) -> None:
    run(config("training.ema.enabled=true", "system.geometry.max_num=90"), "train")
    stored = content(tmp_path / "run")
    n = len(stored["state_dict"]["geometry._xyz"])
    assert 60 < n <= 90
    (optimizer,) = stored["optimizer_states"]
    sizes = {len(state["exp_avg"]) for state in list(optimizer["state"].values())[:6]}
    assert sizes == {n} and len(stored["callbacks"]["EMA"]["average"]["geometry._xyz"]) == n


def test_rows_of_moments() -> None:
    parameter = nn.Parameter(torch.zeros(3, 2))
    optimizer = torch.optim.Adam([parameter])
    parameter.grad = torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    optimizer.step()
    before = {name: value.clone() for name, value in optimizer.state[parameter].items()}
    follow_rows(optimizer, parameter, torch.tensor([2, 0, 0]), torch.tensor([False, False, True]))
    state = optimizer.state[parameter]
    assert torch.equal(state["exp_avg"][:2], before["exp_avg"][[2, 0]]) and state["exp_avg"][2].sum() == 0
    assert torch.equal(state["exp_avg_sq"][0], before["exp_avg_sq"][2]) and state["step"] == 1


def test_a_reset_forgets_the_moments_of_opacities_alone(config: Any) -> None:
    system = built(config())
    system._trainer = SimpleNamespace(callbacks=[])
    named = system.geometry.row_parameters
    optimizer = torch.optim.Adam(named.values())
    for parameter in named.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    system._follow(optimizer, Densification(system.geometry.cfg).fade(system.geometry))
    moments = {name: optimizer.state[parameter] for name, parameter in named.items()}
    assert not moments["_opacity"]["exp_avg"].any() and not moments["_opacity"]["exp_avg_sq"].any()
    assert moments["_xyz"]["exp_avg"].all() and moments["_xyz"]["exp_avg_sq"].all()


def test_groups_have_the_rates_of_their_parameters(config: Any) -> None:
    system = built(config("system.geometry.pred_normal=true"))
    optimizer = system.configure_optimizers()["optimizer"]
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates["geometry._xyz"] == 0.02 and rates["geometry._features_rest"] == pytest.approx(0.005)
    assert rates["background"] == 0.05 and rates["geometry._normal"] == 0.001
    assert {group["eps"] for group in optimizer.param_groups} == {1e-15} and "renderer" not in rates
    given = config("system.optimizer.params.background.lr=0.5")
    (group,) = built(given).configure_optimizers()["optimizer"].param_groups[-1:]
    assert (group["name"], group["lr"]) == ("background", 0.5)


def test_optimizer_need_not_be_given(config: Any) -> None:
    one = config()
    one.system["optimizer"] = {}
    optimizer = built(one).configure_optimizers()["optimizer"]
    assert isinstance(optimizer, torch.optim.Adam) and optimizer.param_groups[0]["eps"] == 1e-15


def test_losses_by_hand(config: Any) -> None:
    one = config()
    names = ("position", "opacity", "scales", "tv_loss", "depth_tv_loss", "sparsity")
    one.system["loss"].update({f"lambda_{name}": 1.0 for name in names})
    system, logged = built(one), {}
    system.log = lambda name, value, **kwargs: logged.update({name: float(value)})  # type: ignore[method-assign]
    rgb, depth, normal = (torch.rand(2, 4, 5, channels) for channels in (3, 1, 3))
    out = MappingOutput(extras={"comp_rgb": rgb, "depth": depth, "comp_normal": normal, "opacity": depth})
    out["viewspace_points"], out["radii"] = torch.zeros(2, 60, 2), torch.zeros(2, 60, dtype=torch.int32)
    system.set_shape_losses(out)
    gaussians = system.geometry.gaussians()
    expected = {
        "position": gaussians.means.norm(dim=-1).mean(),
        "opacity": (gaussians.scales.norm(dim=-1) * gaussians.opacities).sum(),
        "scales": gaussians.scales.sum(),
        "tv_loss": total_variation(rgb),
        "depth_tv_loss": total_variation(depth) + total_variation(normal),
    }
    for name, value in expected.items():
        assert logged[f"train/loss_{name}"] == pytest.approx(value.item(), rel=1e-5)
    assert "train/loss_sparsity" in logged
    system.total_loss().backward()
    assert system.geometry._opacity.grad.abs().sum() > 0


def test_leaves_mesh_and_splats(config: Any, tmp_path: Path) -> None:
    result = run(config(*SMALL_SHOWCASE), "train")
    assert "mesh.glb" in [path.name for path in result.files]
    (splats,) = (tmp_path / "run" / "save").rglob("*.ply")
    stored = content(tmp_path / "run")["state_dict"]["geometry._xyz"]
    assert torch.equal(read_splats(splats).means, stored)


def test_the_frame_of_an_export_does_not_turn_what_lies_at_the_top(config: Any, tmp_path: Path) -> None:
    """The same run, written as it is, and y up in centimetres."""
    settings = (*SMALL_SHOWCASE, "trainer.max_steps=2", "system.exporter.fmt=ply")
    shown = []
    for name, frame in (("plain", ()), ("turned", ("up_axis=y", "units=cm"))):
        words = [f"system.exporter.{one}" for one in frame]
        run(config(*settings, *words, f"run_dir={tmp_path / name}"), "train")
        shown.append(read_mesh(tmp_path / name / "mesh.glb"))
    torch.testing.assert_close(*(triangles(mesh) for mesh in shown), rtol=0, atol=1e-4)
    frames = [read_video(tmp_path / name / "turntable.mp4") for name in ("plain", "turned")]
    assert (frames[0].float() - frames[1].float()).abs().mean() < 2.0


def test_flat_gaussians_leave_flat_splats(config: Any, tmp_path: Path) -> None:
    run(config(*SMALL_SHOWCASE, "system.renderer.primitive=2d"), "train")
    (splats,) = (tmp_path / "run" / "save").rglob("*.ply")
    scales = read_splats(splats).scales
    assert scales[:, 2].max() < 2 * FLAT and scales[:, :2].min() > 0.01


def test_needs_gaussians_and_is_registered(config: Any) -> None:
    assert find("gaussian-splatting-system", "system") is GaussianSplattingSystem
    one = config()
    one.system.update(
        {"geometry_type": "implicit-volume", "geometry": {}, "renderer_type": "nerf-volume-renderer"}
    )
    with pytest.raises(ConfigError, match="gaussian-splatting"):
        built(one)
