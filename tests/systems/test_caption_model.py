"""The language model of captions: what it learns, what it leaves, and that transformers' pipeline runs it."""

import json
from pathlib import Path

import pytest
import torch
from transformers import pipeline

from maquette.core.config import load_config
from maquette.core.errors import ConfigError
from maquette.core.loading import load_checkpoint
from maquette.core.random import RandomStreams
from maquette.data.loading import BatchSource, Place
from maquette.data.toyworld.caption_data import CaptionDataModule, Captions, KeyedBatches
from maquette.diffusion.caption_model import (
    build_caption_model,
    build_caption_tokenizer,
    load_caption_model,
    next_token_loss,
    tokenize_captions,
)
from maquette.systems.caption_model import CaptionModel
from maquette.training.run import run
from maquette.training.weights import averaged_state

WORDS = ["a", "red", "blue", "car", "view", "front"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captions") / "run"
    words = ["trainer.max_steps=60", "trainer.val_check_interval=60", "system.width=32", "system.layers=1"]
    result = run(
        load_config("caption-model", [*words, f"run_dir={folder}", "training.snapshot_code=false"]),
        mode="train",
    )
    assert result.global_step == 60
    return folder


def test_the_pipeline_of_transformers_writes_a_caption(trained: Path) -> None:
    write = pipeline("text-generation", model=str(trained / "caption-model"))
    text = write("a red car", max_new_tokens=8, do_sample=False)[0]["generated_text"]
    assert text.startswith("a red car, ") and " view, " in text


def test_what_it_left_is_what_it_read_back(trained: Path) -> None:
    samples = json.loads((trained / "save" / "samples.json").read_text())
    assert samples.keys() == {"a red", "an orange car,", "a"}
    assert all(text.startswith(beginning) for beginning, text in samples.items())


def test_what_it_left_is_the_running_average(trained: Path) -> None:
    content = load_checkpoint(trained / "ckpts" / "last.ckpt")
    wanted = averaged_state(content)
    kept, _ = load_caption_model(trained / "caption-model")
    parameters = dict(kept.named_parameters(prefix="network"))
    assert parameters and all(torch.equal(one, wanted[name]) for name, one in parameters.items())
    assert any(not torch.equal(one, content["state_dict"][name]) for name, one in parameters.items())


def test_padding_changes_nothing_and_a_word_sees_only_those_before_it() -> None:
    tokenizer = build_caption_tokenizer(WORDS, 8)
    model = build_caption_model(tokenizer, 16, 1, 2).eval()
    short, long = "a car", "a red car, front view"
    together = next_token_loss(model, *tokenize_captions(tokenizer, [short, long]))
    alone = [next_token_loss(model, *tokenize_captions(tokenizer, [text])) for text in (short, long)]
    counts = [3, 7]  # words and the end
    weighted = sum(loss * count for loss, count in zip(alone, counts, strict=True)) / sum(counts)
    torch.testing.assert_close(together, weighted)
    ids = torch.tensor([tokenizer(long).input_ids])
    changed = ids.clone()
    changed[0, -1] = tokenizer.vocab["blue"]
    before, after = model(ids).logits, model(changed).logits
    torch.testing.assert_close(before[:, :-1], after[:, :-1])
    assert not torch.equal(before[:, -1], after[:, -1])


def test_long_texts_are_cut_and_still_end() -> None:
    tokenizer = build_caption_tokenizer(WORDS, 4)
    ids, counts = tokenize_captions(tokenizer, ["a red blue car view front"])
    assert ids.shape == (1, 4) and ids[0, -1] == tokenizer.eos_token_id and counts.all()


def test_batches_are_keyed_by_the_step_and_shared_out() -> None:
    streams = RandomStreams(0)

    def batches(size: int, place: Place, first: int = 0) -> KeyedBatches:
        return KeyedBatches(len(Captions()), size, BatchSource(streams, lambda: first, place))

    whole = [batches(4, Place()).batch(step) for step in range(4)]
    resumed = iter(batches(4, Place(), first=2))
    assert [next(resumed), next(resumed)] == whole[2:]
    halves = [batches(2, Place(rank=rank, world=2)).batch(1) for rank in range(2)]
    parts = [batches(2, Place(accumulate=2)).batch(1, part) for part in range(2)]
    assert halves[0] + halves[1] == parts[0] + parts[1] == whole[1]


def test_the_split_depends_on_its_seed_alone_and_shares_nothing() -> None:
    def split(seed: int, batch: int) -> list[list[int]]:
        data = CaptionDataModule({"split_seed": seed, "batch_size": batch})
        return [list(one.indices) for one in data.splits]

    train, held_out = split(1, 8)
    assert not set(train) & set(held_out) and len(train) + len(held_out) == len(Captions())
    assert split(1, 16) == [train, held_out] != split(2, 8)


def test_workers_load_the_same_batches() -> None:
    def first(workers: int) -> list[list[str]]:
        data = CaptionDataModule({"batch_size": 4, "num_workers": workers}, RandomStreams(3))
        batches = iter(data.train_dataloader())
        return [next(batches) for _ in range(3)]

    assert first(0) == first(2)


@pytest.mark.parametrize(
    "given", [{"width": 30, "heads": 4}, {"layers": 0}, {"label_smoothing": 1.0}], ids=str
)
def test_sizes_that_cannot_be_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        CaptionModel(given)
