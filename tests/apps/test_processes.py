import subprocess
import sys
import time

import pytest

from maquette.apps import processes

SLEEP = "import time; time.sleep(60)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


@pytest.fixture
def started(monkeypatch):
    """Has the programs given to it run as the processes of a command; all that were started."""
    children = []

    def run(*programs):
        def start(number, count, port, words):
            children.append(subprocess.Popen([sys.executable, "-S", "-c", programs[number]]))
            return children[-1]

        monkeypatch.setattr(processes, "_start", start)
        monkeypatch.setattr(processes, "GRACE", 0.5)
        return processes.run_processes(len(programs), [])

    yield run
    assert all(one.returncode is not None for one in children)  # nobody is left


def test_all_that_end_well_end_well(started):
    assert started("pass", "pass") == 0


@pytest.mark.parametrize("other", [SLEEP, DEAF])
def test_the_first_that_fails_ends_the_others_and_gives_the_code(started, other):
    begin = time.monotonic()
    assert started(other, "raise SystemExit(2)") == 2
    assert time.monotonic() - begin < 30


def test_one_that_is_killed_is_named(started, capfd):
    assert started(SLEEP, KILLED) == 1
    assert "Process 1 of 2 was killed by SIGKILL" in capfd.readouterr().err


def test_one_that_was_interrupted_has_not_failed(started):
    late = "import time; time.sleep(0.5); raise SystemExit(130)"
    assert started(late, "raise SystemExit(130)") == 130
