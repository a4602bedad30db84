from pathlib import Path
from typing import Any

import pytest

from maquette.core.errors import UnknownKeyError
from maquette.training.optimization.losses import check_loss_names
from maquette.training.run import run


def test_unused_names_of_the_ecosystem_are_no_mistake(caplog: pytest.LogCaptureFixture) -> None:
    check_loss_names(["lambda_sds", "lambda_z_variance", "lambda_own", "lambda_later"], ["own"], ["later"])
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("given", "used", "near"),
    [
        (["lambda_sds", "lambda_sparsty"], ["sds"], "lambda_sparsity"),
        (["lambda_fit", "lambda_smoth"], ["fit"], "lambda_smooth"),
        (["lambda_z_varience"], [], "lambda_z_variance"),
    ],
)
def test_mistyped_names_are_refused(given: list[str], used: list[str], near: str) -> None:
    with pytest.raises(UnknownKeyError, match=f"did you mean system.loss.{near}"):
        check_loss_names(given, used, ["smooth"])


def test_strange_names_and_neighbours_of_given_ones_are_told(caplog: pytest.LogCaptureFixture) -> None:
    check_loss_names(["lambda_sds", "lambda_sds2", "lambda_whatever"], ["sds"], [])
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "lambda_sds2 has no effect" in caplog.text


def test_a_run_ends_in_its_first_step_and_leaves_nothing(toy: Any, tmp_path: Path) -> None:
    with pytest.raises(UnknownKeyError, match="lambda_sparsity"):
        run(toy("system.loss.lambda_sparsty=1.0"), "train")
    assert not (tmp_path / "run").exists()
