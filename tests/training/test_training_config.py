import re

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
        ({"collapse": {"gradient_factor": float("nan")}}, "training.collapse.gradient_factor"),
        ({"collapse": {"empty_below": -0.1}}, "training.collapse.empty_below"),
        ({"collapse": {"full_above": float("nan")}}, "training.collapse.full_above"),
        ({"collapse": {"empty_below": 0.9, "full_above": 0.5}}, "training.collapse.full_above"),
        ({"growth": {"megabytes": float("nan")}}, "training.growth.megabytes"),
        ({"checkpoint_every": 0}, "training.checkpoint_every"),
        ({"loggers": ["comet"]}, "training.loggers"),
    ],
)
def test_values_that_cannot_be_are_refused(values: dict, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_structured(TrainingConfig, values, key="training")
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"precision_on_cpu": "16-mixd"}, r"got: '16-mixd' \(str\)\n  expected: one of: 32, .*mean 16-mixed"),
        (
            {"loggers": ["csv", "tensorbord"]},
            r"expected: a list of: csv, .*\n  Hint: did you mean tensorboard\?$",
        ),
        ({"compile_mode": "slow"}, "expected: one of: default, reduce-overhead, max-autotune$"),
    ],
)
def test_names_are_told_with_near_ones(values: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=re.compile(said, re.DOTALL)):
        parse_structured(TrainingConfig, values, key="training")
