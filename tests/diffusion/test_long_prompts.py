import pytest
import torch

from maquette.diffusion.embedded import build_tokenizer
from maquette.diffusion.long_prompts import encode_windows, windows
from maquette.diffusion.random_parts import byte_tokenizer
from maquette.diffusion.text import encode_prompts

NAME = "maquette/random-tiny"
LONG = "a very long description of a thing, with many parts of every kind, none of them left out or cut"
"""95 bytes, where 75 fit."""


@pytest.fixture
def words():
    """A tokenizer of words, of which 14 fit."""
    return build_tokenizer(["one", "two", "end"])


def test_what_fits_stays_as_it_is(words):
    prompt = "  one   two "
    assert windows(words, prompt) == [prompt]
    assert windows(words, "") == [""]
    assert windows(words, " ".join(["one"] * 14)) == [" ".join(["one"] * 14)]


@pytest.mark.parametrize("count", [15, 28, 29, 70])
def test_every_word_is_in_one_window_and_each_window_fits(words, count):
    prompt = " ".join(f"{'one' if i % 3 else 'two'}" for i in range(count))
    found = windows(words, prompt)
    assert " ".join(found) == prompt
    assert len(found) == -(-count // 14)
    assert all(len(words(one).input_ids) <= words.model_max_length for one in found)


def test_a_window_ends_with_a_clause_where_one_is_near():
    near = "a car that is red and blue and white and green and yellow, and has a very long list of things"
    assert windows(byte_tokenizer(), near)[0].endswith("yellow,")
    far = "a car, " + "and more of it " * 6
    assert not windows(byte_tokenizer(), far)[0].endswith("car,")


def test_a_word_that_does_not_fit_is_alone():
    found = windows(byte_tokenizer(), f"a {'x' * 100} car")
    assert found == ["a", "x" * 100, "car"]


@pytest.mark.parametrize("name", [NAME, f"{NAME}?family=pixel", f"{NAME}?family=flow"])
def test_windows_stand_side_by_side_and_short_prompts_end_empty(name):
    found = encode_windows(name, [LONG, "a car", ""]).hidden
    first, second = windows(byte_tokenizer(), LONG)
    parts = [encode_prompts(name, [left, right]).hidden for left, right in ((first, second), ("a car", ""))]
    for row, part in zip(found, parts, strict=False):
        torch.testing.assert_close(row, torch.cat([part[0], part[1]]))
    torch.testing.assert_close(found[2], encode_prompts(name, ["", ""]).hidden.flatten(0, 1))


def test_the_pooled_vector_is_that_of_the_first_window():
    name = f"{NAME}?encoders=2"
    found = encode_windows(name, [LONG, "a car"])
    expected = encode_prompts(name, [windows(byte_tokenizer(), LONG)[0], "a car"])
    torch.testing.assert_close(found.pooled, expected.pooled)


def test_short_prompts_are_encoded_as_ever():
    assert torch.equal(encode_windows(NAME, ["a car", ""]).hidden, encode_prompts(NAME, ["a car", ""]).hidden)


def test_nothing_is_said_to_be_ignored(caplog):
    with caplog.at_level("INFO"):
        encode_windows(NAME, [LONG])
    assert "in 2 windows" in caplog.text and "ignored" not in caplog.text
