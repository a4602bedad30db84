from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from maquette.core.config import ExperimentConfig, load_config
from maquette.core.errors import ConfigError, MissingFileError, UnknownKeyError, UserError
from maquette.core.registry import registry
from maquette.models.geometry.base import BaseExplicitGeometry
from maquette.models.geometry.implicit_volume import ImplicitVolume
from maquette.systems.conversion import Origin, converted_geometry
from maquette.systems.magic3d import Magic3D
from maquette.systems.shape_losses import MESH_LOSSES, VOLUME_LOSSES
from maquette.training.run import run
from maquette.training.weights import latest

GEOMETRY = {
    "radius": 1.0,
    "pos_encoding_config": {
        "otype": "HashGrid", "n_levels": 2, "n_features_per_level": 2, "log2_hashmap_size": 8,
        "base_resolution": 4, "per_level_scale": 2.0,
    },
    "normal_type": None,
}  # fmt: skip
RECIPE = {
    "format": "maquette/1",
    "data_type": "random-camera-datamodule",
    "data": {"width": 8, "height": 8},
    "system_type": "magic3d-system",
    "system": {
        "geometry_type": "implicit-volume",
        "geometry": GEOMETRY,
        "material_type": "no-material",
        "background_type": "neural-environment-map-background",
        "renderer_type": "nerf-volume-renderer",
        "optimizer": {"name": "Adam", "args": {"lr": 0.01}},
    },
    "training": {"loggers": [], "snapshot_code": False, "finish": []},
}


