"""What tests of callbacks share."""

from collections.abc import Callable
from unittest.mock import Mock

import pytest
from lightning.pytorch import LightningModule, Trainer

from maquette.training.callbacks.step_callback import StepCallback


@pytest.fixture
def train() -> Callable[..., None]:
    """Tells a callback of ``batches`` batches, ``each`` of which make a step."""

    def act(callback: StepCallback, begin: int, batches: int, each: int) -> None:
        trainer, module = Mock(spec=Trainer, global_step=begin), Mock(spec=LightningModule)
        callback.on_train_start(trainer, module)
        for batch in range(batches):
            trainer.global_step = begin + (batch + 1) // each
            callback.on_train_batch_end(trainer, module, None, None, batch)

    return act
