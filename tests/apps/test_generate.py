"""The first three minutes: one command, four files."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from omegaconf import OmegaConf
from PIL import Image

from maquette.apps.generate import MODEL, with_prior
from maquette.apps.main import main
from maquette.core.config import load_config
from maquette.core.paths import configs_dir
from maquette.io.video import read_video

TINY = [
    "data.width=16", "data.height=16", "data.eval_width=16", "data.eval_height=16", "data.n_test_views=2",
    "system.renderer.num_samples_per_ray=24", "system.geometry.isosurface_resolution=24",
    "system.exporter.texture_size=64", "system.showcase.frames=3", "system.showcase.frame_size=32",
    "system.showcase.view_size=32", "training.snapshot_code=false",
]  # fmt: skip


def generate(out: Path, *more: str) -> int:
    return main(
        ["generate", "a red mushroom", "--prior", "maquette/random-tiny", "--out", str(out), *TINY, *more]
    )


def same_bytes(a: Path, b: Path) -> bool:
    """Compared here and not in an assert: pytest would spend minutes on how two binary files differ."""
    return a.read_bytes() == b.read_bytes()


def test_generate_leaves_the_asset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mushroom"
    assert generate(out, "--steps", "3", "--seed", "7") == 0
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err and all(name in shown.out for name in ("mesh.glb", "turntable.mp4"))

    mesh = trimesh.load(out / "mesh.glb", force="mesh")
    welded = trimesh.Trimesh(mesh.vertices, mesh.faces)
    assert welded.is_watertight and welded.volume > 0 and len(welded.faces) > 20
    assert mesh.visual.material.baseColorTexture.size == (64, 64)
    frames = read_video(out / "turntable.mp4")
    assert frames.shape == (3, 32, 32, 3)
    preview = np.asarray(Image.open(out / "preview.png"))
    assert preview.shape == (3 * 32, 8 * 32, 3)
    opacity = preview[64:]
    assert opacity.min() == 0 and opacity.max() == 255

    record = json.loads((out / "run.json").read_text())
    assert record["seed"] == 7 and record["global_step"] == 3 and record["peak_memory_gb"] > 0
    assert (out / "configs" / "raw.yaml").read_text() == configs_dir("first-light.yaml").read_text()
    config = load_config(out / "config.yaml")
    assert config.system.prompt_processor.prompt == "a red mushroom" and config.trainer.max_steps == 3
    assert main(["show", "run", str(out)]) == 0


def test_resumed_run_gives_the_same_mesh(tmp_path: Path) -> None:
    # The recipe's schedules end with its last step; here the two runs must not differ in them.
    fixed = ["system.guidance.min_step_percent=[0,0.5,0.02,4]", "system.guidance.max_step_percent=0.98"]
    fixed.append("system.scheduler.args.gamma=0.9")
    assert generate(tmp_path / "whole", *fixed, "--steps", "4", "training.finish=[export]") == 0
    assert generate(tmp_path / "parts", *fixed, "--steps", "2", "training.finish=[]") == 0
    assert (
        main(
            ["launch", "--resume", str(tmp_path / "parts"), "trainer.max_steps=4", "training.finish=[export]"]
        )
        == 0
    )
    assert same_bytes(tmp_path / "whole" / "mesh.glb", tmp_path / "parts" / "mesh.glb")


def test_export_of_a_finished_run(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert generate(out, "--steps", "2", "training.finish=[]") == 0
    assert not (out / "mesh.glb").exists()
    assert main(["launch", "--resume", str(out), "--export", "system.exporter.fmt=obj-mtl"]) == 0
    assert (out / "save" / "it2-export" / "model.mtl").is_file() and (out / "mesh.glb").is_file()


def incomplete_prior(folder: Path) -> str:
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    return str(folder)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["system.geometry.radios=2"], "system.geometry.radius"),
        (["system.geometri.radius=2"], "system.geometry"),
        (["system.geometry.radius=big"], "a number"),
        (["data.batch_size=0"], "data.batch_size"),
        (["system.geometry_type=implicit-volum"], "implicit-volume"),
        (["system.guidance_type=implicit-volume"], "guidance"),
        (["system.guidance.weighting_strategy=best"], "sds"),
        (["system.loss.lambda_sds=much"], "lambda_sds"),
        (["system.exporter.fmt=fbx"], "glb"),
        (["system.geometry_convert_from=other.ckpt"], "other.ckpt"),
        (["--prior", "INCOMPLETE"], "INCOMPLETE"),
        (["--prior", "nobody/no-such-model"], "nobody/no-such-model"),
        (["--out", "USED"], "not empty"),
        (["--out", "FILE/run"], "is a file"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_mistakes_leave_nothing_behind(
    words: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "precious.txt").write_text("keep")
    (tmp_path / "file").write_text("a file")
    places = {
        "INCOMPLETE": incomplete_prior(tmp_path / "prior"),
        "USED": str(tmp_path / "used"),
        "FILE/run": str(tmp_path / "file" / "run"),
    }
    before = sorted(tmp_path.rglob("*"))
    out = [] if "--out" in words else ["--out", str(tmp_path / "out")]
    prior = [] if "--prior" in words else ["--prior", "maquette/random-tiny"]
    words = [places.get(word, word) for word in words]
    assert main(["generate", "a toy", *out, *prior, "--steps", "1", *TINY, *words]) == 2
    error = capsys.readouterr().err
    assert places.get(text, text) in error and "Traceback" not in error and len(error.splitlines()) <= 24
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("preset", [[], ["preset=smoke"]], ids=["plain", "smoke"])
@pytest.mark.parametrize(
    ("guiding", "expected"),
    [
        ("${system.prompt_processor.pretrained_model_name_or_path}", "mine"),
        ("theirs", "mine"),
        ("another", "another"),
    ],
    ids=["refers", "same", "other"],
)
def test_a_prior_is_that_of_prompt_and_guidance(
    guiding: str, expected: str, preset: list[str], tmp_path: Path
) -> None:
    found = models_with_prior(recipe_of_models(tmp_path, "theirs", guiding), *preset)
    assert found == ("mine", "mine" if preset else expected)


@pytest.mark.parametrize("preset", [[], ["preset=smoke"]], ids=["plain", "smoke"])
def test_a_model_that_a_word_names_for_the_guidance_stays(preset: list[str], tmp_path: Path) -> None:
    recipe = recipe_of_models(tmp_path, "theirs", "theirs")
    assert models_with_prior(recipe, *preset, f"system.guidance.{MODEL}=explicit") == ("mine", "explicit")


def test_a_recipe_is_read_once_and_said_to_be_older_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_of_models(tmp_path, "theirs", "theirs")
    content = OmegaConf.load(recipe)
    del content["format"]
    OmegaConf.save(content, recipe)
    assert models_with_prior(recipe) == ("mine", "mine")
    assert capsys.readouterr().err.count("read as a recipe of the older kind") == 1


def recipe_of_models(folder: Path, prompting: str, guiding: str) -> Path:
    recipe = OmegaConf.load(configs_dir("first-light.yaml"))
    recipe.system.prompt_processor[MODEL], recipe.system.guidance[MODEL] = prompting, guiding
    OmegaConf.save(recipe, folder / "recipe.yaml")
    return folder / "recipe.yaml"


def models_with_prior(recipe: Path, *words: str) -> tuple[str, str]:
    args = argparse.Namespace(
        recipe=str(recipe), overrides=list(words), out=None, extension=[], verbose=False
    )
    system = with_prior("mine", {"system.prompt_processor.prompt": "a toy"}, args).system
    return system.prompt_processor[MODEL], system.guidance[MODEL]


@pytest.mark.parametrize("prompt", ["../../etc/passwd", "a/b\\c. .", "word " * 500])
def test_any_prompt_gives_a_safe_folder(prompt: str, tmp_path: Path) -> None:
    root = tmp_path / "outputs"
    config = load_config("first-light", [f"exp_root_dir={root}"], {"system.prompt_processor.prompt": prompt})
    assert config.trial_dir.resolve().parent == (root / "first-light").resolve()
    assert len(config.trial_dir.name) < 140
    config.trial_dir.mkdir(parents=True)


def test_full_disk_while_exporting_is_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("maquette.systems.showcase.shutil.copyfile", full)
    assert generate(tmp_path / "out", "--steps", "1", "training.finish=[export]") == 1
    assert "disk is full" in capsys.readouterr().err.lower()
