"""How signals end a run; the first step of a run that replaces another is in test_replacing."""

import os
import signal
from typing import Any

import pytest

from maquette.training.run import run


@pytest.fixture
def at_second_step(toy: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has signals come in the second step."""
    original = toy.system.training_step

    def arrange(*signals: int) -> None:
        def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
            for number in signals if self.global_step == 1 else ():
                os.kill(os.getpid(), number)
            return original(self, batch, batch_idx)

        monkeypatch.setattr(toy.system, "training_step", training_step)

    return arrange


def test_sigterm_leaves_a_checkpoint_and_no_export_and_the_run_goes_on(toy: Any, at_second_step: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)
    at_second_step(signal.SIGTERM)
    result = run(toy(), "train")
    assert (result.status, result.global_step, result.files) == ("terminated", 2, [])
    assert signal.getsignal(signal.SIGTERM) is before
    at_second_step()
    assert run(toy(), "train", resume=result.trial_dir).status == "done"


def test_sigterm_twice_ends_at_once_with_its_exit_code(toy: Any, at_second_step: Any) -> None:
    at_second_step(signal.SIGTERM, signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        run(toy(), "train")
    assert ended.value.code == 128 + signal.SIGTERM


def test_ctrl_c_is_no_sigterm(toy: Any, at_second_step: Any) -> None:
    at_second_step(signal.SIGINT)
    result = run(toy("training.finish=[]"), "train")
    assert result.interrupted and not result.terminated and result.global_step == 2