def config(*overrides: str) -> ExperimentConfig:
    return load_config(RECIPE, list(overrides))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a checkpoint, made without optimising."""
    folder = tmp_path_factory.mktemp("runs") / "tag@20250101-000000"
    system = Magic3D(config().system, seed=5)
    (folder / "ckpts").mkdir(parents=True)
    (folder / "configs").mkdir()
    (folder / "configs" / "parsed.yaml").write_text(config().to_yaml())
    torch.save(
        {"state_dict": system.state_dict(), "epoch": 0, "global_step": 7}, folder / "ckpts" / "last.ckpt"
    )
    return folder


@pytest.mark.parametrize(("keep_shape", "step"), [(True, 400), (False, 407)])
def test_an_edit_has_come_to_the_step_of_its_asset(
    finished: Path, tmp_path: Path, keep_shape: bool, step: int
) -> None:
    path = tmp_path / "ckpts" / "last.ckpt"
    path.parent.mkdir()
    content = torch.load(finished / "ckpts" / "last.ckpt")
    content["state_dict"]["asset_step"] = torch.tensor([3, 400])
    torch.save(content, path)
    recipe = config().to_dict()
    recipe["system"] = {**recipe["system"], "keep_shape": keep_shape}
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "parsed.yaml").write_text(yaml.safe_dump(recipe))
    origin = Origin.read(str(path))
    assert (origin.epoch, origin.global_step) == (3, step)


def begun(finished: Path, *overrides: str, **arguments: Any) -> Magic3D:
    words = [f"system.geometry_convert_from={finished}/ckpts/last.ckpt", *overrides]
    return Magic3D(config(*words).system, seed=6, **arguments)


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


def test_geometry_begins_as_it_was_left_and_the_rest_is_drawn(finished: Path) -> None:
    before, fresh = Magic3D(config().system, seed=5), Magic3D(config().system, seed=6)
    system = begun(finished)
    assert same(system.geometry.density_network, before.geometry.density_network)
    assert same(system.geometry.encoding, before.geometry.encoding)
    assert not same(system.geometry.feature_network, before.geometry.feature_network)
    assert same(system.background, fresh.background), "keyed by the seed, whatever was converted"
    assert system.renderer.geometry is system.geometry


def test_texture_is_inherited_with_material_and_background(finished: Path) -> None:
    before = Magic3D(config().system, seed=5)
    system = begun(finished, "system.geometry_convert_inherit_texture=true")
    assert same(system.geometry, before.geometry) and same(system.background, before.background)
    other = begun(
        finished,
        "system.geometry_convert_inherit_texture=true",
        "system.background_type=solid-color-background",
    )
    assert same(other.geometry, before.geometry)


@pytest.mark.parametrize("arguments", [{"resumed": True}, {}])
def test_weights_and_a_resumed_run_come_before_conversion(finished: Path, arguments: Any) -> None:
    words = ["system.geometry_convert_from=missing.ckpt"]
    if not arguments:
        words.append(f"system.weights={finished}/ckpts/last.ckpt")
    system = Magic3D(config(*words).system, seed=6, **arguments)
    expected = Magic3D(config().system, seed=6 if arguments else 5)
    assert same(system.geometry, expected.geometry)


def test_override_changes_the_old_geometry_only(finished: Path) -> None:
    origin = Origin.read(f"{finished}/ckpts/last.ckpt")
    old = origin.geometry({"isosurface_threshold": 3.5, "isosurface_resolution": 9})
    assert old.cfg.isosurface_threshold == 3.5 and old.cfg.isosurface_resolution == 9
    with pytest.raises(UnknownKeyError, match="isosurface_treshold"):
        origin.geometry({"isosurface_treshold": 3.5})


def test_settings_of_another_system_do_not_matter(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "foreign"
    (folder / "configs").mkdir(parents=True)
    (folder / "ckpts").mkdir()
    text = (finished / "configs" / "parsed.yaml").read_text()
    text = text.replace("system_type: magic3d-system", "system_type: some-system-of-elsewhere")
    text = text.replace("  refinement:", "  stranger: 1\n  refinement:") + "\nfield_of_another_program: 3\n"
    (folder / "configs" / "parsed.yaml").write_text(text)
    (folder / "ckpts" / "last.ckpt").write_bytes((finished / "ckpts" / "last.ckpt").read_bytes())
    assert isinstance(begun(folder).geometry, ImplicitVolume)


def test_newest_run_of_a_tag(finished: Path, tmp_path: Path) -> None:
    for name in ("a_red_cat@20250101-000000", "a_red_cat@20250301-000000", "a_red_cat_2@20260101-000000"):
        (tmp_path / name / "ckpts").mkdir(parents=True)
    found = latest(f"{tmp_path}/a red cat@LAST/ckpts/last.ckpt")
    assert found == tmp_path / "a_red_cat@20250301-000000" / "ckpts" / "last.ckpt"
    with pytest.raises(MissingFileError, match="a_blue_cat"):
        latest(f"{tmp_path}/a blue cat@LAST/ckpts/last.ckpt")
    assert latest("plain.ckpt") == Path("plain.ckpt")
    assert begun(finished.with_name("tag@LAST")).geometry is not None


def test_what_cannot_start_from_another_names_what_can(finished: Path) -> None:
    class Unconvertible(BaseExplicitGeometry):
        pass

    entries = dict(registry._entries)
    try:
        registry.register("unconvertible", "geometry")(Unconvertible)
        with pytest.raises(ConfigError, match="geometry_convert_from") as caught:
            converted_geometry(Origin.read(f"{finished}/ckpts/last.ckpt"), "unconvertible", {})
    finally:
        registry._entries = entries
    assert "implicit-volume" in caught.value.hint and "unconvertible" in caught.value.expected


def test_files_that_are_missing_or_of_another_model_are_named(finished: Path, tmp_path: Path) -> None:
    lonely = tmp_path / "x" / "last.ckpt"
    lonely.parent.mkdir()
    lonely.write_bytes((finished / "ckpts" / "last.ckpt").read_bytes())
    with pytest.raises(MissingFileError, match=r"parsed\.yaml"):
        Origin.read(str(lonely))
    with pytest.raises(MissingFileError, match="checkpoint"):
        Origin.read(str(tmp_path / "nothing.ckpt"))
    with pytest.raises(UserError, match="do not fit"):
        Origin.read(f"{finished}/ckpts/last.ckpt").geometry({"n_feature_dims": 5})


def test_refinement_chooses_the_priors() -> None:
    assert tuple(Magic3D(config().system).shape_losses) == tuple(VOLUME_LOSSES)
    assert tuple(Magic3D(config("system.refinement=true").system).shape_losses) == tuple(MESH_LOSSES)


def test_conversion_of_a_run_that_is_not_there_leaves_nothing(tmp_path: Path) -> None:
    words = (f"run_dir={tmp_path / 'new'}", "system.geometry_convert_from=gone/ckpts/last.ckpt")
    with pytest.raises(MissingFileError, match="gone"):
        run(config(*words), "train")
    assert not (tmp_path / "new").exists()


def test_stage_that_follows_begins_with_the_geometry_before_unless_told_otherwise() -> None:
    path = Path("run") / "stages" / "00-coarse" / "ckpts" / "last.ckpt"
    assert Magic3D.following(config().system, path) == {"geometry_convert_from": str(path)}
    for key in ("weights", "geometry_convert_from"):
        assert Magic3D.following(config(f"system.{key}=other.ckpt").system, path) == {}


def test_clouds_take_the_colors_that_the_material_made(finished: Path) -> None:
    override = "system.geometry_convert_override"
    words = (
        "system.geometry_type=gaussian-splatting",
        "system.geometry.init_num_pts=50",
        "system.renderer_type=diff-gaussian-rasterizer",
        f"{override}.isosurface_resolution=16",
        f"{override}.isosurface_threshold=auto",
    )
    system = begun(finished, "system.geometry_convert_inherit_texture=true", *words)
    origin = Origin.read(f"{finished}/ckpts/last.ckpt")
    cloud = system.geometry.gaussians()
    features = origin.geometry().export(cloud.means)["features"]
    torch.testing.assert_close(cloud.colors, origin.material().export(features)["albedo"], atol=1e-4, rtol=0)
