"""Which checkpoint a run goes on from, and what is said about settings that have changed."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from maquette.apps.main import main
from maquette.core.errors import MissingFileError, UserError
from maquette.core.loading import load_checkpoint
from maquette.core.paths import atomic_path
from maquette.training.resuming import changed_settings, newest_checkpoint, set_later_aside
from maquette.training.run import run
from maquette.training.run_folder import RunFolder

QUICK = "training.finish=[]"
STAGES = "stages=[{name: coarse},{name: fine, trainer: {max_steps: 6}}]"


class Code:
    def __reduce__(self) -> Any:
        return (print, ("this must not run",))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


@pytest.fixture
def following(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    method = classmethod(lambda cls, cfg, checkpoint: {"weights": str(checkpoint)})
    monkeypatch.setattr(toy.system, "following", method)


def leave(path: Path, step: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": {}, "global_step": step, "optimizer_states": []}, path)


def tear(path: Path) -> None:
    """As if the machine had stopped: the size is right, the last bytes never reached the disk."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + bytes(len(content) - len(content) // 2))


@pytest.mark.parametrize("spoil", [tear, lambda path: path.write_bytes(b"")], ids=["torn", "empty"])
def test_newest_complete_checkpoint_is_found_among_all(
    toy: Any, folder: RunFolder, spoil: Any, caplog: pytest.LogCaptureFixture
) -> None:
    every = "checkpoint={every_n_train_steps: 1, save_top_k: -1, filename: '{step}'}"
    run(toy(QUICK, every, "training.checkpoint_every=2"), "train")
    names = sorted(path.name for path in folder.ckpts.iterdir())
    assert names == ["last.ckpt", "step=1.ckpt", "step=2.ckpt", "step=3.ckpt", "step=4.ckpt"]
    assert newest_checkpoint(folder) == folder.last_checkpoint
    spoil(folder.last_checkpoint)
    assert newest_checkpoint(folder) == folder.ckpts / "step=4.ckpt"
    spoil(folder.ckpts / "step=4.ckpt")
    assert newest_checkpoint(folder) == folder.ckpts / "step=3.ckpt"
    assert "step=4.ckpt is damaged" in caplog.text
    whole = load_checkpoint(folder.ckpts / "step=2.ckpt")["state_dict"]
    again = run(toy(QUICK, every), "train", resume=folder.root)
    assert again.global_step == 4 and whole.keys()
    assert newest_checkpoint(folder) == folder.last_checkpoint


def test_checkpoints_of_weights_alone_are_for_evaluation(toy: Any, folder: RunFolder) -> None:
    weights_only = "checkpoint={every_n_train_steps: 2, save_top_k: -1, save_weights_only: true}"
    run(toy(QUICK, weights_only), "train")
    folder.last_checkpoint.unlink()
    assert newest_checkpoint(folder) is None
    assert load_checkpoint(newest_checkpoint(folder, training=False))["global_step"] == 4


def test_damage_of_every_checkpoint_is_named_and_nothing_is_lost(toy: Any, folder: RunFolder) -> None:
    run(toy(QUICK), "train")
    tear(folder.last_checkpoint)
    with pytest.raises(UserError, match=r"Every checkpoint[\s\S]*last\.ckpt"):
        run(toy(QUICK), "train", resume=folder.root)
    assert folder.last_checkpoint.exists()


