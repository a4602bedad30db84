"""Arrays and trees, read back with the libraries that define the formats."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from maquette.core.errors import MissingFileError, UserError
from maquette.io import data


def test_npz_and_npy_round_trip(tmp_path):
    arrays = {"depth": torch.rand(3, 4, dtype=torch.float64), "index": np.arange(5)}
    path = data.write_npz(tmp_path / "a.npz", arrays)
    with np.load(path) as archive:
        assert np.array_equal(archive["depth"], arrays["depth"].numpy())
        assert np.array_equal(archive["index"], arrays["index"])
    assert data.read_npz(path)["index"].dtype == np.int64
    assert np.array_equal(data.read_npy(data.write_npy(tmp_path / "b.npy", arrays["index"])), np.arange(5))


def test_npz_bytes_do_not_depend_on_the_clock(tmp_path, monkeypatch):
    first = data.write_npz(tmp_path / "a.npz", {"x": torch.ones(3)}).read_bytes()
    monkeypatch.setattr("time.time", lambda: 0.0)
    monkeypatch.setattr("time.localtime", lambda *_: (1999, 1, 1, 0, 0, 0, 0, 1, 0))
    assert data.write_npz(tmp_path / "b.npz", {"x": torch.ones(3)}).read_bytes() == first


def test_pickles_are_refused(tmp_path):
    np.savez(tmp_path / "bad.npz", x=np.array([object()], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        data.read_npz(tmp_path / "bad.npz")


def test_json_takes_tensors_and_paths(tmp_path):
    path = data.write_json(
        tmp_path / "a.json", {"b": torch.ones(2), "a": tmp_path, "n": np.float32(0.5), "ü": None}
    )
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "b": [1, 1],
        "a": str(tmp_path),
        "n": 0.5,
        "ü": None,
    }
    assert list(data.read_json(path)) == ["b", "a", "n", "ü"]


def test_json_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="no form in JSON"):
        data.write_json(tmp_path / "a.json", {"x": object()})
    assert list(tmp_path.iterdir()) == []


def test_damaged_files_are_named(tmp_path):
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "a.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(UserError, match=r"a\.json is not JSON"):
        data.read_json(tmp_path / "a.json")
    with pytest.raises(UserError, match="not a safetensors"):
        data.read_safetensors(tmp_path / "a.safetensors")
    with pytest.raises(MissingFileError):
        data.read_npy(tmp_path / "none.npy")


def test_safetensors_keep_type_metadata_and_shared_memory(tmp_path):
    base = torch.arange(6, dtype=torch.float16).reshape(2, 3)
    path = data.write_safetensors(tmp_path / "w.safetensors", {"a": base, "b": base.T}, {"step": "7"})
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"step": "7"}
        assert torch.equal(file.get_tensor("b"), base.T)
    assert data.read_safetensors(path)["a"].dtype == torch.float16
