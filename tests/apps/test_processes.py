import subprocess
import sys
import time
from pathlib import Path

import pytest

from maquette.apps import processes
from maquette.apps.running import begun_run
from maquette.core.config import ExperimentConfig

SLEEP = "import time; time.sleep(60)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
BREAKING = """
import time
from pathlib import Path
from maquette import register
from maquette.core.processes import is_leader
from maquette.core.registry import find

@register("breaking-system", kind="system")
class Breaking(find("caption-model-system", "system")):
    def training_step(self, batch, batch_idx):
        if self.global_step == 1 and not is_leader():
            Path(__file__).with_name("moment").write_text(str(time.time()))
            raise ValueError("the sky fell")
        return super().training_step(batch, batch_idx)
"""
CAPTIONS = [
    "launch", "--config", "caption-model", "--train", "system_type=breaking-system", "system.width=16",
    "system.layers=1", "system.heads=2", "system.scheduler=null", "training.loggers=[]",
    "training.snapshot_code=false", "trainer.max_steps=3",
]  # fmt: skip
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
        return processes.run_processes(len(programs), [], lambda: Path("outputs/mine"))

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
    said = capfd.readouterr().err
    assert "Process 1 of 2 was killed by SIGKILL" in said
    assert "maquette launch --resume outputs/mine goes on" in said


def test_the_run_that_other_processes_have_begun_is_found(tmp_path):
    def config(**places):
        return ExperimentConfig(name="n", tag="a", exp_root_dir=str(tmp_path), **places)

    cfg, named = config(timestamp="@20260101-120000"), config(run_dir=str(tmp_path / "mine"))
    assert begun_run(cfg, named) is None
    for name in ("a@20260101-115900", "a@20260101-120003", "a@20260101-120500", "ab@20260101-120001"):
        (tmp_path / "n" / name).mkdir(parents=True)
    assert begun_run(cfg, named) == tmp_path / "n" / "a@20260101-120003"
    (tmp_path / "mine").mkdir()
    assert begun_run(cfg, named) == tmp_path / "mine"


def test_one_that_was_interrupted_has_not_failed(started):
    late = "import time; time.sleep(0.5); raise SystemExit(130)"
    assert started(late, "raise SystemExit(130)") == 130


def test_torchrun_ends_with_the_error_of_the_one_that_failed(tmp_path):
    (tmp_path / "breaking.py").write_text(BREAKING)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    own = ["--extension", str(tmp_path / "breaking.py"), "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [*start, "-m", "maquette.apps.main", *CAPTIONS, *own],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert time.time() - float((tmp_path / "moment").read_text()) < 30
    assert done.returncode == 1
    assert "error in process 1 of 2" in done.stderr and "ValueError: the sky fell" in done.stderr
    assert "the sky fell" in (tmp_path / "run" / "error.log").read_text()
