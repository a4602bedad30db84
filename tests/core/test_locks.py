"""One program at a time in a folder."""

import os
import signal
from pathlib import Path

import pytest

from maquette.core.errors import UserError
from maquette.core.locks import sole_use


def in_child(folder: Path) -> int:
    """Try to use the folder in a forked process: 0 it may, 1 it may not."""
    child = os.fork()
    if child == 0:
        try:
            with sole_use(folder):
                os._exit(0)
        except UserError as err:
            os._exit(1 if f"its process: {os.getppid()}" in str(err) else 2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_another_program_is_kept_out_while_the_block_lasts(tmp_path: Path) -> None:
    with sole_use(tmp_path / "run"):
        assert in_child(tmp_path / "run") == in_child(tmp_path / "other" / ".." / "run") == 1
        assert in_child(tmp_path / "other") == 0
    assert in_child(tmp_path / "run") == 0
    assert not (tmp_path / "run").exists()


def test_a_program_that_is_killed_lets_go(tmp_path: Path) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with sole_use(tmp_path):
            os.write(write, b"x")
            signal.pause()
    assert os.read(read, 1) == b"x"
    with pytest.raises(UserError, match=f"its process: {child}"), sole_use(tmp_path):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with sole_use(tmp_path):
        assert True
