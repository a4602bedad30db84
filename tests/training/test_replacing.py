"""What becomes of an old run when the new one breaks, or is killed, before it has shown that it works."""

import itertools
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import maquette.training.replacing as replacing
from maquette.apps.main import main
from maquette.core.errors import ConfigError, RunFailed, UserError
from maquette.core.paths import remove_leftovers
from maquette.training.replacing import OldRun
from maquette.training.run import run
from maquette.training.run_folder import RunFolder

QUICK = "training.finish=[]"
STAGES = "stages=[{name: coarse},{name: fine, trainer: {max_steps: 6}}]"


class Killed(BaseException):
    """Stands for the end of the process."""


def files(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def at_step(toy: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has something happen in a step, before the optimizer has done anything."""
    original = toy.system.training_step

    def arrange(step: int, act: Callable[[], object], stage: str = "") -> None:
        def training_step(self: Any, batch: Any, batch_idx: int) -> Any:
            if self.global_step == step and stage in str(self.get_save_dir()):
                act()
            return original(self, batch, batch_idx)

        monkeypatch.setattr(toy.system, "training_step", training_step)

    return arrange


def press() -> None:
    """Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)


def fail(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize("stages", [False, True], ids=["run", "stages"])
def test_a_mistake_in_the_first_step_costs_nothing(
    toy: Any, folder: Path, at_step: Any, stages: bool
) -> None:
    words = [QUICK, *([STAGES] if stages else [])]
    run(toy(*words), "train")
    (folder / "mine.txt").write_text("keep")
    before = files(folder)
    at_step(0, fail(UserError("a mistake")))
    with pytest.raises(UserError):
        run(toy(*words, "seed=2"), "train", overwrite=True)
    assert files(folder) == before


def test_a_fault_in_the_first_step_leaves_both_runs(
    toy: Any, folder: Path, at_step: Any, caplog: pytest.LogCaptureFixture
) -> None:
    run(toy(QUICK), "train")
    before = files(folder)
    at_step(0, fail(ZeroDivisionError()))
    with pytest.raises(RunFailed):
        run(toy(QUICK, "seed=2"), "train", overwrite=True)
    assert files(folder / ".replaced") == before and f"kept in {folder / '.replaced'}" in caplog.text
    assert "ZeroDivisionError" in (folder / "error.log").read_text()
    at_step(0, fail(UserError("a mistake")))
    with pytest.raises(UserError):
        run(toy(QUICK, "seed=3"), "train", overwrite=True)
    assert files(folder) == before


@pytest.mark.parametrize("batches", [1, 2])
def test_the_old_run_is_there_until_the_new_one_has_a_checkpoint(
    toy: Any, folder: Path, at_step: Any, batches: int
) -> None:
    run(toy(QUICK), "train")
    before, seen = files(folder), []
    words = ("training.checkpoint_every=2", f"trainer.accumulate_grad_batches={batches}")
    for step, old in ((1, before), (2, {})):
        seen.clear()
        at_step(step, lambda: seen.append(files(folder / ".replaced")))
        run(toy(QUICK, *words), "train", overwrite=True)
        assert seen == [old] * batches and not list(folder.glob(".*"))
        before = files(folder)


def test_of_three_runs_of_which_two_were_killed_none_is_lost(folder: Path) -> None:
    run_folder = RunFolder(folder)
    runs = []
    for number in (1, 2):
        run_folder.write_configs(f"a: {number}\n", None)
        run_folder.ckpts.mkdir(parents=True)
        run_folder.last_checkpoint.write_text(str(number))
        runs.append({path: text for path, text in files(folder).items() if path.parts[0] != ".replaced"})
        OldRun(run_folder).set_aside()
    assert files(folder / ".replaced" / ".replaced") == runs[0]
    OldRun(run_folder).settle()  # killed before the third one had a recipe
    assert files(folder / ".replaced") == runs[0]
    run_folder.last_checkpoint.unlink()
    third = OldRun(run_folder)
    third.set_aside()
    third.recover(KeyboardInterrupt())
    assert files(folder) == runs[0]


@pytest.mark.parametrize("value", ["{}/ckpts/last.ckpt", "{}/ckpts/last.ckpt:layer", "mesh:{}/mesh.glb"])
def test_a_run_that_the_new_one_begins_with_is_not_replaced(toy: Any, folder: Path, value: str) -> None:
    run(toy(QUICK), "train")
    (folder / "mesh.glb").write_bytes(b"")
    before = files(folder)
    with pytest.raises(ConfigError, match=r"system\.weights[\s\S]*which is replaced"):
        run(toy(QUICK, f"system.weights={value.format(folder)}"), "train", overwrite=True)
    assert files(folder) == before


def test_ctrl_c_twice_in_the_first_step_brings_the_old_run_back(toy: Any, folder: Path, at_step: Any) -> None:
    run(toy(QUICK), "train")
    before = files(folder)
    at_step(0, lambda: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)])
    with pytest.raises(KeyboardInterrupt):
        run(toy(QUICK), "train", overwrite=True)
    assert files(folder) == before


