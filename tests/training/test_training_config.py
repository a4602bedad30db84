import pytest

from maquette.core.errors import ConfigError
from maquette.core.structured import parse_structured
from maquette.training.config import TrainingConfig


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"ema": {"decay": 1.0}}, "training.ema.decay"),
        ({"ema": {"every": 0}}, "training.ema.every"),
        ({"collapse": {"every": 0}}, "training.collapse.every"),
        ({"collapse": {"patience": -1}}, "training.collapse.patience"),
        ({"checkpoint_every": 0}, "training.checkpoint_every"),
        ({"loggers": ["comet"]}, "training.loggers"),
    ],
)
def test_values_that_cannot_be_are_refused(values: dict, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_structured(TrainingConfig, values, key="training")
    assert caught.value.key == key
