"""Names for modules: a lazy table for what we ship, a decorator for everyone else.

One flat set of names, as in the ecosystem; every name also belongs to a kind ("geometry", "guidance", ...).
Third-party packages are found through the entry point group `maquette.extensions`, each entry a module that
registers its classes when imported; a folder or a file is imported with `load_extension`.
"""

import difflib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from maquette.core.builtin_modules import BUILTIN_MODULES
from maquette.core.errors import MissingFileError, UnknownNameError, UserError, asked_for_by

ENTRY_POINT_GROUP = "maquette.extensions"

T = TypeVar("T", bound=type)


@dataclass(frozen=True)
class Entry:
    """A registered name."""

    kind: str
    """The kind of module; empty when the class does not say."""
    target: str
    """Where the class lives, "module:Class"."""
    cls: type | None = None
    """The class itself, once it is known."""


class Registry:
    """Finds classes by name; see the module's docstring."""

    def __init__(
        self, builtin: Mapping[str, Mapping[str, str]], entry_point_group: str | None = None
    ) -> None:
        self._entries = {
            name: Entry(kind, target) for kind, table in builtin.items() for name, target in table.items()
        }
        self._group = entry_point_group

    def register(self, name: str, kind: str | None = None) -> Callable[[T], T]:
        """Class decorator: make the class known as `name`; `kind` defaults to the class attribute `kind`.

        Raises:
            UserError: the name belongs to another class already.
        """

        def decorate(cls: T) -> T:
            target = f"{cls.__module__}:{cls.__qualname__}"
            known = self._entries.get(name)
            if known is not None and known.target != target:
                raise UserError(
                    f"The name {name!r} is registered twice.",
                    [f"first: {known.target}", f"again: {target}"],
                    "choose another name for the second one",
                )
            own_kind: str = getattr(cls, "kind", "")
            self._entries[name] = Entry(kind or own_kind, target, cls)
            return cls

        return decorate

    def find(self, name: str, kind: str | None = None) -> type:
        """The class called `name`; "main:a,b" is a new class that mixes `a` and `b` into `main`.

        Raises:
            UnknownNameError: nothing (of that kind) has this name.
        """
        main, *mixins = (self._find_one(part, part_kind) for part, part_kind in _parts(name, kind))
        return type(name.replace(":", "."), (*mixins, main), {}) if mixins else main

    def names(self, kind: str | None = None) -> list[str]:
        """All names (of one kind), sorted; installed extensions are loaded for it."""
        self._load_entry_points()
        return sorted(name for name, entry in self._entries.items() if kind in (None, entry.kind))

    def kinds(self) -> set[str]:
        """All kinds that have a name."""
        return {entry.kind for entry in self._entries.values()}

    def check(self, name: str, kind: str | None = None, at: str = "") -> None:
        """Raise an UnknownNameError when `find` would; nothing is imported. `at` is the key that holds the
        name.
        """
        with asked_for_by(at):
            for part, part_kind in _parts(name, kind):
                self._entry(part, part_kind)

    def kind_of(self, name: str) -> str:
        """The kind of a registered name; empty if its class does not say."""
        return self._entry(name, None).kind

    def target_of(self, name: str) -> str:
        """Where the class of a name lives, "module:Class"; nothing is imported."""
        return self._entry(name, None).target

    def _find_one(self, name: str, kind: str | None) -> type:
        entry = self._entry(name, kind)
        if entry.cls is None:
            module, _, attribute = entry.target.partition(":")
            cls: type = getattr(importlib.import_module(module), attribute)
            entry = Entry(entry.kind, entry.target, cls)
            self._entries[name] = entry
        assert entry.cls is not None
        return entry.cls

    def _entry(self, name: str, kind: str | None) -> Entry:
        if name not in self._entries:
            self._load_entry_points()
        entry = self._entries.get(name)
        if entry is None or (entry.kind and kind not in (None, entry.kind)):
            raise self._unknown(name, kind, entry)
        return entry

    def _unknown(self, name: str, kind: str | None, entry: Entry | None) -> UnknownNameError:
        candidates = [other for other, known in self._entries.items() if kind in (None, known.kind)]
        near = difflib.get_close_matches(name, candidates, n=3)
        error = UnknownNameError(kind or "module", name, near, sorted(candidates))
        if entry is not None:
            error.details.append(f"{name!r} is a {entry.kind}")
        return error

    def _load_entry_points(self) -> None:
        """Import the installed extensions, once."""
        group, self._group = self._group, None
        if group is None:
            return
        from importlib.metadata import entry_points

        for point in entry_points(group=group):
            try:
                point.load()
            except Exception as err:  # an extension may fail in any way
                raise _broken_extension(point.name, err) from err


def _parts(name: str, kind: str | None) -> list[tuple[str, str | None]]:
    """The names in "main:a,b", each with the kind it must have; the mixed-in ones may be of any."""
    main, _, mixins = name.partition(":")
    return [(main, kind), *((part.strip(), None) for part in mixins.split(",") if part.strip())]


def load_extension(path: str | Path) -> ModuleType:
    """Import a folder (with `__init__.py`) or a `.py` file, which registers its modules by itself.

    Raises:
        MissingFileError: there is nothing to import at `path`.
        UserError: importing it failed; the message holds the extension's own error.
    """
    path = Path(path).expanduser().resolve()
    source = path / "__init__.py" if path.is_dir() else path
    if not source.is_file() or source.suffix != ".py":
        raise MissingFileError(source, "extension", hint="give a .py file, or a folder with an __init__.py")
    name = path.stem if path.is_file() else path.name
    loaded = sys.modules.get(name)
    if loaded is not None:
        return _same_extension(loaded, name, source)
    return _import_file(name, source, is_package=path.is_dir())


def _same_extension(loaded: ModuleType, name: str, source: Path) -> ModuleType:
    if getattr(loaded, "__file__", None) != str(source):
        raise UserError(f"The extension {name!r} has the name of another module.", [str(source)], "rename it")
    return loaded


def _import_file(name: str, source: Path, is_package: bool) -> ModuleType:
    folders = [str(source.parent)] if is_package else None
    spec = importlib.util.spec_from_file_location(name, source, submodule_search_locations=folders)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as err:
        del sys.modules[name]
        raise _broken_extension(name, err) from err
    return module


def _broken_extension(name: str, err: Exception) -> UserError:
    where = traceback.extract_tb(err.__traceback__)[-1]
    details = [f"{type(err).__name__}: {err}", f"at {where.filename}:{where.lineno}"]
    return UserError(f"The extension {name!r} could not be imported.", details)


registry = Registry(BUILTIN_MODULES, ENTRY_POINT_GROUP)
"""The registry of this process."""


def register(name: str, kind: str | None = None) -> Callable[[T], T]:
    """Class decorator: make the class known as `name` (see `Registry.register`)."""
    return registry.register(name, kind)


def find(name: str, kind: str | None = None) -> Any:
    """The class called `name` (see `Registry.find`)."""
    return registry.find(name, kind)


def names(kind: str | None = None) -> list[str]:
    """All registered names (see `Registry.names`)."""
    return registry.names(kind)
