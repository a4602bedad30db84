"""Every error that a user may see: what was asked, what was got, and the next action."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class MaquetteError(Exception):
    """An expected failure; `str()` of it is one screen of text and needs no traceback.

    Args:
        summary: what happened, one sentence.
        details: facts worth a line each.
        hint: what to do next.
    """

    exit_code: int = 1

    def __init__(self, summary: str, details: Sequence[str] = (), hint: str | None = None) -> None:
        super().__init__(summary)
        self.summary = summary
        self.details = list(details)
        self.hint = hint

    def __str__(self) -> str:
        lines = [self.summary, *(f"  {line}" for line in self.details)]
        if self.hint:
            lines.append(f"  Hint: {self.hint}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.args, self.__dict__))


class RunFailed(MaquetteError):
    """A run started and could not finish; the cause is named."""


class ProcessLost(RunFailed):
    """Another process of the run has ended, and this one cannot go on without it."""

    def __init__(self) -> None:
        super().__init__(
            "Another process of this run has ended.", hint="see what it said; then resume the run"
        )


class CollapseError(RunFailed):
    """The asset under optimisation became empty, solid or not finite.

    Args:
        cause: the named cause, for example "the density is zero everywhere".
        details: the measurements that show it.
        hint: the settings that usually cure it.
    """

    def __init__(self, cause: str, details: Sequence[str] = (), hint: str | None = None) -> None:
        super().__init__(f"The asset collapsed: {cause}.", details, hint)
        self.cause = cause


class UserError(MaquetteError):
    """A mistake in what was asked; nothing was started."""

    exit_code = 2


class ConfigError(UserError):
    """A configuration value that cannot be used.

    Args:
        key: full path of the key, for example "system.geometry.radius".
        got: the value that was given.
        expected: what would have been accepted, in words.
        hint: what to do next.
    """

    def __init__(self, key: str, got: object, expected: str, hint: str | None = None) -> None:
        super().__init__(f"Wrong value for {key}.", [f"got: {_shown(got)}", f"expected: {expected}"], hint)
        self.key = key
        self.got = got
        self.expected = expected


class UnknownKeyError(ConfigError):
    """A configuration key that nothing reads.

    Args:
        key: full path of the unknown key.
        near: known keys that look like it, best first; without prefix.
        known: all keys accepted at that place.
    """

    def __init__(self, key: str, near: Sequence[str] = (), known: Sequence[str] = ()) -> None:
        prefix, _, name = key.rpartition(".")
        place = prefix or "the configuration"
        hint = f"did you mean {_joined_or([_dotted(prefix, one) for one in near])}?" if near else None
        super().__init__(key, name, f"a key of {place}", hint)
        self.summary = f"Unknown key {key}."
        self.details = [f"{place} accepts: {', '.join(known)}"] if known and not near else []
        self.near = list(near)


class UnknownNameError(UserError):
    """A name that is not registered (or not offered) for that kind of thing.

    Args:
        kind: what was looked for, for example "geometry".
        name: the name that was given.
        near: known names that look like it, best first.
        known: all names of that kind, shown when none is near.
    """

    def __init__(self, kind: str, name: str, near: Sequence[str] = (), known: Sequence[str] = ()) -> None:
        hint = f"did you mean {_joined_or(near)}?" if near else None
        details = [f"known: {', '.join(known)}"] if known and not near else []
        super().__init__(f"There is no {kind} called {name!r}.", details, hint)
        self.kind = kind
        self.name = name
        self.near = list(near)


@contextmanager
def asked_for_by(key: str, unless: str = "") -> Iterator[None]:
    """Whatever a user did wrong inside the block is told with the key of the recipe that led to it, where the
    message has neither that key nor the text `unless`.
    """
    try:
        yield
    except UserError as err:
        if key and not any(words in str(err) for words in (key, unless or key)):
            err.details.append(f"asked for by {key}")
        raise


class MissingBackendError(UserError):
    """An optional package that this feature needs is not installed."""

    def __init__(self, package: str, hint: str) -> None:
        super().__init__(f"This needs the package {package!r}, which is not installed.", hint=hint)
        self.package = package


class MissingFileError(UserError):
    """A file or folder that was named does not exist.

    Args:
        path: where it was looked for.
        what: what it should have been, for example "recipe".
    """

    def __init__(self, path: str | Path, what: str, hint: str | None = None) -> None:
        super().__init__(f"The {what} was not found: {path}", hint=hint)
        self.path = Path(path)


class ModelUnavailableError(UserError):
    """A pretrained model that cannot be loaded here.

    Args:
        model_id: folder or hub name.
        reason: one clause, for example "it is gated".
        alternatives: names that would work.
    """

    def __init__(self, model_id: str, reason: str, alternatives: Sequence[str] = ()) -> None:
        hint = f"use {_joined_or(alternatives)} instead" if alternatives else None
        super().__init__(f"The model {model_id!r} is not available: {reason}.", hint=hint)
        self.model_id = model_id
        self.reason = reason
        self.alternatives = list(alternatives)


def _rebuild(cls: type[MaquetteError], args: tuple[object, ...], state: dict[str, object]) -> MaquetteError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def _dotted(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _joined_or(names: Sequence[str]) -> str:
    return " or ".join(names)


def _shown(value: object, limit: int = 200) -> str:
    text = f"{value!r} ({type(value).__name__})"
    return text if len(text) <= limit else f"{text[:limit]}..."
