"""One place that knows the accelerator."""

import pytest
import torch

from maquette.core import device as devices
from maquette.core.errors import ConfigError


@pytest.fixture(autouse=True)
def _restored(monkeypatch):
    monkeypatch.setattr(devices, "_state", {})


def test_auto_is_what_there_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.resolve_device("auto") == devices.current_device() == torch.device("cpu")
    assert devices.trainer_accelerator() == "cpu"
    assert devices.kernel_device("cpu") == "cpu"
    assert not devices.is_gpu("cpu")


def test_a_gpu_follows_its_index_or_the_local_rank(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert devices.resolve_device("auto") == torch.device("cuda", 2)
    assert devices.resolve_device("cuda:1") == torch.device("cuda", 1)
    assert devices.kernel_device(torch.device("cuda", 1)) == "cuda:1"
    assert devices.trainer_accelerator("cuda:1") == "gpu"
    with pytest.raises(ConfigError, match="below 4"):
        devices.resolve_device("cuda:4")


@pytest.mark.parametrize("spec", ["gpu", "cpu:1", "cuda:x", "tpu", ""])
def test_unknown_devices_are_refused(spec):
    with pytest.raises(ConfigError, match="cuda:N"):
        devices.resolve_device(spec)


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no usable GPU"):
        devices.resolve_device("cuda")


def test_the_environment_wins_over_the_choice_of_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    devices.select_gpus("0")
    assert devices.os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    devices.select_gpus("1,2")
    assert devices.os.environ["CUDA_VISIBLE_DEVICES"] == "1,2"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def test_a_chosen_device_is_current():
    assert devices.use_device("cpu") == devices.current_device() == torch.device("cpu")
    assert 0.01 < devices.peak_memory() < 1000


def test_full_precision_inside_mixed_precision():
    with torch.autocast("cpu", torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
        with devices.autocast_off("cpu"):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
