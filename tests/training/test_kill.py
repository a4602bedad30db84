"""Runs that are killed and resumed, as the benchmark does it by the hundred."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_killed_runs_end_as_undisturbed_ones(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "kill.py"), "--kills", "5", "--seed", "3"]
    done = subprocess.run(
        [*command, "--recipes", "gaussians", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 kills, 5 identical results" in done.stdout
