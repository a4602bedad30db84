"""`maquette show option PATH` explains any key of a recipe from the class that reads it."""

import pytest

from maquette.apps.main import main


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("seed", ["seed: int = 0", "every recipe"]),
        ("system.geometry.radius", ["float = 1.0", "implicit-volume", "0.95", "cube"]),
        ("system.guidance.guidance_scale", ["stable-diffusion-guidance", "10.0"]),
        ("system.loss", ["dreamfusion-system", "lambda_sds"]),
        ("data.batch_size", ["random-camera-datamodule", "4"]),
        (
            "training.freeze",
            ["patterns, or rules {pattern, since, until}; see maquette.training", "not given"],
        ),
        (
            "training.ema",
            ["mapping = {", "enabled False: Whether", "decay 0.999: The share", "every 1: Optimiser"],
        ),
        ("training.ema.decay", ["float = 0.999", "the engine"]),
        ("trainer.max_steps", ["Lightning", "300"]),
        ("checkpoint.save_top_k", ["ModelCheckpoint", "best k"]),
    ],
)
def test_options_of_every_block(path: str, shown: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "option", path]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith(path) and all(words in text for words in shown)
    assert "`" not in text and "maquette.training.config" not in text


def test_the_recipe_decides_which_module_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "option", "system.geometry.radius", "--recipe", "gaussians"]) == 0
    assert "gaussian-splatting" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("system.guidance.guidance_scal", "did you mean system.guidance.guidance_scale"),
        ("system.geometry.fix_geometry", "tetrahedra-sdf-grid"),
        ("trainer.max_step", "did you mean trainer.max_steps"),
        ("training.emma", "did you mean training.ema?"),
        ("training.emma.decay", "Unknown key training.emma.\n  Hint: did you mean training.ema?"),
        ("training.ema.deca", "did you mean training.ema.decay?"),
        ("sede", "did you mean seed"),
    ],
)
def test_a_wrong_one_is_told_with_near_ones(path: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "option", path]) == 2
    assert said in capsys.readouterr().err
