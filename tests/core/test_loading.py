"""Checkpoints: tensors and plain values only."""

import pytest
import torch

from maquette.core.errors import MissingFileError, UserError
from maquette.core.loading import load_checkpoint, load_module_weights


class Code:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_tensors_and_plain_values_load(tmp_path):
    torch.save({"state_dict": {"a.w": torch.arange(3.0)}, "epoch": 1, "global_step": 5}, tmp_path / "a.ckpt")
    assert load_checkpoint(tmp_path / "a.ckpt")["global_step"] == 5
    found = load_module_weights(tmp_path / "a.ckpt", "a")
    assert torch.equal(found.state_dict["w"], torch.arange(3.0))
    assert (found.epoch, found.global_step) == (1, 5)
    assert list(load_module_weights(tmp_path / "a.ckpt").state_dict) == ["a.w"]


def test_a_prefix_is_a_whole_name(tmp_path):
    torch.save(
        {"state_dict": {"geometry.w": torch.ones(1), "geometry2.w": torch.ones(1)}}, tmp_path / "a.ckpt"
    )
    assert list(load_module_weights(tmp_path / "a.ckpt", "geometry").state_dict) == ["w"]


def test_code_is_refused_and_does_not_run(tmp_path, capsys):
    torch.save({"x": Code()}, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match="could run code"):
        load_checkpoint(tmp_path / "evil.ckpt")
    assert capsys.readouterr().out == ""


def test_damaged_absent_and_odd_files(tmp_path):
    with pytest.raises(MissingFileError):
        load_checkpoint(tmp_path / "nothing.ckpt")
    torch.save({"state_dict": {"a": torch.ones(1000)}}, tmp_path / "cut.ckpt")
    (tmp_path / "cut.ckpt").write_bytes((tmp_path / "cut.ckpt").read_bytes()[:500])
    (tmp_path / "empty.ckpt").write_bytes(b"")
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    torch.save([1, 2], tmp_path / "list.ckpt")
    for name in ("cut", "empty", "text", "list"):
        with pytest.raises(UserError, match=rf"{name}\.ckpt cannot be read|{name}\.ckpt holds a list"):
            load_checkpoint(tmp_path / f"{name}.ckpt")