def test_ctrl_c_once_in_the_first_step_brings_the_old_run_back(
    toy: Any, folder: Path, at_step: Any, several: ModuleType
) -> None:
    run(toy(QUICK), "train")
    before = files(folder)
    at_step(0, press)
    for words in ((), ("checkpoint={every_n_train_steps: 1}",), ("trainer.accumulate_grad_batches=3",)):
        with pytest.raises(KeyboardInterrupt):
            run(toy(QUICK, "seed=2", *words), "train", overwrite=True)
        assert files(folder) == before, words
    both = toy(QUICK, "trainer.devices=2")
    assert all(several.in_processes(lambda: run(both, "train", overwrite=True)))
    assert files(folder) == before


def test_ctrl_c_after_the_first_step_keeps_both_until_the_new_run_goes_on(
    toy: Any, folder: Path, at_step: Any
) -> None:
    run(toy(QUICK), "train")
    before = files(folder)
    at_step(1, press)
    assert run(toy(QUICK, "seed=2"), "train", overwrite=True).interrupted
    assert "seed: 2" in (folder / "config.yaml").read_text() and files(folder / ".replaced") == before
    run(toy(QUICK, "seed=2"), "train", resume=folder)
    assert not list(folder.glob(".*"))


def test_ctrl_c_once_in_the_first_step_of_a_new_run_keeps_it(toy: Any, folder: Path, at_step: Any) -> None:
    at_step(0, press)
    assert run(toy(QUICK), "train", overwrite=True).global_step == 1
    assert (folder / "ckpts" / "last.ckpt").is_file()


@pytest.mark.parametrize("how", ["ctrl-c", "time"])
@pytest.mark.parametrize("stage", ["coarse", "fine"])
def test_a_stage_that_ends_early_says_where_the_old_run_is(
    toy: Any, folder: Path, at_step: Any, caplog: pytest.LogCaptureFixture, how: str, stage: str
) -> None:
    run(toy(QUICK, STAGES), "train")
    before = files(folder)
    at_step(0, press if how == "ctrl-c" else lambda: None, stage)
    budget = [f"stages.{stage}.training.time_budget=0.000001"] if how == "time" else []
    result = run(toy(QUICK, STAGES, *budget), "train", overwrite=True)
    assert result.status != "done" and result.global_step == 1
    assert files(folder / ".replaced") == before
    assert caplog.text.count(f"kept in {folder / '.replaced'}") == 1
    at_step(0, lambda: None)
    assert run(toy(QUICK, STAGES), "train", resume=folder).status == "done"
    assert not list(folder.rglob(".*"))


@pytest.mark.parametrize("stages", [False, True], ids=["run", "stages"])
def test_a_mistake_in_the_first_step_of_a_first_run_leaves_what_the_user_has_there(
    toy: Any, folder: Path, at_step: Any, stages: bool
) -> None:
    (folder / "notes").mkdir(parents=True)
    (folder / "notes" / "mine.txt").write_text("keep")
    words = [QUICK, *([STAGES] if stages else [])]
    at_step(0, fail(UserError("a mistake")))
    with pytest.raises(UserError, match="a mistake"):
        run(toy(*words), "train", overwrite=True)
    assert [path.name for path in folder.iterdir()] == ["notes"]
    assert files(folder) == {Path("notes/mine.txt"): b"keep"}


def test_a_mistake_in_a_later_stage_keeps_both_until_it_is_mended(
    toy: Any, folder: Path, at_step: Any, caplog: pytest.LogCaptureFixture
) -> None:
    run(toy(QUICK, STAGES), "train")
    before = files(folder)
    with pytest.raises(UserError, match=r"Adm[\s\S]*in stage 1 \(fine\)"):
        run(toy(QUICK, STAGES, "stages.fine.system.optimizer.name=Adm"), "train", overwrite=True)
    assert files(folder / ".replaced") == before and f"kept in {folder / '.replaced'}" in caplog.text
    assert run(toy(QUICK, STAGES), "train", resume=folder).global_step == 6
    assert not list(folder.rglob(".*"))


