import pytest

from maquette.core.errors import UserError
from maquette.models.prompt_processors.prompt_library import library, resolve_prompt


def test_the_library_is_large_enough_and_has_no_doubles():
    assert len(library()) >= 60
    assert len(set(library())) == len(library())


def test_words_find_their_prompt():
    assert resolve_prompt("lib:red_mushroom") == "a red mushroom"
    assert resolve_prompt("lib:Corgi") == "a corgi in a space suit"


def test_other_prompts_stay_as_they_are():
    assert resolve_prompt("a lib:rary of red_things") == "a lib:rary of red_things"


def test_too_many_matches_are_listed():
    with pytest.raises(UserError, match="2 prompts of the library match") as caught:
        resolve_prompt("lib:mushroom")
    assert "a red mushroom" in str(caught.value) and "a purple mushroom" in str(caught.value)


def test_no_match_shows_near_ones():
    with pytest.raises(UserError, match="No prompt of the library") as caught:
        resolve_prompt("lib:golden_mushroom")
    assert "a red mushroom" in str(caught.value)
    with pytest.raises(UserError, match="No prompt of the library"):
        resolve_prompt("lib:zeppelin")
