"""What tests of commands share."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

PROCESSES = Path(__file__).parent.parent / "training" / "processes.py"


@pytest.fixture(scope="session")
def several() -> ModuleType:
    """Several processes of one run, and how to compare what they come to."""
    spec = spec_from_file_location("processes_of_commands", PROCESSES)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
