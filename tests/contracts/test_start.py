"""The first command answers at once: no heavy library is loaded before it is needed."""

import json
import subprocess
import sys
import time

import pytest

HEAVY = ("torch", "lightning", "diffusers", "transformers", "warp", "trimesh", "omegaconf", "numpy")

REPORT = "import json, sys; print(json.dumps(sorted(sys.modules)))"


def modules_after(code: str) -> tuple[set[str], float]:
    """Loaded modules after running `code` in a fresh interpreter, and the seconds that it took."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{REPORT}"], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1])), time.perf_counter() - start


HELP = """
from maquette.apps.main import main
try:
    code = main(["--help"])
except SystemExit as stop:
    code = stop.code
assert not code
"""


@pytest.mark.parametrize(
    "code", ["import maquette; maquette.register, maquette.find", HELP], ids=["import", "help"]
)
def test_start_loads_nothing_heavy(code):
    loaded, seconds = modules_after(code)
    assert loaded.isdisjoint(HEAVY)
    assert seconds < 3.0  # a tenth of it on an idle machine; importing torch takes longer
