"""Results that are typed for us and read like a mapping for everyone else."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self


@dataclass(kw_only=True, eq=False)
class MappingOutput:
    """Base of dataclasses that can also be read as `out["name"]` and spread as `**out`.

    A field that is None is absent from the mapping. Keys that the dataclass does not know live in `extras`
    and are read like the others.
    """

    extras: dict[str, Any] = field(default_factory=dict)
    """Further entries, by key."""

    def __getitem__(self, key: str) -> Any:
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        if key in self._field_names():
            setattr(self, key, value)
        else:
            self.extras[key] = value

    def __iter__(self) -> Iterator[str]:
        for name in self._field_names():
            if getattr(self, name) is not None:
                yield name
        yield from (key for key, value in self.extras.items() if value is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.get(key) is not None

    def get(self, key: str, default: Any = None) -> Any:
        """The entry, or `default` when it is absent or None."""
        value = getattr(self, key) if key in self._field_names() else self.extras.get(key)
        return default if value is None else value

    def keys(self) -> list[str]:
        """Names of everything that is not None."""
        return list(self)

    def items(self) -> list[tuple[str, Any]]:
        """Pairs of name and value of everything that is not None."""
        return [(key, self[key]) for key in self]

    def values(self) -> list[Any]:
        """Values of everything that is not None."""
        return [self[key] for key in self]

    def update(self, *others: Mapping[str, Any], **more: Any) -> None:
        """Set several entries at once, like a dictionary's method."""
        for other in (*others, more):
            for key, value in other.items():
                self[key] = value

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """A copy whose tensors (everything that has a `to`) are moved; takes the arguments of `Tensor.to`."""
        moved = {one.name: _moved(getattr(self, one.name), args, kwargs) for one in fields(self)}
        return replace(self, **moved)

    @classmethod
    def _field_names(cls) -> tuple[str, ...]:
        return tuple(one.name for one in fields(cls) if one.name != "extras")


def _moved(value: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {key: _moved(one, args, kwargs) for key, one in value.items()}
    return value.to(*args, **kwargs) if hasattr(value, "to") else value
