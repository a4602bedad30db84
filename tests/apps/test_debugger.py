"""The debugger opens where a run broke."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from maquette.apps.debugger import debugger
from maquette.core.errors import RunFailed

PROGRAM = """
from maquette.apps.debugger import debugger

def inner(value):
    return 1 / value

with debugger(True):
    try:
        inner(0)
    except ZeroDivisionError as err:
        raise RuntimeError("wrapped") from err
"""


def test_it_stands_in_the_function_that_raised_and_reads_pdbrc(tmp_path: Path) -> None:
    (tmp_path / ".pdbrc").write_text("p 'from pdbrc', 6 * 7\n")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input="p 'value is', value\nq\n", capture_output=True, text=True,
        cwd=tmp_path, env=os.environ | {"HOME": str(tmp_path)}, check=False,
    )  # fmt: skip
    assert "('from pdbrc', 42)" in done.stdout and "('value is', 0)" in done.stdout
    assert done.returncode == 1 and "RuntimeError: wrapped" in done.stderr


def test_ipdb_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    fake = ModuleType("ipdb")
    fake.post_mortem = lambda trace: seen.append(trace.tb_frame.f_code.co_name)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ipdb", fake)
    monkeypatch.setattr("maquette.apps.debugger.find_spec", lambda name: fake if name == "ipdb" else None)
    with pytest.raises(RunFailed), debugger(True):
        raise RunFailed("broken")
    assert seen == ["debugger"] or seen == ["test_ipdb_is_used_where_it_is_installed"]


def test_nothing_opens_unasked_or_at_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pdb.post_mortem", lambda trace: pytest.fail("opened"))
    with pytest.raises(RunFailed), debugger(False):
        raise RunFailed("broken")
    with pytest.raises(KeyboardInterrupt), debugger(True):
        raise KeyboardInterrupt
