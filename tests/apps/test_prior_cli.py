"""The command that trains the prior: both runs, and the folder that comes of them."""

import pytest
import torch

from maquette.apps.main import main
from maquette.diffusion.embedded import load_vae
from maquette.diffusion.load import load_pipeline


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prior")
    code = main(["prior", "train", "--out", str(folder / "mine"), "--seed", "5", "preset=smoke"])
    assert code == 0
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
