"""The first command answers at once: no heavy library is loaded before it is needed."""

import json
import resource
import subprocess
import sys

import pytest

HEAVY = ("torch", "lightning", "diffusers", "transformers", "warp", "trimesh", "omegaconf", "numpy")

REPORT = "import json, sys; print(json.dumps(sorted(sys.modules)))"


def modules_after(code: str) -> tuple[set[str], float]:
    """Loaded modules after running `code` in a fresh interpreter, and the processor seconds that it took."""
    before = cpu_seconds()
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{REPORT}"], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1])), cpu_seconds() - before


def cpu_seconds() -> float:
    """Of the processes that have been waited for; unlike the clock's, they do not grow on a busy machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


HELP = """
from maquette.apps.main import main
try:
    code = main([{arguments}])
except SystemExit as stop:
    code = stop.code
assert not code
"""


@pytest.mark.parametrize(
    "code",
    ["import maquette; maquette.register, maquette.find", HELP.format(arguments="'--help'")],
    ids=["import", "help"],
)
def test_start_loads_nothing_heavy(code):
    loaded, seconds = modules_after(code)
    assert loaded.isdisjoint(HEAVY)
    assert seconds < 1.0  # importing torch takes longer


COMMANDS = ["generate", "launch", "show", "doctor", "convert", "render", "compare", "mesh-from-points"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_loads_no_torch(command):
    loaded, _ = modules_after(HELP.format(arguments=f"'{command}', '--help'"))
    assert loaded.isdisjoint({"torch", "lightning", "diffusers", "transformers", "warp"})
