import pytest
import torch

from maquette.diffusion.load import load_pipeline


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MAQUETTE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def saved_folder(tmp_path_factory):
    """A tiny pipeline as `save_pretrained` writes it; read only."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    load_pipeline("maquette/random-tiny?seed=5").save_pretrained(folder)
    return folder


@pytest.fixture
def seeded():
    return torch.Generator().manual_seed(0)
