"""Flags win over the environment, which wins over the user's file; and --help tells which is in force."""

from pathlib import Path

import pytest

from maquette.apps.commands import COMMANDS, command
from maquette.apps.main import main
from maquette.core.errors import UserError

INI = """
[maquette]
verbose = true
gpu = 1
[maquette.generate]
recipe = gaussians
seed = 7
extension = ["one.py", "two.py"]
"""

YAML = """
verbose: true
gpu: 1
generate: {recipe: gaussians, seed: 7, extension: [one.py, two.py]}
"""


@pytest.fixture(params=[("defaults.ini", INI), ("defaults.yaml", YAML)], ids=["ini", "yaml"])
def file(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    name, text = request.param
    path = tmp_path / name
    path.write_text(text)
    monkeypatch.setenv("MAQUETTE_DEFAULTS", str(path))
    return path


def parsed(name: str, *words: str):
    return command(name)[1].parse(words, overrides=True)


def test_the_later_source_wins(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = parsed("generate", "a toy")
    assert (args.seed, args.recipe, args.verbose, args.extension) == (
        7,
        "gaussians",
        True,
        ["one.py", "two.py"],
    )
    monkeypatch.setenv("MAQUETTE_SEED", "8")
    assert parsed("generate", "a toy").seed == 8
    assert parsed("generate", "a toy", "--seed", "9").seed == 9
    assert parsed("generate", "a toy").recipe == "gaussians"


def test_what_is_for_all_commands_counts_where_there_is_such_an_option(file: Path) -> None:
    launch = parsed("launch", "--train", "--config", "sdf")
    assert launch.gpu == "1" and launch.verbose and not hasattr(launch, "seed")
    assert not hasattr(parsed("generate", "a toy"), "gpu")


def test_help_tells_where_a_value_comes_from(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAQUETTE_SEED", "8")
    assert main(["generate", "--help"]) == 0
    text = capsys.readouterr().out.partition("your defaults:")[2]
    assert "seed = 8  (from MAQUETTE_SEED)" in text
    assert f"recipe = gaussians  (from {file})" in text and "gpu" not in text


def test_a_switch_in_the_environment_is_as_if_it_were_typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAQUETTE_VERBOSE", "true")
    assert main(["generate", "  "]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[maquette]\nsed = 3\n", "did you mean seed"),
        ("[maquette.generate]\ngpu = 3\n", "no such option: gpu"),
        ("[maquette\nseed = 3\n", "INI file"),
        ("[maquette]\nseed = x\n", "invalid int value"),
    ],
)
def test_mistakes_in_the_file_are_named(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "d.ini").write_text(text)
    monkeypatch.setenv("MAQUETTE_DEFAULTS", str(tmp_path / "d.ini"))
    with pytest.raises(UserError, match=said):
        parsed("generate", "a toy")


def test_a_file_that_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAQUETTE_DEFAULTS", "nowhere.ini")
    with pytest.raises(UserError, match=r"nowhere\.ini"):
        parsed("generate", "a toy")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main([name, "--help"])
    except SystemExit as leaving:  # commands with actions leave it to argparse
        code = leaving.code
    assert code == 0 and capsys.readouterr().out.startswith(f"usage: maquette {name}")
