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
    ("name", "text"),
    [
        ("d.ini", "[maquette.toyworld]\nseed=5\ncount=3\n[maquette.toyworld.render]\ncount=2\n"),
        ("d.yaml", "toyworld: {seed: 5, count: 3, render: {count: 2}}"),
    ],
)
def test_actions_have_defaults_of_their_own_over_those_of_the_command(
    name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(text)
    monkeypatch.setenv("MAQUETTE_DEFAULTS", str(tmp_path / name))
    monkeypatch.setenv("MAQUETTE_OUT", "album")
    args = command("toyworld")[1].parse(["render", "--size", "9"], overrides=False)
    assert (args.action, args.seed, args.count, args.out, args.size) == ("render", 5, 2, "album", 9)
    args = command("toyworld")[1].parse(["mesh", "car", "red"], overrides=False)
    assert (args.kind, args.color, args.out) == ("car", "red", "album") and not hasattr(args, "count")
    assert main(["toyworld", "render", "--help"]) == 0
    shown, _, told = capsys.readouterr().out.partition("your defaults:")
    assert shown.startswith("usage: maquette toyworld render")
    assert f"count = 2  (from {tmp_path / name})" in told and "out = album  (from MAQUETTE_OUT)" in told


def test_settings_of_a_recipe_follow_an_action(file: Path) -> None:
    args = command("prior")[1].parse(["train", "--out", "mine", "preset=smoke"], overrides=True)
    assert (args.overrides, args.verbose, args.seed) == (["preset=smoke"], True, None)


def test_an_unknown_option_of_an_action_gets_a_hint() -> None:
    with pytest.raises(UserError, match="Unknown option --siez") as caught:
        command("toyworld")[1].parse(["render", "--out", "x", "--siez", "3"], overrides=False)
    assert "--size" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("d.ini", "[maquette.toyworld]\nsed = 3\n", "did you mean seed"),
        ("d.ini", "[maquette.toyworld.render]\ncolour = 3\n", "no such option: colour"),
        ("d.yaml", "toyworld: {rendr: {seed: 3}}", "did you mean render"),
        ("d.yaml", "toyworld: {render: {mesh: {seed: 3}}}", "no such section: mesh"),
        ("d.yaml", "toyworld: {render: 5}", r"render a value.*\[maquette.toyworld.render\]"),
        ("d.ini", "[maquette.toyworld]\nrender = 5\n", r"render a value.*\[maquette.toyworld.render\]"),
        ("d.yaml", "toyworld: 5", r"toyworld a value.*\[maquette.toyworld\]"),
        ("d.yaml", "toyworl: {seed: 3}", "no such section: toyworl.*did you mean toyworld"),
        ("d.ini", "[maquette.toyworl]\nseed = 3\n", "no such section: toyworl.*did you mean toyworld"),
        ("d.ini", "[maquette.toyworld.rendr]\nseed = 3\n", "no such section: rendr.*did you mean render"),
        ("d.ini", "[toyworld]\nseed = 3\n", r"no such section: toyworld.*\[maquette.COMMAND\]"),
        ("d.yaml", "seed: {a: 3}", "no such section: seed"),
    ],
)
def test_mistakes_in_the_defaults_of_an_action_are_named(
    name: str, text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_text(text)
    monkeypatch.setenv("MAQUETTE_DEFAULTS", str(tmp_path / name))
    with pytest.raises(UserError, match=f"(?s){said}"):
        command("toyworld")[1].parse(["render", "--out", "x"], overrides=False)


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


def test_a_wrong_value_is_told_with_where_it_comes_from(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(file.read_text().replace("7", "seven"))
    with pytest.raises(UserError, match=f"seven[\\s\\S]*that of {file}"):
        parsed("generate", "a toy")
    monkeypatch.setenv("MAQUETTE_SEED", "eight")
    with pytest.raises(UserError, match=r"eight[\s\S]*that of MAQUETTE_SEED"):
        parsed("generate", "a toy")
    with pytest.raises(UserError) as typed:
        parsed("generate", "a toy", "--seed", "nine")
    assert "nine" in str(typed.value) and "that of" not in str(typed.value)


def test_a_file_that_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAQUETTE_DEFAULTS", "nowhere.ini")
    with pytest.raises(UserError, match=r"nowhere\.ini"):
        parsed("generate", "a toy")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: maquette {name}")
