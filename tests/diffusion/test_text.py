import shutil
import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file

from maquette.core.errors import UserError
from maquette.diffusion import text
from maquette.diffusion.embedded import build_tokenizer
from maquette.diffusion.load import load_pipeline
from maquette.diffusion.memory import Memory
from maquette.diffusion.random_pipeline import byte_tokenizer
from maquette.diffusion.text import (
    EmbeddingCache,
    empty_is_zero,
    encode_prompts,
    truncated_words,
    unknown_words,
)


@pytest.fixture
def loads(monkeypatch):
    """Counts how often a model is loaded."""
    calls = []

    def counted(*args, **kwargs):
        calls.append(args)
        return load_pipeline(*args, **kwargs)

    monkeypatch.setattr(text, "load_pipeline", counted)
    return calls


def test_one_encoder_gives_its_last_hidden_state():
    name = "maquette/random-tiny"
    pipeline = load_pipeline(name)
    ids = pipeline.tokenizer(["a car"], padding="max_length", return_tensors="pt").input_ids
    found = encode_prompts(name, ["a car"])
    assert found.pooled is None
    torch.testing.assert_close(found.hidden, pipeline.text_encoder(ids).last_hidden_state)


def test_two_encoders_give_both_and_a_pooled_vector():
    name = "maquette/random-tiny?encoders=2"
    pipeline = load_pipeline(name)
    ids = pipeline.tokenizer(["a car"], padding="max_length", return_tensors="pt").input_ids
    one = pipeline.text_encoder(ids, output_hidden_states=True)
    two = pipeline.text_encoder_2(ids, output_hidden_states=True)
    found = encode_prompts(name, ["a car"])
    torch.testing.assert_close(found.hidden, torch.cat([one.hidden_states[-2], two.hidden_states[-2]], -1))
    torch.testing.assert_close(found.pooled, two.text_embeds)


def test_rows_follow_the_prompts_whatever_the_batches(monkeypatch):
    monkeypatch.setattr(text, "BATCH", 2)
    prompts = ["a", "b", "a", "c", "d"]
    found = encode_prompts("maquette/random-tiny", prompts)
    for row, prompt in enumerate(prompts):
        alone = encode_prompts("maquette/random-tiny", [prompt])
        torch.testing.assert_close(found.hidden[row : row + 1], alone.hidden)


def test_the_encoder_is_loaded_only_for_new_prompts(saved_folder, loads):
    first = encode_prompts(str(saved_folder), ["a car", "a boat"])
    assert len(loads) == 1
    again = encode_prompts(str(saved_folder), ["a boat", "a car"])
    assert len(loads) == 1
    assert torch.equal(again.hidden, first.hidden.flip(0))
    encode_prompts(str(saved_folder), ["a car", "a hat"])
    assert len(loads) == 2
    encode_prompts(str(saved_folder), ["a car"], use_cache=False)
    assert len(loads) == 3


def test_the_cache_follows_the_content_of_the_encoder(saved_folder, tmp_path):
    folder = shutil.copytree(saved_folder, tmp_path / "copy")
    before = EmbeddingCache(str(folder), torch.float32).path("a car")
    assert before == EmbeddingCache(str(saved_folder), torch.float32).path("a car")
    weights = folder / "text_encoder" / "model.safetensors"
    save_file({key: one + 1 for key, one in load_file(weights).items()}, weights, {"format": "pt"})
    assert EmbeddingCache(str(folder), torch.float32).path("a car") != before
    assert EmbeddingCache(str(saved_folder), torch.bfloat16).path("a car") != before
    assert EmbeddingCache(str(saved_folder), torch.float32).path("a cat") != before


def test_a_damaged_cache_file_is_made_again(saved_folder, loads):
    first = encode_prompts(str(saved_folder), ["a car"])
    path = EmbeddingCache(str(saved_folder), torch.float32).path("a car")
    path.write_bytes(path.read_bytes()[:20])
    again = encode_prompts(str(saved_folder), ["a car"])
    assert len(loads) == 2
    assert torch.equal(first.hidden, again.hidden)
    encode_prompts(str(saved_folder), ["a car"])
    assert len(loads) == 2


def test_pooled_vectors_are_cached_too(tmp_path, loads):
    folder = str(tmp_path / "xl")
    load_pipeline("maquette/random-tiny?encoders=2").save_pretrained(folder)
    first, again = encode_prompts(folder, ["a"]), encode_prompts(folder, ["a"])
    assert len(loads) == 1
    assert torch.equal(first.pooled, again.pooled)


def test_which_models_have_zeros_for_no_text():
    assert empty_is_zero("maquette/random-tiny?encoders=2")
    assert not empty_is_zero("maquette/random-tiny")


def test_unknown_words_are_found_one_by_one():
    tokenizer = build_tokenizer(["a", "red", "car", "view", "front"])
    assert unknown_words(tokenizer, "a red zeppelin, front view of Zürich") == ["zeppelin", "Zürich"]
    assert unknown_words(tokenizer, "a red car, front view") == []
    assert unknown_words(byte_tokenizer(), "zeppelin") == []


def test_a_tokenizer_whose_unknown_token_is_the_end_knows_every_word():
    tokenizer = byte_tokenizer()
    tokenizer.unk_token = tokenizer.eos_token
    assert unknown_words(tokenizer, "zeppelin") == []


def test_the_end_that_does_not_fit_is_found():
    tokenizer = build_tokenizer(["one", "two"])
    fits = " ".join(["one"] * 14)
    assert truncated_words(tokenizer, fits) == ""
    assert truncated_words(tokenizer, f"{fits} two two") == "two two"


def test_warnings_about_a_long_prompt_stay_short(tmp_path, caplog):
    pipeline = load_pipeline("maquette/random-tiny")
    pipeline.register_modules(tokenizer=build_tokenizer(["red", "car"]))
    pipeline.save_pretrained(tmp_path / "words")
    with caplog.at_level("WARNING"):
        encode_prompts(str(tmp_path / "words"), [" ".join(f"word{n}" for n in range(500))])
    texts = [record.getMessage() for record in caplog.records if record.name.startswith("maquette")]
    assert len(texts) == 2 and all("..." in text and len(text) < 600 for text in texts)


def test_warnings_say_what_is_known_and_what_to_do(tmp_path, caplog):
    pipeline = load_pipeline("maquette/random-tiny")
    pipeline.register_modules(tokenizer=build_tokenizer(["red", "car"]))
    pipeline.save_pretrained(tmp_path / "words")
    with caplog.at_level("WARNING"):
        encode_prompts(str(tmp_path / "words"), ["a red zeppelin " + "car " * 20])
    unknown, cut = (record.getMessage() for record in caplog.records if record.name.startswith("maquette"))
    assert "'zeppelin'" in unknown and "car" in unknown.split("It knows:")[1] and "--prior" in unknown
    assert "16 tokens" in cut and "car car" in cut


def test_the_encoder_is_gone_when_its_work_is_done(monkeypatch):
    seen = []

    def load(*args, **kwargs):
        pipeline = load_pipeline(*args, **kwargs)
        if pipeline.text_encoder is not None:
            seen.append(weakref.ref(pipeline.text_encoder))
        return pipeline

    monkeypatch.setattr(text, "load_pipeline", load)
    encode_prompts("maquette/random-tiny", ["one", "two"])
    assert len(seen) == 1 and seen[0]() is None


def test_offloading_the_encoder_needs_a_gpu():
    with pytest.raises(UserError, match="needs a GPU"):
        encode_prompts("maquette/random-tiny", ["one"], memory=Memory.preset("sequential"))
