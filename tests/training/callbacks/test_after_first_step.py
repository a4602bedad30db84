from collections.abc import Callable

from maquette.training.callbacks.after_first_step import AfterFirstStep


def test_what_follows_the_first_step_is_done_once(train: Callable[..., None]) -> None:
    done: list[str] = []
    callback = AfterFirstStep(lambda: done.append("act"))
    train(callback, 5, 2, 3)
    assert done == []
    train(callback, 5, 9, 3)
    assert done == ["act"]
