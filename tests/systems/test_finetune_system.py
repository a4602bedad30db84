"""Fine-tuning as a run: what it leaves, that it resumes exactly, and what stays of the prior."""

import pytest
import torch
from safetensors.torch import load_file

from maquette.core import collectives
from maquette.core.config import load_config
from maquette.core.errors import UserError
from maquette.core.paths import EMBEDDED_PRIOR
from maquette.diffusion.load import load_pipeline
from maquette.diffusion.lora import load_adapter
from maquette.diffusion.new_words import mean_embedding
from maquette.io.images import read_image
from maquette.systems.sample_store import SampleStore
from maquette.training.run import run

TINY = "maquette/random-tiny"
QUICK = [
    f"system.pretrained_model_name_or_path={TINY}", "system.sample_steps=1", "system.sample_count=2",
    "system.class_pictures=3", "data.image_size=32", "data.batch_size=2", "training.loggers=[]",
    "trainer.val_check_interval=1000", "system.scheduler=null",
]  # fmt: skip


def train(folder, *words, method="lora", steps=3, resume=None):
    config = load_config(
        f"finetune-{method}", [*QUICK, f"trainer.max_steps={steps}", f"run_dir={folder}", *words]
    )
    return run(config, "train", resume=resume)


def test_a_run_leaves_adapter_words_and_sheet(tmp_path):
    result = train(tmp_path / "run")
    assert [path.name for path in result.files] == [
        "learned_embeds.safetensors",
        "pytorch_lora_weights.safetensors",
        "samples.png",
    ]
    assert list(load_file(tmp_path / "run" / "learned_embeds.safetensors")) == ["<new1>"]
    assert read_image(tmp_path / "run" / "samples.png").shape == (3 * 128, 2 * 128, 3)


def test_a_resumed_run_learns_the_same(tmp_path):
    """With prior preservation, whose pictures are made once."""
    words = [
        'system.class_prompts=["a cup"]',
        "training.finish=[export]",
        "system.half_precision_files=false",
    ]
    train(tmp_path / "whole", *words, steps=4)
    train(tmp_path / "parts", *words, steps=2)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts" / "save" / "class").glob("*.png")}
    train(tmp_path / "parts", *words, steps=4, resume=tmp_path / "parts" / "ckpts" / "last.ckpt")
    assert len(made) == 3 and all(path.stat().st_mtime_ns == when for path, when in made.items())
    for name in ("pytorch_lora_weights.safetensors", "learned_embeds.safetensors"):
        whole, parts = (load_file(tmp_path / one / name) for one in ("whole", "parts"))
        assert whole.keys() == parts.keys()
        assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_class_pictures_are_the_untouched_models_in_the_words_of_the_views(tmp_path):
    words = ['system.class_prompts=["a cup", "a hat"]', "training.finish=[]"]
    train(tmp_path / "run", *words, method="dreambooth", steps=1)
    folder = tmp_path / "run" / "save" / "class"
    prompts = ["a cup, front view, level", "a hat, front view, level", "a cup, front right view, high"]
    assert [prompt in (folder / "metadata.jsonl").read_text() for prompt in prompts] == [True] * 3
    expected = SampleStore(tmp_path / "x", prompts, 1, 1, 3.0).sample(load_pipeline(TINY))
    found = SampleStore(folder, prompts, 1, 1, 3.0)
    assert found.complete
    torch.testing.assert_close(found.read(), expected, atol=0.5 / 255 + 1e-6, rtol=0)


def test_dreambooth_leaves_a_pipeline_that_knows_the_word(tmp_path):
    result = train(tmp_path / "run", method="dreambooth", steps=1)
    assert {path.parent.name for path in result.files} == {"unet", "vae", "text_encoder", "run"}
    pipeline = load_pipeline(str(tmp_path / "run" / "pipeline"))
    assert "<new1>" in pipeline.tokenizer.get_vocab()


@pytest.mark.parametrize("method", ["lora", "dreambooth"])
def test_the_words_may_have_a_learning_rate_of_their_own(tmp_path, method):
    """At rate zero they stay what they began as, although the text encoder trains."""
    rates = 'system.optimizer.params={tuner.words: {lr: 0.0, weight_decay: 0.0}, "*": {}}'
    words = [rates, "system.train_text_encoder=true", "training.finish=[]"]
    train(tmp_path / "run", *words, method=method, steps=2)
    state = torch.load(tmp_path / "run" / "ckpts" / "last.ckpt", weights_only=True)["state_dict"]
    pipeline = load_pipeline(TINY, parts=("tokenizer", "text_encoder"))
    table = pipeline.text_encoder.get_input_embeddings()
    started = mean_embedding(pipeline.tokenizer, table, "duck")
    assert torch.equal(state["tuner.words.0"][0], started)


def test_only_missing_pictures_are_made_again(tmp_path):
    store = SampleStore(tmp_path, ["a", "b"], seed=0, steps=1, scale=2.0)
    store.fill(lambda: load_pipeline(TINY))
    first, before = tmp_path / "0000.png", store.read()
    stamp = first.stat().st_mtime_ns
    (tmp_path / "0001.png").unlink()
    assert not store.complete
    store.fill(lambda: load_pipeline(TINY))
    assert first.stat().st_mtime_ns == stamp and torch.equal(store.read(), before)
    store.fill(lambda: pytest.fail("everything is there"))
    other = SampleStore(tmp_path, ["a", "c"], seed=0, steps=1, scale=2.0)
    assert not other.complete


def test_the_other_processes_leave_the_pictures_to_the_leading_one(tmp_path, monkeypatch):
    monkeypatch.setattr(collectives, "is_leader", lambda: False)
    SampleStore(tmp_path / "x", ["a"], seed=0, steps=1, scale=2.0).fill(lambda: pytest.fail("two write"))
    assert not (tmp_path / "x").exists()


def test_words_without_a_beginning_or_without_a_caption_are_refused(tmp_path):
    for change, message in (
        ("data.prompt=a <other>", "has no beginning"),
        ("data.prompt=a cup", "in no caption"),
    ):
        with pytest.raises(UserError, match=message):
            train(tmp_path / "run", change)
        assert not (tmp_path / "run").exists()


def test_the_adapter_of_the_embedded_prior_is_at_most_two_percent_of_its_unet(tmp_path):
    words = [
        f"system.pretrained_model_name_or_path={EMBEDDED_PRIOR}",
        "data.image_size=64",
        "training.finish=[export]",
    ]
    train(tmp_path / "run", *words, steps=1)
    adapter = tmp_path / "run" / "pytorch_lora_weights.safetensors"
    unet = load_pipeline(EMBEDDED_PRIOR, parts=("unet",)).unet
    stored = sum(2 * one.numel() for one in unet.parameters())
    assert adapter.stat().st_size < 0.02 * stored
    load_adapter(unet, tmp_path / "run")
