"""The parser of every command: flags, over MAQUETTE_* variables, over the user's file of defaults."""

from __future__ import annotations

import argparse
import configparser
import difflib
import os
import re
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

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

ROOT = "maquette"
"""The section of a file of defaults that is for all commands; the others lie in it."""


class CommandParser(configargparse.ArgumentParser):
    """Raises where argparse would exit, so that every error looks the same; knows where each value came from.

    Args:
        command: the name of the command, or of it and its action, "prior train".
        description: one line.
        elsewhere: gives the options of all commands.
        commands: names of all commands.
        above: the parser of the command, for that of an action.
    """

    def __init__(
        self,
        command: str,
        description: str,
        elsewhere: Callable[[], set[str]],
        commands: Collection[str],
        above: CommandParser | None = None,
    ) -> None:
        self.command = command
        self.elsewhere = elsewhere
        self.commands = commands
        self.above = above
        self.actions: dict[str, CommandParser] = {}
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
        """Parsers of actions, each with defaults of its own over those of the command."""
        return super().add_subparsers(parser_class=self._parser_of_action, **kwargs)

    def own_keys(self) -> set[str]:
        """The options as a file of defaults calls them: without dashes."""
        keys = (key for action in self._actions for key in self.get_possible_config_keys(action))
        return {key for key in keys if not key.startswith("-")}

    def keys(self) -> set[str]:
        """The options, with those of the actions."""
        return self.own_keys().union(*(one.keys() for one in self.actions.values()))

    def sections(self) -> list[Section]:
        """The sections of a file of defaults that count here, the weakest first."""
        above = self.above.sections() if self.above else [Section(ROOT, self.elsewhere, self.commands)]
        return [*above, Section(".".join([ROOT, *self.command.split()]), self.keys, self.actions)]

    def error(self, message: str) -> NoReturn:
        """A UserError, which says where the value comes from that it is about."""
        sources = [
            f"the value is that of {place}"
            for place, action, _ in self._defaults_in_force()
            if f"argument {'/'.join(action.option_strings)}:" in message
        ]
        raise UserError(message[:1].upper() + message[1:] + ".", sources, f"{self.prog} --help")

    def parse(self, words: Sequence[str], overrides: bool) -> argparse.Namespace:
        """The arguments; what is not known must be `key.path=value`, and only where the command takes that.

        Raises:
            UserError: an argument is unknown, missing or has a wrong value, here or in the user's defaults.
        """
        args, extras = self.parse_known_args(list(words))
        given = [extra for extra in extras if overrides and OVERRIDE.match(extra)]
        unknown = [extra for extra in extras if extra not in given]
        if unknown:
            raise _unknown_argument(self._meant(words), unknown[0])
        if overrides:
            args.overrides = given
        return args

    def help(self, words: Sequence[str]) -> str:
        """The help text, of the action that is named, with the defaults of the user and where each comes
        from.
        """
        meant = self._meant(words)
        if meant is not self:
            return meant.help(words[list(words).index(meant.command.rsplit(maxsplit=1)[-1]) + 1 :])
        with suppress(UserError):  # what is missing is asked for; the sources are known by then
            self.parse_known_args([word for word in words if word not in HELP], ignore_help_args=True)
        lines = [
            f"  {action.dest.replace('_', '-')} = {value}  (from {place})"
            for place, action, value in self._defaults_in_force()
        ]
        return "\n".join([self.format_help(), "your defaults:", *lines, ""]) if lines else self.format_help()

    def _defaults_in_force(self) -> list[tuple[str, argparse.Action, Any]]:
        """Where each comes from (a variable or a file), its option, and its value."""
        return [
            (_place(source, key), action, value)
            for source, settings in self.get_source_to_settings_dict().items()
            if source not in ("command_line", "defaults")
            for key, (action, value) in settings.items()
        ]

    def _parser_of_action(self, prog: str, description: str = "") -> CommandParser:
        name = prog.rsplit(maxsplit=1)[-1]
        command = f"{self.command} {name}"
        self.actions[name] = CommandParser(command, description, self.elsewhere, self.commands, self)
        return self.actions[name]

    def _meant(self, words: Sequence[str]) -> CommandParser:
        """The parser of the action that is named, or this one."""
        return next((self.actions[word] for word in words if word in self.actions), self)


