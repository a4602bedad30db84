import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertTokenizer

from maquette.core.errors import ModelUnavailableError, UserError
from maquette.diffusion.debiasing import debiased, view_probabilities

VIEWS = ("side", "front", "back", "overhead")
WORDS = "a this image is depicting view of smiling dog face".split()


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    """A folder with a small masked language model of random weights."""
    folder = tmp_path_factory.mktemp("bert")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *VIEWS, *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizer.from_pretrained(folder).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        initializer_range=1.0,
    )
    BertForMaskedLM(config).save_pretrained(folder)
    return folder


def reader(likely):
    """A language model for which each word makes some views more or less likely."""

    def probabilities(prompts):
        rows = []
        for prompt in prompts:
            row = torch.ones(len(VIEWS), dtype=torch.float64)
            for word in prompt.split():
                for view, factor in likely.get(word, {}).items():
                    row[VIEWS.index(view)] *= factor
            rows.append(row / row.sum())
        return torch.stack(rows)

    return probabilities


def test_a_word_goes_from_the_views_that_it_makes_unlikely():
    ask = reader({"smiling": {"front": 4.0}, "dog": {"overhead": 0.5}})
    found = debiased("a smiling dog", 4, ask)
    assert found == ["a dog", "a smiling dog", "a dog", "a"]


def test_a_view_that_the_prompt_names_goes_from_the_others():
    found = debiased("front of a car", 4, reader({"front": {"front": 9.0}}))
    assert found == ["of a car", "front of a car", "of a car", "of a car"]


def test_a_small_difference_keeps_the_word():
    """p / ((p + p_w) / 2) is 0.952 for a word that takes a view from 0.275 to 0.25, and 0.945 from 0.279."""
    for before, kept in ((0.275, True), (0.279, False)):
        rows = torch.tensor([[0.25, 0.75], [before, 1 - before]], dtype=torch.float64)
        found = debiased("red car", 2, lambda prompts, rows=rows: rows[: len(prompts)], [0])
        assert found == ["red car" if kept else "car", "red car"]


def test_only_the_words_that_may_go_are_asked_about():
    asked = []

    def ask(prompts):
        asked.extend(prompts)
        return reader({"smiling": {"front": 4.0}, "dog": {"front": 4.0}})(prompts)

    assert debiased("a smiling dog", 4, ask, [2])[0] == "a smiling"
    assert asked == ["a smiling dog", "a smiling"]


def test_a_view_that_would_lose_every_word_keeps_them_all(caplog):
    with caplog.at_level("WARNING"):
        found = debiased("portrait", 4, reader({"portrait": {"back": 0.1}}))
    assert found == ["portrait"] * 4
    assert "keeps them all" in caplog.text


def test_probabilities_are_the_models_answers_at_the_mask(language_model):
    prompts = ["a smiling dog", "a dog"]
    found = view_probabilities(str(language_model), VIEWS)(prompts)
    tokenizer = BertTokenizer.from_pretrained(language_model)
    network = BertForMaskedLM.from_pretrained(language_model).eval()
    for row, prompt in zip(found, prompts, strict=True):
        tokens = tokenizer(f"this image is depicting a [MASK] view of {prompt}", return_tensors="pt")
        position = tokens.input_ids[0].tolist().index(tokenizer.mask_token_id)
        everything = network(**tokens).logits[0, position].double().softmax(-1)
        views = everything[tokenizer.convert_tokens_to_ids(list(VIEWS))]
        torch.testing.assert_close(row, views / views.sum(), rtol=1e-5, atol=1e-6)


def test_a_model_that_does_not_know_a_view_is_refused(language_model):
    with pytest.raises(UserError, match="does not know the view 'underneath'"):
        view_probabilities(str(language_model), ["side", "underneath"])


@pytest.mark.parametrize("name", ["./nowhere", "nobody/has-this-model"])
def test_a_model_that_is_not_there_is_named_with_what_to_do(name):
    with pytest.raises(ModelUnavailableError, match="use_prompt_debiasing=false"):
        view_probabilities(name, VIEWS)


def test_a_damaged_model_is_named(language_model, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="cannot be read"):
        view_probabilities(str(tmp_path), VIEWS)
