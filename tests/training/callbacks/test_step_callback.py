"""Batches become steps, which is what callbacks count."""

from collections.abc import Callable

import pytest
from lightning.pytorch import LightningModule, Trainer

from maquette.training.callbacks.step_callback import StepCallback


class Recorder(StepCallback):
    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_step_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seen.append(self.step)


@pytest.mark.parametrize(
    ("begin", "each", "seen"), [(0, 1, [1, 2, 3, 4, 5, 6]), (0, 3, [1, 2]), (7, 2, [8, 9, 10])]
)
def test_a_step_ends_with_the_last_batch_that_makes_it(
    train: Callable[..., None], begin: int, each: int, seen: list[int]
) -> None:
    callback = Recorder()
    train(callback, begin, 6, each)
    assert callback.seen == seen