class Section(NamedTuple):
    """A section of a file of defaults, and what it may hold."""

    name: str
    """As INI has it, "maquette.prior.train"."""
    options: Callable[[], set[str]]
    """Gives the options, without dashes."""
    inner: Collection[str]
    """Commands or actions, which have sections of their own in this one."""

    def check(self, file: str, options: Collection[str], inner: Collection[str]) -> None:
        """Refuse options, and sections within this one, that do not exist.

        Raises:
            UserError: one does not exist, or a value stands where a section belongs.
        """
        for key in options:
            if key in self.options():
                continue
            if key in self.inner:
                raise _value_for_section(file, f"{self.name}.{key}")
            raise _unknown_default(file, "option", key, [*self.options(), *self.inner])
        for key in inner:
            if key not in self.inner:
                raise _unknown_default(file, "section", key, self.inner)


class DefaultsFile(configargparse.ConfigFileParser):
    """A file of defaults, INI or YAML: `[maquette]` for all commands, `[maquette.COMMAND]` for one,
    `[maquette.COMMAND.ACTION]` for one action of it.

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
            UserError: the file names an option or a section that there is not.
            ConfigFileParserException: it cannot be read.
        """
        read = _yaml(stream) if stream.name.endswith(SUFFIXES) else _ini(stream)
        own, found = self.parser.own_keys(), {}
        for section in self.parser.sections():
            given, inner = read(section.name)
            section.check(stream.name, given.keys() - own, inner)
            found |= {key: value for key, value in given.items() if key in own}
        return found

    def get_syntax_description(self) -> str:
        """One line about the format."""
        return "INI with a section [maquette] and one [maquette.COMMAND] for each command, or YAML."


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


Read = Callable[[str], tuple[dict[str, Any], list[str]]]
"""Gives the options of a section, and the names of the sections in it."""


def _yaml(stream: Any) -> Read:
    content = yaml.safe_load(stream) or {}
    if not isinstance(content, dict):
        raise configargparse.ConfigFileParserException(f"{stream.name} holds no `key: value` lines")

    def read(section: str) -> tuple[dict[str, Any], list[str]]:
        found = content
        for name in section.split(".")[1:]:
            inner = found.get(name)
            found = inner if isinstance(inner, dict) else {}
        sections = [str(key) for key, one in found.items() if isinstance(one, dict)]
        return _texts({str(key): one for key, one in found.items() if not isinstance(one, dict)}), sections

    return read


def _ini(stream: Any) -> Read:
    text = stream.read()

    def read(section: str) -> tuple[dict[str, Any], list[str]]:
        options = dict(configargparse.IniConfigParser([section], False).parse(StringIO(text)))
        parser = configparser.ConfigParser()
        parser.read_string(text)
        _check_root(stream.name, parser.sections())
        below = [
            one.removeprefix(f"{section}.") for one in parser.sections() if one.startswith(f"{section}.")
        ]
        return options, [one.partition(".")[0] for one in below]

    return read


def _check_root(file: str, sections: Sequence[str]) -> None:
    for one in sections:
        if one.partition(".")[0] != ROOT:
            hint = f"sections are [{ROOT}], [{ROOT}.COMMAND] and [{ROOT}.COMMAND.ACTION]"
            raise UserError(f"The file of defaults has no such section: {one}.", [file], hint)


def _unknown_default(file: str, what: str, key: str, known: Collection[str]) -> UserError:
    hint = near(key, sorted(known)) or "`maquette COMMAND --help` lists the options"
    return UserError(f"The file of defaults has no such {what}: {key}.", [file], hint)


def _value_for_section(file: str, section: str) -> UserError:
    name = section.rpartition(".")[2]
    return UserError(
        f"The file of defaults gives {name} a value, but it is no option.",
        [file],
        f"its options stand in a section [{section}] (INI), or a mapping under its name (YAML)",
    )


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
