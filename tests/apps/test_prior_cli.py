"""The command that trains the prior: both runs, and the folder that comes of them."""

import pytest
import torch

from maquette.apps.main import main
from maquette.diffusion.embedded import load_vae
from maquette.diffusion.load import load_pipeline

BRIEF = ["preset=smoke", "--seed", "5", "trainer.limit_val_batches=0", "training.finish=[export]"]
STEADY = ["system.optimizer.args.eps=1.0", "system.scheduler.args.max_lr=0.1"]
"""An optimizer that does not divide small gradients by their size, which is that of their rounding."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prior")
    assert main(["prior", "train", "--out", str(folder / "mine"), "data.batch_size=2", *BRIEF, *STEADY]) == 0
    return folder / "mine"


def test_pipeline_loads_and_holds_the_autoencoder(trained):
    pipeline = load_pipeline(str(trained / "unet" / "prior"))
    vae = load_vae(trained / "vae" / "vae")
    assert pipeline.vae.config["scaling_factor"] == vae.config["scaling_factor"] != 1.0
    assert torch.equal(pipeline.vae.encoder.conv_in.weight, vae.encoder.conv_in.weight.half().float())


def test_what_is_exported_is_the_running_average(trained):
    checkpoint = torch.load(trained / "vae" / "ckpts" / "last.ckpt", weights_only=True)
    (average,) = (state["average"] for key, state in checkpoint["callbacks"].items() if "EMA" in key)
    name = "vae.decoder.conv_out.weight"
    exported = load_vae(trained / "vae" / "vae").decoder.conv_out.weight
    torch.testing.assert_close(exported, average[name])
    assert not torch.equal(exported, checkpoint["state_dict"][name])


def test_runs_in_use_are_not_overwritten(trained, capsys):
    assert main(["prior", "train", "--out", str(trained), "preset=smoke"]) == 2
    assert "overwrite" in capsys.readouterr().err


def test_report_takes_no_recipe_settings(capsys):
    assert main(["prior", "report", "trainer.max_steps=3"]) == 2


def test_two_processes_train_what_one_trains(trained, several, tmp_path):
    def train():
        words = ["--out", str(tmp_path / "two"), "data.batch_size=1", *BRIEF, *STEADY]
        assert main(["prior", "train", *words]) == 0

    assert several.in_processes(train) == [0, 0]
    for part in ("vae", "unet"):
        several.assert_same_weights(trained / part, tmp_path / "two" / part)
    assert load_pipeline(str(tmp_path / "two" / "unet" / "prior")).unet is not None


def test_who_starts_several_processes_leaves_both_runs_to_them(tmp_path, monkeypatch, capsys):
    started = []
    monkeypatch.setattr("maquette.apps.running.run_processes", lambda *given: started.append(given[:2]) or 0)
    words = ["prior", "train", "--out", str(tmp_path / "prior"), "preset=smoke", "trainer.devices=2"]
    assert main(words) == 0
    assert started == [(2, words)] and capsys.readouterr().out == "" and not list(tmp_path.iterdir())
