import pytest

from maquette.diffusion.appearance import shape_words


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("a red mushroom", "a blue mushroom", []),
        ("a mushroom", "a shiny golden mushroom", []),
        ("a red chair made of wood", "a chair", []),
        ("a red mushroom", "A Red Mushroom", []),
        ("a red mushroom", "a red tree", ["mushroom", "tree"]),
        ("a red mushroom", "a red mushroom with a hat", ["hat"]),
        ("a tall red mushroom", "a blue mushroom", ["tall"]),
    ],
)
def test_words_that_may_mean_another_shape(source, target, words):
    assert shape_words(source, target) == words