def test_going_back_to_a_stage_costs_the_later_ones_only_when_it_works(
    toy: Any, folder: Path, at_step: Any
) -> None:
    every = "checkpoint={every_n_train_steps: 1, save_top_k: -1, filename: '{step}'}"
    words = (QUICK, STAGES, every, "training.checkpoint_every=1")
    run(toy(*words), "train")
    fine = folder / "stages" / "01-fine"
    before = files(fine)
    chosen = folder / "stages" / "00-coarse" / "ckpts" / "step=2.ckpt"
    at_step(2, fail(UserError("a mistake")), "coarse")
    with pytest.raises(UserError):
        run(toy(*words), "train", resume=chosen)
    assert files(fine) == before
    at_step(3, fail(UserError("a mistake")), "coarse")
    with pytest.raises(UserError):
        run(toy(*words), "train", resume=chosen)
    assert files(fine) == {}


def kill_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """End before the ``number``-th file or folder is renamed or removed."""
    calls = itertools.count()

    def ends(original: Any) -> Any:
        def act(*args: Any, **kwargs: Any) -> Any:
            if next(calls) == number:
                raise Killed
            return original(*args, **kwargs)

        return act

    monkeypatch.setattr(Path, "replace", ends(Path.replace))
    monkeypatch.setattr(shutil, "rmtree", ends(shutil.rmtree))


@pytest.mark.parametrize("at", range(5))
@pytest.mark.parametrize("then", ["set aside", "put back"])
def test_killed_at_any_moment_there_is_one_whole_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, then: str, at: int
) -> None:
    old = RunFolder(folder)
    old.write_configs("a: 1\n", None)
    old.write_command()
    before = files(folder)
    if then == "put back":
        OldRun(old).set_aside()
        old.write_configs("a: 2\n", None)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, at)
        one = OldRun(old)
        one.set_aside()
        one.recover(KeyboardInterrupt())
    OldRun(old).settle()
    if OldRun(old).path.is_dir():
        assert files(OldRun(old).path) == before and old.recipe.read_text() == "a: 2\n"
    else:
        assert files(folder) == before


def test_killed_while_it_is_removed_it_is_no_run_any_more(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = RunFolder(folder)
    old.write_configs("a: 1\n", None)
    one = OldRun(old)
    one.set_aside()
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, 1)
        one.drop()
    remove_leftovers(folder)
    assert files(folder) == {}


@pytest.mark.parametrize("then", ["overwrite", "resume", "refuse"])
def test_killed_in_the_first_step_the_next_launch_knows_both(
    toy: Any, folder: Path, at_step: Any, several: ModuleType, caplog: pytest.LogCaptureFixture, then: str
) -> None:
    run(toy(QUICK), "train")
    before = files(folder)
    at_step(0, lambda: os.kill(os.getpid(), signal.SIGKILL))
    new = toy(QUICK, "seed=2")
    assert several.in_processes(lambda: run(new, "train", overwrite=True), 1) == [-signal.SIGKILL]
    assert files(folder / ".replaced") == before
    caplog.set_level("INFO", logger="maquette")
    at_step(0, fail(UserError("a mistake")) if then == "overwrite" else lambda: None)
    if then == "resume":
        run(toy(QUICK, "seed=2"), "train", resume=folder)
        assert not (folder / ".replaced").exists()
        assert "seed: 2" in (folder / "config.yaml").read_text()
        return
    with pytest.raises(UserError, match="not empty" if then == "refuse" else "a mistake"):
        run(toy(QUICK, "seed=3"), "train", overwrite=then == "overwrite")
    assert f"kept in {folder / '.replaced'}" in caplog.text
    assert files(folder / ".replaced" if then == "refuse" else folder) == before


def test_killed_before_the_new_recipe_was_there_the_old_run_is_resumed(
    toy: Any, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(toy(QUICK), "train")
    before = files(folder)
    OldRun(RunFolder(folder)).set_aside()
    assert main(["launch", "--resume", str(folder), "--train", "trainer.max_step=9"]) == 2
    assert files(folder) == before and "max_steps" in capsys.readouterr().err


def test_of_several_processes_the_first_one_brings_it_back(
    toy: Any, folder: Path, at_step: Any, several: ModuleType
) -> None:
    run(toy(QUICK), "train")
    before = files(folder)
    at_step(0, fail(UserError("a mistake")))
    codes = several.in_processes(lambda: run(toy(QUICK, "trainer.devices=2"), "train", overwrite=True))
    assert all(codes) and files(folder) == before


def test_who_does_not_lead_waits_until_the_old_run_is_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = RunFolder(folder)
    old.write_configs("a: 1\n", None)
    OldRun(old).set_aside()
    assert not old.recipe.is_file()
    leads = iter([False, True])
    monkeypatch.setattr(replacing, "is_leader", lambda: next(leads))
    monkeypatch.setattr(replacing.time, "sleep", lambda seconds: OldRun(old).settle())
    OldRun(old).settle()
    assert old.recipe.read_text() == "a: 1\n"
