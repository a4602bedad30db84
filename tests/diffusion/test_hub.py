import pytest
import torch

from maquette.core.errors import UserError
from maquette.diffusion.denoiser import load_denoiser
from maquette.diffusion.hub import fetch_configs, looks_like_path
from maquette.diffusion.load import load_part, load_pipeline


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that has one pipeline, of the family flow, and remembers what was asked for."""
    import huggingface_hub

    load_pipeline("maquette/random-tiny?family=flow").save_pretrained(tmp_path)
    asked = []

    def snapshot(name, allow_patterns, ignore_patterns):
        asked.append((allow_patterns, ignore_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda name, file: str(tmp_path / file))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    return asked


def parts(patterns):
    return {pattern.partition("/")[0] for pattern in patterns if "/" in pattern}


def test_the_index_tells_which_parts_to_fetch(hub):
    load_denoiser("someone/flow", torch.float32, torch.device("cpu"))
    fetched = [parts(patterns) for patterns, _ in hub]
    assert fetched[0] == set()
    assert fetched[-1] == {"transformer", "vae", "scheduler"}


def test_half_precision_copies_are_fetched_only_when_asked_for(hub):
    load_pipeline("someone/flow", parts=("vae",))
    assert all("*.fp16.*" in never for _, never in hub)
    with pytest.raises(UserError, match="variant fp16"):
        load_part("someone/flow", "vae", variant="fp16")
    patterns, never = hub[-1]
    assert parts(patterns) == {"vae"} and "*.fp16.*" not in never


def test_configurations_come_without_weights(hub):
    fetch_configs("someone/flow")
    ((patterns, _),) = hub
    assert patterns and not any("safetensors" in pattern for pattern in patterns)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("./a", True), ("/a/b", True), ("~/a", True), ("a/b/c", True), ("", True), ("a/b", False), ("a", False)],
)
def test_what_cannot_be_an_id(name, expected):
    assert looks_like_path(name) is expected
