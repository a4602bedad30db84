"""What every test of the project shares: shapes are checked, and nothing reaches for the network."""

import os

import pytest

from maquette.core.typecheck import install_typecheck

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

install_typecheck()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Tests neither read nor fill the cache of the person who runs them."""
    monkeypatch.setenv("MAQUETTE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
