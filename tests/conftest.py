"""What every test of the project shares: shapes are checked, and nothing reaches for the network."""

import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from maquette.core.paths import cache_dir
from maquette.core.typecheck import install_typecheck

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("WARP_CACHE_PATH", str(cache_dir("kernels")))

install_typecheck()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Tests neither read nor fill the cache of the person who runs them, nor their defaults; compiled kernels
    excepted: those are found by the digest of their source, so that they are never stale.
    """
    monkeypatch.setenv("MAQUETTE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("MAQUETTE_DEFAULTS", "")


@pytest.fixture(autouse=True)
def _own_seed():
    """Every test starts from one seed, or a network without one of its own differs from run to run."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def several() -> ModuleType:
    """Several processes of one run, and how to compare what they come to."""
    spec = spec_from_file_location("processes_of_tests", Path(__file__).with_name("processes.py"))
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