def test_a_changed_byte_is_found_out(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    torch.save({"state_dict": {"w": torch.arange(1000.0)}}, path)
    content = bytearray(path.read_bytes())
    at = content.index(torch.arange(1000.0).numpy().tobytes()[400:440])
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        load_checkpoint(path)


def test_run_without_a_checkpoint_begins_anew(
    toy: Any, folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    run(toy("training.finish=[export]", f"run_dir={folder.root}-whole"), "train")
    folder.write_configs(toy().to_yaml(), None)
    (folder.root / "csv_logs" / "version_0").mkdir(parents=True)
    with pytest.raises(OSError, match="killed"), atomic_path(folder.last_checkpoint):
        raise OSError("killed")
    part = folder.ckpts / ".part-0123456789ab-last.ckpt"
    part.write_bytes(b"half")
    with caplog.at_level("INFO", logger="maquette"):
        result = run(toy("training.finish=[export]"), "train", resume=folder.root)
    assert "begins anew" in caplog.text and result.global_step == 4
    assert not part.exists() and sorted(path.name for path in folder.ckpts.iterdir()) == ["last.ckpt"]
    answer = (Path(f"{folder.root}-whole") / "answer.txt").read_text()
    assert (folder.root / "answer.txt").read_text() == answer


def test_there_is_nothing_to_evaluate_before_the_first_checkpoint(toy: Any, folder: RunFolder) -> None:
    folder.write_configs(toy().to_yaml(), None)
    with pytest.raises(MissingFileError, match="had not written one yet"):
        run(toy(), "export", resume=folder.root)


def test_a_folder_that_is_no_run_is_not_resumed(toy: Any, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("keep")
    with pytest.raises(UserError, match="holds no run"):
        run(toy(), "train", resume=tmp_path / "mine")


def test_code_in_a_checkpoint_is_refused_with_a_sentence(
    toy: Any, folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    run(toy(QUICK), "train")
    evil = folder.ckpts / "evil.ckpt"
    torch.save({**load_checkpoint(folder.last_checkpoint), "extra": Code()}, evil)
    assert main(["launch", "--resume", str(evil)]) == 2
    shown = capsys.readouterr()
    assert "could run code" in shown.err and "this must not run" not in shown.out + shown.err
    assert "Traceback" not in shown.err
    torch.save({**load_checkpoint(folder.last_checkpoint), "extra": Code()}, folder.last_checkpoint)
    with pytest.raises(UserError, match="Every checkpoint"):
        newest_checkpoint(folder)


def test_changed_settings_are_told(toy: Any, folder: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    run(toy(QUICK), "train")
    with caplog.at_level("INFO", logger="maquette"):
        run(toy(QUICK), "train", resume=folder.root)
        assert "other settings" not in caplog.text
        run(toy(QUICK, "trainer.max_steps=5", "seed=1"), "train", resume=folder.root)
    assert "trainer.max_steps: 4 -> 5" in caplog.text and "seed: 0 -> 1" in caplog.text
    assert len([one for one in caplog.messages if "other settings" in one]) == 1
    assert changed_settings(folder, toy(QUICK, "trainer.max_steps=5", "seed=1")) == []


def test_stages_go_on_in_their_own_folder(
    toy: Any, folder: RunFolder, tmp_path: Path, following: None
) -> None:
    run(toy(STAGES, QUICK), "train")
    with pytest.raises(MissingFileError, match="gone"):
        run(toy(STAGES, QUICK), "train", resume=tmp_path / "gone")
    elsewhere = toy(STAGES, QUICK, f"run_dir={tmp_path / 'other'}")
    with pytest.raises(UserError, match="its own folder"):
        run(elsewhere, "train", resume=folder.root)
    assert not (tmp_path / "other").exists()


def test_changes_of_a_finished_stage_are_refused(toy: Any, folder: RunFolder, following: None) -> None:
    run(toy(STAGES, QUICK), "train")
    recipe = folder.recipe.read_text()
    with pytest.raises(UserError, match=r"coarse[\s\S]*lambda_fit: \[0, 1.0, 2.0, 4\] -> 3.0"):
        run(toy(STAGES, QUICK, "system.loss.lambda_fit=3.0"), "train", resume=folder.root)
    assert folder.recipe.read_text() == recipe
    more = toy(STAGES, QUICK, "stages.fine.trainer.max_steps=7", "stages.fine.system.loss.lambda_fit=3.0")
    assert run(more, "train", resume=folder.root).global_step == 7


def test_a_run_of_stages_goes_on_where_its_folder_was_moved(
    toy: Any, folder: RunFolder, tmp_path: Path, following: None
) -> None:
    run(toy(STAGES, QUICK), "train")
    shutil.move(folder.root, tmp_path / "moved")
    config = toy(STAGES, QUICK, "stages.fine.trainer.max_steps=7", f"run_dir={tmp_path / 'moved'}")
    assert run(config, "train", resume=tmp_path / "moved").global_step == 7


def test_who_goes_back_does_not_go_on_with_what_was_later(toy: Any, folder: RunFolder) -> None:
    every = "checkpoint={every_n_train_steps: 1, save_top_k: -1, filename: '{step}'}"
    run(toy(QUICK, every), "train")
    back = toy(QUICK, "trainer.max_steps=3", "training.checkpoint_every=5")
    run(back, "train", resume=folder.ckpts / "step=2.ckpt")
    assert sorted(path.name for path in (folder.ckpts / "later").iterdir()) == [
        "3-step=3.ckpt", "4-last.ckpt", "4-step=4.ckpt",
    ]  # fmt: skip
    found = newest_checkpoint(folder)
    assert found == folder.last_checkpoint and load_checkpoint(found)["global_step"] == 3


def test_who_goes_back_again_loses_nothing_of_what_was_later(folder: RunFolder) -> None:
    for steps in (4, 3, 4):
        leave(folder.ckpts / "step=2.ckpt", 2)
        leave(folder.last_checkpoint, steps)
        set_later_aside(folder, folder.ckpts / "step=2.ckpt")
    names = sorted(path.name for path in (folder.ckpts / "later").iterdir())
    assert names == ["3-last.ckpt", "4-last-2.ckpt", "4-last.ckpt"]


def test_a_branch_begins_again_where_it_branched_off(toy: Any, folder: RunFolder, tmp_path: Path) -> None:
    run(toy(QUICK), "train")
    branch = RunFolder(tmp_path / "branch")
    config = toy(QUICK, "trainer.max_steps=6", f"run_dir={branch.root}")
    run(config, "train", resume=folder.root)
    whole = load_checkpoint(branch.last_checkpoint)["state_dict"]
    shutil.rmtree(branch.ckpts)  # as if it had been killed before its first checkpoint
    assert main(["launch", "--resume", str(branch.root)]) == 0
    again = load_checkpoint(branch.last_checkpoint)["state_dict"]
    assert all(torch.equal(whole[name], again[name]) for name in whole)
