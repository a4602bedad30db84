"""The parser of every command: flags, over MAQUETTE_* variables, over the user's file of defaults."""

from __future__ import annotations

import argparse
import difflib
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn

import configargparse
import yaml

from maquette.core.errors import MissingFileError, UserError

PREFIX = "MAQUETTE_"
"""`--seed` is MAQUETTE_SEED in the environment."""

FILE_VARIABLE = "MAQUETTE_DEFAULTS"
"""Environment variable that names the file of defaults; empty for none."""

PLACES = ("defaults.ini", "defaults.yaml")
"""Where it is looked for, below `~/.config/maquette`."""

OVERRIDE = re.compile(r"^[A-Za-z_][\w.\-/]*=")

HELP = ("-h", "--help")

SUFFIXES = (".yaml", ".yml")


class CommandParser(configargparse.ArgumentParser):
    """Raises where argparse would exit, so that every error looks the same; knows where each value came from.

    Args:
        command: the name of the command, which is that of its section in the file of defaults.
        description: one line.
        elsewhere: gives the options of all commands.
    """

    def __init__(self, command: str, description: str, elsewhere: Callable[[], set[str]]) -> None:
        self.command = command
        self.elsewhere = elsewhere
        self.has_actions = False
        super().__init__(
            prog=f"maquette {command}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            auto_env_var_prefix=PREFIX,
            add_env_var_help=False,
            add_config_file_help=False,
            default_config_files=[str(path) for path in [defaults_file()] if path is not None],
            config_file_parser_class=DefaultsFile(self),
        )

    def add_subparsers(self, **kwargs: Any) -> Any:
        """Parsers of actions; the defaults are those of the command."""
        self.has_actions = True
        return super().add_subparsers(parser_class=_Action, **kwargs)

    def keys(self) -> set[str]:
        """The options as a file of defaults calls them: without dashes."""
        keys = (key for action in self._actions for key in self.get_possible_config_keys(action))
        return {key for key in keys if not key.startswith("-")}

    def error(self, message: str) -> NoReturn:
        """A UserError with the usage."""
        raise _mistake(self, message)

    def parse(self, words: Sequence[str], overrides: bool) -> argparse.Namespace:
        """The arguments; what is not known must be `key.path=value`, and only where the command takes that.

        Raises:
            UserError: an argument is unknown, missing or has a wrong value, here or in the user's defaults.
        """
        args, extras = self.parse_known_args(list(words))
        given = [extra for extra in extras if overrides and OVERRIDE.match(extra)]
        unknown = [extra for extra in extras if extra not in given]
        if unknown:
            raise _unknown_argument(self, unknown[0])
        if overrides:
            args.overrides = given
        return args

    def help(self, words: Sequence[str]) -> str:
        """The help text, with the defaults of the user and where each comes from."""
        with suppress(
            UserError
        ):  # what is missing is what the help is asked for; the sources are known by then
            self.parse_known_args([word for word in words if word not in HELP], ignore_help_args=True)
        lines = [
            f"  {action.dest.replace('_', '-')} = {value}  (from {_place(source, key)})"
            for source, settings in self.get_source_to_settings_dict().items()
            if source not in ("command_line", "defaults")
            for key, (action, value) in settings.items()
        ]
        return "\n".join([self.format_help(), "your defaults:", *lines, ""]) if lines else self.format_help()


class _Action(argparse.ArgumentParser):
    """The parser of one action of a command."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """A UserError with the usage."""
        raise _mistake(self, message)


class DefaultsFile(configargparse.ConfigFileParser):
    """A file of defaults, INI or YAML: `[maquette]` for all commands, `[maquette.COMMAND]` for one.

    In YAML the plain keys are for all commands, and a mapping under the name of a command is for that one.
    """

    def __init__(self, parser: CommandParser) -> None:
        super().__init__()
        self.parser = parser

    def __call__(self) -> DefaultsFile:
        """Itself: the library asks for a class, and makes one of its own."""
        return self

    def parse(self, stream: Any) -> dict[str, Any]:
        """The defaults for the command; those of all commands count as far as it has such options.

        Raises:
            UserError: the file names an option that there is not.
            ConfigFileParserException: it cannot be read.
        """
        common, own = self._yaml(stream) if stream.name.endswith(SUFFIXES) else self._ini(stream.read())
        known = self.parser.keys()
        self._check(stream.name, own, known)
        if not set(common) <= known:
            self._check(stream.name, common, self.parser.elsewhere())
        return {**{key: value for key, value in common.items() if key in known}, **own}

    def get_syntax_description(self) -> str:
        """One line about the format."""
        return "INI with a section [maquette] and one [maquette.COMMAND] for each command, or YAML."

    def _yaml(self, stream: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        content = yaml.safe_load(stream) or {}
        if not isinstance(content, dict):
            raise configargparse.ConfigFileParserException(f"{stream.name} holds no `key: value` lines")
        own = content.get(self.parser.command) or {}
        common = {key: value for key, value in content.items() if not isinstance(value, dict)}
        return _texts(common), _texts(own)

    def _ini(self, text: str) -> tuple[dict[str, Any], dict[str, Any]]:
        names = ("maquette", f"maquette.{self.parser.command}")
        common, own = (configargparse.IniConfigParser([one], False).parse(StringIO(text)) for one in names)
        return common, own

    def _check(self, name: str, given: dict[str, Any], known: set[str]) -> None:
        for key in given:
            if key not in known:
                hint = near(key, sorted(known)) or "`maquette COMMAND --help` lists the options"
                raise UserError(f"The file of defaults has no such option: {key}.", [name], hint)


def defaults_file() -> Path | None:
    """The file of the user's defaults, if there is one.

    Raises:
        MissingFileError: MAQUETTE_DEFAULTS names a file that is not there.
    """
    named = os.environ.get(FILE_VARIABLE)
    if named is not None:
        if named and not Path(named).expanduser().is_file():
            raise MissingFileError(named, "file of defaults", hint=f"it is named by {FILE_VARIABLE}")
        return Path(named).expanduser() if named else None
    folder = Path("~/.config/maquette").expanduser()
    return next((folder / name for name in PLACES if (folder / name).is_file()), None)


def near(name: str, known: Sequence[str]) -> str | None:
    """ "did you mean ...?", where something is."""
    found = difflib.get_close_matches(name, known, n=3)
    return f"did you mean {' or '.join(found)}?" if found else None


def _texts(content: dict[str, Any]) -> dict[str, Any]:
    """What ConfigArgParse wants of a file: text, or lists of it."""
    return {
        key: [str(one) for one in value] if isinstance(value, list) else str(value)
        for key, value in content.items()
    }


def _mistake(parser: argparse.ArgumentParser, message: str) -> UserError:
    return UserError(message[:1].upper() + message[1:] + ".", hint=f"{parser.prog} --help")


def _place(source: str, key: str) -> str:
    if source == "environment_variables":
        return key
    return source.partition("|")[2] or source


def _unknown_argument(parser: argparse.ArgumentParser, extra: str) -> UserError:
    known = [option for action in parser._actions for option in action.option_strings]
    flag = extra.partition("=")[0]
    if extra.startswith("-"):
        hint = near(flag, known)
        if not hint and "." in flag:
            hint = f"settings of the recipe have no dashes: {extra.lstrip('-')}"
        return UserError(f"Unknown option {flag}.", hint=hint or f"{parser.prog} --help")
    return UserError(
        f"Unexpected argument {extra!r}.",
        hint="a prompt of several words needs quotes; settings are key.path=value",
    )
