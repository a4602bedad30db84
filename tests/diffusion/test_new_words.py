"""Words that are new to a text encoder: tokens, rows that train, and their file."""

import pytest
import torch

from maquette.core.errors import UserError
from maquette.diffusion.load import TEXT_PARTS, load_pipeline
from maquette.diffusion.new_words import add_words, learn_words, placeholders, read_words, save_words

PRIORS = ("maquette/random-tiny", "maquette/toyworld")


def parts(name):
    pipeline = load_pipeline(name, parts=TEXT_PARTS)
    return pipeline.tokenizer, pipeline.text_encoder


def hidden(tokenizer, encoder, text):
    tokens = tokenizer(text, padding="max_length", max_length=16, return_tensors="pt").input_ids
    return encoder(tokens)[0]


def test_placeholders():
    assert placeholders(["a <new1> mug", "<new1> and <my-cat>", "a < b > c"]) == ["<new1>", "<my-cat>"]


@pytest.mark.parametrize("prior", PRIORS)
def test_a_new_word_begins_as_the_known_one_and_its_row_is_all_that_trains(prior):
    tokenizer, encoder = parts(prior)
    known = hidden(tokenizer, encoder, "a duck" if prior == PRIORS[1] else "a d")
    table = learn_words(tokenizer, encoder, {"<new1>": "duck" if prior == PRIORS[1] else "d"})
    new = hidden(tokenizer, encoder, "a <new1>")
    torch.testing.assert_close(new, known)
    new.square().sum().backward()
    assert table.rows.grad is not None and table.rows.grad.abs().sum() > 0
    assert [name for name, one in encoder.named_parameters() if one.requires_grad] == [
        next(name for name, one in encoder.named_parameters() if one is table.rows)
    ]


def test_two_words_each_with_a_row_of_its_own():
    tokenizer, encoder = parts(PRIORS[1])
    table = learn_words(tokenizer, encoder, {"<new1>": "duck", "<new2>": "red car"})
    words = torch.tensor([[tokenizer.convert_tokens_to_ids(word) for word in ("<new2>", "duck", "<new1>")]])
    found = table(words)[0]
    assert torch.equal(found[0], table.rows[1]) and torch.equal(found[2], table.rows[0])
    assert torch.equal(found[1], table.table.weight[words[0, 1]])


@pytest.mark.parametrize("prior", PRIORS)
def test_the_file_brings_the_word_to_another_encoder(prior, tmp_path):
    tokenizer, encoder = parts(prior)
    table = learn_words(tokenizer, encoder, {"<new1>": "a"})
    with torch.no_grad():
        table.rows += 0.1 * torch.randn(table.rows.shape)
    learned = hidden(tokenizer, encoder, "the <new1> a")
    path = save_words(tmp_path / "words.safetensors", {"<new1>": table.rows[0]})
    tokenizer, encoder = parts(prior)
    add_words(tokenizer, encoder, read_words(path))
    torch.testing.assert_close(hidden(tokenizer, encoder, "the <new1> a"), learned)


def test_diffusers_reads_the_file(tmp_path):
    pipeline = load_pipeline(PRIORS[0])
    row = torch.randn(32)
    save_words(tmp_path / "learned_embeds.safetensors", {"<new1>": row})
    pipeline.load_textual_inversion(str(tmp_path))
    token = pipeline.tokenizer.convert_tokens_to_ids("<new1>")
    assert torch.equal(pipeline.text_encoder.get_input_embeddings().weight[token], row)


def test_what_cannot_be_learned_is_refused(tmp_path):
    tokenizer, encoder = parts(PRIORS[1])
    with pytest.raises(UserError, match="'zebra'"):
        learn_words(tokenizer, encoder, {"<new1>": "zebra"})
    with pytest.raises(UserError, match="mark of the tokenizer"):
        learn_words(tokenizer, encoder, {"<pad>": "duck"})
    with pytest.raises(UserError, match="another model"):
        add_words(tokenizer, encoder, {"<new1>": torch.zeros(7)})
    (tmp_path / "torn.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(UserError, match=r"torn\.safetensors"):
        read_words(tmp_path / "torn.safetensors")
