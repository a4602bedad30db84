import pytest
import torch

from maquette.core.errors import UserError
from maquette.diffusion.load import load_pipeline
from maquette.diffusion.word_alignment import align_prompts, changed_words, token_indices, word_spans


@pytest.fixture(scope="module", params=["maquette/toyworld", "maquette/random-tiny"])
def tokenizer(request):
    return load_pipeline(request.param, parts=("tokenizer",)).tokenizer


def test_every_word_knows_its_tokens(tokenizer):
    spans = word_spans(tokenizer, "a red car , side")
    assert [word for word, _ in spans] == ["a", "red", "car", ",", "side"]
    edges = [edge for _, span in spans for edge in span]
    assert edges == sorted(edges) and all(first < last for _, (first, last) in spans)


def test_the_same_prompt_stands_for_itself(tokenizer):
    alignment = align_prompts(tokenizer, "a red car", "a red car")
    assert torch.equal(alignment.mapper, torch.eye(tokenizer.model_max_length))
    assert alignment.kept.min() == 1


def test_a_swapped_word_takes_the_place_of_the_old_one(tokenizer):
    alignment = align_prompts(tokenizer, "a red car", "a blue car")
    old, new = (dict(word_spans(tokenizer, text)) for text in ("a red car", "a blue car"))
    (a, b), (c, d) = old["red"], new["blue"]
    assert alignment.kept.min() == 1
    assert alignment.mapper[a:b, c:d].min() > 0 or torch.equal(alignment.mapper[a:b, c:d], torch.eye(b - a))
    probabilities = torch.rand(2, 5, tokenizer.model_max_length).softmax(-1)
    carried = alignment.carried(probabilities)
    torch.testing.assert_close(carried.sum(-1), probabilities.sum(-1))
    torch.testing.assert_close(carried[..., slice(*new["car"])], probabilities[..., slice(*old["car"])])


def test_without_replacement_and_where_words_are_added_they_are_new(tokenizer):
    swapped = align_prompts(tokenizer, "a red car", "a blue car", replace=False)
    new = dict(word_spans(tokenizer, "a blue car"))["blue"]
    assert swapped.kept[slice(*new)].max() == 0
    others = [span for word, span in word_spans(tokenizer, "a blue car") if word != "blue"]
    assert all(swapped.kept[slice(*span)].min() == 1 for span in others)
    longer = align_prompts(tokenizer, "a car", "a small red car")
    spans = dict(word_spans(tokenizer, "a small red car"))
    assert longer.kept[spans["small"][0] : spans["red"][1]].max() == 0
    assert longer.mapper[1, 1] == 1 and longer.kept[slice(*spans["car"])].min() == 1


def test_words_are_found_and_others_are_refused(tokenizer):
    spans = dict(word_spans(tokenizer, "a red car"))
    assert token_indices(tokenizer, "a red car", "red") == list(range(*spans["red"]))
    both = token_indices(tokenizer, "a red car", ["car", "red"])
    assert both == list(range(spans["red"][0], spans["car"][1])) or len(both) > 2
    with pytest.raises(UserError, match="'boat'"):
        token_indices(tokenizer, "a red car", "boat")


def test_what_changed_is_known_as_words_and_as_tokens(tokenizer):
    assert changed_words("a red car", "a shiny blue car") == (["red"], ["shiny", "blue"])
    assert changed_words("a red car", "A red car") == ([], [])
    one, other = "a red car , side view", "a blue car , side view"
    alignment = align_prompts(tokenizer, one, other)
    assert set(alignment.removed) >= set(token_indices(tokenizer, one, "red"))
    assert set(alignment.removed).isdisjoint(token_indices(tokenizer, one, ["car", "side"]))
    assert set(alignment.added) >= set(token_indices(tokenizer, other, "blue"))
    assert set(alignment.added).isdisjoint(token_indices(tokenizer, other, ["car", "side"]))
    assert align_prompts(tokenizer, one, one).removed == []
