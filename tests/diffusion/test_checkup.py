import json
import shutil

import pytest
import torch

from maquette.core.errors import UserError
from maquette.core.paths import assets_dir
from maquette.diffusion.checkup import Checkup, natural_pictures

CPU = torch.device("cpu")


@pytest.fixture
def prior(tmp_path):
    """A copy of the embedded prior that may be broken."""
    return shutil.copytree(assets_dir("prior"), tmp_path / "prior")


def change(folder, part, **values):
    path = folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def outcome(folder, experiment):
    """Whether one experiment passes, and what it says."""
    checkup = Checkup(str(folder), torch.float32, CPU)
    assert checkup.loading()[0] and checkup.encoding()[0]
    return getattr(checkup, experiment)()


@pytest.mark.parametrize("wrong", ["epsilon", "sample"])
def test_a_wrong_prediction_type_is_found(prior, wrong):
    assert outcome(prior, "prediction_type")[0]
    change(prior, "scheduler", prediction_type=wrong)
    passed, detail = outcome(prior, "prediction_type")
    assert not passed and f"read as {wrong} " in detail


@pytest.mark.parametrize("factor", [4.0, 0.25])
def test_a_wrong_scaling_factor_is_found(prior, factor):
    assert outcome(prior, "latent_scale")[0]
    config = json.loads((prior / "vae" / "config.json").read_text())
    change(prior, "vae", scaling_factor=config["scaling_factor"] * factor)
    assert not outcome(prior, "latent_scale")[0]


def test_after_a_crash_there_is_nothing_more_to_say(prior):
    shutil.rmtree(prior / "unet")
    (found,) = Checkup(str(prior), torch.float32, CPU).findings()
    assert found.name == "loading" and not found.passed
    assert "its part unet is missing" in found.detail


@pytest.mark.parametrize("family", ["sdxl", "flow", "pixel"])
def test_every_experiment_runs_on_every_family_that_reads_a_text(family):
    found = list(Checkup(f"maquette/random-tiny?family={family}&latent=16", torch.float32, CPU).findings())
    assert len(found) == 7
    assert not any(one.detail.startswith("it failed") for one in found)
    assert found[0].passed and found[1].passed


def test_others_are_refused():
    with pytest.raises(UserError, match="nothing but a text"):
        Checkup("maquette/random-tiny?family=multiview", torch.float32, CPU)


def test_pictures_are_as_smooth_as_photographs(seeded):
    pictures = natural_pictures(4, 64, seeded)
    assert pictures.shape == (4, 3, 64, 64)
    assert pictures.min() >= 0 and pictures.max() <= 1 and 0.15 < pictures.std() < 0.35
    grey = pictures.mean(1) - pictures.mean((1, 2, 3), keepdim=True)[:, 0]
    power = torch.fft.rfft2(grey).abs().square().mean(0)
    assert power[1, 1] > 30 * power[16, 16]
