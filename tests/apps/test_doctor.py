import platform
import sys

import pytest
import torch

from maquette.apps import doctor
from maquette.apps.main import main


def lines(capsys):
    return capsys.readouterr().out.splitlines()


def test_everything_that_a_report_of_a_fault_needs(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("MAQUETTE_SEED", "7")
    monkeypatch.delenv("TORCH_CPP_LOG_LEVEL", raising=False)
    monkeypatch.setitem(doctor.OPTIONAL, "no_such_package", ("extra", "its purpose"))
    assert main(["doctor"]) == 0
    rows = [line.strip() for line in lines(capsys)]
    shown = "\n".join(rows)
    for title in ("machine", "accelerator", "versions", "what runs how", "missing, and how to get it"):
        assert title in rows
    for fact in (platform.platform(), sys.executable, torch.__version__, "MAQUETTE_SEED=7"):
        assert fact in shown
    assert "TORCH_CPP_LOG_LEVEL" not in shown  # the command has set it
    for name in ("memory", "C library", "instructions", "torch is built for", "cache"):
        assert any(line.startswith(name) for line in rows), name
    for package in ("torchmetrics", "beartype", "warp-lang", "usd-core", "gradio"):
        assert any(line.startswith(f"{package} ") for line in rows), package
    assert "pip install 'maquette[extra]' (its purpose)" in shown


def test_the_embedded_prior_passes_every_experiment(capsys):
    assert main(["doctor", "--prior", "maquette/toyworld"]) == 0
    title, *found, verdict = lines(capsys)
    assert title.startswith("maquette/toyworld on ")
    assert len(found) == 7 and all(line.startswith("pass  ") for line in found)
    assert all(" s " in line and " GiB " in line for line in found)
    assert verdict == "The model works."


def test_random_weights_do_not(capsys):
    assert main(["doctor", "--prior", "maquette/random-tiny"]) == 1
    assert lines(capsys)[-1].startswith("failed: ")


def test_a_model_that_is_not_there_is_the_users_mistake(capsys):
    assert main(["doctor", "--prior", "./nowhere"]) == 2
    assert "there is no such folder" in capsys.readouterr().err


def test_a_model_that_needs_pictures_is_not_examined(capsys):
    assert main(["doctor", "--prior", "maquette/random-tiny?family=zero123"]) == 2
    assert "nothing but a text" in capsys.readouterr().err


def test_the_catalogue_names_the_copies_of_lost_models(capsys):
    assert main(["doctor", "--catalogue"]) == 0
    shown = " ".join(" ".join(lines(capsys)).split())
    assert "runwayml/stable-diffusion-v1-5" in shown
    assert "no longer on the hub" in shown


@pytest.mark.parametrize("option", [["--prompt", "a red car"]])
def test_an_option_without_its_model(option, capsys):
    assert main(["doctor", *option]) == 2
    assert "--prior MODEL" in capsys.readouterr().err
