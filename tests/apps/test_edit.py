"""A finished asset, changed by words."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image

from maquette.apps.edit import _parts
from maquette.apps.main import main
from maquette.core.config import load_config
from maquette.core.loading import load_checkpoint
from maquette.io.mesh import read_mesh

SMALL = [
    "data.width=12", "data.height=12", "data.batch_size=2", "data.camera_distance_range=[2.5,2.5]",
    "system.exporter.texture_size=32", "training.snapshot_code=false",
]  # fmt: skip
FIELD = [
    "system.renderer.num_samples_per_ray=16", "system.geometry.isosurface_resolution=20",
    "system.geometry.pos_encoding_config.n_levels=2",
    "system.geometry.pos_encoding_config.log2_hashmap_size=8",
]  # fmt: skip
CLOUD = [
    "--recipe", "gaussians", "system.geometry.init_num_pts=60", "system.geometry.isosurface_resolution=16",
]  # fmt: skip
PICTURES = ["system.showcase.frames=2", "system.showcase.frame_size=16", "system.showcase.view_size=16"]


def make(out: Path, *words: str) -> Path:
    prior = ["--prior", "maquette/random-tiny", "--steps", "1", "--out", str(out)]
    assert main(["generate", "a red mushroom", *prior, *SMALL, *words]) == 0
    return out


def edit(run: Path, out: Path, *words: str, prompt: str = "a blue mushroom") -> int:
    fixed = ["--steps", "2", "training.finish=[]", "training.snapshot_code=false"]
    return main(["edit", str(run), "--prompt", prompt, "--out", str(out), *fixed, *words])


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "ckpts" / "last.ckpt")["state_dict"]


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in before.items() if name in after and not torch.equal(value, after[name])}


@pytest.fixture(scope="module")
def asset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("asset") / "run", *FIELD, *PICTURES, "training.finish=[export]")


def test_another_color_leaves_the_shape_bit_for_bit(asset: Path, tmp_path: Path) -> None:
    out = tmp_path / "edit"
    assert edit(asset, out, "training.finish=[export]") == 0
    before, after = weights(asset), weights(out)
    assert changed(before, after) == {name for name in before if name.startswith("geometry.feature_network.")}
    assert all(torch.equal(value, after[f"original.{name}"]) for name, value in before.items())
    one, other = read_mesh(asset / "mesh.glb"), read_mesh(out / "mesh.glb")
    assert torch.equal(one.vertices, other.vertices) and torch.equal(one.faces, other.faces)
    assert Image.open(out / "edit.png").size == (8 * 192, 2 * 192)
    cfg = load_config(out / "config.yaml")
    assert cfg.system.source_prompt == "a red mushroom" and cfg.system.keep_shape
    assert cfg.system.exporter.extras.prompt == cfg.system.prompt_processor.prompt == "a blue mushroom"
    assert main(["launch", "--resume", str(out), "--export"]) == 0


def test_words_for_things_free_the_shape_unless_it_is_to_be_kept(asset: Path, tmp_path: Path) -> None:
    assert edit(asset, tmp_path / "free", prompt="a red tree") == 0
    moved = changed(weights(asset), weights(tmp_path / "free"))
    assert any(name.startswith("geometry.density_network.") for name in moved)
    assert not any(name.startswith("background.") for name in moved)
    assert edit(asset, tmp_path / "kept", "--keep-shape", prompt="a red tree") == 0
    moved = changed(weights(asset), weights(tmp_path / "kept"))
    assert moved and all(name.startswith("geometry.feature_network.") for name in moved)


def test_an_edit_that_was_stopped_ends_as_the_undisturbed_one(asset: Path, tmp_path: Path) -> None:
    assert edit(asset, tmp_path / "whole") == 0
    assert edit(asset, tmp_path / "parts", "--steps", "1") == 0
    resumed = ["launch", "--resume", str(tmp_path / "parts"), "trainer.max_steps=2", "system.asset=gone.ckpt"]
    assert main(resumed) == 0
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys() and changed(whole, parts) == set()


def test_an_edit_can_be_edited(asset: Path, tmp_path: Path) -> None:
    assert edit(asset, tmp_path / "first") == 0
    assert edit(tmp_path / "first", tmp_path / "second", prompt="a shiny blue mushroom") == 0
    assert [int(weights(tmp_path / one)["asset_step"][1]) for one in ("first", "second")] == [1, 1]
    first, second = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert load_config(tmp_path / "second" / "config.yaml").system.source_prompt == "a blue mushroom"
    scene = [name for name in first if name.startswith(("geometry.", "renderer."))]
    assert scene and all(torch.equal(first[name], second[f"original.{name}"]) for name in scene)


def test_an_edit_needs_no_more_memory_than_the_asset(asset: Path) -> None:
    old = load_config(asset / "config.yaml").system
    given = {"memory": "slicing", "attention_slice_size": 2, "enable_vae_tiling": True, "grad_clip": 1.0}
    kept = _parts({**old, "guidance": {**old.guidance, **given}}, "a blue mushroom")["guidance"]
    assert {key: kept[key] for key in list(given)[:3]} == {key: given[key] for key in list(given)[:3]}
    assert "grad_clip" not in kept


def test_gaussians_keep_their_places(tmp_path: Path) -> None:
    cloud = make(tmp_path / "cloud", *CLOUD, "training.finish=[]")
    assert edit(cloud, tmp_path / "edit") == 0
    moved = changed(weights(cloud), weights(tmp_path / "edit"))
    assert "geometry._features_dc" in moved and moved <= {"geometry._features_dc", "geometry._features_rest"}


def test_two_processes_make_the_edit_of_one(
    asset: Path, several: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def work(name: str, batch: int) -> None:
        steady = ["system.optimizer.args.eps=1.0", "system.optimizer.args.lr=10"]  # rounding is no step
        words = [f"data.batch_size={batch}", "training.finish=[export]", *steady]
        assert edit(asset, tmp_path / name, *words, prompt="a red tree") == 0

    work("one", 2)
    capfd.readouterr()
    assert several.in_processes(lambda: work("two", 1)) == [0, 0]
    several.assert_same_weights(tmp_path / "one", tmp_path / "two")
    said = capfd.readouterr()
    assert said.out.count("edit.png") == 1 and said.err.count("the shape may change") == 1


def test_who_starts_several_processes_leaves_the_edit_to_them(
    asset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("maquette.apps.running.run_processes", lambda count, words, begun: 3)
    assert edit(asset, tmp_path / "edit", "trainer.devices=2") == 3
    shown = capsys.readouterr()
    assert shown.out == shown.err == "" and not (tmp_path / "edit").exists()


def test_mistakes_leave_nothing_behind(
    asset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(code: int, text: str) -> None:
        error = capsys.readouterr().err
        assert code == 2 and text in error and "Traceback" not in error
        assert not (tmp_path / "out").exists()

    out = tmp_path / "out"
    capsys.readouterr()
    told(edit(asset, out, prompt="a red mushroom"), "nothing to edit")
    told(edit(asset, out, prompt=" "), "nothing to edit")
    told(edit(tmp_path / "absent", out), "absent")
    told(edit(asset, out, "--prior", "maquette/random-tiny?family=flow"), "UNet")
    told(edit(asset, out, "system.guidance.mask_level=2"), "mask_level")
    told(edit(asset, asset, "--overwrite"), "cannot replace")
    told(edit(asset, out, "system.geometry.pos_encoding_config.n_levels=4"), "do not fit")
    (tmp_path / "empty").mkdir()
    told(edit(tmp_path / "empty", out), "checkpoint of the asset")
