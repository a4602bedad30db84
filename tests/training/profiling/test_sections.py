"""Where the time goes, with a clock that is told the time."""

import pytest

from maquette.training.profiling import sections as module
from maquette.training.profiling.sections import SectionProfiler, Sections, part_of


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    time = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: time[0])
    return time


def test_the_innermost_part_is_charged_and_all_of_the_time_is(now: list[float]) -> None:
    sections = Sections()
    sections.start()
    now[0] = 1.0
    with sections.section("forward"):
        now[0] = 3.0
        with sections.section("render"):
            now[0] = 7.0
        now[0] = 8.0
    now[0] = 10.0
    assert sections.take() == {"engine": 3.0, "forward": 3.0, "render": 4.0}
    now[0] = 11.0
    assert sections.take() == {"engine": 1.0}


def test_nothing_is_measured_until_it_starts_and_after_it_stops(now: list[float]) -> None:
    sections = Sections()
    with sections.section("render"):
        now[0] = 1.0
    assert sections.seconds == {}
    sections.start()
    sections.stop()
    with sections.section("render"):
        now[0] = 2.0
    assert "render" not in sections.seconds


def test_a_part_that_raises_is_left(now: list[float]) -> None:
    sections = Sections()
    sections.start()
    with pytest.raises(ValueError, match="no"), sections.section("render"):
        now[0] = 2.0
        raise ValueError("no")
    now[0] = 5.0
    assert sections.take() == {"engine": 3.0, "render": 2.0}


def test_the_trainers_actions_are_parts_and_validation_is_one_whatever_happens_in_it(
    now: list[float],
) -> None:
    sections = Sections()
    profiler = SectionProfiler(sections)
    sections.start()
    profiler.start("[_TrainingEpochLoop].train_dataloader_next")
    now[0] = 1.0
    profiler.stop("[_TrainingEpochLoop].train_dataloader_next")
    with profiler.profile("[LightningModule]Toy.optimizer_step"):
        now[0] = 2.0
        with profiler.profile("[Strategy]SingleDeviceStrategy.backward"):
            now[0] = 5.0
    with profiler.profile("[LightningModule]Toy.on_validation_model_eval"):
        now[0] = 6.0
    with profiler.profile("[Callback]EMA.on_validation_start"):
        now[0] = 8.0
    with profiler.profile("[LightningModule]Toy.on_validation_model_train"):
        now[0] = 9.0
    assert sections.take() == {"data": 1, "optimiser": 1, "backward": 3, "engine": 2, "validation": 2}


@pytest.mark.parametrize(
    ("action", "part"),
    [
        ("[LightningModule]Toy.on_train_batch_start", "update"),
        ("[Strategy]DDPStrategy.on_train_batch_start", None),
        ("[Callback]EMA.on_train_batch_end", "callbacks"),
        ("[Strategy]DDPStrategy.training_step", "forward"),
        ("run_training_batch", None),
        ("save_checkpoint", "checkpoint"),
    ],
)
def test_parts_of_actions(action: str, part: str | None) -> None:
    assert part_of(action) == part
