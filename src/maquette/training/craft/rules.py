"""Rules of the ``training:`` block that name parameters: what is frozen, and how weights begin."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING, OmegaConf

from maquette.core.errors import ConfigError
from maquette.core.structured import parse_structured

SCHEMES = (
    "kaiming_uniform", "kaiming_normal", "xavier_uniform", "xavier_normal", "orthogonal", "normal",
    "trunc_normal", "uniform", "zeros", "ones", "constant",
)  # fmt: skip


@dataclass(kw_only=True)
class FreezeRule:
    """Parameters that do not learn, for a while or for good."""

    pattern: str = MISSING
    """Dotted path, glob or ``re:REGEX``, as in ``system.optimizer.params``."""

    since: int = 0
    """First optimiser step at which they are frozen."""

    until: int | None = None
    """First optimiser step at which they learn again; null: never."""

    def __post_init__(self) -> None:
        if self.since < 0:
            raise ConfigError("training.freeze.since", self.since, "a step >= 0")
        if self.until is not None and self.until <= self.since:
            raise ConfigError("training.freeze.until", self.until, f"a step after {self.since}, or null")

    @property
    def for_good(self) -> bool:
        """Whether they never learn at all."""
        return self.since == 0 and self.until is None

    def holds_at(self, step: int) -> bool:
        """Whether they are frozen at an optimiser step."""
        return self.since <= step and (self.until is None or step < self.until)


@dataclass(kw_only=True)
class InitRule:
    """How parameters are drawn at the beginning, in place of what their module does."""

    pattern: str = MISSING
    """Dotted path, glob or ``re:REGEX``, as in ``system.optimizer.params``."""

    scheme: str = MISSING
    """One of ``kaiming_uniform``, ``kaiming_normal``, ``xavier_uniform``, ``xavier_normal``, ``orthogonal``,
    ``normal``, ``trunc_normal``, ``uniform``, ``zeros``, ``ones``, ``constant``."""

    args: dict[str, Any] = field(default_factory=dict)
    """Arguments of the scheme, as ``torch.nn.init`` names them: ``{gain: 0.5}``, ``{std: 0.02}``, ..."""

    def __post_init__(self) -> None:
        if self.scheme not in (*SCHEMES, MISSING):
            raise ConfigError("training.init.scheme", self.scheme, f"one of: {', '.join(SCHEMES)}")


def freeze_rules(given: list[Any]) -> list[FreezeRule]:
    """The rules of ``training.freeze``; a text alone freezes for good.

    Raises:
        ConfigError: an entry is neither a text nor a mapping of FreezeRule.
    """
    entries = [{"pattern": one} if isinstance(one, str) else one for one in given]
    return [_rule(FreezeRule, one, f"training.freeze[{i}]") for i, one in enumerate(entries)]


def init_rules(given: list[Any]) -> list[InitRule]:
    """The rules of ``training.init``, in their order; a later one wins.

    Raises:
        ConfigError: an entry is no mapping of InitRule.
    """
    return [_rule(InitRule, one, f"training.init[{i}]") for i, one in enumerate(given)]


def _rule(kind: type[Any], entry: Any, key: str) -> Any:
    if not isinstance(entry, Mapping):
        raise ConfigError(key, entry, "a mapping with a pattern")
    return OmegaConf.to_object(parse_structured(kind, entry, key))
