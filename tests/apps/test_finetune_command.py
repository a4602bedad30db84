"""`maquette finetune`, and what `maquette generate` does with what it leaves."""

import argparse
import json

import pytest
import torch

from maquette.apps.finetune import LEARNING_RATES, add_arguments, content_of, new_words, settings
from maquette.apps.generate import adapter
from maquette.apps.main import main
from maquette.apps.running import load
from maquette.core.config import load_config
from maquette.core.errors import UserError
from maquette.io.images import write_image

TINY = "maquette/random-tiny"
QUICK = [
    "system.sample_steps=1", "system.sample_count=1", "data.image_size=32", "training.loggers=[]",
    "training.finish=[export]",
]  # fmt: skip
GENERATE = [
    "data.width=16", "data.height=16", "system.renderer.num_samples_per_ray=24", "training.finish=[]",
    "system.geometry.isosurface_resolution=24", "training.snapshot_code=false",
]  # fmt: skip


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "photos"
    for index in range(2):
        write_image(folder / f"{index}.png", torch.full((32, 32, 3), 0.2 + 0.3 * index))
    return folder


def finetune(pictures, out, *more, method="lora"):
    words = ["--images", str(pictures), "--prompt", "a <new1> mug", "--prior", TINY, "--out", str(out)]
    return main(["finetune", method, *words, *more, *QUICK])


def test_adapter_to_asset(pictures, tmp_path):
    out = tmp_path / "mug"
    assert finetune(pictures, out, "--steps", "2", "--rank", "2", "--text-encoder") == 0
    assert (out / "pytorch_lora_weights.safetensors").is_file()
    config = load_config(out / "config.yaml")
    assert config.system.new_words == {"<new1>": "mug"} and config.system.rank == 2
    words = ["generate", "a <new1> mug", "--lora", f"{out}:0.5", "--steps", "2", *GENERATE]
    assert main([*words, "--out", str(tmp_path / "asset")]) == 0
    asked = load_config(tmp_path / "asset" / "config.yaml").system
    assert asked.guidance.lora == [{"path": str(out), "scale": 0.5}] == asked.prompt_processor.lora
    assert asked.prompt_processor.pretrained_model_name_or_path == TINY  # the adapter's own model


def test_dreambooth_to_asset(pictures, tmp_path):
    out = tmp_path / "mug"
    class_options = ["--class-prompt", "a mug", "--class-pictures", "2"]
    assert finetune(pictures, out, "--steps", "1", *class_options, method="dreambooth") == 0
    words = ["generate", "a <new1> mug", "--prior", str(out / "pipeline"), "--steps", "1", *GENERATE]
    assert main([*words, "--out", str(tmp_path / "asset")]) == 0


def test_the_same_command_continues_what_was_stopped(pictures, tmp_path, capsys):
    out = tmp_path / "mug"
    assert finetune(pictures, out, "--steps", "2") == 0
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps(record | {"status": "interrupted"}))
    assert finetune(pictures, out, "--steps", "2", "--batch", "3") == 2
    message = capsys.readouterr().err
    assert "other settings" in message and "data.batch_size: 4 -> 3" in message
    assert finetune(pictures, out, "--steps", "2") == 0
    assert json.loads((out / "run.json").read_text())["status"] == "done"
    assert finetune(pictures, out, "--steps", "2") == 2
    assert "not empty" in capsys.readouterr().err


def test_new_words_begin_as_what_follows_them():
    assert new_words("a photo of <new1> mug", None) == {"<new1>": "mug"}
    assert new_words("a <a> t-shirt and <b> hat", None) == {"<a>": "t-shirt", "<b>": "hat"}
    assert new_words("<new1> <new2> mug", "mug") == {"<new1>": "mug", "<new2>": "mug"}
    assert new_words("a <new1>", "duck") == {"<new1>": "duck"}
    assert new_words("a mug", None) == {}


@pytest.mark.parametrize(
    "prompt",
    ["a green <new1>", "<new1> <new2> mug", "<new1>, on a table", "<new1>'s mug", "a <new1> On a table"],
)
def test_what_is_no_thing_is_nothing_to_begin_as(prompt):
    with pytest.raises(UserError, match=r"(?s)<new1> begin as.*--init-word"):
        new_words(prompt, None)


@pytest.mark.parametrize("method", ["lora", "dreambooth"])
@pytest.mark.parametrize(
    ("prompt", "words"), [("a green turtle", {}), ("a <new2> cup", {"<new2>": "cup"}), ("a <a> <b>", "x")]
)
def test_only_the_words_of_the_prompt_are_new(prompt, words, method):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    given = [
        "--images",
        "toyworld:green turtle",
        "--prompt",
        prompt,
        *(["--init-word", "x"] if words == "x" else []),
    ]
    args = parser.parse_args([method, *given])
    cfg = load(content_of(f"finetune-{method}"), [], settings(args), args)
    assert cfg.system.new_words == ({"<a>": "x", "<b>": "x"} if words == "x" else words)


def test_pictures_without_a_new_word(tmp_path):
    words = [
        "--images",
        "toyworld:green turtle",
        "--prompt",
        "a green turtle",
        "--prior",
        TINY,
        "--steps",
        "1",
    ]
    assert main(["finetune", "lora", *words, "--out", str(tmp_path / "out"), "preset=smoke", *QUICK]) == 0


def test_rates_are_those_of_usual_models_where_the_prior_is_not_the_embedded_one():
    args = argparse.Namespace(
        method="lora", images="x", prompt="a <new1> mug", prior="some/model", init_word=None,
        class_prompt=None, class_pictures=None, steps=None, batch=None, lr=None, rank=None, target=None,
        text_encoder=False,
        flip=False, view_words=False, sample=None, seed=None,
    )  # fmt: skip
    assert settings(args)["system.optimizer.args.lr"] == LEARNING_RATES["lora"]
    args.prior = "maquette/toyworld"
    assert settings(args)["system.optimizer.args.lr"] is None
    args.method, args.rank = "dreambooth", 4
    with pytest.raises(UserError, match="adapter"):
        settings(args)


@pytest.mark.parametrize(
    ("text", "path", "scale"),
    [("run", "run", 1.0), ("run:0.5", "run", 0.5), ("a/b:2", "a/b", 2.0), ("c:run", "c:run", 1.0)],
)
def test_adapters_of_the_command_line(text, path, scale):
    assert adapter(text) == {"path": path, "scale": scale}


def test_mistakes_leave_nothing(tmp_path, capsys):
    assert finetune(tmp_path / "absent", tmp_path / "out", "--steps", "1") == 2
    assert "absent" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("method", "more"), [("lora", ["--text-encoder"]), ("dreambooth", ["--class-prompt", "a mug"])]
)
def test_two_processes_learn_what_one_learns(method, more, pictures, several, tmp_path):
    def learn(name, batch):
        words = ["--steps", "2", "--lr", "10", "--class-pictures", "2", "--batch", str(batch), *more]
        steady = ["system.optimizer.args.eps=1.0"]  # rounding does not become a step
        assert finetune(pictures, tmp_path / name, *words, *steady, method=method) == 0

    learn("one", 2)
    assert several.in_processes(lambda: learn("two", 1)) == [0, 0]
    several.assert_same_weights(tmp_path / "one", tmp_path / "two")
